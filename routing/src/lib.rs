//! Which upstream next and why, when one is out, and how far service is degraded.
//!
//! ```text
//! outcomes, checks ──▶ breaker ─┐
//! first-token times ─▶ latency ─┼──▶ plan: candidates in order, with reasons ──▶ attempts (budget)
//! prompts, answers ──▶ affinity ┘                                                   │
//! ladder: L0 … L4, of what all of that says ◀───────────────────────────────────────┘
//! ```
//!
//! All of it is pure: told what was seen, with `now`, it says what follows. Absent on purpose:
//! clocks, sockets, random sources, HTTP, locks.

mod affinity;
mod breaker;
mod budget;
#[cfg(test)]
mod hedging;
mod ladder;
mod latency;
mod limit;
mod plan;
#[cfg(test)]
mod simulation;
mod window;

use std::fmt;

pub use affinity::{Affinity, Chain, Choosable, Pick, pick};
pub use breaker::{
    Breaker, BreakerSettings, BreakerView, Change, Evidence, Forced, Pass, Reason, Standing,
};
pub use budget::{Budget, BudgetSettings};
pub use ladder::{Cause, Component, Ladder, LadderSettings, Level, Seen, Step};
pub use latency::{Baseline, Pace, Slowness, outlier};
pub use limit::{Limit, LimitSettings};
pub use plan::{
    Asking, Candidate, Class, Kinds, LeftOut, Offers, Plan, Rung, Tried, View, Why, route,
};
pub use window::{Counts, Quantiles};

/// Names an upstream as long as the process runs; one that comes back later has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(pub u64);

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A moment for tests to count from.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests need one moment to begin with")]
fn start() -> std::time::Instant {
    std::time::Instant::now()
}
