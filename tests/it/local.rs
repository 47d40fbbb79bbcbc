//! The edge's own pod: a process beside it, with its own limits, that dies with it.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    client::{LIMIT, get, post},
    eventually,
    fake_pod::{Act, FakePod},
    process::{Edge, alive, has_models, metric, root, signal},
};

/// An edge with a pod of its own that has a model for each of two roles.
fn start(change: impl FnOnce(&mut Value)) -> (FakePod, Edge) {
    let pod = FakePod::start(Act::Answer("fine"));
    let edge = Edge::with(&[pod.address], |config, _: &Path| {
        config["origin"] = json!({
            "listen": "127.0.0.1:1",
            "admin": {"listen": "127.0.0.1:2"},
            "models": [
                {"folder": root().join("origin-inference/tests/fixtures/tiny"), "aliases": ["small"]},
                {"folder": root().join(".models/all-minilm-l6-v2"), "aliases": ["embed"]},
                {"folder": "/nowhere", "aliases": ["large"]},
            ],
        });
        config["edge"]["local"] = json!({"roles": ["small", "embed"], "threads": 1});
        change(&mut config["edge"]["local"]);
    });
    (pod, edge)
}

async fn ready(edge: &Edge) -> Value {
    eventually("its own pod is ready", LIMIT, || async {
        let local = edge.admin("/local").await;
        (local["ready"] == true).then_some(local)
    })
    .await
}

#[tokio::test]
async fn it_serves_its_roles_and_comes_back_when_it_is_killed() {
    if !has_models() {
        return;
    }
    let (_pod, edge) = start(|_| {});
    let local = ready(&edge).await;
    let listen = local["listen"].as_str().unwrap();
    assert!(listen.starts_with("127.0.0.1:") && listen != "127.0.0.1:1", "{local}");
    let ask = json!({"model": "small", "prompt": "fn ", "max_tokens": 4});
    let answer = post(listen, "/v1/completions", &ask, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ask = json!({"model": "embed", "input": ["one", "two"]});
    let answer = post(listen, "/v1/embeddings", &ask, &[]).await.json();
    assert_eq!(answer["data"][1]["embedding"].as_array().unwrap().len(), 384);
    let models = get(listen, "/v1/models", &[]).await.unwrap().json();
    assert_eq!(models["data"].as_array().unwrap().len(), 2, "no other role is loaded");
    let admin = local["admin"].as_str().unwrap();
    assert_eq!(metric(admin, "nearhop_model_loaded").await, 2.0, "one of each");
    assert!(edge.metric("nearhop_local_pod_memory_bytes").await >= 0.0);
    let pid = local["pid"].as_u64().unwrap();
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(),
        "500"
    );

    signal(pid, "KILL");
    let again = eventually("it is started again", LIMIT, || async {
        let local = edge.admin("/local").await;
        (local["ready"] == true && local["pid"] != pid).then_some(local)
    })
    .await;
    assert_eq!((&again["starts"], &again["last_end"]), (&json!(2), &json!("its process ended")));
    assert_eq!(edge.metric("nearhop_local_pod_ends_total{reason=\"exit\"}").await, 1.0);

    let pid = again["pid"].as_u64().unwrap();
    signal(edge.pid(), "KILL");
    eventually("it dies with the edge", LIMIT, || async { (!alive(pid)).then_some(()) }).await;
}

#[tokio::test]
async fn over_its_memory_it_is_started_again() {
    if !has_models() {
        return;
    }
    let (_pod, edge) = start(|local| local["memory"] = json!("16MiB"));
    let local = eventually("it is ended", LIMIT, || async {
        let local = edge.admin("/local").await;
        local["last_end"].is_string().then_some(local)
    })
    .await;
    let said = local["last_end"].as_str().unwrap();
    assert!(said.contains("over edge.local.memory of 16 MiB"), "{said}");
    let ask = json!({"model": "fake", "prompt": "a", "max_tokens": 4});
    let headers = [("authorization", "Bearer nh-dev")];
    let answer = post(&edge.address, "/v1/completions", &ask, &headers).await;
    assert_eq!(answer.status, 200, "the edge goes on");
}

#[tokio::test]
async fn one_that_hangs_is_started_again() {
    if !has_models() {
        return;
    }
    let (_pod, edge) = start(|local| local["roles"] = json!(["small"]));
    let pid = ready(&edge).await["pid"].as_u64().unwrap();
    signal(pid, "STOP");
    let local = eventually("another is ready", LIMIT, || async {
        let local = edge.admin("/local").await;
        (local["ready"] == true && local["pid"] != pid).then_some(local)
    })
    .await;
    assert!(local["last_end"].as_str().unwrap().contains("did not say that it lives"), "{local}");
    assert!(!alive(pid));
}
