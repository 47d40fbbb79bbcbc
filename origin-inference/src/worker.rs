//! The one thread that owns the session: step → run → reply.
//!
//! Everything a generation needs is owned here and nothing is locked. The thread hears of jobs
//! through the queue, and answers through each job's own channel; a channel that nobody reads any
//! more is the sign to stop that job, queued or running.

mod sequence;

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Instant,
};

use nearhop_admin::clock;

use self::sequence::{Progress, Sequence};
use crate::{
    Model,
    counters::Counters,
    heartbeat::{Heartbeat, IDLE_BEAT},
    line::Line,
    load::{Board, Load, Rate, average, share},
    prefix::{BLOCK, PrefixCache, Salt},
    queue::{Entrance, Failure, Generation, Message, Purge},
    scheduler::{Limits, Prompt, Step, View, next_step},
    session::{KvBlock, Session},
};

/// The engine, seen from the rest of the pod.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) entrance: Entrance,
    pub(crate) heartbeat: Heartbeat,
}

/// What an engine is given.
pub(crate) struct Setup {
    pub(crate) session: Box<dyn Session>,
    pub(crate) model: Arc<Model>,
    pub(crate) limits: Limits,
    /// Memory of the prefix cache, bytes; 0 switches it off.
    pub(crate) prefix_cache: usize,
    pub(crate) counters: Counters,
}

impl Engine {
    /// Starts the worker's thread. It ends when every [`Entrance`] is gone.
    pub(crate) fn start(
        setup: Setup,
        (entrance, messages): (Entrance, Receiver<Message>),
    ) -> io::Result<Self> {
        let Setup { session, model, limits, prefix_cache, counters } = setup;
        let heartbeat = Heartbeat::new(clock::now());
        // Reuse computes a prompt in pieces.
        let (limits, prefix_cache) = match session.splits() {
            true => (limits, prefix_cache),
            false => (Limits { chunk: model.context_length(), whole: true, ..limits }, 0),
        };
        let mut worker = Worker {
            board: Arc::clone(entrance.board()),
            kv_capacity: limits.slots * model.context_length(),
            session,
            model,
            limits,
            messages,
            heartbeat: heartbeat.clone(),
            counters,
            line: Line::new(),
            prefixes: PrefixCache::new(prefix_cache),
            prefilling: None,
            decoding: Vec::new(),
            prefilled_last: false,
            logits: Vec::new(),
            load: Load { slots: limits.slots, ..Load::default() },
            prompt_rate: Rate::default(),
            chunk_rate: Rate::default(),
        };
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || worker.run())?;
        Ok(Self { entrance, heartbeat })
    }
}

struct Worker {
    session: Box<dyn Session>,
    model: Arc<Model>,
    limits: Limits,
    messages: Receiver<Message>,
    heartbeat: Heartbeat,
    counters: Counters,
    line: Line<Generation>,
    prefixes: PrefixCache<KvBlock>,
    /// Always in slot `decoding.len()`.
    prefilling: Option<Sequence>,
    /// `decoding[i]` is in slot `i`.
    decoding: Vec<Sequence>,
    prefilled_last: bool,
    /// Kept between steps.
    logits: Vec<f32>,
    board: Arc<Board>,
    load: Load,
    kv_capacity: usize,
    /// Of a prompt's tokens, cached ones included.
    prompt_rate: Rate,
    /// Of a chunk's tokens.
    chunk_rate: Rate,
}

/// What an engine that has ended must not go on showing.
impl Drop for Worker {
    fn drop(&mut self) {
        self.counters.running.set(0);
        self.counters.kv_use.set(0.0);
        self.counters.prefix_bytes.set(0);
    }
}

