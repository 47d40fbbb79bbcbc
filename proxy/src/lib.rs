//! The edge: a Pingora shell around the phases of a completion request.
//!
//! ```text
//! listener ──▶ gateway ──▶ phase: admit → lookup → respond, recorded on every path
//!                                           │       ▲
//!                                           ▼       │ readers
//!                                 flights: generate → route → attempt
//!                                                               │
//!                                                             upstream: pods, regions, providers; their state, exchanges with them
//! ```
//!
//! Pingora's types stop in `listener`, `gateway` and `upstream`: a phase takes plain data and
//! gives a verdict. Pingora's own retry loop is not used for completions: it cannot replay bodies
//! over 64 KiB, never retries a POST, and has one time-out for the first byte and all others.
//!
//! Absent on purpose: tokenizers and models. The edge counts bytes.

mod auditor;
mod background;
mod buffer;
pub mod child;
mod client;
mod cors;
mod edge;
mod event;
mod export;
mod finding;
mod flight;
mod flights;
mod framing;
mod gateway;
mod handover;
mod level;
mod listener;
mod live;
mod local;
mod metrics;
mod operator;
mod phase;
mod purge;
mod reject;
mod reload;
mod rules;
mod semantic;
mod service_times;
mod signals;
mod trace;
mod upstream;
mod webhook;

pub use edge::{Edge, EdgeError, Ready, Start};
pub use handover::{Inherited, Successor};
pub use reload::SetLevel;
pub use semantic::SemanticError;
