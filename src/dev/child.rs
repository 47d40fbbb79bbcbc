//! One child process: started, awaited, ended.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{self, ChildStdout, Command},
    time::timeout,
};

/// A large model takes a while to load.
const READY: Duration = Duration::from_secs(120);
/// From the closed lifeline to the kill; all of it must fit into two seconds.
const GRACE: Duration = Duration::from_millis(1200);

/// A running role.
pub(super) struct Child {
    pub(super) name: String,
    pub(super) pid: u32,
    process: process::Child,
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
    /// Starts `nearhop ROLE -c CONFIG` with its lifeline in our hand. A process group of its own
    /// keeps the terminal's Ctrl-C from it: we end it ourselves, in order.
    pub(super) fn spawn(name: &str, role: &str, config: &Path) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("this binary cannot be found again")?;
        let mut process = Command::new(binary)
            .args([role, "--ready-json", "--lifeline", "-c"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let pid = process.id().context("a child has a pid until it is awaited")?;
        let stdout = process.stdout.take().map(BufReader::new);
        Ok(Self { name: name.to_owned(), pid, process, stdout, ready: None })
    }

    /// Waits until it says that it is ready.
    pub(super) async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let mut stdout = self.stdout.take().context("a child is awaited once")?;
        let mut line = String::new();
        let read = timeout(READY, stdout.read_line(&mut line)).await;
        let length = read.map_err(|_elapsed| {
            anyhow!("{} is not ready after {} s", self.name, READY.as_secs())
        })??;
        if length == 0 {
            bail!("{} did not start; its last words are above", self.name);
        }
        self.ready = Some(serde_json::from_str(&line).context("a ready line")?);
        // Kept open: a child that writes to a closed pipe would die of it.
        self.stdout = Some(stdout);
        Ok(())
    }

    pub(super) fn listen(&self) -> Option<SocketAddr> {
        self.ready.map(|ready| ready.listen)
    }

    pub(super) fn admin(&self) -> Option<SocketAddr> {
        self.ready.map(|ready| ready.admin)
    }
}

/// Waits until a child ends; its place among `children`.
pub(super) async fn any_exit(children: &mut [Child]) -> usize {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        let ended = |child: &mut Child| !matches!(child.process.try_wait(), Ok(None));
        if let Some(at) = children.iter_mut().position(ended) {
            return at;
        }
    }
}

/// Ends all of them: closes every lifeline, waits a moment, kills what is left (one that was
/// stopped with SIGSTOP hears nothing else).
pub(super) async fn stop_all(mut children: Vec<Child>) {
    for child in &mut children {
        drop(child.process.stdin.take());
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
