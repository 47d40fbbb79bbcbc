//! The life of a completion request, drawn once.
//!
//! | phase | does | gives |
//! |---|---|---|
//! | [`admit`] | id, API key → tenant, limits, body → request, deadline, model → revision | `Admitted` or `Reject` |
//! | [`limit`] | what key and tenant may use: reserved before, settled after | a reservation, or `Reject` |
//! | [`lookup`] | the cache, and what is being answered just now | `Hit`, `Join`, or `Miss` with a ticket to store |
//! | [`generate`] | a task apart from its readers: a place, attempts, the whole answer into the cache | a flight |
//! | [`route`] | what is known of upstreams, and who of them is next, and why | `Plan` |
//! | [`attempt`] | walks the plan under one deadline until somebody begins to answer | `Generation` |
//! | [`leisure`] | the same for what nobody waits for: audits, judges, prompts that will be asked about | `Generation` |
//! | [`fallback`] | what is left where nobody does: something like it, nothing, a word to a chat | bytes |
//! | [`respond`] | the answer to the client | bytes |
//! | [`hop`] | the same for another region: one attempt, on a pod of this one | bytes |
//! | [`record`] | metrics and the access event, on every path | |

pub(crate) mod admit;
pub(crate) mod attempt;
mod collect;
mod fallback;
pub(crate) mod generate;
mod generation;
mod hop;
pub(crate) mod leisure;
pub(crate) mod limit;
pub(crate) mod lookup;
pub(crate) mod record;
pub(crate) mod respond;
pub(crate) mod route;
mod running;
pub(crate) mod tries;
mod under_way;
pub(crate) mod warm_up;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use nearhop_admin::{Events, clock};
use nearhop_admission::{Caller, Crowd, Gate, Jwks, Limiter, Seat, Usage};
use nearhop_edge_cache::{Memory, Namer, Validity, l2};
use nearhop_geo::Vantage;
use nearhop_routing::{Budget, Class, Ladder, Level};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::{
    admit::{Admitted, Target},
    lookup::{Lookup, Ticket},
    record::Record,
    respond::Next,
    route::Regions,
};
use crate::{
    auditor::Auditor,
    buffer::Room,
    client::{BodyError, Client, Gone, ResponseHead, Side},
    export::Exporter,
    flight::Reader,
    flights::{Document, Flights},
    live::Live,
    metrics::EdgeMetrics,
    reject::Reject,
    rules::Rules,
    semantic::Semantic,
    service_times::ServiceTimes,
    upstream::{exchange::Exchanges, pool::Upstreams},
};

/// What every request shares.
pub(crate) struct Shared {
    pub(crate) region: HeaderValue,
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) jwks: Jwks,
    pub(crate) limiter: Limiter,
    pub(crate) usage: Usage,
    /// Places for requests that a pod works on.
    pub(crate) gate: Gate,
    /// How long answers take from a place on.
    pub(crate) service_times: ServiceTimes,
    pub(crate) buffered: Arc<Room>,
    pub(crate) l1: Memory,
    /// The cache that edges share, where there is one.
    pub(crate) l2: Option<Arc<l2::Shared>>,
    /// After how long without its answer a pod is asked as well.
    pub(crate) l2_start_after: Duration,
    /// Conversations that were answered before in other words, where that is looked for.
    pub(crate) l3: Option<Semantic>,
    /// How long what is stored may be served.
    pub(crate) validity: Arc<Validity>,
    /// Names of what is stored, to purge it by.
    pub(crate) namer: Namer,
    /// What may be reused, by rule.
    pub(crate) rules: Rules,
    /// Whether a new process is being given what is cached: nothing is purged meanwhile.
    pub(crate) handing_over: AtomicBool,
    /// What watches the rules.
    pub(crate) auditor: Auditor,
    /// Generations under way.
    pub(crate) flights: Arc<Flights>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) exchanges: Arc<Exchanges>,
    /// What further attempts may cost.
    pub(crate) budget: Mutex<Budget>,
    /// How far service is degraded.
    pub(crate) ladder: Mutex<Ladder>,
    /// The same, to be read by every answer.
    pub(crate) level: AtomicU8,
    /// The order of other regions, where there are any to ask.
    pub(crate) regions: Option<Regions>,
    /// What happened, for the operator.
    pub(crate) events: Events,
    pub(crate) metrics: EdgeMetrics,
    /// Cache times count from here.
    pub(crate) started: Instant,
    /// The same moment in Unix seconds.
    pub(crate) started_unix: u64,
    /// Requests in progress, and of whom.
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) warm_ups: Arc<Semaphore>,
    /// What knows how the regions are, where anything does.
    pub(crate) vantage: Option<Arc<Vantage>>,
    /// Where traces go, where they go anywhere.
    pub(crate) exporter: Option<Exporter>,
}

