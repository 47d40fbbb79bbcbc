//! HTTP to jobs and back; the only file with status codes.
//!
//! A client that goes away drops its response, which drops the job's channel, which stops the
//! job: hyper does the first step for us, streaming or not.

mod embeddings;
mod respond;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State, rejection::JsonRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http_body_util::LengthLimitError;
use nearhop_admin::{Check, Metrics, api_error, clock};
use nearhop_wire::{
    ApiError, CompletionRequest, EmbedderReport, Endpoint, ErrorKind, Head, Kind, ModelReport,
    PREFIX_CACHE_PURGE_PATH, PodReport, Sampling,
};
use prometheus::{Histogram, IntCounterVec};
use tokio::{
    sync::Semaphore,
    time::{timeout, timeout_at},
};

use crate::{
    Model, Prompt,
    load::Load,
    operator::{self, Drop},
    prefix::Salt,
    queue::{Job, Refused, Settings},
    registry::{Registry, Runner, Served},
};

/// A body over this is refused. An edge's own limit is lower.
const BODY_BYTES_MAX: usize = 8 << 20;
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// From a request's header to the last byte of its answer, where the client asks for no less.
const TOTAL_DEADLINE: Duration = Duration::from_secs(120);
/// Requests whose text is being read at once; a long text takes a core for a moment.
const TOKENIZING_MAX: usize = 4;

/// What every request needs.
#[derive(Clone)]
pub(crate) struct App {
    registry: Arc<Registry>,
    ready: Check,
    counters: Counters,
    tokenizing: Arc<Semaphore>,
}

/// What is counted of requests.
#[derive(Clone)]
struct Counters {
    requests: IntCounterVec,
    tokens: IntCounterVec,
    duration_seconds: Histogram,
}

impl App {
    pub(crate) fn new(registry: Arc<Registry>, ready: Check, metrics: &Metrics) -> Self {
        let counters = Counters {
            requests: metrics.counters(
                "nearhop_pod_requests_total",
                "Completion and embedding requests by status.",
                &["status"],
            ),
            tokens: metrics.counters(
                "gen_ai_client_token_usage_total",
                "Tokens by type.",
                &["gen_ai_token_type"],
            ),
            duration_seconds: metrics.histogram(
                "gen_ai_server_request_duration_seconds",
                "From a request's header to its answer's last byte.",
                nearhop_admin::latency_buckets(),
            ),
        };
        Self { registry, ready, counters, tokenizing: Arc::new(Semaphore::new(TOKENIZING_MAX)) }
    }

    /// The serving listener's routes.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/v1/completions", post(completions))
            .route("/v1/chat/completions", post(chat))
            .route("/v1/embeddings", post(embeddings::answer))
            .route("/v1/models", get(models))
            .route("/readyz", get(readyz))
            .route(PREFIX_CACHE_PURGE_PATH, post(purge))
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .with_state(self)
    }

    /// Counts a response, and says who answered and how busy it is.
    fn finish(&self, result: Result<Response, Refusal>, found: Found) -> Response {
        let mut response = result.unwrap_or_else(Refusal::respond);
        self.counters.requests.with_label_values(&[response.status().as_str()]).inc();
        // A request that names no model of ours is answered with what is asked for by default.
        let Found { served, before } = found;
        let served = served.or_else(|| self.registry.table().find(None).ok());
        if let Some(served) = served {
            let headers = response.headers_mut();
            let mut insert = |name, value: String| {
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(HeaderName::from_static(name), value);
                }
            };
            insert("x-nearhop-model", served.model.fingerprint());
            if let Runner::Generate(engine) = &served.runner {
                let load = before.unwrap_or_else(|| engine.entrance.load());
                insert("endpoint-load-metrics", load.orca());
            }
        }
        response
    }
}

/// Whom a request is for, as far as it was read.
#[derive(Default)]
struct Found {
    served: Option<Arc<Served>>,
    /// How busy that was before it. A stream's head is sent while it still waits: counted, each would
    /// say that something waits there.
    before: Option<Load>,
}

/// A refused request.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: ApiError,
}

impl Refusal {
    fn new(status: StatusCode, kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self { status, error: ApiError::new(kind, code, message) }
    }

