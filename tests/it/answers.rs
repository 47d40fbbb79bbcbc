//! Correct answers from a real model through the real edge, to real clients.

use std::{path::Path, process::Command};

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    client::{complete, get, post},
    process::{Dev, Edge, has_ort, root, say},
    unique,
};

const SSE: &str = "text/event-stream; charset=utf-8";

#[test]
fn the_openai_package_completes_chats_streams_and_raises() {
    if !has_ort() {
        return;
    }
    let python = root().join(".venv/bin/python");
    if !python.exists() {
        let required = nearhop_conf::source::process_env("NEARHOP_REQUIRE_CLIENTS").is_some();
        assert!(!required, "no test clients: `make setup`");
        say("SKIPPED: no test clients, the openai package was NOT tested: `make setup`");
        return;
    }
    let base = format!("http://{}/v1", Dev::shared().edge());
    let output = Command::new(python).arg(root().join("tests/openai_sdk.py")).arg(base).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
}

#[tokio::test]
async fn two_hundred_real_tasks_are_answered_and_then_served_from_the_cache() {
    if !has_ort() {
        return;
    }
    let edge = Dev::shared().edge();
    let tasks = std::fs::read_to_string(root().join("tests/data/human-eval-infilling-200.jsonl"));
    let tasks: Vec<Value> =
        tasks.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(tasks.len(), 200);
    let run = unique();
    let ask = |task: Value| {
        let (edge, run) = (edge.clone(), run.clone());
        async move {
            let prefix = format!("# {run}\n{}", task["prompt"].as_str().unwrap());
            let body = json!({
                "model": "nearhop-mini", "prompt": prefix, "suffix": task["suffix"],
                "max_tokens": 24, "stop": ["\n\n"],
            });
            let answer = complete(&edge, &body).await;
            assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
            let source = answer.header("x-nearhop-source").to_owned();
            (source, answer.text(), answer.body)
        }
    };
    let mut first = Vec::new();
    for four in tasks.chunks(4) {
        let asked: Vec<_> = four.iter().map(|task| tokio::spawn(ask(task.clone()))).collect();
        for answer in asked {
            first.push(answer.await.unwrap());
        }
    }
    let filled = first.iter().filter(|(_, text, _)| !text.trim().is_empty()).count();
    assert!(filled > 150, "only {filled} answers have text");
    for (task, (source, text, body)) in tasks.into_iter().zip(first) {
        assert_eq!(source, "origin");
        let (again, text_again, body_again) = ask(task).await;
        // An answer without text is not remembered.
        let expected = if text.is_empty() { "origin" } else { "l1" };
        assert_eq!((again.as_str(), text_again), (expected, text));
        assert!(expected == "origin" || body == body_again);
    }
}

#[tokio::test]
async fn every_answer_keeps_the_contract() {
    if !has_ort() {
        return;
    }
    let edge = Dev::shared().edge();
    let body = json!({"model": "nearhop-mini", "prompt": "contract = ", "max_tokens": 4});
    let headers = [("x-request-id", "req-7")];
    let answer = post(&edge, "/v1/completions", &body, &headers).await;
    assert_eq!(answer.header("x-request-id"), "req-7");
    assert_eq!(answer.header("x-nearhop-source"), "origin");
    assert_eq!(answer.header("x-nearhop-region"), "local");
    assert_eq!(answer.header("cache-status"), "nearhop; fwd=uri-miss");
    assert!(answer.header("server-timing").starts_with("origin;dur="));
    assert!(answer.header("x-nearhop-pod").starts_with("pod-"));
    let streamed =
        json!({"stream": true, "model": body["model"], "prompt": body["prompt"], "max_tokens": 4});
    let hit = complete(&edge, &streamed).await;
    assert_eq!(hit.header("x-nearhop-source"), "l1");
    assert!(hit.header("cache-status").starts_with("nearhop; hit; ttl=3"));
    assert_eq!(hit.header("content-type"), SSE);
    assert_eq!(hit.streamed(), (answer.text(), true));
}

#[tokio::test]
async fn a_stream_from_a_pod_is_the_whole_answer_in_pieces() {
    if !has_ort() {
        return;
    }
    let edge = Dev::shared().edge();
    for n in [1, 2] {
        let mut body = json!({
            "model": "nearhop-mini", "prompt": "def pieces(", "max_tokens": 12, "n": n,
        });
        let whole = post(&edge, "/v1/completions", &body, &[("cache-control", "no-store")]).await;
        body["stream"] = json!(true);
        let stream = post(&edge, "/v1/completions", &body, &[("cache-control", "no-store")]).await;
        assert_eq!(stream.header("x-nearhop-source"), "origin");
        let (text, done) = stream.streamed();
        assert!(done);
        if n == 1 {
            assert_eq!(text, whole.text());
        }
        assert_eq!(whole.json()["choices"].as_array().unwrap().len(), n);
    }
}

#[tokio::test]
async fn pods_answer_by_themselves_too() {
    if !has_ort() {
        return;
    }
    let dev = Dev::shared();
    let body = json!({"model": "nearhop-mini", "prompt": "import ", "max_tokens": 4});
    let answer = complete(&dev.pod_listen(0), &body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let page = get(&dev.pod_admin(0), "/metrics", &[]).await.unwrap();
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    for name in
        ["vllm:num_requests_waiting{", "vllm:num_requests_running{", "llm_inference_queue_length{"]
    {
        assert!(page.contains(name), "{name} is not in\n{page}");
    }
    assert_eq!(get(&dev.pod_admin(0), "/livez", &[]).await.unwrap().status, StatusCode::OK);
}

#[test]
fn the_test_data_carries_its_licence() {
    assert!(Path::new(&root()).join("tests/data/LICENSE.human-eval-infilling").is_file());
}

#[tokio::test]
async fn pods_are_reached_over_http2_as_well() {
    if !has_ort() {
        return;
    }
    let pods = [0, 1].map(|at| Dev::shared().pod_listen(at).parse().unwrap());
    let edge = Edge::start(&pods, |edge| edge["upstream"] = json!({"protocol": "h2"}));
    let asks: Vec<_> = (0..16)
        .map(|n| {
            let address = edge.address.clone();
            let body = json!({
                "model": "nearhop-mini", "prompt": format!("def f{n}("), "max_tokens": 8,
                "stream": n % 2 == 0,
            });
            tokio::spawn(async move { complete(&address, &body).await })
        })
        .collect();
    for ask in asks {
        let answer = ask.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        assert_eq!(answer.header("x-nearhop-source"), "origin");
    }
}
