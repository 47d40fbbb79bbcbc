//! What a test holds: the sites, and the links between them.

use std::{
    ffi::OsStr,
    io::{self, PipeWriter},
    net::Ipv4Addr,
    process::Command,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    error::Error,
    forward::{Directions, Forwarder, Place},
    link::{Counts, Direction},
    namespace::{self, Namespace, Subnet},
};

/// The name of the place where the test itself is.
pub const HOST: &str = "host";

/// Addresses of a subnet, less the host's and the ends.
const SITES_MAX: usize = 200;

/// Several sites on one machine. When it is dropped, its devices and namespaces go; processes that still
/// run in them are their owner's to end.
#[derive(Debug)]
pub struct Emulator {
    /// Dropped before the sites, since it holds their devices.
    _forwarding: Forwarding,
    directions: Arc<Directions>,
    /// The last one is the host.
    sites: Vec<Site>,
}

impl Emulator {
    /// Starts an emulator with these sites and the host, all of them connected without delay or loss.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] where none can run; the others are mistakes, of the caller or ours.
    pub fn start(sites: &[&str]) -> Result<Self, Error> {
        check_names(sites)?;
        namespace::check()?;
        let places = sites.len() + 1;
        let names = namespace::names(
            u32::try_from(places).map_err(|error| Error::Sites(error.to_string()))?,
        )?;
        let devices =
            names.iter().map(|name| namespace::device(name)).collect::<Result<Vec<_>, _>>()?;
        let (host, names) =
            names.split_last().ok_or_else(|| Error::Sites("no place at all".to_owned()))?;
        let subnet = Subnet::claim(std::process::id(), host)?;

        let mut made = Vec::with_capacity(places);
        for ((site, name), number) in sites.iter().zip(names).zip(1..) {
            let address = subnet.address(number);
            let namespace = Some(Namespace::create(name.clone(), name, address)?);
            made.push(Site { name: (*site).to_owned(), address, namespace });
        }
        made.push(Site {
            name: HOST.to_owned(),
            address: subnet.address(Subnet::HOST),
            namespace: None,
        });

        let directions = Arc::new(Directions::new(places));
        let places = made
            .iter()
            .zip(devices)
            .map(|(site, tun)| Place { address: site.address, tun })
            .collect();
        let forwarding = Forwarding::start(Forwarder::new(places, Arc::clone(&directions)))?;
        Ok(Self { _forwarding: forwarding, directions, sites: made })
    }

    /// A site by its name, or the host by [`HOST`].
    ///
    /// # Panics
    ///
    /// Where there is no such site, as every method here that takes a name.
    #[must_use]
    #[track_caller]
    pub fn site(&self, name: &str) -> &Site {
        &self.sites[self.place(name)]
    }

    /// The address at which sites reach the test, for its sockets to bind.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        self.site(HOST).address
    }

    /// Both directions between two places, to be given delay, jitter and loss.
    #[track_caller]
    pub fn link(&self, one: &str, other: &str) -> Link<'_> {
        let (one, other) = self.pair(one, other);
        Link { directions: &self.directions, there: (one, other), back: Some((other, one)) }
    }

    /// The direction from one place to another, to be given delay, jitter and loss.
    #[track_caller]
    pub fn link_one_way(&self, from: &str, to: &str) -> Link<'_> {
        Link { directions: &self.directions, there: self.pair(from, to), back: None }
    }

    /// Cuts two places off from each other. Once this returns nothing passes between them, and what
    /// was on its way is lost, even if they are healed before it was due.
    #[track_caller]
    pub fn cut(&self, one: &str, other: &str) {
        self.link(one, other).change(Direction::cut);
    }

    /// Cuts one direction only: `to` hears nothing more of `from`, which still hears `to`.
    #[track_caller]
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.link_one_way(from, to).change(Direction::cut);
    }

    /// Undoes cuts between two places, in both directions; delay, jitter and loss are as they were.
    #[track_caller]
    pub fn heal(&self, one: &str, other: &str) {
        self.link(one, other).change(Direction::heal);
    }

    /// Undoes a cut of one direction.
    #[track_caller]
    pub fn heal_one_way(&self, from: &str, to: &str) {
        self.link_one_way(from, to).change(Direction::heal);
    }

    /// Cuts a site off from all other sites. The test still reaches it: `cut(site, HOST)` ends that too.
    #[track_caller]
    pub fn isolate(&self, site: &str) {
        let site = self.site(site);
        for other in
            self.sites.iter().filter(|other| other.namespace.is_some() && other.name != site.name)
        {
            self.cut(&site.name, &other.name);
        }
    }

    /// Undoes every cut of a site, from whomever and however it was made.
    #[track_caller]
    pub fn rejoin(&self, site: &str) {
        let site = self.site(site);
        for other in self.sites.iter().filter(|other| other.name != site.name) {
            self.heal(&site.name, &other.name);
        }
    }

    /// What became of the packets from one place to another.
    #[must_use]
    #[track_caller]
    pub fn counts(&self, from: &str, to: &str) -> Counts {
        let (from, to) = self.pair(from, to);
        self.directions.with(from, to, |direction| direction.counts)
    }

    #[track_caller]
    fn pair(&self, one: &str, other: &str) -> (usize, usize) {
        let pair = (self.place(one), self.place(other));
        assert!(pair.0 != pair.1, "{one:?} has no link to itself");
        pair
    }

    #[track_caller]
    #[expect(
        clippy::panic,
        reason = "a wrong name is the test's own mistake: it fails where it was written"
    )]
    fn place(&self, name: &str) -> usize {
        self.sites.iter().position(|site| site.name == name).unwrap_or_else(|| {
            let names: Vec<&str> = self.sites.iter().map(|site| site.name.as_str()).collect();
            panic!("there is no site {name:?}; there are {names:?}")
        })
    }
}

