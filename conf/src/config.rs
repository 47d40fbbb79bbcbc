//! The validated configuration. What is here is known good; no later code checks it again.

mod read;

use std::{fmt, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use crate::ByteSize;

/// A whole configuration file: the roles it describes and what they share.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The region's name, shown in `x-nearhop-region`.
    pub region: String,
    /// Who may ask.
    pub keys: Vec<ApiKey>,
    /// The edge proxy, where the file has an `edge` section.
    pub edge: Option<Edge>,
    /// The inference pod, where the file has an `origin` section.
    pub origin: Option<Origin>,
}

/// An API key: kept only as its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The operator's name for it; shown in admin and logs instead of the key.
    pub name: String,
    /// Whose it is. The tenant leads every cache key.
    pub tenant: String,
    /// SHA-256 of the key as the client sends it.
    pub sha256: [u8; 32],
}

/// The edge proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// Where clients connect. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The operator's listener.
    pub admin: Admin,
    /// Worker threads.
    pub threads: NonZeroUsize,
    /// How long a stopping edge waits for running requests.
    pub drain: Duration,
    /// What a client may send.
    pub limits: Limits,
    /// How long an answer may take, by kind of request.
    pub deadlines: Deadlines,
    /// How pods are talked to.
    pub upstream: Upstream,
    /// How pods are checked.
    pub probes: Probes,
    /// This region's pods.
    pub pods: Vec<Pod>,
    /// The in-process completion cache.
    pub l1: L1,
}

/// An operator's listener: `/livez`, `/readyz` and `/metrics` open, `/admin/v1/…` with the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where operators and Prometheus connect.
    pub listen: SocketAddr,
    /// The bearer token of `/admin/v1/…`; without one that part is closed.
    pub token: Option<Secret>,
}

/// What a client may send, and how slowly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A request's body, bytes.
    pub body: ByteSize,
    /// All text of a request (prompt and suffix, or messages), bytes after JSON decoding.
    pub prompt: ByteSize,
    /// All header names and values, bytes.
    pub headers: ByteSize,
    /// From the header to the last byte of the body.
    pub body_read: Duration,
    /// One write to a client that does not read.
    pub client_write: Duration,
    /// How long a connection may lie idle between two requests.
    pub keepalive: Duration,
    /// Requests in progress; more are shed with 503.
    pub requests: usize,
}

/// Total time of a request, from its header to the last byte of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// Code at the cursor, without a suffix.
    pub inline: Duration,
    /// Fill in the middle.
    pub fim: Duration,
    /// A conversation.
    pub chat: Duration,
    /// A conversation with tools.
    pub agent: Duration,
}

/// The protocol between an edge and its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: a connection each request in progress; giving a request up closes its connection.
    Http1,
    /// HTTP/2 without TLS (RFC 9113, section 3.3): many requests a connection; giving one up
    /// resets its stream.
    H2c,
}

/// How the edge talks to pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The protocol.
    pub protocol: Protocol,
    /// To an open connection.
    pub connect: Duration,
    /// The most an attempt waits for its first token; half of the remaining time where that is less.
    pub first_byte: Duration,
    /// Between two tokens.
    pub next_token: Duration,
    /// Attempts a request may make, the first included.
    pub attempts: usize,
    /// Idle connections kept, over all pods.
    pub idle_connections: usize,
    /// How long one is kept.
    pub idle_timeout: Duration,
}

/// Active health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probes {
    /// From one check to the next.
    pub interval: Duration,
    /// A whole check.
    pub deadline: Duration,
    /// Failed checks in a row that take a pod out.
    pub failures: usize,
}

/// One inference pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name in headers, metrics and logs.
    pub name: String,
    /// Its serving listener.
    pub address: SocketAddr,
}

/// The in-process completion cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L1 {
    /// Keys and answers together, bytes.
    pub bytes: ByteSize,
    /// How long an answer may be served.
    pub ttl: Duration,
}

/// The inference pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Where edges connect. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The operator's listener.
    pub admin: Admin,
    /// The model folder: `model.onnx`, `tokenizer.json`, `nearhop.yaml`.
    pub model: PathBuf,
    /// Sequences computed together.
    pub slots: usize,
    /// Jobs that may wait for a slot; more are refused with 429.
    pub queue: usize,
    /// Prompt tokens computed between two decode steps.
    pub prefill_chunk: usize,
    /// ONNX Runtime's threads.
    pub threads: usize,
    /// `/livez` fails when the engine has not moved for this long.
    pub stall_after: Duration,
    /// How long a stopping pod waits for running jobs.
    pub drain: Duration,
    /// The ONNX Runtime library; searched for where not given.
    pub ort_library: Option<PathBuf>,
}

/// A value that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that compares or sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests;
