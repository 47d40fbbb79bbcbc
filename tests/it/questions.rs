//! The semantic cache on questions as developers ask them, each once, and repeated as users repeat: how
//! much it answers, and how much of that is wrong; beside plain similarity and exact repetition, on the
//! very same stream. Half of the questions was written after the rules were made, by others who had not
//! seen them: its figures are the ones that count. `tests/data/questions/README.md` tells which.

use std::collections::HashMap;

use nearhop_test_replay::{Draw, Figures, replay, texts};
use nearhop_wire::{embedding_body, embedding_vectors};
use serde_json::json;

use crate::support::{
    client::{self, LIMIT},
    eventually,
    process::{has_models, say, soaking},
    questions::{self, Intent},
    semantic::Rig,
};

/// Questions of a replay.
const ASKED: usize = 3000;
/// Of them, those that only look like another.
const NEAR: f64 = 0.3;

/// Draws as users ask: few intents often (Zipf, exponent 1), and of each few ways to say it.
fn stream(intents: &[Intent], seed: u64) -> Vec<Draw> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut order: Vec<usize> = (0..intents.len()).collect();
    dice.shuffle(&mut order);
    let zipf = |dice: &mut fastrand::Rng, n: usize| {
        let total: f64 = (1..=n).map(|rank| 1.0 / rank as f64).sum();
        let mut left = dice.f64() * total;
        (1..n)
            .find(|rank| {
                left -= 1.0 / *rank as f64;
                left < 0.0
            })
            .unwrap_or(n)
            - 1
    };
    (0..ASKED)
        .map(|_| {
            let intent = &intents[order[zipf(&mut dice, order.len())]];
            if dice.f64() < NEAR {
                let at = dice.usize(..intent.near.len());
                let answer = format!("{}, but {at}", intent.title);
                Draw { text: intent.near[at].1.clone(), answer }
            } else {
                let at = zipf(&mut dice, intent.same.len());
                Draw { text: intent.same[at].clone(), answer: intent.title.clone() }
            }
        })
        .collect()
}

/// Every question, each once: what is served was never asked in these words.
fn each_once(intents: &[Intent], seed: u64) -> Vec<Draw> {
    let mut draws: Vec<Draw> = Vec::new();
    for intent in intents {
        let same = intent.same.iter().map(|text| (text, intent.title.clone()));
        let near = intent.near.iter().enumerate();
        let near = near.map(|(at, (_, text))| (text, format!("{}, but {at}", intent.title)));
        let draw = |(text, answer): (&String, String)| Draw { text: text.clone(), answer };
        draws.extend(same.chain(near).map(draw));
    }
    fastrand::Rng::with_seed(seed).shuffle(&mut draws);
    draws
}

/// The vectors of all texts, as they are embedded.
async fn embed(rig: &Rig, draws: &[Draw]) -> HashMap<String, Vec<f32>> {
    let texts: Vec<String> = texts(draws).into_iter().collect();
    let listen = rig.embedder().await;
    let mut vectors = HashMap::new();
    for texts in texts.chunks(64) {
        let some: Vec<&str> = texts.iter().map(String::as_str).collect();
        let body = serde_json::from_slice(&embedding_body("embed", &some, false)).unwrap();
        let answer = eventually("the embedder answers", LIMIT, || async {
            let answer = client::post(&listen, "/v1/embeddings", &body, &[]).await;
            (answer.status == 200).then_some(answer)
        });
        let values = embedding_vectors(&answer.await.body, some.len()).unwrap();
        vectors.extend(texts.iter().cloned().zip(values));
    }
    vectors
}

fn show(figures: &Figures, name: &str, asked: usize) {
    say(&format!("{name}: {asked} questions"));
    for (policy, done) in [
        ("exact repetition", figures.exact),
        ("cosine 0.95", figures.cosine),
        ("the rules", figures.rules),
        ("  beyond exact", figures.beyond_exact),
        ("as users get it", figures.users),
    ] {
        say(&format!("  {policy:17} {}", done.told(asked)));
    }
    say(&format!("  proven after {:?}", figures.proven_after));
}

/// Whether each question once, or as users repeat them.
#[derive(Debug, Clone, Copy)]
enum Order {
    Once,
    Repeated,
}

async fn replayed(rig: &Rig, files: &[&str], order: Order) -> Figures {
    let intents = questions::read(files);
    assert!(intents.len() >= 400, "{}", intents.len());
    let draws = match order {
        Order::Once => each_once(&intents, 5),
        Order::Repeated => stream(&intents, 11),
    };
    let vectors = embed(rig, &draws).await;
    let figures = replay(&draws, &vectors, || 0);
    show(&figures, &format!("{} …, {order:?}", files[0]), draws.len());
    figures
}

const SEEN: [&str; 4] = ["first-a.txt", "first-b.txt", "second-a.txt", "second-b.txt"];
const UNSEEN: [&str; 4] = ["unseen-a.txt", "unseen-b.txt", "unseen-c.txt", "unseen-d.txt"];

fn rig() -> Rig {
    Rig::with(|_| String::new(), |config, _| config["edge"]["local"]["threads"] = json!(2))
}

#[tokio::test]
async fn of_what_users_repeat_few_answers_are_wrong_on_questions_that_the_rules_never_saw() {
    if !has_models() {
        return;
    }
    let figures = replayed(&rig(), &UNSEEN, Order::Repeated).await;
    assert_eq!(figures.exact.wrong, 0, "the same text has the same answer");
    assert!(
        figures.rules.served > figures.exact.served && figures.beyond_exact.served > 20,
        "{figures:?}"
    );
    assert!(
        figures.beyond_exact.wrong_share().0 <= 0.02 && figures.users.wrong_share().0 <= 0.02,
        "{figures:?}"
    );
    assert!(figures.users.served > 1000 && figures.proven_after.is_some(), "{figures:?}");
    let (plain, ours) = (figures.cosine.wrong_share().0, figures.rules.wrong_share().0);
    assert!(plain > 5.0 * ours && plain > 0.02, "{figures:?}");
}

/// Where nothing is repeated, all that is served was asked in other words.
#[tokio::test]
async fn where_each_question_is_asked_once_few_answers_are_wrong() {
    if !has_models() || !soaking() {
        return;
    }
    let rig = rig();
    for order in [Order::Once, Order::Repeated] {
        replayed(&rig, &SEEN, order).await;
    }
    let figures = replayed(&rig, &UNSEEN, Order::Once).await;
    let (share, most) = figures.rules.wrong_share();
    assert!(share <= 0.02 && most <= 0.04 && figures.rules.served >= 150, "{figures:?}");
    let (plain, _) = figures.cosine.wrong_share();
    assert!(plain > 5.0 * share && plain > 0.05, "{figures:?}");
}
