//! What is served again and what is not, over pods that count their requests.

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    client::{complete, post, request, send},
    fake_pod::{Act, FakePod},
    process::Edge,
};

async fn edge() -> (FakePod, Edge) {
    let pod = FakePod::start(Act::Answer("hello"));
    let edge = Edge::start(&[pod.address], |_| {});
    (pod, edge)
}

fn body() -> Value {
    json!({"model": "fake", "prompt": "a", "suffix": "b"})
}

async fn source(edge: &Edge, body: &Value, headers: &[(&str, &str)]) -> String {
    let answer = post(&edge.address, "/v1/completions", body, headers).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.header("x-nearhop-source").to_owned()
}

#[tokio::test]
async fn the_same_question_is_asked_once() {
    let (pod, edge) = edge().await;
    assert_eq!(source(&edge, &body(), &[]).await, "origin");
    assert_eq!(source(&edge, &body(), &[]).await, "l1");
    // Other order, other form, streamed: the same question.
    let other =
        r#"{"suffix":"\u0062","stream":false,"prompt":["a"],"temperature":0.0,"model":"fake"}"#;
    let other: Value = serde_json::from_str(other).unwrap();
    assert_eq!(source(&edge, &other, &[]).await, "l1");
    assert_eq!(pod.seen().len(), 1);
}

#[tokio::test]
async fn a_streamed_answer_is_stored_as_well() {
    let (pod, edge) = edge().await;
    let mut streamed = body();
    streamed["stream"] = json!(true);
    let first = complete(&edge.address, &streamed).await;
    assert_eq!(first.streamed(), ("hello".to_owned(), true));
    assert_eq!(complete(&edge.address, &body()).await.text(), "hello");
    assert_eq!(pod.seen().len(), 1);
}

#[tokio::test]
async fn a_client_may_steer() {
    let (pod, edge) = edge().await;
    for _ in 0..2 {
        assert_eq!(source(&edge, &body(), &[("cache-control", "no-store")]).await, "origin");
    }
    assert_eq!(source(&edge, &body(), &[]).await, "origin", "no-store stored nothing");
    assert_eq!(source(&edge, &body(), &[("cache-control", "no-cache")]).await, "origin");
    assert_eq!(source(&edge, &body(), &[]).await, "l1");
    assert_eq!(pod.seen().len(), 4);
}

#[tokio::test]
async fn variety_and_unknown_fields_are_never_answered_from_the_cache() {
    let (pod, edge) = edge().await;
    let with = |name: &str, value: Value| {
        let mut body = body();
        body[name] = value;
        body
    };
    for request in
        [with("temperature", json!(0.9)), with("min_p", json!(0.1)), with("echo", json!(true))]
    {
        for _ in 0..2 {
            assert_eq!(source(&edge, &request, &[]).await, "origin", "{request}");
        }
    }
    let sent: Value = serde_json::from_slice(&pod.seen()[2].body).unwrap();
    assert_eq!(sent["min_p"], json!(0.1), "an unknown field goes to the pod");
    let chat = json!({"model": "fake", "messages": [{"role": "user", "content": "a"}], "temperature": 0.2});
    for _ in 0..2 {
        let answer = post(&edge.address, "/v1/chat/completions", &chat, &[]).await;
        assert_eq!(answer.header("x-nearhop-source"), "origin");
    }
}

#[tokio::test]
async fn a_broken_answer_never_enters() {
    let (pod, edge) = edge().await;
    pod.act(Act::StallMidway);
    let mut streamed = body();
    streamed["stream"] = json!(true);
    let mut broken = send(&edge.address, request("/v1/completions", &streamed, &[])).await.unwrap();
    broken.until("half").await.unwrap();
    pod.hang_up();
    assert!(!broken.whole().await.unwrap().streamed().1);
    pod.act(Act::Answer("hello"));
    let answer = complete(&edge.address, &body()).await;
    assert_eq!((answer.header("x-nearhop-source"), answer.text()), ("origin", "hello".to_owned()));
}

#[tokio::test]
async fn the_pod_is_asked_for_a_stream_with_token_ids_and_nothing_private() {
    let (pod, edge) = edge().await;
    let headers = [("x-nearhop-tenant", "other"), ("cookie", "c"), ("x-request-id", "r1")];
    source(&edge, &body(), &headers).await;
    let seen = pod.seen().remove(0);
    let sent: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!((&sent["stream"], &sent["return_token_ids"]), (&json!(true), &json!(true)));
    assert!(seen.head.contains("x-request-id: r1"), "{}", seen.head);
    // The tenant is the key's, whatever the client says.
    assert!(seen.head.contains("x-nearhop-tenant: dev"), "{}", seen.head);
    assert!(seen.head.contains("x-nearhop-kind: fim"), "{}", seen.head);
    for private in ["authorization", "cookie", "other"] {
        assert!(!seen.head.contains(private), "{}", seen.head);
    }
}

#[tokio::test]
async fn an_answer_of_other_weights_than_the_pods_report_is_given_and_not_stored() {
    let (pod, edge) = edge().await;
    pod.act(Act::OtherRevision("newer"));
    for streamed in [false, true] {
        let mut body = body();
        body["stream"] = json!(streamed);
        assert_eq!(source(&edge, &body, &[]).await, "origin");
    }
    assert_eq!(
        edge.metric("nearhop_cache_stores_total{result=\"other-revision\",tier=\"l1\"}").await,
        2.0
    );
    pod.act(Act::Answer("older"));
    assert_eq!(source(&edge, &body(), &[]).await, "origin");
    assert_eq!(complete(&edge.address, &body()).await.text(), "older");
}
