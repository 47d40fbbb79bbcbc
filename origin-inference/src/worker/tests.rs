//! The worker over the counting network: what each job hears must be its own count.

use std::{path::PathBuf, sync::atomic::Ordering, time::Duration};

use nearhop_admin::Metrics;
use nearhop_wire::{Finish, Kind};
use tokio::sync::mpsc;

use super::*;
use crate::{
    counters::Families,
    queue::{Event, Job, QueueLimits, Refused, tests::job},
    session::fake::Counting,
};

fn model() -> Arc<Model> {
    let tiny = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    Arc::new(Model::load(&tiny).unwrap())
}

struct Rig {
    engine: Engine,
    counters: Counters,
    broken: Arc<std::sync::atomic::AtomicBool>,
}

fn start(slots: usize, queue: usize) -> Rig {
    let model = model();
    let session = Counting::new(slots, model.vocabulary());
    let broken = Arc::clone(&session.broken);
    let rig = start_over(Box::new(session), slots, queue);
    Rig { broken, ..rig }
}

fn start_over(session: Box<dyn Session>, slots: usize, queue: usize) -> Rig {
    let counters = Families::new(&Metrics::default()).of("tiny", "1");
    let limits = QueueLimits { jobs: queue, tokens: 100_000, chunk: 16 };
    let entrance = Entrance::new(limits, counters.waiting.clone());
    let setup = Setup {
        session,
        model: model(),
        limits: Limits { slots, chunk: 16, whole: false },
        prefix_cache: 1 << 20,
        counters: counters.clone(),
    };
    let engine = Engine::start(setup, entrance).unwrap();
    Rig { engine, counters, broken: Arc::default() }
}

impl Rig {
    fn submit(&self, job: Job) -> mpsc::Receiver<Event> {
        self.engine.entrance.submit(job, clock::now()).unwrap()
    }

    fn waiting(&self) -> i64 {
        self.counters.waiting[0].get()
    }
}

