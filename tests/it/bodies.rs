//! Bodies of every size arrive whole, also through a failover; and what is over a limit is told.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    client::{complete, get, request, send},
    eventually,
    fake_pod::{Act, FakePod},
    process::{Edge, KEY},
    unique,
};

#[tokio::test]
async fn bodies_arrive_whole_also_through_a_failover() {
    let pods = [FakePod::start(Act::Close), FakePod::start(Act::Answer("ok"))];
    let edge = Edge::start(&[pods[0].address, pods[1].address], |_| {});
    for size in [1 << 10, 63 << 10, 65 << 10, 1 << 20] {
        // Which pod is asked first is drawn: ask until the failing one was.
        for attempt in 0.. {
            assert!(attempt < 200, "no request of {size} bytes met the failing pod");
            let start = unique();
            let prompt = start.clone() + &"x".repeat(size - start.len());
            let body = json!({"model": "fake", "prompt": prompt});
            let answer = complete(&edge.address, &body).await;
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "ok"), "{size}");
            let arrived = pods[1].seen().pop().unwrap();
            let sent: serde_json::Value = serde_json::from_slice(&arrived.body).unwrap();
            assert_eq!(sent["prompt"], prompt);
            if let Some(lost) = pods[0].seen().pop().filter(|lost| lost.sha256 == arrived.sha256) {
                assert_eq!(lost.bytes, arrived.bytes, "both got the same bytes");
                break;
            }
        }
        // The closing pod is ejected at its first failure; bring it back for the next size.
        eventually("the pod is back", Duration::from_secs(60), || async {
            edge.pods().await[0]["ready"].as_bool().unwrap().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_model_may_be_named_by_alias_and_by_revision() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    for (asked, sent) in
        [("fake", "fake"), ("usual", "fake"), ("fake@1", "fake@1"), ("fake@0", "fake@0")]
    {
        let body = json!({"model": asked, "prompt": unique(), "max_tokens": 4});
        let answer = complete(&edge.address, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{asked}: {}", answer.text());
        let arrived: serde_json::Value =
            serde_json::from_slice(&pod.seen().pop().unwrap().body).unwrap();
        assert_eq!(arrived["model"], sent);
        assert_eq!(answer.json()["model"], "fake", "its own name");
    }
    let answer = complete(&edge.address, &json!({"model": "fake@2", "prompt": "a"})).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_in_the_contracts_shape() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["limits"] = json!({"body": "64KiB", "prompt": "32KiB"});
    });
    let body = json!({"model": "fake", "prompt": "x".repeat(70 << 10)});
    let answer = complete(&edge.address, &body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json()["error"]["code"], "body_too_large");
    let body = json!({"model": "fake", "prompt": "x".repeat(40 << 10)});
    let answer = complete(&edge.address, &body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.json()["error"]["param"], "prompt");
    assert!(pod.seen().is_empty());
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_still_sends() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    for (path, key, status) in [("/v1/completions", "Bearer wrong", 401), ("/nowhere", KEY, 404)] {
        let request = Request::post(path)
            .header("host", "x")
            .header("authorization", key)
            .body(Bytes::from(vec![b'x'; 8 << 20]))
            .unwrap();
        let answer = send(&edge.address, request).await.unwrap().whole().await.unwrap();
        assert_eq!(answer.status.as_u16(), status);
        assert!(answer.json()["error"]["code"].is_string());
    }
}

#[tokio::test]
async fn a_chunked_body_without_end_is_413() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["limits"] = json!({"body": "64KiB", "prompt": "64KiB"})
    });
    let mut stream = TcpStream::connect(&edge.address).await.unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let chunk = format!("{:x}\r\n{}\r\n", 4096, "x".repeat(4096));
    let writing =
        tokio::spawn(async move { while write.write_all(chunk.as_bytes()).await.is_ok() {} });
    let mut answer = vec![0; 12];
    timeout(Duration::from_secs(30), read.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    timeout(Duration::from_secs(30), writing).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |edge| edge["limits"] = json!({"body_read": "300ms"}));
    let mut stream = TcpStream::connect(&edge.address).await.unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\ncontent-length: 10\r\n\r\nabc"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
}

