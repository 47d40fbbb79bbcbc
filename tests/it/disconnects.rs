//! A client that goes away stops its generation, streaming or not, queued or running.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    client::{request, send},
    eventually,
    fake_pod::{Act, FakePod},
    process::{Dev, Edge, has_ort, metric},
    unique,
};

const LIMIT: Duration = Duration::from_secs(30);

async fn check_reaches_the_pod(act: Act, stream: bool) {
    let pod = FakePod::start(act);
    let edge = Edge::start(&[pod.address], |_| {});
    let mut cancelled = pod.cancelled();
    let body = json!({"model": "fake", "prompt": "a", "stream": stream});
    let address = edge.address.clone();
    let asking = tokio::spawn(async move {
        let mut answer = send(&address, request("/v1/completions", &body, &[])).await.unwrap();
        while let Ok(Some(_)) = answer.piece().await {}
    });
    eventually("the request is on the pod", LIMIT, || async {
        (!pod.seen().is_empty()).then_some(())
    })
    .await;
    assert_eq!(*cancelled.borrow_and_update(), 0);
    asking.abort();
    tokio::time::timeout(LIMIT, cancelled.changed()).await.unwrap().unwrap();
    eventually("nothing is in progress", LIMIT, || async {
        (edge.metric("nearhop_requests_in_progress").await == 0.0).then_some(())
    })
    .await;
    // The pod hears of it before the edge has counted it.
    eventually("nothing is in flight", LIMIT, || async {
        (edge.pods().await[0]["in_flight"] == 0).then_some(())
    })
    .await;
    let pods: Value = edge.pods().await;
    assert_eq!(pods[0]["ready"], true, "the pod is not to blame");
}

#[tokio::test]
async fn while_it_waits_for_a_stream_to_begin() {
    check_reaches_the_pod(Act::Hang, true).await;
}

#[tokio::test]
async fn while_it_waits_for_a_whole_answer() {
    check_reaches_the_pod(Act::Hang, false).await;
}

#[tokio::test]
async fn in_the_middle_of_a_stream() {
    check_reaches_the_pod(Act::StallMidway, true).await;
}

#[tokio::test]
async fn in_the_middle_of_a_whole_answer() {
    check_reaches_the_pod(Act::StallMidway, false).await;
}

/// On real pods: long answers fill every slot, more wait; all are dropped, and the engines stop.
async fn check_engines_stop(protocol: &str) {
    if !has_ort() {
        return;
    }
    let dev = Dev::start(&[]);
    let pods = [0, 1].map(|at| dev.pod_listen(at).parse().unwrap());
    let edge = Edge::start(&pods, |edge| edge["upstream"] = json!({"protocol": protocol}));
    let asks: Vec<_> = (0..24)
        .map(|_| {
            let edge = edge.address.clone();
            let body = json!({
                "model": "nearhop-mini", "prompt": format!("# {}\n", unique()), "max_tokens": 900,
                "temperature": 1.5, "stream": true,
            });
            tokio::spawn(async move {
                let mut answer = send(&edge, request("/v1/completions", &body, &[])).await.unwrap();
                while let Ok(Some(_)) = answer.piece().await {}
            })
        })
        .collect();
    let sum = |name: &'static str| {
        let admins = [dev.pod_admin(0), dev.pod_admin(1)];
        async move { metric(&admins[0], name).await + metric(&admins[1], name).await }
    };
    eventually("all slots are taken and some wait", LIMIT, || async {
        let running = sum("vllm:num_requests_running").await;
        let waiting = sum("vllm:num_requests_waiting").await;
        (running >= 8.0 && waiting >= 1.0).then_some(())
    })
    .await;
    asks.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("nothing runs and nothing waits", LIMIT, || async {
        let left = sum("vllm:num_requests_running").await + sum("vllm:num_requests_waiting").await;
        (left == 0.0).then_some(())
    })
    .await;
    assert!(sum("nearhop_sequences_cancelled_total").await >= 1.0);
}

#[tokio::test]
async fn real_engines_stop_queued_and_running_sequences() {
    check_engines_stop("http1").await;
}

#[tokio::test]
async fn real_engines_stop_over_http2_too() {
    check_engines_stop("h2").await;
}