    fn respond(self) -> Response {
        let mut response = api_error(self.status, &self.error);
        let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if busy.contains(&self.status) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status = match error.code.as_deref() {
            Some("model_not_found") => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        Self { status, error }
    }
}

async fn completions(State(app): State<App>, request: Request) -> Response {
    answer(app, Endpoint::Completions, request).await
}

async fn chat(State(app): State<App>, request: Request) -> Response {
    answer(app, Endpoint::Chat, request).await
}

async fn answer(app: App, endpoint: Endpoint, request: Request) -> Response {
    let arrived = clock::now();
    let mut found = Found::default();
    let result = generate(&app, endpoint, (request, arrived), &mut found).await;
    app.finish(result, found)
}

/// Answers; `found` becomes the model that was asked for, as soon as it is known.
async fn generate(
    app: &App,
    endpoint: Endpoint,
    (request, arrived): (Request, Instant),
    found: &mut Found,
) -> Result<Response, Refusal> {
    let deadline = arrived + asked_deadline(&request);
    let caller = Caller::read(request.headers())?;
    let body = read_body(request.into_body()).await?;
    let request = CompletionRequest::parse(endpoint, &body)?;
    let served = app.registry.table().find(request.model.as_deref())?;
    found.served = Some(Arc::clone(&served));
    let Runner::Generate(engine) = &served.runner else {
        let message = "this model embeds texts; ask /v1/embeddings";
        return Err(ApiError::invalid("model", message).into());
    };
    let model = &served.model;
    if let Some(field) = request.unsupported.first() {
        let message = format!("{field} is not supported by this model; leave it out");
        return Err(ApiError::invalid(field, message).into());
    }
    let resumed = resumed(&request, model)?;
    // Of the editors' shapes only Tabby's comes here, since it shares its path; edges translate all.
    let endpoint = request.endpoint;
    let stream = request.stream;
    let (include_usage, return_token_ids) = (request.include_usage, request.return_token_ids);
    let class = caller.class.unwrap_or_else(|| request.kind());
    let sampling = request.sampling.clone();
    let prompt = timeout_at(deadline.into(), tokenize(app, model, request));
    let prompt = prompt.await.map_err(|_elapsed| respond::late())??;
    check_resumed(&resumed, prompt.tokens.len(), model)?;
    let n = sampling.n;
    let settings = settle(sampling, model, prompt.tokens.len());
    let report = served.report();
    let head = Head {
        id: new_id(endpoint),
        created: clock::since_epoch().as_secs(),
        fingerprint: model.fingerprint(),
        endpoint,
        model: report.name,
    };
    let prompt_tokens = prompt.tokens.len();
    let completion_tokens = resumed.iter().flatten().map(Vec::len).sum();
    let open = match resumed.is_empty() {
        true => n,
        false => resumed.iter().flatten().count(),
    };
    let job = Job {
        tokens: prompt.tokens,
        settings,
        submitted: arrived,
        deadline,
        salt: Salt::new(&caller.tenant, &report.revision, &report.template),
        tenant: caller.tenant,
        class,
        resumed,
    };
    let before = engine.entrance.load();
    let events = engine.entrance.submit(job, clock::now()).map_err(refused)?;
    found.before = stream.then_some(before);
    let reply = respond::Reply {
        events,
        head,
        n,
        open,
        prompt_tokens,
        cached_tokens: None,
        completion_tokens,
        left_out: prompt.left_out,
        arrived,
        deadline,
        tokens: app.counters.tokens.clone(),
        duration_seconds: app.counters.duration_seconds.clone(),
        _served: Arc::clone(&served),
    };
    match stream {
        true => Ok(reply.stream(include_usage, return_token_ids)),
        false => reply.whole().await,
    }
}

/// What the edge says of whom it asks for. The serving listener is for edges alone.
struct Caller {
    tenant: Arc<str>,
    class: Option<Kind>,
}

impl Caller {
    /// A tenant that cannot be read is refused: without one its prompts would be everybody's.
    fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if headers.contains_key("x-nearhop-tenant") && text("x-nearhop-tenant").is_none() {
            let message = "the tenant in x-nearhop-tenant is no printable ASCII";
            return Err(ApiError::invalid("x-nearhop-tenant", message).into());
        }
        let class = [Kind::Inline, Kind::Fim, Kind::Chat, Kind::Agent]
            .into_iter()
            .find(|kind| text("x-nearhop-kind") == Some(kind.name()));
        Ok(Self { tenant: text("x-nearhop-tenant").unwrap_or_default().into(), class })
    }
}

