//! The semantic cache on questions as developers ask them, each once, and repeated as users repeat: how
//! much it answers, and how much of that is wrong; beside plain similarity and exact repetition, on the
//! very same stream. Half of the questions was written after the rules were made, by others who had not
//! seen them: its figures are the ones that count. `tests/data/questions/README.md` tells which.

use std::{collections::HashMap, sync::Arc, time::Duration};

use nearhop_edge_cache::{
    Around, Asked, Asker, Entry, Namer, Question, Validity,
    semantic::{
        Age, Arena, Cache, Demand, How, Judged, Models, Policy, Room, Secrets, Settings, Sharing,
        Site, Stage, Vector, Verdict,
    },
};
use nearhop_wire::{
    Answer, Choice, CompletionRequest, Endpoint, Finish, Head, ModelReport, Usage, embedding_body,
    embedding_vectors,
};
use serde_json::json;

use crate::support::{
    client::{self, LIMIT},
    eventually,
    process::{has_models, say, soaking},
    questions::{self, Intent},
    semantic::Rig,
};

const SECOND: Duration = Duration::from_secs(1);
/// Of MiniLM.
const DIMENSIONS: usize = 384;
/// Questions of a replay.
const ASKED: usize = 3000;
/// Of them, those that only look like another.
const NEAR: f64 = 0.3;

/// One question of the stream: its text, and which answer is right.
struct Draw<'a> {
    text: &'a str,
    answer: String,
}

/// Draws as users ask: few intents often (Zipf, exponent 1), and of each few ways to say it.
fn stream(intents: &[Intent], seed: u64) -> Vec<Draw<'_>> {
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
                Draw { text: &intent.near[at].1, answer }
            } else {
                let at = zipf(&mut dice, intent.same.len());
                Draw { text: &intent.same[at], answer: intent.title.clone() }
            }
        })
        .collect()
}

/// Every question, each once: what is served was never asked in these words.
fn each_once(intents: &[Intent], seed: u64) -> Vec<Draw<'_>> {
    let mut draws: Vec<Draw<'_>> = Vec::new();
    for intent in intents {
        let same = intent.same.iter().map(|text| (text, intent.title.clone()));
        let near = intent.near.iter().enumerate();
        let near = near.map(|(at, (_, text))| (text, format!("{}, but {at}", intent.title)));
        draws.extend(same.chain(near).map(|(text, answer)| Draw { text, answer }));
    }
    fastrand::Rng::with_seed(seed).shuffle(&mut draws);
    draws
}

/// What a policy did.
#[derive(Debug, Default, Clone, Copy)]
struct Done {
    served: usize,
    wrong: usize,
}

impl Done {
    fn count(&mut self, right: bool) {
        self.served += 1;
        self.wrong += usize::from(!right);
    }

    /// Of what was served: the share that was wrong, and the most that may be with a confidence of
    /// 95 % (Wilson).
    fn wrong(self) -> (f64, f64) {
        let (n, z) = (self.served.max(1) as f64, 1.645f64);
        let share = self.wrong as f64 / n;
        let middle = share + z * z / (2.0 * n);
        let spread = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
        (share, (middle + spread) / (1.0 + z * z / n))
    }

    fn told(self, asked: usize) -> String {
        let (share, most) = self.wrong();
        format!(
            "{:5.1} % served, {:5.2} % of that wrong (at most {:.2} %: {} of {})",
            100.0 * self.served as f64 / asked as f64,
            100.0 * share,
            100.0 * most,
            self.wrong,
            self.served
        )
    }
}

/// All policies on one stream.
#[derive(Debug, Default)]
struct Figures {
    exact: Done,
    cosine: Done,
    /// The rules alone, as if the route had been proven from the start.
    rules: Done,
    /// What users would have got: after the proof, and less what is generated all the same.
    ours: Done,
    /// Of `rules`, what plain exact repetition would not have served.
    more: Done,
    proven_after: Option<usize>,
}

fn model() -> ModelReport {
    ModelReport {
        name: "m".into(),
        revision: "1".into(),
        template: "t".into(),
        temperature: 0.0,
        max_tokens: 64,
        context_length: 4096,
        aliases: Vec::new(),
        suffix_first: false,
    }
}

fn request(text: &str) -> CompletionRequest {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": text }] });
    CompletionRequest::parse(Endpoint::Chat, body.to_string().as_bytes()).unwrap()
}

const ASKER: Asker<'static> = Asker { tenant: "t", key: "k", user: None };

fn site(cache: &Cache, text: &str) -> Option<(Site, Asked, Question)> {
    let (request, model) = (request(text), model());
    let question = Question::of(&request, ASKER, &model, &Namer::default());
    let (_, asked) = Asked::of(&question, Around::of(&request)).unwrap();
    let models = Models { model: &model, embedder: "e@1" };
    let site = cache.site(&request, ASKER, models, question.tags).ok()?;
    Some((site, asked, question))
}

