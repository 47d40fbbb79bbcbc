//! The bounded way into the worker. A job that cannot be taken is refused now, not later.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use nearhop_wire::{Delta, Kind, Penalties};
use prometheus::IntGauge;
use tokio::sync::{mpsc as channel, oneshot};

use crate::{
    line::Standing,
    load::{Board, Load},
    prefix::Salt,
};

/// Something to generate. Known good: the prompt fits, the numbers are in range.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tokens: Vec<u32>,
    pub(crate) settings: Settings,
    pub(crate) submitted: Instant,
    pub(crate) deadline: Instant,
    pub(crate) tenant: Arc<str>,
    pub(crate) class: Kind,
    /// Whose prefixes it may find.
    pub(crate) salt: Salt,
    /// What each choice's client has of it; `None` for one that has ended. Empty where nothing is
    /// resumed.
    pub(crate) resumed: Vec<Option<Vec<u32>>>,
}

/// A request's sampling, with the model's defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    /// Resumed tokens included.
    pub(crate) max_tokens: usize,
    /// Choices.
    pub(crate) n: usize,
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
    pub(crate) penalties: Penalties,
    /// How many of the likeliest tokens to tell of, beside the one taken.
    pub(crate) logprobs: Option<usize>,
}

impl Job {
    /// The choices to generate, and what each resumes.
    fn choices(&self) -> impl Iterator<Item = (usize, &[u32])> {
        (0..self.settings.n).filter_map(|index| match self.resumed.get(index) {
            None => Some((index, &[][..])),
            Some(resumed) => Some((index, resumed.as_deref()?)),
        })
    }
}

/// What a job's owner hears. Ends after every choice's last [`Event::Delta`], or after `Failed`.
#[derive(Debug)]
pub(crate) enum Event {
    /// A choice has its slot; so many tokens of its prompt were found in the prefix cache.
    Begun {
        cached: usize,
    },
    Delta(Delta),
    /// The engine could not go on with this job.
    Failed(Failure),
}

/// Why the engine could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A step could not be computed.
    Step,
    /// The logits were no numbers.
    NotFinite,
}

/// One choice of a job.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) job: Arc<Job>,
    /// The choice's index.
    pub(crate) index: usize,
    pub(crate) events: channel::Sender<Event>,
    /// Its place in the queue, while it waits.
    pub(crate) place: Place,
    /// Whether it was told how much of its prompt was found.
    pub(crate) begun: bool,
}

impl Generation {
    /// Whether nobody waits for it any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.events.is_closed()
    }

    /// What its client has of it.
    pub(crate) fn resumed(&self) -> &[u32] {
        self.job.resumed.get(self.index).and_then(Option::as_deref).unwrap_or_default()
    }

    pub(crate) fn standing(&self) -> Standing {
        let job = &self.job;
        Standing {
            tenant: Arc::clone(&job.tenant),
            class: job.class,
            cost: job.tokens.len() + job.settings.max_tokens,
            since: job.submitted,
        }
    }
}

/// What of the prefix cache to drop.
#[derive(Debug)]
pub(crate) enum Purge {
    All,
    Tenant(Arc<str>),
    /// The blocks that only this prompt, or what begins with it, uses: one tenant's, or anybody's.
    Prefix(Option<Arc<str>>, Vec<u32>),
}

/// What the worker hears.
pub(crate) enum Message {
    Generate(Generation),
    /// Answers with the number of blocks dropped.
    Purge(Purge, oneshot::Sender<usize>),
}

/// What is taken of the queue.
#[derive(Debug, Default)]
struct Taken {
    jobs: usize,
    tokens: usize,
    /// Jobs of each tenant that has any.
    tenants: HashMap<Arc<str>, usize>,
}

impl Taken {
    fn add(&mut self, tenant: &Arc<str>, jobs: usize, tokens: usize) {
        self.jobs += jobs;
        self.tokens += tokens;
        *self.tenants.entry(Arc::clone(tenant)).or_default() += jobs;
    }

