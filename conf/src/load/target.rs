//! What scenarios are run against: regions, how their clients find them, and who may be asked for
//! more than answers.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use http::Uri;
use ipnet::IpNet;
use serde_json::Value;

use super::scenario::Above;
use crate::{
    Protocol, Secret,
    address::{is_url, split_target},
    reader::{Field, LIST_MAX, Section, read_bearer},
};

/// A deployment that is asked.
#[derive(Debug, Clone)]
pub struct Target {
    /// The model that requests name.
    pub model: String,
    /// Whose keys they carry, by turns; without any, requests carry none.
    pub keys: Vec<LoadKey>,
    /// Where users are; at least one.
    pub regions: Vec<TargetRegion>,
    /// Who tells clients where to go; else each asks the URL of its region.
    pub dns: Option<TargetDns>,
    /// For the edges' admin listeners: usage and purges are looked at with it.
    pub admin_token: Option<Secret>,
    /// Certificates to trust beside the system's, a PEM file.
    pub ca: Option<PathBuf>,
    /// How clients speak to edges.
    pub protocol: Protocol,
    /// The socket of an emulator of regions, which does a scenario's actions.
    pub control: Option<PathBuf>,
    /// Programs with their arguments, for a scenario's actions on another deployment. They find
    /// `NEARHOP_COUNT`, `NEARHOP_REGION` and `NEARHOP_DELAY_MS` in their environment.
    pub actions: BTreeMap<String, Vec<String>>,
}

/// A tenant's key.
#[derive(Debug, Clone)]
pub struct LoadKey {
    /// As clients send it.
    pub key: Secret,
    /// Whose it is; purges need to name it.
    pub tenant: Option<String>,
    /// Its part of all requests, beside those of the others.
    pub weight: f64,
}

/// Where some of the users are.
#[derive(Debug, Clone)]
pub struct TargetRegion {
    /// Its name.
    pub name: String,
    /// Where it is asked: a scheme, a host, and a port where that is not the scheme's.
    pub url: String,
    /// Its part of all users, beside those of the others.
    pub weight: f64,
    /// The network that its users are in, of which resolvers tell DNS servers (RFC 7871).
    pub clients: Option<IpNet>,
    /// Its edge's admin listener, `host:port`.
    pub admin: Option<String>,
    /// Those of its pods.
    pub pods: Vec<String>,
    /// Listeners that serve metrics of GPUs at `/metrics`, in the names of NVIDIA's exporter.
    pub gpus: Vec<String>,
}

/// How clients find their region.
#[derive(Debug, Clone)]
pub struct TargetDns {
    /// What they ask for.
    pub name: String,
    /// Whom; the next where one does not answer.
    pub servers: Vec<SocketAddr>,
    /// The port of every address they are given. Clients of a URL with `https` speak TLS to it.
    pub port: u16,
}

pub(super) fn read(section: &mut Section<'_>) -> Option<Target> {
    let model = section.required("model");
    let keys: Option<Vec<LoadKey>> = listed(section, "keys").into_iter().map(read_key).collect();
    let regions: Option<Vec<TargetRegion>> =
        listed(section, "regions").into_iter().map(read_region).collect();
    let dns = section.has("dns").then(|| read_dns(section.section("dns")));
    let admin_token = read_bearer(section, "admin_token", "admin_token_file");
    let (ca, control) = (section.optional("ca"), section.optional("control"));
    let protocol = section.or("protocol", Protocol::Http1);
    let actions = section.or("actions", BTreeMap::new());
    if regions.as_ref().is_some_and(Vec::is_empty) {
        let fix = "Write at least one, with `name` and `url`";
        section.problem("regions", "has no region", fix);
    }
    if matches!(dns, Some(Some(_))) && regions.iter().flatten().any(|one| one.clients.is_none()) {
        let fix = "Say of each region in which network its clients are, as `clients: 192.0.2.0/24`";
        section.problem("regions", "has one without clients, beside dns", fix);
    }
    Some(Target {
        model: model?,
        keys: keys?,
        regions: regions?,
        dns: dns.flatten(),
        admin_token,
        ca,
        protocol,
        control,
        actions,
    })
}

fn listed<'a>(section: &mut Section<'a>, name: &'static str) -> Vec<Section<'a>> {
    let sections = section.sections(name);
    if sections.len() > LIST_MAX {
        let what = format!("has {} items", sections.len());
        section.problem(name, what, format!("List at most {LIST_MAX}"));
        return Vec::new();
    }
    sections
}

fn read_key(mut section: Section<'_>) -> Option<LoadKey> {
    let given = section.has("key") || section.has("key_file");
    let key = read_bearer(&mut section, "key", "key_file");
    if !given {
        section.problem("key", "is missing", "Add it, or `key_file`");
    }
    let (tenant, weight) = (section.optional("tenant"), section.or("weight", Above(1.0)).0);
    section.finish();
    Some(LoadKey { key: key?, tenant, weight })
}

fn read_region(mut section: Section<'_>) -> Option<TargetRegion> {
    let (name, url) = (section.required("name"), section.required("url"));
    let weight = section.or("weight", Above(1.0)).0;
    let clients = section.optional("clients");
    let admin = section.optional::<Listener>("admin").map(|Listener(at)| at);
    let [pods, gpus] = ["pods", "gpus"].map(|name| {
        let all: Vec<Listener> = section.or(name, Vec::new());
        all.into_iter().map(|Listener(at)| at).collect()
    });
    section.finish();
    let BaseUrl(url) = url?;
    Some(TargetRegion { name: name?, url, weight, clients, admin, pods, gpus })
}

fn read_dns(mut section: Section<'_>) -> Option<TargetDns> {
    let (name, servers) =
        (section.required("name"), section.required::<Vec<SocketAddr>>("servers"));
    let Port(port) = section.or("port", Port(443));
    if servers.as_ref().is_some_and(Vec::is_empty) {
        section.problem("servers", "has no server", "Write the address and port of one");
    }
    section.finish();
    Some(TargetDns { name: name?, servers: servers?, port })
}

/// `http://host:port`, without a path: the paths are the requests'.
struct BaseUrl(String);

impl Field for BaseUrl {
    const EXPECTED: &'static str = "a URL without a path such as https://complete.example.com";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?.trim_end_matches('/');
        let bare = text.parse::<Uri>().is_ok_and(|url| url.path() == "/" && url.query().is_none());
        (is_url(text) && bare && !text.contains('#')).then(|| Self(text.to_owned()))
    }
}

/// `host:port`.
struct Listener(String);

impl Field for Listener {
    const EXPECTED: &'static str = "a host and a port such as edge.example.com:8081";
    fn parse(value: &Value) -> Option<Self> {
        let text = value.as_str()?;
        let v6 = || text.parse::<SocketAddr>().is_ok_and(|at| at.port() > 0);
        (split_target(text).is_some() || v6()).then(|| Self(text.to_owned()))
    }
}

struct Port(u16);

impl Field for Port {
    const EXPECTED: &'static str = "a port from 1 to 65535";
    fn parse(value: &Value) -> Option<Self> {
        u16::try_from(value.as_u64()?).ok().filter(|port| *port > 0).map(Self)
    }
}
