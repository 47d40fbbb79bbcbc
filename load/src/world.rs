//! A world of regions on one machine, as a plan: who runs where, with which configuration, and what
//! an action does to whom. All of it is pure; whoever holds the processes, the links and the disks
//! does what [`World::steps`] says and tells it by [`World::took`].
//!
//! ```text
//! layout   which regions, how many pods and servers, how far from each other
//! nodes    each process: its name, its place, its ports
//! config   each node's configuration file
//! steps    an action → what is done to which nodes and links; how everything is now
//! target   what a load tool, or a person, needs to know to use it
//! ```

mod config;
mod layout;
mod nodes;
mod steps;
mod target;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

pub use config::{Key, Material};
pub use layout::{Asked, Layout, LayoutError, Link};
pub use nodes::{Node, Role, Standing};
pub use steps::{Refusal, State, Step, tell};
pub use target::words;

/// What DNS answers for.
pub const ZONE: &str = "complete.example.com";

/// The plan of a world, and how it is.
#[derive(Debug, Clone)]
pub struct World {
    layout: Layout,
    addresses: BTreeMap<String, Ipv4Addr>,
    /// Pods, then DNS servers, then edges: the order in which they can start.
    nodes: Vec<Node>,
    /// Regions that are cut off.
    cut: BTreeSet<String>,
    /// Milliseconds that packets of a region take longer.
    slowed: BTreeMap<String, u64>,
    /// Regions whose disk is full.
    full: BTreeSet<String>,
}

impl World {
    /// A world in which everything runs. `address` knows each of [`Layout::sites`].
    #[must_use]
    pub fn new(layout: Layout, address: impl Fn(&str) -> Ipv4Addr) -> Self {
        let sites = layout.sites();
        let addresses = sites.iter().map(|&site| (site.to_owned(), address(site))).collect();
        let nodes = nodes::all(&layout);
        Self {
            layout,
            addresses,
            nodes,
            cut: BTreeSet::new(),
            slowed: BTreeMap::new(),
            full: BTreeSet::new(),
        }
    }

    /// Every process, in the order in which they can start.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Every place: the sites, and the host with the clients.
    #[must_use]
    pub fn places(&self) -> Vec<&str> {
        self.layout.places()
    }

    /// How long every link takes now.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        self.layout.links(&self.slowed)
    }

    /// `address:port` of a site.
    fn at(&self, site: &str, port: u16) -> String {
        // Every site of the layout has one.
        let address = self.addresses.get(site).copied().unwrap_or(Ipv4Addr::UNSPECIFIED);
        format!("{address}:{port}")
    }
}

#[cfg(test)]
mod tests;