/// A site: a namespace with one address. Or the host, where commands run as ever.
#[derive(Debug)]
pub struct Site {
    name: String,
    address: Ipv4Addr,
    namespace: Option<Namespace>,
}

impl Site {
    /// What it was called at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the others reach it. In the site itself, too; it has a loopback of its own besides.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs in this site, to be given arguments, streams and a folder. The child's id is
    /// the program's own. A program that is not there is no error of `spawn`: the child says so, and fails.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace.name()]).arg(program);
        command
    }
}

/// One or both directions of a link. What is set holds for packets that are sent from then on.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    directions: &'a Directions,
    there: (usize, usize),
    back: Option<(usize, usize)>,
}

impl Link<'_> {
    /// How long each direction takes: a round trip takes two of them.
    #[expect(clippy::return_self_not_must_use, reason = "it has done its work")]
    pub fn delay(self, delay: Duration) -> Self {
        self.change(|direction| direction.settings.delay = delay)
    }

    /// How much longer it may take, drawn for each packet; they stay in order.
    #[expect(clippy::return_self_not_must_use, reason = "it has done its work")]
    pub fn jitter(self, jitter: Duration) -> Self {
        self.change(|direction| direction.settings.jitter = jitter)
    }

    /// The part of all packets that is lost, drawn for each: from 0 to 1.
    ///
    /// # Panics
    ///
    /// Where it is none.
    #[expect(clippy::return_self_not_must_use, reason = "it has done its work")]
    #[track_caller]
    pub fn loss(self, loss: f64) -> Self {
        assert!((0.0..=1.0).contains(&loss), "{loss} is no part of all packets");
        self.change(|direction| direction.settings.loss = loss)
    }

    fn change(self, change: impl Fn(&mut Direction)) -> Self {
        for (from, to) in [Some(self.there), self.back].into_iter().flatten() {
            self.directions.with(from, to, &change);
        }
        self
    }
}

/// The thread that forwards, and the pipe whose closing ends it.
#[derive(Debug)]
struct Forwarding {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarding {
    fn start(forwarder: Forwarder) -> Result<Self, Error> {
        let (stopped, stop) =
            io::pipe().map_err(|source| Error::System { what: "no pipe could be made", source })?;
        let thread = thread::Builder::new()
            .name("emulator".to_owned())
            .spawn(move || forwarder.run(&stopped))
            .map_err(|source| Error::System { what: "no thread could be started", source })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked, or not: it is gone, with its devices.
            let _ = thread.join();
        }
    }
}

fn check_names(sites: &[&str]) -> Result<(), Error> {
    if sites.len() > SITES_MAX {
        return Err(Error::Sites(format!("{} sites; {SITES_MAX} is the most", sites.len())));
    }
    for (index, site) in sites.iter().enumerate() {
        if *site == HOST || sites[..index].contains(site) {
            return Err(Error::Sites(format!("a second place named {site:?}")));
        }
    }
    Ok(())
}
