//! The edge's side of upstreams: connections, exchanges, checks, and what is known of each.

mod blame;
mod catalog;
pub(crate) mod connections;
pub(crate) mod exchange;
mod http1;
pub(crate) mod links;
pub(crate) mod member;
mod orca;
pub(crate) mod outcome;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod provider;
pub(crate) mod resolve;
