//! Signals of the operator, and what they mean to an edge.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Stop,
    StopNow,
    Reload,
    HandOver,
}

pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined2())?,
        })
    }

    /// Asked to stop; for one that is stopping already, at once.
    pub(crate) async fn stop(&mut self) {
        while !matches!(self.next().await, Heard::Stop | Heard::StopNow) {}
    }

    pub(crate) async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.interrupt.recv() => Heard::StopNow,
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.hangup.recv() => Heard::Reload,
            _ = self.user.recv() => Heard::HandOver,
        }
    }
}