    fn remove(&mut self, tenant: &Arc<str>, tokens: usize) {
        self.jobs -= 1;
        self.tokens -= tokens;
        if let Some(jobs) = self.tenants.get_mut(tenant) {
            *jobs -= 1;
            if *jobs == 0 {
                self.tenants.remove(tenant);
            }
        }
    }
}

/// A place in the queue; given back when the sequence leaves it, however it leaves.
#[derive(Debug)]
pub(crate) struct Place {
    tenant: Arc<str>,
    tokens: usize,
    /// Whether it is taken.
    held: bool,
    taken: Arc<Mutex<Taken>>,
    gauges: Vec<IntGauge>,
}

impl Place {
    /// The sequence has a slot, and waits no more.
    pub(crate) fn leave(&mut self) {
        if std::mem::replace(&mut self.held, false) {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.remove(&self.tenant, self.tokens);
            self.gauges.iter().for_each(IntGauge::dec);
        }
    }

    /// The sequence waits again, whether or not there is room: it was taken before.
    pub(crate) fn take_again(&mut self) {
        if !std::mem::replace(&mut self.held, true) {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.add(&self.tenant, 1, self.tokens);
            self.gauges.iter().for_each(IntGauge::inc);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    /// Choices.
    pub(crate) jobs: usize,
    /// Tokens of their prompts.
    pub(crate) tokens: usize,
    /// The most tokens of a prompt in one step.
    pub(crate) chunk: usize,
}

/// The queue's entrance. Clones share the limit.
#[derive(Clone)]
pub(crate) struct Entrance {
    taken: Arc<Mutex<Taken>>,
    limits: QueueLimits,
    gauges: Vec<IntGauge>,
    worker: mpsc::Sender<Message>,
    board: Arc<Board>,
}

/// Why a job was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// As many jobs wait as may.
    #[error("{waiting} jobs with {tokens} prompt tokens wait already; come back later")]
    Full { waiting: usize, tokens: usize },
    /// More choices than may ever wait.
    #[error("{choices} choices are more than the {places} that may wait here; ask for fewer")]
    TooMany { choices: usize, places: usize },
    /// Its first token would come after its deadline.
    #[error("the first token would come after about {} ms, and the deadline is in {} ms", .after.as_millis(), .left.as_millis())]
    Late { after: Duration, left: Duration },
    /// The worker has ended.
    #[error("the engine has stopped")]
    Stopped,
}

impl Entrance {
    /// An entrance, and the worker's end of it. `gauges` show how many choices wait; `board` is
    /// where the worker tells how busy it is.
    pub(crate) fn new(
        limits: QueueLimits,
        gauges: Vec<IntGauge>,
    ) -> (Self, mpsc::Receiver<Message>) {
        let (worker, exit) = mpsc::channel();
        let (taken, board) = (Arc::default(), Arc::default());
        (Self { taken, limits, gauges, worker, board }, exit)
    }

    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// How busy the engine is, with what waits now.
    pub(crate) fn load(&self) -> Load {
        let load = self.board.read();
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // The worker's snapshot is as old as its last step; what waits is known better here.
        let prompt_tokens = load.prompt_tokens.max(taken.tokens);
        Load { waiting: taken.jobs, prompt_tokens, ..load }
    }

    /// Puts every choice of `job` in the queue, or none. Dropping the receiver cancels the job.
    pub(crate) fn submit(
        &self,
        job: Job,
        now: Instant,
    ) -> Result<channel::Receiver<Event>, Refused> {
        let after = self.load().first_token_after(job.tokens.len(), self.limits.chunk);
        let left = job.deadline.saturating_duration_since(now);
        if after > left {
            return Err(Refused::Late { after, left });
        }
        let choices: Vec<(usize, usize)> = job
            .choices()
            .map(|(index, resumed)| (index, job.tokens.len() + resumed.len()))
            .collect();
        self.take(&job.tenant, &choices)?;
        // Room for every piece the job can have: the worker never waits for a slow reader.
        let (events, receiver) = channel::channel(job.settings.n * (job.settings.max_tokens + 3));
        let job = Arc::new(job);
        let places: Vec<(usize, Place)> = choices
            .into_iter()
            .map(|(index, tokens)| {
                self.gauges.iter().for_each(IntGauge::inc);
                let (taken, gauges) = (Arc::clone(&self.taken), self.gauges.clone());
                let tenant = Arc::clone(&job.tenant);
                (index, Place { tenant, tokens, held: true, taken, gauges })
            })
            .collect();
        for (index, place) in places {
            let (job, events) = (Arc::clone(&job), events.clone());
            let generation = Generation { job, index, events, place, begun: false };
            self.worker.send(Message::Generate(generation)).map_err(|_gone| Refused::Stopped)?;
        }
        Ok(receiver)
    }

