//! A region whose pods cannot answer asks the others: one attempt, at the nearest, and never further.

use std::net::SocketAddr;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    client::{LIMIT, Whole, assert_degraded, complete, get, post, request, send},
    eventually,
    fake_pod::{Act, FakePod, Reply, Script},
    neighbours::{Neighbours, Place, hops, own_address, standing},
    now,
    process::{self, Edge, key, say},
    unique,
};

/// From west to east: the second is nearest to the first, the third is far from both.
const DUBLIN: Place = ("eu-west", [53.3, -6.3]);
const FRANKFURT: Place = ("eu-central", [50.1, 8.7]);
const OREGON: Place = ("us-west", [45.8, -119.7]);
const ALL: [Place; 3] = [DUBLIN, FRANKFURT, OREGON];

/// A pod that is not there.
fn nobody() -> SocketAddr {
    own_address(8091)
}

fn body(stream: bool) -> Value {
    json!({"model": "fake", "prompt": unique(), "stream": stream})
}

fn chat() -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": unique()}]})
}

fn source(answer: &Whole) -> &str {
    answer.header("x-nearhop-source")
}

/// Waits until an edge sends requests to another region.
async fn until_ready(edge: &Edge, upstream: &str) {
    eventually(&format!("{upstream} is ready"), LIMIT, || async {
        (standing(edge, upstream).await["ready"] == true).then_some(())
    })
    .await;
}

async fn attempts(edge: &Edge, upstream: &str, outcome: &str) -> f64 {
    let labels = format!("class=\"region\",outcome=\"{outcome}\",upstream=\"{upstream}\"");
    edge.metric(&format!("nearhop_attempts_total{{{labels}}}")).await
}

/// A pod whose answer tells its prompts apart.
fn echo() -> Act {
    Act::Script(Script::new(|body| {
        let asked =
            body["prompt"].as_str().map_or_else(|| body["messages"].to_string(), str::to_owned);
        let sum: u32 = asked.bytes().map(u32::from).sum();
        Reply { text: format!("answer {sum} to {} bytes", asked.len()), finish: "stop" }
    }))
}

#[tokio::test]
async fn what_a_region_cannot_answer_another_does_and_it_is_the_same() {
    let pod = FakePod::start(echo());
    let near = Neighbours::new(&[DUBLIN, FRANKFURT]);
    let there = near.edge("eu-central", &[pod.address], |config| {
        // As many as its own clients ask here: nothing is left for others.
        config["access"]["plans"] = json!([{"name": "p", "tenant": {"requests_per_minute": 11}}]);
        config["access"]["tenants"] = json!([{"name": "dev", "plan": "p"}]);
    });
    let here = near.edge("eu-west", &[nobody()], |_| {});
    let prompt = || format!("def {}(): ", unique());
    let mut asked = 0;
    for stream in [false, true] {
        for (path, mut body) in [
            ("/v1/completions", json!({"prompt": prompt()})),
            ("/v1/completions", json!({"prompt": prompt(), "suffix": "\n# end"})),
            ("/v1/completions", json!({"segments": {"prefix": prompt(), "suffix": "\n# end"}})),
            ("/v1/fim/completions", json!({"prompt": prompt(), "suffix": "\n# end"})),
            ("/infill", json!({"input_prefix": prompt(), "input_suffix": "\n# end"})),
            ("/v1/chat/completions", chat()),
        ] {
            if body.get("segments").is_none() {
                body["model"] = json!("fake");
                body["stream"] = json!(stream);
            } else if stream {
                continue;
            }
            let answer = post(&here.address, path, &body, &[]).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
            assert_eq!(source(&answer), "region", "{path} {body}");
            assert_eq!(answer.header("x-nearhop-region"), "eu-west", "whoever was asked");
            asked += 1;
            let passed_on = pod.seen().pop().unwrap();
            // The same as its own clients get, of the same request to the pod.
            let direct = post(&there.address, path, &body, &[]).await;
            assert_eq!(source(&direct), "origin", "nothing of it is stored there");
            assert_eq!(answer.body, direct.body, "{path} {body}");
            let own = pod.seen().pop().unwrap();
            let json = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap();
            assert_eq!(json(&passed_on.body), json(&own.body), "{path}");
            // It is stored here.
            let again = post(&here.address, path, &body, &[]).await;
            assert_eq!(source(&again), "l1", "{path} {body}");
            if stream {
                assert_eq!(again.streamed(), answer.streamed(), "{path} {body}");
            } else {
                assert_eq!(again.body, answer.body, "{path} {body}");
            }
        }
    }
    let lines = eventually("its lines", LIMIT, || async {
        let lines = hops(&there);
        (lines.len() >= asked).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), asked, "one each");
    assert_eq!(asked, 11);
    for line in &lines {
        assert_eq!(line["peer"], "eu-west.edges.test", "{line}");
        assert_eq!((&line["tenant"], &line["status"]), (&json!("dev"), &json!("200")), "{line}");
        assert_eq!((&line["source"], &line["attempts"]), (&json!("origin"), &json!(1)), "{line}");
    }
    // Who passes it on is charged, and nobody else; in words of its own.
    let used = async |edge: &Edge| edge.admin("/usage").await["month"]["dev"]["tokens"].as_u64();
    let (before, before_here) = (used(&there).await, used(&here).await);
    let answer = complete(&here.address, &json!({"model": "fake", "prompt": prompt()})).await;
    assert_eq!(source(&answer), "region");
    eventually("it is charged", LIMIT, || async {
        (used(&here).await > before_here).then_some(())
    })
    .await;
    assert_eq!(used(&there).await, before);
}

