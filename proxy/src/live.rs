//! What may change while the edge runs: one immutable snapshot, swapped whole. A request keeps the
//! one it began with.

use nearhop_admission::Directory;
use nearhop_conf::{Config, Deadlines, Edge, IpNet, L3Route, Limits};

use crate::cors::Origins;

/// The live part of a configuration.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) limits: Limits,
    pub(crate) deadlines: Deadlines,
    pub(crate) waits: Waits,
    pub(crate) directory: Directory,
    pub(crate) proxy_protocol: Vec<IpNet>,
    pub(crate) cors: Origins,
    /// Whether second attempts are made beside late ones.
    pub(crate) hedge: bool,
    /// What chats are told when nothing can answer.
    pub(crate) tips: Vec<String>,
    /// Where conversations are looked up by what was asked alike, the first that fits.
    pub(crate) l3_routes: Vec<L3Route>,
    /// Whether each request is a line of the log.
    pub(crate) access_log: bool,
}

/// How long and how often pods are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) first_byte: std::time::Duration,
    pub(crate) next_token: std::time::Duration,
    pub(crate) attempts: usize,
}

impl Live {
    pub(crate) fn new(config: &Config, edge: &Edge) -> Self {
        Self {
            limits: edge.limits.clone(),
            deadlines: edge.deadlines.clone(),
            waits: Waits {
                first_byte: edge.upstream.first_byte,
                next_token: edge.upstream.next_token,
                attempts: edge.upstream.attempts,
            },
            directory: Directory::new(&config.access),
            proxy_protocol: edge.proxy_protocol.clone(),
            cors: Origins::new(edge.cors.as_ref()),
            hedge: edge.hedge.enabled,
            tips: edge.tips.clone(),
            l3_routes: edge.l3.as_ref().map_or_else(Vec::new, |l3| l3.routes.clone()),
            access_log: config.log.access,
        }
    }
}
