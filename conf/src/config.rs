//! The validated configuration. What is here is known good; no later code checks it again.

mod read;
mod whole;

use std::{fmt, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use ipnet::IpNet;

use crate::{
    Access, Affinity, Breaker, ByteSize, Dns, Ejection, Events, ExternalProvider, Health, Hedge,
    L2, L3, Ladder, Pod, PodSource, Region, Retries,
};

/// A whole configuration file: the roles it describes and what they share.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The region's name, shown in `x-nearhop-region`.
    pub region: String,
    /// Who may ask, and how much.
    pub access: Access,
    /// The edge proxy, where the file has an `edge` section.
    pub edge: Option<Edge>,
    /// The inference pod, where the file has an `origin` section.
    pub origin: Option<Origin>,
    /// The regions that DNS may answer with.
    pub regions: Vec<Region>,
    /// How regions are watched, where the file has a `health` section.
    pub health: Option<Health>,
    /// The DNS server, where the file has a `dns` section.
    pub dns: Option<Dns>,
    /// What is logged.
    pub log: Log,
    /// Where traces go, where they go anywhere.
    pub traces: Option<Traces>,
}

/// What is logged. Never a prompt, an answer or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Levels by target, as `RUST_LOG` has them, which goes before it.
    pub level: String,
    /// Whether each request is one line.
    pub access: bool,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Export of traces by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The collector's URL for traces, such as `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
    /// The share of requests without a `traceparent` that are traced, 0 to 1; with one, its flag decides.
    pub sample: f64,
}

/// The TLS of a listener for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The first is shown to clients that name no server, or one that no certificate has.
    pub certificates: Vec<Certificate>,
    /// The oldest version that is spoken.
    pub minimum: TlsVersion,
}

/// A certificate chain and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, the leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// A listener on which both sides show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutualTls {
    /// What this side shows.
    pub own: Certificate,
    /// Who signs the other side's certificates (PEM).
    pub ca: PathBuf,
    /// DNS names (SAN) of which the other side's certificate must have one; `*.` stands for one label.
    pub names: Vec<String>,
}

/// The listener for other edges and vantage points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where they connect.
    pub listen: SocketAddr,
    /// This node's name among `health.vantage_points`; it has no vote where not given.
    pub name: Option<String>,
    /// Who may.
    pub tls: MutualTls,
}

/// Which web pages may ask from a browser (Fetch standard, CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins such as `https://ide.example.com`, or `*` for any.
    pub origins: Vec<String>,
    /// How long a browser keeps the answer to its preflight.
    pub max_age: Duration,
}

/// The edge proxy.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// Where clients connect. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// TLS on it; plain text, HTTP/1.1 and h2c, without.
    pub tls: Option<Tls>,
    /// Load balancers whose connections begin with a PROXY protocol header, version 2.
    pub proxy_protocol: Vec<IpNet>,
    /// Which web pages may ask.
    pub cors: Option<Cors>,
    /// The listener for other edges and vantage points.
    pub peer: Option<Peer>,
    /// The operator's listener.
    pub admin: Admin,
    /// Worker threads.
    pub threads: NonZeroUsize,
    /// How long a stopping edge goes on accepting connections after its readiness has failed, for
    /// those who have not noticed yet.
    pub lame_duck: Option<Duration>,
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
    /// This region's pods that the file names. None where it learns of them while it runs, or where
    /// only other regions have any.
    pub pods: Vec<Pod>,
    /// Where it learns of pods while it runs.
    pub pods_from: Vec<PodSource>,
    /// Who is asked for the names of pods, peers, providers and the webhook; the system's resolvers
    /// where not given.
    pub resolver: Option<SocketAddr>,
    /// External providers, as the file has them.
    pub providers: Vec<ExternalProvider>,
    /// When an upstream is out.
    pub breaker: Breaker,
    /// What evidence that proves nothing may do.
    pub ejection: Ejection,
    /// Second attempts beside late ones.
    pub hedge: Hedge,
    /// What further attempts may cost.
    pub retries: Retries,
    /// Which prompts go where.
    pub affinity: Affinity,
    /// When service degrades.
    pub ladder: Ladder,
    /// What chats are shown when nothing can generate; where empty, they are refused.
    pub tips: Vec<String>,
    /// Where events go.
    pub events: Events,
    /// The in-process completion cache.
    pub l1: L1,
    /// The shared completion cache, where there is one.
    pub l2: Option<L2>,
    /// The semantic cache of conversations, where there is one.
    pub l3: Option<L3>,
    /// What may be answered without a model.
    pub reuse: Reuse,
    /// A pod of the edge's own, in a process beside it.
    pub local: Option<LocalPod>,
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
    /// The number of headers.
    pub header_count: usize,
    /// From a connection's opening, or a request's first byte, to the end of its header.
    pub header_read: Duration,
    /// From the header to the last byte of the body.
    pub body_read: Duration,
    /// One write to a client that does not read.
    pub client_write: Duration,
    /// How long a connection may lie idle between two requests.
    pub keepalive: Duration,
    /// Requests in progress; more are shed with 503.
    pub requests: usize,
    /// Open connections; more wait in the kernel's backlog.
    pub connections: usize,
    /// Open connections of one client address (IPv6: of one /64); more are closed at once.
    pub connections_per_address: usize,
    /// Requests in progress on one HTTP/2 connection.
    pub h2_streams: usize,
    /// Requests a client may reset on one HTTP/2 connection before their answer, a minute.
    pub h2_resets: usize,
    /// Bytes of requests and answers held at once, over all requests; more are shed with 503.
    pub buffered: ByteSize,
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
    /// HTTP/2, by prior knowledge where there is no TLS (RFC 9113, section 3.3): many requests a
    /// connection; giving one up resets its stream.
    H2,
}

