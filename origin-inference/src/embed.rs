//! The embedder's engine: texts of many requests in shared steps.
//!
//! Rows are padded to the longest of their step, so that rows of like length belong together: what
//! is taken into a round is sorted by length and cut into steps of at most so many padded tokens.
//! A round takes a few rows of each request in turn, so that one of a thousand texts holds up
//! nobody; a request is answered as soon as its last row is done.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
};

use nearhop_admin::clock;
use prometheus::IntGauge;
use tokio::sync::oneshot;

use crate::{
    counters::Counters,
    heartbeat::{Heartbeat, IDLE_BEAT},
    session::Encoder,
};

/// A request's texts.
struct Work {
    rows: Vec<Vec<u32>>,
    /// Rows that no round took yet, the shortest last.
    open: Vec<usize>,
    /// One for each row, empty until it is computed.
    vectors: Vec<Vec<f32>>,
    /// Rows that are not computed.
    left: usize,
    answer: oneshot::Sender<Result<Vec<Vec<f32>>, EmbedError>>,
    place: Place,
}

impl Work {
    fn finish(self, result: Result<(), EmbedError>) {
        let Self { answer, place, vectors, .. } = self;
        // First, so that whoever has the answer sees the place free.
        drop(place);
        // Whoever asked may have gone.
        let _ = answer.send(result.map(|()| vectors));
    }
}

/// Why a request's texts were not embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EmbedError {
    #[error("{waiting} tokens wait already; come back later")]
    Full { waiting: usize },
    #[error("the model failed while it computed these vectors")]
    Step,
    #[error("the engine has stopped")]
    Stopped,
}

/// Tokens that wait; given back however they leave.
struct Place {
    tokens: usize,
    taken: Arc<AtomicUsize>,
    gauges: Vec<IntGauge>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.tokens, Ordering::AcqRel);
        self.gauges.iter().for_each(IntGauge::dec);
    }
}

/// Limits of an embedder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EmbedLimits {
    /// Tokens that may wait.
    pub(crate) queue_tokens: usize,
    /// Padded tokens of one step.
    pub(crate) batch_tokens: usize,
}

/// A request takes at most one in so many of the tokens that may wait.
const SHARE: usize = 4;

/// The embedder, seen from the rest of the pod. Clones share it.
#[derive(Clone)]
pub(crate) struct Embedder {
    works: mpsc::Sender<Work>,
    taken: Arc<AtomicUsize>,
    limits: EmbedLimits,
    gauges: Vec<IntGauge>,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) dimensions: usize,
}

impl Embedder {
    /// Starts the embedder's thread. It ends when every clone is gone.
    pub(crate) fn start(
        encoder: Box<dyn Encoder>,
        limits: EmbedLimits,
        counters: Counters,
    ) -> io::Result<Self> {
        let (works, exit) = mpsc::channel();
        let heartbeat = Heartbeat::new(clock::now());
        let dimensions = encoder.dimensions();
        let gauges = counters.waiting.clone();
        let mut worker = Worker {
            encoder,
            limits,
            works: exit,
            waiting: VecDeque::new(),
            heartbeat: heartbeat.clone(),
            counters,
        };
        std::thread::Builder::new().name("embedder".to_owned()).spawn(move || worker.run())?;
        Ok(Self { works, taken: Arc::default(), limits, gauges, heartbeat, dimensions })
    }

