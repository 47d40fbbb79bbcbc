//! The life of a completion request, drawn once.
//!
//! | phase | does | gives |
//! |---|---|---|
//! | [`admit`] | id, API key → tenant, limits, body → request, deadline, model → revision | `Admitted` or `Reject` |
//! | [`lookup`] | the key, and the cache under it | `Hit`, or `Miss` with a ticket to store |
//! | [`route`] | pure: which pod next, and why | `Candidate` |
//! | [`attempt`] | walks the pods under one deadline until one begins to answer | `Generation` |
//! | [`respond`] | the answer to the client, and into the cache after its terminator | bytes |
//! | [`record`] | metrics and the access event, on every path | |

pub(crate) mod admit;
pub(crate) mod attempt;
pub(crate) mod lookup;
pub(crate) mod record;
pub(crate) mod respond;
pub(crate) mod route;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::HeaderValue;
use nearhop_admin::clock;
use nearhop_conf::{Deadlines, Limits, Upstream};
use nearhop_edge_cache::Memory;

use self::{
    admit::{Admitted, Target},
    attempt::Attempts,
    lookup::Lookup,
    record::Record,
    respond::Next,
};
use crate::{
    client::{BodyError, Client, Gone},
    keys::Keys,
    metrics::EdgeMetrics,
    reject::Reject,
    upstream::{exchange::Exchanges, pods::Pods},
};

/// What every request shares.
pub(crate) struct Shared {
    pub(crate) region: HeaderValue,
    pub(crate) limits: Limits,
    pub(crate) deadlines: Deadlines,
    pub(crate) upstream: Upstream,
    pub(crate) keys: Keys,
    pub(crate) l1: Memory,
    pub(crate) pods: Arc<Pods>,
    pub(crate) exchanges: Arc<Exchanges>,
    pub(crate) metrics: EdgeMetrics,
    /// Cache times count from here.
    pub(crate) started: Instant,
    /// The same moment in Unix seconds.
    pub(crate) started_unix: u64,
    pub(crate) in_progress: AtomicUsize,
}

impl Shared {
    /// Time since the start, as the cache counts it.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }
}

/// Answers one request. Every path ends with an answer to the client or with the client gone, and
/// every path is recorded.
pub(crate) async fn run(shared: &Shared, client: &mut impl Client) {
    let arrived = clock::now();
    let mut record = Record::new(shared, arrived);
    let (method, path, headers) = (client.method(), client.path(), client.headers());
    record.request_id = admit::request_id(headers);
    let target = admit::target(method, path, headers, &shared.keys, &shared.limits);
    let answered = match target {
        Ok(Target::Health) => respond::health(client, &mut record).await,
        Ok(Target::Models) => respond::models(client, &mut record).await,
        Ok(Target::Completion(head)) => match completion(client, &mut record, head).await {
            Ok(()) => Ok(()),
            Err(reject) => respond::reject(client, &mut record, &reject).await,
        },
        Err(reject) => respond::reject(client, &mut record, &reject).await,
    };
    match answered {
        Ok(()) => client.linger().await,
        Err(Gone) => record.client_gone(),
    }
}

async fn completion(
    client: &mut impl Client,
    record: &mut Record<'_>,
    head: admit::Head,
) -> Result<(), Reject> {
    let shared = record.shared;
    let _place = Place::take(shared).ok_or(Reject::Overloaded)?;
    let limits = &shared.limits;
    let body = match client.body(limits.body.0, limits.body_read).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => return Err(Reject::BodyTooLarge { limit: limits.body.0 }),
        Err(BodyError::TooSlow) => {
            return Err(Reject::BodyTimeout { seconds: limits.body_read.as_secs() });
        }
        Err(BodyError::Broken) => {
            record.client_gone();
            return Ok(());
        }
    };
    record.caller(&head.caller);
    let admitted = admit::request(head, body, shared, record.arrived)?;
    record.kind = Some(admitted.kind);
    match lookup::find(shared, &admitted, clock::now()) {
        Lookup::Hit(hit) => respond::hit(client, record, &admitted, &hit).await,
        Lookup::Miss(ticket) => generate(client, record, &admitted, &ticket).await,
    }
}

/// Attempts pods until one has answered. What is lost before the first byte is tried again
/// elsewhere; an answer that is not streamed stays repeatable until it is complete.
async fn generate(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    ticket: &lookup::Ticket,
) -> Result<(), Reject> {
    let mut attempts = Attempts::new(record.shared, admitted, &record.request_id)?;
    loop {
        let generation = tokio::select! {
            generation = attempts.begin() => generation?,
            () = client.gone() => {
                record.client_gone();
                return Ok(());
            }
        };
        let next = match admitted.request.stream {
            true => respond::stream(client, record, admitted, ticket, generation).await,
            false => respond::whole(client, record, admitted, ticket, generation).await,
        };
        match next {
            Next::Answered => return Ok(()),
            Next::Again(outcome) => attempts.lost(outcome),
        }
    }
}

/// A place among the requests in progress; given back when dropped.
struct Place<'a>(&'a Shared);

impl<'a> Place<'a> {
    fn take(shared: &'a Shared) -> Option<Self> {
        let taken = shared.in_progress.fetch_add(1, Ordering::AcqRel);
        let place = Self(shared);
        shared.metrics.in_progress.inc();
        (taken < shared.limits.requests).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.in_progress.dec();
    }
}
