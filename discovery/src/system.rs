//! What a machine says about names: `/etc/resolv.conf` and `/etc/hosts`.
//!
//! Absent on purpose: `nsswitch.conf` (files come before DNS, as everywhere), the options of
//! `resolv.conf` other than `ndots`, and servers with a scope (`fe80::1%eth0`).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use hickory_proto::rr::Name;

use crate::trouble::Trouble;

/// As resolvers everywhere have it.
const SERVERS_MAX: usize = 3;
/// As much as anybody has; each is one more question for a name that is nowhere.
const SEARCH_MAX: usize = 32;
/// As resolvers everywhere have it.
const NDOTS_MAX: usize = 15;

/// Whom to ask, and in which domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Servers {
    pub(crate) servers: Vec<IpAddr>,
    pub(crate) search: Vec<Name>,
    /// A name with fewer dots is looked for in the search domains first.
    pub(crate) ndots: usize,
}

impl Default for Servers {
    /// What an empty file says: the name server of this machine.
    fn default() -> Self {
        Self { servers: vec![Ipv4Addr::LOCALHOST.into()], search: Vec::new(), ndots: 1 }
    }
}

impl Servers {
    /// Reads `resolv.conf`. What cannot be read is left out, as everybody does.
    pub(crate) fn read(text: &str) -> Self {
        let mut read = Self { servers: Vec::new(), ..Self::default() };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if read.servers.len() < SERVERS_MAX => {
                    read.servers
                        .extend(words.next().and_then(|server| server.parse::<IpAddr>().ok()));
                }
                // The last one of the two counts.
                Some("search" | "domain") => {
                    read.search = words.filter_map(absolute).take(SEARCH_MAX).collect();
                }
                Some("options") => {
                    let mut dots =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse::<usize>().ok());
                    read.ndots = dots.next_back().unwrap_or(read.ndots).min(NDOTS_MAX);
                }
                _ => {}
            }
        }
        if read.servers.is_empty() {
            read.servers = Self::default().servers;
        }
        read
    }

    /// The names that `name` may stand for, in the order in which they are tried. One that ends with
    /// a dot stands for itself.
    pub(crate) fn candidates(&self, name: &str) -> Result<Vec<Name>, Trouble> {
        let itself = absolute(name).ok_or_else(|| Trouble::NotAName(name.to_owned()))?;
        if name.ends_with('.') {
            return Ok(vec![itself]);
        }
        let mut names: Vec<Name> =
            self.search.iter().filter_map(|domain| absolute(&format!("{name}.{domain}"))).collect();
        let dots = name.matches('.').count();
        let at = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(at, itself);
        Ok(names)
    }
}

fn absolute(name: &str) -> Option<Name> {
    let mut read = Name::from_ascii(name).ok().filter(|_| !name.is_empty())?;
    read.set_fqdn(true);
    Some(read)
}

/// Names that this machine knows itself, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads `/etc/hosts`. What cannot be read is left out, as everybody does.
    pub(crate) fn read(text: &str) -> Self {
        let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse) else { continue };
            for name in words {
                hosts.entry(plain(name)).or_default().push(address);
            }
        }
        Self(hosts)
    }

    /// The addresses of a name. `localhost` and what is below it is this machine in any case
    /// (RFC 6761), and no name server's business.
    pub(crate) fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = plain(name);
        let local = || {
            (name == "localhost" || name.ends_with(".localhost"))
                .then(|| vec![Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()])
        };
        self.0.get(&name).cloned().or_else(local)
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
