//! The thread between the sites. It owns the devices and what is on its way; it sleeps until a packet
//! comes or one is due. One thread, not two with a queue between: nothing to share, nothing to wake.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, PipeReader},
    net::Ipv4Addr,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags},
};

use crate::{
    clock,
    link::{Cuts, Direction, Draw, Verdict},
    packet::{self, MTU},
    tun::Tun,
};

/// Packets taken from one device before the others have their turn.
const TURN: usize = 32;

/// Every direction between places, which are numbered. Shared with whoever changes them.
#[derive(Debug)]
pub(crate) struct Directions {
    places: usize,
    all: Mutex<Vec<Direction>>,
}

impl Directions {
    pub(crate) fn new(places: usize) -> Self {
        Self { places, all: Mutex::new(vec![Direction::default(); places * places]) }
    }

    /// Does something with one direction, while nothing passes anywhere.
    pub(crate) fn with<T>(
        &self,
        from: usize,
        to: usize,
        act: impl FnOnce(&mut Direction) -> T,
    ) -> T {
        act(&mut self.lock()[from * self.places + to])
    }

    /// A test that fails while it holds the lock has left nothing half done.
    fn lock(&self) -> MutexGuard<'_, Vec<Direction>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A site or the host, as the thread sees it.
pub(crate) struct Place {
    pub(crate) address: Ipv4Addr,
    pub(crate) tun: Tun,
}

struct OnItsWay {
    from: usize,
    to: usize,
    cuts: Cuts,
    packet: Vec<u8>,
}

pub(crate) struct Forwarder {
    places: Vec<Place>,
    directions: Arc<Directions>,
    /// By the time a packet is due, then by the order in which they came. Bounded by each direction.
    queue: BTreeMap<(Instant, u64), OnItsWay>,
    packets: u64,
    chance: fastrand::Rng,
    /// Devices that somebody removed: they would be reported for ever.
    gone: Vec<bool>,
}

impl Forwarder {
    pub(crate) fn new(places: Vec<Place>, directions: Arc<Directions>) -> Self {
        Self {
            gone: vec![false; places.len()],
            places,
            directions,
            queue: BTreeMap::new(),
            packets: 0,
            // The same draws in every run; which packet meets which is the kernel's affair.
            chance: fastrand::Rng::with_seed(1),
        }
    }

    /// Forwards until the other end of `stop` is closed.
    pub(crate) fn run(mut self, stop: &PipeReader) {
        let mut buffer = [0; MTU];
        while let Some(ready) = self.wait(stop) {
            for place in ready {
                self.take(place, &mut buffer);
            }
            self.deliver(clock::now());
        }
    }

    /// The places that have sent something, maybe none when a packet is due; nothing at the end.
    fn wait(&mut self, stop: &PipeReader) -> Option<Vec<usize>> {
        let first_due = self.queue.first_key_value().map(|((due, _), _)| *due);
        let patience = first_due.map(|due| due.saturating_duration_since(clock::now()));
        let places: Vec<usize> =
            (0..self.places.len()).filter(|&place| !self.gone[place]).collect();
        let mut files = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        files.extend(
            places
                .iter()
                .map(|&place| PollFd::new(self.places[place].tun.as_fd(), PollFlags::POLLIN)),
        );
        match poll(&mut files, patience) {
            Ok(()) => {}
            Err(Errno::EINTR) => return Some(Vec::new()),
            Err(_) => return None,
        }
        let events = |file: &PollFd<'_>| file.revents().unwrap_or(PollFlags::empty());
        if !events(&files[0]).is_empty() {
            return None;
        }
        let answers: Vec<(usize, PollFlags)> =
            places.into_iter().zip(files[1..].iter().map(events)).collect();
        for &(place, events) in &answers {
            self.gone[place] = !events.is_empty() && !events.contains(PollFlags::POLLIN);
        }
        Some(
            answers
                .into_iter()
                .filter(|(_, events)| events.contains(PollFlags::POLLIN))
                .map(|(place, _)| place)
                .collect(),
        )
    }

    /// Reads what a place sends.
    fn take(&mut self, from: usize, buffer: &mut [u8]) {
        for _ in 0..TURN {
            let length = match self.places[from].tun.read(buffer) {
                Ok(length) => length,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    return;
                }
                Err(_) => {
                    self.gone[from] = true;
                    return;
                }
            };
            self.send(from, &buffer[..length]);
        }
    }

    fn send(&mut self, from: usize, packet: &[u8]) {
        let Some((source, destination)) = packet::addresses(packet) else { return };
        let to = self.places.iter().position(|place| place.address == destination);
        let Some(to) = to.filter(|&to| to != from && source == self.places[from].address) else {
            return;
        };
        let draw = Draw { loss: self.chance.f64(), jitter: self.chance.f64() };
        // The clock is read after the packet: a time from before could let it arrive too early.
        let now = clock::now();
        if let Verdict::Due(due, cuts) =
            self.directions.with(from, to, |direction| direction.enter(now, draw))
        {
            self.queue
                .insert((due, self.packets), OnItsWay { from, to, cuts, packet: packet.to_vec() });
            self.packets += 1;
        }
    }

    /// Writes what is due. Under the lock, so that after a cut nothing passes and counts are never behind;
    /// a device takes a packet or refuses it, and never blocks.
    fn deliver(&mut self, now: Instant) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let OnItsWay { from, to, cuts, packet } = entry.remove();
            let tun = &self.places[to].tun;
            self.directions
                .with(from, to, |direction| direction.leave(cuts, || tun.write(&packet).is_ok()));
        }
    }
}

#[cfg(target_os = "linux")]
fn poll(files: &mut [PollFd<'_>], patience: Option<Duration>) -> Result<(), Errno> {
    nix::poll::ppoll(files, patience.map(Into::into), None).map(drop)
}

/// Only milliseconds: rounded up, so that nobody turns in circles for the rest of one.
#[cfg(not(target_os = "linux"))]
fn poll(files: &mut [PollFd<'_>], patience: Option<Duration>) -> Result<(), Errno> {
    use nix::poll::PollTimeout;
    let patience = patience.map_or(PollTimeout::NONE, |patience| {
        PollTimeout::try_from(patience + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    });
    nix::poll::poll(files, patience).map(drop)
}
