//! Who may ask, and how much.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    client::{Whole, get, post},
    eventually,
    fake_pod::{Act, FakePod},
    issuer::Issuer,
    process::{Edge, key, say},
    unique,
};

const LIMIT: Duration = Duration::from_secs(30);

async fn ask_with(edge: &Edge, secret: &str, more: &[(&str, &str)]) -> Whole {
    let authorization = format!("Bearer {secret}");
    let mut headers = vec![("authorization", authorization.as_str())];
    headers.extend(more);
    let body = json!({"model": "fake", "prompt": unique(), "max_tokens": 8});
    let mut request = crate::support::client::request("/v1/completions", &body, &[]);
    request.headers_mut().remove("authorization");
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    crate::support::client::send(&edge.address, request).await.unwrap().whole().await.unwrap()
}

async fn ask(edge: &Edge, secret: &str) -> Whole {
    ask_with(edge, secret, &[]).await
}

fn code(answer: &Whole) -> String {
    answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
}

/// An edge with a plan for the tenant `acme`, whose keys are `nh-a` and `nh-b`.
fn limited(pod: &FakePod, plan: Value) -> Edge {
    Edge::with(&[pod.address], |config, _| {
        let mut plan = plan;
        plan["name"] = json!("small");
        config["access"]["plans"] = json!([plan]);
        config["access"]["tenants"] = json!([{"name": "acme", "plan": "small"}, {"name": "dev"}, {"name": "other", "plan": "small"}]);
        config["access"]["keys"] = json!([
            key("dev", "dev", "nh-dev"),
            key("a", "acme", "nh-a"),
            key("b", "acme", "nh-b"),
            key("c", "other", "nh-c"),
        ]);
    })
}

#[tokio::test]
async fn a_key_asks_for_what_it_is_for_and_until_it_expires() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::with(&[pod.address], |config, _| {
        let mut chat = key("chat", "dev", "nh-chat");
        chat["scopes"] = json!(["chat"]);
        let mut old = key("old", "dev", "nh-old");
        old["expires"] = json!("2020-01-01T00:00:00Z");
        let mut far = key("far", "far", "nh-far");
        far["user"] = json!("eve");
        config["access"]["keys"] = json!([key("dev", "dev", "nh-dev"), chat, old, far]);
        config["access"]["tenants"] =
            json!([{"name": "dev"}, {"name": "far", "egress": {"regions": ["elsewhere"]}}]);
    });
    assert_eq!(ask(&edge, "nh-dev").await.status, StatusCode::OK);
    let refused = ask(&edge, "nh-chat").await;
    assert_eq!(
        (refused.status, code(&refused).as_str()),
        (StatusCode::FORBIDDEN, "insufficient_scope")
    );
    let messages = json!({"model": "fake", "messages": [{"role": "user", "content": unique()}]});
    let chat = post(&edge.address, "/v1/chat/completions", &messages, &[]).await;
    assert_eq!(chat.status, StatusCode::OK);
    let expired = ask(&edge, "nh-old").await;
    assert_eq!(
        (expired.status, code(&expired).as_str()),
        (StatusCode::UNAUTHORIZED, "expired_api_key")
    );
    let far = ask(&edge, "nh-far").await;
    assert_eq!((far.status, code(&far).as_str()), (StatusCode::FORBIDDEN, "region_not_allowed"));
    for header in ["x-api-key", "api-key"] {
        let models = get(&edge.address, "/v1/models", &[(header, "nh-dev")]).await.unwrap();
        assert_eq!(models.status, StatusCode::OK, "{header}");
    }
}

#[tokio::test]
async fn requests_a_minute_are_told_in_headers_and_refused_with_the_time_to_wait() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge =
        limited(&pod, json!({"key": {"requests_per_minute": 3, "tokens_per_minute": 100_000}}));
    for left in [2, 1, 0] {
        let answer = ask(&edge, "nh-a").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "3");
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), left.to_string());
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), "100000");
    }
    let refused = ask(&edge, "nh-a").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(code(&refused), "rate_limit_exceeded");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=20).contains(&wait), "a third of a minute at most: {wait}");
    assert_eq!(refused.header("x-should-retry"), "");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
    assert_eq!(ask(&edge, "nh-b").await.status, StatusCode::OK, "another key has its own");
    // Counted before the answer is sent.
    let limited = edge.metric("nearhop_limited_total{limit=\"requests\",of=\"key\"}").await;
    assert!(limited >= 1.0);
}

