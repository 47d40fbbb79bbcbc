//! Names become addresses: whom to ask, how long, and in which order.
//!
//! | what | limit |
//! |---|---|
//! | one server, once | 600 ms |
//! | one question, all servers and aliases | 2 s |
//! | one name, all search domains | 4 s |
//! | a service and all its targets, for who asks once | 10 s |
//!
//! A search goes on after "nothing" only. Where a server fails, the next candidate might be
//! somebody else's name, and that there is no such name would say nothing about the first.
//!
//! Absent on purpose: a cache, and the system's own resolver: it has no deadline, gives no TTL, and
//! does not tell a failure from "nothing".

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use hickory_proto::rr::{Name, RData, RecordType};
use nearhop_admin::{clock, tls::Files};
use tokio::time::{timeout, timeout_at};

use crate::{
    exchange::exchange,
    memory::{AGAIN, Said},
    message::{ALIASES_MAX, Question as Query, Reply},
    pool::{Families, Heard, Pool, Question, Target},
    source::PODS_MAX,
    system::{Hosts, Servers},
    trouble::Trouble,
};

/// A server that has not answered by then is asked again, or another one is.
const TRY: Duration = Duration::from_millis(600);
/// How often, at least.
const TRIES: usize = 3;
/// One question, however many servers and aliases.
const QUESTION: Duration = Duration::from_secs(2);
/// One name, however many search domains.
const NAME: Duration = Duration::from_secs(4);
/// One name, and all targets where it is a service's; what came by then is the answer.
const ONCE: Duration = Duration::from_secs(10);
/// Questions of one pool on their way at once.
const AT_ONCE: usize = 32;
/// What this machine says itself is looked at again after this.
const LOCAL_TTL: Duration = Duration::from_secs(1);
/// What is an address already does not change.
const LITERAL_TTL: Duration = Duration::from_secs(60);

/// Whom to ask for names. Clones are one.
#[derive(Debug, Clone)]
pub struct Resolver(Arc<Shared>);

/// What is behind a name now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Sorted, each once, [`PODS_MAX`] at most. Empty where the name server says that there is
    /// nothing: whether to believe that is for who asked.
    pub found: Vec<SocketAddr>,
    /// When to ask again: 1 s to 60 s.
    pub ttl: Duration,
}

#[derive(Debug)]
struct Shared {
    /// Asked instead of the system's.
    server: Option<SocketAddr>,
    places: Places,
    system: Mutex<System>,
}

/// Where a machine says what it knows of names.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) resolv: PathBuf,
    pub(crate) hosts: PathBuf,
    /// On which the servers listen.
    pub(crate) port: u16,
}

#[derive(Debug)]
struct System {
    files: Files,
    read: Option<Arc<Settings>>,
}

#[derive(Debug)]
struct Settings {
    servers: Vec<SocketAddr>,
    search: Servers,
    hosts: Hosts,
}

impl Resolver {
    /// Asks `server`, for names as they are written; without one those of `/etc/resolv.conf`, with
    /// its search domains. `/etc/hosts` comes first. Both are read again when they change.
    #[must_use]
    pub fn new(server: Option<SocketAddr>) -> Self {
        let places =
            Places { resolv: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into(), port: 53 };
        Self::with(server, places)
    }

    pub(crate) fn with(server: Option<SocketAddr>, places: Places) -> Self {
        let files = Files::new(vec![places.resolv.clone(), places.hosts.clone()]);
        let system = Mutex::new(System { files, read: None });
        Self(Arc::new(Shared { server, places, system }))
    }

    /// The addresses of `name`, which may be one itself, each with `port`. Where only one of A and
    /// AAAA is answered, that one's.
    ///
    /// # Errors
    /// [`Trouble`] where nobody knows.
    pub async fn addresses(&self, name: &str, port: u16) -> Result<Answer, Trouble> {
        self.once(name, Pool::addresses(name, port, clock::now())).await
    }

    /// The addresses of the hosts of a service (SRV, RFC 2782), each with the host's port: of those
    /// with the lowest priority that have any. Hosts that cannot be looked up are left out.
    ///
    /// # Errors
    /// [`Trouble`] where nobody knows.
    pub async fn services(&self, name: &str) -> Result<Answer, Trouble> {
        self.once(name, Pool::services(name, clock::now())).await
    }

