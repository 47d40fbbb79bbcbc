//! The Unix socket of a running world: one JSON line a request, one an answer.
//!
//! ```text
//! → {"action": "kill_llm_nodes", "count": 3}
//! ← {"done": "killed us-west/pod-1, eu-west/pod-1, ap-south/pod-1", "at": 1795759200.123}
//! → {"action": "kill_edge", "region": "us"}
//! ← {"error": "region `us` is not here; the regions are us-west, eu-west, ap-south"}
//! ```
//!
//! This file is the client; [`serve()`] is the other end.

mod serve;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

pub use serve::{Answer, Request, serve};

use crate::action::Action;

/// A node that starts again loads its model; an undo may start many.
const PATIENCE: Duration = Duration::from_secs(180);
/// The state of a hundred nodes is 10 KiB.
const ANSWER_MAX: u64 = 1 << 20;

/// Why an action was not done, as far as its asker knows.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there.
    #[error("nobody answers at {}: {source}. Is `nearhop load emulate` running? It says where its control is", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or what came is no answer.
    #[error("the world's answer cannot be read: {0}")]
    Garbled(String),
    /// Nothing in time; it may be done later.
    #[error("no answer within {PATIENCE:?}; it may still be done")]
    Silent,
    /// It was understood, and not done, or not all of it.
    #[error("{0}")]
    Refused(String),
}

/// Asks the world whose socket is at `path`, and says what was done; of [`Action::State`], the
/// state as JSON.
///
/// # Errors
/// [`ControlError`].
pub async fn ask(path: &Path, action: &Action) -> Result<String, ControlError> {
    let unreachable = |source| ControlError::Unreachable { path: path.to_owned(), source };
    let broken = |error: io::Error| ControlError::Garbled(error.to_string());
    let exchange = async {
        let mut stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let mut line = serde_json::to_string(action)
            .map_err(|error| ControlError::Garbled(error.to_string()))?;
        line.push('\n');
        stream.write_all(line.as_bytes()).await.map_err(broken)?;
        let mut answer = String::new();
        BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut answer).await.map_err(broken)?;
        Ok(answer)
    };
    let answer = timeout(PATIENCE, exchange).await.map_err(|_elapsed| ControlError::Silent)??;
    read(answer.trim_end())
}

fn read(answer: &str) -> Result<String, ControlError> {
    let value: Value = serde_json::from_str(answer)
        .map_err(|error| ControlError::Garbled(format!("{error}: {answer:?}")))?;
    match (value["error"].as_str(), value["done"].as_str()) {
        (Some(error), _) => Err(ControlError::Refused(error.to_owned())),
        (None, Some(done)) => Ok(done.to_owned()),
        (None, None) => Ok(answer.to_owned()),
    }
}

#[cfg(test)]
mod tests;
