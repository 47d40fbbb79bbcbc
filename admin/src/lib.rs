//! What every role shows its operator: `/livez`, `/readyz`, `/metrics` and the token-guarded
//! `/admin/v1/…`; the HTTP server that these and the pods stand on, and the client for small requests.
//!
//! There is one admin router; each role adds its routes to it. Absent on purpose: the public
//! listener of the edge, which is Pingora's.

pub mod clock;
mod events;
mod fetch;
mod listen;
mod metrics;
mod process;
mod router;
mod serve;
pub mod tls;

pub use events::{Event, Events};
pub use fetch::{FetchError, Question, Trust, fetch};
pub use listen::{BindError, bind, reserve};
pub use metrics::{Metrics, latency_buckets};
pub use router::{Check, Checks, admin_router, api_error};
pub use serve::{ServeLimits, ServeTls, serve};
