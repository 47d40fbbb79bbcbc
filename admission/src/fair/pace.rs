//! How fast places become free, and how fast requests come.
//!
//! Counts that fade with time, so that what is known follows what happens. Absent on purpose: the
//! number of places given back a second. It says how much was asked, not how much could be done; a
//! quiet minute would make the first burst after it look hopeless.

use std::time::{Duration, Instant};

/// How long work done stays in mind: some answers of a slow model, and no more, as pods come and
/// go.
const WORK_KEPT: Duration = Duration::from_secs(10);
/// How long arrivals stay in mind: a flood that has ended shall not be feared for long.
const ARRIVALS_KEPT: Duration = Duration::from_secs(2);

/// What is left of a count after `passed`.
fn faded(passed: Duration, kept: Duration) -> f64 {
    (-passed.as_secs_f64() / kept.as_secs_f64()).exp()
}

/// How often one place becomes free while it is used: places given back, for the time that places
/// were held. A burst of them is divided by all the time that it was worked on, and a place that
/// hangs makes the rate fall without ever being given back.
#[derive(Debug, Default)]
pub(super) struct Pace {
    given_back: f64,
    /// Seconds for which places were held, of all of them together.
    held_seconds: f64,
    at: Option<Instant>,
    /// Whether anything was given back yet. A count that faded says the same as none.
    known: bool,
}

impl Pace {
    /// Time passes with so many places held. Nothing is forgotten while nothing is held.
    pub(super) fn pass(&mut self, held: usize, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = self.at.max(Some(now));
        if held > 0 {
            let left = faded(passed, WORK_KEPT);
            self.given_back *= left;
            self.held_seconds *= left;
            self.held_seconds += held as f64 * WORK_KEPT.as_secs_f64() * (1.0 - left);
        }
    }

    /// A place was given back, by somebody who used it.
    pub(super) fn give_back(&mut self) {
        self.given_back += 1.0;
        self.known = true;
    }

    /// A second, of one place; `None` where nothing is known yet.
    pub(super) fn of_a_place(&self) -> Option<f64> {
        // A place that was given back at once was held for some time all the same.
        self.known.then(|| self.given_back / self.held_seconds.max(1e-6))
    }
}

/// How often requests come.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    count: f64,
    at: Option<Instant>,
}

impl Arrivals {
    fn count(&self, now: Instant) -> f64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.count * faded(passed, ARRIVALS_KEPT)
    }

    /// One came.
    pub(super) fn take(&mut self, now: Instant) {
        self.count = self.count(now) + 1.0;
        self.at = self.at.max(Some(now));
    }

    /// A second, at least. The count scatters by the root of its half; two of that are taken off,
    /// so that chance alone refuses nobody where just as many come as are served.
    pub(super) fn a_second(&self, now: Instant) -> f64 {
        let count = self.count(now);
        (count - (2.0 * count).sqrt()).max(0.0) / ARRIVALS_KEPT.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use nearhop_admin::clock;

    use super::*;

    /// The rate after each place of `held` was given back every `every_ms`, all at once, for a
    /// minute, and `then` passed.
    fn learned(held: usize, every_ms: u64, then: impl FnOnce(&mut Pace, Instant)) -> f64 {
        let (mut pace, mut now) = (Pace::default(), clock::now());
        pace.pass(0, now);
        for _ in 0..60_000 / every_ms {
            now += Duration::from_millis(every_ms);
            pace.pass(held, now);
            (0..held).for_each(|_| pace.give_back());
        }
        then(&mut pace, now);
        pace.of_a_place().unwrap()
    }

    fn check(rate: f64, expected: f64) {
        assert!((rate / expected - 1.0).abs() < 0.06, "{rate}, not {expected}");
    }

    #[test]
    fn what_a_place_does_is_known_however_many_are_used() {
        check(learned(1, 200, |_, _| ()), 5.0);
        check(learned(100, 200, |_, _| ()), 5.0);
        check(learned(10, 1_000, |_, _| ()), 1.0);
    }

    #[test]
    fn quiet_forgets_nothing_and_a_standstill_is_seen() {
        let hour = Duration::from_secs(3_600);
        check(learned(10, 200, |pace, now| pace.pass(0, now + hour)), 5.0);
        check(learned(10, 200, |pace, now| pace.pass(10, now + WORK_KEPT)), 5.0 / 1f64.exp());
    }

    #[test]
    fn nothing_is_known_before_something_was_given_back() {
        let (mut pace, now) = (Pace::default(), clock::now());
        pace.pass(0, now);
        pace.pass(5, now + WORK_KEPT);
        assert_eq!(pace.of_a_place(), None);
    }

    #[test]
    fn arrivals_are_rather_fewer_than_more_and_soon_forgotten() {
        let (mut arrivals, mut now) = (Arrivals::default(), clock::now());
        assert!(arrivals.a_second(now) < f64::EPSILON);
        for _ in 0..2_000 {
            now += Duration::from_millis(10);
            arrivals.take(now);
        }
        let rate = arrivals.a_second(now);
        assert!((85.0..100.0).contains(&rate), "{rate}");
        assert!(arrivals.a_second(now + ARRIVALS_KEPT * 5) < 0.5);
    }
}
