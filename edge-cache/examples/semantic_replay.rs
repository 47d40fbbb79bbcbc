//! What the semantic cache does with a stream of questions whose right answers are known, beside
//! plain similarity and exact repetition on the very same stream; and how much memory an entry takes.
//! Run it with `--release`; one JSON line.
//!
//! ```text
//! semantic_replay texts DRAWS             the texts that are embedded, each once
//! semantic_replay replay DRAWS VECTORS    who would have been answered, and who wrongly
//! semantic_replay fill ENTRIES            what so many distinct entries take
//! ```
//!
//! DRAWS is a JSON list of `[question, answer]`; VECTORS are rows of 384 little-endian f32 of those
//! texts, in their order. Embedding is left to whoever runs this, so that others can be given the
//! same vectors. Time is the thread's own, for others run on this machine too.

#![expect(clippy::print_stdout, reason = "standard output is where a benchmark's result belongs")]

use std::{
    collections::{BTreeSet, HashMap},
    env,
    error::Error,
    fs,
    hint::black_box,
    sync::Arc,
    thread,
    time::Duration,
};

use fastrand::Rng;
use nearhop_admin::clock;
use nearhop_edge_cache::{
    Around, Asked, Asker, Entry, Namer, Question, Validity,
    semantic::{
        Age, Cache, Demand, How, Judged, Models, Policy, Room, Secrets, Settings, Sharing, Site,
        Stage, Vector, Verdict,
    },
};
use nearhop_wire::{Answer, Choice, CompletionRequest, Endpoint, Finish, Head, ModelReport, Usage};
use serde_json::{Value, json};

const DIMENSIONS: usize = 384;
const SECOND: Duration = Duration::from_secs(1);
/// What plain similarity takes for the same.
const COSINE: f32 = 0.95;
/// Of what could be served, generated all the same.
const EXPLORE: f64 = 0.05;
const ASKER: Asker<'static> = Asker { tenant: "t", key: "k", user: None };
/// Of an answer, where memory is measured.
const ANSWER_BYTES: usize = 1000;

type Draw = (String, String);
type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let said = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["texts", draws] => json!(texts(&read(draws)?)),
        ["replay", draws, vectors] => {
            let draws = read(draws)?;
            replay(&draws, &rows(&fs::read(vectors)?, texts(&draws))?)?
        }
        ["fill", entries] => fill(entries.parse()?)?,
        _ => return Err("semantic_replay texts|replay|fill; see its source".into()),
    };
    println!("{said}");
    Ok(())
}

fn read(file: &str) -> Result<Vec<Draw>, Failure> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// What is embedded of a stream.
fn texts(draws: &[Draw]) -> BTreeSet<String> {
    let (cache, model) = (cache(), model());
    draws.iter().filter_map(|(text, _)| Some(asked(&cache, &model, text)?.0.text)).collect()
}

fn rows(bytes: &[u8], texts: BTreeSet<String>) -> Result<HashMap<String, Vec<f32>>, Failure> {
    let numbers = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let numbers: Vec<f32> = numbers.collect();
    if numbers.len() != texts.len() * DIMENSIONS {
        return Err(format!("{} texts have {} numbers", texts.len(), numbers.len()).into());
    }
    Ok(texts.into_iter().zip(numbers.chunks_exact(DIMENSIONS).map(<[f32]>::to_vec)).collect())
}

/// What a policy did.
#[derive(Default)]
struct Done {
    served: usize,
    wrong: usize,
}

impl Done {
    fn count(&mut self, right: bool) {
        self.served += 1;
        self.wrong += usize::from(!right);
    }

    fn json(&self) -> Value {
        json!({ "served": self.served, "wrong": self.wrong })
    }
}

