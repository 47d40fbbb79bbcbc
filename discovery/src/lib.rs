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

mod dns;
mod exchange;
mod file;
mod memory;
mod message;
mod pool;
mod resolver;
mod source;
mod system;
#[cfg(test)]
mod testing;
mod trouble;

pub use resolver::{Answer, Resolver};
pub use source::{Found, PODS_MAX, Source, source};
pub use trouble::Trouble;
