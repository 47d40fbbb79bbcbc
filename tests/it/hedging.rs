//! A second pod is asked where the first is late and nothing else waits; the faster answers.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    client::{complete, request, send},
    eventually,
    fake_pod::{Act, Choice, FakePod},
    process::{Edge, say},
    unique,
};

const LIMIT: Duration = Duration::from_secs(60);
const HEDGES: &str = "nearhop_hedges_total";
/// Requests before a pool's first tokens are known.
const KNOWN: usize = 20;

fn body(word: &str, stream: bool) -> Value {
    json!({"model": "fake", "prompt": format!("{word} {}", unique()), "stream": stream})
}

fn prompt(body: &Value) -> &str {
    body["prompt"].as_str().unwrap()
}

/// Whoever is first asked what has `late` in it does this; whoever is asked then is quick.
fn late(act: Act) -> Act {
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let choose = move |body: &Value| {
        let first = seen.lock().unwrap().insert(prompt(body).to_owned());
        if prompt(body).contains("late") && first { act.clone() } else { Act::Answer("quick") }
    };
    Act::By(Choice::new(choose))
}

fn pods(act: &Act) -> [FakePod; 2] {
    let pods = [FakePod::start(act.clone()), FakePod::start(act.clone())];
    pods.iter().for_each(|pod| pod.set_slots(8));
    pods
}

/// As many second attempts as may be wanted.
fn generous(edge: &mut Value) {
    edge["hedge"] = json!({"share": 1.0});
    edge["retries"] = json!({"share": 1.0, "per_second": 1000});
}

async fn ask(edge: &Edge, word: &str) -> String {
    complete(&edge.address, &body(word, false)).await.text()
}

async fn learn(edge: &Edge) {
    for _ in 0..2 * KNOWN {
        assert_eq!(ask(edge, "usual").await, "quick");
    }
}

#[tokio::test]
async fn where_the_first_is_late_another_answers() {
    let pods = pods(&late(Act::StallThen("late")));
    let edge = Edge::start(&[pods[0].address, pods[1].address], |edge| {
        generous(edge);
        // What ends the wait is the second attempt, and not its half of the time.
        edge["deadlines"] = json!({"inline": "2m"});
    });
    let cancelled = || *pods[0].cancelled().borrow() + *pods[1].cancelled().borrow();
    learn(&edge).await;
    // An ordinary answer may have been late by chance.
    let (hedges, lost) = (edge.metric(HEDGES).await, cancelled());
    const ASKED: usize = 10;
    for at in 1..=ASKED {
        let answer = complete(&edge.address, &body("late", false)).await;
        assert_eq!(answer.text(), "quick");
        eventually("the other is given up", LIMIT, || async {
            (cancelled() == lost + at).then_some(())
        })
        .await;
    }
    assert_eq!(edge.metric(HEDGES).await, hedges + ASKED as f64);
    let ready = edge.pods().await;
    assert!(ready.as_array().unwrap().iter().all(|pod| pod["ready"] == true), "{ready}");
}

#[tokio::test]
async fn second_attempts_are_a_twentieth_of_requests() {
    let pods = pods(&late(Act::Late("slow")));
    let edge = Edge::start(&[pods[0].address, pods[1].address], |_| {});
    learn(&edge).await;
    let (requests, quick) = (AtomicUsize::new(2 * KNOWN), AtomicUsize::new(0));
    let client = async || {
        for at in 0..40 {
            let word = if at % 4 == 0 { "late" } else { "usual" };
            let quickly = ask(&edge, word).await == "quick";
            requests.fetch_add(1, Ordering::Relaxed);
            quick.fetch_add(usize::from(word == "late" && quickly), Ordering::Relaxed);
        }
    };
    tokio::join!(client(), client(), client(), client());
    let (requests, hedges) = (requests.into_inner(), edge.metric(HEDGES).await);
    say(&format!(
        "{requests} requests, 40 of them late: {hedges} second attempts, {} quick by them",
        quick.into_inner()
    ));
    assert!(hedges >= 1.0 && hedges <= requests as f64 * 0.05, "{hedges} of {requests}");
}

/// The second attempts that late requests get, where there is something against them.
async fn hedges(change: impl FnOnce(&mut Value), queued: usize, level: Option<&str>) -> f64 {
    let pods = pods(&late(Act::Late("slow")));
    // Both, so that what they say is never old.
    pods.iter().for_each(|pod| pod.set_queued(queued));
    let edge = Edge::start(&[pods[0].address, pods[1].address], |edge| {
        generous(edge);
        change(edge);
    });
    if let Some(level) = level {
        let answer = edge.put("/ladder", &json!({"level": level}).to_string()).await;
        assert_eq!(answer.json()["level"], level);
    }
    learn(&edge).await;
    for _ in 0..10 {
        ask(&edge, "late").await;
    }
    edge.metric(HEDGES).await
}

#[tokio::test]
async fn there_is_no_second_attempt_where_it_would_hurt_or_is_not_wanted() {
    assert!(hedges(|_| {}, 0, None).await > 0.0);
    assert!(hedges(|_| {}, 0, Some("L0")).await > 0.0);
    assert_eq!(hedges(|_| {}, 3, None).await, 0.0, "a pod has a queue");
    assert_eq!(hedges(|_| {}, 0, Some("L1")).await, 0.0, "service is degraded");
    let off = |edge: &mut Value| edge["hedge"] = json!({"enabled": false});
    assert_eq!(hedges(off, 0, None).await, 0.0, "it is off");
}

#[tokio::test]
async fn there_is_no_second_attempt_after_the_first_byte() {
    let pods = pods(&late(Act::StallMidway));
    let edge = Edge::start(&[pods[0].address, pods[1].address], generous);
    learn(&edge).await;
    // A first byte may itself be late by chance.
    let (body, _answer) = eventually("a first byte in time", LIMIT, || async {
        let (hedges, body) = (edge.metric(HEDGES).await, body("late", true));
        let request = request("/v1/completions", &body, &[]);
        let mut answer = send(&edge.address, request).await.unwrap();
        let begun = answer.until("half").await.is_ok();
        (begun && edge.metric(HEDGES).await == hedges).then_some((body, answer))
    })
    .await;
    // Far more time than any that is late gets.
    learn(&edge).await;
    let asked = |pod: &FakePod| {
        let own = |seen: &crate::support::fake_pod::Seen| {
            String::from_utf8_lossy(&seen.body).contains(prompt(&body))
        };
        pod.seen().iter().filter(|seen| own(seen)).count()
    };
    assert_eq!(asked(&pods[0]) + asked(&pods[1]), 1);
}