    fn take(&self, tenant: &Arc<str>, choices: &[(usize, usize)]) -> Result<(), Refused> {
        let places = self.limits.jobs;
        if choices.len() > places {
            return Err(Refused::TooMany { choices: choices.len(), places });
        }
        let tokens: usize = choices.iter().map(|(_, tokens)| tokens).sum();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // A quarter is kept for tenants of whom nothing waits.
        let places = match taken.tenants.contains_key(tenant) {
            true => places - places / 4,
            false => places,
        };
        let jobs_fit = taken.jobs + choices.len() <= places;
        // The last one may pass the limit: a prompt over it would never fit.
        let tokens_fit = taken.tokens < self.limits.tokens;
        if !(jobs_fit && tokens_fit) {
            return Err(Refused::Full { waiting: taken.jobs, tokens: taken.tokens });
        }
        taken.add(tenant, choices.len(), tokens);
        Ok(())
    }

    /// Drops part of the prefix cache; `None` where the worker has ended.
    pub(crate) async fn purge(&self, what: Purge) -> Option<usize> {
        let (answer, dropped) = oneshot::channel();
        self.worker.send(Message::Purge(what, answer)).ok()?;
        dropped.await.ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use nearhop_admin::clock;

    use super::*;

    pub(crate) const LIMITS: QueueLimits = QueueLimits { jobs: 3, tokens: 1000, chunk: 16 };

    pub(crate) fn job(tokens: &[u32], n: usize, max_tokens: usize) -> Job {
        let settings = Settings {
            temperature: 0.0,
            top_p: 1.0,
            max_tokens,
            n,
            seed: 1,
            stop: Vec::new(),
            penalties: Penalties::default(),
            logprobs: None,
        };
        let tenant: Arc<str> = Arc::from("tenant");
        let now = clock::now();
        Job {
            tokens: tokens.to_vec(),
            settings,
            submitted: now,
            deadline: now + Duration::from_secs(600),
            salt: Salt::new(&tenant, "1", "t"),
            tenant,
            class: Kind::Fim,
            resumed: Vec::new(),
        }
    }

    fn submit(entrance: &Entrance, job: Job) -> Result<channel::Receiver<Event>, Refused> {
        entrance.submit(job, clock::now())
    }

    fn next(exit: &mpsc::Receiver<Message>) -> Generation {
        match exit.recv().unwrap() {
            Message::Generate(generation) => generation,
            Message::Purge(..) => panic!("nothing was purged"),
        }
    }

    #[test]
    fn a_full_queue_refuses_and_the_gauge_counts_what_waits() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let (entrance, exit) = Entrance::new(LIMITS, vec![gauge.clone()]);
        let _first = submit(&entrance, job(&[1], 2, 4)).unwrap();
        let full = Refused::Full { waiting: 2, tokens: 2 };
        assert_eq!(submit(&entrance, job(&[1], 2, 4)).unwrap_err(), full);
        assert_eq!(gauge.get(), 2, "a refused job takes no place");
        drop(next(&exit));
        assert_eq!(gauge.get(), 1);
        let _second = submit(&entrance, job(&[1], 2, 4)).unwrap();
        assert_eq!((gauge.get(), entrance.load().waiting), (3, 3));
    }

    #[test]
    fn more_choices_than_may_ever_wait_are_told_apart() {
        let (entrance, _exit) = Entrance::new(LIMITS, Vec::new());
        let refused = submit(&entrance, job(&[1], 4, 4)).unwrap_err();
        assert_eq!(refused, Refused::TooMany { choices: 4, places: 3 });
    }

