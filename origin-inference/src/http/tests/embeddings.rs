//! `/v1/embeddings` over the real embedder, beside the tiny model in one pod.

use std::path::PathBuf;

use super::*;
use crate::{
    counters::Families,
    registry::{OrtOpener, tests::origin},
    session::ort::tests as ort,
};

fn both() -> Option<Pod> {
    let runtime = ort::runtime()?.clone();
    let metrics = Metrics::default();
    let opener = OrtOpener { runtime, origin: origin(), families: Families::new(&metrics) };
    let model = |folder: PathBuf, alias: &str| OriginModel { folder, aliases: vec![alias.into()] };
    let models = [model(tiny(), "default"), model(ort::foreign("all-minilm-l6-v2")?, "embed")];
    let registry = Registry::start(Arc::new(opener), &models).unwrap();
    let app = App::new(Arc::new(registry), Arc::new(|| Ok(())), &metrics);
    Some(Pod { router: app.router(), metrics })
}

fn vectors(body: &[u8]) -> Vec<Vec<f64>> {
    let body: Value = serde_json::from_slice(body).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let vector = |item: &Value| item["embedding"].as_array().unwrap().iter().map(number).collect();
    body["data"].as_array().unwrap().iter().map(vector).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn texts_become_vectors_that_mean_what_their_models_card_says() {
    let Some(pod) = both() else { return };
    let texts = [
        "That is a happy person",
        "That is a happy dog",
        "That is a very happy person",
        "Today is a sunny day",
    ];
    let (status, body) =
        post(&pod, "/v1/embeddings", &json!({"model": "embed", "input": texts})).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let together = vectors(&body);
    assert_eq!(together[0].len(), 384);
    assert!((cosine(&together[0], &together[0]) - 1.0).abs() < 1e-5);
    // The model card's own examples.
    for (other, expected) in [(1, 0.695), (2, 0.943), (3, 0.257)] {
        let found = cosine(&together[0], &together[other]);
        assert!((found - expected).abs() < 0.01, "{}: {found}", texts[other]);
    }
    for (text, vector) in texts.iter().zip(&together) {
        let (_, body) =
            post(&pod, "/v1/embeddings", &json!({"model": "embed", "input": text})).await;
        let alone = vectors(&body).remove(0);
        let apart = alone.iter().zip(vector).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-5, "alone or together: {apart}");
    }
}

#[tokio::test]
async fn requests_for_the_other_kind_and_long_texts_are_told() {
    let Some(pod) = both() else { return };
    let check = async |path: &str, body: Value, code: StatusCode, param: &str| {
        let (status, body) = post(&pod, path, &body).await;
        let error = ApiError::parse(&body).unwrap();
        assert_eq!((status, error.param.as_deref()), (code, Some(param)), "{error}");
        error.message
    };
    let bad = StatusCode::BAD_REQUEST;
    let said = check("/v1/embeddings", json!({"model": "tiny", "input": "a"}), bad, "model").await;
    assert!(said.contains("/v1/completions"), "{said}");
    let said =
        check("/v1/completions", json!({"model": "embed", "prompt": "a"}), bad, "model").await;
    assert!(said.contains("/v1/embeddings"), "{said}");
    let long = "word ".repeat(500);
    let body = json!({"model": "embed", "input": long});
    let said = check("/v1/embeddings", body, bad, "input").await;
    assert!(said.contains("502 tokens") && said.contains("256"), "{said}");
    let body = json!({"model": "embed", "input": "a", "dimensions": 100});
    let said = check("/v1/embeddings", body, bad, "dimensions").await;
    assert!(said.contains("384"), "{said}");
    let body = json!({"model": "embed", "input": long, "truncate": true});
    let (status, body) = post(&pod, "/v1/embeddings", &body).await;
    assert_eq!(status, StatusCode::OK);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["usage"]["prompt_tokens"], 256);
}

#[tokio::test]
async fn every_response_says_which_weights_and_how_busy() {
    let Some(pod) = both() else { return };
    let ask = async |path: &str, body: Value| {
        let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
        pod.router.clone().call(request).await.unwrap().headers().clone()
    };
    let headers = ask("/v1/completions", json!({"model": "default", "prompt": "a"})).await;
    assert_eq!(headers["x-nearhop-model"], "tiny@1");
    let load = headers["endpoint-load-metrics"].to_str().unwrap();
    assert!(load.starts_with("TEXT ") && load.contains("named_metrics.queue_depth=0"), "{load}");
    // A stream's head is sent while it still waits itself.
    let stream = json!({"model": "default", "prompt": "b", "stream": true});
    let headers = ask("/v1/completions", stream).await;
    let load = headers["endpoint-load-metrics"].to_str().unwrap();
    assert!(load.contains("named_metrics.queue_depth=0"), "{load}");
    let headers = ask("/v1/completions", json!({"model": "nobody", "prompt": "a"})).await;
    assert!(headers.contains_key("endpoint-load-metrics"), "an error has it too");
    let headers = ask("/v1/embeddings", json!({"model": "embed", "input": "a"})).await;
    assert_eq!(headers["x-nearhop-model"], "all-minilm-l6-v2@gt-0.1.0-q8");
    let request = Request::get("/v1/models").body(Body::empty()).unwrap();
    let response = pod.router.clone().call(request).await.unwrap();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let models: Value = serde_json::from_slice(&body).unwrap();
    let find = |id: &str| {
        models["data"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone()
    };
    let tiny = find("tiny");
    assert_eq!((&tiny["provider"], &tiny["aliases"]), (&json!("cpu"), &json!(["default"])));
    assert_eq!(find("all-minilm-l6-v2")["kind"], "embed");
}
