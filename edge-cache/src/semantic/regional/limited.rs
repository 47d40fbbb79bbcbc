//! Limits around any engine: how long, how many at once, and whether at all.
//!
//! Look-ups and writes have a breaker each: writes that succeed within seconds would otherwise keep the
//! breaker closed for look-ups, none of which is answered in milliseconds.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nearhop_admin::clock;
use tokio::{sync::Semaphore, time::timeout};

use super::{Doing, Neighbour, Point, Purged, Regional, Trouble, Wanted};
use crate::breaker::{Breaker, Outcome, Verdict};

/// How long, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A look-up, all of it: a request waits for it.
    pub look_up: Duration,
    /// Look-ups at once; others are refused.
    pub look_ups_max: usize,
    /// A put or a purge, for which no request waits.
    pub write: Duration,
    /// Writes at once; others are refused.
    pub writes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            look_up: Duration::from_millis(8),
            look_ups_max: 32,
            write: Duration::from_secs(2),
            writes_max: 16,
        }
    }
}

/// An engine that nobody waits for too long.
pub struct Limited {
    engine: Arc<dyn Regional>,
    look_ups: Gate,
    writes: Gate,
}

impl std::fmt::Debug for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limited").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

impl Limited {
    /// Puts limits around an engine.
    #[must_use]
    pub fn new(engine: Arc<dyn Regional>, limits: Limits) -> Self {
        Self {
            engine,
            look_ups: Gate::new(limits.look_up, limits.look_ups_max),
            writes: Gate::new(limits.write, limits.writes_max),
        }
    }

    /// Are look-ups refused at present?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.look_ups.breaker(|breaker| breaker.is_open())
    }
}

impl Regional for Limited {
    fn nearest<'a>(&'a self, wanted: Wanted<'a>) -> Doing<'a, Vec<Neighbour>> {
        Box::pin(self.look_ups.pass(move || self.engine.nearest(wanted)))
    }

    fn put(&self, point: Point) -> Doing<'_, ()> {
        Box::pin(self.writes.pass(move || self.engine.put(point)))
    }

    fn purge(&self, what: Purged) -> Doing<'_, ()> {
        Box::pin(self.writes.pass(move || self.engine.purge(what)))
    }
}

/// What calls of one kind go through: so many at once, each for so long, and none for a while where
/// they fail again and again.
pub struct Gate {
    within: Duration,
    slots: Semaphore,
    breaker: Mutex<Breaker>,
}

impl Gate {
    /// Calls of at most `within`, `most` at once.
    #[must_use]
    pub fn new(within: Duration, most: usize) -> Self {
        Self { within, slots: Semaphore::new(most), breaker: Mutex::default() }
    }

