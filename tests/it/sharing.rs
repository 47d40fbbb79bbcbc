//! Requests that share a generation, and those that give one up.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{
    client::{LIMIT, Whole, complete, post, request, send},
    eventually,
    fake_pod::{Act, FakePod},
    process::Edge,
};

const PATH: &str = "/v1/completions";
const ABOVE: &str = "def mean(values):\n    ";

fn start(act: Act) -> (FakePod, Edge) {
    let pod = FakePod::start(act);
    let edge = Edge::start(&[pod.address], |_| {});
    (pod, edge)
}

fn body(line: &str) -> Value {
    json!({"model": "fake", "prompt": format!("{ABOVE}{line}"), "suffix": "\n"})
}

fn streamed(line: &str) -> Value {
    let mut body = body(line);
    body["stream"] = json!(true);
    body
}

fn declared(line: &str, document: &str) -> Value {
    let mut body = body(line);
    body["nearhop"] = json!({"session": "s", "document": document});
    body
}

/// Asks without waiting.
fn ask(edge: &Edge, body: Value) -> JoinHandle<Whole> {
    let address = edge.address.clone();
    tokio::spawn(async move { complete(&address, &body).await })
}

fn source(answer: &Whole) -> &str {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.header("x-nearhop-source")
}

/// Until the pod has so many requests.
async fn asked(pod: &FakePod, requests: usize) {
    eventually("the pod is asked", LIMIT, || async {
        (pod.seen().len() == requests).then_some(())
    })
    .await;
}

