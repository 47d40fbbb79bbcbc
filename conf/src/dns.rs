//! The regions, and the DNS server that answers with the nearest of them.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde_json::Value;

use crate::{
    Admin, Peer,
    address::{is_host_name, is_url, split_target},
    defaults,
    reader::{Field, Section, flatten},
    units::{hex, http_token},
};

/// A region that DNS may answer with.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// Degrees north and degrees east.
    pub location: Option<(f64, f64)>,
    /// What DNS answers with; at least one.
    pub addresses: Vec<IpAddr>,
    /// Its share among regions that are about as near; over 0.
    pub weight: f64,
    /// −99 to 99: per cent by which its distance shrinks.
    pub bias: f64,
    /// Whether the operator took it out.
    pub drained: bool,
    /// The URL that says whether it is well: its public `/health`.
    pub health: Option<String>,
    /// The peer listeners of its edges, `host:port` each. DNS does not use them.
    pub peers: Vec<String>,
}

/// The DNS server.
#[derive(Debug, Clone, PartialEq)]
pub struct Dns {
    /// Where resolvers ask, by UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// The operator's listener.
    pub admin: Admin,
    /// The zone that is delegated to it.
    pub zone: String,
    /// The zone's name servers, the first of which the SOA names.
    pub name_servers: Vec<String>,
    /// The operator's mailbox, with a dot for the @.
    pub contact: String,
    /// Names in the zone that are answered with regions; `@` is the zone itself.
    pub services: Vec<String>,
    /// How long an answer with a region may be kept.
    pub ttl: Duration,
    /// How long a resolver may remember that something is not there.
    pub negative_ttl: Duration,
    /// A database of where addresses are.
    pub mmdb: Option<PathBuf>,
    /// A database of autonomous systems, for overrides by them.
    pub asn_mmdb: Option<PathBuf>,
    /// Regions that are no more than this much farther than the nearest are as near, kilometres.
    pub alike_km: f64,
    /// What is answered when every region is out.
    pub all_down: AllDown,
    /// What `fallback` answers with.
    pub fallback: Vec<IpAddr>,
    /// Clients whose regions the operator names.
    pub overrides: Vec<Override>,
    /// Open TCP connections; more wait.
    pub tcp_connections: usize,
    /// Answers a second by UDP for one network without a cookie.
    pub rate_limit: RateLimit,
    /// The listener for other vantage points.
    pub peer: Option<Peer>,
    /// Secrets of DNS cookies: the first makes them, all are accepted. Of this process alone where
    /// empty; servers of one address share them.
    pub cookie_secrets: Vec<CookieSecret>,
    /// Signatures; without it the zone is not signed.
    pub dnssec: Option<Dnssec>,
}

/// 128 bits that make DNS cookies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CookieSecret(pub [u8; 16]);

impl std::fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieSecret(…)")
    }
}

impl Field for CookieSecret {
    const EXPECTED: &'static str = "32 hexadecimal digits, as `openssl rand -hex 16` makes them";
    const SECRET: bool = true;
    fn parse(value: &Value) -> Option<Self> {
        hex(value.as_str()?).map(Self)
    }
}

/// How the zone is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dnssec {
    /// Files of its keys, at least one. The first signs, all are published.
    pub keys: Vec<PathBuf>,
    /// Signatures a second that are made for names that are not there.
    pub denials: usize,
}

/// More would not fit into one answer of all keys, each with its signature.
const KEYS_MAX: usize = 4;

impl Dnssec {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let keys: Option<Vec<PathBuf>> = section.required("keys");
        if let Some(keys) = keys.as_ref().filter(|keys| !(1..=KEYS_MAX).contains(&keys.len())) {
            let fix = format!("Write 1 to {KEYS_MAX} files, the one that signs first");
            section.problem("keys", format!("has {} files", keys.len()), fix);
        }
        let denials: Option<NonZeroUsize> = section.optional("denials");
        section.finish();
        Some(Self {
            keys: keys?,
            denials: denials.map_or(defaults::DNS_DENIALS, NonZeroUsize::get),
        })
    }
}

/// Answers a second by UDP for one /24 or /56.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// With something in them.
    pub answers: usize,
    /// Errors and denials.
    pub nothing: usize,
}

impl Default for RateLimit {
    fn default() -> Self {
        // A large resolver asks for a name of 30 s from a few dozen addresses of a network.
        Self { answers: 100, nothing: 20 }
    }
}

impl RateLimit {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let mut count = |name, default| {
            section.optional::<NonZeroUsize>(name).map_or(default, NonZeroUsize::get)
        };
        let limit = Self {
            answers: count("answers", default.answers),
            nothing: count("nothing", default.nothing),
        };
        section.finish();
        limit
    }
}

