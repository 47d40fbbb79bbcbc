//! Answers that are broken, or that nobody waited for, are not stored.

use http::StatusCode;
use serde_json::json;

use crate::support::{
    client::{LIMIT, complete, request, send},
    eventually,
    fake_pod::{Act, FakePod},
    process::Edge,
};

const STORED: &str = "nearhop_cache_stores_total{result=\"stored\",tier=\"l1\"}";

/// How the asker of a poisoned answer goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Patience {
    Waits,
    /// Leaves after it has read this.
    LeavesAt(&'static str),
}

const PIECE: &str =
    r#"{"id":"f","system_fingerprint":"fake@1","choices":[{"index":0,"text":"poison"}]}"#;
const OTHER_PIECE: &str =
    r#"{"id":"f","system_fingerprint":"fake@2","choices":[{"index":0,"text":"poison"}]}"#;
const END: &str = r#"{"id":"f","system_fingerprint":"fake@1","choices":[{"index":0,"text":"","finish_reason":"stop"}]}"#;
const OTHER_END: &str = r#"{"id":"f","system_fingerprint":"fake@2","choices":[{"index":0,"text":"","finish_reason":"stop"}]}"#;
const ERROR: &str = r#"{"error":{"message":"no","type":"server_error","code":"engine_failed"}}"#;

async fn check_leaves_nothing(act: Act, patience: Patience) {
    let pod = FakePod::start(act.clone());
    let edge = Edge::start(&[pod.address], |_| {});
    for streamed in [true, false] {
        let what = format!("{act:?}, streamed: {streamed}, {patience:?}");
        pod.act(act.clone());
        let prompt = format!("def poison_{streamed}(");
        let body = json!({"model": "fake", "prompt": prompt, "stream": streamed});
        let request = request("/v1/completions", &body, &[]);
        match patience {
            Patience::Waits => {
                if let Ok(answer) = send(&edge.address, request).await {
                    let _ = answer.whole().await;
                }
            }
            Patience::LeavesAt(text) if streamed => {
                send(&edge.address, request).await.unwrap().until(text).await.unwrap();
            }
            Patience::LeavesAt(_) => {
                let (seen, address) = (pod.seen().len(), edge.address.clone());
                let asking = tokio::spawn(async move { send(&address, request).await.is_ok() });
                eventually("the pod answers", LIMIT, || async {
                    (pod.seen().len() > seen).then_some(())
                })
                .await;
                asking.abort();
            }
        }
        eventually("nothing is in progress", LIMIT, || async {
            (edge.metric("nearhop_requests_in_progress").await == 0.0).then_some(())
        })
        .await;
        let stored = f64::from(u8::from(!streamed));
        assert_eq!(edge.metric(STORED).await, stored, "{what}");
        pod.act(Act::Answer("good"));
        // The pod may have to be trusted again first.
        let good = eventually("the pod is asked again", LIMIT, || async {
            let answer = complete(&edge.address, &json!({"model": "fake", "prompt": prompt})).await;
            (answer.status == StatusCode::OK).then_some(answer)
        })
        .await;
        assert_eq!(good.header("x-nearhop-source"), "origin", "{what}");
        assert_eq!(good.text(), "good", "{what}");
        assert_eq!(edge.metric(STORED).await, stored + 1.0, "the control: {what}");
    }
}

#[tokio::test]
async fn a_broken_answer_leaves_nothing() {
    for act in [
        Act::Status(400, "invalid"),
        Act::Status(429, "busy"),
        Act::Status(500, "failed"),
        Act::Close,
        Act::DieMidway,
        Act::Garbage,
        Act::Endless,
        Act::ErrorEvent,
    ] {
        check_leaves_nothing(act, Patience::Waits).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_well_formed_and_wrong_leaves_nothing() {
    for act in [
        Act::OtherRevision("poison"),
        Act::Events(&[PIECE]),
        Act::Events(&[PIECE, ERROR, END, "[DONE]"]),
        Act::Events(&[PIECE, ERROR, "[DONE]"]),
        Act::Events(&[PIECE, "poison", END, "[DONE]"]),
        Act::Events(&[PIECE, OTHER_PIECE, END, "[DONE]"]),
        Act::Events(&[OTHER_PIECE, PIECE, END, "[DONE]"]),
        Act::Events(&[PIECE, OTHER_END, "[DONE]"]),
        Act::Events(&[PIECE, "[DONE]"]),
        Act::Events(&["[DONE]"]),
        Act::Events(&[]),
    ] {
        check_leaves_nothing(act, Patience::Waits).await;
    }
}

#[tokio::test]
async fn an_answer_that_nobody_waited_for_leaves_nothing() {
    check_leaves_nothing(Act::StallMidway, Patience::LeavesAt("half")).await;
    check_leaves_nothing(Act::EndsLate("poison"), Patience::LeavesAt("poi")).await;
}
