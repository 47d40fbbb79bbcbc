//! Connections that wait for their next request. Each is looked at when it is taken, and all of them
//! now and then: one that a pod closed, or that lay too long, is closed here.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, ReadBuf};

/// Connections that wait, by where they lead to.
pub(in crate::upstream) struct Idle<S> {
    waiting: Mutex<Waiting<S>>,
    most: usize,
    timeout: Duration,
}

struct Waiting<S> {
    /// The latest at the back: it is taken first, so that those that are not needed grow old.
    by_key: HashMap<u64, VecDeque<(S, Instant)>>,
    total: usize,
}

impl<S: AsyncRead + Unpin> Idle<S> {
    /// At most `most` are kept, and none for longer than `timeout`.
    pub(in crate::upstream) fn new(most: usize, timeout: Duration) -> Self {
        let waiting = Mutex::new(Waiting { by_key: HashMap::new(), total: 0 });
        Self { waiting, most, timeout }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<S>> {
        // Nothing in here can panic half-way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection to `key`. Where there are too many, the one that lay longest there is
    /// closed; where there is none, this one.
    pub(in crate::upstream) fn put(&self, key: u64, stream: S, now: Instant) {
        let mut waiting = self.waiting();
        let full = waiting.total >= self.most;
        let line = waiting.by_key.entry(key).or_default();
        let closed = match full {
            true => line.pop_front(),
            false => None,
        };
        let kept = !full || closed.is_some();
        if kept {
            line.push_back((stream, now));
            waiting.total += usize::from(closed.is_none());
        }
        drop(waiting);
    }

    /// A connection to `key` that can be used, as far as can be seen.
    pub(in crate::upstream) fn take(&self, key: u64, now: Instant) -> Option<S> {
        loop {
            let mut waiting = self.waiting();
            let (mut stream, since) = waiting.by_key.get_mut(&key)?.pop_back()?;
            waiting.total -= 1;
            drop(waiting);
            if now.saturating_duration_since(since) < self.timeout && is_quiet(&mut stream) {
                return Some(stream);
            }
        }
    }

    /// Closes what lay too long, and what the other side has closed.
    pub(in crate::upstream) fn sweep(&self, now: Instant) {
        let mut closed = Vec::new();
        let mut waiting = self.waiting();
        for line in waiting.by_key.values_mut() {
            for (mut stream, since) in std::mem::take(line) {
                let young = now.saturating_duration_since(since) < self.timeout;
                match young && is_quiet(&mut stream) {
                    true => line.push_back((stream, since)),
                    false => closed.push(stream),
                }
            }
        }
        waiting.by_key.retain(|_, line| !line.is_empty());
        waiting.total -= closed.len();
        // Closing takes a system call each: not under the lock.
        drop(waiting);
    }
}

/// Whether nothing came: neither an end nor bytes that nobody asked for.
fn is_quiet(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut space = [0; 1];
    let mut came = ReadBuf::new(&mut space);
    let read: io::Result<()> =
        match Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut came) {
            std::task::Poll::Pending => return true,
            std::task::Poll::Ready(read) => read,
        };
    tracing::debug!(?read, "an idle connection to a pod has ended");
    false
}

#[cfg(test)]
mod tests {
    use nearhop_admin::clock;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn pair() -> (DuplexStream, DuplexStream) {
        duplex(64)
    }

    /// Connections that wait, as they are counted and as they lie there.
    fn counted(idle: &Idle<DuplexStream>) -> (usize, usize) {
        let waiting = idle.waiting();
        (waiting.total, waiting.by_key.values().map(VecDeque::len).sum())
    }

    #[tokio::test]
    async fn the_latest_is_taken_first_and_only_for_its_own_key() {
        let (idle, now) = (Idle::new(10, MINUTE), clock::now());
        let ((first, _far), (second, mut far)) = (pair(), pair());
        idle.put(1, first, now);
        idle.put(1, second, now);
        assert!(idle.take(2, now).is_none());
        idle.take(1, now).unwrap().write_all(b"x").await.unwrap();
        assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut far).await.unwrap(), b'x');
        assert!(idle.take(1, now).is_some() && idle.take(1, now).is_none());
    }

    #[tokio::test]
    async fn what_has_ended_or_spoke_or_lay_too_long_is_not_taken() {
        let (idle, now) = (Idle::new(10, MINUTE), clock::now());
        let ((closed, far), (spoke, mut loud), (old, _quiet)) = (pair(), pair(), pair());
        drop(far);
        loud.write_all(b"HTTP/1.1 408").await.unwrap();
        idle.put(1, old, now);
        idle.put(1, closed, now + MINUTE);
        idle.put(1, spoke, now + MINUTE);
        assert!(idle.take(1, now + MINUTE).is_none());
        assert_eq!(counted(&idle), (0, 0));
    }

    #[tokio::test]
    async fn no_more_are_kept_than_may_be_and_a_sweep_closes_the_rest() {
        let (idle, now) = (Idle::new(2, MINUTE), clock::now());
        let (near, far): (Vec<_>, Vec<_>) = (0..4).map(|_| pair()).unzip();
        for (key, stream) in [1, 1, 1, 2].into_iter().zip(near) {
            idle.put(key, stream, now);
        }
        assert_eq!(counted(&idle), (2, 2));
        drop(far);
        idle.sweep(now);
        assert_eq!(counted(&idle), (0, 0));
    }
}
