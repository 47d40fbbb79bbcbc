//! What an operator sees of a request: one line, one trace.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

use crate::support::{
    client::post,
    eventually,
    fake_pod::{Act, FakePod},
    process::Edge,
    unique,
};

const LIMIT: Duration = Duration::from_secs(30);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector that hands on every document it is sent.
async fn collector() -> (String, mpsc::UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (documents, taken) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let body = loop {
                let mut piece = [0; 16 << 10];
                let read = stream.read(&mut piece).await.unwrap();
                request.extend_from_slice(&piece[..read]);
                let text = String::from_utf8_lossy(&request).to_lowercase();
                let Some(end) = text.find("\r\n\r\n") else { continue };
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.unwrap().trim().parse().unwrap();
                if request.len() >= end + 4 + length {
                    break request[end + 4..].to_vec();
                }
            };
            documents.send(serde_json::from_slice(&body).unwrap()).unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, taken)
}

#[tokio::test]
async fn a_request_is_one_line_with_everything_but_its_text() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::with(&[pod.address], |config, _| {
        config["log"] = json!({"format": "json", "level": "info"});
        config["access"]["keys"][0]["user"] = json!("alice");
    });
    let body = json!({"model": "fake", "prompt": unique()});
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let headers = [("x-request-id", "one-line"), ("traceparent", parent.as_str())];
    let answer = post(&edge.address, "/v1/completions", &body, &headers).await;
    assert!(answer.header("traceparent").contains(TRACE));
    let line = eventually("its line", LIMIT, || async {
        let line = edge.log().lines().find(|line| line.contains("one-line")).map(str::to_owned);
        line.and_then(|line| serde_json::from_str::<Value>(&line).ok())
    })
    .await;
    let expected = json!({
        "request_id": "one-line", "trace_id": TRACE, "client": "127.0.0.1", "protocol": "HTTP/1.1",
        "path": "/v1/completions", "tenant": "dev", "key": "dev", "user": "alice", "kind": "inline",
        "source": "origin", "status": "200", "upstream": "fake-0", "attempts": 1, "prompt_tokens": 1,
        "completion_tokens": 1,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(line[name], *value, "{name} of {line}");
    }
    assert!(line["took_ms"].as_f64().unwrap() >= line["first_ms"].as_f64().unwrap());
    let head = pod.seen().pop().unwrap().head;
    let sent = head.lines().find_map(|line| line.strip_prefix("traceparent: ")).unwrap().to_owned();
    assert!(sent.contains(TRACE) && !sent.contains("00f067aa0ba902b7"), "a span of ours: {sent}");
}

#[tokio::test]
async fn lines_can_be_left_out() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::with(&[pod.address], |config, _| config["log"] = json!({"access": false}));
    post(
        &edge.address,
        "/v1/completions",
        &json!({"model": "fake", "prompt": unique()}),
        &[("x-request-id", "unseen")],
    )
    .await;
    crate::support::process::signal(edge.pid(), "HUP");
    eventually("it was heard", LIMIT, || async {
        (edge.metric("nearhop_config_reloads_total{result=\"taken\"}").await > 0.0).then_some(())
    })
    .await;
    assert!(!edge.log().contains("unseen"), "{}", edge.log());
}

#[tokio::test]
async fn a_sampled_request_is_a_trace_at_the_collector() {
    let pods = [FakePod::start(Act::Close), FakePod::start(Act::Answer("ok"))];
    let (endpoint, mut documents) = collector().await;
    let edge = Edge::with(&[pods[0].address, pods[1].address], |config, _| {
        config["traces"] = json!({"endpoint": endpoint, "sample": 0});
    });
    let ask = |flag: &'static str| {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-{flag}");
        let address = edge.address.clone();
        async move {
            let body = json!({"model": "fake", "prompt": unique()});
            post(&address, "/v1/completions", &body, &[("traceparent", &parent)]).await
        }
    };
    ask("00").await;
    ask("01").await;
    let document = tokio::time::timeout(LIMIT, documents.recv()).await.unwrap().unwrap();
    let spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    let requests: Vec<&Value> = spans.iter().filter(|span| span["name"] == "completion").collect();
    assert_eq!(requests.len(), 1, "only the sampled one: {spans:?}");
    assert_eq!(requests[0]["traceId"], TRACE);
    assert_eq!(requests[0]["parentSpanId"], "00f067aa0ba902b7");
    let attempts: Vec<&Value> = spans.iter().filter(|span| span["name"] == "attempt").collect();
    assert!(!attempts.is_empty());
    for attempt in attempts {
        assert_eq!(attempt["parentSpanId"], requests[0]["spanId"]);
        let time = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(time(attempt, "startTimeUnixNano") >= time(requests[0], "startTimeUnixNano"));
        assert!(time(attempt, "endTimeUnixNano") <= time(requests[0], "endTimeUnixNano"));
    }
    eventually("it is counted", LIMIT, || async {
        (edge.metric("nearhop_spans_total{result=\"sent\"}").await >= 2.0).then_some(())
    })
    .await;
}
