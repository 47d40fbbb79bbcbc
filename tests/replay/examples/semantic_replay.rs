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
    fs, thread,
};

use fastrand::Rng;
use nearhop_admin::clock;
use nearhop_edge_cache::semantic::Vector;
use nearhop_test_replay::{DIMENSIONS, Draw, SECOND, Tier, replay, texts};
use serde_json::{Value, json};

/// Of an answer, where memory is measured.
const ANSWER_BYTES: usize = 1000;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let said = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["texts", draws] => json!(texts(&read(draws)?)),
        ["replay", draws, vectors] => {
            let draws = read(draws)?;
            timed(&draws, &rows(&fs::read(vectors)?, texts(&draws))?)?
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

fn rows(bytes: &[u8], texts: BTreeSet<String>) -> Result<HashMap<String, Vec<f32>>, Failure> {
    let numbers = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let numbers: Vec<f32> = numbers.collect();
    if numbers.len() != texts.len() * DIMENSIONS {
        return Err(format!("{} texts have {} numbers", texts.len(), numbers.len()).into());
    }
    Ok(texts.into_iter().zip(numbers.chunks_exact(DIMENSIONS).map(<[f32]>::to_vec)).collect())
}

fn timed(draws: &[Draw], vectors: &HashMap<String, Vec<f32>>) -> Result<Value, Failure> {
    let mut figures = replay(draws, vectors, cpu_ns);
    let mut said = serde_json::to_value(&figures)?;
    let times = json!({
        "asked": draws.len(),
        "cpu_us_p50": percentile(&mut figures.took_ns, 50),
        "cpu_us_p99": percentile(&mut figures.took_ns, 99),
        "of_it_reading_the_clock_us": clock_us(),
    });
    if let (Value::Object(said), Value::Object(times)) = (&mut said, times) {
        said.extend(times);
    }
    Ok(said)
}

/// Entries whose questions have nothing in common but their user, with answers that hardly compress.
fn fill(entries: usize) -> Result<Value, Failure> {
    let (tier, mut random) = (Tier::default(), Rng::with_seed(1));
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
        let posed = tier.pose(tier.chat(text)).ok_or("it is never looked up")?;
        let values: Vec<f32> = (0..DIMENSIONS).map(|_| random.f32() - 0.5).collect();
        tier.keep((&posed, &Vector::new(&values, DIMENSIONS)?), answer, None, SECOND);
    }
    let resident = resident_bytes().saturating_sub(resident);
    let held = tier.cache.held();
    Ok(json!({
        "entries": held.entries, "answer_bytes": ANSWER_BYTES,
        "bytes_counted": held.bytes as f64 / held.entries.max(1) as f64,
        "bytes_resident": resident as f64 / held.entries.max(1) as f64,
    }))
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
