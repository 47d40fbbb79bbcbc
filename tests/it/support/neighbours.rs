//! Regions beside each other on loopback: their edges know each other's addresses and certificates.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU8, Ordering},
};

use serde_json::{Value, json};

use super::{certificates::Authority, process::Edge};

/// A region's name, and its place on the globe.
pub(crate) type Place = (&'static str, [f64; 2]);

pub(crate) struct Neighbours {
    _folder: tempfile::TempDir,
    authority: Authority,
    /// As the edges' files have them.
    regions: Vec<Value>,
}

/// An address where nobody is, and nobody else of this machine will be. All of 127.0.0.0/8 is
/// loopback, so that an edge can be told of before it is there.
pub(crate) fn own_address(port: u16) -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    ([127, 16 | (high & 0x7f), low, NEXT.fetch_add(1, Ordering::Relaxed)], port).into()
}

impl Neighbours {
    pub(crate) fn new(places: &[Place]) -> Self {
        let regions = places.iter().map(|(name, location)| {
            let peer = own_address(8443);
            json!({"name": name, "location": location, "addresses": [peer.ip()], "peers": [peer]})
        });
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path());
        Self { authority, regions: regions.collect(), _folder: folder }
    }

    /// A region's edge.
    pub(crate) fn edge(
        &self,
        region: &str,
        pods: &[SocketAddr],
        change: impl FnOnce(&mut Value),
    ) -> Edge {
        self.named(region, &format!("{region}.edges.test"), pods, change)
    }

    /// The same, with a certificate for another name.
    pub(crate) fn named(
        &self,
        region: &str,
        certificate: &str,
        pods: &[SocketAddr],
        change: impl FnOnce(&mut Value),
    ) -> Edge {
        let tls = self.authority.mutual(certificate, &[certificate], &["*.edges.test"]);
        Edge::with(pods, |config, _| {
            config["region"] = json!(region);
            config["regions"] = json!(self.regions);
            config["log"] = json!({"format": "json"});
            config["edge"]["peer"] = json!({"listen": self.peer(region), "tls": tls});
            change(config);
        })
    }

    /// Where a region's edge listens for the others.
    pub(crate) fn peer(&self, region: &str) -> String {
        let known = self.regions.iter().find(|known| known["name"] == region).unwrap();
        known["peers"][0].as_str().unwrap().to_owned()
    }

    /// What the others call it.
    pub(crate) fn upstream(&self, region: &str) -> String {
        format!("{region}/{}", self.peer(region))
    }
}

/// What an edge's operator is told of an upstream.
pub(crate) async fn standing(edge: &Edge, upstream: &str) -> Value {
    let all = edge.admin("/upstreams").await;
    let known = all.as_array().unwrap().iter().find(|one| one["name"] == upstream);
    known.unwrap_or_else(|| panic!("{upstream}: {all}")).clone()
}

/// The access lines of requests that other edges passed on.
pub(crate) fn hops(edge: &Edge) -> Vec<Value> {
    let log = edge.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["peer"].is_string() && line["kind"] != "none").collect()
}
