//! What takes long. `make test` runs a little of it; `make soak` sets `NEARHOP_SOAK=1` and goes on.
//! Correctness is asserted, times are printed.
//!
//! The kill test: clients keep asking while a pod is stopped, continued, killed and restarted. The
//! mixed load: half an hour of everything that a pod is asked, in which it must not grow.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    client::{Broken, get, request, send},
    eventually, now,
    process::{Dev, Origin, alive, has_models, has_ort, metric, root, say, signal, soaking},
    unique,
};

const CLIENTS: usize = 8;
const LIMIT: Duration = Duration::from_secs(60);

struct Request {
    began: Instant,
    took: Duration,
    /// What went wrong, and whether anything had arrived before.
    failure: Option<(String, bool)>,
}

/// Asks until `stop`; remembers every request.
async fn client(edge: String, at: usize, stop: Arc<AtomicBool>, done: Arc<Mutex<Vec<Request>>>) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let body = json!({
            "model": "nearhop-mini", "prompt": format!("def f_{}(", unique()), "suffix": "\n",
            "max_tokens": 16, "stream": (n + at).is_multiple_of(2),
        });
        let began = now();
        let failure = ask(&edge, &body).await.err();
        done.lock().unwrap().push(Request { began, took: now() - began, failure });
    }
}

async fn ask(edge: &str, body: &serde_json::Value) -> Result<(), (String, bool)> {
    let headers = [("cache-control", "no-store")];
    let answer = send(edge, request("/v1/completions", body, &headers)).await;
    let answer = answer.map_err(|Broken| ("no answer".to_owned(), false))?;
    let (status, source) = (answer.status, answer.headers.get("x-nearhop-source").cloned());
    let whole = answer.whole().await.map_err(|Broken| ("broke off".to_owned(), true))?;
    let text = String::from_utf8_lossy(&whole.body);
    if status != 200 || source.is_none_or(|source| source != "origin") {
        return Err((format!("{status}: {text}"), false));
    }
    if body["stream"] == true && !text.ends_with("data: [DONE]\n\n") {
        return Err((text.into_owned(), true));
    }
    Ok(())
}

async fn until_ready(dev: &Dev, ready: bool) -> Duration {
    let began = now();
    eventually("the pod's state changes", LIMIT, || async {
        (dev.pod_ready(0).await == ready).then_some(())
    })
    .await;
    now() - began
}

/// How long the edge took to leave a killed pod; nothing where it was back before anybody missed it,
/// as one may be that is asked little.
async fn until_missed(dev: &Dev) -> Option<Duration> {
    let (began, listen) = (now(), dev.pod_listen(0));
    eventually("the killed pod is missed, or back", LIMIT, || async {
        if !dev.pod_ready(0).await {
            return Some(Some(now() - began));
        }
        let answers = async || get(&listen, "/readyz", &[]).await.is_ok_and(|it| it.status == 200);
        (!alive(dev.pod_pid(0)) && answers().await).then_some(None)
    })
    .await
}

