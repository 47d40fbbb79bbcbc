//! The cluster.

use std::{
    ffi::OsStr,
    fs,
    io::{Read, Seek},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nearhop_emulator::process;
use nearhop_test_server::{Error, certificates};
use tempfile::TempDir;

use crate::{
    files::{ADMIN, ADMIN_PASSWORD, configuration},
    ports,
};

/// So many nodes: half of them begin as masters.
pub const NODES: usize = 6;
/// The user for the code under test, with [`Options::users`].
pub const USER: &str = "nearhop";
/// Its password.
pub const PASSWORD: &str = "a-test-password";

/// For what happens in seconds, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(60);
/// For one answer of one node, which may be paused.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What kind of cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// TLS only, with an authority of its own.
    pub tls: bool,
    /// The default user is off; [`USER`] has the rights that Nearhop asks for, and no others.
    pub users: bool,
    /// Data outlives the processes.
    pub kept: bool,
}

#[derive(Debug)]
struct Process {
    child: Child,
    paused: bool,
}

/// A running cluster. Its nodes have the indexes 0 to [`NODES`] - 1.
#[derive(Debug)]
pub struct Redis {
    options: Options,
    ports: Vec<u16>,
    nodes: Mutex<Vec<Option<Process>>>,
    folder: TempDir,
}

