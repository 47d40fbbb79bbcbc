//! May the engine be asked now? A state machine that is told the time and what became of each call.
//!
//! Closed: calls pass; five failures in a row open it. Open: calls are refused for one second, then one
//! probe passes. A probe that is answered closes it; one that fails doubles the rest, up to thirty
//! seconds. A call that began before it opened changes nothing when it ends.

use std::time::{Duration, Instant};

/// So many failures in a row open it.
const ROW: u8 = 5;
/// The first rest.
const REST: Duration = Duration::from_secs(1);
/// The longest.
const REST_MAX: Duration = Duration::from_secs(30);

/// The breaker of one kind of call.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    row: u8,
    /// The next rest.
    rest: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, row: 0, rest: REST }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// No probe runs; the next may at this time.
    Open(Instant),
    /// The one probe runs.
    Probing,
}

/// The answer to a call that would like to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Pass,
    /// Go on: what becomes of this call decides for the others.
    Probe,
    /// Do not ask.
    Refused,
}

/// What became of a call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There was an answer that can be used.
    Answered,
    /// There was none.
    Failed,
    /// Nobody waited for it.
    Unknown,
}

impl Breaker {
    /// Asked before every call. Each `Pass` and `Probe` is followed by one [`tell`](Self::tell).
    pub(super) fn ask(&mut self, now: Instant) -> Verdict {
        match self.state {
            State::Closed => Verdict::Pass,
            State::Open(next) if now >= next => {
                self.state = State::Probing;
                Verdict::Probe
            }
            State::Open(_) | State::Probing => Verdict::Refused,
        }
    }

    /// What became of a call, which began with this verdict.
    pub(super) fn tell(&mut self, verdict: Verdict, outcome: Outcome, now: Instant) {
        match (verdict, outcome) {
            (Verdict::Refused, _) | (Verdict::Pass, Outcome::Unknown) => {}
            (Verdict::Probe, Outcome::Answered) => *self = Self::default(),
            (Verdict::Probe, Outcome::Failed) => self.open(now),
            // It says nothing of the engine: the next probe waits no longer than this one did.
            (Verdict::Probe, Outcome::Unknown) => {
                self.rest = (self.rest / 2).max(REST);
                self.open(now);
            }
            (Verdict::Pass, Outcome::Answered) if self.state == State::Closed => self.row = 0,
            (Verdict::Pass, Outcome::Failed) if self.state == State::Closed => {
                self.row += 1;
                if self.row >= ROW {
                    self.open(now);
                }
            }
            (Verdict::Pass, Outcome::Answered | Outcome::Failed) => {}
        }
    }

    /// Are calls refused?
    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    fn open(&mut self, now: Instant) {
        *self = Self {
            state: State::Open(now + self.rest),
            row: 0,
            rest: (self.rest * 2).min(REST_MAX),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each step: milliseconds since the last, and `+` answered, `-` failed, `?` unknown, or `x` refused.
    fn check(steps: &str, open: bool) {
        let mut now = nearhop_admin::clock::now();
        let mut breaker = Breaker::default();
        for step in steps.split_whitespace() {
            let (wait, what) = step.split_at(step.len() - 1);
            now += Duration::from_millis(wait.parse().unwrap_or(0));
            let verdict = breaker.ask(now);
            assert_eq!(verdict == Verdict::Refused, what == "x", "{step} in {steps}");
            let outcome = match what {
                "+" => Outcome::Answered,
                "-" => Outcome::Failed,
                "?" => Outcome::Unknown,
                _ => continue,
            };
            breaker.tell(verdict, outcome, now);
        }
        assert_eq!(breaker.is_open(), open, "{steps}");
    }

    #[test]
    fn five_failures_in_a_row_open_it() {
        check("- - - -", false);
        check("- - - - + - - - -", false);
        check("- - - - ? -", true);
        check("- - - - - x 999x", true);
    }

    #[test]
    fn one_answered_probe_closes_it_and_the_next_rest_is_short_again() {
        check("- - - - - 1000+", false);
        check("- - - - - 1000- 2000+ - - - - - 999x 1+", false);
    }

    #[test]
    fn a_failed_probe_doubles_the_rest_up_to_thirty_seconds() {
        check("- - - - - 1000- 1999x 1- 3999x 1- 7999x 1- 15999x 1- 29999x 1- 29999x 1+", false);
    }

    #[test]
    fn a_probe_that_nobody_waited_for_rests_as_long_again() {
        check("- - - - - 1000? 999x 1+", false);
        check("- - - - - 1000- 2000? 1999x 1- 3999x 1+", false);
    }

    #[test]
    fn one_probe_at_a_time_and_earlier_calls_do_not_matter() {
        let mut now = nearhop_admin::clock::now();
        let mut breaker = Breaker::default();
        for _ in 0..ROW {
            let verdict = breaker.ask(now);
            breaker.tell(verdict, Outcome::Failed, now);
        }
        now += REST;
        assert_eq!(breaker.ask(now), Verdict::Probe);
        now += REST * 9;
        assert_eq!(breaker.ask(now), Verdict::Refused);
        breaker.tell(Verdict::Pass, Outcome::Answered, now); // begun before it opened
        assert_eq!(breaker.ask(now), Verdict::Refused);
        breaker.tell(Verdict::Probe, Outcome::Answered, now);
        assert_eq!(breaker.ask(now), Verdict::Pass);
    }
}