/// Until so many requests have joined another.
async fn joined(edge: &Edge, rule: &str, requests: f64) {
    let metric = format!("nearhop_cache_lookups_total{{result=\"{rule}\",tier=\"joined\"}}");
    eventually("requests have joined", LIMIT, || async {
        (edge.metric(&metric).await >= requests).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hundred_identical_requests_are_one_generation() {
    let (pod, edge) = start(Act::Slow("return sum(values) / len(values)"));
    let requests: Vec<_> =
        (0..100).map(|n| ask(&edge, if n % 2 == 0 { body("") } else { streamed("") })).collect();
    let mut sources = std::collections::BTreeMap::new();
    for (n, answer) in requests.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        *sources.entry(source(&answer).to_owned()).or_insert(0) += 1;
        let text = if n % 2 == 0 { answer.text() } else { answer.streamed().0 };
        assert_eq!(text, "return sum(values) / len(values)");
    }
    assert_eq!(pod.seen().len(), 1, "{sources:?}");
    assert_eq!(sources["origin"], 1, "{sources:?}");
}

#[tokio::test]
async fn who_types_into_what_is_being_generated_gets_its_rest() {
    let (pod, edge) = start(Act::StallThen("return sum(values)"));
    let first = ask(&edge, streamed(""));
    asked(&pod, 1).await;
    let second = ask(&edge, streamed("return s"));
    let third = ask(&edge, body("return su"));
    joined(&edge, "type_ahead", 2.0).await;
    pod.hang_up();
    let (first, second, third) =
        (first.await.unwrap(), second.await.unwrap(), third.await.unwrap());
    assert_eq!(first.streamed(), ("return sum(values)".to_owned(), true));
    assert_eq!(second.streamed(), ("um(values)".to_owned(), true));
    assert_eq!(third.text(), "m(values)");
    assert_eq!((source(&second), source(&third)), ("joined", "joined"));
    assert_eq!(pod.seen().len(), 1);
}

#[tokio::test]
async fn who_typed_something_else_is_on_its_own() {
    let (pod, edge) = start(Act::StallThen("return sum(values)"));
    let first = ask(&edge, body(""));
    asked(&pod, 1).await;
    // Nothing is there yet to tell it from what will be.
    let others = [ask(&edge, body("retry")), ask(&edge, streamed("retry"))];
    joined(&edge, "type_ahead", 1.0).await;
    pod.act(Act::Answer("(values)"));
    pod.hang_up();
    assert_eq!(first.await.unwrap().text(), "return sum(values)");
    let [whole, stream] = others.map(|other| async { other.await.unwrap() });
    assert_eq!(whole.await.text(), "(values)");
    assert_eq!(stream.await.streamed().0, "(values)");
}

#[tokio::test]
async fn a_leader_that_goes_away_leaves_the_generation_to_the_others() {
    let (pod, edge) = start(Act::StallThen("return sum(values)"));
    let leader = ask(&edge, streamed(""));
    asked(&pod, 1).await;
    let follower = ask(&edge, body(""));
    joined(&edge, "exact", 1.0).await;
    leader.abort();
    let gone = "nearhop_requests_total{kind=\"fim\",source=\"none\",status=\"gone\"}";
    eventually("the edge has seen it go", LIMIT, || async {
        (edge.metric(gone).await == 1.0).then_some(())
    })
    .await;
    pod.hang_up();
    assert_eq!(follower.await.unwrap().text(), "return sum(values)");
    assert_eq!((pod.seen().len(), *pod.cancelled().borrow()), (1, 0));
}

#[tokio::test]
async fn a_generation_stops_when_nobody_waits() {
    let (pod, edge) = start(Act::Hang);
    let both = [(); 2].map(|()| ask(&edge, body("")));
    joined(&edge, "exact", 1.0).await;
    let mut cancelled = pod.cancelled();
    for reader in both {
        assert_eq!(*cancelled.borrow_and_update(), 0, "one of them waits still");
        reader.abort();
    }
    tokio::time::timeout(LIMIT, cancelled.changed()).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_error_is_everybodys_and_is_not_stored() {
    let (pod, edge) = start(Act::StallThenFail);
    let all = [(); 3].map(|()| ask(&edge, body("")));
    joined(&edge, "exact", 2.0).await;
    pod.act(Act::Status(500, "x"));
    pod.hang_up();
    for answer in all {
        assert_eq!(source(&answer.await.unwrap()), "degraded");
    }
    pod.act(Act::Answer("return 0.0"));
    eventually("the pod is back", LIMIT, || async {
        (source(&complete(&edge.address, &body("")).await) == "origin").then_some(())
    })
    .await;
    assert_eq!(complete(&edge.address, &body("")).await.text(), "return 0.0");
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up() {
    let (pod, edge) = start(Act::Long(2000));
    let mut slow = send(&edge.address, request(PATH, &streamed(""), &[])).await.unwrap();
    slow.piece().await.unwrap();
    // It reads no further; two megabytes are far more than sockets hold.
    let quick = complete(&edge.address, &streamed("")).await;
    assert_eq!(quick.streamed().0.len(), 2000 * 1024);
    assert_eq!(pod.seen().len(), 1);
    let rest = slow.whole().await.unwrap();
    assert!(rest.body.ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_newer_keystroke_of_the_same_document_supersedes_what_it_does_not_continue() {
    let (pod, edge) = start(Act::Hang);
    let first = ask(&edge, declared("ret", "a.py"));
    asked(&pod, 1).await;
    pod.act(Act::Answer("if not values"));
    let second = complete(&edge.address, &declared("# ", "a.py")).await;
    assert_eq!(source(&second), "origin");
    let first = first.await.unwrap();
    assert_eq!((source(&first), first.text().as_str()), ("superseded", ""));
    assert_eq!(first.header("cache-control"), "no-store");
    eventually("the pod has stopped", LIMIT, || async {
        (*pod.cancelled().borrow() == 1).then_some(())
    })
    .await;
    assert_eq!(source(&complete(&edge.address, &declared("ret", "a.py")).await), "origin");
}

#[tokio::test]
async fn nobody_supersedes_another_document_or_one_that_is_not_declared() {
    let check = async |older: Value, newer: Value, headers: &[(&str, &str)]| {
        let (pod, edge) = start(Act::StallThen("turn 1"));
        let first = ask(&edge, older);
        asked(&pod, 1).await;
        pod.act(Act::Answer("if not values"));
        let second = post(&edge.address, PATH, &newer, headers).await;
        assert_eq!(source(&second), "origin");
        pod.hang_up();
        assert_eq!(source(&first.await.unwrap()), "origin");
    };
    check(declared("ret", "a.py"), declared("# ", "b.py"), &[]).await;
    check(body("ret"), body("# "), &[]).await;
    let session_alone = |line| {
        let mut body = body(line);
        body["nearhop"] = json!({"session": "s"});
        body
    };
    check(declared("ret", "a.py"), session_alone("# "), &[]).await;
    check(session_alone("ret"), session_alone("# "), &[]).await;
    let chat = [("x-nearhop-kind", "chat")];
    check(declared("ret", "a.py"), declared("# ", "a.py"), &chat).await;
}

#[tokio::test]
async fn what_others_wait_for_is_not_superseded() {
    let (pod, edge) = start(Act::StallThen("turn 1"));
    let first = ask(&edge, declared("ret", "a.py"));
    asked(&pod, 1).await;
    let other = ask(&edge, body("ret"));
    joined(&edge, "exact", 1.0).await;
    pod.act(Act::Answer("if not values"));
    assert_eq!(source(&complete(&edge.address, &declared("# ", "a.py")).await), "origin");
    pod.hang_up();
    assert_eq!(first.await.unwrap().text(), "turn 1");
    assert_eq!(other.await.unwrap().text(), "turn 1");
}

#[tokio::test]
async fn a_follower_with_more_time_outlives_its_leaders_deadline() {
    let pod = FakePod::start(Act::Hang);
    let edge = Edge::start(&[pod.address], |edge| edge["deadlines"] = json!({"fim": "30s"}));
    let ask = |millis: &'static str| {
        let address = edge.address.clone();
        let time = [("x-nearhop-timeout-ms", millis)];
        tokio::spawn(async move { post(&address, PATH, &body(""), &time).await })
    };
    let leader = ask("8000");
    asked(&pod, 1).await;
    let follower = ask("10000");
    joined(&edge, "exact", 1.0).await;
    // One with far more time would lose most of what it has: it does not wait for them.
    pod.act(Act::Answer("return 0.0"));
    assert_eq!(source(&ask("30000").await.unwrap()), "origin");
    assert_eq!(source(&leader.await.unwrap()), "cache_fallback", "what the third one got");
    assert_eq!(follower.await.unwrap().text(), "return 0.0");
}

#[tokio::test]
async fn an_older_answer_is_better_than_none_and_says_so() {
    let pod = FakePod::start(Act::Answer("return sum(values)"));
    let edge = Edge::start(&[pod.address], |edge| edge["l1"] = json!({"ttl": "1s"}));
    assert_eq!(source(&complete(&edge.address, &body("")).await), "origin");
    pod.act(Act::Status(500, "x"));
    let answer = eventually("it is past its time", LIMIT, || async {
        let answer = complete(&edge.address, &body("return")).await;
        (source(&answer) == "cache_fallback").then_some(answer)
    })
    .await;
    assert_eq!(answer.text(), " sum(values)");
    assert!(answer.header("cache-status").contains("stale="), "{answer:?}");
    let other = complete(&edge.address, &body("something else")).await;
    assert_eq!(source(&other), "degraded");
    // Nobody who asks for something new gets something old.
    let new = post(&edge.address, PATH, &body("return"), &[("cache-control", "no-cache")]).await;
    assert_eq!(source(&new), "degraded");
}