async fn until_answered(done: &Mutex<Vec<Request>>, more: usize) {
    let before = done.lock().unwrap().len();
    eventually("clients go on", LIMIT, || async {
        (done.lock().unwrap().len() >= before + more).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn soak_killing_a_pod_is_not_noticed() {
    if !has_ort() {
        return;
    }
    let rounds = if soaking() { 20 } else { 1 };
    let (mut stop_detected, mut stop_back) = (Vec::new(), Vec::new());
    let (mut kill_detected, mut kill_back) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let dev = Dev::start(&["--restart"]);
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|at| tokio::spawn(client(dev.edge(), at, Arc::clone(&stop), Arc::clone(&done))))
            .collect();
        until_answered(&done, 40).await;
        let stopped = now();
        signal(dev.pod_pid(0), "STOP");
        let detected = until_ready(&dev, false).await;
        until_answered(&done, 20).await;
        signal(dev.pod_pid(0), "CONT");
        stop_back.push(until_ready(&dev, true).await);
        until_answered(&done, 20).await;
        signal(dev.pod_pid(0), "KILL");
        kill_detected.extend(until_missed(&dev).await);
        kill_back.push(until_ready(&dev, true).await);
        until_answered(&done, 20).await;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        let done = done.lock().unwrap();
        report(&done, stopped, detected);
        stop_detected.push(detected);
        let failed: Vec<_> = done.iter().filter_map(|request| request.failure.as_ref()).collect();
        // A stream whose first byte had arrived when its pod was killed is told that it broke.
        let unexcused: Vec<_> = failed.iter().filter(|(_, begun)| !begun).collect();
        assert!(unexcused.is_empty(), "{unexcused:?}");
    }
    for (what, times) in [
        ("SIGSTOP detected", &mut stop_detected),
        ("back after SIGCONT", &mut stop_back),
        ("SIGKILL detected", &mut kill_detected),
        ("back after SIGKILL, restart included", &mut kill_back),
    ] {
        times.sort();
        eprintln!(
            "{what}: median {:?}, worst {:?} of {}",
            times.get(times.len() / 2),
            times.last(),
            times.len()
        );
    }
}

fn report(done: &[Request], stopped: Instant, detected: Duration) {
    let mut usual: Vec<Duration> = done
        .iter()
        .filter(|request| request.began + request.took < stopped)
        .map(|r| r.took)
        .collect();
    usual.sort();
    let worst = done.iter().map(|request| request.took).max().unwrap_or_default();
    let broken = done.iter().filter(|request| request.failure.is_some()).count();
    eprintln!(
        "{} requests, {broken} streams broken after their first byte; usual median {:?} p99 {:?}; worst {worst:?}; pod found stopped after {detected:?}",
        done.len(),
        usual.get(usual.len() / 2),
        usual.get(usual.len() * 99 / 100),
    );
}

/// One request of the mixed load, by its number: streamed and not, given up, several choices, long
/// and short, chats, embeddings, mistakes.
async fn mixed(address: &str, at: usize) {
    // So many different texts that every cache is full, and has seen all of them, after minutes.
    let text = at % 2003;
    let code =
        format!("def f_{text}(a, b):\n    x = a * {}\n", text * 7919 % 997).repeat(1 + at % 12);
    let (path, body) = match at % 8 {
        0 => (
            "/v1/embeddings",
            json!({"model": "embed", "input": [code, "short", text.to_string()]}),
        ),
        1 => (
            "/v1/completions",
            json!({"model": "tiny", "prompt": code, "n": 3, "temperature": 0.8}),
        ),
        2 => ("/v1/completions", json!({"model": "tiny", "prompt": "x", "temperature": 9})),
        3 => (
            "/v1/completions",
            json!({"model": "tiny", "prompt": code, "suffix": "end", "logprobs": 3}),
        ),
        4 => ("/v1/completions", json!({"model": "nobody", "prompt": code})),
        _ => ("/v1/completions", json!({"model": "tiny", "prompt": code, "stream": true})),
    };
    let tenant = format!("t{}", at % 5);
    let headers = [("x-nearhop-tenant", tenant.as_str())];
    let Ok(mut answer) = send(address, request(path, &body, &headers)).await else {
        panic!("{path} {body}: no answer");
    };
    let expected: &[u16] = match at % 8 {
        2 => &[400],
        4 => &[404],
        _ => &[200, 429, 503],
    };
    assert!(expected.contains(&answer.status.as_u16()), "{}: {path} {body}", answer.status);
    match at % 8 {
        // Given up after its first piece.
        5 => drop(answer.piece().await),
        _ => drop(answer.whole().await.map_err(|Broken| panic!("{path} {body} broke off"))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn soak_a_pod_under_mixed_load_does_not_grow() {
    if !has_models() {
        return;
    }
    let pod = Origin::with(|origin| {
        origin["models"][0]["aliases"] = json!(["default"]);
        let embedder =
            json!({"folder": root().join(".models/all-minilm-l6-v2"), "aliases": ["embed"]});
        origin["models"].as_array_mut().unwrap().push(embedder);
        // Full within the first minutes, so that what grows after them is a leak.
        origin["prefix_cache"] = json!("8MiB");
    });
    let (warm, whole) = match soaking() {
        true => (Duration::from_secs(300), Duration::from_secs(1800)),
        false => (Duration::ZERO, Duration::ZERO),
    };
    let (began, next) = (now(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, next) = (pod.address.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    // A number of requests, and in a soak a time.
                    if at >= 200 && now() - began >= whole {
                        return;
                    }
                    mixed(&address, at).await;
                }
            })
        })
        .collect();
    let (mut first, mut last) = (0, Vec::new());
    while clients.iter().any(|client| !client.is_finished()) {
        tokio::time::sleep(Duration::from_millis(if soaking() { 5000 } else { 50 })).await;
        last.push(pod.memory());
        if soaking() && last.len().is_multiple_of(60) {
            let (asked, held) = (next.load(Ordering::Relaxed), last.last().unwrap_or(&0));
            say(&format!("after {:?}: {asked} requests, {held} KiB", now() - began));
        }
        if now() - began >= warm && first == 0 {
            // What comes and goes from moment to moment is no growth.
            first = *last.iter().rev().take(12).max().unwrap();
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    for gauge in
        ["vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"]
    {
        eventually("nothing is held", LIMIT, || async {
            (metric(&pod.admin, gauge).await == 0.0).then_some(())
        })
        .await;
    }
    let end = *last.iter().rev().take(12).max().unwrap();
    let requests = next.load(Ordering::Relaxed);
    say(&format!("{requests} mixed requests: {first} KiB at first, {end} KiB at the end"));
    if soaking() {
        assert!(end * 100 <= first * 102, "it grew from {first} to {end} KiB");
    }
}
