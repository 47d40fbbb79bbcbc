//! A generation and those who wait for it: its text lies apart from any reader, so that a slow or
//! gone client holds nobody up, and it stops when nobody waits.
//!
//! Until a reader has sent something of it, a generation that was lost begins again elsewhere
//! ([`Flight::lost`]); afterwards it is gone on with ([`Flight::resumed`]), or ends. Readers
//! that typed into it skip what they typed, and leave it when it comes to something else.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nearhop_edge_cache::{Asked, Rule, is_suggestion, may_join, semantic::How};
use nearhop_routing::Class;
use nearhop_wire::{Answer, Delta, Head as AnswerHead, Kind};
use tokio::{sync::Notify, task::AbortHandle};

use crate::{event::Event, reject::Reject, upstream::outcome::Outcome};

/// How a flight ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The answer is complete.
    Done(Arc<Answer>),
    /// There is none.
    Failed(Reject),
    /// It broke off after somebody had sent some of it.
    Broken(Outcome),
}

impl From<Reject> for End {
    fn from(reject: Reject) -> Self {
        Self::Failed(reject)
    }
}

/// Where an answer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An upstream, of that class and name.
    Upstream(Class, String),
    /// The shared cache, by a rule.
    L2(Rule),
    /// The semantic tier, and for how long that is fresh.
    L3(How, Duration),
}

/// Under which terms something is generated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Its class.
    pub(crate) kind: Kind,
    /// When it is given up.
    pub(crate) deadline: Instant,
    /// A generation that is given up before that is not worth joining.
    pub(crate) patience: Instant,
}

/// A request that would join.
pub(crate) struct Asking<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) terms: Terms,
    /// The rules that may serve.
    pub(crate) allowed: [bool; Rule::ALL.len()],
}

/// A generation under way.
pub(crate) struct Flight {
    /// Where it was asked; `None` where nobody may join.
    asked: Option<Asked>,
    terms: Terms,
    state: Mutex<State>,
    /// Says that something happened, to those who wait.
    changed: Notify,
    /// Whether a reader has sent something of it.
    taken: AtomicBool,
    task: OnceLock<AbortHandle>,
}

#[derive(Default)]
struct State {
    /// What its answer begins with, and where it comes from.
    begun: Option<(AnswerHead, Origin)>,
    /// Pieces without their token ids.
    events: Vec<Event>,
    /// The first choice, so far.
    text: String,
    /// Beginnings: what readers saw of an earlier one is void.
    turn: u32,
    /// How often it was gone on with elsewhere.
    resumed: u32,
    end: Option<End>,
    readers: usize,
    /// Whether anybody came who did not begin it.
    joined: bool,
}

impl Flight {
    /// A flight that nobody drives yet.
    pub(crate) fn new(asked: Option<Asked>, terms: Terms) -> Arc<Self> {
        Arc::new(Self {
            asked,
            terms,
            state: Mutex::default(),
            changed: Notify::new(),
            taken: AtomicBool::new(false),
            task: OnceLock::new(),
        })
    }

