//! Whether a target is still there: when it was last heard, and what has failed since.
//!
//! A slow target is not a dead one: a head or a token is a sign of life, and so is that nothing was
//! asked.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A target of which nothing was heard for so long, though it was asked, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// So many failures without a word between them are no chance.
const FAILURES: u64 = 3;

/// What all workers heard.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    /// Milliseconds from the start.
    heard: AtomicU64,
    /// Questions that ended without a word since.
    failed: AtomicU64,
    outstanding: AtomicU64,
    /// Since when something is, milliseconds from the start.
    waiting_since: AtomicU64,
}

impl Pulse {
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            heard: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            outstanding: AtomicU64::new(0),
            waiting_since: AtomicU64::new(0),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Something came.
    pub(crate) fn beat(&self, now: Instant) {
        self.heard.store(self.millis(now), Ordering::Relaxed);
        self.failed.store(0, Ordering::Relaxed);
    }

    /// A question is asked.
    pub(crate) fn asked(&self, now: Instant) {
        if self.outstanding.fetch_add(1, Ordering::Relaxed) == 0 {
            self.waiting_since.store(self.millis(now), Ordering::Relaxed);
        }
    }

    /// A question has ended, and whether with a word.
    pub(crate) fn ended(&self, heard: bool) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        if !heard {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How long nothing was heard, where that is too long.
    pub(crate) fn silent(&self, now: Instant) -> Option<Duration> {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let now = self.millis(now);
        let since = |moment: u64| Duration::from_millis(now.saturating_sub(moment));
        let silence = since(of(&self.heard));
        let waits = of(&self.outstanding) > 0 && since(of(&self.waiting_since)) > SILENCE_MAX;
        (silence > SILENCE_MAX && (waits || of(&self.failed) >= FAILURES)).then_some(silence)
    }
}

#[cfg(test)]
mod tests {
    use nearhop_admin::clock;

    use super::*;

    #[test]
    fn only_a_target_that_was_asked_and_says_nothing_is_gone() {
        let began = clock::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let pulse = Pulse::new(began);
        assert_eq!(pulse.silent(at(60)), None, "nobody asked");
        // A stream that goes on for long.
        pulse.asked(at(60));
        pulse.beat(at(69));
        assert_eq!(pulse.silent(at(75)), None);
        assert_eq!(pulse.silent(at(80)), Some(Duration::from_secs(11)), "it stands still");
        pulse.ended(true);
        assert_eq!(pulse.silent(at(99)), None, "it has ended");
        // Refused connections end at once: three of them without a word between.
        for failed in 1..=3 {
            pulse.asked(at(100));
            pulse.ended(false);
            assert_eq!(pulse.silent(at(101)).is_some(), failed == 3);
        }
        pulse.beat(at(102));
        assert_eq!(pulse.silent(at(103)), None);
    }
}
