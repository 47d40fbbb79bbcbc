//! Two edges that share a cache in a real Redis Cluster, and what happens when it fails.

use http::StatusCode;
use nearhop_admin::clock;
use nearhop_test_qdrant::Qdrant;
use nearhop_test_redis::{Options, PASSWORD, Redis, USER, start_or_skip};
use serde_json::{Value, json};

use crate::support::{
    client::{LIMIT, Whole, complete, post},
    eventually,
    fake_pod::{Act, FakePod},
    now,
    process::{Edge, has_models, key, say, soaking},
    semantic::{Rig, commits},
};

const SECRET: &str = "a-secret-of-all-edges-0123";
const PATH: &str = "/v1/completions";

/// One cluster at a time: six servers are enough for two cores.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The section of a cluster.
fn section(redis: &Redis) -> Value {
    let nodes: Vec<String> =
        redis.nodes().iter().take(2).map(|(host, port)| format!("{host}:{port}")).collect();
    let mut l2 = json!({
        "nodes": nodes, "username": USER, "password": PASSWORD, "secret": SECRET,
        // The machine of the tests is slow; what is asserted is never how fast.
        "start_after": "500ms", "patience": "2s",
    });
    if let Some(ca) = redis.authority() {
        l2["tls"] = json!({ "ca": ca });
    }
    l2
}

fn edge(pod: &FakePod, redis: &Redis, change: impl FnOnce(&mut Value)) -> Edge {
    Edge::with(&[pod.address], |config, _| {
        config["edge"]["l2"] = section(redis);
        let keys = [key("dev", "dev", "nh-dev"), key("other", "other", "nh-other")];
        config["access"]["keys"] = json!(keys);
        change(config);
    })
}

fn start(options: Options) -> Option<(FakePod, Redis)> {
    let redis = start_or_skip(options)?;
    Some((FakePod::start(Act::Answer("return sum(values)")), redis))
}

fn secured() -> Options {
    Options { users: true, ..Options::default() }
}

fn body(name: &str, line: &str) -> Value {
    let prompt = format!("def {name}(values):\n    {line}");
    json!({"model": "fake", "prompt": prompt, "suffix": "\n", "nearhop": {"repo": "r"}})
}

fn source(answer: &Whole) -> &str {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.header("x-nearhop-source")
}

/// Until an edge's writes have arrived.
async fn stored(edge: &Edge, entries: f64) {
    let metric = "nearhop_cache_stores_total{result=\"stored\",tier=\"l2\"}";
    eventually("the entries are written", LIMIT, || async {
        (edge.metric(metric).await >= entries).then_some(())
    })
    .await;
}

/// Until an edge is connected to its cluster: what it stores arrives.
async fn connected(edge: &Edge) {
    let mut asked = 0;
    eventually("the edge writes to the cluster", LIMIT, || {
        asked += 1;
        let body = body(&format!("warm_{asked}"), "");
        async move {
            complete(&edge.address, &body).await;
            let metric = "nearhop_cache_stores_total{result=\"stored\",tier=\"l2\"}";
            (edge.metric(metric).await >= 1.0).then_some(())
        }
    })
    .await;
}

