//! The pods behind one name: which questions are due, and what their answers come to.
//!
//! ```text
//! addresses: NAME:PORT                 a host ─▶ A, AAAA ─▶ address:PORT …
//! services:  _service._proto.NAME      SRV ─▶ (priority, host, port) … ─▶ A, AAAA of each
//! ```
//!
//! Each question has a memory of its own and is asked by its own TTL. So a target whose name server
//! fails keeps its addresses while others come and go, and so do a host's IPv6 addresses where only
//! A is answered.
//!
//! Of SRV records (RFC 2782), targets of the lowest priority are used while any of them has an
//! address, then those of the next. Weights are ignored: pods are chosen by how busy and how fast
//! they are, which a number written beforehand could only spoil.
//!
//! Absent on purpose: sockets and clocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use crate::{
    memory::{Memory, Said},
    source::PODS_MAX,
    trouble::Trouble,
};

/// What an SRV record says, less its weight. Ordered by priority.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) priority: u16,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// To be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    Service(String),
    Host(String),
}

/// What was said to a [`Question`].
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    Service(Said<Target>),
    Host(String, Families),
}

impl Heard {
    /// Why something was not answered.
    pub(crate) const fn trouble(&self) -> Option<&Trouble> {
        match self {
            Self::Service(Said::Failed(trouble))
            | Self::Host(_, Families { v4: Said::Failed(trouble), .. })
            | Self::Host(_, Families { v6: Said::Failed(trouble), .. }) => Some(trouble),
            _ => None,
        }
    }
}

/// What was said of a host's A and AAAA records.
#[derive(Debug, Clone)]
pub(crate) struct Families {
    pub(crate) v4: Said<Ipv4Addr>,
    pub(crate) v6: Said<Ipv6Addr>,
}

/// The pods behind a name.
#[derive(Debug)]
pub(crate) struct Pool {
    list: List,
    /// Those of the list's targets, and no others.
    hosts: BTreeMap<String, Host>,
}

#[derive(Debug)]
enum List {
    One([Target; 1]),
    Service { name: String, records: Memory<Target> },
}

#[derive(Debug)]
struct Host {
    v4: Memory<Ipv4Addr>,
    v6: Memory<Ipv6Addr>,
}

impl Pool {
    /// Every address of `name`.
    pub(crate) fn addresses(name: &str, port: u16, now: Instant) -> Self {
        let target = Target { priority: 0, host: name.to_owned(), port };
        let hosts = [(name.to_owned(), Host::new(now))].into();
        Self { list: List::One([target]), hosts }
    }

    /// Every address of every target of a service.
    pub(crate) fn services(name: &str, now: Instant) -> Self {
        let list = List::Service { name: name.to_owned(), records: Memory::new(now) };
        Self { list, hosts: BTreeMap::new() }
    }

    /// When the next question is due.
    pub(crate) fn due(&self) -> Instant {
        let hosts = self.hosts.values().map(Host::due);
        match &self.list {
            List::One(_) => hosts.min().expect("the one host is always there"),
            List::Service { records, .. } => hosts.fold(records.due(), Instant::min),
        }
    }

    /// The questions that are due: the list's, then those that wait longest.
    pub(crate) fn questions(&self, now: Instant) -> Vec<Question> {
        let mut hosts: Vec<_> = self.hosts.iter().filter(|(_, host)| host.due() <= now).collect();
        hosts.sort_by_key(|(_, host)| host.due());
        let hosts = hosts.into_iter().map(|(name, _)| Question::Host(name.clone()));
        match &self.list {
            List::Service { name, records } if records.due() <= now => {
                [Question::Service(name.clone())].into_iter().chain(hosts).collect()
            }
            _ => hosts.collect(),
        }
    }

    /// Takes in what was said. What is said of a host that is no target any more is dropped.
    pub(crate) fn hear(&mut self, heard: Heard, now: Instant) {
        match (heard, &mut self.list) {
            (Heard::Host(name, said), _) => {
                if let Some(host) = self.hosts.get_mut(&name) {
                    host.v4.hear(said.v4, now);
                    host.v6.hear(said.v6, now);
                }
            }
            (Heard::Service(said), List::Service { records, .. }) => {
                records.hear(said, now);
                let names: BTreeSet<String> =
                    self.targets().iter().map(|target| target.host.clone()).collect();
                self.hosts.retain(|name, _| names.contains(name));
                for name in names {
                    self.hosts.entry(name).or_insert_with(|| Host::new(now));
                }
            }
            (Heard::Service(_), List::One(_)) => {}
        }
    }

    /// Sorted, each once, and however many there are. `None` while nobody knows: no answer came yet,
    /// or none of the targets could be looked up.
    pub(crate) fn found(&self) -> Option<Vec<SocketAddr>> {
        let listed = match &self.list {
            List::One(_) => true,
            List::Service { records, .. } => records.answered(),
        };
        let found = self.first_priority();
        let known = listed && (!found.is_empty() || self.hosts.values().all(Host::answered));
        known.then(|| found.into_iter().collect())
    }

    /// Whether there are targets of which nothing was heard, not even a failure.
    pub(crate) fn unheard(&self) -> bool {
        self.hosts.values().any(|host| !host.v4.heard() && !host.v6.heard())
    }

    /// Whether the last that was heard of any question was a failure.
    pub(crate) fn failing(&self) -> bool {
        let listing = match &self.list {
            List::One(_) => false,
            List::Service { records, .. } => records.failing(),
        };
        listing || self.hosts.values().any(|host| host.v4.failing() || host.v6.failing())
    }

    fn targets(&self) -> &[Target] {
        match &self.list {
            List::One(target) => target,
            // In order of priority: what is cut off would be used last.
            List::Service { records, .. } => {
                let known = records.known();
                &known[..known.len().min(PODS_MAX)]
            }
        }
    }

    fn first_priority(&self) -> BTreeSet<SocketAddr> {
        let mut found = BTreeSet::new();
        let mut priority = None;
        for target in self.targets() {
            if !found.is_empty() && priority != Some(target.priority) {
                break;
            }
            priority = Some(target.priority);
            let Some(host) = self.hosts.get(&target.host) else { continue };
            let v4 = host.v4.known().iter().map(|&ip| SocketAddr::from((ip, target.port)));
            let v6 = host.v6.known().iter().map(|&ip| SocketAddr::from((ip, target.port)));
            found.extend(v4.chain(v6));
        }
        found
    }
}

impl Host {
    const fn new(now: Instant) -> Self {
        Self { v4: Memory::new(now), v6: Memory::new(now) }
    }

    /// Both are asked for together: an alias, or a search domain, is one thing for the two.
    fn due(&self) -> Instant {
        self.v4.due().min(self.v6.due())
    }

    /// Whether it is known where it is, or that it is nowhere.
    fn answered(&self) -> bool {
        let anywhere = !self.v4.known().is_empty() || !self.v6.known().is_empty();
        anywhere || (self.v4.answered() && self.v6.answered())
    }
}

#[cfg(test)]
mod tests;
