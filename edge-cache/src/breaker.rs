//! May somebody outside be asked now: a shard, the embedder, the region's tier? A state machine that is told the time and what became of each call.
//!
//! Closed: calls pass. It opens after three failures in a row, or when more than half of the last twenty
//! calls failed. Open: calls are refused, except for one probe a second; the probe that is answered
//! closes it. A call that began before it opened changes nothing when it ends.

use std::time::{Duration, Instant};

/// So many failures in a row open it.
const ROW: u8 = 3;
/// Of so many calls, more than half must fail.
const WINDOW: u8 = 20;
/// The time between probes.
const REST: Duration = Duration::from_secs(1);

/// The breaker of one who is asked, or of one kind of call.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: State,
    /// The last calls, newest in the lowest bit; a one failed.
    recent: u32,
    seen: u8,
    row: u8,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    /// No probe runs; the next may at this time.
    Open(Instant),
    /// The one probe runs.
    Probing,
}

/// The answer to a call that would like to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Pass,
    /// Go on: what becomes of this call decides for the others.
    Probe,
    /// Do not ask.
    Refused,
}

/// What became of a call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was an answer, if only a refusal.
    Answered,
    /// There was none, or none that can be used.
    Failed,
    /// Nobody waited for the answer.
    Unknown,
}

impl Breaker {
    /// Asked before every call. Each `Pass` and `Probe` is followed by one [`tell`](Self::tell).
    pub(crate) fn ask(&mut self, now: Instant) -> Verdict {
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
    pub(crate) fn tell(&mut self, verdict: Verdict, outcome: Outcome, now: Instant) {
        match (verdict, outcome) {
            (Verdict::Probe, Outcome::Answered) => *self = Self::default(),
            (Verdict::Probe, Outcome::Failed | Outcome::Unknown) => {
                self.state = State::Open(now + REST);
            }
            (Verdict::Refused, _) | (Verdict::Pass, Outcome::Unknown) => {}
            (Verdict::Pass, outcome) if self.state == State::Closed => {
                self.count(outcome == Outcome::Failed);
                if self.row >= ROW || self.mostly_failed() {
                    *self = Self { state: State::Open(now + REST), ..Self::default() };
                }
            }
            (Verdict::Pass, _) => {}
        }
    }

    /// Are calls refused?
    pub(crate) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    fn count(&mut self, failed: bool) {
        self.row = if failed { self.row + 1 } else { 0 };
        self.recent = (self.recent << 1 | u32::from(failed)) & ((1 << WINDOW) - 1);
        self.seen = (self.seen + 1).min(WINDOW);
    }

    fn mostly_failed(&self) -> bool {
        self.seen == WINDOW && self.recent.count_ones() * 2 > u32::from(WINDOW)
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
    fn three_failures_in_a_row_open_it() {
        check("- -", false);
        check("- - + - -", false);
        check("- - ? -", true);
        check("- - - x 999x", true);
    }

    #[test]
    fn one_answered_probe_closes_it() {
        check("- - - 1000+", false);
        check("- - - 1000+ - - +", false);
    }

    #[test]
    fn a_probe_without_an_answer_rests_again() {
        check("- - - 1000- x 999x 1-", true);
        check("- - - 1000? x 999x 1+", false);
    }

    #[test]
    fn more_than_half_of_twenty_open_it() {
        let half = "- + ".repeat(10);
        check(&half, false);
        check(&format!("{half} - -"), true);
        check(&"- - + ".repeat(6), false); // eighteen: too few to judge
        check(&format!("{} + -", "- - + ".repeat(6)), true);
    }

    #[test]
    fn one_probe_at_a_time() {
        let mut now = nearhop_admin::clock::now();
        let mut breaker = Breaker::default();
        for _ in 0..3 {
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
