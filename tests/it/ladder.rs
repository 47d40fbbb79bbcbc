//! What a request gets when those before it in the chain are out, how far service is degraded
//! meanwhile, and what the operator is told of it and may hold.

use std::{path::Path, process::Command, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    providers::{CHAT, CODE, ask, ask_chat, breaker, chat, code, edge, said, said_in_stream},
    support::{
        client::{LIMIT, get, request, send},
        eventually,
        fake_pod::{self, FakePod},
        now,
        process::{BINARY, Edge, attempts, has_ort, root, say},
        provider::{Act, Do, Provider, status},
        unique,
    },
};

/// A level is left soon.
fn quick(config: &mut Value) {
    config["edge"]["ladder"] = json!({"hold": "1s"});
    config["edge"]["tips"] = json!(["Please ask again in a minute."]);
}

/// The edge has a small model of its own.
fn with_local(config: &mut Value) {
    let folder = root().join("origin-inference/tests/fixtures/tiny");
    config["origin"] = json!({
        "listen": "127.0.0.1:1",
        "admin": {"listen": "127.0.0.1:2"},
        "models": [{"folder": folder, "aliases": ["small"]}],
    });
    config["edge"]["local"] = json!({"roles": ["small"], "threads": 1});
}

async fn local_is_ready(edge: &Edge) {
    eventually("its own pod is ready", LIMIT, || async {
        (edge.admin("/ladder").await["local"] == true).then_some(())
    })
    .await;
}

async fn at_level(edge: &Edge, level: &str) {
    eventually(level, LIMIT, || async {
        (edge.admin("/ladder").await["level"] == level).then_some(())
    })
    .await;
    assert_eq!(ask(edge, "nh-dev", CODE, &code()).await.header("x-nearhop-level"), level);
    let number: f64 = level[1..].parse().unwrap();
    assert_eq!(edge.metric("nearhop_level").await, number);
}

/// Levels as the log of events tells them, each with its cause.
async fn levels(edge: &Edge) -> Vec<String> {
    let events = edge.admin("/events").await;
    let events = events.as_array().unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    events
        .iter()
        .filter(|event| event["kind"] == "level")
        .map(|event| {
            let [from, to, cause] =
                [&event["detail"]["from"], &event["subject"], &event["detail"]["cause"]].map(word);
            format!("{from} {to} {cause}")
        })
        .collect()
}

/// A pod that is out, a provider, and the edge's own pod, which is ready.
async fn all_rungs(change: impl FnOnce(&mut Value)) -> (Provider, FakePod, Edge) {
    let provider = Provider::start(Act::Answer("theirs")).await;
    let (pod, edge) = edge(&[provider.entry("first")], |config, _| {
        quick(config);
        with_local(config);
        change(config);
    })
    .await;
    local_is_ready(&edge).await;
    (provider, pod, edge)
}

