//! The decoder alone, without queue and HTTP: one side of `benches/suites/inference.py`.
//!
//! Reads commands, a line each, and answers each with the seconds it took, as JSON:
//! `prefill TOKENS`, `decode BATCH CONTEXT STEPS`, `tokens STEPS ID…` (greedy, with the gap of the
//! two best logits at each step).

use std::{
    env,
    io::{BufRead as _, Write as _},
    path::PathBuf,
};

use nearhop_admin::clock;
use nearhop_conf::{Provider, source::process_env};
use nearhop_origin_inference::{
    Model,
    session::{self, Options, Runtime, Session},
};

const SLOTS: usize = 8;

fn main() {
    let mut args = env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let Some(folder) = args.next() else {
        // `cargo test` and `cargo bench` without arguments only build it.
        return;
    };
    let threads = args.next().and_then(|threads| threads.parse().ok()).unwrap_or(1);
    let model = Model::load(&PathBuf::from(folder)).expect("a model folder");
    let runtime = Runtime::load(None, &process_env).expect("ONNX Runtime");
    let provider = Some(Provider::Cpu);
    let options = Options { slots: SLOTS, threads, chunk: 128, batch: 4096, provider, cache: None };
    let mut session = session::open(&runtime, &model, &options).expect("a session").session;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a command");
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
        let answer = match (command, numbers.as_slice()) {
            ("prefill", [tokens]) => timed(|| prefill(session.as_mut(), 0, *tokens)),
            ("decode", [batch, context, steps]) => {
                (0..*batch).for_each(|slot| prefill(session.as_mut(), slot, *context));
                timed(|| decode(session.as_mut(), *batch, *context, *steps))
            }
            ("tokens", [steps, prompt @ ..]) => greedy(session.as_mut(), *steps, prompt),
            _ => format!("{{\"error\": \"no such command: {command}\"}}"),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}").expect("somebody reads");
        out.flush().expect("somebody reads");
    }
}

/// Wall and CPU seconds of this thread, which computes everything where one thread is asked for.
fn timed(work: impl FnOnce()) -> String {
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    };
    let (cpu_before, before) = (cpu(), clock::now());
    work();
    let wall = (clock::now() - before).as_secs_f64();
    let cpu = (cpu() - cpu_before) as f64 / 1e9;
    format!("{{\"wall\": {wall}, \"cpu\": {cpu}}}")
}

fn prompt(slot: usize, length: usize) -> Vec<u32> {
    (0..length).map(|at| u32::try_from((at * 31 + slot) % 4000 + 16).unwrap_or(16)).collect()
}

fn prefill(session: &mut dyn Session, slot: usize, length: usize) {
    let prompt = prompt(slot, length);
    let mut logits = Vec::new();
    for (at, chunk) in prompt.chunks(128).enumerate() {
        session.prefill(slot, at * 128, chunk, &mut logits).expect("a prefill step");
    }
}

fn decode(session: &mut dyn Session, batch: usize, context: usize, steps: usize) {
    let vocabulary = session.vocabulary();
    let (mut tokens, mut lengths) = (vec![17; batch], vec![context; batch]);
    let mut logits = Vec::new();
    for _ in 0..steps {
        session.decode(&tokens, &lengths, &mut logits).expect("a decode step");
        for (token, row) in tokens.iter_mut().zip(logits.chunks_exact(vocabulary)) {
            *token = best(row).0;
        }
        lengths.iter_mut().for_each(|length| *length += 1);
    }
}

/// The likeliest token, and by how much it leads.
fn best(row: &[f32]) -> (u32, f32) {
    let (mut first, mut second) = ((0, f32::NEG_INFINITY), f32::NEG_INFINITY);
    for (logit, token) in row.iter().zip(0u32..) {
        if *logit > first.1 {
            second = first.1;
            first = (token, *logit);
        } else if *logit > second {
            second = *logit;
        }
    }
    (first.0, first.1 - second)
}

fn greedy(session: &mut dyn Session, steps: usize, prompt: &[usize]) -> String {
    let prompt: Vec<u32> = prompt.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
    let mut logits = Vec::new();
    session.prefill(0, 0, &prompt, &mut logits).expect("a prefill step");
    let (mut tokens, mut gaps) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let (token, gap) = best(&logits);
        tokens.push(token);
        gaps.push(gap);
        session.decode(&[token], &[prompt.len() + step], &mut logits).expect("a decode step");
    }
    format!("{{\"tokens\": {tokens:?}, \"gaps\": {gaps:?}}}")
}
