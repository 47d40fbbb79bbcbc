//! Whether a pod gets traffic. Pure: told what was seen, with `now`, it says what changes.
//!
//! Two kinds of evidence. *Active* checks run once a second whatever happens; two failures in a
//! row take a pod out. *Passive* evidence comes from requests: a refused or broken connection
//! ejects at once, time-outs when they repeat. A failed check of a pod that owes somebody an answer
//! and has said nothing since the check began is both, and ejects without waiting for the second.
//!
//! An ejected pod comes back with the first check that succeeds after its hold has passed. The hold
//! doubles with each ejection that no success came between, up to 30 s, so that a pod which passes
//! checks and breaks requests does not flap.

use std::time::{Duration, Instant};

use super::outcome::Evidence;

/// The health of one pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    /// Pingora's verdict over the active checks.
    probed_down: bool,
    ejected: Option<Ejection>,
    /// Ejections without a success between them.
    strikes: u32,
    /// Time-outs in a row.
    slow: u32,
}

#[derive(Debug, Clone, Copy)]
struct Ejection {
    reason: Reason,
    until: Instant,
}

/// Why a pod was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its connection was refused or broke, or it refuses what it should serve.
    Dead,
    /// Requests timed out on it, twice in a row.
    Slow,
    /// A check failed, and requests that wait on it heard nothing either.
    Silent,
    /// Two checks in a row failed.
    Probes,
}

impl Reason {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Probes => "probes",
        }
    }
}

/// Whether a pod gets traffic, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Ready,
    Out(Reason),
}

const HOLD: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(30);
const SLOW_MAX: u32 = 2;

impl Health {
    pub(crate) fn standing(&self) -> Standing {
        match self.ejected {
            Some(ejection) => Standing::Out(ejection.reason),
            None if self.probed_down => Standing::Out(Reason::Probes),
            None => Standing::Ready,
        }
    }

    /// What a finished attempt says. `last` is whether no other pod is ready: evidence that may be
    /// our own machine's slowness never takes out the last pod. Returns the reason of a new
    /// ejection.
    pub(crate) fn attempt(
        &mut self,
        evidence: Evidence,
        last: bool,
        now: Instant,
    ) -> Option<Reason> {
        match evidence {
            Evidence::Neutral => None,
            Evidence::Good => {
                (self.strikes, self.slow) = (0, 0);
                None
            }
            Evidence::Dead => self.eject(Reason::Dead, now),
            Evidence::Slow => {
                self.slow += 1;
                if self.slow < SLOW_MAX || last { None } else { self.eject(Reason::Slow, now) }
            }
        }
    }

    /// A check failed. `silent` is whether requests wait on the pod and none heard from it since
    /// the check began.
    pub(crate) fn probe_failed(
        &mut self,
        silent: bool,
        last: bool,
        now: Instant,
    ) -> Option<Reason> {
        if silent && !last { self.eject(Reason::Silent, now) } else { None }
    }

    /// A check that began at `began` succeeded. Returns whether an ejection ended.
    pub(crate) fn probe_succeeded(&mut self, began: Instant) -> bool {
        let over = self.ejected.is_some_and(|ejection| began >= ejection.until);
        if over {
            self.ejected = None;
            self.slow = 0;
        }
        over
    }

    /// The verdict over the active checks changed. Returns whether that took the pod out.
    pub(crate) fn probed(&mut self, up: bool) -> Option<Reason> {
        let was_ready = self.standing() == Standing::Ready;
        self.probed_down = !up;
        (was_ready && !up).then_some(Reason::Probes)
    }

    fn eject(&mut self, reason: Reason, now: Instant) -> Option<Reason> {
        if self.ejected.is_some() {
            // Requests that were on their way say nothing new.
            return None;
        }
        let hold = HOLD.saturating_mul(1 << self.strikes.min(5)).min(HOLD_MAX);
        self.strikes += 1;
        self.slow = 0;
        self.ejected = Some(Ejection { reason, until: now + hold });
        Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> (Health, Instant) {
        (Health::default(), nearhop_admin::clock::now())
    }

    #[test]
    fn a_dead_connection_ejects_at_once_even_the_last_pod() {
        let (mut health, now) = start();
        assert_eq!(health.attempt(Evidence::Dead, true, now), Some(Reason::Dead));
        assert_eq!(health.standing(), Standing::Out(Reason::Dead));
        assert_eq!(health.attempt(Evidence::Dead, true, now), None, "one ejection is one event");
    }

    #[test]
    fn time_outs_eject_when_they_repeat_and_never_the_last_pod() {
        let (mut health, now) = start();
        assert_eq!(health.attempt(Evidence::Slow, false, now), None);
        health.attempt(Evidence::Good, false, now);
        assert_eq!(health.attempt(Evidence::Slow, false, now), None, "a success between");
        assert_eq!(health.attempt(Evidence::Slow, true, now), None, "the last pod");
        assert_eq!(health.attempt(Evidence::Slow, false, now), Some(Reason::Slow));
    }

    #[test]
    fn a_failed_check_of_a_silent_pod_ejects_without_a_second_check() {
        let (mut health, now) = start();
        assert_eq!(health.probe_failed(false, false, now), None);
        assert_eq!(health.probe_failed(true, true, now), None);
        assert_eq!(health.probe_failed(true, false, now), Some(Reason::Silent));
    }

    #[test]
    fn a_check_that_began_after_the_hold_brings_a_pod_back() {
        let (mut health, now) = start();
        health.attempt(Evidence::Dead, false, now);
        assert!(!health.probe_succeeded(now), "this check began before the ejection's end");
        assert!(health.probe_succeeded(now + SECOND));
        assert_eq!(health.standing(), Standing::Ready);
    }

    #[test]
    fn a_pod_that_breaks_requests_and_passes_checks_is_held_longer_each_time() {
        let (mut health, mut now) = start();
        for hold in [1, 2, 4, 8, 16, 30, 30] {
            assert!(health.attempt(Evidence::Dead, false, now).is_some());
            assert!(!health.probe_succeeded(now + hold * SECOND - Duration::from_millis(1)));
            now += hold * SECOND;
            assert!(health.probe_succeeded(now));
        }
        health.attempt(Evidence::Good, false, now);
        health.attempt(Evidence::Dead, false, now);
        assert!(health.probe_succeeded(now + SECOND), "a success forgives");
    }

    #[test]
    fn the_checks_verdict_takes_out_and_brings_back() {
        let (mut health, _) = start();
        assert_eq!(health.probed(false), Some(Reason::Probes));
        assert_eq!(health.standing(), Standing::Out(Reason::Probes));
        assert_eq!(health.probed(true), None);
        assert_eq!(health.standing(), Standing::Ready);
    }
}
