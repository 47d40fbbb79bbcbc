//! A disk without space under an edge: everybody is served, and what was used is written down when
//! there is space again.

use std::net::SocketAddr;

use nearhop_emulator::{Disk, Error};
use serde_json::json;

use crate::support::{
    client::{LIMIT, post},
    eventually,
    fake_pod::{Act, FakePod},
    process::{Edge, say, signal},
    unique,
};

/// A disk of a megabyte at a place of its own; `None`, aloud, where this user may not mount.
fn disk(folder: &tempfile::TempDir) -> Option<Disk> {
    match Disk::mount(&folder.path().join("disk"), 1 << 20) {
        Ok(disk) => Some(disk),
        Err(error @ Error::Missing(_)) => {
            let required = nearhop_conf::source::process_env("NEARHOP_REQUIRE_CLIENTS").is_some();
            assert!(!required, "{error}");
            say(&format!("SKIPPED: no disk can be had here, full ones were NOT tested: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn edge(pod: SocketAddr, disk: &Disk) -> Edge {
    let file = disk.path().join("usage.db");
    Edge::with(&[pod], |config, _| config["access"]["usage_file"] = json!(file))
}

async fn serve(edge: &Edge) {
    let body = json!({"model": "fake", "prompt": unique()});
    let answer = post(&edge.address, "/v1/completions", &body, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-nearhop-source")), (200, "origin"));
}

/// Waits until usage is, or is not, written down, and is over so many tokens; those of the month.
async fn tokens(edge: &Edge, written: bool, over: u64) -> u64 {
    eventually(&format!("written: {written}, over {over}"), LIMIT, || async {
        let usage = edge.admin("/usage").await;
        let tokens = usage["month"]["dev"]["tokens"].as_u64()?;
        (usage["written"] == written && tokens > over).then_some(tokens)
    })
    .await
}

#[tokio::test]
async fn an_edge_serves_on_a_full_disk_even_from_its_start_and_writes_later() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = disk(&folder) else { return };
    let pod = FakePod::start(Act::Answer("return a + b"));

    // Nothing is there yet, and nothing can be made.
    disk.fill().unwrap();
    let mut first = edge(pod.address, &disk);
    serve(&first).await;
    let used = tokens(&first, false, 0).await;
    disk.clear().unwrap();
    assert_eq!(tokens(&first, true, 0).await, used);

    // It fills up while an edge runs, and is full when the next one starts.
    disk.fill().unwrap();
    serve(&first).await;
    let used = tokens(&first, false, used).await;
    disk.clear().unwrap();
    assert_eq!(tokens(&first, true, 0).await, used, "nothing is lost");
    signal(first.pid(), "TERM");
    first.wait();
    disk.fill().unwrap();
    let second = edge(pod.address, &disk);
    serve(&second).await;
    let fresh = tokens(&second, false, 0).await;
    disk.clear().unwrap();
    assert_eq!(tokens(&second, true, fresh).await, used + fresh);
}
