//! The bounded way into the worker. A job that cannot be taken is refused now, not later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use nearhop_wire::Delta;
use prometheus::IntGauge;
use tokio::sync::mpsc as channel;

/// Something to generate. Known good: the prompt fits, the numbers are in range.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tokens: Vec<u32>,
    pub(crate) settings: Settings,
    pub(crate) submitted: Instant,
}

/// A request's sampling, with the model's defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    pub(crate) max_tokens: usize,
    /// Choices.
    pub(crate) n: usize,
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
}

/// What a job's owner hears. Ends after every choice's last [`Event::Delta`], or after `Failed`.
#[derive(Debug)]
pub(crate) enum Event {
    Delta(Delta),
    /// The engine could not go on with this job.
    Failed,
}

/// One choice of a job.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) job: Arc<Job>,
    /// The choice's index.
    pub(crate) index: usize,
    pub(crate) events: channel::Sender<Event>,
}

/// A generation that waits for a slot. Taking it out gives its place to the next.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) generation: Generation,
    _place: Place,
}

impl Generation {
    /// Whether nobody waits for it any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }
}

/// A place in the queue; given back when the sequence leaves it, however it leaves.
#[derive(Debug)]
struct Place {
    taken: Arc<AtomicUsize>,
    gauges: Vec<IntGauge>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
        self.gauges.iter().for_each(IntGauge::dec);
    }
}

/// The queue's entrance. Clones share the limit.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    taken: Arc<AtomicUsize>,
    limit: usize,
    gauges: Vec<IntGauge>,
    worker: mpsc::Sender<Queued>,
}

/// Why a job was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// As many jobs wait as may.
    #[error("{waiting} jobs wait already; come back later")]
    Full { waiting: usize },
    /// The worker has ended.
    #[error("the engine has stopped")]
    Stopped,
}

impl Entrance {
    /// An entrance for at most `limit` waiting choices, and the worker's end of it. `gauges` show
    /// how many wait.
    pub(crate) fn new(limit: usize, gauges: Vec<IntGauge>) -> (Self, mpsc::Receiver<Queued>) {
        let (worker, exit) = mpsc::channel();
        (Self { taken: Arc::default(), limit, gauges, worker }, exit)
    }

    /// Puts every choice of `job` in the queue, or none. Dropping the receiver cancels the job.
    pub(crate) fn submit(&self, job: Job) -> Result<channel::Receiver<Event>, Refused> {
        let n = job.settings.n;
        let take = |taken: usize| (taken + n <= self.limit).then_some(taken + n);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .map_err(|waiting| Refused::Full { waiting })?;
        // Room for every piece the job can have: the worker never waits for a slow reader.
        let (events, receiver) = channel::channel(n * (job.settings.max_tokens + 2));
        let job = Arc::new(job);
        let places: Vec<Place> = (0..n).map(|_| self.place()).collect();
        for (index, place) in places.into_iter().enumerate() {
            let (job, events) = (Arc::clone(&job), events.clone());
            let queued = Queued { generation: Generation { job, index, events }, _place: place };
            self.worker.send(queued).map_err(|_gone| Refused::Stopped)?;
        }
        Ok(receiver)
    }

    fn place(&self) -> Place {
        self.gauges.iter().for_each(IntGauge::inc);
        Place { taken: Arc::clone(&self.taken), gauges: self.gauges.clone() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn job(tokens: &[u32], n: usize, max_tokens: usize) -> Job {
        let settings =
            Settings { temperature: 0.0, top_p: 1.0, max_tokens, n, seed: 1, stop: Vec::new() };
        Job { tokens: tokens.to_vec(), settings, submitted: nearhop_admin::clock::now() }
    }

    #[test]
    fn a_full_queue_refuses_and_the_gauge_counts_what_waits() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let (entrance, exit) = Entrance::new(3, vec![gauge.clone()]);
        let _first = entrance.submit(job(&[1], 2, 4)).unwrap();
        assert_eq!(entrance.submit(job(&[1], 2, 4)).unwrap_err(), Refused::Full { waiting: 2 });
        assert_eq!(gauge.get(), 2, "a refused job takes no place");
        drop(exit.recv().unwrap());
        assert_eq!(gauge.get(), 1);
        let _second = entrance.submit(job(&[1], 2, 4)).unwrap();
        assert_eq!(gauge.get(), 3);
    }

    #[test]
    fn a_stopped_worker_refuses_and_keeps_no_place() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let (entrance, exit) = Entrance::new(2, vec![gauge.clone()]);
        drop(exit);
        for _ in 0..3 {
            assert_eq!(entrance.submit(job(&[1], 2, 4)).unwrap_err(), Refused::Stopped);
        }
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn dropping_the_receiver_cancels_every_choice() {
        let (entrance, exit) = Entrance::new(3, Vec::new());
        drop(entrance.submit(job(&[1], 2, 4)).unwrap());
        assert!(exit.recv().unwrap().generation.is_cancelled());
        assert!(exit.recv().unwrap().generation.is_cancelled());
    }
}
