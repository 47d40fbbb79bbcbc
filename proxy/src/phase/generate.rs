//! A generation, apart from whoever waits for it: the shared cache, a place at the pods, attempts
//! until one answers, and its text to the readers and, after the terminator, into the cache.
//!
//! It is a task of its own. When the last reader leaves, the task is dropped, and with it the
//! connection to the pod, which stops.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nearhop_admin::clock;
use nearhop_admission::{Caller, Permit, Reservation, Served};
use nearhop_edge_cache::{Around, Found, Need, Rule, Standing, l2};
use nearhop_wire::{Answer, Delta, Kind, Resume, Usage};
use tokio::time::timeout;

use super::{
    Shared,
    admit::Admitted,
    attempt::{Attempts, Waiting},
    collect::Collector,
    generation::Generation,
    limit,
    lookup::Ticket,
    record::{self, Record},
    tries::Tries,
};
use crate::{
    buffer::Held,
    event::Event,
    flight::{End, Flight, Origin},
    live::Live,
    reject::Reject,
    semantic::{self, Embedded, Said},
    trace::Trace,
    upstream::outcome::{Failed, Outcome},
};

/// Drives a flight, which is what `ticket` asked for.
pub(super) fn drive(
    record: &mut Record<'_>,
    admitted: &Arc<Admitted>,
    ticket: &Arc<Ticket>,
    landing: Landing,
) {
    let (flight, shared) = (Arc::clone(&landing.flight), Arc::clone(record.shared));
    let job = Job {
        account: Account {
            shared: Arc::clone(&shared),
            caller: Arc::clone(&admitted.head.caller),
            reservation: record.hand_on(),
            guess: 0,
            seen: 0,
            usage: None,
            cached: None,
        },
        held: Held::new(&shared.buffered, record.live.limits.buffered.0),
        live: Arc::clone(record.live),
        admitted: Arc::clone(admitted),
        ticket: Arc::clone(ticket),
        request_id: record.request_id.clone(),
        trace: record.trace.clone(),
        tries: record.tried.clone(),
        vector: None,
        landing,
    };
    // Boxed: it is large, and would be moved about until it lies in its task.
    let task = tokio::spawn(Box::pin(job.run()));
    flight.driven_by(task.abort_handle());
}

struct Job {
    live: Arc<Live>,
    admitted: Arc<Admitted>,
    ticket: Arc<Ticket>,
    request_id: String,
    trace: Trace,
    tries: Tries,
    account: Account,
    /// Bytes of the answer, which is kept until its end.
    held: Held,
    /// The question's, where it was embedded.
    vector: Option<Embedded>,
    landing: Landing,
}

/// Takes a flight out of those under way, however it ends.
pub(super) struct Landing {
    shared: Arc<Shared>,
    flight: Arc<Flight>,
    ticket: Arc<Ticket>,
}

impl Landing {
    pub(super) fn new(shared: &Arc<Shared>, flight: &Arc<Flight>, ticket: &Arc<Ticket>) -> Self {
        let (shared, flight, ticket) = (Arc::clone(shared), Arc::clone(flight), Arc::clone(ticket));
        Self { shared, flight, ticket }
    }

    fn land(&self) {
        self.shared.flights.land(&self.flight, self.ticket.places());
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.land();
        // Where it has no end yet, nobody drives it any more: its readers are on their own.
        self.flight.end(End::Broken(Outcome::Abandoned));
    }
}

impl Job {
    async fn run(mut self) {
        if let Err(end) = self.answer().await {
            self.landing.flight.end(end);
        }
    }

    /// From the shared cache, or by a pod: where the cache does not answer soon, both are asked, and
    /// the faster wins.
    async fn answer(&mut self) -> Result<(), End> {
        let shared = Arc::clone(&self.landing.shared);
        match &shared.l2 {
            Some(l2) if self.ticket.sought().is_some() => Box::pin(self.sought(&shared, l2)).await,
            _ => self.generate().await,
        }
    }

