//! Proof: scenarios of load against a running service, with what fails meanwhile, and reports of
//! what was measured.
//!
//! ```text
//!  Scenario ─▶ schedule ─▶ crowd ─▶ worker ─▶ exchange ─▶ Record ─▶ tally ─▶ verdict ─▶ report
//!  (conf)      when        who,     a thread,  one          what       sums     bounds,    text, JSON,
//!              (pure)      what     on time    request      became     (pure)   criteria   page
//!                          (pure)                           of it               (pure)
//!      beside it: places (DNS), chaos (what fails), watch (the target's own metrics), canary (purges)
//! ```
//!
//! Absent on purpose: several machines that send together. A run says how late it was itself; where
//! that is too late, run it on more machines, each with its part of `scale`.

pub mod action;
mod alarm;
mod canary;
mod capacity;
mod chaos;
mod connections;
pub mod control;
mod corpus;
mod crowd;
mod exchange;
mod latency;
mod places;
mod progress;
mod pulse;
mod record;
mod report;
mod run;
mod schedule;
mod tally;
mod trace;
mod verdict;
mod watch;
mod worker;
pub mod world;

pub use canary::Purges;
pub use capacity::{Costs, Need, PathCosts};
pub use latency::Summary;
pub use report::{
    Ended, Event, Generator, KindReport, Overall, Report, SecondReport, SourceReport,
};
pub use run::{LoadError, Options, check, run};
pub use trace::TraceError;
pub use verdict::{Judged, Part, Row, Verdict};
