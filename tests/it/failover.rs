//! What fails before the first byte is done elsewhere; what fails after it is told.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    client::{Answer, Whole, assert_degraded, complete, post, request, send},
    eventually,
    fake_pod::{Act, FakePod},
    process::Edge,
    unique,
};

const LIMIT: Duration = Duration::from_secs(60);

fn body(stream: bool) -> Value {
    json!({"model": "fake", "prompt": unique(), "stream": stream})
}

/// Two pods, of which the first fails; its requests must be answered by the second.
async fn check_requeued(act: Act, stream: bool) {
    let pods = [FakePod::start(act.clone()), FakePod::start(Act::Answer("fine"))];
    let edge = Edge::start(&[pods[0].address, pods[1].address], |edge| {
        // A silent pod is left after half of this.
        edge["deadlines"] = json!({"inline": "2s"});
    });
    for _ in 0..40 {
        let answer = complete(&edge.address, &body(stream)).await;
        assert_eq!(answer.status, StatusCode::OK, "{act:?}: {:?}", answer.body);
        let text = if stream { answer.streamed().0 } else { answer.text() };
        assert_eq!(text, "fine", "{act:?}");
        if !pods[0].seen().is_empty() {
            return;
        }
    }
    panic!("{act:?}: no request met the failing pod");
}

#[tokio::test]
async fn what_fails_before_the_first_byte_is_done_elsewhere() {
    for act in [
        Act::Close,
        Act::Hang,
        Act::Garbage,
        Act::Endless,
        Act::ErrorEvent,
        Act::Status(500, "engine_failed"),
        Act::Status(503, "stopping"),
        Act::Status(429, "queue_full"),
        Act::Status(401, "x"),
        Act::Status(404, "model_not_found"),
    ] {
        for stream in [false, true] {
            check_requeued(act.clone(), stream).await;
        }
    }
}

#[tokio::test]
async fn a_whole_answer_is_done_again_even_after_it_began() {
    check_requeued(Act::DieMidway, false).await;
}

#[tokio::test]
async fn a_lone_pod_gets_a_second_chance() {
    let pod = FakePod::start(Act::Status(500, "engine_failed"));
    let edge = Edge::start(&[pod.address], |_| {});
    let asking = tokio::spawn({
        let (address, body) = (edge.address.clone(), body(false));
        async move { complete(&address, &body).await }
    });
    assert_degraded(&asking.await.unwrap());
    let seen = pod.seen().len();
    assert!((2..=3).contains(&seen), "{seen} attempts");
}

#[tokio::test]
async fn the_clients_fault_is_told_and_not_tried_elsewhere() {
    let act = Act::Status(422, "bad_grammar");
    let pods = [FakePod::start(act.clone()), FakePod::start(act)];
    let edge = Edge::start(&[pods[0].address, pods[1].address], |_| {});
    let answer = complete(&edge.address, &body(false)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.json()["error"]["code"], "bad_grammar");
    assert_eq!(pods[0].seen().len() + pods[1].seen().len(), 1);
}

async fn both(act: Act, path: &str, body: &Value) -> Whole {
    let pods = [FakePod::start(act.clone()), FakePod::start(act)];
    let edge = Edge::start(&[pods[0].address, pods[1].address], |edge| {
        edge["deadlines"] = json!({"inline": "1s", "chat": "1s"});
    });
    let answer = post(&edge.address, path, body, &[]).await;
    if answer.status == StatusCode::OK {
        return answer;
    }
    assert!(!answer.json()["error"]["message"].as_str().unwrap().contains("127.0.0.1"));
    answer
}