    /// Asks all that `pool` wants to know, once.
    async fn once(&self, name: &str, mut pool: Pool) -> Result<Answer, Trouble> {
        let now = clock::now();
        let until = (now + ONCE).into();
        let mut trouble = None;
        loop {
            // As of then: what is answered meanwhile is not due again.
            let mut answers = self.clone().ask_all(pool.questions(now)).boxed();
            let mut any = false;
            while let Ok(Some(heard)) = timeout_at(until, answers.next()).await {
                any = true;
                trouble = trouble.or_else(|| heard.trouble().cloned());
                pool.hear(heard, now);
            }
            if !any {
                break;
            }
        }
        let ttl = pool.due().saturating_duration_since(now).max(AGAIN.0);
        match pool.found() {
            Some(mut found) => {
                found.truncate(PODS_MAX);
                Ok(Answer { found, ttl })
            }
            None => Err(trouble.unwrap_or_else(|| Trouble::Silent(name.to_owned()))),
        }
    }

    /// Asks all of `questions`, some at once, and gives answers as they come.
    pub(crate) fn ask_all(
        self,
        questions: Vec<Question>,
    ) -> impl Stream<Item = Heard> + Send + 'static {
        stream::iter(questions)
            .map(move |question| {
                let resolver = self.clone();
                async move { resolver.ask(question).await }
            })
            .buffer_unordered(AT_ONCE)
    }

    async fn ask(&self, question: Question) -> Heard {
        match question {
            Question::Service(name) => {
                let said = timeout(NAME, self.service(&name)).await;
                Heard::Service(said.unwrap_or(Said::Failed(Trouble::Silent(name))))
            }
            Question::Host(name) => {
                let said = timeout(NAME, self.host(&name)).await;
                let said =
                    said.unwrap_or_else(|_late| Families::failed(&Trouble::Silent(name.clone())));
                Heard::Host(name, said)
            }
        }
    }

    async fn host(&self, name: &str) -> Families {
        if let Some(ip) = literal(name) {
            return Families::of(&[ip], LITERAL_TTL);
        }
        let settings = self.settings();
        if let Some(addresses) = settings.hosts.addresses(name) {
            return Families::of(&addresses, LOCAL_TTL);
        }
        let candidates = match settings.search.candidates(name) {
            Ok(candidates) => candidates,
            Err(trouble) => return Families::failed(&trouble),
        };
        let mut nothing = None;
        for candidate in candidates {
            let (v4, v6) = tokio::join!(
                settings.ask(&candidate, RecordType::A, |data| match data {
                    RData::A(ip) => Some(ip.0),
                    _ => None,
                }),
                settings.ask(&candidate, RecordType::AAAA, |data| match data {
                    RData::AAAA(ip) => Some(ip.0),
                    _ => None,
                }),
            );
            match (&v4, &v6) {
                (Said::Nothing { ttl: a }, Said::Nothing { ttl: b }) => {
                    nothing = [nothing, *a, *b].into_iter().flatten().min();
                }
                _ => return Families { v4, v6 },
            }
        }
        Families { v4: Said::Nothing { ttl: nothing }, v6: Said::Nothing { ttl: nothing } }
    }

    async fn service(&self, name: &str) -> Said<Target> {
        let settings = self.settings();
        let candidates = match settings.search.candidates(name) {
            Ok(candidates) => candidates,
            Err(trouble) => return Said::Failed(trouble),
        };
        let mut nothing = None;
        for candidate in candidates {
            let asked = settings.ask(&candidate, RecordType::SRV, |data| match data {
                RData::SRV(srv) => Some(srv),
                _ => None,
            });
            match asked.await {
                Said::Nothing { ttl } => nothing = [nothing, ttl].into_iter().flatten().min(),
                Said::Failed(trouble) => return Said::Failed(trouble),
                Said::There { records, ttl } => {
                    // A root is how a zone says that it has no such service (RFC 2782).
                    let offered =
                        records.into_iter().filter(|srv| !srv.target.is_root() && srv.port > 0);
                    let targets = offered
                        .map(|srv| Target {
                            priority: srv.priority,
                            host: srv.target.to_lowercase().to_ascii(),
                            port: srv.port,
                        })
                        .collect();
                    return said(targets, ttl);
                }
            }
        }
        Said::Nothing { ttl: nothing }
    }

    /// As the files say now.
    fn settings(&self) -> Arc<Settings> {
        let mut system = self.0.system.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = system.files.changed();
        match &system.read {
            Some(settings) if !changed => settings.clone(),
            _ => {
                let settings = Arc::new(self.0.read());
                system.read = Some(settings.clone());
                settings
            }
        }
    }
}

