//! Waits until a moment, to some tens of microseconds. A runtime's own timers are whole
//! milliseconds, longer than an answer from a cache takes.

use std::{
    io,
    time::{Duration, Instant},
};

use nearhop_admin::clock;

/// One waiter's alarm.
#[derive(Debug)]
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: tokio::io::unix::AsyncFd<Timer>,
}

/// With the descriptor that the runtime waits on.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Timer(nix::sys::timerfd::TimerFd);

#[cfg(target_os = "linux")]
impl std::os::fd::AsFd for Timer {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsRawFd for Timer {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsFd::as_fd(&self.0).as_raw_fd()
    }
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        #[expect(
            deprecated,
            reason = "no unsafe code for it: a timer keeps its descriptor until it is dropped"
        )]
        let timer = tokio::io::unix::AsyncFd::new(Timer(timer))?;
        Ok(Self { timer })
    }

    /// Returns at that moment; at once where it is over.
    pub(crate) async fn wait_until(&self, moment: Instant) -> io::Result<()> {
        use nix::sys::{
            time::TimeSpec,
            timerfd::{Expiration, TimerSetTimeFlags},
        };
        let left = moment.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Ok(());
        }
        let spec = Expiration::OneShot(TimeSpec::from_duration(left));
        self.timer.get_ref().0.set(spec, TimerSetTimeFlags::empty())?;
        loop {
            let mut ready = self.timer.readable().await?;
            match self.timer.get_ref().0.wait() {
                Ok(()) => return Ok(()),
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    pub(crate) async fn wait_until(&self, moment: Instant) -> io::Result<()> {
        tokio::time::sleep(moment.saturating_duration_since(clock::now())).await;
        Ok(())
    }
}

/// A moment after a start; far ones are never reached.
pub(crate) fn after(start: Instant, by: Duration) -> Instant {
    start.checked_add(by).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_never_rings_early_and_can_be_set_again() {
        let alarm = Alarm::new().unwrap();
        for micros in [300, 0, 1500] {
            let moment = clock::now() + Duration::from_micros(micros);
            alarm.wait_until(moment).await.unwrap();
            assert!(clock::now() >= moment);
        }
    }
}
