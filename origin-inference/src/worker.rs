//! The one thread that owns the session: step → run → reply.
//!
//! Everything a generation needs is owned here and nothing is locked. The thread hears of jobs
//! through the queue, and answers through each job's own channel; a channel that nobody reads any
//! more is the sign to stop that job, queued or running.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use nearhop_admin::{Metrics, clock};
use nearhop_wire::{Delta, Finish};
use prometheus::{Histogram, IntCounter, IntGauge};

use crate::{
    Model,
    queue::{Entrance, Event, Generation, Queued},
    sampler::Sampler,
    scheduler::{Limits, Step, View, next_step},
    session::Session,
    text::{Detokenizer, StopStrings, Stopped},
};

/// What the worker counts.
#[derive(Clone)]
pub(crate) struct Counters {
    running: IntGauge,
    prefill_seconds: Histogram,
    decode_seconds: Histogram,
    batch: Histogram,
    first_token_seconds: Histogram,
    cancelled: IntCounter,
    failed: IntCounter,
}

impl Counters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let step = || nearhop_admin::latency_buckets();
        Self {
            running: metrics.gauge("vllm:num_requests_running", "Sequences that hold a slot."),
            prefill_seconds: metrics.histogram(
                "nearhop_prefill_step_seconds",
                "Time of one prefill chunk.",
                step(),
            ),
            decode_seconds: metrics.histogram(
                "nearhop_decode_step_seconds",
                "Time of one decode step.",
                step(),
            ),
            batch: metrics.histogram(
                "nearhop_decode_batch_sequences",
                "Sequences in one decode step.",
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
            ),
            first_token_seconds: metrics.histogram(
                "gen_ai_server_time_to_first_token_seconds",
                "From a job's arrival to its first token.",
                step(),
            ),
            cancelled: metrics.counter(
                "nearhop_sequences_cancelled_total",
                "Sequences that stopped because nobody waited for them any more.",
            ),
            failed: metrics
                .counter("nearhop_sequences_failed_total", "Sequences that the engine gave up."),
        }
    }
}

/// Shows that the worker moves. Milliseconds since it was made, at the last step.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    started: Instant,
    last_ms: Arc<AtomicU64>,
}

/// How long the worker waits for a job before it shows again that it moves.
const IDLE_BEAT: Duration = Duration::from_millis(250);

impl Heartbeat {
    pub(crate) fn new(now: Instant) -> Self {
        Self { started: now, last_ms: Arc::default() }
    }

    fn beat(&self, now: Instant) {
        let since = u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since, Ordering::Relaxed);
    }

    /// How long ago the worker last moved.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        (now - self.started).saturating_sub(last)
    }
}

/// A sequence in a slot.
struct Sequence {
    generation: Generation,
    /// Tokens whose KV state is in the slot.
    length: usize,
    /// The token to compute next.
    next: u32,
    generated: usize,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stop: StopStrings,
    /// Tokens of which no text was given out yet.
    pending: Vec<u32>,
}

impl Sequence {
    fn new(generation: Generation) -> Self {
        let settings = &generation.job.settings;
        let seed = settings.seed.wrapping_add(generation.index as u64);
        Self {
            length: 0,
            next: 0,
            generated: 0,
            sampler: Sampler::new(settings.temperature, settings.top_p, seed),
            detokenizer: Detokenizer::default(),
            stop: StopStrings::new(settings.stop.clone()),
            pending: Vec::new(),
            generation,
        }
    }

    /// Takes the next token from `logits` and sends what text became certain.
    fn advance(&mut self, logits: &[f32], model: &Model) -> Progress {
        let token = self.sampler.pick(logits);
        if model.manifest.end_tokens.contains(&token) {
            return self.end(Finish::Stop, model);
        }
        self.next = token;
        self.generated += 1;
        self.pending.push(token);
        let text = self.detokenizer.push(token, &model.tokenizer);
        match self.stop.push(&text) {
            Stopped::Yes(text) => return self.send(text, Some(Finish::Stop)),
            Stopped::No(text) if !text.is_empty() => {
                if self.send(text, None) == Progress::Ended {
                    return Progress::Ended;
                }
            }
            Stopped::No(_) => {}
        }
        let full = self.length + 1 >= model.manifest.context_length;
        if self.generated >= self.generation.job.settings.max_tokens || full {
            return self.end(Finish::Length, model);
        }
        Progress::Goes
    }

    fn end(&mut self, finish: Finish, model: &Model) -> Progress {
        let rest = self.detokenizer.finish(&model.tokenizer);
        match self.stop.push(&rest) {
            Stopped::Yes(text) => self.send(text, Some(Finish::Stop)),
            Stopped::No(text) => {
                let text = text + &self.stop.finish();
                self.send(text, Some(finish))
            }
        }
    }

    fn send(&mut self, text: String, finish: Option<Finish>) -> Progress {
        let token_ids = std::mem::take(&mut self.pending);
        let delta = Delta { index: self.generation.index, text, token_ids, finish };
        let sent = self.generation.events.try_send(Event::Delta(delta));
        match finish.is_some() || sent.is_err() {
            true => Progress::Ended,
            false => Progress::Goes,
        }
    }

    fn fail(self) {
        // A reader that is gone needs no answer.
        let _ = self.generation.events.try_send(Event::Failed);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Goes,
    Ended,
}

/// The engine, seen from the rest of the pod.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) entrance: Entrance,
    pub(crate) heartbeat: Heartbeat,
}

