//! A generation and those who wait for it: its text lies apart from any reader, so that a slow or
//! gone client holds nobody up, and it stops when nobody waits.
//!
//! Until a reader has sent something of it, a generation that was lost begins again on another pod
//! ([`Flight::lost`]); afterwards it can only end. Readers that typed into it skip what they typed,
//! and leave it when it comes to something else.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use nearhop_edge_cache::{Around, Asked, Question, Rule, is_suggestion, may_join};
use nearhop_wire::{Answer, Delta, Head as AnswerHead};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use crate::{phase::attempt::Event, reject::Reject, upstream::outcome::Outcome};

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

/// A generation under way.
pub(crate) struct Flight {
    /// Where it was asked; `None` where nobody may join.
    asked: Option<Asked>,
    state: Mutex<State>,
    /// Counts what happens, for those who wait.
    changed: watch::Sender<()>,
    /// Whether a reader has sent something of it.
    taken: AtomicBool,
    task: OnceLock<AbortHandle>,
}

#[derive(Default)]
struct State {
    /// What its answer begins with, and the pod that gives it.
    begun: Option<(AnswerHead, String)>,
    /// Pieces without their token ids.
    events: Vec<Event>,
    /// The first choice, so far.
    text: String,
    /// Beginnings: what readers saw of an earlier one is void.
    turn: u32,
    end: Option<End>,
    readers: usize,
}

impl Flight {
    /// A flight that nobody drives yet.
    pub(crate) fn new(asked: Option<Asked>) -> Arc<Self> {
        Arc::new(Self {
            asked,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
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

    /// A place among its readers for who typed so much into it; `None` where it has ended, or where
    /// the last reader has just left.
    pub(crate) fn board(self: &Arc<Self>, typed: &str, first: bool) -> Option<Reader> {
        let mut state = self.state();
        if state.end.is_some() || (state.readers == 0 && !first) {
            return None;
        }
        state.readers += 1;
        Some(Reader {
            flight: Arc::clone(self),
            changed: self.changed.subscribe(),
            typed: typed.to_owned(),
            at: 0,
            skipped: 0,
            shown: String::new(),
            turn: state.turn,
            superseded: Arc::default(),
        })
    }

    /// Whether a request may join: the bytes that it typed, and by which rule.
    pub(crate) fn joins(&self, asking: (&Question, Around<'_>)) -> Option<(usize, Rule)> {
        let asked = self.asked.as_ref()?;
        let state = self.state();
        if state.end.is_some() {
            return None;
        }
        may_join((asked, &state.text), asking)
    }

    /// Whether a reader has sent something of it.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// Readers that wait.
    pub(crate) fn readers(&self) -> usize {
        self.state().readers
    }

    /// The answer begins.
    pub(crate) fn begin(&self, head: AnswerHead, pod: &str) {
        self.state().begun = Some((head, pod.to_owned()));
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
        self.changed.send_replace(());
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
        true
    }

    /// It is over. Only the first end counts.
    pub(crate) fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.tell();
    }
}

/// One who waits for a flight.
pub(crate) struct Reader {
    flight: Arc<Flight>,
    changed: watch::Receiver<()>,
    /// What the client has typed of the answer.
    typed: String,
    /// Events taken.
    at: usize,
    /// Bytes of `typed` that came.
    skipped: usize,
    /// What was held back until it is a suggestion.
    shown: String,
    turn: u32,
    superseded: Arc<Notify>,
}

/// What a reader finds.
#[derive(Debug)]
pub(crate) enum Step {
    /// Pieces were given.
    Some,
    /// The answer is complete, and all of it was given.
    Done(Arc<Answer>),
    /// It came to something else than what this reader typed, or to nothing worth showing, or is
    /// lost for it alone: it is on its own.
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

    /// What the answer begins with, and the pod that gives it.
    pub(crate) fn begun(&self) -> Option<(AnswerHead, String)> {
        self.flight.state().begun.clone()
    }

    /// Bytes of the answer that the client typed.
    pub(crate) fn typed(&self) -> usize {
        self.typed.len()
    }

    /// Waits for pieces and gives them to `take`; `sent` is whether some were sent already.
    pub(crate) async fn next(&mut self, sent: bool, take: &mut impl FnMut(Event)) -> Step {
        loop {
            self.changed.borrow_and_update();
            if let Some(step) = self.look(sent, take) {
                return step;
            }
            tokio::select! {
                // The flight outlives its readers: there is always a sender.
                _ = self.changed.changed() => {}
                () = self.superseded.notified(), if !sent => return Step::Superseded,
            }
        }
    }

    /// Waits for the end.
    pub(crate) async fn whole(&mut self) -> Step {
        let step = self.end().await;
        match step {
            Step::Done(answer) if self.typed.is_empty() => Step::Done(answer),
            Step::Done(answer) => match rest(&answer, &self.typed) {
                Some(rest) => Step::Done(Arc::new(rest)),
                None => Step::Alone,
            },
            step => step,
        }
    }

    async fn end(&mut self) -> Step {
        loop {
            self.changed.borrow_and_update();
            let end = self.flight.state().end.clone();
            match end {
                Some(End::Done(answer)) => return Step::Done(answer),
                Some(End::Failed(reject)) => return self.failed(reject),
                Some(End::Broken(_)) => return Step::Alone,
                None => {}
            }
            tokio::select! {
                _ = self.changed.changed() => {}
                () = self.superseded.notified() => return Step::Superseded,
            }
        }
    }

    /// Its leader's time is not a follower's.
    fn failed(&self, reject: Reject) -> Step {
        match reject {
            Reject::Deadline if self.joined() => Step::Alone,
            reject => Step::Failed(reject),
        }
    }

    fn joined(&self) -> bool {
        self.superseded.is_joined()
    }

    /// This reader is about to send what it was given. Where that is void by now, it begins again.
    pub(crate) fn commit(&mut self) -> bool {
        let state = self.flight.state();
        if state.turn == self.turn {
            self.flight.taken.store(true, Ordering::Release);
            return true;
        }
        drop(state);
        false
    }

    fn look(&mut self, sent: bool, take: &mut impl FnMut(Event)) -> Option<Step> {
        todo!()
    }
}
