//! Where a client is and which region is next.
//!
//! ```text
//! mmdb ──▶ table (address → place, merged) ──▶ world ──▶ decide(query, world): regions in order, explained
//! looks ──▶ vote ──▶ quorum ──▶ states ─────────┘
//! ```
//!
//! All of that is pure: a [`World`] never changes, and [`decide()`] reads no clock, no socket and no
//! random source. [`Vantage`] looks at regions, exchanges views with others and knows their states; [`dns`] is the
//! server that answers with all this; the proxy will ask the same functions.

mod configured;
mod country;
mod decide;
mod diff;
pub mod dns;
mod explain;
#[cfg(test)]
mod generated;
mod hash;
mod mmdb;
mod place;
mod quorum;
mod spill;
mod table;
mod vantage;
mod vote;
mod world;

use std::fmt;

pub use configured::{ConfiguredError, world_of};
pub use decide::{Candidate, Decision, Query, Source, Verdict, decide};
pub use diff::{Change, Diff, diff};
pub use explain::{explanation, narration};
pub use hash::ClientPrefix;
pub use mmdb::MmdbError;
pub use place::Place;
pub use quorum::Tally;
pub use vantage::{Post, VOTES_PATH, Vantage, VantageMetrics};
pub use world::{AllDown, Health, Override, Region, Settings, State, World, WorldError};

/// A region's name, such as `eu-west`: ASCII letters, digits, `-`, `_` and `.`, never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(String);

impl RegionId {
    /// `None` where the name could not stand in a header or a DNS label.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        (!name.is_empty() && name.chars().all(fine)).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::RegionId;

    #[test]
    fn a_region_fits_into_a_header() {
        assert_eq!(RegionId::new("eu-west").unwrap().as_str(), "eu-west");
        assert!(RegionId::new("").is_none());
        assert!(RegionId::new("eu west").is_none());
    }
}
