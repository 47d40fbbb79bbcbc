//! Why there is no emulator.

use std::io;

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine, or this user, cannot run one: a test may be skipped, aloud.
    #[error("several regions on one machine need {0}")]
    Missing(String),
    /// The names of the sites: to be corrected by the caller.
    #[error("{0}")]
    Sites(String),
    /// The program `ip` refused what should have worked.
    #[error("`ip {command}`: {said}")]
    Ip {
        /// What it was asked.
        command: String,
        /// What it said.
        said: String,
    },
    /// Every subnet that was tried is in use.
    #[error("no free subnet: {0} tried in 10.128.0.0/9")]
    Subnets(u32),
    /// A device, a pipe or a thread could not be had.
    #[error("{what}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}
