//! Completions that were generated before: which may be kept, under which key, and for how long.
//!
//! Reuse is never a guess here. A [`Key`] names everything that could change the answer, led by
//! the tenant, so that serving across tenants is impossible by construction. Deciding
//! ([`key`], [`admission`], [`freshness`]) is pure; [`memory`] holds the entries.
//!
//! Absent on purpose: Pingora, clocks and embeddings.

pub mod admission;
pub mod cluster;
pub mod freshness;
pub mod key;
pub mod memory;

pub use admission::{Skip, Verdict};
pub use freshness::Freshness;
pub use key::{Key, Parts};
pub use memory::{Entry, Memory};