/// As `tests/it/questions.rs` does.
fn replay(draws: &[Draw], vectors: &HashMap<String, Vec<f32>>) -> Result<Value, Failure> {
    let (cache, model, mut dice) = (cache(), model(), Rng::with_seed(7));
    let policy = cache.settings().policy;
    let (mut exact, mut cosine) = (Done::default(), Done::default());
    // As if the route had been proven from the start; what users get; what exact repetition has not.
    let (mut rules, mut users, mut beyond) = (Done::default(), Done::default(), Done::default());
    let mut repeated: HashMap<&str, &str> = HashMap::new();
    let mut plain: Vec<(&[f32], &str)> = Vec::new();
    let (mut proven_after, mut unsuited) = (None, 0);
    let mut times_ns = Vec::with_capacity(draws.len());
    for (at, (text, answer)) in draws.iter().enumerate() {
        let now = SECOND * u32::try_from(at)?;
        let seen = repeated.get(text.as_str()).copied();
        match seen {
            Some(earlier) => exact.count(earlier == answer),
            None => {
                repeated.insert(text, answer);
            }
        }
        let request = request(text);
        let question = question(&request, &model);
        let start = cpu_ns();
        let Ok(site) = cache.site(&request, ASKER, models(&model), question.tags) else {
            unsuited += 1;
            continue;
        };
        let values = vectors.get(&site.text).ok_or("a text has no vector")?;
        let vector = Vector::new(values, DIMENSIONS)?;
        let (candidate, serves) = match cache.exact(&site, Age::Fresh, now) {
            Some(found) => (Some((found.id, 1.0)), Some(How::Exact)),
            None => {
                let near = cache.near(&site, &vector, (policy, Age::Fresh), now);
                let serves = matches!(near.verdict, Verdict::Serve(..));
                (near.candidate(), serves.then_some(How::Similar))
            }
        };
        let earlier = black_box(candidate.and_then(|(id, _)| cache.open(id, now)));
        times_ns.push(cpu_ns() - start);

        let dot = |other: &[f32]| values.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let nearest = plain.iter().map(|(vector, answer)| (dot(vector), *answer));
        match nearest.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((similarity, earlier)) if similarity >= COSINE => cosine.count(earlier == answer),
            _ => plain.push((values, answer)),
        }

        let right = earlier.is_some_and(|earlier| earlier.entry.text() == answer);
        let proven = serves.is_some_and(|how| cache.stage(&site, how) == Stage::Proven);
        if serves.is_some() {
            rules.count(right);
            if seen.is_none() {
                beyond.count(right);
            }
        }
        if proven && dice.f64() >= EXPLORE {
            users.count(right);
            continue;
        }
        if let Some(candidate) = candidate {
            let judged = Judged { right, equal: right, of: serves };
            let stage = cache.judged((&site, ("t", "m@1")), candidate, judged, now);
            if stage == Some(Stage::Proven) {
                proven_after.get_or_insert(at + 1);
            }
        }
        let like = candidate.filter(|_| right).map(|(id, _)| id);
        let (_, asked) = Asked::of(&question, Around::of(&request)).map_err(|_skip| "no place")?;
        let entry = entry(asked, &question, answer, now)?;
        cache
            .keep((&site, &vector), &entry, like, now)
            .map_err(|why| format!("not kept: {}", why.name()))?;
    }
    Ok(json!({
        "asked": draws.len(), "unsuited": unsuited, "proven_after": proven_after,
        "exact": exact.json(), "cosine": cosine.json(),
        "rules": rules.json(), "users": users.json(), "beyond_exact": beyond.json(),
        "cpu_us_p50": percentile(&mut times_ns, 50), "cpu_us_p99": percentile(&mut times_ns, 99),
        "of_it_reading_the_clock_us": clock_us(),
    }))
}