#[tokio::test]
async fn edges_share_what_one_of_them_had_generated() {
    let _turn = TURN.lock().await;
    let Some((pod, redis)) = start(Options { tls: true, ..secured() }) else { return };
    let edges = [edge(&pod, &redis, |_| {}), edge(&pod, &redis, |_| {})];
    for edge in &edges {
        connected(edge).await;
    }
    let asked = pod.seen().len();
    assert_eq!(source(&complete(&edges[0].address, &body("mean", "")).await), "origin");
    let shared = eventually("the other edge finds it", LIMIT, || async {
        let answer = complete(&edges[1].address, &body("mean", "return")).await;
        (source(&answer) == "l2").then_some(answer)
    });
    // Every look that comes too early is a generation of its own, and nothing of it is kept.
    pod.act(Act::Answer(""));
    let shared = shared.await;
    assert_eq!(shared.text(), " sum(values)");
    assert_eq!(shared.header("cache-status"), "nearhop; hit; detail=\"l2 type_ahead\"");
    assert!(pod.seen().len() > asked);
    let mut streamed = body("mean", "");
    streamed["stream"] = json!(true);
    let again = complete(&edges[1].address, &streamed).await;
    assert_eq!(again.streamed(), ("return sum(values)".to_owned(), true));
    assert_eq!(source(&again), "l1", "it was kept");
    // Another tenant, and an edge with another secret, find nothing.
    let other = [("authorization", "Bearer nh-other")];
    let mut request = crate::support::client::request(PATH, &body("mean", ""), &[]);
    request.headers_mut().insert("authorization", other[0].1.parse().unwrap());
    let sent = crate::support::client::send(&edges[1].address, request).await.unwrap();
    assert_eq!(source(&sent.whole().await.unwrap()), "origin");
    let stranger = edge(&pod, &redis, |config| {
        config["edge"]["l2"]["secret"] = json!("another-secret-0123456789");
    });
    let metric = "nearhop_cache_lookups_total{result=\"miss\",tier=\"l2\"}";
    eventually("the stranger looks, and finds nothing", LIMIT, || async {
        let answer = complete(&stranger.address, &body("mean", &"# ".repeat(3))).await;
        assert_ne!(source(&answer), "l2");
        (stranger.metric(metric).await >= 1.0).then_some(())
    })
    .await;
    let dump = redis.dump().unwrap();
    for secret in ["return", "values", "mean", "fake", "dev", SECRET, "def "] {
        let secret = secret.as_bytes();
        assert!(!dump.windows(secret.len()).any(|window| window == secret), "{secret:?}");
    }
    assert!(dump.windows(8).any(|window| window == b"nearhop:"), "the dump has keys");
}

#[tokio::test]
async fn a_purge_reaches_every_edge_and_a_tenants_key_goes_with_it() {
    let _turn = TURN.lock().await;
    let Some((pod, redis)) = start(secured()) else { return };
    let edges = [edge(&pod, &redis, |_| {}), edge(&pod, &redis, |_| {})];
    for edge in &edges {
        connected(edge).await;
    }
    let check = async |name: &str, what: Value| {
        for edge in &edges {
            complete(&edge.address, &body(name, "")).await;
            assert_ne!(source(&complete(&edge.address, &body(name, "")).await), "origin");
        }
        let said = eventually("the log takes it", LIMIT, || async {
            let said = edges[0].order("/cache/purge", &what).await.json();
            (said["cluster"]["state"] == "done").then_some(said)
        })
        .await;
        assert!(said["cluster"]["replicas"].is_u64(), "{said}");
        pod.act(Act::Answer("newer text"));
        for edge in &edges {
            eventually("it is gone", LIMIT, || async {
                let answer = complete(&edge.address, &body(name, "")).await;
                (answer.text() == "newer text").then_some(())
            })
            .await;
        }
        pod.act(Act::Answer("return sum(values)"));
    };
    check("a", json!({"tenant": "dev", "repo": "r"})).await;
    check("b", json!({"model": "fake@1"})).await;
    check("c", json!({"tenant": "dev"})).await;
    // A new edge knows of the purges before it serves anything older.
    let newcomer = edge(&pod, &redis, |_| {});
    connected(&newcomer).await;
}

#[tokio::test]
async fn edges_count_a_limit_together() {
    let _turn = TURN.lock().await;
    let Some((pod, redis)) = start(secured()) else { return };
    let limited = |config: &mut Value| {
        config["edge"]["l2"]["share_limits"] = json!(true);
        config["access"]["plans"] = json!([{"name": "p", "tenant": {"requests_per_minute": 600}}]);
        config["access"]["tenants"] = json!([{"name": "dev", "plan": "p"}]);
        config["access"]["keys"] = json!([key("dev", "dev", "nh-dev")]);
    };
    let edges = [edge(&pod, &redis, limited), edge(&pod, &redis, limited)];
    for edge in &edges {
        connected(edge).await;
    }
    let left = |answer: &Whole| -> u64 {
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.header("x-ratelimit-remaining-requests").parse().unwrap()
    };
    // Edges tell each other what was used in a minute; the next one begins with nothing.
    eventually("a minute that goes on for a while", LIMIT, || async {
        (clock::since_epoch().as_secs() % 60 < 30).then_some(())
    })
    .await;
    // Ten a second leak away; forty times as many are used at one edge.
    let before = left(&complete(&edges[1].address, &body("limited", "")).await);
    for _ in 0..400 {
        complete(&edges[0].address, &body("limited", "")).await;
    }
    let mut looks = 0;
    eventually("the other edge counts them", LIMIT, || {
        looks += 1;
        let edge = &edges[1];
        async move {
            let now = left(&complete(&edge.address, &body("limited", "")).await);
            (now + 200 + looks < before).then_some(())
        }
    })
    .await;
}

