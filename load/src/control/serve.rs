//! The socket's end in the world: reads requests, hands them to the world's one owner, and writes
//! what it says. Connections, lines and waits have limits; a request that was read is answered.

use std::{io, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use crate::{action::Action, world::State};

/// Who asks at once: a load tool and some people. More wait.
const CONNECTIONS: usize = 16;
/// The longest action is a tenth of it.
const LINE_MAX: u64 = 4096;
/// From one line to the next: somebody may type.
const IDLE: Duration = Duration::from_secs(60);
/// After a connection that could not be had.
const PAUSE: Duration = Duration::from_millis(100);
/// For an answer to be taken.
const WRITE: Duration = Duration::from_secs(10);

/// What somebody wants done, and where to say what became of it.
#[derive(Debug)]
pub struct Request {
    /// What.
    pub action: Action,
    /// Where.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// It was done.
    Done {
        /// What, in words.
        done: String,
        /// When: seconds since 1970-01-01 UTC.
        at: f64,
    },
    /// How everything is.
    State(State),
    /// It was not, or not all of it.
    Error {
        /// What is wrong, and what would be right.
        error: String,
    },
}

/// Answers on `listener` for as long as it is polled. Whoever receives from `requests` owns the world.
pub async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, maybe.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let requests = requests.clone();
        tokio::spawn(async move {
            // A connection that breaks is its client's affair.
            let _ = converse(stream, &requests).await;
            drop(place);
        });
    }
}

async fn converse(stream: UnixStream, requests: &mpsc::Sender<Request>) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reading).take(LINE_MAX);
        if timeout(IDLE, limited.read_until(b'\n', &mut line)).await?? == 0 {
            return Ok(());
        }
        let whole = line.len() < usize::try_from(LINE_MAX).unwrap_or(usize::MAX);
        let answer = match whole {
            true => answer(&String::from_utf8_lossy(&line), requests).await,
            false => Answer::Error { error: format!("a line is longer than {LINE_MAX} bytes") },
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        timeout(WRITE, writing.write_all(&line)).await??;
        if !whole {
            return Ok(());
        }
    }
}

async fn answer(line: &str, requests: &mpsc::Sender<Request>) -> Answer {
    let action = match Action::from_json(line) {
        Ok(action) => action,
        Err(error) => return Answer::Error { error: error.to_string() },
    };
    let ends = || Answer::Error { error: "the world ends".to_owned() };
    let (answer, answered) = oneshot::channel();
    match requests.send(Request { action, answer }).await {
        Ok(()) => answered.await.unwrap_or_else(|_| ends()),
        Err(_) => ends(),
    }
}