/// Entries whose questions have nothing in common but their user, with answers that hardly compress.
fn fill(entries: usize) -> Result<Value, Failure> {
    let (cache, model, mut random) = (cache(), model(), Rng::with_seed(1));
    let word = |random: &mut Rng| -> String {
        (0..random.usize(6..12)).map(|_| random.lowercase()).collect()
    };
    let mut words =
        |count: usize| (0..count).map(|_| word(&mut random)).collect::<Vec<_>>().join(" ");
    let made: Vec<(String, String)> = (0..entries)
        .map(|_| {
            let mut answer = words(ANSWER_BYTES / 6);
            answer.truncate(ANSWER_BYTES);
            (format!("How does {} work?", words(8)), answer)
        })
        .collect();
    let mut random = Rng::with_seed(2);
    let resident = resident_bytes();
    for (text, answer) in &made {
        let request = request(text);
        let question = question(&request, &model);
        let site = cache.site(&request, ASKER, models(&model), question.tags);
        let site = site.map_err(|why| format!("{text}: {}", why.name()))?;
        let (_, asked) = Asked::of(&question, Around::of(&request)).map_err(|_skip| "no place")?;
        let values: Vec<f32> = (0..DIMENSIONS).map(|_| random.f32() - 0.5).collect();
        let entry = entry(asked, &question, answer, SECOND)?;
        cache
            .keep((&site, &Vector::new(&values, DIMENSIONS)?), &entry, None, SECOND)
            .map_err(|why| format!("not kept: {}", why.name()))?;
    }
    let resident = resident_bytes().saturating_sub(resident);
    let held = cache.held();
    Ok(json!({
        "entries": held.entries, "answer_bytes": ANSWER_BYTES,
        "bytes_counted": held.bytes as f64 / held.entries.max(1) as f64,
        "bytes_resident": resident as f64 / held.entries.max(1) as f64,
    }))
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

const fn models(model: &ModelReport) -> Models<'_> {
    Models { model, embedder: "e@1" }
}

fn request(text: &str) -> CompletionRequest {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": text }] });
    CompletionRequest::parse(Endpoint::Chat, body.to_string().as_bytes())
        .expect("it is a request of a chat")
}

fn question(request: &CompletionRequest, model: &ModelReport) -> Question {
    Question::of(request, ASKER, model, &Namer::default())
}

fn asked(cache: &Cache, model: &ModelReport, text: &str) -> Option<(Site, Question)> {
    let request = request(text);
    let question = question(&request, model);
    let site = cache.site(&request, ASKER, models(model), question.tags).ok()?;
    Some((site, question))
}

fn entry(asked: Asked, question: &Question, text: &str, now: Duration) -> Result<Entry, Failure> {
    let head = Head {
        id: "c".into(),
        created: 1,
        model: "m".into(),
        fingerprint: "m@1".into(),
        endpoint: Endpoint::Chat,
    };
    let choices = vec![Choice { text: text.into(), finish: Finish::Stop, logprobs: Vec::new() }];
    let answer = Answer { head, choices, usage: Usage::default() };
    Entry::new(asked, &answer, (0, question.tags), now)
        .map_err(|skip| format!("no entry: {}", skip.name()).into())
}

/// As the edge has it by default, but for room.
fn cache() -> Cache {
    let settings = Settings {
        policy: Policy { floor: 0.95, sure: 0.97, wrong: 0.02 },
        demand: Demand { wrong: 0.02, judged: 300 },
        sharing: Sharing::User,
        room: Room {
            bytes: 1 << 30,
            tenant_bytes: 1 << 30,
            tenant_entries: 1_000_000,
            owner_entries: 1_000_000,
            owner_writes: 1_000_000,
        },
        ttl: 86_400 * SECOND,
        judge: 0,
    };
    Cache::new(settings, Secrets::of(b"replay"), Arc::new(Validity::new(3600 * SECOND)))
}

/// In microseconds.
fn percentile(values_ns: &mut [u64], percent: usize) -> f64 {
    values_ns.sort_unstable();
    let at = values_ns.len().saturating_sub(1) * percent / 100;
    values_ns.get(at).map_or(0.0, |ns| *ns as f64 / 1e3)
}

fn clock_us() -> f64 {
    let mut readings_ns: Vec<u64> = (0..500)
        .map(|_| {
            let start = cpu_ns();
            cpu_ns() - start
        })
        .collect();
    percentile(&mut readings_ns, 50)
}

/// What this thread has run for; where the system does not say, what has passed.
fn cpu_ns() -> u64 {
    // The kernel brings the number up to date when the thread gives way, else every few ms.
    thread::yield_now();
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ran = stat.and_then(|stat| stat.split(' ').next()?.parse().ok());
    ran.unwrap_or_else(|| u64::try_from(clock::since_epoch().as_nanos()).unwrap_or(u64::MAX))
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
