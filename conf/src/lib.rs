//! The configuration: one YAML file becomes one typed [`Config`].
//!
//! A mistake never hides behind another: [`Config::read`] walks the whole file and reports all of
//! them, each with the path of the field and what to write instead. Unknown fields are mistakes.
//!
//! The same walk, over an empty file, gives the JSON Schema: what is read and what is described
//! cannot differ.
//!
//! Absent on purpose: nothing here opens a socket, and nothing outside [`source`] reads a file or
//! the environment.

mod access;
mod address;
mod config;
mod defaults;
mod dns;
mod error;
mod events;
#[cfg(test)]
mod fuzz;
mod health;
mod l2;
mod l3;
mod load;
mod loaded;
mod pods;
mod providers;
mod reader;
mod routing;
mod schema;
mod shape;
pub mod source;
mod units;

pub use access::{Access, Algorithm, ApiKey, Egress, Issuer, Plan, Rates, Scope, Tenant};
pub use address::is_private;
pub use config::{
    Admin, Audit, Certificate, Config, Cors, Deadlines, Edge, L1, Limits, LocalPod, Log, LogFormat,
    MutualTls, Origin, OriginModel, Peer, Probes, Protocol, Provider, Reuse, ReuseRule, Secret,
    Tls, TlsVersion, Traces, UnknownRole, Upstream,
};
pub use defaults::DEFAULT_YAML;
pub use dns::{AllDown, CookieSecret, Dns, Dnssec, Override, RateLimit, Region};
pub use error::{ConfigError, Problem};
pub use events::Events;
pub use health::{Health, Spill, VantagePoint};
pub use ipnet::IpNet;
pub use l2::{L2, L2Tls};
pub use l3::{L3, L3Judge, L3Mode, L3Regional, L3Route, L3Scope};
pub use load::{
    Arrivals, Bounds, ChaosEvent, Criterion, LoadKey, LoadPlan, LoadProfile, Scenario, Target,
    TargetDns, TargetRegion,
};
pub use loaded::{Change, Loaded};
pub use pods::{Pod, PodSource, read_pods};
pub use providers::{ExternalProvider, RequestKind};
pub use routing::{Affinity, Breaker, Ejection, Hedge, Ladder, Retries};
pub use schema::schema;
pub use units::{ByteSize, NO_MODEL_NAME, is_model_name};
