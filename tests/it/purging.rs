//! What an operator drops of the cache, and sees of it.

use std::process::Command;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    client::{LIMIT, complete, post},
    eventually,
    fake_pod::{Act, FakePod},
    process::{ADMIN_TOKEN, BINARY, Edge, KEY_SECRET, Origin, has_ort, key, root},
};

fn start() -> (FakePod, Edge) {
    let pod = FakePod::start(Act::Answer("return sum(values)"));
    let edge = Edge::start(&[pod.address], |_| {});
    (pod, edge)
}

fn body(line: &str, declared: Value) -> Value {
    let prompt = format!("def mean(values):\n    {line}");
    json!({"model": "fake", "prompt": prompt, "suffix": "\n", "nearhop": declared})
}

async fn source(edge: &Edge, body: &Value) -> String {
    complete(&edge.address, body).await.header("x-nearhop-source").to_owned()
}

async fn purge(edge: &Edge, what: Value) -> Value {
    let answer = edge.order("/cache/purge", &what).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn a_purge_drops_what_has_the_tag_and_nothing_else() {
    let (pod, edge) = start();
    let declared = [
        json!({"repo": "a"}),
        json!({"repo": "b"}),
        json!({"session": "s"}),
        json!({"file_hash": "f"}),
        json!({}),
    ];
    let bodies: Vec<Value> = declared
        .iter()
        .enumerate()
        .map(|(n, it)| body(&format!("# {n}\n    "), it.clone()))
        .collect();
    let check = async |what: Value, gone: &[usize]| {
        for body in &bodies {
            source(&edge, body).await;
        }
        let said = purge(&edge, what.clone()).await;
        assert_eq!(said["l1_entries"], gone.len(), "{what} {said}");
        for (at, body) in bodies.iter().enumerate() {
            let expected = if gone.contains(&at) { "origin" } else { "l1" };
            assert_eq!(source(&edge, body).await, expected, "{what} {at}");
        }
    };
    check(json!({"tenant": "dev", "repo": "a"}), &[0]).await;
    check(json!({"tenant": "dev", "session": "s"}), &[2]).await;
    check(json!({"tenant": "dev", "file_hash": "f"}), &[3]).await;
    check(json!({"tenant": "other", "repo": "a"}), &[]).await;
    check(json!({"tenant": "other"}), &[]).await;
    check(json!({"model": "fake@2"}), &[]).await;
    check(json!({"model": "fake@1"}), &[0, 1, 2, 3, 4]).await;
    check(json!({"tenant": "dev"}), &[0, 1, 2, 3, 4]).await;
    check(json!({"everything": true}), &[0, 1, 2, 3, 4]).await;
    // Pods know tenants and models; a narrower purge drops the tenant's prompts there.
    let told = pod.purges();
    assert_eq!(told[0], "{\"tenant\":\"dev\"}");
    assert_eq!(told[5], "{\"model\":\"fake\"}");
    assert_eq!(told[8], "{}");
}

/// A former tenant's data can be dropped, and who mistypes a name is told.
#[tokio::test]
async fn a_name_that_nobody_has_is_purged_and_told() {
    let pod = FakePod::start(Act::Answer("a"));
    let edge = Edge::start(&[pod.address], |_| {});
    let unknown = async |what: Value| purge(&edge, what).await["unknown"].clone();
    assert_eq!(unknown(json!({"tenant": "dev", "key": "dev"})).await, Value::Null);
    assert_eq!(unknown(json!({"tenant": "dve"})).await, json!({"tenant": "dve"}));
    assert_eq!(unknown(json!({"tenant": "dev", "key": "a"})).await, json!({"key": "a"}));
    assert_eq!(unknown(json!({"tenant": "dev", "user": "a"})).await, json!({"user": "a"}));
}

#[tokio::test]
async fn a_session_may_be_named_by_a_header() {
    let (_pod, edge) = start();
    let here = body("", json!({}));
    let ask = async || {
        let session = [("x-nearhop-session", "editor-7")];
        let answer = post(&edge.address, "/v1/completions", &here, &session).await;
        answer.header("x-nearhop-source").to_owned()
    };
    assert_eq!((ask().await, ask().await), ("origin".to_owned(), "l1".to_owned()));
    let said = purge(&edge, json!({"tenant": "dev", "session": "editor-7"})).await;
    assert_eq!(said["l1_entries"], 1, "{said}");
    assert_eq!(ask().await, "origin");
    let long = "x".repeat(257);
    let wrong = [("x-nearhop-session", long.as_str())];
    let answer = post(&edge.address, "/v1/completions", &here, &wrong).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json()["error"]["param"], "x-nearhop-session");
}

