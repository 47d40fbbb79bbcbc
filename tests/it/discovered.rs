//! Pods that come and go while the edge runs: a file that is watched.

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    client::{complete, send},
    eventually,
    fake_pod::{Act, FakePod},
    process::Edge,
    unique,
};

const LIMIT: Duration = Duration::from_secs(60);

fn body(stream: bool) -> Value {
    json!({"model": "fake", "prompt": unique(), "stream": stream})
}

/// Replaces the file in one step, as a careful tool would.
fn write(folder: &Path, pods: &[(&str, SocketAddr)]) {
    let pods: Vec<Value> =
        pods.iter().map(|(name, address)| json!({"name": name, "address": address})).collect();
    std::fs::write(folder.join("new"), json!(pods).to_string()).unwrap();
    std::fs::rename(folder.join("new"), folder.join("pods.json")).unwrap();
}

async fn names(edge: &Edge) -> Vec<String> {
    let pods = edge.pods().await;
    let mut names: Vec<String> = pods
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn pods_of_a_watched_file_come_and_go_and_what_runs_on_them_ends_by_itself() {
    let [first, second] = [FakePod::start(Act::Answer("one")), FakePod::start(Act::Answer("two"))];
    let edge = Edge::with(&[], |config, folder| {
        write(folder, &[("a", first.address)]);
        config["edge"]["pods_from"] = json!([{"file": folder.join("pods.json")}]);
    });
    assert_eq!(complete(&edge.address, &body(false)).await.text(), "one");
    // A stream that begins now is still under way when its pod is gone from the file.
    first.act(Act::StallMidway);
    let request = crate::support::client::request("/v1/completions", &body(true), &[]);
    let mut stream = send(&edge.address, request).await.unwrap();
    stream.until("half").await.unwrap();
    write(edge.folder(), &[("b", second.address)]);
    eventually("the new pod answers alone", LIMIT, || async {
        (names(&edge).await == ["b"]).then_some(())
    })
    .await;
    eventually("its first check", LIMIT, || async {
        (edge.pods().await[0]["ready"] == true).then_some(())
    })
    .await;
    for _ in 0..8 {
        assert_eq!(complete(&edge.address, &body(false)).await.text(), "two");
    }
    assert_eq!(*first.cancelled().borrow(), 0, "what runs on it is left alone");
    drop(stream);
    // Both at once, and a file that is none keeps them.
    write(edge.folder(), &[("a", first.address), ("b", second.address)]);
    eventually("both", LIMIT, || async { (names(&edge).await == ["a", "b"]).then_some(()) }).await;
    std::fs::write(edge.folder().join("pods.json"), "[{name: a").unwrap();
    eventually("it is told of", LIMIT, || async { edge.log().contains("pods.json").then_some(()) })
        .await;
    assert_eq!(names(&edge).await, ["a", "b"]);
    let events = edge.admin("/events").await;
    let kinds: Vec<&str> =
        events.as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"upstream_found") && kinds.contains(&"upstream_gone"), "{kinds:?}");
}
