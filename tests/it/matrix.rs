//! The failure matrix: pods that fail in every way, while requests go on. Nothing may fail of which
//! nothing was sent; how long it took to find out, and to come back, is printed beside the bound.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    client::{complete, post},
    eventually,
    fake_pod::{Act, FakePod},
    now,
    process::{Edge, say},
    unique,
};

/// A pod that hangs and was slow once is left alone for some twenty seconds before it is tried again.
const LIMIT: Duration = Duration::from_secs(180);

/// A way to fail, and whether it takes the pod out of service.
struct Row {
    name: &'static str,
    act: Act,
    /// Whether its checks fail as well.
    checks: bool,
    out: bool,
}

fn row(name: &'static str, act: Act, checks: bool, out: bool) -> Row {
    Row { name, act, checks, out }
}

#[derive(Default)]
struct Seen {
    asked: AtomicUsize,
    failed: AtomicUsize,
}

/// Asks until `stop`, streaming or not; a failure is anything but the right text from a pod.
async fn ask(edge: String, stop: Arc<AtomicBool>, seen: Arc<Seen>, stream: bool) {
    while !stop.load(Ordering::Relaxed) {
        let body = json!({"model": "fake", "prompt": unique(), "stream": stream});
        let answer = complete(&edge, &body).await;
        let text = match (answer.status, stream) {
            (StatusCode::OK, true) => answer.streamed().0,
            (StatusCode::OK, false) => answer.text(),
            _ => String::new(),
        };
        let good = text == "fine" && answer.header("x-nearhop-source") == "origin";
        seen.asked.fetch_add(1, Ordering::Relaxed);
        if !good {
            seen.failed.fetch_add(1, Ordering::Relaxed);
            say(&format!("failed: {} {text:?} {:?}", answer.status, answer.headers));
        }
    }
}

async fn check(row: Row) -> String {
    let pods = [(); 3].map(|()| FakePod::start(Act::Answer("fine")));
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let edge = Edge::start(&addresses, |edge| {
        // Half of it is waited for before another pod is asked.
        edge["deadlines"] = json!({"inline": "4s"});
        // A second attempt beside a late one hides who is late: nobody would have to be taken out.
        edge["hedge"] = json!({"enabled": false});
    });
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
    let asking: Vec<_> = (0..4)
        .map(|at| {
            let (edge, stop, seen) = (edge.address.clone(), Arc::clone(&stop), Arc::clone(&seen));
            tokio::spawn(ask(edge, stop, seen, at % 2 == 0))
        })
        .collect();
    let count = || seen.asked.load(Ordering::Relaxed);
    let edge = &edge;
    let some = async |more: usize| {
        let before = count();
        eventually("requests go on", LIMIT, || async { (count() >= before + more).then_some(()) })
            .await;
    };
    some(60).await;
    let began = now();
    let pod = &pods[1];
    pod.fail_probes(row.checks);
    pod.act(row.act.clone());
    let name = pod.address.to_string();
    let standing = async || -> Value {
        let all = edge.pods().await;
        all.as_array().unwrap().iter().find(|one| one["address"] == name.as_str()).unwrap().clone()
    };
    let met = pod.seen().len();
    let detected = match row.out {
        true => {
            eventually(row.name, LIMIT, || async {
                (standing().await["ready"] == false).then(|| now() - began)
            })
            .await
        }
        false => {
            eventually(row.name, LIMIT, || async { (pod.seen().len() > met + 2).then_some(()) })
                .await;
            Duration::ZERO
        }
    };
    some(60).await;
    let back = now();
    pod.fail_probes(false);
    pod.act(Act::Answer("fine"));
    let answered = pod.seen().len();
    let recovered = eventually("it answers again", LIMIT, || async {
        let ready = standing().await["standing"] == "ready";
        (ready && pod.seen().len() > answered).then(|| now() - back)
    })
    .await;
    some(20).await;
    stop.store(true, Ordering::Relaxed);
    for asker in asking {
        asker.await.unwrap();
    }
    assert_eq!(seen.failed.load(Ordering::Relaxed), 0, "{}: of {}", row.name, count());
    let found = if row.out { format!("{:.2} s", detected.as_secs_f64()) } else { "–".to_owned() };
    format!("| {} | {found} | {:.2} s | 0 of {} |", row.name, recovered.as_secs_f64(), count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fails_in_any_way_fails_no_request() {
    let rows = [
        row("closes connections", Act::Close, false, true),
        row("hangs, checks too", Act::Hang, true, true),
        row("hangs, checks pass", Act::Hang, false, true),
        row("drips its head", Act::Drip(Duration::from_millis(200)), false, true),
        row("500", Act::Status(500, "engine_failed"), false, true),
        row("503 without a word", Act::Status(503, "stopping"), false, true),
        row("429", Act::Status(429, "queue_full"), false, false),
        row("401", Act::Status(401, "no"), false, true),
        row("404", Act::Status(404, "model_not_found"), false, true),
        row("garbage", Act::Garbage, false, true),
        row("an endless event", Act::Endless, false, true),
        row("an error event", Act::ErrorEvent, false, true),
        row("fails its checks only", Act::Answer("fine"), true, true),
    ];
    let mut table = vec!["| a pod | taken out after | back after | failed |".to_owned()];
    // Two at a time: each has an edge and three pods of its own.
    let mut rows = rows.into_iter();
    while let Some(first) = rows.next() {
        match rows.next() {
            Some(second) => {
                let (first, second) = tokio::join!(check(first), check(second));
                table.extend([first, second]);
            }
            None => table.push(check(first).await),
        }
    }
    say(&table.join("\n"));
}

/// All pods fail at load: what is tried again never becomes the load that breaks the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_failures_is_no_storm_of_retries() {
    let pods = [(); 3].map(|()| FakePod::start(Act::Status(500, "engine_failed")));
    let addresses: Vec<_> = pods.iter().map(|pod| pod.address).collect();
    let began = now();
    // The breaker is kept from helping: it is the budget that is looked at.
    let edge = Edge::start(&addresses, |edge| edge["breaker"] = json!({"failures": 1000}));
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let (edge, stop, asked) =
                (edge.address.clone(), Arc::clone(&stop), Arc::clone(&asked));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let body = json!({"model": "fake", "messages": [{"role": "user", "content": unique()}]});
                    let answer = post(&edge, "/v1/chat/completions", &body, &[]).await;
                    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
                    assert!(!answer.header("retry-after").is_empty());
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    eventually("many were asked", LIMIT, || async {
        (asked.load(Ordering::Relaxed) >= 1500).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for asker in asking {
        asker.await.unwrap();
    }
    let (requests, seconds) = (asked.load(Ordering::Relaxed), (now() - began).as_secs_f64());
    let attempts: usize = pods.iter().map(|pod| pod.seen().len()).sum();
    #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
    let most = 1.2 * requests as f64 + 10.0 * (seconds + 1.0);
    say(&format!(
        "all pods fail: {attempts} attempts for {requests} requests in {seconds:.1} s, at most {most:.0}"
    ));
    #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
    let attempts = attempts as f64;
    assert!(attempts <= most, "{attempts} of {most}");
    assert!(edge.metric("nearhop_retries_denied_total").await > 0.0);
}