#[tokio::test]
async fn a_careless_purge_is_told_what_to_name() {
    let (_pod, edge) = start();
    let check = async |what: Value, fix: &str| {
        let answer = edge.order("/cache/purge", &what).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
        let said = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(said.contains(fix), "{what}: {said}");
    };
    check(json!({}), "name a tenant").await;
    check(json!({"repo": "a"}), "name the tenant").await;
    check(json!({"tenant": "dev", "repo": "a", "session": "s"}), "several").await;
    check(json!({"tenant": "dev", "everything": true}), "alone").await;
    check(json!({"tenat": "dev"}), "tenat").await;
    let closed =
        post(&edge.admin, "/admin/v1/cache/purge", &json!({"everything": true}), &[]).await;
    assert_eq!(closed.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_command_line_shows_explains_and_purges() {
    let (pod, edge) = start();
    let here = body("", json!({}));
    assert_eq!(source(&edge, &here).await, "origin");
    assert_eq!(source(&edge, &body("return", json!({}))).await, "l1-typeahead");
    let file = |name: &str, value: &Value| {
        let path = edge.folder().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path
    };
    let config = file(
        "asked.yaml",
        &json!({
            "access": {"key_secret": KEY_SECRET, "keys": [key("dev", "dev", "nh-dev")]},
            "edge": {
                "listen": edge.address, "admin": {"listen": edge.admin, "token": ADMIN_TOKEN},
                "pods": [{"name": "fake-0", "address": pod.address}],
            },
        }),
    );
    let nearhop = |arguments: &[&str], more: &[&std::path::Path]| {
        let output = Command::new(BINARY)
            .args(arguments)
            .args(more)
            .arg("-c")
            .arg(&config)
            .current_dir(root())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let stats = nearhop(&["cache", "stats"], &[]);
    assert!(stats.contains("type_ahead: 1 served"), "{stats}");
    let explain = |line: &str, repo: Value| {
        let request = file("request.json", &body(line, repo));
        nearhop(&["explain", "cache"], &[&request])
    };
    assert!(
        explain("return", json!({}))
            .contains("+ an answer of 18 bytes: it fits by the rule type_ahead")
    );
    assert!(
        explain("# or", json!({})).contains("- an answer of 18 bytes: something else was typed")
    );
    assert!(explain("", json!({"repo": "a"})).contains("nothing was stored"));
    let purged = nearhop(&["cache", "purge", "--tenant", "dev"], &[]);
    assert!(
        purged.contains("1 entries dropped") && purged.contains("fake-0: 7 blocks"),
        "{purged}"
    );
    assert_eq!(source(&edge, &here).await, "origin");
}

#[tokio::test]
async fn a_real_pod_drops_the_prompts_of_the_tenant() {
    if !has_ort() {
        return;
    }
    let origin = Origin::start();
    let edge = Edge::start(&[origin.address.parse().unwrap()], |_| {});
    let body = json!({
        "model": "tiny", "prompt": "def mean(values):\n    total = 0\n".repeat(8), "suffix": "\n",
        "max_tokens": 4,
    });
    let answer = complete(&edge.address, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let said = purge(&edge, json!({"tenant": "dev"})).await;
    let pods = said["pods"].as_object().unwrap();
    assert!(pods.values().all(|pod| pod["dropped_blocks"].as_u64() > Some(0)), "{said}");
}

#[tokio::test]
async fn a_rule_whose_answers_differ_from_fresh_ones_switches_itself_off() {
    let pod = FakePod::start(Act::Answer("return sum(values)"));
    let edge = Edge::start(&[pod.address], |edge| {
        edge["reuse"] = json!({"audit": {"share": 1.0, "limit": 0.2}});
    });
    assert_eq!(source(&edge, &body("", json!({}))).await, "origin");
    let bytes = pod.seen()[0].bytes;
    // The model has changed its mind since; its weights say they are the same.
    pod.act(Act::Answer("raise NotImplementedError"));
    eventually("the rule is off", LIMIT, || async {
        (source(&edge, &body("return", json!({}))).await == "origin").then_some(())
    })
    .await;
    assert_eq!(edge.metric("nearhop_reuse_rule_serves{rule=\"type_ahead\"}").await, 0.0);
    assert_eq!(edge.metric("nearhop_reuse_rule_serves{rule=\"exact\"}").await, 1.0);
    let differing = "nearhop_reuse_audits_total{result=\"differs\",rule=\"type_ahead\"}";
    assert!(edge.metric(differing).await >= 50.0);
    assert!(edge.log().contains("a rule of reuse differs too often"));
    let said = edge.admin("/cache").await;
    assert_eq!(said["rules"]["type_ahead"]["serves"], false, "{said}");
    // The exact rule serves on, and its audits say how it compares.
    assert_eq!(source(&edge, &body("return", json!({}))).await, "l1");
    eventually("it is audited too", LIMIT, || async {
        source(&edge, &body("return", json!({}))).await;
        let equal = "nearhop_reuse_audits_total{result=\"equal\",rule=\"exact\"}";
        (edge.metric(equal).await >= 1.0).then_some(())
    })
    .await;
    // They were generated for nobody: no key pays, and the lowest class waits for them.
    let audited = pod.seen().into_iter().filter(|seen| seen.head.contains("x-nearhop-kind: agent"));
    assert!(audited.count() >= 50 && bytes > 0);
}