/// All tokens of each choice, and how it ended.
fn collect(mut events: mpsc::Receiver<Event>, n: usize) -> Vec<(Vec<u32>, Option<Finish>)> {
    let mut out = vec![(Vec::new(), None); n];
    while let Some(event) = events.blocking_recv() {
        let delta = match event {
            Event::Begun { .. } => continue,
            Event::Delta(delta) => delta,
            Event::Failed(_) => panic!("failed"),
        };
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
            (last, max_tokens, rig.submit(job(&tokens, 1, max_tokens)))
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
    let events = rig.submit(job(&[vocabulary - 3], 2, 50));
    let expected = (vec![vocabulary - 2, vocabulary - 1], Some(Finish::Stop));
    assert_eq!(collect(events, 2), [expected.clone(), expected]);
}

#[test]
fn a_dropped_job_gives_its_slot_and_its_place_back() {
    let rig = start(1, 2);
    let mut running = rig.submit(job(&[300], 1, 100));
    running.blocking_recv().unwrap();
    assert_eq!(rig.waiting(), 0, "a running sequence waits no more");
    let waiting = rig.submit(job(&[20], 1, 100));
    drop(waiting);
    drop(running);
    let next = rig.submit(job(&[400], 1, 2));
    assert_eq!(collect(next, 1)[0].0, [401, 402]);
    assert_eq!(rig.waiting(), 0);
}

#[test]
fn a_long_prompt_lets_somebody_who_types_go_first_and_loses_nothing() {
    let (step, steps) = std::sync::mpsc::sync_channel(0);
    let (told, chunks) = std::sync::mpsc::channel();
    // Waits before each chunk until it is told to go on, and tells its first token and length.
    let watch = move |tokens: &[u32]| {
        let _ = steps.recv();
        let _ = told.send((tokens[0], tokens.len()));
    };
    let counting = Counting::new(2, model().vocabulary());
    let session = Counting { watch: Some(Box::new(watch)), ..counting };
    let rig = start_over(Box::new(session), 2, 10);
    let long: Vec<u32> = (20..120).collect();
    let agent = rig.submit(Job { class: Kind::Agent, ..job(&long, 1, 3) });
    step.send(()).unwrap();
    step.send(()).unwrap();
    assert_eq!([chunks.recv().unwrap(), chunks.recv().unwrap()], [(20, 16), (36, 16)]);
    let inline = rig.submit(Job { class: Kind::Inline, ..job(&[300, 301], 1, 2) });
    // The chunk after this one may have begun before the newcomer was seen.
    drop(step);
    let order: Vec<(u32, usize)> = std::iter::from_fn(|| chunks.recv().ok()).take(6).collect();
    let at = order.iter().position(|chunk| chunk.0 == 300).unwrap();
    assert!(at <= 2, "{order:?}");
    let again: Vec<u32> = order.iter().map(|chunk| chunk.0).filter(|first| *first < 300).collect();
    assert!(again.windows(2).all(|two| two[0] < two[1]), "nothing is computed again: {order:?}");
    assert_eq!(collect(inline, 1)[0].0, [302, 303]);
    assert_eq!(collect(agent, 1)[0].0, [120, 121, 122]);
    assert_eq!((rig.waiting(), rig.counters.prefix_hits.get()), (0, 0));
    assert_eq!(rig.counters.prefix_queries.get(), 102);
}

#[test]
fn a_hundred_cancelled_requests_leave_nothing_behind() {
    let rig = start(3, 200);
    let running: Vec<_> = (0..100)
        .map(|at| rig.submit(job(&(20..40 + at % 30).collect::<Vec<u32>>(), 1, 200)))
        .collect();
    for (at, mut events) in running.into_iter().enumerate() {
        if at % 3 == 0 {
            events.blocking_recv().unwrap();
        }
        drop(events);
    }
    let after = rig.submit(job(&[400], 1, 2));
    assert_eq!(collect(after, 1)[0].0, [401, 402]);
    let deadline = clock::now() + Duration::from_secs(30);
    let busy = || rig.counters.running.get() > 0 || rig.counters.kv_use.get() > 0.0;
    while busy() {
        assert!(clock::now() < deadline, "slots are still held");
        std::thread::yield_now();
    }
    assert_eq!(rig.waiting(), 0);
    let load = rig.engine.entrance.load();
    assert_eq!((load.running, load.waiting, load.kv_tokens, load.prompt_tokens), (0, 0, 0, 0));
}

#[test]
fn the_context_ends_an_answer() {
    let rig = start(1, 2);
    let tokens: Vec<u32> = (0..250).collect();
    let events = rig.submit(job(&tokens, 1, 100));
    let (tokens, finish) = collect(events, 1).remove(0);
    assert_eq!((tokens.len(), finish), (256 - 250, Some(Finish::Length)));
}

#[test]
fn a_broken_step_fails_its_jobs_and_the_next_ones_work() {
    let rig = start(2, 10);
    rig.broken.store(true, Ordering::Relaxed);
    let mut events = rig.submit(job(&[20], 1, 5));
    let failed = std::iter::from_fn(|| events.blocking_recv()).last();
    assert!(matches!(failed, Some(Event::Failed(Failure::Step))), "{failed:?}");
    rig.broken.store(false, Ordering::Relaxed);
    let events = rig.submit(job(&[20], 1, 1));
    assert_eq!(collect(events, 1)[0].0, [21]);
    assert_eq!(rig.counters.failed.get(), 1);
}

#[test]
fn a_dead_worker_falls_silent_and_refuses() {
    let rig = start(1, 10);
    let later = clock::now() + Duration::from_secs(60);
    assert!(rig.engine.heartbeat.silence(later) >= Duration::from_secs(59));
    // A gap in what the network is told panics in the fake: the thread dies.
    let mut events = rig.submit(job(&[], 1, 1));
    while events.blocking_recv().is_some() {}
    let submit = |_| rig.engine.entrance.submit(job(&[20], 1, 1), clock::now()).err();
    let refused = (0..1000).find_map(submit);
    assert!(matches!(refused, Some(Refused::Stopped | Refused::Full { .. })), "{refused:?}");
}