fn entry(asked: Asked, question: &Question, text: &str, now: Duration) -> Entry {
    let head = Head {
        id: "c".into(),
        created: 1,
        model: "m".into(),
        fingerprint: "m@1".into(),
        endpoint: Endpoint::Chat,
    };
    let choices = vec![Choice { text: text.into(), finish: Finish::Stop, logprobs: Vec::new() }];
    let answer = Answer { head, choices, usage: Usage::default() };
    Entry::new(asked, &answer, (0, question.tags), now).unwrap()
}

fn cache() -> Cache {
    let settings = Settings {
        policy: Policy { floor: 0.95, sure: 0.97, wrong: 0.02 },
        demand: Demand { wrong: 0.02, judged: 300 },
        sharing: Sharing::User,
        room: Room {
            bytes: 64 << 20,
            tenant_bytes: 64 << 20,
            tenant_entries: 100_000,
            owner_entries: 100_000,
            owner_writes: 100_000,
        },
        ttl: 86_400 * SECOND,
        judge: 0,
    };
    Cache::new(settings, Secrets::of(b"replay"), Arc::new(Validity::new(3600 * SECOND)))
}

/// Whom each policy answers, and with what, over a stream whose texts have `vectors`.
fn replay(draws: &[Draw<'_>], vectors: &HashMap<String, Vec<f32>>, explore: f64) -> Figures {
    let mut figures = Figures::default();
    let cache = cache();
    let mut dice = fastrand::Rng::with_seed(7);
    let mut exact: HashMap<&str, &str> = HashMap::new();
    let (mut plain, mut answers) = (Arena::new(DIMENSIONS), Vec::new());
    for (at, draw) in draws.iter().enumerate() {
        let now = SECOND * u32::try_from(at).unwrap();
        let repeated = exact.contains_key(draw.text);
        // Exact repetition.
        match exact.get(draw.text) {
            Some(answer) => figures.exact.count(*answer == draw.answer),
            None => {
                exact.insert(draw.text, &draw.answer);
            }
        }
        let Some((site, asked, question)) = site(&cache, draw.text) else { continue };
        let values = &vectors[&site.text];
        let vector = Vector::new(values, DIMENSIONS).unwrap();
        // Plain similarity over the same questions.
        match plain.nearest(&vector, 1).first() {
            Some((at, similarity)) if *similarity >= 0.95 => {
                let answer: &String = answers[usize::try_from(*at).unwrap()];
                figures.cosine.count(*answer == draw.answer);
            }
            _ => {
                plain.insert(answers.len() as u64, &vector).unwrap();
                answers.push(&draw.answer);
            }
        }
        // Ours.
        let policy = cache.settings().policy;
        let (candidate, serves) = match cache.exact(&site, Age::Fresh, now) {
            Some(found) => (Some((found.id, 1.0)), Some(How::Exact)),
            None => {
                let near = cache.near(&site, &vector, (policy, Age::Fresh), now);
                let serves = matches!(near.verdict, Verdict::Serve(..));
                (near.candidate(), serves.then_some(How::Similar))
            }
        };
        let earlier = candidate.and_then(|(id, _)| cache.open(id, now));
        let right = earlier.as_ref().is_some_and(|earlier| earlier.entry.text() == draw.answer);
        let proven = serves.is_some_and(|how| cache.stage(&site, how) == Stage::Proven);
        if serves.is_some() {
            figures.rules.count(right);
            if !repeated {
                figures.more.count(right);
            }
        }
        if proven && dice.f64() >= explore {
            figures.ours.count(right);
            continue;
        }
        // The model answers, and that is learned.
        if let Some(candidate) = candidate {
            let judged = Judged { right, equal: right, of: serves };
            let stage = cache.judged((&site, ("t", "m@1")), candidate, judged, now);
            if stage == Some(Stage::Proven) {
                figures.proven_after.get_or_insert(at + 1);
            }
        }
        let like = candidate.filter(|_| right).map(|(id, _)| id);
        let entry = entry(asked, &question, &draw.answer, now);
        cache.keep((&site, &vector), &entry, like, now).unwrap();
    }
    figures
}

/// The vectors of all texts, as they are embedded.
async fn embed(rig: &Rig, draws: &[Draw<'_>]) -> HashMap<String, Vec<f32>> {
    let cache = cache();
    let mut texts: Vec<String> =
        draws.iter().filter_map(|draw| Some(site(&cache, draw.text)?.0.text)).collect();
    texts.sort();
    texts.dedup();
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
        ("  beyond exact", figures.more),
        ("as users get it", figures.ours),
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
    let figures = replay(&draws, &vectors, 0.05);
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
    assert!(figures.rules.served > figures.exact.served && figures.more.served > 20, "{figures:?}");
    assert!(figures.more.wrong().0 <= 0.02 && figures.ours.wrong().0 <= 0.02, "{figures:?}");
    assert!(figures.ours.served > 1000 && figures.proven_after.is_some(), "{figures:?}");
    let (plain, ours) = (figures.cosine.wrong().0, figures.rules.wrong().0);
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
    let (share, most) = figures.rules.wrong();
    assert!(share <= 0.02 && most <= 0.04 && figures.rules.served >= 150, "{figures:?}");
    let (plain, _) = figures.cosine.wrong();
    assert!(plain > 5.0 * share && plain > 0.05, "{figures:?}");
}
