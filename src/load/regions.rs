//! Emulated regions as a child process, for the length of a run.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use nearhop_conf::{Target, source::process_env};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// A dozen processes load models and find each other.
const READY: Duration = Duration::from_secs(180);
const LINE_MAX: u64 = 64 << 10;
/// They end in order, and their namespaces and disks with them.
const GRACE: Duration = Duration::from_secs(20);

/// Regions that end with this value, or with this process.
pub(super) struct Regions {
    child: Child,
    lifeline: Option<ChildStdin>,
    /// Stays open: a child that writes to a closed pipe would die of it.
    _stdout: BufReader<ChildStdout>,
}

impl Regions {
    /// Starts them, and says how they are asked.
    pub(super) async fn start() -> anyhow::Result<(Self, Target)> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["load", "emulate", "--ready-json", "--lifeline"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The terminal's Ctrl-C is for us: they are ended in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("the emulated regions cannot be started")?;
        let lifeline = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().context("a child without a pipe")?);
        eprintln!("nearhop load: starting three regions on this machine");
        let mut line = String::new();
        match timeout(READY, (&mut stdout).take(LINE_MAX).read_line(&mut line)).await {
            Err(_late) => bail!("the emulated regions are not ready after {} s", READY.as_secs()),
            Ok(Err(_) | Ok(0)) => bail!("the emulated regions did not start; see above"),
            Ok(Ok(_)) => {}
        }
        let target = Target::read(&line, "nearhop load emulate", &process_env)?;
        Ok((Self { child, lifeline, _stdout: stdout }, target))
    }

    pub(super) async fn stop(mut self) {
        drop(self.lifeline.take());
        if timeout(GRACE, self.child.wait()).await.is_err() {
            // It may have ended in between.
            let _ = self.child.kill().await;
        }
    }
}