#[tokio::test]
async fn tokens_are_reserved_and_what_is_not_used_comes_back() {
    let pod = FakePod::start(Act::Answer("ok"));
    // A request may use its prompt's bytes and eight tokens; the pod says it used two.
    let edge = limited(&pod, json!({"tenant": {"tokens_per_minute": 100}}));
    for _ in 0..10 {
        assert_eq!(ask(&edge, "nh-a").await.status, StatusCode::OK, "each uses two of a hundred");
        assert_eq!(ask(&edge, "nh-b").await.status, StatusCode::OK);
    }
    let large = json!({"model": "fake", "prompt": "a", "max_tokens": 100});
    let headers = [("authorization", "Bearer nh-a")];
    let mut request = crate::support::client::request("/v1/completions", &large, &[]);
    request.headers_mut().insert("authorization", headers[0].1.parse().unwrap());
    let refused =
        crate::support::client::send(&edge.address, request).await.unwrap().whole().await.unwrap();
    assert_eq!(
        (refused.status, code(&refused).as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, "tokens_over_limit")
    );
    assert_eq!(refused.header("x-should-retry"), "false");
}

#[tokio::test]
async fn a_key_has_so_many_requests_at_once() {
    let pod = FakePod::start(Act::Hang);
    let edge = limited(&pod, json!({"key": {"concurrent": 1}}));
    let (address, held) = (edge.address.clone(), json!({"model": "fake", "prompt": unique()}));
    let mut request = crate::support::client::request("/v1/completions", &held, &[]);
    request.headers_mut().insert("authorization", "Bearer nh-a".parse().unwrap());
    let first = tokio::spawn(async move { crate::support::client::send(&address, request).await });
    eventually("it runs", LIMIT, || async { (!pod.seen().is_empty()).then_some(()) }).await;
    let refused = ask(&edge, "nh-a").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    first.abort();
    pod.act(Act::Answer("ok"));
    eventually("its place is free again", LIMIT, || async {
        (ask(&edge, "nh-a").await.status == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_months_budget_survives_a_restart_and_hits_are_free() {
    let pod = FakePod::start(Act::Answer("ok"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("usage.db");
    let start = || {
        Edge::with(&[pod.address], |config, _| {
            config["access"]["usage_file"] = json!(file);
            config["access"]["plans"] = json!([{"name": "p", "tokens_per_month": 100}]);
            config["access"]["tenants"] = json!([{"name": "dev", "plan": "p"}]);
        })
    };
    let mut edge = start();
    let first = json!({"model": "fake", "prompt": "the same", "max_tokens": 8});
    let ask_first = |address: String| {
        let first = first.clone();
        async move { post(&address, "/v1/completions", &first, &[]).await }
    };
    assert_eq!(ask_first(edge.address.clone()).await.status, StatusCode::OK);
    let used = eventually("it is counted", LIMIT, || async {
        edge.admin("/usage").await["month"]["dev"]["tokens"].as_u64()
    })
    .await;
    for _ in 0..5 {
        let hit = ask_first(edge.address.clone()).await;
        assert_eq!((hit.status, hit.header("x-nearhop-source")), (StatusCode::OK, "l1"));
    }
    assert_eq!(edge.admin("/usage").await["month"]["dev"]["tokens"].as_u64().unwrap(), used);
    let cached =
        "nearhop_usage_tokens_total{key=\"dev\",served=\"cached\",tenant=\"dev\",type=\"output\"}";
    eventually("and counted", LIMIT, || async { (edge.metric(cached).await >= 5.0).then_some(()) })
        .await;
    crate::support::process::signal(edge.pid(), "TERM");
    let ended = edge.wait();
    assert!(ended.success(), "{ended} {}", edge.log());
    let edge = start();
    assert_eq!(edge.admin("/usage").await["month"]["dev"]["tokens"].as_u64().unwrap(), used);
    let large = json!({"model": "fake", "prompt": "x".repeat(99), "max_tokens": 8});
    let refused = post(&edge.address, "/v1/completions", &large, &[]).await;
    assert_eq!(
        (refused.status, code(&refused).as_str()),
        (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota")
    );
    assert_eq!(refused.header("x-should-retry"), "false");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_flood_of_one_tenant_the_other_is_served() {
    let pod = FakePod::start(Act::Slow("hello"));
    let edge = Arc::new(Edge::with(&[pod.address], |config, _| {
        // Eight places at pods, four that wait.
        config["edge"]["limits"] = json!({"requests": 16});
        config["access"]["keys"] = json!([
            key("dev", "dev", "nh-dev"),
            key("a", "flood", "nh-a"),
            key("b", "modest", "nh-b")
        ]);
    }));
    let (stop, shed, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut flood = JoinSet::new();
    for _ in 0..14 {
        let (edge, stop) = (Arc::clone(&edge), Arc::clone(&stop));
        let (shed, served) = (Arc::clone(&shed), Arc::clone(&served));
        flood.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let count =
                    if ask(&edge, "nh-a").await.status == StatusCode::OK { &served } else { &shed };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    eventually("the flood is shed", LIMIT, || async {
        (shed.load(Ordering::Relaxed) > 20).then_some(())
    })
    .await;
    let mut good = 0;
    for _ in 0..40 {
        good += usize::from(ask(&edge, "nh-b").await.status == StatusCode::OK);
    }
    stop.store(true, Ordering::Relaxed);
    while flood.join_next().await.is_some() {}
    say(&format!(
        "beside a flood ({} served, {} shed) the other tenant had {good} of 40 answered",
        served.load(Ordering::Relaxed),
        shed.load(Ordering::Relaxed)
    ));
    assert!(good >= 38, "{good} of 40");
}

/// A body that does not come holds its place; a tenant's own plan need not say how many.
#[tokio::test]
async fn slow_bodies_of_one_tenant_leave_room_for_the_other() {
    use tokio::io::AsyncWriteExt as _;

    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::with(&[pod.address], |config, _| {
        config["edge"]["limits"] = json!({"requests": 32, "body_read": "60s"});
        config["access"]["keys"] = json!([
            key("dev", "dev", "nh-dev"),
            key("a", "slow", "nh-a"),
            key("b", "other", "nh-b")
        ]);
    });
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer nh-a\r\ncontent-length: 100\r\n\r\n{";
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut stream = tokio::net::TcpStream::connect(&edge.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    eventually("its share is taken, and the rest told", LIMIT, || async {
        let told = "nearhop_requests_total{kind=\"none\",source=\"none\",status=\"503\"}";
        let shed = edge.metric(told).await;
        let inside = edge.metric("nearhop_requests_in_progress").await;
        (shed + inside >= 40.0 && inside >= 28.0).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(ask(&edge, "nh-b").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_token_of_a_configured_issuer_is_a_credential_also_while_the_issuer_is_gone() {
    let pod = FakePod::start(Act::Answer("ok"));
    let issuer = Issuer::start().await;
    let edge = Edge::with(&[pod.address], |config, _| {
        config["access"]["issuers"] = json!([issuer.entry()]);
    });
    let token = issuer.token(&json!({"tenant": "acme"}));
    eventually("the keys are there", LIMIT, || async {
        (ask(&edge, &token).await.status == StatusCode::OK).then_some(())
    })
    .await;
    issuer.go_away();
    let asked = issuer.asked();
    eventually("they are asked for again", Duration::from_secs(60), || async {
        (issuer.asked() > asked).then_some(())
    })
    .await;
    // One that was never seen: its signature is checked now.
    let other = issuer.token(&json!({"tenant": "acme", "sub": "bob"}));
    assert_eq!(ask(&edge, &other).await.status, StatusCode::OK);
    for wrong in
        [json!({"tenant": "acme", "aud": "other"}), json!({"tenant": "acme", "exp": 1}), json!({})]
    {
        let refused = ask(&edge, &issuer.token(&wrong)).await;
        assert!([401, 403].contains(&refused.status.as_u16()), "{wrong} {:?}", refused.status);
    }
    let stranger = Issuer::start().await.token(&json!({"tenant": "acme"}));
    assert_eq!(ask(&edge, &stranger).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&edge, "nh-dev").await.status, StatusCode::OK, "keys go on");
    eventually("its subject is in the log", LIMIT, || async {
        edge.log().contains("login.test#bob").then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_an_issuers_keys_it_is_our_fault() {
    let pod = FakePod::start(Act::Answer("ok"));
    let issuer = Issuer::start().await;
    issuer.go_away();
    let edge = Edge::with(&[pod.address], |config, _| {
        config["access"]["issuers"] = json!([issuer.entry()]);
    });
    let refused = ask(&edge, &issuer.token(&json!({"tenant": "acme"}))).await;
    assert_eq!(
        (refused.status, code(&refused).as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "issuer_unavailable")
    );
    assert!(!refused.header("retry-after").is_empty());
}

#[tokio::test]
async fn what_a_client_says_of_itself_changes_nothing() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::start(&[pod.address], |_| {});
    let lies = [
        ("x-nearhop-tenant", "other"),
        ("x-nearhop-hop", "1"),
        ("x-nearhop-deadline", "999999"),
        ("x-nearhop-class", "inline"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("x-nearhop-region", "moon"),
        ("connection", "x-request-id"),
    ];
    let body = json!({"model": "fake", "prompt": unique()});
    let honest = post(&edge.address, "/v1/completions", &body, &[]).await;
    let lying = post(&edge.address, "/v1/completions", &body, &lies).await;
    assert_eq!(lying.header("x-nearhop-source"), "l1", "the same tenant's cache");
    assert_eq!(lying.body, honest.body);
    assert_eq!(lying.header("x-nearhop-region"), "test");
    let fresh = json!({"model": "fake", "prompt": unique()});
    post(&edge.address, "/v1/completions", &fresh, &lies).await;
    let head = pod.seen().pop().unwrap().head;
    let names: Vec<&str> = head.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
    let mut allowed = [
        "host",
        "content-type",
        "content-length",
        "x-request-id",
        "x-nearhop-timeout-ms",
        "x-nearhop-tenant",
        "x-nearhop-kind",
        "traceparent",
    ];
    allowed.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, allowed, "only what the edge itself says");
}

#[tokio::test]
async fn a_planted_key_and_prompt_appear_nowhere() {
    let pod = FakePod::start(Act::Answer("ok"));
    let edge = Edge::with(&[pod.address], |config, _| {
        config["access"]["keys"] =
            json!([key("dev", "dev", "nh-dev"), key("canary", "dev", "nh-canary-key")]);
        config["log"] = json!({"level": "debug,h2=info,hyper=info"});
    });
    let planted = ["nh-canary-key", "canary_prompt", "canary_wrong", "test-admin-token"];
    let headers = |secret: &str| format!("Bearer {secret}");
    for (secret, body) in [
        ("nh-canary-key", json!({"model": "fake", "prompt": "canary_prompt one"}).to_string()),
        ("nh-canary-key", json!({"model": "canary_prompt", "prompt": "canary_prompt"}).to_string()),
        ("nh-canary-key", "{\"prompt\": canary_prompt".to_owned()),
        ("canary_wrong", json!({"model": "fake", "prompt": "canary_prompt"}).to_string()),
    ] {
        for path in ["/v1/completions", "/v1/chat/completions", "/canary_prompt"] {
            let mut request = crate::support::client::request(path, &Value::Null, &[]);
            request.headers_mut().insert("authorization", headers(secret).parse().unwrap());
            *request.body_mut() = body.clone().into();
            let answer = crate::support::client::send(&edge.address, request)
                .await
                .unwrap()
                .whole()
                .await
                .unwrap();
            let told = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(!told.contains("nh-canary-key") && !told.contains("canary_wrong"), "{told}");
        }
    }
    pod.act(Act::ErrorEvent);
    for _ in 0..3 {
        ask(&edge, "nh-canary-key").await;
    }
    let metrics = get(&edge.admin, "/metrics", &[]).await.unwrap();
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    eventually("lines are written", LIMIT, || async {
        edge.log().contains("canary").then_some(())
    })
    .await;
    let log = edge.log();
    for planted in planted {
        assert!(!log.contains(planted), "{planted} is in the log: {log}");
        assert!(!metrics.contains(planted), "{planted} is in the metrics");
    }
    assert!(log.contains("key=\"canary\"") || log.contains("canary"), "its name is");
}
