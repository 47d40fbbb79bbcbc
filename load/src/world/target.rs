//! What a load tool, or a person, needs to know of a world that is ready.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    Material, World, ZONE,
    nodes::{ADMIN, CLIENTS, DNS, Role},
};

impl World {
    /// How a load tool finds everything, and who it is there.
    #[must_use]
    pub fn target(&self, material: &Material, control: &Path) -> Value {
        let keys = material.keys.iter().map(|key| json!({"key": key.key, "tenant": key.tenant}));
        let regions = self.layout.regions.iter().map(|region| {
            json!({
                "name": region.name,
                "clients": region.clients,
                "url": format!("http://{}", self.at(region.name, CLIENTS)),
                "admin": self.at(region.name, ADMIN),
                "pods": self.pod_admins(region.name),
            })
        });
        json!({
            "model": material.model_name,
            "keys": keys.collect::<Value>(),
            "admin_token": material.admin_token,
            "control": control,
            "dns": {"name": ZONE, "servers": self.servers(), "port": CLIENTS},
            "regions": regions.collect::<Value>(),
        })
    }

    /// Where DNS servers say what they know.
    #[must_use]
    pub fn dns_admins(&self) -> Vec<String> {
        self.layout.servers.iter().map(|server| self.at(server.name, ADMIN)).collect()
    }

    /// Where edges say what they know, and of how many upstreams each knows: pods and other regions.
    #[must_use]
    pub fn edge_admins(&self) -> (Vec<String>, usize) {
        let regions = &self.layout.regions;
        let admins = regions.iter().map(|region| self.at(region.name, ADMIN));
        (admins.collect(), self.layout.pods + regions.len() - 1)
    }

    fn pod_admins(&self, region: &str) -> Vec<String> {
        let pods = self.nodes.iter().filter(|node| node.role == Role::Pod && node.site == region);
        pods.map(|pod| self.at(&pod.site, pod.admin_port())).collect()
    }

    fn servers(&self) -> Vec<String> {
        self.layout.servers.iter().map(|server| self.at(server.name, DNS)).collect()
    }
}

/// The same for a person, with things to try. `binary` is how this program was called.
#[must_use]
pub fn words(world: &World, material: &Material, control: &Path, binary: &str) -> String {
    let mut text = "\nThe world is ready.\n\n".to_owned();
    for region in &world.layout.regions {
        text += &format!(
            "  {:10} http://{}/v1   admin {}   pods' admin {}\n",
            region.name,
            world.at(region.name, CLIENTS),
            world.at(region.name, ADMIN),
            world.pod_admins(region.name).join(" "),
        );
    }
    let servers = world.servers();
    let keys: Vec<&str> = material.keys.iter().map(|key| key.key.as_str()).collect();
    text += &format!(
        "  {:10} {}   {ZONE}\n  keys {}; model {}; admin token {}\n",
        "dns",
        servers.join(" "),
        keys.join(", "),
        material.model_name,
        material.admin_token
    );
    let first = &world.layout.regions[0];
    let (dns, dns_port) = servers[0].split_once(':').unwrap_or((&servers[0], "53"));
    let act = format!("{binary} load act --control {}", control.display());
    text += &format!(
        r#"
Try it:
  curl http://{edge}/v1/completions -H 'authorization: Bearer {key}' \
    -d '{{"model": "{model}", "prompt": "def add(a, b):\n    return ", "suffix": "\n", "max_tokens": 16}}'
  dig @{dns} -p {dns_port} {ZONE} +subnet={clients} +short

  {act} kill_llm_nodes count=2
  {act} network_partition region={region}
  {act} state
  {act} undo

Ctrl-C ends it."#,
        edge = world.at(first.name, CLIENTS),
        key = keys.first().unwrap_or(&""),
        model = material.model_name,
        clients = first.clients,
        region = first.name,
    );
    text
}
