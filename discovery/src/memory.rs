//! What an answer changes, and when to ask again.
//!
//! | the name server | what was known | asked again after |
//! |---|---|---|
//! | has records | is replaced | their TTL |
//! | says that there are none | stays; at the third time in a row there is nothing | its negative TTL, or 5 s |
//! | fails, or is silent | stays, for ever | 1, 2, 4, 8, 16, then 30 s |
//!
//! Why a third time: a name server that has just started, or has lost its own source, says that there
//! is nothing, and so says every cache that asked it. An answer that comes sooner than the TTL of the
//! one before is the same one out of a cache and is not counted. What this costs: a pool that was
//! really scaled to nothing keeps its pods for two negative TTLs. They refuse connections, which
//! health checks see at once.
//!
//! Absent on purpose: a clock, and any doubt about an answer that has records. Ten pods that become
//! two are an ordinary day.

use std::time::{Duration, Instant};

use crate::trouble::Trouble;

/// However long an answer may be kept, it is asked for as often as this, and no oftener.
pub(crate) const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// When to ask again after "nothing" without a TTL.
const NOTHING: Duration = Duration::from_secs(5);
/// The longest wait after failures.
const FAILED_MAX: Duration = Duration::from_secs(30);
/// How often in a row a name server must say that there is nothing.
const CERTAIN: u32 = 3;

/// What was said to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said<T> {
    /// There are these.
    There { records: Vec<T>, ttl: Duration },
    /// NXDOMAIN, or no record of the kind.
    Nothing { ttl: Option<Duration> },
    /// Nobody knows.
    Failed(Trouble),
}

/// What is known of one question's answer.
#[derive(Debug)]
pub(crate) struct Memory<T> {
    known: Vec<T>,
    answered: bool,
    nothings: u32,
    failures: u32,
    due: Instant,
}

impl<T: Ord> Memory<T> {
    /// Nothing is known, and to be asked for at once.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { known: Vec::new(), answered: false, nothings: 0, failures: 0, due: now }
    }

    /// What is known: sorted, each once.
    pub(crate) fn known(&self) -> &[T] {
        &self.known
    }

    /// Whether anybody ever knew an answer, if only that there is nothing.
    pub(crate) const fn answered(&self) -> bool {
        self.answered
    }

    /// Whether anything was ever heard, if only a failure.
    pub(crate) const fn heard(&self) -> bool {
        self.answered || self.failures > 0
    }

    /// Whether the last that was heard was a failure.
    pub(crate) const fn failing(&self) -> bool {
        self.failures > 0
    }

    /// When to ask again.
    pub(crate) const fn due(&self) -> Instant {
        self.due
    }

    /// Takes in what was said.
    pub(crate) fn hear(&mut self, said: Said<T>, now: Instant) {
        match said {
            Said::There { mut records, ttl } => {
                records.sort();
                records.dedup();
                self.known = records;
                (self.answered, self.nothings, self.failures) = (true, 0, 0);
                self.due = now + clamped(ttl);
            }
            // Out of a cache; asked for because another question was due.
            Said::Nothing { .. } if self.answered && now < self.due => {}
            Said::Nothing { ttl } => {
                (self.answered, self.failures) = (true, 0);
                self.nothings = self.nothings.saturating_add(1);
                if self.nothings >= CERTAIN {
                    self.known.clear();
                }
                self.due = now + clamped(ttl.unwrap_or(NOTHING));
            }
            Said::Failed(_) => {
                self.nothings = 0;
                self.due = now + backoff(self.failures);
                self.failures = self.failures.saturating_add(1);
            }
        }
    }
}

fn clamped(ttl: Duration) -> Duration {
    ttl.clamp(AGAIN.0, AGAIN.1)
}

/// After the first failure 1 s, and twice as long after each that follows.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(5)).min(FAILED_MAX)
}

#[cfg(test)]
mod tests;
