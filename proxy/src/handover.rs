//! Sockets from one process to the next: no connection is refused while an edge is replaced.
//!
//! The protocol is systemd's socket activation (`sd_listen_fds(3)`): open listeners as file
//! descriptors from 3 on, their names in `LISTEN_FDNAMES`. A service manager may open them, and
//! so may an edge that starts its own successor. The successor answers on one more socket when it
//! serves; until then the old process goes on, and where it never does, for good.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

use command_fds::{CommandFdExt as _, FdMapping};
use listenfd::ListenFd;
use nearhop_conf::source::process_env;
use nearhop_edge_cache::snapshot::More;

/// What a listener's name is in `LISTEN_FDNAMES`.
pub(crate) const PUBLIC: &str = "public";
pub(crate) const ADMIN: &str = "admin";
pub(crate) const PEER: &str = "peer";
const READY: &str = "ready";
/// In whose environment it stands, what the predecessor remembers comes on the socket `ready`.
const MEMORY: &str = "NEARHOP_MEMORY";

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: i32 = 3;

/// A successor loads its configuration and waits for a pod; longer is no start.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A cache that is not there by then is not worth waiting for.
const REMEMBER_WITHIN: Duration = Duration::from_secs(20);
/// Longer than any message.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Sends what this process remembers, to whom is given how to send a message.
pub(crate) type Remember =
    Box<dyn FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<usize> + Send>;

/// Listeners that were open before this process.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(String, SocketAddr, TcpListener)>,
    ready: Option<UnixDatagram>,
}

impl Inherited {
    /// What this process was given. Must be called once, early: the descriptors are taken.
    #[must_use]
    pub fn take() -> Self {
        let mut given = ListenFd::from_env();
        let names = process_env("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        // A manager that names nothing means this order.
        let mut order = [PUBLIC, ADMIN, PEER].into_iter();
        let mut inherited = Self::default();
        for at in 0..given.len() {
            let usual = order.next().unwrap_or_default();
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or(usual);
            if name == READY {
                inherited.ready = given.take_unix_datagram(at).ok().flatten();
            } else if let Ok(Some(socket)) = given.take_tcp_listener(at)
                && let Ok(address) = socket.local_addr()
            {
                inherited.sockets.push((name.to_owned(), address, socket));
            }
        }
        inherited
    }

    /// The listener of that name, where it listens at `address`; port 0 is content with any port.
    pub(crate) fn listener(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let fits = |(known, at, _): &(String, SocketAddr, TcpListener)| {
            known == name
                && at.ip() == address.ip()
                && (address.port() == 0 || at.port() == address.port())
        };
        let at = self.sockets.iter().position(fits)?;
        let (_, _, socket) = self.sockets.swap_remove(at);
        socket.set_nonblocking(true).ok()?;
        Some(socket)
    }

    /// What the predecessor remembers, message by message, for as long as `take` wants more; it
    /// has to be fast.
    pub(crate) fn remember(&self, mut take: impl FnMut(&[u8]) -> More) {
        let Some(socket) = self.ready.as_ref().filter(|_| process_env(MEMORY).is_some()) else {
            return;
        };
        if socket.set_read_timeout(Some(Duration::from_secs(2))).is_err() {
            return;
        }
        let until = nearhop_admin::clock::now() + REMEMBER_WITHIN;
        let mut message = vec![0; MESSAGE_BYTES_MAX];
        while nearhop_admin::clock::now() < until {
            match socket.recv(&mut message) {
                Ok(length) if take(&message[..length]) == More::Yes => {}
                // The rest is not waited for: a cache that is half full is no failure.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Tells the predecessor, where there is one, that it may stop.
    pub(crate) fn ready(&mut self) {
        if let Some(ready) = self.ready.take()
            && let Err(error) = ready.send(READY.as_bytes())
        {
            tracing::warn!(%error, "the old process does not listen any more");
        }
    }
}

/// How to start this process again: what it was started with.
#[derive(Debug, Clone)]
pub struct Successor {
    /// The binary, by the path it was started from: what lies there now is what runs next.
    pub binary: PathBuf,
    /// Its arguments.
    pub arguments: Vec<std::ffi::OsString>,
}

impl Successor {
    /// Starts it with `listeners`, tells it what this process remembers and waits until it serves;
    /// its process id.
    ///
    /// # Errors
    /// Where it cannot be started, ends, or does not serve within a minute; it is gone then.
    pub(crate) fn start(
        &self,
        listeners: Vec<(&'static str, TcpListener)>,
        remember: Remember,
    ) -> io::Result<u32> {
        let (ours, theirs) = UnixDatagram::pair()?;
        ours.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut names = Vec::new();
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for (name, listener) in listeners {
            names.push(name);
            descriptors.push(listener.into());
        }
        names.push(READY);
        descriptors.push(theirs.as_fd().try_clone_to_owned()?);
        drop(theirs);
        let count = descriptors.len();
        let mappings = descriptors
            .into_iter()
            .zip(FIRST..)
            .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        let mut command = Command::new(&self.binary);
        command
            .args(&self.arguments)
            .env("LISTEN_FDS", count.to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env(MEMORY, "1")
            .env_remove("LISTEN_PID")
            .fd_mappings(mappings.collect())
            .map_err(|error| io::Error::other(error.to_string()))?;
        let mut child = command.spawn()?;
        // Ours of the descriptors close with it.
        drop(command);
        tell(ours.try_clone()?, remember);
        let waited = wait(&mut child, &ours);
        if waited.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        waited.map(|()| child.id())
    }
}

/// Tells the successor what this process remembers, beside waiting for it: one that does not listen
/// is not told.
fn tell(socket: UnixDatagram, remember: Remember) {
    std::thread::spawn(move || {
        let told = socket
            .set_write_timeout(Some(REMEMBER_WITHIN))
            .and_then(|()| remember(&mut |message| socket.send(message).map(|_sent| ())));
        match told {
            Ok(entries) => tracing::info!(entries, "the new process has what is cached"),
            Err(error) => tracing::warn!(%error, "the new process has not all of what is cached"),
        }
    });
}

fn wait(child: &mut Child, ready: &UnixDatagram) -> io::Result<()> {
    let deadline = nearhop_admin::clock::now() + READY_WITHIN;
    let mut word = [0; 16];
    while nearhop_admin::clock::now() < deadline {
        match ready.recv(&mut word) {
            Ok(length) if word[..length] == *READY.as_bytes() => return Ok(()),
            Ok(_) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("it ended ({status}); its last words are above")));
        }
    }
    Err(io::Error::other("it did not serve within 60 s"))
}

/// Tells a service manager (`sd_notify(3)`), where there is one.
pub(crate) fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}
