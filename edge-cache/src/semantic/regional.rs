//! The vectors of a whole region: what its tier does, whichever engine does it.
//!
//! ```text
//!   a look-up ──▶ Limited: a slot, the breaker, 8 ms ──▶ an engine (Qdrant): its answer, judged again
//! ```
//!
//! Nothing depends on it: each call ends in an answer or a named [`Trouble`], and there is one thing to
//! do about each trouble, which is to go on without. What an engine says is data to be judged: the
//! partition of each neighbour is compared with the one that was asked for, and `sealed` is the only part
//! of it that nobody else could have written. Seal it for its partition and id, and seal in it whatever a
//! decision rests on.
//!
//! Absent on purpose: what an answer is, whether it may be served, and the queue of those that wait to be
//! written.

mod limited;
pub mod qdrant;

use std::{fmt, pin::Pin};

pub use limited::{Gate, Limited, Limits};

use super::site::Partition;

/// What a point can be purged by: keyed digests, none of which is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Whose it is.
    pub tenant: u64,
    /// Who of them may read it.
    pub scope: u64,
    /// The weights that answered.
    pub model: u64,
    /// The declared session; 0 is none.
    pub session: u64,
}

/// One question with its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Stable: the same question of the same partition replaces.
    pub id: u128,
    /// Where it may be found.
    pub partition: Partition,
    /// What it can be purged by.
    pub owner: Owner,
    /// The question.
    pub vector: Vec<f32>,
    /// When it was stored, in seconds of Unix time.
    pub stored: u64,
    /// The generation of the log of purges at which it was asked for.
    pub generation: u64,
    /// Everything else, which the engine cannot read.
    pub sealed: Vec<u8>,
}

/// More bytes than that are no answer.
pub const SEALED_MAX: usize = 64 * 1024;
/// More neighbours than that nobody looks at.
pub const NEIGHBOURS_MAX: usize = 16;

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Nothing of another one is ever given.
    pub partition: Partition,
    /// The question.
    pub vector: &'a [f32],
    /// The lowest cosine that is of interest.
    pub floor: f32,
    /// At most so many, and never more than [`NEIGHBOURS_MAX`].
    pub most: usize,
}

/// A point of the partition that was asked for, near the vector that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    /// The point's.
    pub id: u128,
    /// The cosine, in [-1, 1].
    pub similarity: f32,
    /// As the engine says; sealed it is not.
    pub owner: Owner,
    /// As the engine says, in seconds of Unix time.
    pub stored: u64,
    /// As the engine says.
    pub generation: u64,
    /// What was put.
    pub sealed: Vec<u8>,
}

/// What is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// Everything of everybody.
    All,
    /// Everything of a tenant.
    Tenant(u64),
    /// Everything that one scope may read.
    Scope(u64),
    /// What these weights answered.
    Model(u64),
    /// What was asked in a session.
    Session(u64),
    /// What was stored before this second of Unix time.
    Before(u64),
}

/// Why a call has no answer. [`name`](Self::name) is for the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// No answer in time. A write may still happen.
    Late,
    /// The engine, or the connection, says no, or says what cannot be. Never more than a line.
    Failed(String),
    /// Too many calls are under way already.
    Busy,
    /// It failed lately and was not asked.
    Open,
}

impl Trouble {
    /// One word, of a closed set.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Failed(_) => "failed",
            Self::Busy => "busy",
            Self::Open => "open",
        }
    }

    /// Of bounded length: servers write what they like.
    fn failed(why: impl fmt::Display) -> Self {
        let why = why.to_string();
        let line = why.chars().take(200).map(|char| if char.is_control() { ' ' } else { char });
        Self::Failed(line.collect())
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no answer in time"),
            Self::Failed(why) => f.write_str(why),
            Self::Busy => f.write_str("too many calls are under way"),
            Self::Open => f.write_str("the breaker is open"),
        }
    }
}

impl std::error::Error for Trouble {}

/// A call: nothing happens before it is polled, and it may be dropped at any time.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Trouble>> + Send + 'a>>;

/// What a tier of a whole region does.
pub trait Regional: Send + Sync {
    /// The nearest of a partition, the most similar first.
    fn nearest<'a>(&'a self, wanted: Wanted<'a>) -> Doing<'a, Vec<Neighbour>>;

    /// Adds a point, or replaces the one with its id.
    fn put(&self, point: Point) -> Doing<'_, ()>;

    /// Deletes. What was purged is not served whatever becomes of this: who reads judges generations. To
    /// be late with millions of points is no mistake; the engine goes on.
    fn purge(&self, what: Purged) -> Doing<'_, ()>;
}

#[cfg(test)]
mod tests;
