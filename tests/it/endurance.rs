//! An edge under everything at once, while its pods fail in all ways: it must not grow, hold nothing
//! when all is over, and write nobody's code or key into its log. Half an hour in `make soak`.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    client::{LIMIT, get},
    eventually,
    fake_pod::{Act, FakePod},
    now,
    process::{BINARY, Edge, metric, say, soaking},
};

/// What a pod does for a while. One of three is always well.
const FAILURES: [Act; 8] = [
    Act::Close,
    Act::Hang,
    Act::Status(500, "engine_failed"),
    Act::DieMidway,
    Act::Garbage,
    Act::Status(429, "queue_full"),
    Act::StallMidway,
    Act::ErrorEvent,
];
const WELL: Act = Act::Slow("return total / len(values)");
/// Gauges of what a request holds.
const HELD: [&str; 5] = [
    "nearhop_requests_in_progress",
    "nearhop_buffered_bytes",
    "completion_queue_depth",
    "nearhop_upstream_in_flight",
    "nearhop_connections",
];
/// What is looked at again and again.
const FLAT: [&str; 3] = ["process_resident_memory_bytes", "process_open_fds", "nearhop_tasks"];

/// The edge's figures at a moment.
async fn look(edge: &Edge) -> [f64; 3] {
    let mut seen = [0.0; 3];
    for (figure, name) in seen.iter_mut().zip(FLAT) {
        *figure = metric(&edge.admin, name).await;
    }
    seen
}

/// The highest of each: what comes and goes from moment to moment is no growth.
fn highest(looks: &[[f64; 3]]) -> [f64; 3] {
    looks.iter().fold([0.0; 3], |most, look| std::array::from_fn(|at| look[at].max(most[at])))
}

#[tokio::test]
async fn an_edge_under_mixed_load_with_failing_pods_does_not_grow_and_forgets_everything() {
    let (whole, warm, rate) = match soaking() {
        true => (Duration::from_secs(1800), Duration::from_secs(300), 60),
        false => (Duration::from_secs(12), Duration::from_secs(4), 30),
    };
    let pods = [(); 3].map(|()| FakePod::start(WELL));
    pods.iter().for_each(|pod| pod.set_slots(32));
    let addresses = pods.each_ref().map(|pod| pod.address);
    // Full within two minutes, so that what grows after five is a leak.
    let edge = Edge::start(&addresses, |edge| edge["l1"] = json!({"bytes": "2MiB"}));
    let folder = tempfile::tempdir().unwrap();
    let plan = json!({
        "scenarios": [{
            "name": "s", "duration": format!("{}s", whole.as_secs()),
            "profile": {"users": rate, "requests_per_user_per_hour": 3600, "timeout": "20s"},
        }],
        "target": {
            "model": "fake", "keys": [{"key": "nh-dev"}],
            "regions": [{"name": "here", "url": format!("http://{}", edge.address), "admin": edge.admin}],
        },
    });
    std::fs::write(folder.path().join("plan.yaml"), plan.to_string()).unwrap();
    let mut load = Command::new(BINARY)
        .args(["load", "run", "--quiet", "--out"])
        .arg(folder.path())
        .arg(folder.path().join("plan.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();

    let began = now();
    let (mut first, mut looks, mut round) = ([0.0; 3], Vec::new(), 0);
    while load.try_wait().unwrap().is_none() {
        let waited = now() - began;
        assert!(waited < whole + Duration::from_secs(150), "the load does not end");
        // All are well at the end, so that what is still held then is held for nothing.
        let calm = waited + whole / 6 > whole;
        for (at, pod) in pods.iter().enumerate() {
            let fails = !calm && round % 3 != 2 && at == round % 2;
            pod.act(if fails { FAILURES[round % FAILURES.len()].clone() } else { WELL });
        }
        round += 1;
        tokio::time::sleep(whole / 60).await;
        looks.push(look(&edge).await);
        if waited >= warm && first[0] == 0.0 {
            first = highest(&looks[looks.len().saturating_sub(6)..]);
        }
        if soaking() {
            say(&format!("after {:.0} s: {:?}", waited.as_secs_f32(), looks.last().unwrap()));
        }
    }
    for gauge in HELD {
        eventually(gauge, LIMIT, || async {
            (metric(&edge.admin, gauge).await == 0.0).then_some(())
        })
        .await;
    }
    let last = highest(&looks[looks.len().saturating_sub(6)..]);
    let report = std::fs::read_to_string(folder.path().join("s.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let outcomes = &report["all"]["outcomes"];
    say(&format!("{FLAT:?}: {first:?} at first, {last:?} at the end; {outcomes}"));
    check_forgotten(&edge, outcomes).await;
    if soaking() {
        let [memory, descriptors, tasks] = std::array::from_fn(|at| last[at] / first[at]);
        assert!(memory <= 1.02, "memory grew {memory:.3} times");
        assert!(descriptors <= 1.1 && tasks <= 1.1, "{descriptors} {tasks}");
    }
}

/// Nobody's code and nobody's key is written down anywhere but where it was asked for.
async fn check_forgotten(edge: &Edge, outcomes: &Value) {
    let answered = outcomes["answered"].as_u64().unwrap();
    assert!(answered > 100, "{outcomes}");
    for wrong in ["refused_4xx", "unreachable", "garbled", "not_sent", "failed_5xx"] {
        assert_eq!(outcomes[wrong], 0, "{outcomes}");
    }
    let log = edge.log();
    assert!(log.lines().count() > 100, "requests are logged");
    let metrics = get(&edge.admin, "/metrics", &[]).await.unwrap();
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    for secret in [
        "nh-dev",
        "from typing",
        "has_close_elements",
        "numbers: List",
        "return total",
        "You help with code",
    ] {
        assert!(!log.contains(secret) && !metrics.contains(secret), "{secret}");
    }
}
