//! A whole pod over networks that misbehave.

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use nearhop_conf::OriginModel;
use tower_service::Service as _;

use super::*;
use crate::{
    registry::tests::{FakeOpener, origin, tiny},
    session::fake::Stuck,
};

async fn get(app: &axum::Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = app.clone().call(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_stalled_engine_fails_livez_and_readyz_though_http_still_answers() {
    let origin = origin();
    let (session, release) = Stuck::new();
    let listener = || bind(origin.listen, "the pod", "origin.listen").unwrap();
    let metrics = Metrics::default();
    let opener = FakeOpener::new(&metrics);
    *opener.session.lock().unwrap() = Some(Box::new(session));
    let models = [OriginModel { folder: tiny(), aliases: Vec::new() }];
    let registry = Registry::start(Arc::new(opener), &models).unwrap();
    let pod = Pod::assemble(&origin, registry, metrics, (listener(), listener())).unwrap();
    assert_eq!(get(&pod.admin_app, "/livez").await.0, StatusCode::OK);
    let body = r#"{"model":"tiny","prompt":"a"}"#;
    let request = Request::post("/v1/completions").body(Body::from(body)).unwrap();
    let mut app = pod.app.clone();
    let asking = tokio::spawn(async move { app.call(request).await });
    let deadline = clock::now() + Duration::from_secs(30);
    while get(&pod.admin_app, "/livez").await.0 == StatusCode::OK {
        assert!(clock::now() < deadline, "a stalled engine stays live");
        tokio::task::yield_now().await;
    }
    assert!(get(&pod.admin_app, "/livez").await.1.contains("has not moved"));
    assert_eq!(get(&pod.app, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        get(&pod.admin_app, "/metrics")
            .await
            .1
            .contains("vllm:num_requests_running{model_name=\"tiny\",revision=\"1\"} 1")
    );
    drop(release);
    let answer = asking.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
}
