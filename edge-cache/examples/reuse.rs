//! How long a look-up takes in a full cache, how much memory an entry takes, and how long the shared
//! tier takes over loopback. Run it with `--release`; one JSON line.
//!
//! ```text
//! reuse [ENTRIES]      1,000,000 where not given
//! ```

#![expect(clippy::print_stdout, reason = "standard output is where a benchmark's result belongs")]

use std::{sync::Arc, time::Duration};

use nearhop_admin::clock;
use nearhop_edge_cache::{
    Around, Asked, Asker, Entry, Memory, Namer, Need, Question, Validity,
    cluster::{Cluster, Settings},
    l2,
};
use nearhop_test_redis::{Options, Redis};
use nearhop_wire::{Answer, Choice, CompletionRequest, Endpoint, Finish, Head, ModelReport, Usage};

const ALL: Need = Need::Fresh([true; 4]);
const HOUR: Duration = Duration::from_secs(3600);
const LOOKS: usize = 200_000;
const SHARED_LOOKS: usize = 5_000;

fn model() -> ModelReport {
    ModelReport {
        name: "bench".into(),
        revision: "1".into(),
        template: "t".into(),
        temperature: 0.0,
        max_tokens: 64,
        context_length: 4096,
        aliases: Vec::new(),
        suffix_first: false,
    }
}

/// A request of about 2.6 kB, as an editor's is: file `n`, with `typed` at the cursor.
fn request(n: usize, typed: &str) -> CompletionRequest {
    let above: String = (0..30)
        .map(|line| format!("def helper_{n}_{line}(values):\n    return sum(values) / {line}\n\n"))
        .collect();
    let suffix = "\n\nif __name__ == '__main__':\n    main()\n".repeat(12);
    let body = serde_json::json!({
        "model": "bench", "prompt": format!("{above}def mean(values):\n    {typed}"), "suffix": suffix,
    });
    CompletionRequest::parse(Endpoint::Completions, body.to_string().as_bytes())
        .expect("it is a request")
}

fn question(request: &CompletionRequest) -> Question {
    let asker = Asker { tenant: "bench", key: "bench", user: None };
    Question::of(request, asker, &model(), &Namer::default())
}

fn entry(n: usize) -> (Vec<nearhop_edge_cache::Place>, Arc<Entry>) {
    let request = request(n, "");
    let question = question(&request);
    let (places, asked) = Asked::of(&question, Around::of(&request)).expect("it has a place");
    let text = format!("return sum(values) / len(values)  # {n}");
    let answer = Answer {
        head: Head {
            id: "cmpl-5f0c7d1f2a9b4e3c8d7e6f5a4b3c2d1e".into(),
            created: 1_795_000_000,
            model: "bench".into(),
            fingerprint: "bench@1".into(),
            endpoint: Endpoint::Completions,
        },
        choices: vec![Choice { text, finish: Finish::Stop, logprobs: Vec::new() }],
        usage: Usage { prompt_tokens: 700, completion_tokens: 9, ..Usage::default() },
    };
    let entry = Entry::new(asked, &answer, (0, question.tags), Duration::ZERO);
    (places, Arc::new(entry.expect("it has text")))
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn quantiles(mut took: Vec<Duration>) -> (f64, f64) {
    took.sort_unstable();
    let at = |percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}

fn main() {
    let entries = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let validity = Arc::new(Validity::new(HOUR));
    let memory = Memory::new(8 << 30, Arc::clone(&validity));
    let before = resident();
    for n in 0..entries {
        let (places, entry) = entry(n);
        memory.put(&places, &entry, Duration::ZERO).expect("there is room");
    }
    let bytes = (resident() - before) as f64 / entries as f64;
    let counted = memory.bytes() as f64 / entries as f64;
    let look = |typed: &str, there: bool| {
        let took: Vec<Duration> = (0..LOOKS)
            .map(|n| {
                // A large prime: entries in no order that a cache could guess.
                let n = n * 7_919 % entries + if there { 0 } else { entries };
                let request = request(n, typed);
                let began = clock::now();
                let question = question(&request);
                let around = Around::of(&request);
                let found = memory.find((&question, around), ALL, Duration::ZERO);
                let took = clock::now() - began;
                assert_eq!(found.is_some(), there);
                took
            })
            .collect();
        quantiles(took)
    };
    let (exact, typed, miss) = (look("", true), look("return sum", true), look("", false));
    let shared = Redis::start(Options::default()).ok().map(|redis| shared(&redis));
    println!(
        "{}",
        serde_json::json!({
            "entries": entries, "bytes_resident": bytes.round(), "bytes_counted": counted.round(),
            "exact_us": [exact.0, exact.1], "type_ahead_us": [typed.0, typed.1],
            "miss_us": [miss.0, miss.1], "l2_hit_us": shared,
        })
    );
}

/// The shared tier over loopback: connection, command, unsealing, rule.
fn shared(redis: &Redis) -> [f64; 2] {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("there is a thread");
    runtime.block_on(async {
        let validity = Arc::new(Validity::new(HOUR));
        let settings = Settings { nodes: redis.nodes(), ..Settings::default() };
        let cluster = Cluster::new(&settings).expect("it is configured");
        let (tier, writes) = l2::Shared::new(cluster, b"a secret", HOUR, validity);
        let tier = Arc::new(tier);
        let writing = Arc::clone(&tier);
        tokio::spawn(async move { writing.write_behind(writes, |_| {}).await });
        let find = async |n: usize| {
            let request = request(n, "return");
            let began = clock::now();
            let question = question(&request);
            let found = tier.find((&question, Around::of(&request)), ALL, Duration::ZERO).await;
            found.ok().flatten().map(|_| clock::now() - began)
        };
        for n in 0..100 {
            let (places, entry) = entry(n);
            while find(n).await.is_none() {
                let _ = tier.put(&places, &entry);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let mut took = Vec::with_capacity(SHARED_LOOKS);
        for n in 0..SHARED_LOOKS {
            took.extend(find(n % 100).await);
        }
        let (half, most) = quantiles(took);
        [half, most]
    })
}
