//! Admission: who asks, how much they may, and whose turn it is.
//!
//! ```text
//! credential ──▶ directory (keys) ──▶ caller ──▶ limits: requests, tokens, concurrency, month
//!                    │                                      │
//!                  token ◀── jwks                         usage (SQLite)        fair: places
//! ```
//!
//! Decisions are pure and take `now`; a revoked key, another plan or a new issuer is a new
//! [`Directory`], swapped whole. Counters outlive it.
//!
//! Absent on purpose: HTTP. Fetching an issuer's keys is the edge's; here is when, and what to do
//! with them.

mod bucket;
mod caller;
mod common;
mod crowd;
mod directory;
mod fair;
mod jwks;
mod limits;
mod token;
mod usage;

pub use bucket::{Bucket, Refused as BucketRefused};
pub use caller::Caller;
pub use common::{Others, Owner, Used};
pub use crowd::{Crowd, Seat};
pub use directory::{Denied, Directory, credential, hash_key};
pub use fair::{Gate, NoPlace, Permit};
pub use jwks::{Jwks, KEY_SET_BYTES_MAX, KeySet};
pub use limits::{Left, Limited, Limiter, Reservation, Standing, What};
pub use usage::{Served, Usage, UsageError};
