//! What each node's configuration file says. It is what an operator would write for such regions,
//! but for patience: a region is out of DNS within seconds, where production takes its time.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    World, ZONE,
    nodes::{ADMIN, CLIENTS, DNS, Node, PEERS, Role},
};

const LOOK_EVERY: Duration = Duration::from_millis(400);
const EXCHANGE: Duration = Duration::from_millis(300);
/// What a look takes without the way.
const LOOK: Duration = Duration::from_millis(600);

/// What the configurations need and no plan can know.
#[derive(Debug, Clone)]
pub struct Material {
    /// Hashes the keys.
    pub key_secret: String,
    /// Who may ask.
    pub keys: Vec<Key>,
    /// For the operator's listeners.
    pub admin_token: String,
    /// What nodes show each other, and whom they trust: a `tls` section.
    pub tls: Value,
    /// Where addresses are.
    pub mmdb: PathBuf,
    /// The model's folder.
    pub model: PathBuf,
    /// Its name.
    pub model_name: String,
}

/// An API key of a tenant's own.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its tenant, and its own name.
    pub tenant: String,
    /// The key.
    pub key: String,
    /// The same, hashed.
    pub hash: String,
}

impl World {
    /// A node's configuration file. `disk` is where it keeps its files.
    #[must_use]
    pub fn config(&self, node: &Node, material: &Material, disk: &Path) -> Value {
        let mut config = match node.role {
            Role::Pod => self.pod(node, material),
            Role::Dns => self.dns(node, material),
            Role::Edge => self.edge(node, material),
        };
        config["log"] = json!({"access": false});
        if node.role != Role::Pod {
            config["regions"] = self.regions();
            config["health"] = self.health(node);
            config["health"]["state_file"] = json!(disk.join("health.json"));
        }
        if node.role == Role::Edge {
            config["access"]["usage_file"] = json!(disk.join("usage.db"));
        }
        config
    }

    fn pod(&self, node: &Node, material: &Material) -> Value {
        json!({
            "region": node.site,
            "origin": {
                "listen": self.at(&node.site, node.port()),
                "admin": {"listen": self.at(&node.site, node.admin_port())},
                "models": [{"folder": material.model, "aliases": ["default"]}],
                "threads": 1,
                // Many of them share a machine.
                "prefix_cache": "64MiB",
                "drain": "500ms",
            },
        })
    }

    fn edge(&self, node: &Node, material: &Material) -> Value {
        let keys = material
            .keys
            .iter()
            .map(|key| json!({"name": key.tenant, "tenant": key.tenant, "hmac_sha256": key.hash}));
        let pods = self.nodes.iter().filter(|pod| pod.role == Role::Pod && pod.site == node.site);
        let pods =
            pods.map(|pod| json!({"name": pod.name, "address": self.at(&pod.site, pod.port())}));
        json!({
            "region": node.site,
            "access": {"key_secret": material.key_secret, "keys": keys.collect::<Value>()},
            "edge": {
                "listen": self.at(&node.site, CLIENTS),
                "admin": {"listen": self.at(&node.site, ADMIN), "token": material.admin_token},
                "peer": self.peer(node, material),
                "pods": pods.collect::<Value>(),
                "threads": 1,
                "drain": "500ms",
                // All clients are on one machine and have its address.
                "limits": {"connections_per_address": 16_384},
            },
        })
    }

    fn dns(&self, node: &Node, material: &Material) -> Value {
        json!({
            "dns": {
                "listen": [self.at(&node.site, DNS)],
                "admin": {"listen": self.at(&node.site, ADMIN), "token": material.admin_token},
                "peer": self.peer(node, material),
                "zone": ZONE,
                "name_servers": ["ns1.example.com"],
                "mmdb": material.mmdb,
                "ttl": "2s",
                "negative_ttl": "2s",
                // As above: one address is everybody's.
                "rate_limit": {"answers": 65_536, "nothing": 65_536},
            },
        })
    }

    fn peer(&self, node: &Node, material: &Material) -> Value {
        json!({"listen": self.at(&node.site, PEERS), "name": node.site, "tls": material.tls})
    }

    fn regions(&self) -> Value {
        let region = |region: &super::layout::Place| {
            json!({
                "name": region.name,
                "location": region.location,
                "addresses": [self.addresses.get(region.name)],
                "health": format!("http://{}/health", self.at(region.name, CLIENTS)),
                "peers": [self.at(region.name, PEERS)],
            })
        };
        self.layout.regions.iter().map(region).collect()
    }

    /// Two looks that fail, and a region is down.
    fn health(&self, node: &Node) -> Value {
        let points =
            self.layout.sites().into_iter().map(
                |site| json!({"name": site, "url": format!("https://{}", self.at(site, PEERS))}),
            );
        // Whoever cannot reach any of them is cut off, and knows it.
        let others = self.layout.servers.iter().filter(|server| server.name != node.site);
        let witnesses = others.map(|server| self.at(server.name, DNS));
        // TCP, TLS, the question: three round trips to the farthest.
        let deadline = LOOK + 6 * self.layout.longest();
        let fresh = LOOK_EVERY + 2 * deadline + EXCHANGE + Duration::from_secs(1);
        json!({
            "vantage_points": points.collect::<Value>(),
            "witnesses": witnesses.collect::<Vec<String>>(),
            "interval": ms(LOOK_EVERY),
            "exchange": ms(EXCHANGE),
            "deadline": ms(deadline),
            "fresh": ms(fresh),
            "fall": 2,
            "rise": 2,
            "hold": "1s",
        })
    }
}

fn ms(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
