//! Connections that are kept: an exchange takes an idle one, or makes a new one, and gives it back.
//!
//! An exchange is a task of its own. Who gives up on it after a few milliseconds, as look-ups do, breaks
//! neither the connection that is being made, which may take longer than that over TLS, nor the one whose
//! answer is on its way: both are there for the next. The price is that the server finishes what nobody
//! waits for; the number of connections bounds it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, client::conn::http1::SendRequest, header,
};
use nearhop_admin::clock;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use super::{
    super::Trouble,
    connect::Target,
    settings::{Settings, SettingsError},
};

/// One request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Below the collection's, with its query.
    pub(super) path: &'static str,
    /// JSON.
    pub(super) body: Option<Bytes>,
    pub(super) again: Again,
    /// Bytes of an answer that are taken.
    pub(super) limit: usize,
}

/// When a kept connection turns out to be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Ask once more, on a new one.
    Always,
    /// Only where not a byte of the request was sent: it would happen twice.
    IfUnsent,
}

/// The answer, with any status.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

pub(super) struct Pool {
    target: Target,
    /// The last one given back is the first one taken: those of quiet times grow old and go.
    idle: Mutex<Vec<Idle>>,
    permits: Arc<Semaphore>,
    keep: Duration,
    settle: Duration,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Ends when it is dropped.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _permit: OwnedSemaphorePermit,
}

/// Why a connection gave no answer.
enum Broken {
    /// It was closed; `unsent` if before anything was sent.
    Dead { unsent: bool, why: String },
    /// The other side says what cannot be, or too much.
    Nonsense(String),
}

impl Pool {
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            target: Target::new(settings)?,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(settings.connections)),
            keep: settings.idle,
            settle: settings.settle,
        })
    }

    /// Asks. May be dropped at any time.
    pub(super) async fn exchange(self: Arc<Self>, call: Call) -> Result<Reply, Trouble> {
        let (mut answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let told = timeout(self.settle, self.converse(&call, &mut answer)).await;
            // Nobody may wait for it any more.
            let _ = answer.send(told.unwrap_or(Err(Trouble::Late)));
        });
        answered.await.unwrap_or_else(|_| Err(Trouble::failed("the exchange ended by itself")))
    }

    async fn converse(
        &self,
        call: &Call,
        answer: &mut oneshot::Sender<Result<Reply, Trouble>>,
    ) -> Result<Reply, Trouble> {
        if let Some(kept) = self.kept(clock::now()) {
            match self.ask(kept, call).await {
                Ok(reply) => return Ok(reply),
                Err(Broken::Dead { unsent, .. }) if unsent || call.again == Again::Always => {
                    // The others are most likely dead too: the server was started again.
                    self.idle(Vec::clear);
                }
                Err(Broken::Dead { why, .. } | Broken::Nonsense(why)) => {
                    return Err(Trouble::failed(why));
                }
            }
        }
        let connection = self.connect().await?;
        if answer.is_closed() {
            // It took too long; the next has it sooner.
            self.give_back(connection);
            return Err(Trouble::Late);
        }
        match self.ask(connection, call).await {
            Ok(reply) => Ok(reply),
            Err(Broken::Dead { why, .. } | Broken::Nonsense(why)) => Err(Trouble::failed(why)),
        }
    }

    async fn ask(&self, mut connection: Connection, call: &Call) -> Result<Reply, Broken> {
        let dead = |unsent| move |error: hyper::Error| broken(&error, unsent);
        connection.sender.ready().await.map_err(dead(true))?;
        let request = self.request(call).map_err(|error| Broken::Nonsense(error.to_string()))?;
        let sent = connection.sender.try_send_request(request).await;
        let response = sent.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            broken(error.error(), unsent)
        })?;
        let reply = read(response, call.limit).await.map_err(Broken::Nonsense)?;
        self.give_back(connection);
        Ok(reply)
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let Target { authority, base, api_key, .. } = &self.target;
        let mut request = Request::builder()
            .method(&call.method)
            .uri(format!("{base}{}", call.path))
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json");
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = api_key {
            request = request.header("api-key", key);
        }
        request.body(Full::new(call.body.clone().unwrap_or_default()))
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_all_are_taken| Trouble::Busy)?;
        let sender = self.target.connect().await.map_err(Trouble::failed)?;
        Ok(Connection { sender, _permit: permit })
    }

    /// The youngest that is still open; those that were unused for too long go.
    fn kept(&self, now: Instant) -> Option<Connection> {
        self.idle(|idle| {
            idle.retain(|kept| {
                now.saturating_duration_since(kept.since) < self.keep
                    && !kept.connection.sender.is_closed()
            });
            idle.pop().map(|kept| kept.connection)
        })
    }

    fn give_back(&self, connection: Connection) {
        let since = clock::now();
        self.idle(|idle| idle.push(Idle { connection, since }));
    }

    fn idle<R>(&self, act: impl FnOnce(&mut Vec<Idle>) -> R) -> R {
        // What is in it is whole at every moment.
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn broken(error: &hyper::Error, unsent: bool) -> Broken {
    let why = std::error::Error::source(error)
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    if error.is_parse() { Broken::Nonsense(why) } else { Broken::Dead { unsent, why } }
}

async fn read(response: Response<Incoming>, limit: usize) -> Result<Reply, String> {
    let status = response.status();
    let body = Limited::new(response.into_body(), limit).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => format!("the answer is over {limit} bytes"),
        false => format!("the answer ended early: {error}"),
    })?;
    Ok(Reply { status, body: body.to_bytes() })
}