#[tokio::test]
async fn each_rung_answers_when_those_above_it_are_out_and_says_so() {
    if !has_ort() {
        return;
    }
    let (provider, pod, edge) = all_rungs(|config| {
        config["edge"]["l1"] = json!({"ttl": "1s"});
    })
    .await;
    let counts = async || {
        [
            attempts(&edge, "pod").await,
            attempts(&edge, "provider").await,
            attempts(&edge, "local").await,
        ]
    };
    let known = code();
    let rung = async |what: &Value, expected: &str, tried: [f64; 3]| {
        let before = counts().await;
        let answer = ask(&edge, "nh-dev", CODE, what).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        assert_eq!(answer.header("x-nearhop-source"), expected);
        let after = counts().await;
        let made: Vec<f64> =
            after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(made, tried, "attempts on pods, providers and the edge's own: {expected}");
        answer
    };

    pod.act(fake_pod::Act::Answer("ours"));
    pod.fail_probes(false);
    eventually("the pod is back", LIMIT, || async {
        ask(&edge, "nh-none", CODE, &code()).await;
        (breaker(&edge, "fake-0").await["state"] == "closed").then_some(())
    })
    .await;
    assert_eq!(rung(&known, "origin", [1.0, 0.0, 0.0]).await.text(), "ours");

    // The request that finds the pod dead is answered by the provider, which is asked at once then.
    pod.act(fake_pod::Act::Close);
    pod.fail_probes(true);
    assert_eq!(rung(&code(), "secondary", [1.0, 1.0, 0.0]).await.text(), "theirs");
    assert_eq!(rung(&code(), "secondary", [0.0, 1.0, 0.0]).await.text(), "theirs");

    drop(provider);
    let answer = rung(&code(), "self_hosted", [0.0, 1.0, 1.0]).await;
    assert!(answer.json()["system_fingerprint"].as_str().unwrap().starts_with("tiny@"));
    assert_eq!(answer.json()["model"], "tiny", "what it is, not what was asked for");
    rung(&code(), "self_hosted", [0.0, 0.0, 1.0]).await;

    // Its model is good; the operator takes it out. Then a pod that is out is the last resort.
    assert_eq!(edge.put("/breakers/local", r#"{"forced": "open"}"#).await.status, 200);
    eventually("what is stored is old", LIMIT, || async {
        (ask(&edge, "nh-dev", CODE, &known).await.header("x-nearhop-source") != "l1").then_some(())
    })
    .await;
    let stale = rung(&known, "cache_fallback", [1.0, 0.0, 0.0]).await;
    assert_eq!(stale.text(), "ours");
    assert!(stale.header("cache-status").contains("stale"), "{:?}", stale.headers);
    assert_eq!(rung(&code(), "degraded", [1.0, 0.0, 0.0]).await.text(), "");
    let mut streamed = code();
    streamed["stream"] = json!(true);
    let answer = rung(&streamed, "degraded", [1.0, 0.0, 0.0]).await;
    assert_eq!(answer.streamed(), (String::new(), true));

    assert_eq!(edge.put("/ladder", r#"{"level": "L3"}"#).await.status, 200);
    let refused = ask_chat(&edge).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((refused.header("retry-after"), refused.header("x-nearhop-level")), ("1", "L3"));
    assert_eq!(edge.put("/ladder", r#"{"level": null}"#).await.status, 200);
    at_level(&edge, "L4").await;
    let tip = ask_chat(&edge).await;
    assert_eq!(said(&tip), "Please ask again in a minute.");
    assert_eq!(tip.header("x-nearhop-source"), "degraded");
}

#[tokio::test]
async fn l1_comes_with_slow_first_tokens_and_goes_without_them() {
    let pod = FakePod::start(fake_pod::Act::StallThen("late"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["ladder"] = json!({"slow": "100ms", "window": "1s", "samples": 5, "hold": "1s"});
    });
    let mut asks = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let address = edge.address.clone();
        asks.spawn(async move {
            send(&address, request(CODE, &code(), &[])).await.unwrap().whole().await.unwrap()
        });
    }
    eventually("all wait", LIMIT, || async { (pod.seen().len() == 5).then_some(()) }).await;
    let began = now();
    eventually("they are late", LIMIT, || async {
        (now() - began > Duration::from_millis(150)).then_some(())
    })
    .await;
    pod.hang_up();
    for answer in asks.join_all().await {
        assert_eq!(answer.text(), "late");
    }
    eventually("L1", LIMIT, || async {
        let told = edge.admin("/ladder").await;
        (told["level"] == "L1" && told["cause"] == "slow_first_tokens").then_some(())
    })
    .await;
    let began = now();
    eventually("L0", LIMIT, || async {
        (edge.admin("/ladder").await["level"] == "L0").then_some(())
    })
    .await;
    say(&format!(
        "L1 was left {:.1} s after it was seen (window 1 s, hold 1 s)",
        (now() - began).as_secs_f64()
    ));
    assert_eq!(levels(&edge).await, ["L0 L1 slow_first_tokens", "L1 L0 all_well"]);
}

#[tokio::test]
async fn l2_and_l3_are_entered_at_once_and_left_one_after_the_other() {
    if !has_ort() {
        return;
    }
    let (provider, pod, edge) = all_rungs(|_| {}).await;
    at_level(&edge, "L2").await;
    assert_eq!(said(&ask_chat(&edge).await), "theirs");
    let told = edge.admin("/ladder").await;
    let parts = ["pods", "regions", "providers"].map(|part| told[part].as_str().unwrap());
    assert_eq!(parts, ["out", "absent", "well"]);

    provider.act(status(429, &[("retry-after", "60")]));
    ask_chat(&edge).await;
    at_level(&edge, "L3").await;
    assert_eq!(edge.admin("/ladder").await["providers"], "strained");
    let answer = ask(&edge, "nh-dev", CODE, &code()).await;
    assert_eq!(answer.header("x-nearhop-source"), "self_hosted");
    let mut agent = chat();
    agent["tools"] = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let other = [("x-nearhop-kind", "agent")];
    let mut shed = vec![ask_chat(&edge).await];
    shed.push(
        send(&edge.address, request(CHAT, &chat(), &other)).await.unwrap().whole().await.unwrap(),
    );
    for shed in shed {
        assert_eq!(shed.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", shed.body);
        assert_eq!((shed.header("retry-after"), shed.header("x-nearhop-level")), ("1", "L3"));
    }
    let refused = ask(&edge, "nh-dev", CHAT, &agent).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{:?}", refused.body);

    // A provider that comes back is known by its time alone: the operator knows it sooner.
    pod.act(fake_pod::Act::Answer("ours"));
    pod.fail_probes(false);
    at_level(&edge, "L0").await;
    let told = levels(&edge).await;
    let expected = ["L0 L2 no_primary", "L2 L3 components_out", "L3 L0 all_well"];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn l3_falls_to_l2_where_a_provider_recovers_before_the_pods_do() {
    let provider = Provider::start(Act::Answer("theirs")).await;
    let (pod, edge) = edge(&[provider.entry("first")], |config, _| quick(config)).await;
    at_level(&edge, "L2").await;
    provider.act(status(429, &[("retry-after-ms", "1500")]));
    ask_chat(&edge).await;
    eventually("L3", LIMIT, || async {
        levels(&edge).await.iter().any(|level| level.starts_with("L2 L3")).then_some(())
    })
    .await;
    provider.act(Act::Answer("theirs"));
    at_level(&edge, "L2").await;
    pod.act(fake_pod::Act::Answer("ours"));
    pod.fail_probes(false);
    at_level(&edge, "L0").await;
    let expected =
        ["L0 L2 no_primary", "L2 L3 components_out", "L3 L2 no_primary", "L2 L0 all_well"];
    assert_eq!(levels(&edge).await, expected);
    let changes = "nearhop_level_changes_total{cause=\"no_primary\",to=\"L2\"}";
    assert_eq!(edge.metric(changes).await, 2.0);
}

#[tokio::test]
async fn l4_tells_chats_a_tip_gives_code_nothing_and_ends_with_the_first_pod() {
    let provider = Provider::start(Act::Answer("theirs")).await;
    let (pod, edge) = edge(&[provider.entry("first")], |config, _| quick(config)).await;
    drop(provider);
    ask_chat(&edge).await;
    at_level(&edge, "L4").await;
    assert_eq!(edge.admin("/ladder").await["cause"], "nothing_generates");
    let tip = ask_chat(&edge).await;
    assert_eq!(said(&tip), "Please ask again in a minute.");
    assert_eq!(tip.header("x-nearhop-source"), "degraded");
    let mut streamed = chat();
    streamed["stream"] = json!(true);
    let tip = ask(&edge, "nh-dev", CHAT, &streamed).await;
    assert_eq!(said_in_stream(&tip), "Please ask again in a minute.");
    let fim = json!({"model": "fake", "prompt": unique(), "suffix": "x"});
    for body in [code(), fim] {
        let answer = ask(&edge, "nh-dev", CODE, &body).await;
        assert_eq!(answer.header("x-nearhop-source"), "degraded");
        assert_eq!(answer.text(), "", "an editor would insert it");
    }
    let began = now();
    pod.act(fake_pod::Act::Answer("ours"));
    pod.fail_probes(false);
    eventually("L4 is left", LIMIT, || async {
        (edge.admin("/ladder").await["level"] != "L4").then_some(())
    })
    .await;
    say(&format!(
        "L4 was left {:.1} s after the pod was well (checks each 1 s)",
        (now() - began).as_secs_f64()
    ));
    at_level(&edge, "L0").await;
    let told = levels(&edge).await;
    assert_eq!(told.last().unwrap(), "L4 L0 all_well", "{told:?}");
    assert_eq!(ask(&edge, "nh-dev", CODE, &code()).await.text(), "ours");
}

#[tokio::test]
async fn every_answer_says_the_level() {
    let pod = FakePod::start(fake_pod::Act::Answer("ours"));
    let edge = Edge::start(&[pod.address], |_| {});
    edge.put("/ladder", r#"{"level": "L2"}"#).await;
    for path in ["/health", "/v1/models", "/nowhere", "/v1/completions"] {
        let answer = get(&edge.address, path, &[("authorization", "Bearer nh-dev")]).await.unwrap();
        assert_eq!(answer.header("x-nearhop-level"), "L2", "{path}: {}", answer.status);
    }
    let bad = [
        ("nh-nobody", code()),
        ("nh-dev", json!({"model": "none", "prompt": "a"})),
        ("nh-dev", json!(7)),
    ];
    for (key, body) in &bad {
        let answer = ask(&edge, key, CODE, body).await;
        assert!(answer.status.is_client_error());
        assert_eq!(answer.header("x-nearhop-level"), "L2", "{key} {body}: {}", answer.status);
    }
    let mut streamed = code();
    streamed["stream"] = json!(true);
    let twice = code();
    for body in [&streamed, &twice, &twice] {
        let answer = ask(&edge, "nh-dev", CODE, body).await;
        assert_eq!((answer.status, answer.header("x-nearhop-level")), (StatusCode::OK, "L2"));
    }
}

#[tokio::test]
async fn the_operator_holds_the_level_and_lets_it_go() {
    let pod = FakePod::start(fake_pod::Act::Answer("ours"));
    let edge = Edge::start(&[pod.address], |_| {});
    let told = edge.put("/ladder", r#"{"level": "L3"}"#).await.json();
    let expected = (&json!("L3"), &json!("forced"), &json!("L3"));
    assert_eq!((&told["level"], &told["cause"], &told["forced"]), expected);
    at_level(&edge, "L3").await;
    for bad in [r#"{"level": "L9"}"#, r#"{"level": 3}"#, r#"{"levle": "L3"}"#, "{", "", "[]"] {
        let answer = edge.put("/ladder", bad).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("L0") && message.contains("null"), "{bad}: {message}");
    }
    at_level(&edge, "L3").await;
    let told = edge.put("/ladder", r#"{"level": null}"#).await.json();
    assert_eq!((&told["level"], &told["forced"]), (&json!("L0"), &Value::Null));
    at_level(&edge, "L0").await;
    assert_eq!(levels(&edge).await, ["L0 L3 forced", "L3 L0 all_well"]);
    // What is new since a number, and what is no number.
    let all = edge.admin("/events").await;
    let last = all.as_array().unwrap().last().unwrap();
    let number = last["number"].as_u64().unwrap();
    assert_eq!(edge.admin(&format!("/events?after={}", number - 1)).await, json!([last]));
    assert_eq!(edge.admin(&format!("/events?after={number}")).await, json!([]));
    let bad = edge.admin("/events?after=yesterday").await;
    assert!(bad["error"]["message"].as_str().unwrap().contains("number"), "{bad}");
    let without = get(&edge.admin, "/admin/v1/ladder", &[]).await.unwrap();
    assert_eq!(without.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_operator_holds_a_breaker_and_lets_it_go() {
    let pods = [
        FakePod::start(fake_pod::Act::Answer("zero")),
        FakePod::start(fake_pod::Act::Answer("one")),
    ];
    let edge = Edge::start(&[pods[0].address, pods[1].address], |_| {});
    let told = edge.put("/breakers/fake-0", r#"{"forced": "open"}"#).await.json();
    assert_eq!((&told["name"], &told["forced"]), (&json!("fake-0"), &json!("open")));
    for _ in 0..20 {
        assert_eq!(ask(&edge, "nh-dev", CODE, &code()).await.text(), "one");
    }
    assert!(pods[0].seen().is_empty());
    let shown = breaker(&edge, "fake-0").await;
    assert_eq!((&shown["forced"], &shown["because"]), (&json!("open"), &json!("forced")));
    assert_eq!(edge.pods().await[0]["out_because"], "forced");

    // Nobody is asked whom the operator took out, not even where nobody else is there.
    edge.put("/breakers/fake-1", r#"{"forced": "open"}"#).await;
    let answer = ask(&edge, "nh-dev", CODE, &code()).await;
    assert_eq!(answer.header("x-nearhop-source"), "degraded");
    edge.put("/breakers/fake-1", r#"{"forced": null}"#).await;

    // Held closed, it is asked whatever it does.
    pods[0].act(fake_pod::Act::Status(500, "engine_failed"));
    edge.put("/breakers/fake-0", r#"{"forced": "closed"}"#).await;
    eventually("it has failed again and again", LIMIT, || async {
        ask(&edge, "nh-dev", CODE, &code()).await;
        (pods[0].seen().len() >= 12).then_some(())
    })
    .await;
    assert_eq!(edge.pods().await[0]["ready"], true);
    // Let go, it is judged again.
    edge.put("/breakers/fake-0", r#"{"forced": null}"#).await;
    eventually("it is out", LIMIT, || async {
        ask(&edge, "nh-dev", CODE, &code()).await;
        (edge.pods().await[0]["ready"] == false).then_some(())
    })
    .await;

    for bad in [r#"{"forced": "ajar"}"#, r#"{"forced": true}"#, r#"{"open": true}"#, "{", ""] {
        let answer = edge.put("/breakers/fake-0", bad).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("open") && message.contains("null"), "{bad}: {message}");
    }
    let unknown = edge.put("/breakers/fake-7", r#"{"forced": "open"}"#).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let message = unknown.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("fake-0") && message.contains("fake-1"), "{message}");
}

/// A webhook that takes what it gets.
fn taken() -> Act {
    Act::Do(vec![Do::Say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned())])
}

fn numbers(hook: &Provider, from: usize) -> Vec<u64> {
    let posts = hook.asked().into_iter().skip(from);
    let events = posts.flat_map(|post| post.body["events"].as_array().unwrap().clone());
    events.map(|event| event["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_webhook_is_told_everything_again_when_it_failed_and_is_in_nobodys_way() {
    let hook = Provider::start(Act::Do(vec![Do::Hang])).await;
    let pod = FakePod::start(fake_pod::Act::Answer("ours"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["events"] =
            json!({"webhook": format!("http://{}/hook", hook.address), "bearer": "hook-secret"});
    });
    eventually("it is told", LIMIT, || async { (hook.times() > 0).then_some(()) }).await;
    // It hangs, and nobody waits for it.
    assert_eq!(ask(&edge, "nh-dev", CODE, &code()).await.text(), "ours");
    at_level(&edge, "L0").await;
    let post = &hook.asked()[0];
    assert_eq!(post.method_and_path, "POST /hook");
    let bearer = ("authorization".to_owned(), "Bearer hook-secret".to_owned());
    assert!(post.headers.contains(&bearer), "{:?}", post.headers);
    assert_eq!((&post.body["source"], &post.body["region"]), (&json!("nearhop"), &json!("test")));
    let first = numbers(&hook, 0);
    assert_eq!(first[0], 1);

    // It refuses, twice.
    hook.act(status(500, &[]));
    edge.put("/ladder", r#"{"level": "L2"}"#).await;
    let before = hook.times();
    eventually("it is told again", LIMIT, || async { (hook.times() > before).then_some(()) }).await;
    assert_eq!(numbers(&hook, before)[0], 1, "nothing was taken yet");
    assert!(edge.metric("nearhop_webhooks_total{result=\"refused\"}").await >= 1.0);
    edge.put("/ladder", r#"{"level": null}"#).await;

    hook.act(taken());
    let before = hook.times();
    let last = edge.admin("/events").await.as_array().unwrap().len() as u64;
    eventually("it has all", LIMIT, || async {
        (numbers(&hook, before).last() == Some(&last)).then_some(())
    })
    .await;
    assert!(numbers(&hook, before).into_iter().eq(1..=last), "each once, in order");
    eventually("that is counted", LIMIT, || async {
        let taken = edge.metric("nearhop_webhooks_total{result=\"taken\"}").await;
        (taken == last as f64).then_some(())
    })
    .await;
    // And what is new at once, alone.
    let before = hook.times();
    edge.put("/ladder", r#"{"level": "L1"}"#).await;
    eventually("the new one", LIMIT, || async { (hook.times() > before).then_some(()) }).await;
    let news = hook.asked().pop().unwrap().body;
    assert_eq!(news["events"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&news["events"][0]["subject"], &news["events"][0]["number"]),
        (&json!("L1"), &json!(last + 1))
    );
    assert!(!edge.log().contains("hook-secret"), "{}", edge.log());
}

/// `nearhop explain route` of that edge.
fn explain(edge: &Edge, folder: &Path, body: &Value, more: &[&str]) -> (bool, String) {
    let config = std::fs::read_to_string(edge.folder().join("edge.yaml")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    // Its file says any port.
    config["edge"]["admin"]["listen"] = json!(edge.admin);
    let (file, asked) = (folder.join("edge.yaml"), folder.join("request.json"));
    std::fs::write(&file, config.to_string()).unwrap();
    std::fs::write(&asked, body.to_string()).unwrap();
    let mut arguments =
        vec!["explain", "route", asked.to_str().unwrap(), "-c", file.to_str().unwrap()];
    arguments.extend(more);
    let output = Command::new(BINARY).args(arguments).current_dir(root()).output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(words).unwrap())
}

#[tokio::test]
async fn a_route_is_explained_in_words_and_in_json() {
    let provider = Provider::start(Act::Answer("theirs")).await;
    let mut code_only = provider.entry("code-only");
    code_only["kinds"] = json!(["fim"]);
    let (_pod, edge) = edge(&[provider.entry("first"), code_only], |_, _| {}).await;
    at_level(&edge, "L2").await;
    // Else it would be the last resort.
    edge.put("/breakers/fake-0", r#"{"forced": "open"}"#).await;
    let folder = tempfile::tempdir().unwrap();
    let times = provider.times();
    let (done, words) = explain(&edge, folder.path(), &chat(), &["--path", CHAT]);
    assert!(done, "{words}");
    let expected = [
        "chat request for fake@1, at level L2",
        "1. first (provider): priority; 0 in flight, 0 queued",
        "-  fake-0 (pod): out: forced",
        "-  code-only (provider): kind",
    ];
    for line in expected {
        assert!(words.lines().any(|said| said == line), "`{line}` is not in {words}");
    }
    let (done, json) =
        explain(&edge, folder.path(), &chat(), &["--path", CHAT, "--tenant", "none", "--json"]);
    assert!(done, "{json}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["candidates"], json!([]));
    let left_out: Vec<(&str, &str)> = json["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["because"].as_str().unwrap()))
        .collect();
    assert!(left_out.contains(&("first", "not allowed")), "{left_out:?}");
    let (done, words) = explain(&edge, folder.path(), &code(), &["--tenant", "none"]);
    assert!(done && words.contains("nobody would take it now"), "{words}");
    let tools = json!({"model": "fake", "messages": [{"role": "user", "content": "a"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]});
    let (_, words) = explain(&edge, folder.path(), &tools, &["--path", CHAT]);
    assert!(words.contains("first (provider): tools"), "{words}");
    assert_eq!(provider.times(), times, "nothing is sent");

    for (body, more, what) in [
        (chat(), ["--path", "/nowhere"], "path"),
        (chat(), ["--tenant", "nobody"], "messages"),
        (json!({"model": "none", "prompt": "a"}), ["--tenant", "dev"], "model"),
    ] {
        let (done, words) = explain(&edge, folder.path(), &body, &more);
        assert!(!done && !words.contains("panicked"), "{what}: {words}");
    }
}
