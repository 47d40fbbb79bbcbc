//! The inference pod: one code model on ONNX Runtime behind an OpenAI-compatible API.
//!
//! A request's path is the order of the modules:
//!
//! ```text
//! http ──▶ model (text → tokens) ──▶ queue ──▶ worker: line → prefix → scheduler → session → sampler → text ──▶ http
//! ```
//!
//! One OS thread, the worker, owns the session and everything a generation needs; the rest of the
//! pod talks to it through a bounded queue and hears from it through one channel a job.
//!
//! Absent on purpose: tenants, API keys and caches of answers, which are the edge's; and `ort`
//! outside [`session`] and its KV pool.

mod counters;
mod embed;
mod error;
mod heartbeat;
mod http;
mod line;
mod load;
mod model;
mod operator;
mod pod;
mod prefix;
mod queue;
mod registry;
mod sampler;
mod scheduler;
pub mod session;
mod text;
mod worker;

pub use error::OriginError;
pub use model::{Model, ModelKind, Prompt};
pub use pod::{Pod, run};