impl Shared {
    /// Requests that pods work on, those that wait here, and what pods compute together; `None`
    /// where a ready pod does not say how much that is.
    pub(crate) fn load(&self, now: Instant) -> Option<Value> {
        let capacity = self.upstreams.slots(now)?;
        let pods = self.upstreams.of(Class::Pod);
        let running: usize = pods.iter().map(|pod| pod.in_flight()).sum();
        let queued = self.gate.waiting();
        Some(json!({ "running": running, "queued": queued, "capacity": capacity }))
    }

    /// What further attempts may cost.
    pub(crate) fn budget<R>(&self, act: impl FnOnce(&mut Budget) -> R) -> R {
        // Nothing in here can panic half-way.
        act(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far service is degraded, to be told what was seen.
    pub(crate) fn ladder<R>(&self, act: impl FnOnce(&mut Ladder) -> R) -> R {
        // Nothing in here can panic half-way.
        act(&mut self.ladder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far service is degraded.
    pub(crate) fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Ordering::Relaxed)).min(Level::ALL.len() - 1)]
    }

    /// Time since the start, as the cache counts it.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }
}

/// Answers one request. Every path ends with an answer to the client or with the client gone, and
/// every path is recorded.
pub(crate) async fn run(shared: &Arc<Shared>, live: &Arc<Live>, client: &mut impl Client) {
    let arrived = clock::now();
    let mut record = Record::new(shared, live, arrived);
    let (method, path, headers) = (client.method(), client.path(), client.headers());
    record.request_id = admit::request_id(headers);
    record.asked(client);
    let target = match client.side() {
        Side::Public => admit::target(method, path, headers, (live, &shared.jwks, unix_now())),
        Side::Peer => admit::peer_target(method, path, headers, live),
    };
    let answered = match target {
        Ok(Target::Health) => respond::health(client, &mut record).await,
        Ok(Target::View) => respond::view(client, &mut record).await,
        Ok(Target::Votes) => respond::votes(client, &mut record).await,
        Ok(Target::Preflight(headers)) => respond::preflight(client, &mut record, headers).await,
        Ok(Target::Models) => respond::models(client, &mut record).await,
        Ok(Target::TabbyHealth) => respond::tabby_health(client, &mut record).await,
        Ok(Target::Completion(head)) => match completion(client, &mut record, head).await {
            Ok(()) => Ok(()),
            Err(reject) => respond::reject(client, &mut record, &reject).await,
        },
        // Apart: what another region asks takes three times the room of what clients do.
        Ok(Target::Hop(head)) => match Box::pin(hop::answer(client, &mut record, head)).await {
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

/// What is told to a client whose request cannot be read at all.
pub(crate) fn unreadable(shared: &Arc<Shared>) -> (ResponseHead, Bytes) {
    let live = shared.live.load_full();
    let mut record = Record::new(shared, &live, clock::now());
    record.request_id = admit::new_request_id();
    respond::rejection(&mut record, &Reject::BadRequest)
}

async fn completion(
    client: &mut impl Client,
    record: &mut Record<'_>,
    head: admit::Head,
) -> Result<(), Reject> {
    let shared = record.shared;
    record.caller(&head.caller);
    let requests = record.live.limits.requests;
    let _place = Place::take(shared, &head.caller, requests).ok_or(Reject::overloaded())?;
    let Some(body) = body(client, record).await? else { return Ok(()) };
    let admitted = Arc::new(admit::request(head, body, record, client.address())?);
    record.kind = Some(admitted.kind);
    if admitted.request.warm_up {
        record.reserve(&admitted, limit::tokens_at_most(&admitted))?;
        respond::nothing(client, record, &admitted, None).await?;
        warm_up::begin(record, admitted);
        return Ok(());
    }
    match answer(client, record, &admitted).await {
        Ok(()) => Ok(()),
        Err(reject) => Box::pin(fallback::answer(client, record, &admitted, reject)).await,
    }
}

/// The whole body of a request; `None` where the client has gone away meanwhile.
async fn body(client: &mut impl Client, record: &mut Record<'_>) -> Result<Option<Bytes>, Reject> {
    let limits = &record.live.limits;
    match client.body(limits.body.0, limits.body_read, &mut record.held).await {
        Ok(body) => {
            record.complete = Some(clock::now());
            Ok(Some(body))
        }
        Err(BodyError::NoRoom) => Err(Reject::overloaded()),
        Err(BodyError::TooLarge) => Err(Reject::BodyTooLarge { limit: limits.body.0 }),
        Err(BodyError::TooSlow) => Err(Reject::BodyTimeout { seconds: limits.body_read.as_secs() }),
        Err(BodyError::Malformed) => Err(Reject::BadRequest),
        Err(BodyError::Broken) => {
            record.client_gone();
            Ok(None)
        }
    }
}

/// A stored answer, one that is being generated, or a new one.
async fn answer(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Arc<Admitted>,
) -> Result<(), Reject> {
    let shared = record.shared;
    for _ in 0..LOOKS {
        let next = match lookup::find(shared, admitted) {
            Lookup::Hit(hit) => {
                // A hit uses no tokens, and is a request like any other.
                record.reserve(admitted, 0)?;
                let source = hit.source();
                if let (Some(rule), [choice]) = (hit.rule(), &hit.answer().choices[..]) {
                    let served = (rule, choice.text.as_str(), choice.finish);
                    let asked = (admitted, record.live, &record.trace);
                    shared.auditor.served(asked, served, fastrand::f64());
                }
                return respond::hit(client, record, admitted, (&hit, source)).await;
            }
            Lookup::Join(reader, ticket) => {
                record.reserve(admitted, 0)?;
                follow(client, record, admitted, (&ticket, reader)).await?
            }
            Lookup::Miss(reader, ticket) => {
                lead(client, record, admitted, (&ticket, reader)).await?
            }
        };
        if next == Next::Answered {
            return Ok(());
        }
        // It came to something else than what was typed, or its leader gave it up, or others had
        // sent some of it when it was lost: there may be another to join.
    }
    Err(Reject::AllFailed)
}

/// Generations that a request may wait for, one after the other.
const LOOKS: usize = 4;

/// Has an answer generated, for this request and whoever joins it.
async fn lead(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Arc<Admitted>,
    (ticket, reader): (&Arc<Ticket>, Reader),
) -> Result<Next, Reject> {
    // Whoever joined meanwhile is on its own where this one's limits are used up.
    let landing = generate::Landing::new(record.shared, reader.flight(), ticket);
    record.reserve(admitted, limit::tokens_at_most(admitted))?;
    generate::drive(record, admitted, ticket, landing);
    follow(client, record, admitted, (ticket, reader)).await
}

/// Waits for a generation, with others or alone.
async fn follow(
    client: &mut impl Client,
    record: &mut Record<'_>,
    admitted: &Admitted,
    (ticket, reader): (&Ticket, Reader),
) -> Result<Next, Reject> {
    let document = document(admitted);
    let arrived = record.arrived;
    let wait = |document| record.shared.flights.wait(document, (&reader, arrived));
    let _watched = document.map(wait);
    match admitted.request.stream {
        true => respond::stream(client, record, admitted, (ticket, reader)).await,
        false => respond::whole(client, record, admitted, (ticket, reader)).await,
    }
}

fn document(admitted: &Admitted) -> Option<Document> {
    let (caller, declared) = (&admitted.head.caller, &admitted.request.declared);
    let (session, document) = (declared.session.clone()?, declared.document.clone()?);
    let (tenant, key) = (caller.tenant.clone(), caller.key.clone());
    Some(Document { tenant, key, session, document, kind: admitted.kind })
}

/// Requests that pods work on at once, of those that may be in progress. The others wait here,
/// where tenants take turns.
pub(crate) fn places(capacity: Option<usize>, requests: usize) -> usize {
    capacity.unwrap_or(requests / 2).clamp(1, requests)
}

fn unix_now() -> u64 {
    clock::since_epoch().as_secs()
}

/// A place among the requests in progress; given back when dropped.
struct Place<'a> {
    shared: &'a Shared,
    _seat: Seat,
}

impl<'a> Place<'a> {
    fn take(shared: &'a Shared, caller: &Arc<Caller>, limit: usize) -> Option<Self> {
        let seat = shared.crowd.enter(caller, limit)?;
        shared.metrics.in_progress.inc();
        Some(Self { shared, _seat: seat })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.metrics.in_progress.dec();
    }
}