#[tokio::test]
async fn a_client_that_asks_first_may_go_on() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let body = r#"{"model":"fake","prompt":"a"}"#;
    let mut stream = TcpStream::connect(&edge.address).await.unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\nexpect: 100-continue\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 12];
    timeout(Duration::from_secs(30), stream.read_exact(&mut go_on)).await.unwrap().unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"));
}

/// All that comes back for these bytes, until the edge closes.
async fn raw(address: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn an_http_1_0_client_gets_no_chunks_and_a_closed_connection() {
    let pod = FakePod::start(Act::Slow("hello"));
    let edge = Edge::start(&[pod.address], |_| {});
    for stream in [false, true] {
        let body = format!(r#"{{"model":"fake","prompt":"a","stream":{stream}}}"#);
        let head = format!(
            "POST /v1/completions HTTP/1.0\r\nauthorization: {KEY}\r\ncache-control: no-store\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = raw(&edge.address, &(head + &body)).await;
        assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
        assert!(answer.contains(if stream { "data: [DONE]\n\n" } else { "\"hello\"" }), "{answer}");
    }
}

/// RFC 9112, section 6.1: such a message may be smuggling, so nothing after it is believed.
#[tokio::test]
async fn what_follows_an_ambiguous_length_is_no_request() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let body = r#"{"model":"fake","prompt":"a"}"#;
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let hidden = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\ncache-control: no-store\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        chunked.len() + hidden.len()
    );
    let answer = raw(&edge.address, &(head + &chunked + &hidden)).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(pod.seen().len() <= 1, "the hidden request reached a pod");
}

#[tokio::test]
async fn a_client_that_asks_to_close_is_closed() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let answer =
        raw(&edge.address, "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let request = |prompt: &str, close: &str| {
        let body = format!(r#"{{"model":"fake","prompt":"{prompt}"}}"#);
        format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\nx-request-id: {prompt}\r\n{close}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut stream = TcpStream::connect(&edge.address).await.unwrap();
    let all = [request("one", ""), request("two", ""), request("three", "connection: close\r\n")]
        .concat();
    stream.write_all(all.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    timeout(Duration::from_secs(30), stream.read_to_end(&mut answers)).await.unwrap().unwrap();
    let answers = String::from_utf8(answers).unwrap();
    let places: Vec<usize> = ["one", "two", "three"]
        .iter()
        .map(|id| {
            answers.find(&format!("x-request-id: {id}")).unwrap_or_else(|| panic!("{answers}"))
        })
        .collect();
    assert!(places.is_sorted(), "{answers}");
}

#[tokio::test]
async fn mistakes_are_told_in_the_contracts_shape() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let raw = |body: &'static str| {
        let mut request = request("/v1/completions", &json!(null), &[]);
        *request.body_mut() = Bytes::from_static(body.as_bytes());
        request
    };
    let wrong_key = Request::post("/v1/completions")
        .header("host", "x")
        .header("authorization", "Bearer wrong")
        .body(Bytes::new())
        .unwrap();
    let cases = [
        (raw("not json"), 400, "invalid_json"),
        (raw(r#"{"prompt":"a"}"#), 400, "missing_field"),
        (raw(r#"{"model":"gpt-4","prompt":"a"}"#), 404, "model_not_found"),
        (raw(r#"{"model":"fake","prompt":"a","temperature":9}"#), 400, "invalid_value"),
        (wrong_key, 401, "invalid_api_key"),
        (request("/v1/nothing", &json!({}), &[]), 404, "not_found"),
    ];
    for (request, status, code) in cases {
        let answer = send(&edge.address, request).await.unwrap().whole().await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{:?}", answer.body);
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code);
        for field in ["message", "type", "param", "code"] {
            assert!(error.get(field).is_some(), "{error}");
        }
        assert!(!answer.header("x-request-id").is_empty());
    }
    assert_eq!(
        get(&edge.address, "/v1/completions", &[]).await.unwrap().status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(get(&edge.address, "/health", &[]).await.unwrap().status, StatusCode::OK);
    assert!(pod.seen().is_empty());
}

#[tokio::test]
async fn the_operators_api_is_closed_without_its_token() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    for headers in [&[][..], &[("authorization", "Bearer wrong")]] {
        let answer = get(&edge.admin, "/admin/v1/pods", headers).await.unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(edge.pods().await[0]["ready"], true);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(get(&edge.admin, path, &[]).await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(get(&edge.address, "/metrics", &[]).await.unwrap().status, StatusCode::NOT_FOUND);
}
