//! Where pods are, found while an edge runs: from files and from DNS.
//!
//! ```text
//! file ─── looked at, read whole or not at all ────────────────────────┐
//! DNS ──▶ message: what one answer says ──▶ memory: keep, replace, ────┼──▶ Source::next ──▶ pods
//!         (resolver, exchange: sockets)     when to ask again ─▶ pool ─┘
//! ```
//!
//! One rule stands above the others: **who knows nothing new changes nothing.** A file that cannot be
//! read, a name server that fails, is silent or says once that there is nothing leave the pods that
//! were known, for as long as it takes: whether those still answer is for health checks to see.
//!
//! `message`, `memory`, `pool` and `system` are pure. Absent on purpose: a cache (each answer is
//! remembered by who asked, for its TTL), health, weights, and what follows from a change.

mod memory;
mod pool;
mod source;
mod system;
mod trouble;

pub use source::{Found, PODS_MAX, Source};
pub use trouble::Trouble;