    #[test]
    fn one_tenant_does_not_fill_the_queue() {
        let (entrance, exit) = Entrance::new(QueueLimits { jobs: 8, ..LIMITS }, Vec::new());
        let _flood: Vec<_> = (0..6).map(|_| submit(&entrance, job(&[1], 1, 4)).unwrap()).collect();
        assert!(matches!(submit(&entrance, job(&[1], 1, 4)), Err(Refused::Full { .. })));
        let of = |tenant: &str| Job { tenant: tenant.into(), ..job(&[1], 1, 4) };
        let _others = [submit(&entrance, of("b")).unwrap(), submit(&entrance, of("c")).unwrap()];
        assert!(submit(&entrance, of("d")).is_err(), "full is full");
        (0..3).for_each(|_| drop(next(&exit)));
        assert!(submit(&entrance, job(&[1], 1, 4)).is_ok(), "places come back");
    }

    #[test]
    fn a_sequence_may_wait_again() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let (entrance, exit) = Entrance::new(LIMITS, vec![gauge.clone()]);
        let _events = submit(&entrance, job(&[1, 2], 1, 4)).unwrap();
        let mut generation = next(&exit);
        generation.place.leave();
        generation.place.leave();
        assert_eq!((gauge.get(), entrance.load().waiting), (0, 0));
        generation.place.take_again();
        assert_eq!(
            (gauge.get(), entrance.load().waiting, entrance.load().prompt_tokens),
            (1, 1, 2)
        );
        drop(generation);
        assert_eq!((gauge.get(), entrance.load().waiting), (0, 0));
    }

    #[test]
    fn tokens_are_limited_too_but_one_long_prompt_is_taken() {
        let (entrance, exit) = Entrance::new(LIMITS, Vec::new());
        let long = vec![1; 1500];
        let _first = submit(&entrance, job(&long, 1, 4)).unwrap();
        let refused = submit(&entrance, job(&[1], 1, 4)).unwrap_err();
        assert_eq!(refused, Refused::Full { waiting: 1, tokens: 1500 });
        drop(next(&exit));
        assert!(submit(&entrance, job(&[1], 1, 4)).is_ok());
    }

    #[test]
    fn a_job_that_would_be_late_is_refused_at_once() {
        let (entrance, _exit) = Entrance::new(LIMITS, Vec::new());
        let busy = Load { prompt_token_seconds: 0.01, slots: 2, running: 1, ..Load::default() };
        entrance.board().write(busy);
        let now = clock::now();
        let with = |left| Job { deadline: now + left, ..job(&[1; 100], 1, 4) };
        let refused = entrance.submit(with(Duration::from_millis(900)), now).unwrap_err();
        assert!(refused.to_string().contains("about 1000 ms"), "{refused}");
        assert!(entrance.submit(with(Duration::from_millis(1100)), now).is_ok());
    }

    #[test]
    fn a_stopped_worker_refuses_and_keeps_no_place() {
        let gauge = IntGauge::new("waiting", "waiting").unwrap();
        let (entrance, exit) = Entrance::new(LIMITS, vec![gauge.clone()]);
        drop(exit);
        for _ in 0..3 {
            assert_eq!(submit(&entrance, job(&[1], 2, 4)).unwrap_err(), Refused::Stopped);
        }
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn dropping_the_receiver_cancels_every_choice() {
        let (entrance, exit) = Entrance::new(LIMITS, Vec::new());
        drop(submit(&entrance, job(&[1], 2, 4)).unwrap());
        assert!(next(&exit).is_cancelled());
        assert!(next(&exit).is_cancelled());
    }

    #[test]
    fn a_choice_that_has_ended_is_not_resumed() {
        let (entrance, exit) = Entrance::new(LIMITS, Vec::new());
        let resumed = vec![None, Some(vec![4, 5])];
        let _events = submit(&entrance, Job { resumed, ..job(&[1], 2, 4) }).unwrap();
        let generation = next(&exit);
        assert_eq!((generation.index, generation.resumed()), (1, &[4u32, 5][..]));
        assert!(exit.try_recv().is_err());
    }
}
