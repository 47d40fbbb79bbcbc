//! Why there is no server.

use std::io;

/// Why there is no server, or why it does not do as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something is not installed.
    #[error("{0} is not here: `make setup`")]
    Missing(&'static str),
    /// The machine.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A program ended with an error, or answered with one.
    #[error("{0}")]
    Said(String),
    /// It did not come to pass in time.
    #[error("not in time: {0}")]
    Late(String),
}
