//! A generation, apart from whoever waits for it: the shared cache, a place at the pods, attempts
//! until one answers, and its text to the readers and, after the terminator, into the cache.
//!
//! It is a task of its own. When the last reader leaves, the task is dropped, and with it the
//! connection to the pod, which stops.

use std::sync::Arc;

use nearhop_admin::clock;
use nearhop_admission::{Caller, NoPlace, Permit, Reservation, Served};
use nearhop_edge_cache::{Around, Found, Need, Rule};
use nearhop_wire::{Answer, Delta, Usage};
use tokio::time::timeout;

use super::{
    Shared,
    admit::Admitted,
    attempt::{Attempts, Generation, Waiting},
    collect::Collector,
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
    trace::Trace,
    upstream::outcome::Outcome,
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
        landing,
    };
    let task = tokio::spawn(job.run());
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
        let (Some(l2), true) = (&shared.l2, self.ticket.sought().is_some()) else {
            return self.generate().await;
        };
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
                !flight.has_begun() && (whole || flight.readers() == 1)
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
        let (admitted, flight) = (&self.admitted, &self.landing.flight);
        let model = &admitted.model;
        let head = (admitted.request.endpoint, model.name.as_str(), model.fingerprint());
        let answer = found.entry.answer(found.fit.typed, head);
        self.ticket.keep(&self.landing.shared, &found.entry);
        self.account.guess = 0;
        self.account.cached = Some(answer.usage);
        flight.begin(answer.head.clone(), Origin::L2(found.fit.rule));
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

    /// Attempts pods until one has answered. What is lost before anybody sent any of it is tried
    /// again elsewhere.
    async fn generate(&mut self) -> Result<(), End> {
        let shared = Arc::clone(&self.landing.shared);
        let (live, admitted) = (Arc::clone(&self.live), Arc::clone(&self.admitted));
        let _entered: Permit = enter(&shared, &admitted).await?;
        let asked = (self.request_id.as_str(), &self.trace);
        let mut attempts = Attempts::new(&shared, &live, &admitted, asked, self.tries.clone())?;
        loop {
            // A pod reads the prompt, or is about to; where all refuse, nobody has.
            self.account.guess = limit::prompt_guess(&admitted);
            let mut generation = attempts.begin().await.inspect_err(|_refused| {
                self.account.guess = 0;
            })?;
            match self.receive(&mut generation).await {
                Ok(answer) => {
                    // In this order: who comes now finds it in the cache.
                    self.landing.land();
                    self.landing.flight.end(End::Done(answer));
                    generation.finish().await;
                    return Ok(());
                }
                Err(outcome) => {
                    generation.lost(&outcome);
                    if !self.landing.flight.lost() {
                        return Err(End::Broken(outcome));
                    }
                    attempts.lost(outcome);
                }
            }
        }
    }

    /// Everything that a pod says, to the readers; the whole answer at its end.
    async fn receive(&mut self, generation: &mut Generation<'_>) -> Result<Arc<Answer>, Outcome> {
        let flight = Arc::clone(&self.landing.flight);
        let head = generation.head(&self.admitted);
        let mut collector = Collector::new(head.clone(), self.admitted.request.sampling.n);
        flight.begin(head, Origin::Pod(generation.pod().to_owned()));
        let mut next = generation.next(|| flight.is_taken()).await?;
        loop {
            collector.take(&next)?;
            match next {
                Event::Done => {
                    let answer = Arc::new(collector.finish()?);
                    self.complete(&answer);
                    return Ok(answer);
                }
                Event::Delta(delta) => {
                    self.account.seen += delta.token_ids.len().max(1) as u64;
                    self.held.hold(delta.text.len());
                    flight.push(Event::Delta(delta));
                }
                event @ Event::Usage(_) => flight.push(event),
            }
            next = match generation.arrived()? {
                // What arrived together is told together.
                Some(event) => event,
                None => {
                    flight.tell();
                    generation.next(|| flight.is_taken()).await?
                }
            };
        }
    }

    fn complete(&mut self, answer: &Answer) {
        let shared = &self.landing.shared;
        let usage = answer.usage;
        self.account.usage = Some(usage);
        let tokens = &shared.metrics.tokens;
        tokens.with_label_values(&["input"]).inc_by(usage.prompt_tokens as u64);
        tokens.with_label_values(&["output"]).inc_by(usage.completion_tokens as u64);
        self.ticket.store(shared, &self.admitted.model, answer);
    }
}

/// A place among the requests that pods work on, in its tenant's turn.
async fn enter(shared: &Shared, admitted: &Admitted) -> Result<Permit, Reject> {
    let _waiting = Waiting::new(&shared.metrics.queue_depth);
    let caller = &admitted.head.caller;
    let entered = shared.gate.enter(&caller.tenant, admitted.kind as u8, admitted.deadline).await;
    entered.map_err(|none| match none {
        NoPlace::Full => Reject::Overloaded,
        NoPlace::Late => Reject::Deadline,
    })
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
