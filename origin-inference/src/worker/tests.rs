//! The worker over the counting network: what each job hears must be its own count.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::*;
use crate::{
    queue::{Refused, tests::job},
    session::fake::Counting,
};

fn model() -> Arc<Model> {
    let tiny = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    Arc::new(Model::load(&tiny).unwrap())
}

struct Rig {
    engine: Engine,
    metrics: Metrics,
    waiting: IntGauge,
    broken: Arc<std::sync::atomic::AtomicBool>,
}

fn start(slots: usize, queue: usize) -> Rig {
    let model = model();
    let session = Counting::new(slots, model.vocabulary());
    let broken = Arc::clone(&session.broken);
    let metrics = Metrics::default();
    let waiting = metrics.gauge("waiting", "waiting");
    let entrance = Entrance::new(queue, vec![waiting.clone()]);
    let limits = Limits { slots, chunk: 16 };
    let counters = Counters::new(&metrics);
    let engine = Engine::start(Box::new(session), model, limits, entrance, counters).unwrap();
    Rig { engine, metrics, waiting, broken }
}

/// All tokens of each choice, and how it ended.
fn collect(mut events: mpsc::Receiver<Event>, n: usize) -> Vec<(Vec<u32>, Option<Finish>)> {
    let mut out = vec![(Vec::new(), None); n];
    while let Some(event) = events.blocking_recv() {
        let Event::Delta(delta) = event else { panic!("failed") };
        out[delta.index].0.extend(&delta.token_ids);
        out[delta.index].1 = delta.finish;
    }
    out
}

#[test]
fn every_job_gets_its_own_tokens_however_they_share_slots() {
    let rig = start(3, 100);
    let jobs: Vec<_> = (0u32..20)
        .map(|k| {
            let first = 20 + k * 7;
            let tokens: Vec<u32> = (0..(k * 5) % 40 + 1).map(|at| first + at).collect();
            let max_tokens = 3 + k as usize % 9;
            let last = *tokens.last().unwrap();
            (last, max_tokens, rig.engine.entrance.submit(job(&tokens, 1, max_tokens)).unwrap())
        })
        .collect();
    for (last, max_tokens, events) in jobs {
        let (tokens, finish) = collect(events, 1).remove(0);
        let expected: Vec<u32> = (1..).take(max_tokens).map(|step| last + step).collect();
        assert_eq!((tokens, finish), (expected, Some(Finish::Length)));
    }
}

#[test]
fn an_end_token_ends_a_choice_and_each_choice_has_its_index() {
    let rig = start(2, 10);
    let vocabulary = u32::try_from(model().vocabulary()).unwrap();
    // The count wraps at the vocabulary's end to token 0, the model's end token.
    let events = rig.engine.entrance.submit(job(&[vocabulary - 3], 2, 50)).unwrap();
    let expected = (vec![vocabulary - 2, vocabulary - 1], Some(Finish::Stop));
    assert_eq!(collect(events, 2), [expected.clone(), expected]);
}

#[test]
fn a_dropped_job_gives_its_slot_and_its_place_back() {
    let rig = start(1, 2);
    let mut running = rig.engine.entrance.submit(job(&[300], 1, 100)).unwrap();
    running.blocking_recv().unwrap();
    assert_eq!(rig.waiting.get(), 0, "a running sequence waits no more");
    let waiting = rig.engine.entrance.submit(job(&[20], 1, 100)).unwrap();
    drop(waiting);
    drop(running);
    let next = rig.engine.entrance.submit(job(&[400], 1, 2)).unwrap();
    assert_eq!(collect(next, 1)[0].0, [401, 402]);
    assert_eq!(rig.waiting.get(), 0);
}

#[test]
fn the_context_ends_an_answer() {
    let rig = start(1, 2);
    let tokens: Vec<u32> = (0..250).collect();
    let events = rig.engine.entrance.submit(job(&tokens, 1, 100)).unwrap();
    let (tokens, finish) = collect(events, 1).remove(0);
    assert_eq!((tokens.len(), finish), (256 - 250, Some(Finish::Length)));
}

#[test]
fn a_broken_step_fails_its_jobs_and_the_next_ones_work() {
    let rig = start(2, 10);
    rig.broken.store(true, Ordering::Relaxed);
    let mut events = rig.engine.entrance.submit(job(&[20], 1, 5)).unwrap();
    assert!(matches!(events.blocking_recv(), Some(Event::Failed)));
    rig.broken.store(false, Ordering::Relaxed);
    let events = rig.engine.entrance.submit(job(&[20], 1, 1)).unwrap();
    assert_eq!(collect(events, 1)[0].0, [21]);
    let page = String::from_utf8(rig.metrics.render()).unwrap();
    assert!(page.contains("nearhop_sequences_failed_total 1"), "{page}");
}

#[test]
fn a_dead_worker_falls_silent_and_refuses() {
    let rig = start(1, 10);
    let later = clock::now() + Duration::from_secs(60);
    assert!(rig.engine.heartbeat.silence(later) >= Duration::from_secs(59));
    let Rig { engine, .. } = rig;
    // A gap in what the network is told panics in the fake: the thread dies.
    let _ = engine.entrance.submit(job(&[], 1, 1)).unwrap().blocking_recv();
    let refused = (0..1000).find_map(|_| engine.entrance.submit(job(&[20], 1, 1)).err());
    assert!(matches!(refused, Some(Refused::Stopped | Refused::Full { .. })), "{refused:?}");
}
