//! More is asked than pods can do: what they can do is done, in the order of classes, and the others
//! are told at once when to come back.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    client::post,
    dice::Dice,
    eventually,
    fake_pod::FakePod,
    now,
    process::{Edge, say, soaking},
    unique,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Two pods of five, 200 ms each.
const CAPACITY: f64 = 50.0;
const CLASSES: [&str; 4] = ["inline", "fim", "chat", "agent"];

/// What became of the requests of a class.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    asked: usize,
    good: usize,
    shed: usize,
    degraded: usize,
    other: usize,
}

fn request(class: &str) -> (&'static str, Value) {
    match class {
        "inline" => ("/v1/completions", json!({"model": "fake", "prompt": unique()})),
        "fim" => ("/v1/completions", json!({"model": "fake", "prompt": unique(), "suffix": "\n"})),
        _ => {
            let messages = json!([{"role": "user", "content": unique()}]);
            ("/v1/chat/completions", json!({"model": "fake", "messages": messages}))
        }
    }
}

async fn ask(edge: String, class: &'static str) -> (&'static str, Tally) {
    let (path, body) = request(class);
    let kind = [("x-nearhop-kind", class)];
    let mut tally = Tally { asked: 1, ..Tally::default() };
    let answer = post(&edge, path, &body, &kind).await;
    match (answer.status, answer.header("x-nearhop-source")) {
        (StatusCode::OK, "origin") => tally.good = 1,
        (StatusCode::OK, "degraded" | "cache_fallback") => tally.degraded = 1,
        (StatusCode::SERVICE_UNAVAILABLE, _) => {
            let later: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1..=60).contains(&later), "{later}");
            tally.shed = 1;
        }
        // A conversation that waited to its end.
        (StatusCode::GATEWAY_TIMEOUT, _) => tally.degraded = 1,
        _ => tally.other = 1,
    }
    (class, tally)
}

/// Asks `rate` times a second for `seconds`, whether answers come or not; in the shares of the load
/// test scenarios.
async fn flood(edge: &Edge, rate: f64, seconds: f64, seed: u64) -> BTreeMap<&'static str, Tally> {
    let (mut dice, mut asking, began) = (Dice::of(seed, &["flood"]), JoinSet::new(), now());
    let mut at = 0.0;
    while at < seconds {
        // Poisson arrivals.
        let draw = u32::try_from(dice.below(1_000_000)).unwrap();
        at -= (1.0 - f64::from(draw) / 1e6).ln() / rate;
        let class = match dice.below(100) {
            0..70 => "inline",
            70..85 => "fim",
            85..95 => "chat",
            _ => "agent",
        };
        tokio::time::sleep_until((began + Duration::from_secs_f64(at)).into()).await;
        asking.spawn(ask(edge.address.clone(), class));
    }
    let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
    while let Some(done) = asking.join_next().await {
        let (class, one) = done.unwrap();
        let all = tallies.entry(class).or_default();
        all.asked += one.asked;
        all.good += one.good;
        all.shed += one.shed;
        all.degraded += one.degraded;
        all.other += one.other;
    }
    tallies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pods_can_do_is_done_however_much_is_asked() {
    let pods = [(); 2].map(|()| FakePod::working(5, Duration::from_millis(200)));
    let edge = Edge::start(&pods.each_ref().map(|pod| pod.address), |edge| {
        edge["deadlines"] = json!({"inline": "3s", "fim": "4s", "chat": "8s", "agent": "8s"});
    });
    let (seconds, loads) = match soaking() {
        true => (30.0, vec![1.0, 2.0, 4.0, 10.0]),
        false => (4.0, vec![1.0, 4.0]),
    };
    let mut table = vec![
        "| load | class | asked | answered | answered a second | shed | degraded | other |"
            .to_owned(),
    ];
    for (at, load) in loads.iter().enumerate() {
        let began = now();
        let tallies = flood(&edge, load * CAPACITY, seconds, at as u64).await;
        let took = (now() - began).as_secs_f64();
        let mut all = Tally::default();
        let mut line = |class: &str, tally: &Tally| {
            let Tally { asked, good, shed, degraded, other } = *tally;
            #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
            let rate = good as f64 / took;
            table.push(format!(
                "| {load}× | {class} | {asked} | {good} | {rate:.1} | {shed} | {degraded} | {other} |"
            ));
        };
        for class in CLASSES {
            let tally = tallies.get(class).copied().unwrap_or_default();
            line(class, &tally);
            all.asked += tally.asked;
            all.good += tally.good;
            all.shed += tally.shed;
            all.degraded += tally.degraded;
            all.other += tally.other;
        }
        line("all", &all);
        // However slow the machine: everybody was told something, and something was done.
        assert_eq!(all.other, 0, "{tallies:?}");
        assert_eq!(all.asked, all.good + all.shed + all.degraded, "{tallies:?}");
        assert!(all.good > 0 && tallies["inline"].good > 0, "{tallies:?}");
        if *load >= 4.0 {
            assert!(all.shed > 0, "{tallies:?}");
        }
    }
    let began = now();
    eventually("it is as before", LIMIT, || async {
        let mut good = true;
        for _ in 0..5 {
            good &= ask(edge.address.clone(), "inline").await.1.good == 1;
        }
        good.then_some(())
    })
    .await;
    table.push(format!(
        "five good answers in a row {:.1} s after the flood",
        (now() - began).as_secs_f64()
    ));
    say(&table.join("\n"));
    // An answer's reader may be faster than who counts it.
    eventually("nothing is in progress", LIMIT, || async {
        (edge.metric("nearhop_requests_in_progress").await == 0.0).then_some(())
    })
    .await;
    assert!(edge.metric("nearhop_shed_total{kind=\"inline\"}").await > 0.0);
    for pod in edge.pods().await.as_array().unwrap() {
        assert_eq!(pod["ready"], true, "load takes no pod out: {pod}");
    }
}
