//! A role of this binary as a child process: started, awaited, ended. It dies with its parent.
//!
//! The child's standard input is its lifeline: it ends when this process does, however that
//! happens, and the child ends with it. Who restarts a child, and when, is the caller's affair.

use std::{ffi::OsString, io, net::SocketAddr, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{self, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// A large model takes a while to load.
const READY: Duration = Duration::from_secs(120);
/// Bytes of a ready line.
const LINE_MAX: u64 = 4096;
/// From the closed lifeline to the kill; all of it must fit into two seconds.
const GRACE: Duration = Duration::from_millis(1200);

/// Why a child does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The operating system did not start it.
    #[error("{name} cannot be started: {error}")]
    Spawn {
        /// What it is called.
        name: String,
        /// What the system said.
        error: io::Error,
    },
    /// It ended before it was ready.
    #[error("{0} did not start; its last words are above")]
    Ended(String),
    /// It said nothing in time.
    #[error("{0} is not ready after {READY:?}")]
    Silent(String),
    /// It said something else than where it listens.
    #[error("{name} said no ready line: {error}")]
    Garbled {
        /// What it is called.
        name: String,
        /// What was wrong with it.
        error: serde_json::Error,
    },
}

/// A running role.
pub struct Child {
    /// What it is called in messages.
    pub name: String,
    /// Its process.
    pub pid: u32,
    process: process::Child,
    /// Not in `process`, which would close it before it waits.
    lifeline: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    ready: Option<ReadyLine>,
}

/// The line of `--ready-json`.
#[derive(Debug, Clone, Copy, Deserialize)]
struct ReadyLine {
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Child {
    /// Starts this binary with `arguments`, `--ready-json` and its lifeline in our hand. A process
    /// group of its own keeps the terminal's Ctrl-C from it: we end it ourselves, in order.
    ///
    /// # Errors
    /// [`ChildError::Spawn`].
    pub fn spawn(name: &str, arguments: &[OsString]) -> Result<Self, ChildError> {
        match std::env::current_exe() {
            Ok(binary) => {
                let mut command = std::process::Command::new(binary);
                command.args(arguments);
                Self::start(name, command)
            }
            Err(error) => Err(ChildError::Spawn { name: name.to_owned(), error }),
        }
    }

    /// The same, of a command that becomes this binary: in another place, or with a log of its own.
    ///
    /// # Errors
    /// [`ChildError::Spawn`].
    pub fn start(name: &str, command: std::process::Command) -> Result<Self, ChildError> {
        let started = || {
            let mut process = Command::from(command)
                .args(["--ready-json", "--lifeline"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .kill_on_drop(true)
                .spawn()?;
            let pid = process.id().ok_or(io::ErrorKind::NotFound)?;
            let lifeline = process.stdin.take();
            let stdout = process.stdout.take().map(BufReader::new);
            Ok(Self { name: name.to_owned(), pid, process, lifeline, stdout, ready: None })
        };
        started().map_err(|error| ChildError::Spawn { name: name.to_owned(), error })
    }

    /// Waits until it says that it is ready; two minutes at most.
    ///
    /// # Errors
    /// [`ChildError`]; it is then of no use.
    pub async fn wait_ready(&mut self) -> Result<(), ChildError> {
        let name = || self.name.clone();
        let Some(stdout) = &mut self.stdout else { return Err(ChildError::Ended(name())) };
        let mut line = String::new();
        match timeout(READY, stdout.take(LINE_MAX).read_line(&mut line)).await {
            Err(_elapsed) => return Err(ChildError::Silent(name())),
            Ok(Err(_) | Ok(0)) => return Err(ChildError::Ended(name())),
            Ok(Ok(_)) => {}
        }
        // The pipe stays open: a child that writes to a closed one would die of it.
        let ready = serde_json::from_str(&line);
        self.ready = Some(ready.map_err(|error| ChildError::Garbled { name: name(), error })?);
        Ok(())
    }

    /// Where it serves, once it is ready.
    #[must_use]
    pub fn listen(&self) -> Option<SocketAddr> {
        self.ready.map(|ready| ready.listen)
    }

    /// Where its operator looks, once it is ready.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.ready.map(|ready| ready.admin)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Ends it at once, as a crash does, and waits for its end.
    ///
    /// # Errors
    /// It has ended already, or cannot be ended.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.process.kill().await
    }

    /// Memory it holds (resident), bytes; `None` where the system does not tell.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        kib.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    }
}

/// Ends all of them: closes every lifeline, waits a moment, kills what is left (one that was
/// stopped with SIGSTOP hears nothing else).
pub async fn stop_all(mut children: Vec<Child>) {
    for child in &mut children {
        drop(child.lifeline.take());
    }
    let all = async {
        for child in &mut children {
            let _ = child.process.wait().await;
        }
    };
    if timeout(GRACE, all).await.is_ok() {
        return;
    }
    for child in &mut children {
        // It may have ended in between.
        let _ = child.process.kill().await;
    }
}