/// What is to be resumed, held against the model.
fn resumed(request: &CompletionRequest, model: &Model) -> Result<Vec<Option<Vec<u32>>>, Refusal> {
    let Some(resume) = &request.resume else { return Ok(Vec::new()) };
    let serving = &model.manifest.revision;
    if resume.revision != *serving {
        let message = format!(
            "these tokens are of revision {}, and {serving} is served: another revision would go on in another way",
            resume.revision
        );
        let (status, kind) = (StatusCode::CONFLICT, ErrorKind::InvalidRequest);
        return Err(Refusal::new(status, kind, "revision_mismatch", message));
    }
    let invalid = |message: &str| Refusal::from(ApiError::invalid("resume", message));
    if resume.token_ids.len() != request.sampling.n {
        return Err(invalid(
            "resume.token_ids must have a list, or null, for each of the n choices",
        ));
    }
    if resume.token_ids.iter().all(Option::is_none) {
        return Err(invalid("every choice has ended; there is nothing to resume"));
    }
    let known = |token: &u32| (*token as usize) < model.vocabulary();
    if !resume.token_ids.iter().flatten().flatten().all(known) {
        return Err(invalid("resume.token_ids has a token that the model does not know"));
    }
    Ok(resume.token_ids.clone())
}

/// What was said already must fit into the context with its prompt: the engine's thread reads it.
fn check_resumed(
    resumed: &[Option<Vec<u32>>],
    prompt: usize,
    model: &Model,
) -> Result<(), Refusal> {
    let longest = resumed.iter().flatten().map(Vec::len).max().unwrap_or(0);
    let context = model.context_length();
    if longest > 0 && prompt + longest > context {
        let message = format!(
            "a prompt of {prompt} tokens and {longest} to resume are more than the context of {context}"
        );
        return Err(ApiError::invalid("resume", message).into());
    }
    Ok(())
}

/// `x-nearhop-timeout-ms`, as far as it asks for less.
fn asked_deadline(request: &Request) -> Duration {
    let asked = request.headers().get("x-nearhop-timeout-ms");
    let asked = asked.and_then(|value| value.to_str().ok()?.parse().ok());
    asked.map_or(TOTAL_DEADLINE, |ms| Duration::from_millis(ms).min(TOTAL_DEADLINE))
}

async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    let late = |_elapsed| {
        let message = "the body did not arrive within 10 s";
        Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            ErrorKind::InvalidRequest,
            "body_timeout",
            message,
        )
    };
    let read = timeout(BODY_DEADLINE, axum::body::to_bytes(body, BODY_BYTES_MAX)).await;
    read.map_err(late)?.map_err(|error| {
        let error = error.into_inner();
        let (status, code, message) = match error.is::<LengthLimitError>() {
            true => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body is over {BODY_BYTES_MAX} bytes"),
            ),
            false => (StatusCode::BAD_REQUEST, "body_cut", format!("the body was cut: {error}")),
        };
        Refusal::new(status, ErrorKind::InvalidRequest, code, message)
    })
}

/// Text to tokens, away from the threads that serve connections.
async fn tokenize(
    app: &App,
    model: &Arc<Model>,
    request: CompletionRequest,
) -> Result<Prompt, Refusal> {
    let model = Arc::clone(model);
    in_turn(app, move || model.prompt(&request.input)).await
}

/// Runs `read` on a thread that may block, as one of a few at a time. It runs to its end where
/// nobody waits for it any more, and keeps its place until then.
async fn in_turn<T: Send + 'static>(
    app: &App,
    read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, Refusal> {
    let turn = Arc::clone(&app.tokenizing).acquire_owned().await;
    let turn = turn.expect("the semaphore is never closed");
    let task = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        read()
    });
    let panicked = |_panicked| {
        let message = "the model's tokenizer failed on this text";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Refusal::new(status, ErrorKind::Server, "tokenizer_failed", message)
    };
    Ok(task.await.map_err(panicked)??)
}