/// All three regions. The first has no pod that answers, the others have one each.
struct Three {
    near: Neighbours,
    here: Edge,
    next: Edge,
    _far: Edge,
}

impl Three {
    fn start(pods: [&[SocketAddr]; 2], change: impl FnOnce(&mut Value)) -> Self {
        let near = Neighbours::new(&ALL);
        let next = near.edge("eu-central", pods[0], |_| {});
        let _far = near.edge("us-west", pods[1], |_| {});
        let here = near.edge("eu-west", &[nobody()], change);
        Self { near, here, next, _far }
    }

    fn next_name(&self) -> String {
        self.near.upstream("eu-central")
    }

    /// A code request at the first.
    async fn ask(&self) -> Whole {
        complete(&self.here.address, &body(false)).await
    }
}

#[tokio::test]
async fn what_fails_there_is_told_and_done_in_the_next() {
    let act = Act::Status(500, "engine_failed");
    let pods =
        [FakePod::start(act.clone()), FakePod::start(act), FakePod::start(Act::Answer("far"))];
    let three = Three::start([&[pods[0].address, pods[1].address], &[pods[2].address]], |_| {});
    let seen = || pods[0].seen().len() + pods[1].seen().len();
    let acts = [
        // The first: on a connection that was used before it would be sent again.
        Act::Close,
        Act::Status(500, "engine_failed"),
        Act::Status(429, "queue_full"),
        Act::Garbage,
        Act::ErrorEvent,
    ];
    for (before, act) in acts.into_iter().enumerate() {
        pods[..2].iter().for_each(|pod| pod.act(act.clone()));
        let answer = three.ask().await;
        assert_eq!((source(&answer), answer.text().as_str()), ("region", "far"), "{act:?}");
        assert_eq!(seen(), before + 1, "{act:?}: one attempt there");
    }
    assert_eq!(attempts(&three.here, &three.next_name(), "busy").await, 1.0);
    assert_eq!(attempts(&three.here, &three.next_name(), "server_error").await, 4.0);
    let lines = eventually("its lines", LIMIT, || async {
        let lines = hops(&three.next);
        (lines.len() >= 5).then_some(lines)
    })
    .await;
    assert!(lines.iter().all(|line| line["attempts"] == 1 && line["status"] == "503"), "{lines:?}");
}

