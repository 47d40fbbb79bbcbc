//! The configuration: one YAML file becomes one typed [`Config`].
//!
//! A mistake never hides behind another: [`Config::read`] walks the whole file and reports all of
//! them, each with the path of the field and what to write instead. Unknown fields are mistakes.
//!
//! Absent on purpose: nothing here opens a socket, and nothing outside [`source`] reads a file or
//! the environment.

mod config;
mod defaults;
mod error;
mod reader;
pub mod source;
mod units;

pub use config::{
    Admin, ApiKey, Config, Deadlines, Edge, L1, Limits, Origin, Pod, Probes, Protocol, Secret,
    Upstream,
};
pub use defaults::DEFAULT_YAML;
pub use error::{ConfigError, Problem};
pub use units::ByteSize;