#[tokio::test]
async fn when_all_fail_the_client_is_told_why_and_when_to_come_back() {
    let chat = json!({"model": "fake", "messages": [{"role": "user", "content": unique()}]});
    for (act, status, code) in [
        (Act::Status(429, "queue_full"), StatusCode::SERVICE_UNAVAILABLE, "pods_busy"),
        (Act::Status(500, "x"), StatusCode::SERVICE_UNAVAILABLE, "upstream_failed"),
        (Act::Hang, StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
    ] {
        let answer = both(act.clone(), "/v1/chat/completions", &chat).await;
        assert_eq!(answer.status, status, "{act:?}");
        assert_eq!(answer.json()["error"]["code"], code, "{act:?}");
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(answer.header("retry-after"), "1", "{act:?}");
        }
    }
    // What was shed is told to code as well; what failed is not an editor's affair.
    let busy = both(Act::Status(429, "queue_full"), "/v1/completions", &body(false)).await;
    assert_eq!(busy.status, StatusCode::SERVICE_UNAVAILABLE);
    for act in [Act::Status(500, "x"), Act::Hang] {
        assert_degraded(&both(act, "/v1/completions", &body(false)).await);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_after_its_first_byte_says_so() {
    let pods = [FakePod::start(Act::StallMidway)];
    let edge = Edge::start(&[pods[0].address], |_| {});
    let mut answer =
        send(&edge.address, request("/v1/completions", &body(true), &[])).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    answer.until("half").await.unwrap();
    pods[0].hang_up();
    let text = String::from_utf8(answer.whole().await.unwrap().body.to_vec()).unwrap();
    assert!(text.contains("event: error"), "{text}");
    assert!(text.contains("stream_broken") && !text.contains("[DONE]"), "{text}");
}

/// A stream whose pods are silent, up to its first comment.
async fn silent(pods: &[FakePod; 2]) -> (Edge, Answer) {
    let edge = Edge::start(&[pods[0].address, pods[1].address], |edge| {
        edge["deadlines"] = json!({"agent": "120s"});
        edge["upstream"]["first_byte"] = json!("60s");
    });
    let asked = request("/v1/completions", &body(true), &[("x-nearhop-kind", "agent")]);
    let mut answer = send(&edge.address, asked).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let said = answer.until("\n\n").await.unwrap();
    assert_eq!(said, ": working on it\n\n");
    (edge, answer)
}

#[tokio::test]
async fn a_silent_agent_stream_has_comments_and_may_still_fail_over() {
    let pods = [Act::Hang, Act::Hang].map(FakePod::start);
    let (_edge, mut answer) = silent(&pods).await;
    assert_eq!(answer.until("\n\n").await.unwrap(), ": working on it\n\n", "ten seconds later");
    pods.iter().for_each(|pod| pod.act(Act::Answer("late")));
    pods.iter().for_each(FakePod::hang_up);
    let answer = answer.whole().await.unwrap();
    assert_eq!(answer.streamed(), ("late".to_owned(), true), "{:?}", answer.body);
}

#[tokio::test]
async fn what_fails_after_a_comment_is_told_as_an_event() {
    let pods = [Act::Hang, Act::Hang].map(FakePod::start);
    let (_edge, answer) = silent(&pods).await;
    pods.iter().for_each(|pod| pod.act(Act::Close));
    pods.iter().for_each(FakePod::hang_up);
    let text = String::from_utf8(answer.whole().await.unwrap().body.to_vec()).unwrap();
    let [event, data] = text.trim_end().lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!(event, "event: error");
    let error: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "upstream_failed", "{text}");
}

#[tokio::test]
async fn a_pod_that_resets_is_ejected_at_once_and_comes_back() {
    let pods = [FakePod::start(Act::Close), FakePod::start(Act::Answer("fine"))];
    let edge = Edge::start(&[pods[0].address, pods[1].address], |_| {});
    while pods[0].seen().is_empty() {
        complete(&edge.address, &body(false)).await;
    }
    assert_eq!(
        edge.metric("nearhop_ejections_total{class=\"pod\",reason=\"dead\",upstream=\"fake-0\"}")
            .await,
        1.0
    );
    pods[0].act(Act::Answer("again"));
    eventually("the pod answers again", LIMIT, || async {
        let answer = complete(&edge.address, &body(false)).await;
        (answer.text() == "again").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_ejection_frees_the_requests_that_wait_on_the_pod() {
    let pods = [FakePod::start(Act::Hang), FakePod::start(Act::Answer("fine"))];
    let edge = Edge::start(&[pods[0].address, pods[1].address], |_| {});
    let headers = [("x-nearhop-kind", "agent")];
    let asks: Vec<_> = (0..8)
        .map(|_| {
            let (address, body) = (edge.address.clone(), body(false));
            // Two minutes to answer: what ends the wait is the ejection, not the deadline.
            tokio::spawn(async move { post(&address, "/v1/completions", &body, &headers).await })
        })
        .collect();
    eventually("a request waits on the silent pod", LIMIT, || async {
        (!pods[0].seen().is_empty()).then_some(())
    })
    .await;
    // Its checks hang as its requests do.
    pods[0].fail_probes(true);
    for ask in asks {
        let answer = tokio::time::timeout(LIMIT, ask).await.unwrap().unwrap();
        assert_eq!(answer.text(), "fine");
    }
    assert_eq!(edge.pods().await[0]["ready"], false);
}

#[tokio::test]
async fn a_client_in_a_hurry_takes_no_pod_out() {
    let pods = [FakePod::start(Act::Hang), FakePod::start(Act::Hang)];
    let edge = Edge::start(&[pods[0].address, pods[1].address], |_| {});
    for _ in 0..6 {
        let headers = [("x-nearhop-timeout-ms", "20")];
        let answer = post(&edge.address, "/v1/completions", &body(false), &headers).await;
        assert_degraded(&answer);
    }
    let states = edge.pods().await;
    assert_eq!((&states[0]["ready"], &states[1]["ready"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn failing_checks_never_take_out_the_last_pod() {
    let pod = FakePod::start(Act::Answer("fine"));
    let edge = Edge::start(&[pod.address], |_| {});
    pod.fail_probes(true);
    eventually("the checks fail", LIMIT, || async {
        let failed = "nearhop_probes_total{class=\"pod\",result=\"failed\",upstream=\"fake-0\"}";
        (edge.metric(failed).await >= 3.0).then_some(())
    })
    .await;
    assert_eq!(edge.pods().await[0]["ready"], true);
    assert_eq!(complete(&edge.address, &body(false)).await.text(), "fine");
}

#[tokio::test]
async fn without_any_pod_the_cache_still_answers() {
    let pod = FakePod::start(Act::Answer("fine"));
    // The edge may know by then how bad it is, and would have a word for chats.
    let edge = Edge::start(&[pod.address], |edge| edge["tips"] = json!([]));
    let known = body(false);
    complete(&edge.address, &known).await;
    drop(pod);
    let answer = complete(&edge.address, &known).await;
    assert_eq!(answer.header("x-nearhop-source"), "l1");
    assert_degraded(&complete(&edge.address, &body(false)).await);
    let chat = json!({"model": "fake", "messages": [{"role": "user", "content": unique()}]});
    let answer = post(&edge.address, "/v1/chat/completions", &chat, &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn connections_to_a_pod_are_used_again() {
    let pod = FakePod::start(Act::Answer("fine"));
    let edge = Edge::start(&[pod.address], |edge| edge["probes"] = json!({"interval": "1h"}));
    for _ in 0..20 {
        complete(&edge.address, &body(true)).await;
        complete(&edge.address, &body(false)).await;
    }
    assert!(pod.connections() <= 4, "{} connections for 40 requests", pod.connections());
}

#[tokio::test]
async fn a_stream_goes_on_where_only_another_connection_broke() {
    let pod = FakePod::start(Act::StallMidway);
    let edge = Edge::start(&[pod.address], |_| {});
    let mut stream =
        send(&edge.address, request("/v1/completions", &body(true), &[])).await.unwrap();
    stream.until("half").await.unwrap();
    pod.act(Act::Close);
    assert_degraded(&complete(&edge.address, &body(false)).await);
    let out = "nearhop_ejections_total{class=\"pod\",reason=\"dead\",upstream=\"fake-0\"}";
    assert_eq!(edge.metric(out).await, 1.0);
    pod.act(Act::Answer("fine"));
    eventually("the pod is back", LIMIT, || async {
        (complete(&edge.address, &body(false)).await.text() == "fine").then_some(())
    })
    .await;
    assert_eq!(*pod.cancelled().borrow(), 0, "nobody else could have gone on with it");
    drop(stream);
}

#[tokio::test]
async fn what_a_pod_did_for_an_answer_that_came_too_late_is_charged() {
    let pod = FakePod::start(Act::StallMidway);
    let edge = Edge::start(&[pod.address], |_| {});
    let time = [("x-nearhop-timeout-ms", "700")];
    assert_degraded(&post(&edge.address, "/v1/completions", &body(false), &time).await);
    eventually("it is in the accounts", LIMIT, || async {
        let usage = edge.admin("/usage").await;
        (usage["month"]["dev"]["tokens"].as_u64() > Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_met_a_full_pod_is_told_when_to_come_back_whatever_failed_beside() {
    let pods = [
        FakePod::start(Act::Status(429, "queue_full")),
        FakePod::start(Act::Status(500, "engine_failed")),
    ];
    let edge = Edge::start(&[pods[0].address, pods[1].address], |_| {});
    for _ in 0..4 {
        let answer = complete(&edge.address, &body(false)).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json()["error"]["code"], "pods_busy");
        assert_eq!(answer.header("retry-after"), "1");
    }
}