    async fn sought(&mut self, shared: &Shared, l2: &l2::Shared) -> Result<(), End> {
        let (ticket, admitted) = (Arc::clone(&self.ticket), Arc::clone(&self.admitted));
        let flight = Arc::clone(&self.landing.flight);
        let looking = async {
            let question = ticket.sought()?;
            let asking = (question, Around::of(&admitted.request));
            let need = Need::Fresh(shared.rules.allowed());
            let found = l2.find(asking, need, clock::since_epoch()).await;
            // What a pod has begun to say is there sooner. And what its leader may know of a window,
            // who joined may not.
            let served = |found: &Found| {
                let whole = found.fit.rule != Rule::Window;
                !flight.has_begun() && (whole || !flight.was_joined())
            };
            let (found, result) = match found {
                Ok(Some(found)) if served(&found) => {
                    let name = found.fit.rule.name();
                    (Some(found), name)
                }
                Ok(Some(_)) => (None, "unused"),
                Ok(None) => (None, "miss"),
                Err(trouble) => (None, trouble.name()),
            };
            shared.metrics.lookups.with_label_values(&["l2", result]).inc();
            found
        };
        tokio::pin!(looking);
        match timeout(shared.l2_start_after, &mut looking).await {
            Ok(Some(found)) => return self.found(&found),
            Ok(None) => return self.generate().await,
            Err(_not_yet) => {}
        }
        let found = {
            let generating = self.generate();
            tokio::pin!(generating);
            tokio::select! {
                biased;
                Some(found) = &mut looking => found,
                done = &mut generating => return done,
            }
        };
        self.found(&found)
    }

    /// The shared cache has it.
    fn found(&mut self, found: &Found) -> Result<(), End> {
        let admitted = &self.admitted;
        let model = &admitted.model;
        let head = (admitted.request.endpoint, model.name.as_str(), model.fingerprint());
        let answer = found.entry.answer(found.fit.typed, head);
        self.ticket.keep(&self.landing.shared, &found.entry);
        self.give_whole(answer, Origin::L2(found.fit.rule))
    }

    /// Something that means the same was answered before. Who asks the same as this request may be
    /// told what it is told; not what its sender was told to another question.
    async fn similar(&mut self) -> Option<Result<(), End>> {
        let shared = Arc::clone(&self.landing.shared);
        let looked = semantic::look(&shared, &self.admitted, &self.ticket, &mut self.vector);
        let (answered, how) = looked.await?;
        // From here on nobody joins.
        self.landing.land();
        let flight = &self.landing.flight;
        if flight.was_joined() || flight.has_begun() {
            return None;
        }
        let model = &self.admitted.model;
        let head = (self.admitted.request.endpoint, model.name.as_str(), model.fingerprint());
        let ttl = match answered.standing {
            Standing::Fresh(left) => left,
            Standing::Stale(_) | Standing::Gone => Duration::ZERO,
        };
        Some(self.give_whole(answered.entry.answer(0, head), Origin::L3(how, ttl)))
    }

    /// Gives the readers an answer that is there as a whole.
    fn give_whole(&mut self, answer: Answer, origin: Origin) -> Result<(), End> {
        let flight = &self.landing.flight;
        self.account.guess = 0;
        self.account.cached = Some(answer.usage);
        flight.begin(answer.head.clone(), origin);
        for (index, choice) in answer.choices.iter().enumerate() {
            let finish = Some(choice.finish);
            flight.push(Event::Delta(Delta {
                index,
                text: choice.text.clone(),
                finish,
                ..Delta::default()
            }));
        }
        flight.push(Event::Usage(answer.usage));
        self.landing.land();
        flight.end(End::Done(Arc::new(answer)));
        Ok(())
    }

    /// Attempts until somebody has answered. What is lost before anybody sent any of it is tried
    /// again elsewhere; afterwards it is gone on with from its tokens.
    async fn generate(&mut self) -> Result<(), End> {
        let shared = Arc::clone(&self.landing.shared);
        if shared.l3.is_some()
            && self.admitted.kind == Kind::Chat
            && let Some(given) = Box::pin(self.similar()).await
        {
            return given;
        }
        let (live, admitted) = (Arc::clone(&self.live), Arc::clone(&self.admitted));
        let entered = enter(&shared, &admitted).await?;
        let asked = (self.request_id.as_str(), &self.trace);
        let mut attempts = Attempts::new(&shared, &live, &admitted, asked, self.tries.clone());
        let (mut given, mut begun, mut resumes) = (None, false, 0);
        loop {
            // Somebody reads the prompt, or is about to; where all refuse, nobody has.
            self.account.guess = limit::prompt_guess(&admitted);
            let mut generation = match (attempts.begin().await, &given) {
                (Ok(generation), _) => generation,
                (Err(refused), None) => {
                    if !begun {
                        self.account.guess = 0;
                    }
                    return Err(refused.into());
                }
                // It had begun, and nobody goes on with it.
                (Err(_), Some(Given { lost, .. })) => return Err(End::Broken(lost.clone())),
            };
            begun = true;
            match self.receive(&mut generation, (&mut given, &attempts)).await {
                Ok(answer) => {
                    entered.done();
                    // In this order: who comes now finds it in the cache.
                    self.landing.land();
                    self.landing.flight.end(End::Done(answer));
                    generation.finish().await;
                    return Ok(());
                }
                Err(outcome) => {
                    let upstream = generation.upstream().id;
                    generation.lost(&outcome);
                    if let Some(answer) = given.as_mut().and_then(|given| given.whole(&outcome)) {
                        let answer = Arc::new(answer);
                        self.complete(&answer);
                        self.landing.land();
                        self.landing.flight.end(End::Done(answer));
                        return Ok(());
                    }
                    if self.landing.flight.lost() {
                        given = None;
                    } else if let Some(resume) = given.as_ref().and_then(Given::resume)
                        && resumes < RESUMES_MAX
                    {
                        resumes += 1;
                        attempts.resuming(resume);
                    } else {
                        return Err(End::Broken(outcome));
                    }
                    if let Some(given) = &mut given {
                        given.lost = outcome.clone();
                    }
                    attempts.lost(upstream, outcome);
                }
            }
        }
    }