/// Asks two edges again and again while `fault` happens; every request must be answered. Each
/// question is asked of both, so that the second edge may find it in Redis.
async fn none_fails(
    what: &str,
    (pod, edges): (&FakePod, &[Edge]),
    fault: impl FnOnce() + Send + 'static,
) {
    let fault = tokio::task::spawn_blocking(fault);
    let (mut asked, mut after, mut shared) = (0, 0, 0);
    let mut took = Vec::new();
    let rounds = if soaking() { 400 } else { 60 };
    while after < rounds {
        if fault.is_finished() {
            after += 1;
        }
        asked += 1;
        let body = body(&format!("{}_{asked}", what.replace(' ', "_")), "");
        for edge in edges {
            let began = now();
            let answer = complete(&edge.address, &body).await;
            took.push(now() - began);
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            assert_eq!(answer.text(), "return sum(values)");
            shared += usize::from(source(&answer) == "l2");
        }
    }
    fault.await.unwrap();
    assert!(!pod.seen().is_empty());
    took.sort_unstable();
    let at = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e3;
    let (half, most) = (at(50), at(99));
    say(&format!(
        "{what}: {} requests, 0 failed, {shared} from Redis, p50 {half:.1} ms, p99 {most:.1} ms",
        took.len()
    ));
}

fn impatient(config: &mut Value) {
    config["edge"]["l2"]["start_after"] = json!("5ms");
    config["edge"]["l2"]["patience"] = json!("50ms");
}

#[tokio::test]
async fn no_request_fails_while_redis_does() {
    let _turn = TURN.lock().await;
    let Some((pod, redis)) = start(secured()) else { return };
    let edges = [edge(&pod, &redis, impatient), edge(&pod, &redis, impatient)];
    for edge in &edges {
        connected(edge).await;
    }
    let redis = std::sync::Arc::new(redis);
    let fault = |act: fn(&Redis)| {
        let redis = std::sync::Arc::clone(&redis);
        move || act(&redis)
    };
    let asking = (&pod, &edges[..]);
    none_fails("nothing happens", asking, || {}).await;
    none_fails("slots move", asking, fault(|redis| redis.reshard(300, 0, 1).unwrap())).await;
    none_fails("a master stops", asking, fault(|redis| redis.pause(0).unwrap())).await;
    none_fails("it is let go on", asking, fault(|redis| redis.resume(0).unwrap())).await;
    none_fails("a master is killed", asking, fault(|redis| redis.kill(1).unwrap())).await;
    none_fails("all are gone", asking, fault(|redis| redis.stop_all().unwrap())).await;
    // A purge is taken here, waits for Redis, and reaches the other edge when that is back.
    complete(&edges[0].address, &body("p", "")).await;
    complete(&edges[1].address, &body("p", "")).await;
    let said = edges[0].order("/cache/purge", &json!({"tenant": "dev", "repo": "r"})).await.json();
    assert_eq!(said["cluster"]["state"], "pending", "{said}");
    pod.act(Act::Answer("newer text"));
    assert_eq!(complete(&edges[0].address, &body("p", "")).await.text(), "newer text");
    assert_eq!(complete(&edges[1].address, &body("p", "")).await.text(), "return sum(values)");
    let restarted = std::sync::Arc::clone(&redis);
    tokio::task::spawn_blocking(move || restarted.start_all().unwrap()).await.unwrap();
    eventually("the purge arrives", LIMIT, || async {
        let answer = complete(&edges[1].address, &body("p", "")).await;
        (answer.text() == "newer text").then_some(())
    })
    .await;
    eventually("entries are shared again", LIMIT, || async {
        let name = format!("again_{}", pod.seen().len());
        complete(&edges[0].address, &body(&name, "")).await;
        stored(&edges[0], 1.0).await;
        let answer = post(&edges[1].address, PATH, &body(&name, ""), &[]).await;
        (source(&answer) == "l2").then_some(())
    })
    .await;
}

