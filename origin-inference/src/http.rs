//! HTTP to jobs and back; the only file with status codes.
//!
//! A client that goes away drops its response, which drops the job's channel, which stops the
//! job: hyper does the first step for us, streaming or not.

mod respond;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use nearhop_admin::{Check, Metrics, api_error, clock};
use nearhop_wire::{ApiError, CompletionRequest, Endpoint, ErrorKind, Head, PodReport, Sampling};
use prometheus::{Histogram, IntCounterVec};
use tokio::{
    sync::Semaphore,
    time::{timeout, timeout_at},
};

use crate::{
    Model, Prompt,
    queue::{Job, Refused, Settings},
    worker::Engine,
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
    model: Arc<Model>,
    engine: Engine,
    ready: Check,
    slots: usize,
    counters: Counters,
    tokenizing: Arc<Semaphore>,
    started: u64,
}

/// What is counted of requests.
#[derive(Clone)]
struct Counters {
    requests: IntCounterVec,
    tokens: IntCounterVec,
    duration_seconds: Histogram,
}

impl App {
    pub(crate) fn new(
        model: Arc<Model>,
        (engine, slots): (Engine, usize),
        ready: Check,
        metrics: &Metrics,
    ) -> Self {
        let counters = Counters {
            requests: metrics.counters(
                "nearhop_pod_requests_total",
                "Completion requests by status.",
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
        Self {
            model,
            engine,
            ready,
            slots,
            counters,
            tokenizing: Arc::new(Semaphore::new(TOKENIZING_MAX)),
            started: clock::since_epoch().as_secs(),
        }
    }

    /// The serving listener's routes.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/v1/completions", post(completions))
            .route("/v1/chat/completions", post(chat))
            .route("/v1/models", get(models))
            .route("/readyz", get(readyz))
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .with_state(self)
    }
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
    let requests = app.counters.requests.clone();
    let response = match generate(app, endpoint, request, arrived).await {
        Ok(response) => response,
        Err(refusal) => refusal.respond(),
    };
    requests.with_label_values(&[response.status().as_str()]).inc();
    response
}

async fn generate(
    app: App,
    endpoint: Endpoint,
    request: Request,
    arrived: Instant,
) -> Result<Response, Refusal> {
    let deadline = arrived + asked_deadline(&request);
    let body = read_body(request.into_body()).await?;
    let request = CompletionRequest::parse(endpoint, &body)?;
    let report = app.model.report();
    if let Some(asked) = request.model.as_deref().filter(|asked| *asked != report.name) {
        return Err(ApiError::unknown_model(asked, &[&report.name]).into());
    }
    if let Some(field) = request.unsupported.first() {
        let message = format!("{field} is not supported by this model; leave it out");
        return Err(ApiError::invalid(field, message).into());
    }
    // Of the editors' shapes only Tabby's comes here, since it shares its path; edges translate all.
    let endpoint = request.endpoint;
    let stream = request.stream;
    let (include_usage, return_token_ids) = (request.include_usage, request.return_token_ids);
    let sampling = request.sampling.clone();
    let prompt = timeout_at(deadline.into(), tokenize(&app, request));
    let prompt = prompt.await.map_err(|_elapsed| respond::late())??;
    let n = sampling.n;
    let settings = settle(sampling, &app.model, prompt.tokens.len());
    let head = Head {
        id: new_id(endpoint),
        created: clock::since_epoch().as_secs(),
        model: report.name,
        fingerprint: app.model.fingerprint(),
        endpoint,
    };
    let prompt_tokens = prompt.tokens.len();
    let job = Job { tokens: prompt.tokens, settings, submitted: arrived };
    let events = app.engine.entrance.submit(job).map_err(refused)?;
    let reply = respond::Reply {
        events,
        head,
        n,
        prompt_tokens,
        left_out: prompt.left_out,
        arrived,
        deadline,
        tokens: app.counters.tokens.clone(),
        duration_seconds: app.counters.duration_seconds.clone(),
    };
    match stream {
        true => Ok(reply.stream(include_usage, return_token_ids)),
        false => reply.whole().await,
    }
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
        let message = format!("the body is over {BODY_BYTES_MAX} bytes, or was cut: {error}");
        let (status, code) = (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large");
        Refusal::new(status, ErrorKind::InvalidRequest, code, message)
    })
}

/// Text to tokens, away from the threads that serve connections.
async fn tokenize(app: &App, request: CompletionRequest) -> Result<Prompt, Refusal> {
    let stopped = || {
        let message = "the pod is stopping";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Server, "stopping", message)
    };
    let _turn = app.tokenizing.acquire().await.map_err(|_closed| stopped())?;
    let model = Arc::clone(&app.model);
    let task = tokio::task::spawn_blocking(move || model.prompt(&request.input));
    Ok(task.await.map_err(|_panicked| stopped())??)
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
    }
}

fn refused(refused: Refused) -> Refusal {
    match refused {
        Refused::Full { .. } => {
            let status = StatusCode::TOO_MANY_REQUESTS;
            Refusal::new(status, ErrorKind::Overloaded, "queue_full", refused.to_string())
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
    let report = app.model.report();
    Json(serde_json::json!({
        "object": "list",
        "data": [{
            "id": report.name,
            "object": "model",
            "created": app.started,
            "owned_by": "nearhop",
            "revision": report.revision,
            "context_length": report.context_length,
        }],
    }))
    .into_response()
}

async fn readyz(State(app): State<App>) -> Response {
    match (app.ready)() {
        Ok(()) => {
            Json(PodReport { models: vec![app.model.report()], slots: app.slots }).into_response()
        }
        Err(reason) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Refusal::new(status, ErrorKind::Server, "not_ready", reason).respond()
        }
    }
}

async fn no_route() -> Response {
    let message = "no such path; /v1/completions, /v1/chat/completions and /v1/models are here";
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
