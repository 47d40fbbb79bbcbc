//! Completions that were generated before: which may be kept, where they are found, and for whom
//! and how long they may be served.
//!
//! Reuse of code is never a guess. A [`Question`] names everything that could change the answer, led
//! by the tenant, so that serving across tenants is impossible by construction; [`Rule`]s say when
//! an earlier answer is this one's. Deciding is pure; [`memory`] holds the entries.
//!
//! Conversations are looked up by meaning too, where that has proved itself: [`semantic`].
//!
//! Absent on purpose: Pingora, clocks and the embedder.

pub mod admission;
mod asker;
pub mod audit;
mod breaker;
pub mod cluster;
mod digest;
mod entry;
mod fit;
pub mod l2;
pub mod memory;
mod normal;
mod pack;
mod question;
mod seal;
pub mod semantic;
pub mod snapshot;
mod tags;
#[cfg(test)]
mod testing;
mod validity;
mod wilson;
mod words;

pub use admission::{Skip, Verdict};
pub use asker::Asker;
pub use entry::{Asked, Entry};
pub use fit::{Fit, Rule, Unfit, is_suggestion, may_join};
pub use memory::{Considered, Found, Memory, Need};
pub use question::{Around, Place, Question};
pub use tags::{Generation, Namer, Purge, Purges, TagKind, Tags, TenantMissing};
pub use validity::{SESSION_IDLE_MAX, Standing, Validity};
