//! The processes: what each is called, where it stands, where it listens.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::layout::Layout;

/// Where an edge's clients ask.
pub(super) const CLIENTS: u16 = 8080;
/// Where an edge's or a DNS server's operator asks.
pub(super) const ADMIN: u16 = 8081;
/// Where edges of other regions and vantage points ask.
pub(super) const PEERS: u16 = 8443;
/// Where a DNS server answers.
pub(super) const DNS: u16 = 5300;
/// A region's first pod, for its edge; the others follow.
const PODS: u16 = 9001;
/// The same for operators.
const POD_ADMINS: u16 = 9101;

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// An inference pod.
    Pod,
    /// A DNS server.
    Dns,
    /// An edge.
    Edge,
}

impl Role {
    /// The subcommand that runs it.
    #[must_use]
    pub const fn command(self) -> &'static str {
        match self {
            Self::Pod => "origin",
            Self::Dns => "dns",
            Self::Edge => "edge",
        }
    }
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It runs.
    Running,
    /// It gets one part of the time in so many.
    Slow(u32),
    /// It is stopped, and its sockets are open.
    Paused,
    /// An action ended it.
    Killed,
    /// It ended and no action was the cause.
    Ended,
}

impl Standing {
    /// Is there a process?
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Slow(_) | Self::Paused)
    }
}

/// A process.
#[derive(Debug, Clone)]
pub struct Node {
    /// `us-west/pod-1`, `us-west/edge`, `dns-1`.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Where: a region, or a DNS server's own site.
    pub site: String,
    /// How it is.
    pub standing: Standing,
    /// Of pods, which in its region: from 0.
    pub(super) number: u16,
}

impl Node {
    /// The region it belongs to; DNS servers belong to none.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        (self.role != Role::Dns).then_some(self.site.as_str())
    }

    /// Whether it keeps files, for which it needs a disk: pods keep nothing.
    #[must_use]
    pub fn keeps_files(&self) -> bool {
        self.role != Role::Pod
    }

    /// Its file of that kind below `folder`: `us-west-pod-1.yaml`.
    #[must_use]
    pub fn file(&self, folder: &Path, kind: &str) -> PathBuf {
        folder.join(format!("{}.{kind}", self.name.replace('/', "-")))
    }

    /// Where it serves.
    pub(super) const fn port(&self) -> u16 {
        match self.role {
            Role::Pod => PODS + self.number,
            Role::Dns => DNS,
            Role::Edge => CLIENTS,
        }
    }

    /// Where its operator asks.
    pub(super) const fn admin_port(&self) -> u16 {
        match self.role {
            Role::Pod => POD_ADMINS + self.number,
            Role::Dns | Role::Edge => ADMIN,
        }
    }
}

/// Everybody, in the order in which they can start: an edge is ready when a pod is.
pub(super) fn all(layout: &Layout) -> Vec<Node> {
    let node = |name: String, role: Role, site: &str, number: u16| Node {
        name,
        role,
        site: site.to_owned(),
        standing: Standing::Running,
        number,
    };
    let mut nodes = Vec::new();
    // Fifty at most.
    let pods = u16::try_from(layout.pods).unwrap_or(u16::MAX);
    for region in &layout.regions {
        nodes.extend((0..pods).map(|number| {
            node(format!("{}/pod-{}", region.name, number + 1), Role::Pod, region.name, number)
        }));
    }
    nodes.extend(
        layout.servers.iter().map(|server| node(server.name.to_owned(), Role::Dns, server.name, 0)),
    );
    nodes.extend(
        layout
            .regions
            .iter()
            .map(|region| node(format!("{}/edge", region.name), Role::Edge, region.name, 0)),
    );
    nodes
}