impl Redis {
    /// Starts one, and waits until every node says that it is well and every replica follows.
    ///
    /// # Errors
    ///
    /// A program is missing, or it does not come up.
    pub fn start(options: Options) -> Result<Self, Error> {
        for (program, missing) in
            [("redis-server", "the program redis-server"), ("redis-cli", "the program redis-cli")]
        {
            let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            found.map_err(|_missing| Error::Missing(missing))?;
        }
        let mut last = Error::Late("a start".to_owned());
        // Another's test may take a port between our look and the server's.
        for _ in 0..3 {
            match Self::once(options) {
                Ok(redis) => return Ok(redis),
                Err(error @ Error::Missing(_)) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn once(options: Options) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("nearhop-redis-").tempdir()?;
        let ports = ports::free(NODES);
        if options.tls {
            certificates(folder.path())?;
        }
        let nodes = Mutex::new((0..NODES).map(|_| None).collect());
        let redis = Self { options, ports, nodes, folder };
        for (index, &port) in redis.ports.iter().enumerate() {
            fs::create_dir(redis.place(index))?;
            configuration(&redis.place(index), port, &options)?;
        }
        for index in 0..NODES {
            redis.spawn(index)?;
        }
        redis.until("every node answers", || (0..NODES).all(|index| redis.answers(index)))?;
        let mut create = vec!["--cluster".to_owned(), "create".to_owned()];
        create.extend(redis.ports.iter().map(|port| format!("127.0.0.1:{port}")));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"].map(str::to_owned));
        redis.cli(&create)?;
        redis.until_well()?;
        Ok(redis)
    }

    /// Host and port of every node.
    #[must_use]
    pub fn nodes(&self) -> Vec<(String, u16)> {
        self.ports.iter().map(|&port| ("127.0.0.1".to_owned(), port)).collect()
    }

    /// The authority's file, with TLS.
    #[must_use]
    pub fn authority(&self) -> Option<PathBuf> {
        self.options.tls.then(|| self.folder.path().join("ca.pem"))
    }

    /// Kills a node, as a crash does.
    ///
    /// # Errors
    ///
    /// None is running there.
    pub fn kill(&self, index: usize) -> Result<(), Error> {
        let mut child = self.locked()[index].take().ok_or_else(|| gone(index))?.child;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Pauses a node: its sockets stay open and answer nothing.
    ///
    /// # Errors
    ///
    /// None is running there.
    pub fn pause(&self, index: usize) -> Result<(), Error> {
        self.signal(index, true)
    }

    /// Lets a paused node go on.
    ///
    /// # Errors
    ///
    /// None is running there.
    pub fn resume(&self, index: usize) -> Result<(), Error> {
        self.signal(index, false)
    }

    /// Starts a killed node again, on its port.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn restart(&self, index: usize) -> Result<(), Error> {
        self.spawn(index)?;
        self.until("the node answers", || self.answers(index))
    }

    /// Kills all that run.
    ///
    /// # Errors
    ///
    /// The machine's.
    pub fn stop_all(&self) -> Result<(), Error> {
        (0..NODES).filter(|&index| self.id(index).is_ok()).try_for_each(|index| self.kill(index))
    }

    /// Starts all that do not run, and waits until the cluster is well.
    ///
    /// # Errors
    ///
    /// It does not get well.
    pub fn start_all(&self) -> Result<(), Error> {
        for index in 0..NODES {
            if self.id(index).is_err() {
                self.spawn(index)?;
            }
        }
        self.until_well()
    }

    /// Waits until all run, every slot has a master, and every other node follows one.
    ///
    /// # Errors
    ///
    /// Not within a minute.
    pub fn until_well(&self) -> Result<(), Error> {
        self.until("the cluster is well", || (0..NODES).all(|index| self.well(index)))
    }

    /// The node that serves this key, as a majority of those that answer sees it.
    ///
    /// # Errors
    ///
    /// None answers, or nobody serves it.
    pub fn master_of(&self, key: &[u8]) -> Result<usize, Error> {
        let key =
            OsStr::new(std::str::from_utf8(key).map_err(|error| Error::Said(error.to_string()))?);
        let mut votes = [0_usize; NODES];
        for index in (0..NODES).filter(|&index| self.runs(index)) {
            let Ok(slot) = self.ask(index, &[OsStr::new("CLUSTER"), OsStr::new("KEYSLOT"), key])
            else {
                continue;
            };
            let Ok(slot) = slot.trim().parse::<u32>() else { continue };
            if let Some(master) = self.view(index).and_then(|view| self.owner(&view, slot)) {
                votes[master] += 1;
            }
        }
        let best = (0..NODES).max_by_key(|&index| votes[index]).filter(|&index| votes[index] > 0);
        best.ok_or_else(|| Error::Said("no node knows a master".to_owned()))
    }

    /// Moves so many slots from one master to another, and returns when they are moved.
    ///
    /// # Errors
    ///
    /// What the program says.
    pub fn reshard(&self, slots: usize, from: usize, to: usize) -> Result<(), Error> {
        let id = |index| self.ask(index, &["CLUSTER", "MYID"]).map(|id| id.trim().to_owned());
        self.cli(&[
            "--cluster".to_owned(),
            "reshard".to_owned(),
            format!("127.0.0.1:{}", self.ports[from]),
            "--cluster-from".to_owned(),
            id(from)?,
            "--cluster-to".to_owned(),
            id(to)?,
            "--cluster-slots".to_owned(),
            slots.to_string(),
            "--cluster-yes".to_owned(),
        ])?;
        Ok(())
    }

    /// Everything that the running nodes hold, as bytes to search: keys and short values as they are.
    ///
    /// # Errors
    ///
    /// A node that does not write it.
    pub fn dump(&self) -> Result<Vec<u8>, Error> {
        let mut all = vec![];
        for index in (0..NODES).filter(|&index| self.runs(index)) {
            self.ask(index, &["SAVE"])?;
            all.extend(fs::read(self.place(index).join("dump.rdb"))?);
            fs::remove_file(self.place(index).join("dump.rdb"))?;
        }
        Ok(all)
    }

    /// Asks one node, as a user who may do everything.
    ///
    /// # Errors
    ///
    /// No answer within ten seconds, or an error for an answer.
    pub fn ask(&self, index: usize, words: &[impl AsRef<OsStr>]) -> Result<String, Error> {
        let port = self.ports[index].to_string();
        let mut command = self.command();
        command.args(["-e", "-h", "127.0.0.1", "-p", &port]).args(words);
        output(command, ANSWER_LIMIT)
    }

    fn cli(&self, arguments: &[String]) -> Result<String, Error> {
        let mut command = self.command();
        command.args(arguments);
        output(command, LIMIT)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("redis-cli");
        command.arg("--no-auth-warning");
        if self.options.users {
            command.args(["--user", ADMIN, "--pass", ADMIN_PASSWORD]);
        }
        if let Some(authority) = self.authority() {
            command.arg("--tls").arg("--cacert").arg(authority);
        }
        command
    }

    fn spawn(&self, index: usize) -> Result<(), Error> {
        let mut command = Command::new("redis-server");
        command.arg(self.place(index).join("redis.conf"));
        command.current_dir(self.place(index)).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        self.locked()[index] = Some(Process { child, paused: false });
        Ok(())
    }

    fn place(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("node-{index}"))
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Option<Process>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, index: usize) -> Result<u32, Error> {
        let nodes = self.locked();
        nodes[index].as_ref().map(|node| node.child.id()).ok_or_else(|| gone(index))
    }

    fn signal(&self, index: usize, paused: bool) -> Result<(), Error> {
        let mut nodes = self.locked();
        let node = nodes[index].as_mut().ok_or_else(|| gone(index))?;
        let signal = if paused { process::pause } else { process::resume };
        signal(node.child.id())?;
        node.paused = paused;
        Ok(())
    }

    /// Does it run, and is not paused?
    fn runs(&self, index: usize) -> bool {
        self.locked()[index].as_ref().is_some_and(|node| !node.paused)
    }

    fn answers(&self, index: usize) -> bool {
        self.ask(index, &["PING"]).is_ok_and(|answer| answer.trim() == "PONG")
    }

    fn well(&self, index: usize) -> bool {
        let says = |words: &[&str], expected: &[&str]| {
            self.ask(index, words)
                .is_ok_and(|answer| expected.iter().any(|expected| answer.contains(expected)))
        };
        says(&["CLUSTER", "INFO"], &["cluster_state:ok"])
            && says(&["CLUSTER", "INFO"], &["cluster_slots_ok:16384"])
            && says(&["INFO", "replication"], &["master_link_status:up", "connected_slaves:1"])
            && (!self.options.kept
                || says(&["INFO", "persistence"], &["aof_rewrite_in_progress:0"]))
            && self.view(index).is_some_and(|view| {
                view.lines().count() == NODES
                    && !view.contains("fail")
                    && !view.contains("handshake")
            })
    }

    /// What a node that runs and answers thinks of the cluster.
    fn view(&self, index: usize) -> Option<String> {
        if !self.runs(index) {
            return None;
        }
        self.ask(index, &["CLUSTER", "NODES"]).ok()
    }

    fn owner(&self, view: &str, slot: u32) -> Option<usize> {
        let line = view.lines().filter(|line| line.contains("master")).find(|line| {
            line.split(' ').skip(8).filter(|word| !word.starts_with('[')).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let bounds = first.parse().ok().zip(last.parse().ok());
                bounds.is_some_and(|(first, last): (u32, u32)| (first..=last).contains(&slot))
            })
        })?;
        let address = line.split(' ').nth(1)?.split('@').next()?;
        let port: u16 = address.rsplit(':').next()?.parse().ok()?;
        self.ports.iter().position(|&known| known == port)
    }

    fn until(&self, what: &str, condition: impl Fn() -> bool) -> Result<(), Error> {
        let ended = |node: &mut Process| node.child.try_wait().is_ok_and(|status| status.is_some());
        poll(what, LIMIT, || {
            if self.locked().iter_mut().flatten().any(ended) {
                return Err(Error::Said("a redis-server ended by itself".to_owned()));
            }
            Ok(condition().then_some(()))
        })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        for node in self.locked().iter_mut().flatten() {
            // A paused process ends by this too. One that is gone already needs only to be waited for.
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

fn gone(index: usize) -> Error {
    Error::Said(format!("node {index} is not running"))
}

/// Runs a program that has no limit of its own. It writes to a file: more than a pipe holds may come.
fn output(mut command: Command, limit: Duration) -> Result<String, Error> {
    let mut file = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
    let mut child = command.spawn()?;
    let status = poll("redis-cli's end", limit, || Ok(child.try_wait()?));
    if status.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let mut said = vec![];
    file.rewind()?;
    file.read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    if status?.success() { Ok(said) } else { Err(Error::Said(said)) }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a blocking harness beside real processes; it waits for a condition, with a deadline"
)]
fn poll<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(Error::Late(what.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