/// A region whose pods fail all the time is left alone: each attempt there would cost one that
/// others need.
#[tokio::test]
async fn a_region_that_fails_again_and_again_is_out() {
    let pods = [FakePod::start(Act::Status(500, "x")), FakePod::start(Act::Answer("far"))];
    let three = Three::start([&[pods[0].address], &[pods[1].address]], |config| {
        config["edge"]["retries"] = json!({"per_second": 1});
    });
    for _ in 0..30 {
        let answer = three.ask().await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let out = "nearhop_ejections_total{class=\"region\",reason=\"failures\"";
    let out = format!("{out},upstream=\"{}\"}}", three.next_name());
    assert!(three.here.metric(&out).await >= 1.0);
    assert_eq!(three.ask().await.text(), "far");
}

#[tokio::test]
async fn where_everybody_is_out_code_is_degraded_and_nobody_asks_in_circles() {
    let pods = [FakePod::start(Act::Answer("a")), FakePod::start(Act::Answer("b"))];
    let near = Neighbours::new(&[DUBLIN, FRANKFURT]);
    let edges = [
        near.edge("eu-west", &[pods[0].address], |_| {}),
        near.edge("eu-central", &[pods[1].address], |_| {}),
    ];
    until_ready(&edges[0], &near.upstream("eu-central")).await;
    until_ready(&edges[1], &near.upstream("eu-west")).await;
    drop(pods);
    for _ in 0..4 {
        for edge in &edges {
            assert_degraded(&complete(&edge.address, &body(false)).await);
            assert_degraded(&complete(&edge.address, &body(false)).await);
            let refused = post(&edge.address, "/v1/chat/completions", &chat(), &[]).await;
            // Once the level says so as well, a chat is told in words.
            let told = refused.status == StatusCode::SERVICE_UNAVAILABLE;
            assert!(told || source(&refused) == "degraded", "{:?}", refused.body);
        }
    }
    for (edge, other) in [(&edges[0], "eu-central"), (&edges[1], "eu-west")] {
        let asked = process::attempts(edge, "region").await;
        assert!(asked <= 12.0, "at most once for each of its own clients: {asked}");
        let peer = format!("{other}.edges.test");
        for line in hops(edge) {
            let own = line["upstream"].is_null() || line["upstream"] == "fake-0";
            assert!(own && line["peer"] == *peer, "it goes no further: {line}");
        }
    }
}

#[tokio::test]
async fn what_clients_say_of_hops_and_tenants_changes_nothing() {
    let pods = [FakePod::start(Act::Answer("a")), FakePod::start(Act::Answer("b"))];
    let near = Neighbours::new(&[DUBLIN, FRANKFURT]);
    let _there = near.edge("eu-central", &[pods[1].address], |_| {});
    let here = near.edge("eu-west", &[pods[0].address], |_| {});
    let forged = [
        ("x-nearhop-hop", "us-west"),
        ("x-nearhop-tenant", "other"),
        ("x-nearhop-kind", "inline"),
        ("x-nearhop-region", "us-west"),
    ];
    let ask = async || post(&here.address, "/v1/chat/completions", &chat(), &forged).await;
    let sent = |pod: &FakePod| {
        let head = pod.seen().pop().unwrap().head;
        assert!(head.contains("x-nearhop-tenant: dev\r\n"), "{head}");
        assert!(head.contains("x-nearhop-kind: chat\r\n"), "{head}");
        assert!(!head.contains("x-nearhop-hop") && !head.contains("us-west"), "{head}");
    };
    assert_eq!(source(&ask().await), "origin");
    sent(&pods[0]);
    // Who says that it was passed on is passed on all the same.
    pods[0].act(Act::Close);
    assert_eq!(source(&ask().await), "region");
    sent(&pods[1]);
    assert_eq!(pods[1].seen().len(), 1);
}

#[tokio::test]
async fn the_nearest_is_asked_and_one_that_is_drained_never() {
    let pods = [FakePod::start(Act::Answer("next")), FakePod::start(Act::Answer("far"))];
    let three = Three::start([&[pods[0].address], &[pods[1].address]], |_| {});
    for _ in 0..8 {
        assert_eq!(three.ask().await.text(), "next");
    }
    let before = pods.each_ref().map(|pod| pod.seen().len());
    assert_eq!(before, [8, 0]);
    let with_drained = |drained: &[usize]| {
        three.near.edge("eu-west", &[nobody()], |config| {
            // Another edge of the first region, of which nobody knows.
            config["edge"]["peer"]["listen"] = json!(own_address(8443));
            drained.iter().for_each(|&at| config["regions"][at]["drained"] = json!(true));
        })
    };
    let here = with_drained(&[1]);
    for _ in 0..8 {
        assert_eq!(complete(&here.address, &body(false)).await.text(), "far");
    }
    let here = with_drained(&[1, 2]);
    for _ in 0..4 {
        assert_degraded(&complete(&here.address, &body(false)).await);
    }
    assert_eq!(pods.map(|pod| pod.seen().len()), [8, 8], "not even as a last resort");
}

/// Of tenants `dev` and `free`.
fn tenants(config: &mut Value, tenants: Value) {
    let free = key("free", "free", "nh-free");
    config["access"]["keys"].as_array_mut().unwrap().push(free);
    config["access"]["tenants"] = tenants;
}

async fn ask_as(edge: &Edge, secret: &str) -> Whole {
    let mut request = request("/v1/completions", &body(false), &[]);
    let bearer = format!("Bearer {secret}").parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    send(&edge.address, request).await.unwrap().whole().await.unwrap()
}

#[tokio::test]
async fn what_may_not_leave_does_not() {
    let pods = [FakePod::start(Act::Answer("next")), FakePod::start(Act::Answer("far"))];
    let three = Three::start([&[pods[0].address], &[pods[1].address]], |config| {
        let stays = json!({"name": "dev", "egress": {"regions": ["eu-west"]}});
        let some = json!({"name": "free", "egress": {"regions": ["eu-west", "us-west"]}});
        tenants(config, json!([stays, some]));
    });
    for _ in 0..4 {
        assert_degraded(&ask_as(&three.here, "nh-dev").await);
        assert_eq!(ask_as(&three.here, "nh-free").await.text(), "far");
    }
    assert_eq!(pods[0].seen().len(), 0);
    assert_eq!((hops(&three.next), pods[1].seen().len()), (vec![], 4));
}

#[tokio::test]
async fn the_other_region_judges_by_its_own_file() {
    let pods = [FakePod::start(Act::Answer("next")), FakePod::start(Act::Answer("far"))];
    let near = Neighbours::new(&ALL);
    let _next = near.edge("eu-central", &[pods[0].address], |config| {
        // `dev` is not for here, and nobody has heard of `free`.
        let dev = json!({"name": "dev", "egress": {"regions": ["eu-west", "us-west"]}});
        config["access"]["tenants"] = json!([dev]);
    });
    let _far = near.edge("us-west", &[pods[1].address], |_| {});
    let here = near.edge("eu-west", &[nobody()], |config| {
        tenants(config, json!([{"name": "dev"}, {"name": "free"}]));
    });
    for _ in 0..4 {
        assert_eq!(ask_as(&here, "nh-dev").await.text(), "far");
        assert_eq!(ask_as(&here, "nh-free").await.text(), "far");
    }
    assert_eq!(pods[0].seen().len(), 0);
    let upstream = near.upstream("eu-central");
    assert_eq!(attempts(&here, &upstream, "unfit").await, 8.0, "it was asked each time");
    assert_eq!(standing(&here, &upstream).await["standing"], "ready", "and is well");
    let breakers = here.admin("/breakers").await;
    let breaker = breakers.as_array().unwrap().iter().find(|one| one["name"] == *upstream).unwrap();
    assert_eq!((&breaker["state"], &breaker["failures"]), (&json!("closed"), &json!(0)));
}

#[tokio::test]
async fn what_time_is_left_arrives_and_whoever_leaves_is_left_there_too() {
    let pod = FakePod::start(Act::Hang);
    let near = Neighbours::new(&[DUBLIN, FRANKFURT]);
    let there = near.edge("eu-central", &[pod.address], |_| {});
    let here = near.edge("eu-west", &[nobody()], |_| {});
    let mut cancelled = pod.cancelled();
    let (address, headers) = (here.address.clone(), [("x-nearhop-timeout-ms", "4000")]);
    let asking = tokio::spawn(async move {
        let request = request("/v1/completions", &body(true), &headers);
        send(&address, request).await.map(drop)
    });
    let seen = eventually("the pod is asked", LIMIT, || async { pod.seen().pop() }).await;
    let left = seen.head.lines().find_map(|line| line.strip_prefix("x-nearhop-timeout-ms: "));
    let left: u64 = left.unwrap().parse().unwrap();
    assert!((1..4000).contains(&left), "{left} of 4000 ms");
    asking.abort();
    timeout(LIMIT, cancelled.wait_for(|count| *count == 1)).await.unwrap().unwrap();
    // And in the middle of an answer.
    pod.act(Act::StallMidway);
    let mut answer =
        send(&here.address, request("/v1/completions", &body(true), &[])).await.unwrap();
    assert_eq!(answer.headers["x-nearhop-source"], "region");
    answer.until("half").await.unwrap();
    drop(answer);
    timeout(LIMIT, cancelled.wait_for(|count| *count == 2)).await.unwrap().unwrap();
    // It was not its time that ended it; and it says nothing of the region, nor of its pod.
    let abandoned =
        "nearhop_attempts_total{class=\"pod\",outcome=\"abandoned\",upstream=\"fake-0\"}";
    eventually("both edges have counted it", LIMIT, || async {
        let by_us = attempts(&here, &near.upstream("eu-central"), "abandoned").await;
        (by_us == 2.0 && there.metric(abandoned).await == 2.0).then_some(())
    })
    .await;
    // It is left before its time: what was asked for is told when it is over.
    pod.act(Act::Hang);
    let headers = [("x-nearhop-timeout-ms", "300")];
    let late = post(&here.address, "/v1/completions", &body(false), &headers).await;
    assert_degraded(&late);
    assert_eq!(standing(&here, &near.upstream("eu-central")).await["standing"], "ready");
}

#[tokio::test]
async fn an_edge_with_a_wrong_certificate_is_not_asked_and_it_is_told() {
    let pods = [FakePod::start(Act::Answer("next")), FakePod::start(Act::Answer("far"))];
    let mut three = Three::start([&[pods[0].address], &[pods[1].address]], |config| {
        // It is as the first check found it.
        config["edge"]["probes"] = json!({"interval": "1h"});
    });
    assert_eq!(three.ask().await.text(), "next");
    let before = pods[0].seen().len();
    let Three { near, next, .. } = &mut three;
    // Its address has to be free.
    process::signal(next.pid(), "KILL");
    next.wait();
    *next = near.named("eu-central", "eu-central.strangers.test", &[pods[0].address], |_| {});
    for _ in 0..6 {
        assert_eq!(three.ask().await.text(), "far");
    }
    assert_eq!((pods[0].seen().len(), hops(&three.next)), (before, vec![]));
    let upstream = three.next_name();
    assert_eq!(attempts(&three.here, &upstream, "our_certificate").await, 1.0);
    let events = three.here.admin("/events").await;
    let told = events.as_array().unwrap().iter().find(|event| event["kind"] == "upstream_out");
    let told = told.unwrap_or_else(|| panic!("{events}"));
    assert_eq!(told["subject"], *upstream, "{told}");
    assert_eq!(told["detail"]["reason"], "misconfigured", "{told}");
    assert!(three.here.log().contains("it refuses our credentials"), "{}", three.here.log());
}

const AB: &[&str] = &[
    r#"{"id":"f","created":1,"system_fingerprint":"fake@1","choices":[{"index":0,"text":"ab","token_ids":[1,2],"finish_reason":null}]}"#,
];
const CD: &[&str] = &[
    r#"{"id":"f","created":1,"system_fingerprint":"fake@1","choices":[{"index":0,"text":"cd","token_ids":[3],"finish_reason":null}]}"#,
];
const EF: &[&str] = &[
    r#"{"id":"f","created":1,"system_fingerprint":"fake@1","choices":[{"index":0,"text":"ef","token_ids":[4],"finish_reason":null}]}"#,
    r#"{"id":"f","created":1,"system_fingerprint":"fake@1","choices":[{"index":0,"text":"","token_ids":[],"finish_reason":"stop"}]}"#,
    r#"{"id":"f","created":1,"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":4,"total_tokens":5}}"#,
    "[DONE]",
];

#[tokio::test]
async fn a_stream_goes_on_in_another_region_and_in_the_next() {
    let [here, next, far] =
        [Act::EventsThenStall(AB), Act::EventsThenStall(CD), Act::Events(EF)].map(FakePod::start);
    let near = Neighbours::new(&ALL);
    let edges = [
        near.edge("eu-central", &[next.address], |_| {}),
        near.edge("us-west", &[far.address], |_| {}),
        near.edge("eu-west", &[here.address], |_| {}),
    ];
    let address = &edges[2].address;
    let mut answer = send(address, request("/v1/completions", &body(true), &[])).await.unwrap();
    assert_eq!(answer.headers["x-nearhop-source"], "origin", "where it began");
    answer.until("\"ab\"").await.unwrap();
    here.hang_up();
    answer.until("\"cd\"").await.unwrap();
    next.hang_up();
    let (text, done) = answer.whole().await.unwrap().streamed();
    assert_eq!((text.as_str(), done), ("ef", true));
    let resume = |pod: &FakePod| {
        let seen = pod.seen();
        assert_eq!(seen.len(), 1);
        serde_json::from_slice::<Value>(&seen[0].body).unwrap()["resume"].clone()
    };
    assert_eq!(resume(&here), Value::Null);
    assert_eq!(resume(&next), json!({"revision": "1", "token_ids": [[1, 2]]}));
    assert_eq!(resume(&far), json!({"revision": "1", "token_ids": [[1, 2, 3]]}));
    assert_eq!(edges[2].metric("nearhop_resumes_total").await, 2.0);
}

/// Another region has its own places for them: what this one's pods could take says nothing.
#[tokio::test]
async fn as_many_are_passed_on_at_once_as_the_other_region_computes() {
    let pod = FakePod::start(Act::StallThen("late"));
    pod.set_slots(8);
    let near = Neighbours::new(&[DUBLIN, FRANKFURT]);
    let _there = near.edge("eu-central", &[pod.address], |_| {});
    let here = near.edge("eu-west", &[nobody()], |_| {});
    let asked: Vec<_> = (0..12)
        .map(|_| {
            let address = here.address.clone();
            tokio::spawn(async move { post(&address, "/v1/chat/completions", &chat(), &[]).await })
        })
        .collect();
    eventually("all are there at once", LIMIT, || async { (pod.seen().len() == 12).then_some(()) })
        .await;
    pod.hang_up();
    for asked in asked {
        assert_eq!(source(&asked.await.unwrap()), "region");
    }
}

#[tokio::test]
async fn further_attempts_are_few_across_regions_too() {
    const EACH: usize = 402;
    let failing = || FakePod::start(Act::Status(500, "x"));
    let pods = [failing(), failing(), failing()];
    let near = Neighbours::new(&ALL);
    // Nothing but the budget keeps anybody from trying.
    let change = |config: &mut Value| {
        config["edge"]["retries"] = json!({"per_second": 1});
        config["edge"]["breaker"] = json!({"failures": 1000, "rate": 1.0});
    };
    let edges = [
        near.edge("eu-central", &[pods[0].address, pods[1].address], change),
        near.edge("us-west", &[pods[2].address], change),
        near.edge("eu-west", &[nobody()], change),
    ];
    let began = now();
    let mut asking = tokio::task::JoinSet::new();
    for edge in [&edges[0], &edges[2]] {
        for _ in 0..6 {
            let address = edge.address.clone();
            asking.spawn(async move {
                for _ in 0..EACH / 6 {
                    assert_degraded(&complete(&address, &body(false)).await);
                }
            });
        }
    }
    asking.join_all().await;
    let took = (now() - began).as_secs_f64();
    let made: usize = pods.iter().map(|pod| pod.seen().len()).sum();
    let requests = 2.0 * EACH as f64;
    // What is not used is kept for ten seconds: those before count as well.
    let most = 1.2 * requests + 3.0 * (took + 11.0);
    say(&format!("{made} attempts for {requests} requests that all fail, in {took:.1} s"));
    assert!(made as f64 <= most, "{made} attempts, at most {most:.0}");
    assert!(made as f64 > requests, "and some were tried again: {made}");
}

const POP: Place = ("fra-pop", [50.1, 8.7]);

#[tokio::test]
async fn a_point_of_presence_keeps_one_connection_to_its_home() {
    const AT_ONCE: usize = 24;
    let pod = FakePod::start(Act::Answer("home"));
    pod.set_slots(AT_ONCE);
    let near = Neighbours::new(&[POP, DUBLIN]);
    let home = near.edge("eu-west", &[pod.address], |_| {});
    let pop = near.edge("fra-pop", &[], |config| {
        config["edge"].as_object_mut().unwrap().remove("pods");
        // Checks have connections of their own.
        config["edge"]["probes"] = json!({"interval": "1h"});
    });
    let key = [("authorization", "Bearer nh-dev")];
    let models = async |edge: &Edge| {
        let mut told = get(&edge.address, "/v1/models", &key).await.unwrap().json();
        // Which is when the edge was started.
        told["data"][0].as_object_mut().unwrap().remove("created");
        told
    };
    assert_eq!(models(&pop).await, models(&home).await);
    let known = body(false);
    let answer = complete(&pop.address, &known).await;
    assert_eq!((source(&answer), answer.text().as_str()), ("region", "home"));
    assert_eq!(answer.header("x-nearhop-region"), "fra-pop");
    assert_eq!(source(&complete(&pop.address, &known).await), "l1");
    let connections = async || home.metric("nearhop_connections").await;
    eventually("one is open", LIMIT, || async { (connections().await == 1.0).then_some(()) }).await;
    pod.act(Act::StallThen("late"));
    let asked: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let address = pop.address.clone();
            tokio::spawn(async move { post(&address, "/v1/chat/completions", &chat(), &[]).await })
        })
        .collect();
    eventually("all are there at once", LIMIT, || async {
        (pod.seen().len() == AT_ONCE + 1).then_some(())
    })
    .await;
    assert_eq!(connections().await, 1.0);
    pod.hang_up();
    for asked in asked {
        assert_eq!(source(&asked.await.unwrap()), "region");
    }
}

