//! The pod's API over the real tiny model and, where the model does not matter, the counting one.

use axum::body::to_bytes;
use nearhop_conf::OriginModel;
use nearhop_wire::{DONE, SseReader};
use serde_json::{Value, json};
use tower_service::Service as _;

use super::*;
use crate::{
    registry::tests::{FakeOpener, tiny},
    session::{
        Session,
        fake::{Counting, Stuck},
    },
};

mod embeddings;
mod resuming;

struct Pod {
    router: Router,
    metrics: Metrics,
}

fn pod(queue: usize) -> Pod {
    pod_over(Box::new(Counting::new(2, 512)), queue)
}

fn pod_over(session: Box<dyn Session>, queue: usize) -> Pod {
    let metrics = Metrics::default();
    let mut opener = FakeOpener::new(&metrics);
    opener.origin.queue = queue;
    *opener.session.lock().unwrap() = Some(session);
    let models = [OriginModel { folder: tiny(), aliases: vec!["default".into()] }];
    let registry = Registry::start(Arc::new(opener), &models).unwrap();
    let app = App::new(Arc::new(registry), Arc::new(|| Ok(())), &metrics);
    Pod { router: app.router(), metrics }
}

async fn post(pod: &Pod, path: &str, body: &Value) -> (StatusCode, Bytes) {
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    let response = pod.router.clone().call(request).await.unwrap();
    let status = response.status();
    if status == StatusCode::TOO_MANY_REQUESTS {
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
    (status, to_bytes(response.into_body(), usize::MAX).await.unwrap())
}

fn text(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    body["choices"][0]["text"].as_str().unwrap().to_owned()
}

async fn check_error(body: Value, status: StatusCode, param: &str) {
    let (got, body) = post(&pod(8), "/v1/completions", &body).await;
    let error = ApiError::parse(&body).unwrap();
    assert_eq!((got, error.param.as_deref()), (status, Some(param)), "{error}");
}

#[tokio::test]
async fn a_stream_brings_the_same_text_as_the_whole_answer() {
    let pod = pod(8);
    let mut body = json!({"model": "tiny", "prompt": "def ", "max_tokens": 9});
    let (status, whole) = post(&pod, "/v1/completions", &body).await;
    assert_eq!(status, StatusCode::OK);
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body["return_token_ids"] = json!(true);
    let (_, stream) = post(&pod, "/v1/completions", &body).await;
    assert!(stream.ends_with(DONE));
    let mut reader = SseReader::new(4096);
    reader.push(&stream);
    let (mut streamed, mut ids, mut usage) = (String::new(), 0, None);
    while let Some(data) = reader.next_event().unwrap() {
        let Ok(chunk) = serde_json::from_slice::<nearhop_wire::Chunk<'_>>(&data) else { continue };
        usage = usage.or(chunk.usage());
        for choice in chunk.choices {
            let delta = choice.into_delta();
            streamed += &delta.text;
            ids += delta.token_ids.len();
        }
    }
    assert_eq!(streamed, text(&whole));
    assert!(!streamed.is_empty());
    assert_eq!((usage.unwrap().completion_tokens, ids), (9, 9));
}

#[tokio::test]
async fn mistakes_are_told_in_the_contracts_shape() {
    check_error(json!({"prompt": "a"}), StatusCode::BAD_REQUEST, "model").await;
    check_error(json!({"model": "gpt", "prompt": "a"}), StatusCode::NOT_FOUND, "model").await;
    let echo = json!({"model": "tiny", "prompt": "a", "echo": true});
    check_error(echo, StatusCode::BAD_REQUEST, "echo").await;
}

#[tokio::test]
async fn other_paths_and_methods_have_the_contracts_shape_too() {
    let pod = pod(8);
    for (request, expected) in [
        (Request::get("/v1/completions"), StatusCode::METHOD_NOT_ALLOWED),
        (Request::get("/nowhere"), StatusCode::NOT_FOUND),
    ] {
        let response = pod.router.clone().call(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), expected);
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        assert!(ApiError::parse(&body).is_some());
    }
}

#[tokio::test]
async fn a_full_queue_is_429_with_retry_after() {
    let (session, _release) = Stuck::new();
    let pod = Arc::new(pod_over(Box::new(session), 2));
    let ask = json!({"model": "tiny", "prompt": "a", "n": 2});
    let too_many = json!({"model": "tiny", "prompt": "a", "n": 3});
    let (status, body) = post(&pod, "/v1/completions", &too_many).await;
    let error = ApiError::parse(&body).unwrap();
    assert_eq!(
        (status, error.param.as_deref()),
        (StatusCode::BAD_REQUEST, Some("n")),
        "never fits"
    );
    // The first fill the slots, or one of them and the queue, until the next do not fit.
    let (status, body) = loop {
        let (asking, body) = (Arc::clone(&pod), ask.clone());
        let mut asking = Box::pin(async move { post(&asking, "/v1/completions", &body).await });
        let answered = timeout(Duration::from_millis(50), &mut asking).await;
        match answered {
            Ok(answer) => break answer,
            Err(_waits) => drop(tokio::spawn(asking)),
        }
    };
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ApiError::parse(&body).unwrap().code.as_deref(), Some("queue_full"));
}