/// How the edge talks to pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The protocol.
    pub protocol: Protocol,
    /// TLS toward the pods, with a certificate of the edge's own.
    pub tls: Option<MutualTls>,
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

/// A pod that an edge runs for itself, on loopback, with models of the file's `origin` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPod {
    /// Aliases of the models that it serves.
    pub roles: Vec<String>,
    /// ONNX Runtime's threads, of each model.
    pub threads: NonZeroUsize,
    /// Resident memory over which it is started again.
    pub memory: ByteSize,
}

/// The in-process completion cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L1 {
    /// Keys and answers together, bytes.
    pub bytes: ByteSize,
    /// How long an answer may be served, from here or from the shared cache.
    pub ttl: Duration,
}

/// What may be answered without a model; `docs/caching.md` has the rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Reuse {
    /// The rules by which an earlier answer may serve.
    pub rules: Vec<ReuseRule>,
    /// How rules are watched.
    pub audit: Audit,
}

/// How rules of reuse are watched: a share of what they serve is generated again while pods are
/// idle, and compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// The share that is generated again, 0 to 1.
    pub share: f64,
    /// A rule switches itself off where its answers differ, for certain, by so much more often than
    /// exact repetitions do, 0 to 1.
    pub limit: f64,
}

/// A rule by which an earlier answer may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReuseRule {
    /// The same text around the cursor.
    Exact,
    /// The user typed into the answer.
    TypeAhead,
    /// The same, seen through a window that slid on.
    Window,
    /// The same but for blank lines and space at line ends.
    Normalised,
}

impl ReuseRule {
    /// Every rule.
    pub const ALL: [Self; 4] = [Self::Exact, Self::TypeAhead, Self::Window, Self::Normalised];
}

/// The inference pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Where edges connect. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// TLS on it, with client certificates.
    pub tls: Option<MutualTls>,
    /// The operator's listener.
    pub admin: Admin,
    /// What it serves; at least one.
    pub models: Vec<OriginModel>,
    /// Sequences computed together, by each model.
    pub slots: usize,
    /// Jobs that may wait for a slot; more are refused with 429.
    pub queue: usize,
    /// Prompt tokens of those jobs; more are refused with 429.
    pub queue_tokens: usize,
    /// Prompt tokens computed between two decode steps.
    pub prefill_chunk: usize,
    /// Memory of each model's prefix cache; 0 switches it off.
    pub prefix_cache: ByteSize,
    /// Padded tokens that an embedder computes together.
    pub embed_batch: usize,
    /// ONNX Runtime's threads, of each model.
    pub threads: usize,
    /// The only execution provider that will do; the best that works where not given.
    pub require_provider: Option<Provider>,
    /// Where providers keep what they compile; beside each model where not given.
    pub engine_cache: Option<PathBuf>,
    /// `/livez` fails when the engine has not moved for this long.
    pub stall_after: Duration,
    /// How long a stopping pod waits for running jobs.
    pub drain: Duration,
    /// The ONNX Runtime library; searched for where not given.
    pub ort_library: Option<PathBuf>,
}

impl Origin {
    /// The same pod with those models alone that have one of `roles` as an alias, on free ports of
    /// loopback, where nobody else may ask: no certificates.
    ///
    /// # Errors
    /// A role that no model has.
    pub fn for_roles(&self, roles: &[String]) -> Result<Self, UnknownRole> {
        let has = |model: &OriginModel, role: &String| model.aliases.contains(role);
        if let Some(role) = roles.iter().find(|role| !self.models.iter().any(|m| has(m, role))) {
            let known = self.models.iter().flat_map(|model| model.aliases.clone()).collect();
            return Err(UnknownRole { role: role.clone(), known });
        }
        let models = self.models.iter().filter(|model| roles.iter().any(|role| has(model, role)));
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = Admin { listen: free, ..self.admin.clone() };
        Ok(Self {
            listen: free,
            tls: None,
            admin,
            models: models.cloned().collect(),
            ..self.clone()
        })
    }
}

/// A role that no model has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no model has the alias `{role}`; origin.models[].aliases has {}", .known.join(", "))]
pub struct UnknownRole {
    /// What was asked for.
    pub role: String,
    /// What there is.
    pub known: Vec<String>,
}

/// A model of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginModel {
    /// Its folder; `docs/model-folder.md` says what is in it.
    pub folder: PathBuf,
    /// Other names that requests may use.
    pub aliases: Vec<String>,
}

/// What computes a model: ONNX Runtime's execution providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// NVIDIA TensorRT; what it cannot compute goes to CUDA.
    TensorRt,
    /// NVIDIA CUDA.
    Cuda,
    /// This machine's processor. Always there.
    Cpu,
}

impl Provider {
    /// Its name in the configuration, answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(crate) String);

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