#[tokio::test]
async fn a_point_of_presence_outlives_its_home() {
    let pods = [FakePod::start(Act::Answer("home")), FakePod::start(Act::Answer("far"))];
    let near = Neighbours::new(&[POP, DUBLIN, OREGON]);
    let home = near.edge("eu-west", &[pods[0].address], |_| {});
    let far = near.edge("us-west", &[pods[1].address], |_| {});
    let pop = near.edge("fra-pop", &[], |config| {
        config["edge"].as_object_mut().unwrap().remove("pods");
    });
    let ready = async || get(&pop.admin, "/readyz", &[]).await.unwrap().status == StatusCode::OK;
    let ask = async || complete(&pop.address, &body(false)).await;
    assert_eq!(ask().await.text(), "home");
    drop(home);
    for _ in 0..10 {
        assert_eq!(ask().await.text(), "far", "not one is lost");
    }
    assert!(ready().await);
    drop(far);
    for _ in 0..4 {
        assert_degraded(&ask().await);
    }
    eventually("it says so", LIMIT, || async { (!ready().await).then_some(()) }).await;
    let _home = near.edge("eu-west", &[pods[0].address], |_| {});
    eventually("home is back", LIMIT, || async {
        (ready().await && ask().await.text() == "home").then_some(())
    })
    .await;
}
