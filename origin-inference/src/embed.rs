//! The embedder's engine: texts of many requests in shared steps.
//!
//! Rows are padded to the longest of their step, so that rows of like length belong together: what
//! waits is sorted by length and cut into steps of at most so many padded tokens.

use std::{
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
    answer: oneshot::Sender<Result<Vec<Vec<f32>>, EmbedError>>,
    _place: Place,
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
        let mut worker =
            Worker { encoder, limits, works: exit, heartbeat: heartbeat.clone(), counters };
        std::thread::Builder::new().name("embedder".to_owned()).spawn(move || worker.run())?;
        Ok(Self { works, taken: Arc::default(), limits, gauges, heartbeat, dimensions })
    }

    /// The vectors of `rows`, in their order. Dropping the future cancels what was not begun.
    pub(crate) async fn embed(&self, rows: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, EmbedError> {
        let tokens = rows.iter().map(Vec::len).sum();
        let limit = self.limits.queue_tokens;
        // A request over the limit is taken where nothing else waits: it would never fit.
        let take = |taken: usize| (taken == 0 || taken + tokens <= limit).then_some(taken + tokens);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .map_err(|waiting| EmbedError::Full { waiting })?;
        self.gauges.iter().for_each(IntGauge::inc);
        let (taken, gauges) = (Arc::clone(&self.taken), self.gauges.clone());
        let place = Place { tokens, taken, gauges };
        let (answer, vectors) = oneshot::channel();
        self.works
            .send(Work { rows, answer, _place: place })
            .map_err(|_gone| EmbedError::Stopped)?;
        vectors.await.map_err(|_gone| EmbedError::Stopped)?
    }
}

struct Worker {
    encoder: Box<dyn Encoder>,
    limits: EmbedLimits,
    works: Receiver<Work>,
    heartbeat: Heartbeat,
    counters: Counters,
}

/// Requests taken into one round: more would make the first wait for the last.
const ROUND: usize = 32;

impl Worker {
    fn run(&mut self) {
        loop {
            self.heartbeat.beat(clock::now());
            match self.works.recv_timeout(IDLE_BEAT) {
                Ok(first) => {
                    let mut round = vec![first];
                    round.extend(self.works.try_iter().take(ROUND - 1));
                    self.counters.running.set(i64::try_from(round.len()).unwrap_or(i64::MAX));
                    self.round(round);
                    self.counters.running.set(0);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn round(&mut self, mut round: Vec<Work>) {
        let before = round.len();
        round.retain(|work| !work.answer.is_closed());
        self.counters.cancelled.inc_by((before - round.len()) as u64);
        let all: Vec<(usize, usize)> = (0..round.len())
            .flat_map(|work| (0..round[work].rows.len()).map(move |row| (work, row)))
            .collect();
        let lengths: Vec<usize> =
            all.iter().map(|(work, row)| round[*work].rows[*row].len()).collect();
        let most = if self.encoder.together() { usize::MAX } else { 1 };
        let mut vectors: Vec<Vec<Vec<f32>>> =
            round.iter().map(|work| vec![Vec::new(); work.rows.len()]).collect();
        let mut failed = vec![false; round.len()];
        for step in steps(&lengths, self.limits.batch_tokens, most) {
            self.heartbeat.beat(clock::now());
            let rows: Vec<&[u32]> =
                step.iter().map(|at| round[all[*at].0].rows[all[*at].1].as_slice()).collect();
            let started = clock::now();
            let computed = self.encoder.encode(&rows);
            self.counters.prefill_seconds.observe((clock::now() - started).as_secs_f64());
            #[expect(clippy::cast_precision_loss, reason = "a batch has few rows")]
            self.counters.batch.observe(rows.len() as f64);
            match computed {
                Ok(computed) => {
                    for (at, vector) in step.iter().zip(computed) {
                        let (work, row) = all[*at];
                        vectors[work][row] = vector;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "an embedding step failed");
                    step.iter().for_each(|at| failed[all[*at].0] = true);
                }
            }
        }
        for ((work, vectors), failed) in round.into_iter().zip(vectors).zip(failed) {
            self.counters.failed.inc_by(u64::from(failed));
            let Work { answer, _place: place, .. } = work;
            // First, so that whoever has the answer sees the place free.
            drop(place);
            // Whoever asked may have gone.
            let _ = answer.send(if failed { Err(EmbedError::Step) } else { Ok(vectors) });
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
    async fn too_many_tokens_are_refused() {
        let (embedder, counters) = start(10);
        let long = embedder.embed(vec![vec![1; 50]]).await;
        assert_eq!(long.unwrap(), [[1.0, 50.0]], "alone, a long one is taken");
        embedder.taken.store(8, Ordering::Release);
        let refused = embedder.embed(vec![vec![1; 5]]).await;
        assert_eq!(refused, Err(EmbedError::Full { waiting: 8 }));
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