impl Worker {
    fn run(&mut self) {
        loop {
            let now = clock::now();
            self.heartbeat.beat(now);
            while let Ok(message) = self.messages.try_recv() {
                self.hear(message);
            }
            self.drop_cancelled();
            match next_step(&self.view(now), self.limits) {
                Step::Admit => self.admit(now),
                Step::Suspend => self.suspend(),
                Step::Prefill(chunk) => self.prefill(chunk),
                Step::Decode => self.decode(),
                Step::Wait => {
                    self.tell();
                    match self.messages.recv_timeout(IDLE_BEAT) {
                        Ok(message) => self.hear(message),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
            self.tell();
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Generate(generation) => {
                let standing = generation.standing();
                self.line.push(generation, standing);
            }
            Message::Purge(purge, answer) => {
                let dropped = match purge {
                    Purge::All => self.prefixes.clear(),
                    Purge::Tenant(tenant) => self.prefixes.clear_tenant(&tenant),
                    Purge::Prefix(tenant, tokens) => self.purge_prefix(tenant, &tokens),
                };
                // Whoever asked may have gone.
                let _ = answer.send(dropped);
            }
        }
    }

    fn purge_prefix(&mut self, tenant: Option<Arc<str>>, tokens: &[u32]) -> usize {
        let report = self.model.report();
        let tenants = tenant.map_or_else(|| self.prefixes.tenants(), |one| [one].into());
        let salts = tenants.iter().map(|who| Salt::new(who, &report.revision, &report.template));
        salts.map(|salt| self.prefixes.clear_prefix(&salt, tokens)).sum()
    }

    /// Shows how busy it is.
    fn tell(&mut self) {
        let prefilling = self.prefilling.iter();
        let left: usize =
            prefilling.clone().map(|sequence| sequence.prompt.len() - sequence.length).sum();
        let sequences = prefilling.chain(&self.decoding);
        let kv_tokens = sequences.map(|sequence| sequence.length).sum();
        let running = self.decoding.len() + usize::from(self.prefilling.is_some());
        self.load = Load {
            running,
            prompt_tokens: left,
            kv_tokens,
            kv_capacity: self.kv_capacity,
            ..self.load
        };
        self.board.write(self.load);
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.counters.running.set(whole(running));
        self.counters.kv_use.set(share(kv_tokens, self.kv_capacity));
        self.counters.prefix_bytes.set(whole(self.prefixes.bytes()));
    }

    fn view(&self, now: Instant) -> View {
        let prompt = |sequence: &Sequence| Prompt {
            done: sequence.length,
            length: sequence.prompt.len(),
            rank: sequence.generation.standing().rank(now),
        };
        View {
            next: self.line.next_rank(now),
            prefilling: self.prefilling.as_ref().map(prompt),
            decoding: self.decoding.len(),
            prefilled_last: self.prefilled_last,
            chunk_token_seconds: self.chunk_rate.each(),
            step_seconds: self.load.step_seconds,
        }
    }

    fn drop_cancelled(&mut self) {
        let running = self.decoding.len() + usize::from(self.prefilling.is_some());
        let dropped = self.line.retain(|generation| !generation.is_cancelled());
        self.prefilling.take_if(|sequence| sequence.generation.is_cancelled());
        for slot in (0..self.decoding.len()).rev() {
            if self.decoding[slot].generation.is_cancelled() {
                self.remove(slot);
            }
        }
        let left = self.decoding.len() + usize::from(self.prefilling.is_some());
        self.counters.cancelled.inc_by((dropped + running - left) as u64);
    }

    /// Gives the next in line a slot, with what is known of its prompt.
    fn admit(&mut self, now: Instant) {
        let Some(mut generation) = self.line.next(now) else { return };
        generation.place.leave();
        let mut sequence = Sequence::new(generation, &self.model, now);
        if sequence.end_if_full(&self.model) {
            return;
        }
        let slot = self.decoding.len();
        let length = sequence.prompt.len();
        // At least two tokens are computed: one alone would be computed as a decode step, which
        // rounds differently.
        let most = length.saturating_sub(2);
        let blocks = self.prefixes.find(&sequence.generation.job.salt, &sequence.prompt);
        let needed = blocks.len().min(most.div_ceil(BLOCK));
        for (at, block) in blocks.into_iter().take(needed).enumerate() {
            self.session.restore(slot, at * BLOCK..(at + 1) * BLOCK, block);
        }
        sequence.length = (needed * BLOCK).min(most);
        // What a suspended prompt finds again was computed for it.
        if sequence.begin(sequence.length) {
            self.counters.prefix_queries.inc_by(length as u64);
            self.counters.prefix_hits.inc_by(sequence.length as u64);
            self.load.hit_rate = average(self.load.hit_rate, share(sequence.length, length));
        }
        self.prefilling = Some(sequence);
    }

    /// Puts the prompt being computed back into the line; what is done of it is kept.
    fn suspend(&mut self) {
        let Some(sequence) = self.prefilling.take() else { return };
        self.keep(self.decoding.len(), &sequence);
        let generation = sequence.suspend();
        let standing = generation.standing();
        self.line.put_back(generation, standing);
    }

    /// Keeps what prefill computed in `slot`.
    fn keep(&mut self, slot: usize, sequence: &Sequence) {
        let session = &self.session;
        let (salt, done) = (&sequence.generation.job.salt, &sequence.prompt[..sequence.length]);
        self.prefixes.insert(salt, done, |at| {
            let block = session.save(slot, at..at + BLOCK);
            let bytes = block.bytes();
            (block, bytes)
        });
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
        let removed = self.decoding.swap_remove(slot);
        let held = (clock::now() - removed.begun).as_secs_f64();
        self.load.hold_seconds = average(self.load.hold_seconds, held);
        removed
    }

    fn prefill(&mut self, chunk: Range<usize>) {
        self.prefilled_last = true;
        let slot = self.decoding.len();
        let sequence = self.prefilling.as_mut().expect("the scheduler saw a prompt");
        let (done, end) = (chunk.start, chunk.end);
        let before = clock::now();
        let computed = self.session.prefill(slot, done, &sequence.prompt[chunk], &mut self.logits);
        let now = clock::now();
        let took = (now - before).as_secs_f64();
        self.counters.prefill_seconds.observe(took);
        sequence.length = end;
        if let Err(error) = computed {
            tracing::error!(%error, "a prefill step failed");
            self.counters.failed.inc();
            self.prefilling.take().expect("it is there").fail(Failure::Step);
            return;
        }
        self.chunk_rate.add(took, end - done);
        if end == sequence.prompt.len() {
            let sequence = self.prefilling.take().expect("it is there");
            self.prefilled(slot, sequence, now);
        }
    }

    /// A prompt is computed: its first token comes, and then it is kept for others.
    fn prefilled(&mut self, slot: usize, mut sequence: Sequence, now: Instant) {
        let waited = (now - sequence.generation.job.submitted).as_secs_f64();
        self.counters.first_token_seconds.observe(waited);
        self.load.first_token_seconds = average(self.load.first_token_seconds, waited);
        self.prompt_rate.add((now - sequence.begun).as_secs_f64(), sequence.prompt.len());
        self.load.prompt_token_seconds = self.prompt_rate.each();
        sequence.last_token = Some(now);
        let progress = sequence.advance(&self.logits, &self.model);
        self.keep(slot, &sequence);
        match progress {
            Progress::Goes => self.decoding.push(sequence),
            Progress::Ended => {}
            Progress::Broken => self.broken(sequence),
        }
    }

    fn broken(&self, sequence: Sequence) {
        tracing::error!("a sequence's logits are no numbers");
        self.counters.failed.inc();
        sequence.fail(Failure::NotFinite);
    }

    fn decode(&mut self) {
        self.prefilled_last = false;
        let tokens: Vec<u32> = self.decoding.iter().map(|sequence| sequence.next).collect();
        let lengths: Vec<usize> = self.decoding.iter().map(|sequence| sequence.length).collect();
        let before = clock::now();
        let computed = self.session.decode(&tokens, &lengths, &mut self.logits);
        let now = clock::now();
        let took = (now - before).as_secs_f64();
        self.counters.decode_seconds.observe(took);
        self.load.step_seconds = average(self.load.step_seconds, took);
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
            self.decoding.drain(..).for_each(|sequence| sequence.fail(Failure::Step));
            return;
        }
        let vocabulary = self.session.vocabulary();
        for slot in (0..self.decoding.len()).rev() {
            let sequence = &mut self.decoding[slot];
            sequence.length += 1;
            if let Some(last) = sequence.last_token.replace(now) {
                self.counters.inter_token_seconds.observe((now - last).as_secs_f64());
            }
            let logits = &self.logits[slot * vocabulary..(slot + 1) * vocabulary];
            match sequence.advance(logits, &self.model) {
                Progress::Goes => {}
                Progress::Ended => drop(self.remove(slot)),
                Progress::Broken => {
                    let sequence = self.remove(slot);
                    self.broken(sequence);
                }
            }
        }
    }
}

#[cfg(test)]
mod equality;
#[cfg(test)]
mod tests;