    /// The vectors of `rows`, in their order. Dropping the future cancels what was not begun.
    pub(crate) async fn embed(&self, rows: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, EmbedError> {
        let limit = self.limits.queue_tokens;
        let tokens: usize = rows.iter().map(Vec::len).sum();
        // Requests are computed in turn, so that a long one holds up nobody: it must not shut
        // others out either.
        let tokens = tokens.min((limit / SHARE).max(1));
        let take = |taken: usize| (taken < limit).then_some(taken + tokens);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .map_err(|waiting| EmbedError::Full { waiting })?;
        self.gauges.iter().for_each(IntGauge::inc);
        let (taken, gauges) = (Arc::clone(&self.taken), self.gauges.clone());
        let place = Place { tokens, taken, gauges };
        let (answer, vectors) = oneshot::channel();
        let mut open: Vec<usize> = (0..rows.len()).collect();
        open.sort_by_key(|row| std::cmp::Reverse(rows[*row].len()));
        let (left, none) = (rows.len(), vec![Vec::new(); rows.len()]);
        let work = Work { rows, open, vectors: none, left, answer, place };
        self.works.send(work).map_err(|_gone| EmbedError::Stopped)?;
        vectors.await.map_err(|_gone| EmbedError::Stopped)?
    }
}

struct Worker {
    encoder: Box<dyn Encoder>,
    limits: EmbedLimits,
    works: Receiver<Work>,
    /// Requests in work, in the order in which they came.
    waiting: VecDeque<Work>,
    heartbeat: Heartbeat,
    counters: Counters,
}

/// Steps' worth of tokens that are taken into one round: enough to sort by length, and no more than
/// a newcomer can wait for.
const ROUND_STEPS: usize = 4;

impl Worker {
    fn run(&mut self) {
        loop {
            self.heartbeat.beat(clock::now());
            if self.waiting.is_empty() {
                match self.works.recv_timeout(IDLE_BEAT) {
                    Ok(work) => self.waiting.push_back(work),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            self.waiting.extend(self.works.try_iter());
            let running = i64::try_from(self.waiting.len()).unwrap_or(i64::MAX);
            self.counters.running.set(running);
            self.round();
            self.counters.running.set(0);
        }
    }

    fn round(&mut self) {
        self.drop_cancelled();
        let budget = self.limits.batch_tokens * ROUND_STEPS;
        let picked = pick(&mut self.waiting, budget);
        let lengths: Vec<usize> =
            picked.iter().map(|(work, row)| self.waiting[*work].rows[*row].len()).collect();
        let most = if self.encoder.together() { usize::MAX } else { 1 };
        let mut failed = vec![false; self.waiting.len()];
        for step in steps(&lengths, self.limits.batch_tokens, most) {
            let rows: Vec<(usize, usize)> = step.into_iter().map(|at| picked[at]).collect();
            if self.step(&rows) {
                continue;
            }
            // Which of them it was is found out by computing each alone.
            for row in &rows {
                let alone = rows.len() > 1 && self.step(std::slice::from_ref(row));
                failed[row.0] |= !alone;
            }
        }
        for work in (0..self.waiting.len()).rev() {
            let done = self.waiting[work].left == 0;
            if !(done || failed[work]) {
                continue;
            }
            self.counters.failed.inc_by(u64::from(failed[work]));
            let result = if failed[work] { Err(EmbedError::Step) } else { Ok(()) };
            if let Some(work) = self.waiting.remove(work) {
                work.finish(result);
            }
        }
    }

    fn drop_cancelled(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|work| !work.answer.is_closed());
        self.counters.cancelled.inc_by((before - self.waiting.len()) as u64);
    }

    /// Computes these rows, each named by its request and its place there. Returns whether it
    /// could.
    fn step(&mut self, rows: &[(usize, usize)]) -> bool {
        let before = clock::now();
        self.heartbeat.beat(before);
        let texts: Vec<&[u32]> =
            rows.iter().map(|(work, row)| self.waiting[*work].rows[*row].as_slice()).collect();
        let computed = self.encoder.encode(&texts);
        self.counters.prefill_seconds.observe((clock::now() - before).as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch has few rows")]
        self.counters.batch.observe(rows.len() as f64);
        match computed {
            Ok(vectors) => {
                for ((work, row), vector) in rows.iter().zip(vectors) {
                    let work = &mut self.waiting[*work];
                    work.vectors[*row] = vector;
                    work.left -= 1;
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, rows = rows.len(), "an embedding step failed");
                false
            }
        }
    }
}

/// Takes rows of each request in turn, the shortest first, until they have `budget` tokens: the
/// request and the row of each.
fn pick(waiting: &mut VecDeque<Work>, budget: usize) -> Vec<(usize, usize)> {
    let (mut picked, mut tokens) = (Vec::new(), 0);
    loop {
        let before = picked.len();
        for (at, work) in waiting.iter_mut().enumerate() {
            if tokens >= budget {
                return picked;
            }
            if let Some(row) = work.open.pop() {
                tokens += work.rows[row].len();
                picked.push((at, row));
            }
        }
        if picked.len() == before {
            return picked;
        }
    }
}

/// Cuts rows of these lengths into steps of rows of like length, of at most `tokens` padded tokens
/// (a longer row stands alone) and `most` rows.
fn steps(lengths: &[usize], tokens: usize, most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|at| lengths[*at]);
    let mut steps: Vec<Vec<usize>> = Vec::new();
    for at in order {
        // In this order a row is the longest so far.
        let fits =
            |step: &Vec<usize>| step.len() < most && (step.len() + 1) * lengths[at] <= tokens;
        match steps.last_mut().filter(|step| fits(step)) {
            Some(step) => step.push(at),
            None => steps.push(vec![at]),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use nearhop_admin::Metrics;
    use proptest::prelude::*;

    use super::*;
    use crate::{counters::Families, session::StepError};

    /// A network whose vectors say what row they came from, and which refuses a token.
    struct Echo;

    impl Encoder for Echo {
        fn encode(&mut self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>, StepError> {
            if rows.iter().any(|row| row.contains(&13)) {
                return Err(StepError("broken on purpose".to_owned()));
            }
            Ok(rows.iter().map(|row| vec![row[0] as f32, row.len() as f32]).collect())
        }

        fn dimensions(&self) -> usize {
            2
        }

        fn together(&self) -> bool {
            true
        }
    }

    /// The same, which says of each step what its first row begins with, and waits in each until
    /// it is told to go on; no longer when nobody tells any more.
    struct Stepped {
        go_on: Receiver<()>,
        steps: mpsc::Sender<Vec<u32>>,
    }

    impl Encoder for Stepped {
        fn encode(&mut self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>, StepError> {
            let _ = self.go_on.recv();
            let _ = self.steps.send(rows.iter().map(|row| row[0]).collect());
            Echo.encode(rows)
        }

        fn dimensions(&self) -> usize {
            2
        }

        fn together(&self) -> bool {
            true
        }
    }

    fn start(queue_tokens: usize) -> (Embedder, Counters) {
        let counters = Families::new(&Metrics::default()).of("m", "1");
        let limits = EmbedLimits { queue_tokens, batch_tokens: 8 };
        (Embedder::start(Box::new(Echo), limits, counters.clone()).unwrap(), counters)
    }

    #[tokio::test]
    async fn vectors_come_in_the_order_of_their_texts() {
        let (embedder, counters) = start(1000);
        let rows = vec![vec![7; 5], vec![8; 1], vec![9; 20], vec![10; 2]];
        let vectors = embedder.embed(rows).await.unwrap();
        assert_eq!(vectors, [[7.0, 5.0], [8.0, 1.0], [9.0, 20.0], [10.0, 2.0]]);
        assert_eq!(counters.waiting[0].get(), 0);
    }

    #[tokio::test]
    async fn a_failed_step_fails_whose_texts_were_in_it() {
        let (embedder, _) = start(1000);
        assert_eq!(embedder.embed(vec![vec![13; 3]]).await, Err(EmbedError::Step));
        assert_eq!(embedder.embed(vec![vec![1; 3]]).await.unwrap(), [[1.0, 3.0]]);
    }

    #[tokio::test]
    async fn a_failing_row_fails_its_own_request_only() {
        let (embedder, counters) = start(1000);
        let (first, second) = tokio::join!(
            embedder.embed(vec![vec![1; 3]]),
            embedder.embed(vec![vec![13; 3], vec![2; 3]])
        );
        assert_eq!((first.unwrap(), second), (vec![vec![1.0, 3.0]], Err(EmbedError::Step)));
        assert_eq!((counters.failed.get(), counters.waiting[0].get()), (1, 0));
    }

    #[tokio::test]
    async fn many_texts_do_not_hold_up_one() {
        let (step, go_on) = mpsc::sync_channel(0);
        let (told, steps) = mpsc::channel();
        let limits = EmbedLimits { queue_tokens: 10_000, batch_tokens: 8 };
        let counters = Families::new(&Metrics::default()).of("m", "1");
        let stepped = Box::new(Stepped { go_on, steps: told });
        let embedder = Embedder::start(stepped, limits, counters).unwrap();
        let ask = |rows: Vec<Vec<u32>>| {
            let embedder = embedder.clone();
            tokio::spawn(async move { embedder.embed(rows).await })
        };
        // More than may wait altogether.
        let many = ask(vec![vec![5; 4]; 5000]);
        tokio::task::yield_now().await;
        step.send(()).unwrap();
        let one = ask(vec![vec![7; 4]]);
        tokio::task::yield_now().await;
        drop(step);
        assert_eq!(one.await.unwrap().unwrap(), [[7.0, 4.0]]);
        assert_eq!(many.await.unwrap().unwrap().len(), 5000);
        let before = steps.try_iter().position(|rows| rows.contains(&7)).unwrap();
        assert!(before < 2 * ROUND_STEPS, "after {before} steps of 2500");
    }

    #[test]
    fn rows_are_taken_in_turn() {
        let work = |rows: &[usize]| {
            let place = Place { tokens: 0, taken: Arc::default(), gauges: Vec::new() };
            let rows: Vec<Vec<u32>> = rows.iter().map(|length| vec![1; *length]).collect();
            let open = (0..rows.len()).rev().collect();
            let (left, vectors) = (rows.len(), Vec::new());
            Work { rows, open, vectors, left, answer: oneshot::channel().0, place }
        };
        let mut waiting = VecDeque::from([work(&[2; 10]), work(&[3, 3]), work(&[])]);
        let expected = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (0, 3)];
        assert_eq!(pick(&mut waiting, 14), expected);
        assert_eq!(pick(&mut waiting, 1), [(0, 4)]);
        assert_eq!(pick(&mut waiting, 1000).len(), 5);
        assert!(pick(&mut waiting, 1000).is_empty());
    }

    #[tokio::test]
    async fn too_many_tokens_are_refused() {
        let (embedder, counters) = start(10);
        let long = embedder.embed(vec![vec![1; 50]]).await;
        assert_eq!(long.unwrap(), [[1.0, 50.0]], "alone, a long one is taken");
        embedder.taken.store(10, Ordering::Release);
        let refused = embedder.embed(vec![vec![1; 5]]).await;
        assert_eq!(refused, Err(EmbedError::Full { waiting: 10 }));
        assert_eq!(counters.waiting[0].get(), 0, "a refused request does not wait");
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_step_of_a_fitting_size(
            lengths in prop::collection::vec(1usize..40, 0..50), tokens in 1usize..100, most in 1usize..9,
        ) {
            let steps = steps(&lengths, tokens, most);
            let mut seen: Vec<usize> = steps.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for step in steps {
                let longest = step.iter().map(|at| lengths[*at]).max().unwrap();
                prop_assert!(step.len() == 1 || step.len() * longest <= tokens);
                prop_assert!(step.len() <= most);
            }
        }
    }
}