    /// Calls, where that may be.
    ///
    /// # Errors
    /// [`Trouble`]: the call's own, or that it was late, or not made.
    pub async fn pass<'a, T>(&self, call: impl FnOnce() -> Doing<'a, T>) -> Result<T, Trouble> {
        let Ok(_slot) = self.slots.try_acquire() else { return Err(Trouble::Busy) };
        let verdict = self.breaker(|breaker| breaker.ask(clock::now()));
        if verdict == Verdict::Refused {
            return Err(Trouble::Open);
        }
        let mut ticket = Ticket { gate: self, verdict, outcome: Outcome::Unknown };
        let answer = timeout(self.within, call()).await.unwrap_or(Err(Trouble::Late));
        ticket.outcome = if answer.is_ok() { Outcome::Answered } else { Outcome::Failed };
        answer
    }

    fn breaker<R>(&self, act: impl FnOnce(&mut Breaker) -> R) -> R {
        // What is in it is whole at every moment.
        act(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A call that was let through: the breaker hears of its end even if nobody waits for it.
struct Ticket<'a> {
    gate: &'a Gate,
    verdict: Verdict,
    outcome: Outcome,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let (verdict, outcome) = (self.verdict, self.outcome);
        self.gate.breaker(|breaker| breaker.tell(verdict, outcome, clock::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;
    use crate::semantic::Partition;

    /// Does as told, and counts how often it was asked.
    #[derive(Default)]
    struct Fake {
        does: Mutex<Does>,
        asked: AtomicUsize,
    }

    #[derive(Default, Clone, Copy)]
    enum Does {
        #[default]
        Answer,
        Fail,
        Hang,
    }

    impl Fake {
        fn now(&self, does: Does) {
            *self.does.lock().unwrap() = does;
        }

        fn call<T: Default + Send + 'static>(&self) -> Doing<'_, T> {
            Box::pin(async {
                self.asked.fetch_add(1, SeqCst);
                let does = *self.does.lock().unwrap();
                match does {
                    Does::Answer => Ok(T::default()),
                    Does::Fail => Err(Trouble::failed("told to")),
                    Does::Hang => std::future::pending().await,
                }
            })
        }
    }

    impl Regional for Fake {
        fn nearest<'a>(&'a self, _: Wanted<'a>) -> Doing<'a, Vec<Neighbour>> {
            self.call()
        }

        fn put(&self, _: Point) -> Doing<'_, ()> {
            self.call()
        }

        fn purge(&self, _: Purged) -> Doing<'_, ()> {
            self.call()
        }
    }

    fn limited() -> (Limited, Arc<Fake>) {
        let fake = Arc::new(Fake::default());
        let limits = Limits { look_ups_max: 2, ..Limits::default() };
        (Limited::new(Arc::clone(&fake) as Arc<dyn Regional>, limits), fake)
    }

    const WANTED: Wanted<'_> =
        Wanted { partition: Partition([0; 16]), vector: &[1.0], floor: 0.0, most: 1 };

    async fn look_up(limited: &Limited) -> &'static str {
        limited.nearest(WANTED).await.map_or_else(|trouble| trouble.name(), |_| "answered")
    }

    async fn purge(limited: &Limited) -> &'static str {
        limited.purge(Purged::All).await.map_or_else(|trouble| trouble.name(), |()| "answered")
    }

    #[tokio::test]
    async fn what_hangs_is_late_and_a_write_has_a_limit_of_its_own() {
        let fake = Arc::new(Fake::default());
        fake.now(Does::Hang);
        let limits = Limits { write: Duration::from_millis(20), ..Limits::default() };
        let limited = Limited::new(fake, limits);
        let mut order = vec![];
        let (mut look_up, mut write) = (limited.nearest(WANTED), limited.purge(Purged::All));
        while order.len() < 2 {
            tokio::select! {
                biased;
                said = &mut look_up, if !order.contains(&"look-up") => {
                    assert_eq!(said.unwrap_err(), Trouble::Late);
                    order.push("look-up");
                }
                said = &mut write, if !order.contains(&"write") => {
                    assert_eq!(said.unwrap_err(), Trouble::Late);
                    order.push("write");
                }
            }
        }
        assert_eq!(order, ["look-up", "write"]);
    }

    #[tokio::test]
    async fn more_look_ups_than_slots_are_refused_and_nothing_is_asked() {
        let (limited, fake) = limited();
        fake.now(Does::Hang);
        let said = tokio::join!(look_up(&limited), look_up(&limited), look_up(&limited));
        assert_eq!(said, ("late", "late", "busy"));
        assert_eq!(fake.asked.load(SeqCst), 2);
    }

    #[tokio::test]
    async fn failed_look_ups_open_the_breaker_for_look_ups_and_not_for_writes() {
        let (limited, fake) = limited();
        fake.now(Does::Fail);
        for _ in 0..3 {
            assert_eq!(look_up(&limited).await, "failed");
        }
        fake.now(Does::Answer);
        assert!(limited.is_open());
        assert_eq!(look_up(&limited).await, "open");
        assert_eq!(fake.asked.load(SeqCst), 3, "it is not asked");
        assert_eq!(purge(&limited).await, "answered");
    }

    #[tokio::test]
    async fn a_call_that_is_dropped_gives_its_slot_back_and_is_no_failure() {
        let (limited, fake) = limited();
        fake.now(Does::Hang);
        for _ in 0..9 {
            let mut call = limited.nearest(WANTED);
            std::future::poll_fn(|context| {
                assert!(call.as_mut().poll(context).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        fake.now(Does::Answer);
        assert_eq!(look_up(&limited).await, "answered");
    }
}