    /// What drives it, to be stopped when nobody waits any more.
    pub(crate) fn driven_by(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is in it is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A flight that nobody may join; its only reader.
    pub(crate) fn alone(terms: Terms) -> Reader {
        Self::new(None, terms).lead()
    }

    /// Its first reader.
    pub(crate) fn lead(self: &Arc<Self>) -> Reader {
        self.state().readers += 1;
        self.reader("", None)
    }

    /// A place among its readers for a request that may join; `None` where it may not, or where the
    /// last reader has just left.
    pub(crate) fn join(self: &Arc<Self>, asking: &Asking<'_>) -> Option<Reader> {
        let asked = self.asked.as_ref()?;
        let mut state = self.state();
        // Who has more right to a place, or more time, does not wait behind who has less.
        let late = self.terms.deadline < asking.terms.patience;
        let behind = state.begun.is_none() && self.terms.kind > asking.terms.kind;
        if state.end.is_some() || state.readers == 0 || late || behind {
            return None;
        }
        let (typed, rule) = may_join((asked, &state.text), asking.asked)?;
        if !asking.allowed[rule as usize] {
            return None;
        }
        state.readers += 1;
        state.joined = true;
        drop(state);
        Some(self.reader(typed, Some(rule)))
    }

    fn reader(self: &Arc<Self>, typed: &str, joined: Option<Rule>) -> Reader {
        Reader {
            flight: Arc::clone(self),
            joined,
            typed: typed.to_owned(),
            progress: Progress::default(),
            superseded: Arc::default(),
        }
    }

    /// Whether a reader has sent something of it.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// Readers that wait.
    pub(crate) fn readers(&self) -> usize {
        self.state().readers
    }

    /// Whether anybody has ever joined it: what its leader may know, they may not.
    pub(crate) fn was_joined(&self) -> bool {
        self.state().joined
    }

    /// The answer begins.
    pub(crate) fn begin(&self, head: AnswerHead, origin: Origin) {
        self.state().begun = Some((head, origin));
    }

    /// Whether anything came yet.
    pub(crate) fn has_begun(&self) -> bool {
        self.state().begun.is_some()
    }

    /// A piece came; [`Flight::tell`] says so to the readers.
    pub(crate) fn push(&self, event: Event) {
        let mut state = self.state();
        let event = match event {
            Event::Delta(delta) => {
                if delta.index == 0 {
                    state.text.push_str(&delta.text);
                }
                Event::Delta(Delta { token_ids: Vec::new(), ..delta })
            }
            event => event,
        };
        state.events.push(event);
    }

    /// Readers may look.
    pub(crate) fn tell(&self) {
        self.changed.notify_waiters();
    }

    /// What came is lost: it begins again, unless somebody has sent some of it.
    pub(crate) fn lost(&self) -> bool {
        let mut state = self.state();
        if self.is_taken() {
            return false;
        }
        state.begun = None;
        state.events.clear();
        state.text.clear();
        state.turn += 1;
        state.resumed = 0;
        true
    }

    /// It broke off, and is gone on with elsewhere.
    pub(crate) fn resumed(&self) {
        self.state().resumed += 1;
    }

    /// It is over. Only the first end counts.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        // Nobody joins any more, which is what it was for.
        state.text = String::new();
        drop(state);
        self.tell();
    }
}

/// One who waits for a flight.
pub(crate) struct Reader {
    flight: Arc<Flight>,
    /// What it came by, where it came to a flight that was under way.
    joined: Option<Rule>,
    /// What the client has typed of the answer.
    typed: String,
    progress: Progress,
    superseded: Arc<Notify>,
}

/// How far a reader is.
#[derive(Debug, Default)]
struct Progress {
    turn: u32,
    /// Events taken.
    at: usize,
    /// Bytes of what was typed that came.
    skipped: usize,
    /// Text behind it, kept until it is worth showing.
    kept: String,
    /// Whether it was.
    open: bool,
}

/// What a reader finds.
#[derive(Debug)]
pub(crate) enum Step {
    /// Pieces were given.
    Pieces,
    /// The answer is complete, and all of it was given.
    Done(Arc<Answer>),
    /// It came to something else than what was typed, or to nothing worth showing, or is lost for
    /// this reader: it is on its own.
    Alone,
    /// There is no answer for anybody.
    Failed(Reject),
    /// It broke off after this reader had sent some of it.
    Broken(Outcome),
    /// A newer request of the same document wants what this one no longer does.
    Superseded,
}

impl Reader {
    /// By what it is told to give up.
    pub(crate) fn superseded(&self) -> Arc<Notify> {
        Arc::clone(&self.superseded)
    }

    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// By which rule it joined, where it did.
    pub(crate) fn joined(&self) -> Option<Rule> {
        self.joined
    }