#[tokio::test]
async fn a_text_that_is_being_read_keeps_its_place_when_nobody_waits() {
    let metrics = Metrics::default();
    let opener = FakeOpener::new(&metrics);
    let models = [OriginModel { folder: tiny(), aliases: Vec::new() }];
    let registry = Registry::start(Arc::new(opener), &models).unwrap();
    let app = App::new(Arc::new(registry), Arc::new(|| Ok(())), &metrics);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let read = move || {
        let _ = held.recv();
        Ok(())
    };
    let reading = timeout(Duration::from_millis(20), in_turn(&app, read)).await;
    assert!(reading.is_err(), "given up");
    assert_eq!(app.tokenizing.available_permits(), TOKENIZING_MAX - 1);
    drop(release);
    let all = app.tokenizing.acquire_many(u32::try_from(TOKENIZING_MAX).unwrap());
    drop(timeout(Duration::from_secs(30), all).await.unwrap().unwrap());
    let panics = in_turn(&app, || -> Result<(), ApiError> { panic!("on purpose") }).await;
    assert_eq!(panics.unwrap_err().status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn what_the_window_left_out_is_told() {
    let pod = pod(8);
    let long = "word ".repeat(400);
    let body = json!({"model": "tiny", "prompt": long, "suffix": long, "max_tokens": 1});
    let (_, body) = post(&pod, "/v1/completions", &body).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let left_out = body["usage"]["prompt_tokens_details"]["truncated_tokens"].as_u64().unwrap();
    assert!(left_out > 100, "{body}");
}

#[tokio::test]
async fn a_huge_text_is_cut_or_refused_unread() {
    let pod = pod(8);
    let huge = "word ".repeat(1_000_000);
    let body = json!({"model": "tiny", "prompt": huge, "max_tokens": 1});
    let (status, body) = post(&pod, "/v1/completions", &body).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let left_out = body["usage"]["prompt_tokens_details"]["truncated_tokens"].as_u64().unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(left_out > 900_000, "about all of a million words: {body}");
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": huge}]});
    let (status, body) = post(&pod, "/v1/chat/completions", &chat).await;
    let error = ApiError::parse(&body).unwrap();
    assert_eq!((status, error.param.as_deref()), (StatusCode::BAD_REQUEST, Some("messages")));
    assert!(error.message.contains("5000004 bytes"), "with the role: {error}");
}

#[tokio::test]
async fn a_body_that_is_cut_is_400_and_one_too_large_413() {
    let pod = pod(8);
    let ask = async |pieces: Vec<Result<Bytes, std::io::Error>>| {
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let request = Request::post("/v1/completions").body(body).unwrap();
        let response = pod.router.clone().call(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 4096).await.unwrap();
        (status.as_u16(), ApiError::parse(&body).unwrap().code.unwrap())
    };
    let cut = vec![Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))];
    assert_eq!(ask(cut).await, (400, "body_cut".to_owned()));
    let large = (0..9).map(|_| Ok(Bytes::from(vec![b' '; 1 << 20]))).collect();
    assert_eq!(ask(large).await, (413, "body_too_large".to_owned()));
}

#[tokio::test]
async fn a_late_answer_is_504() {
    let (session, _release) = Stuck::new();
    let pod = pod_over(Box::new(session), 8);
    let body = json!({"model": "tiny", "prompt": "a", "max_tokens": 200});
    let request = Request::post("/v1/completions")
        .header("x-nearhop-timeout-ms", "20")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = pod.router.clone().call(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_pod_without_a_model_is_not_ready() {
    let metrics = Metrics::default();
    let registry = Registry::start(Arc::new(FakeOpener::new(&metrics)), &[]).unwrap();
    let app = App::new(Arc::new(registry), Arc::new(|| Ok(())), &metrics);
    let request = Request::get("/readyz").body(Body::empty()).unwrap();
    let response = app.router().call(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn readyz_reports_the_model_and_metrics_count() {
    let pod = pod(8);
    let request = Request::get("/readyz").body(Body::empty()).unwrap();
    let response = pod.router.clone().call(request).await.unwrap();
    let body = to_bytes(response.into_body(), 4096).await.unwrap();
    let report: PodReport = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (report.models[0].name.as_str(), &report.models[0].aliases[..]),
        ("tiny", &["default".to_owned()][..])
    );
    post(&pod, "/v1/completions", &json!({"model": "tiny", "prompt": "a", "max_tokens": 3})).await;
    let page = String::from_utf8(pod.metrics.render()).unwrap();
    assert!(
        page.contains("gen_ai_client_token_usage_total{gen_ai_token_type=\"output\"} 3"),
        "{page}"
    );
    assert!(page.contains("nearhop_pod_requests_total{status=\"200\"} 1"), "{page}");
}
