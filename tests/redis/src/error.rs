//! Why there is no cluster.

use std::io;

/// Why there is no cluster, or why it does not do as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not installed.
    #[error("the program {0} is not here: `make setup`")]
    Missing(&'static str),
    /// The machine.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A program ended with an error.
    #[error("{0}")]
    Said(String),
    /// It did not come to pass in time.
    #[error("not in time: {0}")]
    Late(String),
}