/// The request's sampling over the model's defaults. An answer never outgrows the context.
fn settle(sampling: Sampling, model: &Model, prompt_tokens: usize) -> Settings {
    let defaults = model.manifest.sampling;
    let room = model.context_length().saturating_sub(prompt_tokens).max(1);
    Settings {
        temperature: sampling.temperature.unwrap_or(defaults.temperature),
        top_p: sampling.top_p.unwrap_or(defaults.top_p),
        max_tokens: sampling.max_tokens.unwrap_or(defaults.max_tokens).min(room),
        n: sampling.n,
        seed: sampling.seed.unwrap_or_else(|| fastrand::u64(..)),
        stop: sampling.stop,
        penalties: sampling.penalties,
        logprobs: sampling.logprobs,
    }
}

fn refused(refused: Refused) -> Refusal {
    match refused {
        Refused::Full { .. } => {
            let status = StatusCode::TOO_MANY_REQUESTS;
            Refusal::new(status, ErrorKind::Overloaded, "queue_full", refused.to_string())
        }
        Refused::TooMany { .. } => ApiError::invalid("n", refused.to_string()).into(),
        Refused::Late { .. } => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Refusal::new(status, ErrorKind::Overloaded, "deadline_unreachable", refused.to_string())
        }
        Refused::Stopped => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Refusal::new(status, ErrorKind::Server, "stopping", refused.to_string())
        }
    }
}

fn new_id(endpoint: Endpoint) -> String {
    let prefix = match endpoint {
        Endpoint::Chat => "chatcmpl",
        _ => "cmpl",
    };
    format!("{prefix}-{:032x}", fastrand::u128(..))
}

async fn models(State(app): State<App>) -> Response {
    let table = app.registry.table();
    let models = table.all().map(|(served, active)| {
        let report = table.report(served, active);
        let id = if active { report.name.clone() } else { report.fingerprint() };
        serde_json::json!({
            "id": id,
            "object": "model",
            "created": served.loaded,
            "owned_by": "nearhop",
            "revision": report.revision,
            "context_length": report.context_length,
            "kind": served.model.kind().name(),
            "provider": served.provider.name(),
            "aliases": report.aliases,
        })
    });
    let models: Vec<_> = models.collect();
    Json(serde_json::json!({ "object": "list", "data": models })).into_response()
}

/// An edge passes a purge on; who may ask here is who may send prompts.
async fn purge(State(app): State<App>, body: Result<Json<Drop>, JsonRejection>) -> Response {
    operator::purge(State(app.registry), body).await.into_response()
}

async fn readyz(State(app): State<App>) -> Response {
    if let Err(reason) = (app.ready)() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Refusal::new(status, ErrorKind::Server, "not_ready", reason).respond();
    }
    let table = app.registry.table();
    if table.active().next().is_none() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Refusal::new(status, ErrorKind::Server, "not_ready", "no model is loaded")
            .respond();
    }
    // Edges send completions to what is listed here.
    let generate = |served: &Served| matches!(served.runner, Runner::Generate(_));
    let (active, kept): (Vec<_>, Vec<_>) =
        table.all().filter(|(served, _)| generate(served)).partition(|(_, active)| *active);
    let reports = |of: &[(&Arc<Served>, bool)]| {
        of.iter().map(|(served, active)| table.report(served, *active)).collect()
    };
    let embedders = table.all().filter(|(_, active)| *active).filter_map(|(served, active)| {
        let Runner::Embed(embedder) = &served.runner else { return None };
        let ModelReport { name, revision, aliases, .. } = table.report(served, active);
        Some(EmbedderReport { name, revision, aliases, dimensions: embedder.dimensions })
    });
    let report = PodReport {
        models: reports(&active),
        kept: reports(&kept),
        slots: active.iter().map(|(served, _)| served.slots).sum(),
        embedders: embedders.collect(),
    };
    Json(report).into_response()
}

async fn no_route() -> Response {
    let message = "no such path; /v1/completions, /v1/chat/completions, /v1/embeddings and /v1/models are here";
    let status = StatusCode::NOT_FOUND;
    Refusal::new(status, ErrorKind::InvalidRequest, "not_found", message).respond()
}

async fn no_method() -> Response {
    let message = "this path does not take that method";
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Refusal::new(status, ErrorKind::InvalidRequest, "method_not_allowed", message).respond()
}

#[cfg(test)]
mod tests;