impl Shared {
    /// A file that is not there is an empty one.
    fn read(&self) -> Settings {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let hosts = Hosts::read(&text(&self.places.hosts));
        match self.server {
            Some(server) => Settings { servers: vec![server], search: Servers::default(), hosts },
            None => {
                let search = Servers::read(&text(&self.places.resolv));
                let port = |&ip: &IpAddr| SocketAddr::new(ip, self.places.port);
                Settings { servers: search.servers.iter().map(port).collect(), search, hosts }
            }
        }
    }
}

impl Settings {
    /// One question, with its aliases; of the records, what `take` takes.
    async fn ask<T>(
        &self,
        name: &Name,
        kind: RecordType,
        take: impl Fn(RData) -> Option<T>,
    ) -> Said<T> {
        let asked = timeout(QUESTION, self.follow(name, kind)).await;
        match asked.unwrap_or_else(|_late| Err(Trouble::Silent(name.to_string()))) {
            Ok(Reply::Records { data, ttl }) => {
                said(data.into_iter().filter_map(take).collect(), ttl)
            }
            Ok(Reply::Nothing { ttl }) => Said::Nothing { ttl },
            Ok(Reply::Alias { .. }) => Said::Failed(Trouble::Aliases(name.to_string())),
            Err(trouble) => Said::Failed(trouble),
        }
    }

    /// Through aliases that a server tells one at a time.
    async fn follow(&self, name: &Name, kind: RecordType) -> Result<Reply, Trouble> {
        let (mut at, mut shortest) = (name.clone(), Duration::MAX);
        for _ in 0..ALIASES_MAX {
            match self.ask_servers(&at, kind).await? {
                Reply::Alias { to, ttl } => (at, shortest) = (to, shortest.min(ttl)),
                Reply::Records { data, ttl } => {
                    return Ok(Reply::Records { data, ttl: ttl.min(shortest) });
                }
                Reply::Nothing { ttl } => return Ok(Reply::Nothing { ttl }),
            }
        }
        Err(Trouble::Aliases(name.to_string()))
    }

    /// The first server that knows. One that says that it does not know is not asked again; one that
    /// is silent is, since datagrams are lost.
    async fn ask_servers(&self, name: &Name, kind: RecordType) -> Result<Reply, Trouble> {
        let mut trouble = None;
        let mut spoke = Vec::new();
        for server in self.servers.iter().cycle().take(TRIES.max(self.servers.len())) {
            if spoke.contains(&server) {
                continue;
            }
            let question = Query::new(name.clone(), kind);
            let said = match timeout(TRY, exchange(*server, &question)).await {
                Err(_late) => continue,
                Ok(Ok(Ok(reply))) => return Ok(reply),
                Ok(Ok(Err(code))) => Trouble::Refused { name: name.to_string(), code },
                Ok(Err(error)) => {
                    Trouble::Unreachable { name: name.to_string(), reason: error.to_string() }
                }
            };
            trouble = Some(said);
            spoke.push(server);
        }
        Err(trouble.unwrap_or_else(|| Trouble::Silent(name.to_string())))
    }
}

impl Families {
    fn of(addresses: &[IpAddr], ttl: Duration) -> Self {
        let v4: Vec<Ipv4Addr> = addresses
            .iter()
            .filter_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            })
            .collect();
        let v6: Vec<Ipv6Addr> = addresses
            .iter()
            .filter_map(|ip| match ip {
                IpAddr::V6(ip) => Some(*ip),
                IpAddr::V4(_) => None,
            })
            .collect();
        Self { v4: said(v4, ttl), v6: said(v6, ttl) }
    }

    fn failed(trouble: &Trouble) -> Self {
        Self { v4: Said::Failed(trouble.clone()), v6: Said::Failed(trouble.clone()) }
    }
}

fn said<T>(records: Vec<T>, ttl: Duration) -> Said<T> {
    match records.is_empty() {
        true => Said::Nothing { ttl: Some(ttl) },
        false => Said::There { records, ttl },
    }
}

/// An address, with or without brackets.
fn literal(name: &str) -> Option<IpAddr> {
    let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    v6.unwrap_or(name).parse().ok()
}

#[cfg(test)]
mod tests;