    /// Everything that is said, to the readers; the whole answer at its end. `given` is what they
    /// have of one that broke off before.
    ///
    /// The piece that ends the last choice waits for what follows it, which comes with it: were it
    /// given and the usage behind it lost, nobody could be asked for that alone.
    async fn receive(
        &mut self,
        generation: &mut Generation<'_>,
        (given, attempts): (&mut Option<Given>, &Attempts<'_>),
    ) -> Result<Arc<Answer>, Outcome> {
        let flight = Arc::clone(&self.landing.flight);
        if given.is_none() {
            let head = generation.head(&self.admitted);
            let upstream = generation.upstream();
            let n = self.admitted.request.sampling.n;
            flight.begin(head.clone(), Origin::Upstream(upstream.class(), upstream.name.clone()));
            let revision = head.fingerprint.clone();
            let tokens = generation.tells_tokens().then(|| vec![Some(Vec::new()); n]);
            let collector = Collector::new(head, n);
            let lost = Outcome::Abandoned;
            *given = Some(Given { collector, revision, tokens, ended: 0, lost });
        } else {
            let revision = given.as_ref().map(|given| &given.revision);
            if revision != Some(&generation.head(&self.admitted).fingerprint) {
                // Other weights would go on with another thought.
                return Err(Outcome::Failed(Failed::Garbage));
            }
            flight.resumed();
            self.landing.shared.metrics.resumes.inc();
        }
        let given = given.as_mut().expect("it is there, or was just put there");
        // Nobody was asked for these again, and nobody counts them.
        let ended = given.ended;
        // Where its pod hangs, what somebody has sent is given up only for another to go on with it.
        let upstream = generation.upstream().id;
        let kept = |given: &Given| {
            let resumes =
                || given.tokens.is_some() && attempts.could_resume(upstream, clock::now());
            flight.is_taken() && !resumes()
        };
        let mut next = generation.next(|| kept(given)).await?;
        let mut last = None;
        loop {
            if let Some(delta) = last.take() {
                self.give(given, delta)?;
            }
            match next {
                Event::Done => {
                    let answer = Arc::new(given.collector.finish()?);
                    self.complete(&answer);
                    return Ok(answer);
                }
                Event::Delta(delta) if given.ends_with(&delta) => last = Some(delta),
                Event::Delta(delta) => self.give(given, delta)?,
                Event::Usage(mut usage) => {
                    usage.completion_tokens += ended;
                    let event = Event::Usage(usage);
                    given.collector.take(&event)?;
                    flight.push(event);
                }
            }
            next = match generation.arrived()? {
                // What arrived together is told together.
                Some(event) => event,
                None => {
                    flight.tell();
                    generation.next(|| kept(given)).await?
                }
            };
        }
    }

    /// A piece, to the readers.
    fn give(&mut self, given: &mut Given, delta: Delta) -> Result<(), Outcome> {
        given.collector.append(&delta)?;
        given.count(&delta);
        self.account.seen += delta.token_ids.len().max(1) as u64;
        self.held.hold(delta.text.len());
        self.landing.flight.push(Event::Delta(delta));
        Ok(())
    }

    fn complete(&mut self, answer: &Arc<Answer>) {
        let shared = &self.landing.shared;
        let usage = answer.usage;
        self.account.usage = Some(usage);
        let tokens = &shared.metrics.tokens;
        tokens.with_label_values(&["input"]).inc_by(usage.prompt_tokens as u64);
        tokens.with_label_values(&["output"]).inc_by(usage.completion_tokens as u64);
        self.ticket.store(shared, &self.admitted.model, answer);
        if let (Some((tags, generation)), Some(asked)) =
            (self.ticket.semantic(), self.ticket.asked())
        {
            let of = (&self.admitted, &self.live, &self.trace);
            let said = Said { answer, forced: !self.ticket.is_miss(), vector: self.vector.take() };
            semantic::teach(shared, of, (asked, tags, generation), said);
        }
    }
}

/// How often an answer is gone on with: one that kills every pod must end some time.
const RESUMES_MAX: u32 = 8;

/// What was given to the readers so far.
struct Given {
    collector: Collector,
    /// The weights that it came from.
    revision: String,
    /// Of each choice the tokens that it came from, `None` for one that has ended; no list at all
    /// where some text came without its tokens.
    tokens: Option<Vec<Option<Vec<u32>>>>,
    /// Tokens of the choices that have ended.
    ended: usize,
    /// How it broke off.
    lost: Outcome,
}

impl Given {
    fn count(&mut self, delta: &Delta) {
        let Some(tokens) = &mut self.tokens else { return };
        match tokens.get_mut(delta.index) {
            // What was held back until its end may come without a token of its own.
            Some(choice @ Some(_)) if delta.finish.is_some() => {
                let before = choice.take().map_or(0, |ids| ids.len());
                self.ended += before + delta.token_ids.len();
            }
            Some(Some(ids)) if delta.text.is_empty() || !delta.token_ids.is_empty() => {
                ids.extend_from_slice(&delta.token_ids);
            }
            _ => self.tokens = None,
        }
    }

