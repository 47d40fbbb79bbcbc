//! The edge changes while it runs: its configuration, its keys, and the process itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use crate::support::{
    client::{complete, get, post, request},
    eventually,
    fake_pod::{Act, FakePod},
    keep_alive::KeepAlive,
    now,
    process::{Edge, alive, key, say, signal, soaking},
    unique,
};

const LIMIT: Duration = Duration::from_secs(30);

fn body() -> Value {
    json!({"model": "fake", "prompt": unique()})
}

async fn generation(edge: &Edge) -> u64 {
    edge.admin("/config").await["generation"].as_u64().unwrap()
}

#[tokio::test]
async fn a_changed_limit_is_taken_and_told_and_what_needs_a_new_process_is_named() {
    let pod = FakePod::start(Act::Answer("ok"));
    let mut edge = Edge::start(&[pod.address], |_| {});
    assert_eq!(complete(&edge.address, &body()).await.status, StatusCode::OK);
    edge.configure(|config| {
        config["edge"]["limits"] = json!({"body": "1KiB", "prompt": "1KiB"});
        config["edge"]["threads"] = json!(2);
    });
    eventually("the change is taken", LIMIT, || async {
        (generation(&edge).await == 2).then_some(())
    })
    .await;
    let large = json!({"model": "fake", "prompt": "x".repeat(2000)});
    assert_eq!(complete(&edge.address, &large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let told = edge.admin("/config").await;
    assert_eq!(told["needs_new_process"], json!(["edge.threads"]));
    let log = edge.log();
    assert!(log.contains("edge.limits.body: (none) → 1KiB"), "{log}");
    assert!(log.contains("edge.threads"), "{log}");
}

#[tokio::test]
async fn a_bad_file_keeps_the_old_one_and_says_why() {
    let pod = FakePod::start(Act::Answer("ok"));
    let mut edge = Edge::start(&[pod.address], |_| {});
    for bad in ["edge: {listen: nowhere}", "{", "region: x"] {
        edge.write(bad);
        signal(edge.pid(), "HUP");
        eventually("the mistake is told", LIMIT, || async {
            edge.admin("/config").await["refused"].as_str().map(str::to_owned)
        })
        .await;
        assert_eq!(complete(&edge.address, &body()).await.status, StatusCode::OK);
        edge.configure(|_| {});
        eventually("the good file is back", LIMIT, || async {
            edge.admin("/config").await["refused"].is_null().then_some(())
        })
        .await;
    }
    assert!(edge.metric("nearhop_config_reloads_total{result=\"refused\"}").await >= 3.0);
    assert!(edge.log().contains("edge.listen"), "{}", edge.log());
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_a_second_also_from_the_file_beside() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::with(&[pod.address], |config, folder| {
        let file = folder.join("access.yaml");
        std::fs::write(&file, json!({"keys": [key("eve", "dev", "nh-eve")]}).to_string()).unwrap();
        config["access"]["file"] = json!(file);
    });
    let ask = || async {
        let headers = [("authorization", "Bearer nh-eve")];
        get(&edge.address, "/v1/models", &headers).await.unwrap().status
    };
    assert_eq!(ask().await, StatusCode::OK);
    let new = edge.folder().join("access.new");
    std::fs::write(&new, "keys: []").unwrap();
    std::fs::rename(new, edge.folder().join("access.yaml")).unwrap();
    let revoked = now();
    eventually("the key is refused", LIMIT, || async {
        (ask().await == StatusCode::UNAUTHORIZED).then_some(())
    })
    .await;
    say(&format!("a revoked key was refused after {:?}", now() - revoked));
    assert_eq!(complete(&edge.address, &body()).await.status, StatusCode::OK, "others go on");
}

#[tokio::test]
async fn log_levels_change_while_it_runs() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let asked = |id: &'static str| {
        let address = edge.address.clone();
        async move { post(&address, "/v1/completions", &body(), &[("x-request-id", id)]).await }
    };
    asked("before").await;
    eventually("the line is written", LIMIT, || async {
        edge.log().contains("before").then_some(())
    })
    .await;
    assert_eq!(edge.put("/log-level", "error").await.status, StatusCode::NO_CONTENT);
    asked("quiet").await;
    // A client has its answer before its line is due.
    let done = "nearhop_requests_total{kind=\"inline\",source=\"origin\",status=\"200\"}";
    eventually("it is counted", LIMIT, || async { (edge.metric(done).await >= 2.0).then_some(()) })
        .await;
    assert_eq!(edge.put("/log-level", "no=such=level").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(edge.put("/log-level", "info").await.status, StatusCode::NO_CONTENT);
    asked("after").await;
    eventually("lines are written again", LIMIT, || async {
        edge.log().contains("after").then_some(())
    })
    .await;
    assert!(!edge.log().contains("quiet"), "{}", edge.log());
}

/// Clients with one connection each that ask until told to stop.
struct Load {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    failures: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Load {
    fn start(address: &str, clients: usize) -> Self {
        let mut load = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            answered: Arc::default(),
            failures: Arc::default(),
        };
        for at in 0..clients {
            let (address, stop) = (address.to_owned(), Arc::clone(&load.stop));
            let (answered, failures) = (Arc::clone(&load.answered), Arc::clone(&load.failures));
            load.tasks.spawn(async move {
                let mut client = KeepAlive::new(&address);
                while !stop.load(Ordering::Relaxed) {
                    // Some streamed, so that an answer spans a change.
                    let streamed = at % 2 == 0;
                    let body = json!({"model": "fake", "prompt": unique(), "stream": streamed});
                    match client.complete(&body).await {
                        Ok(answer)
                            if answer.status == StatusCode::OK
                                && (!streamed
                                    || answer.streamed() == ("hello".to_owned(), true)) =>
                        {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        wrong => failures.lock().unwrap().push(format!("{wrong:?}")),
                    }
                }
            });
        }
        load
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    async fn go_on(&self, more: usize) {
        let goal = self.answered() + more;
        eventually("requests are answered", LIMIT, || async {
            (self.answered() >= goal).then_some(())
        })
        .await;
    }

    async fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        timeout(LIMIT, async { while self.tasks.join_next().await.is_some() {} }).await.unwrap();
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} failed: {:?}", failures.len(), failures.first());
        self.answered()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_fail_no_request() {
    let rounds = if soaking() { 100 } else { 10 };
    let pod = FakePod::start(Act::Slow("hello"));
    let mut edge = Edge::start(&[pod.address], |_| {});
    let load = Load::start(&edge.address, 8);
    for round in 0..rounds {
        edge.configure(|config| {
            config["edge"]["limits"] = json!({"requests": 1000 + round});
            let other = key("other", "dev", &format!("nh-{round}"));
            config["access"]["keys"] = json!([key("dev", "dev", "nh-dev"), other]);
        });
        eventually("the change is taken", LIMIT, || async {
            (generation(&edge).await >= round + 2).then_some(())
        })
        .await;
        load.go_on(8).await;
    }
    let answered = load.finish().await;
    say(&format!("{rounds} reloads under load: {answered} requests, 0 failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_overs_under_load_fail_no_request() {
    let rounds = if soaking() { 10 } else { 2 };
    let pod = FakePod::start(Act::Slow("hello"));
    let mut edge = Edge::start(&[pod.address], |_| {});
    let load = Load::start(&edge.address, 8);
    let mut pid = edge.pid();
    for _ in 0..rounds {
        load.go_on(16).await;
        signal(pid, "USR2");
        let ready = edge.next_ready();
        let successor = ready["pid"].as_u64().unwrap();
        assert_ne!(successor, pid);
        assert_eq!(ready["listen"].as_str().unwrap(), edge.address, "the same socket");
        eventually("the old process is gone", LIMIT, || async { (!alive(pid)).then_some(()) })
            .await;
        pid = successor;
    }
    load.go_on(16).await;
    let answered = load.finish().await;
    say(&format!("{rounds} hand-overs under load: {answered} requests, 0 failed"));
    // The last of them is nobody's child of ours.
    signal(pid, "TERM");
    eventually("the last process is gone", LIMIT, || async { (!alive(pid)).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_has_what_the_old_one_had_cached() {
    let pod = FakePod::start(Act::Answer("return sum(values)"));
    let mut edge = Edge::start(&[pod.address], |_| {});
    let body = |n: usize, line: &str| {
        let prompt = format!("def mean_{n}(values):\n    {line}");
        json!({"model": "fake", "prompt": prompt, "suffix": "\n"})
    };
    for n in 0..200 {
        complete(&edge.address, &body(n, "")).await;
    }
    let purged = edge.order("/cache/purge", &json!({"model": "fake@0"})).await;
    assert_eq!(purged.status, StatusCode::OK);
    signal(edge.pid(), "USR2");
    let successor = edge.next_ready()["pid"].as_u64().unwrap();
    eventually("the old process is gone", LIMIT, || async { (!alive(edge.pid())).then_some(()) })
        .await;
    for n in 0..200 {
        let answer = complete(&edge.address, &body(n, "return")).await;
        let told = (answer.header("x-nearhop-source"), answer.text());
        assert_eq!(told, ("l1-typeahead", " sum(values)".to_owned()), "{n}");
    }
    assert_eq!(pod.seen().len(), 200);
    signal(successor, "TERM");
    eventually("it is gone", LIMIT, || async { (!alive(successor)).then_some(()) }).await;
}

/// RFC 9113, section 6.8.
#[tokio::test]
async fn over_http2_a_stopping_edge_says_goaway_and_finishes_what_runs() {
    let pod = FakePod::start(Act::Slow("hello"));
    let mut edge = Edge::start(&[pod.address], |_| {});
    let stream = tokio::net::TcpStream::connect(&edge.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let streamed = json!({"model": "fake", "prompt": unique(), "stream": true});
    let (mut parts, body) = request("/v1/completions", &streamed, &[]).into_parts();
    parts.headers.remove("host");
    parts.uri = "http://nearhop/v1/completions".parse().unwrap();
    let request = http::Request::from_parts(parts, http_body_util::Full::new(body));
    let answer = tokio::spawn(sender.send_request(request));
    eventually("it runs", LIMIT, || async { (!pod.seen().is_empty()).then_some(()) }).await;
    signal(edge.pid(), "TERM");
    let body = answer.await.unwrap().unwrap().into_body();
    let whole = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    assert!(whole.ends_with(b"data: [DONE]\n\n"), "{whole:?}");
    // Ended by the edge, and in order.
    timeout(LIMIT, connection).await.unwrap().unwrap().unwrap();
    assert!(edge.wait().success());
}

#[tokio::test]
async fn a_successor_that_cannot_serve_leaves_the_old_process_alone() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    edge.write("edge: {listen: nowhere}");
    signal(edge.pid(), "USR2");
    eventually("it is told", LIMIT, || async {
        edge.log().contains("the new process does not serve").then_some(())
    })
    .await;
    assert_eq!(complete(&edge.address, &body()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_service_manager_is_told() {
    let pod = FakePod::start(Act::Answer("ok"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let told = || {
        let mut word = [0; 256];
        let length = socket.recv(&mut word).unwrap();
        String::from_utf8_lossy(&word[..length]).trim().to_owned()
    };
    let edge = Edge::notifying(&[pod.address], &path);
    assert_eq!(told(), "READY=1");
    signal(edge.pid(), "TERM");
    assert_eq!(told(), "STOPPING=1");
}

#[tokio::test]
async fn a_stopping_edge_tells_clients_and_finishes_what_runs() {
    let pod = FakePod::start(Act::Answer("hello"));
    let mut edge = Edge::start(&[pod.address], |_| {});
    let mut idle = KeepAlive::new(&edge.address);
    assert_eq!(idle.complete(&body()).await.unwrap().status, StatusCode::OK);
    pod.act(Act::StallThen("hello"));
    let streamed = json!({"model": "fake", "prompt": unique(), "stream": true});
    let (address, pid) = (edge.address.clone(), edge.pid());
    let running = tokio::spawn(async move { complete(&address, &streamed).await });
    eventually("it runs", LIMIT, || async { (pod.seen().len() == 2).then_some(()) }).await;
    signal(pid, "TERM");
    eventually("it is not ready", LIMIT, || async {
        let ready = get(&edge.admin, "/readyz", &[]).await;
        ready.map_or(true, |ready| ready.status == StatusCode::SERVICE_UNAVAILABLE).then_some(())
    })
    .await;
    pod.hang_up();
    assert_eq!(running.await.unwrap().streamed(), ("hello".to_owned(), true));
    // A connection that lay idle gets one more answer, and is told that it was the last.
    if let Ok(last) = idle.complete(&body()).await {
        assert_eq!(last.header("connection"), "close");
    }
    assert!(edge.wait().success());
}