/// What is answered when every region is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllDown {
    /// The nearest all the same.
    Nearest,
    /// Nothing.
    NoData,
    /// The addresses of `fallback`.
    Fallback,
}

/// Clients whose regions the operator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Their networks.
    pub networks: Vec<IpNet>,
    /// Their autonomous systems.
    pub systems: Vec<u32>,
    /// Regions in the order to use.
    pub regions: Vec<String>,
}

/// Degrees on the globe.
struct Degrees(f64);

impl Field for Degrees {
    const EXPECTED: &'static str = "degrees from -180 to 180";
    fn parse(value: &Value) -> Option<Self> {
        value.as_f64().filter(|degrees| degrees.abs() <= 180.0).map(Self)
    }
}

/// A share among others.
struct Weight(f64);

impl Field for Weight {
    const EXPECTED: &'static str = "a number over 0, up to 1000000";
    fn parse(value: &Value) -> Option<Self> {
        value.as_f64().filter(|weight| *weight > 0.0 && *weight <= 1e6).map(Self)
    }
}

/// A part of a distance, in per cent.
struct Bias(f64);

impl Field for Bias {
    const EXPECTED: &'static str = "a number from -99 to 99";
    fn parse(value: &Value) -> Option<Self> {
        value.as_f64().filter(|bias| bias.abs() <= 99.0).map(Self)
    }
}

/// A distance, kilometres.
struct Kilometres(f64);

impl Field for Kilometres {
    const EXPECTED: &'static str = "kilometres from 0 to 20000";
    fn parse(value: &Value) -> Option<Self> {
        value.as_f64().filter(|km| (0.0..=20_000.0).contains(km)).map(Self)
    }
}

impl Field for u32 {
    const EXPECTED: &'static str = "a whole number such as 64496";
    fn parse(value: &Value) -> Option<Self> {
        value.as_u64().and_then(|number| Self::try_from(number).ok())
    }
}

/// Reads the list of regions.
pub(crate) fn read_regions(root: &mut Section<'_>) -> Option<Vec<Region>> {
    let (mut names, mut edges) = (HashSet::new(), HashSet::new());
    let regions = root.sections("regions").into_iter().map(|mut section| {
        let name: Option<String> = section.required("name");
        if let Some(name) = &name {
            if http_token(name).is_none() {
                let fix = "Use letters, digits, `-`, `_` and `.`";
                section.problem("name", "is sent in a header", fix);
            }
            if !names.insert(name.clone()) {
                section.problem("name", "is another region's", "Give each region its own");
            }
        }
        let location: Option<Vec<Degrees>> = section.optional("location");
        let location = match location.as_deref() {
            None => None,
            Some([Degrees(north), Degrees(east)]) if north.abs() <= 90.0 => Some((*north, *east)),
            Some(_) => {
                let fix = "Write degrees north and degrees east, such as [53.3, -6.3]";
                section.problem("location", "is no place on the globe", fix);
                None
            }
        };
        let addresses: Option<Vec<IpAddr>> = section.required("addresses");
        if addresses.as_ref().is_some_and(Vec::is_empty) {
            section.problem("addresses", "is empty", "Write what clients are to connect to");
        }
        let weight = section.optional("weight").map_or(1.0, |Weight(weight)| weight);
        let bias = section.optional("bias").map_or(0.0, |Bias(bias)| bias);
        let drained = section.or("drained", false);
        let health: Option<String> = section.optional("health");
        if health.as_deref().is_some_and(|url| !is_url(url)) {
            let fix = "Write a URL such as https://192.0.2.10/health";
            section.problem("health", "is no http URL", fix);
        }
        let peers: Vec<String> = section.optional("peers").unwrap_or_default();
        if let Some(bad) = peers.iter().find(|peer| split_target(peer).is_none()) {
            let fix = "Write the peer listener of each of its edges, such as 10.2.0.5:8443";
            section.problem("peers", format!("has `{bad}`, which is no host:port"), fix);
        }
        if let Some(twice) = peers.iter().find(|peer| !edges.insert((*peer).clone())) {
            let what = format!("has `{twice}`, which is listed already");
            section.problem("peers", what, "List each edge once, in its own region");
        }
        section.finish();
        let (name, addresses) = (name?, addresses?);
        Some(Region { name, location, addresses, weight, bias, drained, health, peers })
    });
    regions.collect()
}