    /// Where the answer comes from.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.flight.state().begun.as_ref().map(|(_, origin)| origin.clone())
    }

    /// Waits for pieces and gives them to `take`, each with what the answer begins with and how often
    /// it was gone on with; `sent` is whether some were sent already.
    pub(crate) async fn next(
        &mut self,
        sent: bool,
        take: &mut impl FnMut((&AnswerHead, u32), &Event),
    ) -> Step {
        let (flight, superseded) = (Arc::clone(&self.flight), self.superseded());
        loop {
            // Before it looks: what is told from here on is not missed.
            let changed = flight.changed.notified();
            if let Some(step) = self.look(sent, take) {
                return step;
            }
            if waits(changed, &superseded, sent).await == Waited::Superseded {
                return Step::Superseded;
            }
        }
    }

    /// Waits for the end, and gives the answer less what was typed.
    pub(crate) async fn whole(&mut self) -> Step {
        let (flight, superseded) = (Arc::clone(&self.flight), self.superseded());
        loop {
            let changed = flight.changed.notified();
            let end = self.flight.state().end.clone();
            match end {
                Some(End::Done(answer)) => return rest(answer, &self.typed),
                Some(End::Failed(reject)) => return self.failed(reject),
                Some(End::Broken(_)) => return Step::Alone,
                None => {}
            }
            if waits(changed, &superseded, false).await == Waited::Superseded {
                return Step::Superseded;
            }
        }
    }

    /// Its leader's time, and its leader's turn, are not a follower's.
    fn failed(&self, reject: Reject) -> Step {
        match reject {
            Reject::Deadline | Reject::Overloaded { .. } if self.joined.is_some() => Step::Alone,
            reject => Step::Failed(reject),
        }
    }

    /// This reader is about to send what it was given. `false` where that is void: it was lost, and
    /// the next pieces are the first again.
    pub(crate) fn commit(&self) -> bool {
        let state = self.flight.state();
        let current = state.turn == self.progress.turn;
        if current {
            self.flight.taken.store(true, Ordering::Release);
        }
        current
    }

    fn look(
        &mut self,
        sent: bool,
        take: &mut impl FnMut((&AnswerHead, u32), &Event),
    ) -> Option<Step> {
        let state = self.flight.state();
        if state.turn != self.progress.turn {
            self.progress = Progress { turn: state.turn, ..Progress::default() };
        }
        let before = self.progress.at;
        if let Some((head, _)) = &state.begun {
            let mut take = |event: &Event| take((head, state.resumed), event);
            for event in &state.events[before..] {
                self.progress.at += 1;
                if self.typed.is_empty() {
                    take(event);
                } else if !self.progress.give(event, &self.typed, &mut take) {
                    return Some(Step::Alone);
                }
            }
        }
        let step = match &state.end {
            None if self.progress.at > before => Step::Pieces,
            None => return None,
            Some(End::Done(answer)) => Step::Done(Arc::clone(answer)),
            Some(End::Broken(outcome)) if sent => Step::Broken(outcome.clone()),
            Some(End::Broken(_)) => Step::Alone,
            Some(End::Failed(reject)) => self.failed(reject.clone()),
        };
        Some(step)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.flight.state();
        state.readers -= 1;
        let stop = state.readers == 0 && state.end.is_none();
        drop(state);
        if stop && let Some(task) = self.flight.task.get() {
            task.abort();
        }
    }
}

/// Waits until something happened; whether it is told to give up is asked until it has sent some.
async fn waits(changed: impl Future<Output = ()>, superseded: &Notify, sent: bool) -> Waited {
    tokio::select! {
        () = changed => Waited::Changed,
        () = superseded.notified(), if !sent => Waited::Superseded,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    Changed,
    Superseded,
}

impl Progress {
    /// Gives a piece less what was typed; `false` where it is something else than that, or ends
    /// before there is anything to show.
    fn give(&mut self, event: &Event, typed: &str, take: &mut impl FnMut(&Event)) -> bool {
        let Event::Delta(delta) = event else {
            take(event);
            return true;
        };
        let wanted = &typed[self.skipped..];
        let text = match delta.text.strip_prefix(wanted) {
            Some(text) => {
                self.skipped = typed.len();
                text
            }
            None if wanted.starts_with(&delta.text) => {
                self.skipped += delta.text.len();
                ""
            }
            None => return false,
        };
        self.kept.push_str(text);
        self.open |= is_suggestion(&self.kept);
        if self.open {
            let text = std::mem::take(&mut self.kept);
            take(&Event::Delta(Delta { text, ..delta.clone() }));
        }
        self.open || delta.finish.is_none()
    }
}

/// The answer less what was typed of it.
fn rest(answer: Arc<Answer>, typed: &str) -> Step {
    if typed.is_empty() {
        return Step::Done(answer);
    }
    let mut answer = Arc::unwrap_or_clone(answer);
    let text = answer.choices.first().and_then(|choice| choice.text.strip_prefix(typed));
    let Some(text) = text.filter(|text| is_suggestion(text)) else { return Step::Alone };
    answer.choices[0].text = text.to_owned();
    Step::Done(Arc::new(answer))
}

#[cfg(test)]
mod tests;