/// An edge that shares its answers to questions through the region's tier.
fn of_a_region(
    redis: &Redis,
    qdrant: &Qdrant,
    answer: impl Fn(&str) -> String + Send + 'static,
) -> Rig {
    Rig::with(answer, |config, _| {
        config["edge"]["l2"] = section(redis);
        config["edge"]["l3"]["secret"] = json!(SECRET);
        config["edge"]["l3"]["regional"] = json!({"url": qdrant.url()});
    })
}

/// Questions that one edge had answered answer another's, through the region's tier; and what is purged
/// at one is served by none.
#[tokio::test]
async fn edges_share_what_was_asked_alike_through_the_regions_tier() {
    if !has_models() {
        return;
    }
    let _turn = TURN.lock().await;
    let Some(redis) = start_or_skip(secured()) else { return };
    let Some(qdrant) = nearhop_test_qdrant::start_or_skip(nearhop_test_qdrant::Options::default())
    else {
        return;
    };
    let rig = || {
        let answer =
            |question: &str| format!("This answers: {}", question.to_lowercase().contains("501"));
        of_a_region(&redis, &qdrant, answer)
    };
    let (one, other) = (rig().ready().await, rig().ready().await);
    for (rig, first) in [(&one, 10), (&other, 110)] {
        connected(&rig.edge).await;
        rig.prove_with("dev", first).await;
    }
    // The tier may be late, which is no hit: until it was in time.
    let mut asked = 500;
    eventually("the other edge's answer serves", LIMIT, || {
        asked += 1;
        let (one, other) = (&one, &other);
        async move {
            one.teach("dev", &commits(asked)[0]).await;
            let answer = other.ask("dev", &commits(asked)[1], &[]).await;
            (answer.header("x-nearhop-source") == "l3").then_some(())
        }
    })
    .await;
    for key in ["ben", "other"] {
        let answer = other.ask(key, &commits(asked)[2], &[]).await;
        assert_ne!(answer.header("x-nearhop-source"), "l3", "{key}");
    }
    let held = String::from_utf8_lossy(&qdrant.dump().unwrap()).to_string();
    assert!(
        !held.contains("commits") && !held.contains("This answers"),
        "nothing can be read there"
    );

    let purged = one.edge.order("/cache/purge", &json!({"tenant": "dev"})).await.json();
    assert_eq!(purged["region"]["state"], "done", "{purged}");
    eventually("the other edge has dropped them", LIMIT, || async {
        // One is another tenant's.
        (other.stats().await["entries"] == 1).then_some(())
    })
    .await;
    let answer = other.ask("dev", &format!("{}?", commits(asked)[2]), &[]).await;
    assert_ne!(answer.header("x-nearhop-source"), "l3");
}

/// Whatever becomes of the region's tier, requests are answered.
#[tokio::test]
async fn without_the_regions_tier_edges_go_on() {
    if !has_models() {
        return;
    }
    let _turn = TURN.lock().await;
    let Some(redis) = start_or_skip(secured()) else { return };
    let Some(qdrant) = nearhop_test_qdrant::start_or_skip(nearhop_test_qdrant::Options::default())
    else {
        return;
    };
    let answer = |question: &str| format!("This answers: {question}");
    let rig = of_a_region(&redis, &qdrant, answer).ready().await;
    connected(&rig.edge).await;
    rig.prove("dev").await;
    let mut number = 700;
    for fault in
        [r#"{"hang": true}"#, r#"{"status": 500}"#, r#"{"garbage": true}"#, r#"{"close": true}"#]
    {
        qdrant.fault(fault).unwrap();
        number += 1;
        let answer = rig.ask("dev", &commits(number)[0], &[]).await;
        assert_eq!((source(&answer), answer.status), ("origin", StatusCode::OK), "{fault}");
    }
    qdrant.kill().unwrap();
    let answer = rig.ask("dev", &commits(number + 1)[0], &[]).await;
    assert_eq!(source(&answer), "origin");
    rig.teach("dev", &commits(800)[0]).await;
    let own = rig.ask("dev", &commits(800)[1], &[]).await;
    assert_eq!(source(&own), "l3", "what it holds itself serves on");
}