impl Engine {
    /// Starts the worker's thread. It ends when every [`Entrance`] is gone.
    pub(crate) fn start(
        session: Box<dyn Session>,
        model: Arc<Model>,
        limits: Limits,
        entrance: (Entrance, Receiver<Queued>),
        counters: Counters,
    ) -> io::Result<Self> {
        let (entrance, jobs) = entrance;
        let heartbeat = Heartbeat::new(clock::now());
        let mut worker = Worker {
            session,
            model,
            limits,
            jobs,
            heartbeat: heartbeat.clone(),
            counters,
            waiting: VecDeque::new(),
            prefilling: None,
            decoding: Vec::new(),
            prefilled_last: false,
            logits: Vec::new(),
        };
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || worker.run())?;
        Ok(Self { entrance, heartbeat })
    }
}

struct Worker {
    session: Box<dyn Session>,
    model: Arc<Model>,
    limits: Limits,
    jobs: Receiver<Queued>,
    heartbeat: Heartbeat,
    counters: Counters,
    waiting: VecDeque<Queued>,
    /// Always in slot `decoding.len()`.
    prefilling: Option<Sequence>,
    /// `decoding[i]` is in slot `i`.
    decoding: Vec<Sequence>,
    prefilled_last: bool,
    /// Kept between steps.
    logits: Vec<f32>,
}

impl Worker {
    fn run(&mut self) {
        loop {
            self.heartbeat.beat(clock::now());
            self.waiting.extend(self.jobs.try_iter());
            self.drop_cancelled();
            match next_step(&self.view(), self.limits) {
                Step::Admit => self.prefilling = self.next_in_line(),
                Step::Prefill(chunk) => self.prefill(chunk),
                Step::Decode => self.decode(),
                Step::Wait => match self.jobs.recv_timeout(IDLE_BEAT) {
                    Ok(queued) => self.waiting.push_back(queued),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            }
            let running = self.decoding.len() + usize::from(self.prefilling.is_some());
            self.counters.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        }
    }

    fn next_in_line(&mut self) -> Option<Sequence> {
        self.waiting.pop_front().map(|queued| Sequence::new(queued.generation))
    }

    fn view(&self) -> View {
        let prompt = |sequence: &Sequence| (sequence.length, sequence.generation.job.tokens.len());
        View {
            waiting: self.waiting.len(),
            prefilling: self.prefilling.as_ref().map(prompt),
            decoding: self.decoding.len(),
            prefilled_last: self.prefilled_last,
        }
    }

    fn drop_cancelled(&mut self) {
        let before =
            self.waiting.len() + self.decoding.len() + usize::from(self.prefilling.is_some());
        self.waiting.retain(|queued| !queued.generation.is_cancelled());
        self.prefilling.take_if(|sequence| sequence.generation.is_cancelled());
        for slot in (0..self.decoding.len()).rev() {
            if self.decoding[slot].generation.is_cancelled() {
                self.remove(slot);
            }
        }
        let after =
            self.waiting.len() + self.decoding.len() + usize::from(self.prefilling.is_some());
        self.counters.cancelled.inc_by((before - after) as u64);
    }

    /// Takes a sequence out of its slot and closes the gap behind it.
    fn remove(&mut self, slot: usize) -> Sequence {
        let last = self.decoding.len() - 1;
        if slot != last {
            self.session.copy(last, slot, self.decoding[last].length);
        }
        if let Some(sequence) = self.prefilling.as_ref().filter(|sequence| sequence.length > 0) {
            self.session.copy(last + 1, last, sequence.length);
        }
        self.decoding.swap_remove(slot)
    }

    fn prefill(&mut self, chunk: std::ops::Range<usize>) {
        self.prefilled_last = true;
        let slot = self.decoding.len();
        let sequence = self.prefilling.as_mut().expect("the scheduler saw a prompt");
        let (done, end) = (chunk.start, chunk.end);
        let job = Arc::clone(&sequence.generation.job);
        let timer = self.counters.prefill_seconds.start_timer();
        let computed = self.session.prefill(slot, done, &job.tokens[chunk], &mut self.logits);
        timer.observe_duration();
        sequence.length = end;
        if let Err(error) = computed {
            tracing::error!(%error, "a prefill step failed");
            self.counters.failed.inc();
            self.prefilling.take().expect("it is there").fail();
            return;
        }
        if end < job.tokens.len() {
            return;
        }
        let mut sequence = self.prefilling.take().expect("it is there");
        let waited = clock::now() - job.submitted;
        self.counters.first_token_seconds.observe(waited.as_secs_f64());
        if sequence.advance(&self.logits, &self.model) == Progress::Goes {
            self.decoding.push(sequence);
        }
    }

    fn decode(&mut self) {
        self.prefilled_last = false;
        let tokens: Vec<u32> = self.decoding.iter().map(|sequence| sequence.next).collect();
        let lengths: Vec<usize> = self.decoding.iter().map(|sequence| sequence.length).collect();
        let timer = self.counters.decode_seconds.start_timer();
        let computed = self.session.decode(&tokens, &lengths, &mut self.logits);
        timer.observe_duration();
        #[expect(clippy::cast_precision_loss, reason = "a batch has few sequences")]
        self.counters.batch.observe(tokens.len() as f64);
        if let Err(error) = computed {
            tracing::error!(%error, "a decode step failed");
            self.counters.failed.inc_by(self.decoding.len() as u64);
            // The state of all of them is lost; the prompt behind them moves to the front.
            if let Some(sequence) = self.prefilling.as_ref().filter(|sequence| sequence.length > 0)
            {
                self.session.copy(self.decoding.len(), 0, sequence.length);
            }
            self.decoding.drain(..).for_each(Sequence::fail);
            return;
        }
        let vocabulary = self.session.vocabulary();
        for slot in (0..self.decoding.len()).rev() {
            let sequence = &mut self.decoding[slot];
            sequence.length += 1;
            let logits = &self.logits[slot * vocabulary..(slot + 1) * vocabulary];
            if sequence.advance(logits, &self.model) == Progress::Ended {
                self.remove(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests;