    /// Whether `delta` ends the last choice of what can be gone on with.
    fn ends_with(&self, delta: &Delta) -> bool {
        let Some(tokens) = &self.tokens else { return false };
        let mut others = tokens.iter().enumerate().filter(|(at, _)| *at != delta.index);
        delta.finish.is_some() && others.all(|(_, choice)| choice.is_none())
    }

    /// The answer, where it broke off behind its end and its usage.
    fn whole(&mut self, lost: &Outcome) -> Option<Answer> {
        use Failed::{Ejected, OutOfTime, Reset, TokenTimeout};
        let broke_off = matches!(lost, Outcome::Failed(Reset | Ejected | TokenTimeout | OutOfTime));
        let whole = broke_off && self.tokens.is_some() && self.collector.is_complete();
        whole.then(|| self.collector.finish().ok()).flatten()
    }

    /// What to go on with; `None` where it cannot be.
    fn resume(&self) -> Option<Resume> {
        let token_ids = self.tokens.clone()?;
        token_ids.iter().any(Option::is_some).then_some(())?;
        let (_, revision) = self.revision.rsplit_once('@')?;
        Some(Resume { revision: revision.to_owned(), token_ids })
    }
}

/// A place among the requests that pods work on, in its tenant's turn.
pub(super) async fn enter<'a>(
    shared: &'a Shared,
    admitted: &Admitted,
) -> Result<Entered<'a>, Reject> {
    let _waiting = Waiting::new(&shared.metrics.queue_depth);
    let caller = &admitted.head.caller;
    let (kind, now) = (admitted.kind, clock::now());
    // Whose answers take long must not leave others no time to wait.
    let half = admitted.deadline.saturating_duration_since(now) / 2;
    let needs = shared.service_times.needs(kind, now).min(half);
    let (tenant, deadline) = (&caller.tenant, admitted.deadline);
    let permit = shared.gate.enter(tenant, kind as u8, deadline, needs).await?;
    Ok(Entered { permit, shared, kind, began: clock::now() })
}

/// A place at the pods.
pub(super) struct Entered<'a> {
    #[expect(dead_code, reason = "held until this is dropped")]
    permit: Permit,
    shared: &'a Shared,
    kind: Kind,
    began: Instant,
}

impl Entered<'_> {
    /// The answer is complete.
    pub(super) fn done(&self) {
        let now = clock::now();
        self.shared.service_times.took(self.kind, now - self.began, now);
    }
}

/// What a generation uses: settled when it is dropped, given up half-way or not.
struct Account {
    shared: Arc<Shared>,
    caller: Arc<Caller>,
    reservation: Option<Reservation>,
    /// Tokens that the prompt is thought to have, once a pod works on it; and those that came.
    guess: u64,
    seen: u64,
    usage: Option<Usage>,
    /// Of an answer that the shared cache had.
    cached: Option<Usage>,
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(reservation) = self.reservation.take() else { return };
        let served = match (self.usage, self.cached) {
            (Some(usage), _) => (Served::Generated, record::count(usage)),
            (None, Some(usage)) => (Served::Cached, record::count(usage)),
            // Given up half-way: a pod worked for it all the same.
            (None, None) if self.guess > 0 => (Served::Generated, (self.guess, self.seen)),
            (None, None) => return,
        };
        limit::settle(&self.shared, &self.caller, reservation, served);
    }
}