impl Dns {
    pub(crate) fn from_section(mut section: Section<'_>, regions: &[Region]) -> Option<Self> {
        if regions.is_empty() {
            let fix = "Add `regions` with `{name, addresses, location}` to the file";
            section.problem("listen", "has no region to answer with", fix);
        }
        let listen: Option<Vec<SocketAddr>> = section.required("listen");
        if listen.as_ref().is_some_and(Vec::is_empty) {
            section.problem("listen", "is empty", "Write addresses such as [\"0.0.0.0:53\"]");
        }
        let admin = Admin::from_section(section.section("admin"));
        let zone: Option<String> = section.required("zone");
        let name_servers: Option<Vec<String>> = section.required("name_servers");
        let contact = section.optional("contact");
        let contact = contact
            .unwrap_or_else(|| format!("hostmaster.{}", zone.as_deref().unwrap_or_default()));
        let services: Vec<String> =
            section.optional("services").unwrap_or_else(|| vec!["@".to_owned()]);
        for (field, names) in [
            ("zone", zone.as_slice()),
            ("name_servers", name_servers.as_deref().unwrap_or_default()),
            ("contact", std::slice::from_ref(&contact)),
            ("services", services.as_slice()),
        ] {
            let apex = |name: &String| field == "services" && name == "@";
            if let Some(bad) = names.iter().find(|name| !(apex(name) || is_host_name(name))) {
                let what = format!("has `{bad}`, which is no domain name");
                section.problem(field, what, "Write labels of letters, digits, `-` and `_`");
            }
        }
        if name_servers.as_ref().is_some_and(Vec::is_empty) {
            let fix = "Write the names under which this server is delegated to";
            section.problem("name_servers", "is empty", fix);
        }
        let ttl = section.or("ttl", defaults::DNS_TTL);
        let negative_ttl = section.or("negative_ttl", defaults::DNS_TTL);
        let mmdb = section.optional("mmdb");
        let asn_mmdb: Option<PathBuf> = section.optional("asn_mmdb");
        let alike_km = section.optional("alike_km").map_or(defaults::ALIKE_KM, |Kilometres(km)| km);
        let all_down = section.or("all_down", AllDown::Nearest);
        let fallback: Vec<IpAddr> = section.optional("fallback").unwrap_or_default();
        if all_down == AllDown::Fallback && fallback.is_empty() {
            let fix = "Write the addresses to answer with when every region is out";
            section.problem("fallback", "is missing", fix);
        }
        let known: HashSet<&str> = regions.iter().map(|region| region.name.as_str()).collect();
        let overrides = read_overrides(&mut section, &known, asn_mmdb.is_some());
        let tcp_connections = section
            .optional::<NonZeroUsize>("tcp_connections")
            .map_or(defaults::DNS_TCP_CONNECTIONS, NonZeroUsize::get);
        let rate_limit = RateLimit::from_section(section.section("rate_limit"));
        let cookie_secrets = section.optional("cookie_secrets").unwrap_or_default();
        let peer = section.has("peer").then(|| Peer::from_section(section.section("peer")));
        let dnssec = section.has("dnssec").then(|| Dnssec::from_section(section.section("dnssec")));
        section.finish();
        Some(Self {
            listen: listen?,
            admin: admin?,
            zone: zone?,
            name_servers: name_servers?,
            contact,
            services,
            ttl,
            negative_ttl,
            mmdb,
            asn_mmdb,
            alike_km,
            all_down,
            fallback,
            overrides: overrides?,
            tcp_connections,
            rate_limit,
            peer: flatten(peer)?,
            cookie_secrets,
            dnssec: flatten(dnssec)?,
        })
    }
}

fn read_overrides(
    dns: &mut Section<'_>,
    known: &HashSet<&str>,
    systems_known: bool,
) -> Option<Vec<Override>> {
    let overrides = dns.sections("overrides").into_iter().map(|mut section| {
        let networks: Vec<IpNet> = section.optional("networks").unwrap_or_default();
        let systems: Vec<u32> = section.optional("systems").unwrap_or_default();
        let regions: Option<Vec<String>> = section.required("regions");
        if networks.is_empty() && systems.is_empty() {
            let fix = "Write `networks` or `systems`";
            section.problem("networks", "is missing, so that this is for nobody", fix);
        }
        if !systems.is_empty() && !systems_known {
            let fix = "Write `dns.asn_mmdb`";
            section.problem("systems", "needs a database of autonomous systems", fix);
        }
        let unknown = |name: &&String| !known.contains(name.as_str());
        if let Some(name) = regions.iter().flatten().find(unknown) {
            let what = format!("has `{name}`, which is no region of this file");
            section.problem("regions", what, "Write names of `regions`");
        }
        section.finish();
        Some(Override { networks, systems, regions: regions? })
    });
    overrides.collect()
}
