//! What happened, for operators: the latest events of a role, each with a number, so that whoever
//! asks again is told what is new. Memory is bounded; the oldest goes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::clock;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Counts from 1 in this process.
    pub number: u64,
    /// Time since the Unix epoch.
    pub at: Duration,
    /// What: a word such as `upstream_out`.
    pub kind: &'static str,
    /// To whom: the name of an upstream, a rule, a level.
    pub subject: String,
    /// An object with whatever else is known. Never a prompt, an answer or a key.
    pub detail: Value,
}

impl Event {
    /// As operators read it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "number": self.number,
            "at": self.at.as_secs_f64(),
            "kind": self.kind,
            "subject": self.subject,
            "detail": self.detail,
        })
    }
}

/// The latest events of a role; a clone is the same.
#[derive(Debug, Clone)]
pub struct Events(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keep: usize,
    state: Mutex<State>,
    /// The number of the last one.
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    number: u64,
    events: VecDeque<Event>,
}

impl Events {
    /// Keeps the latest `keep`.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        let state = Mutex::default();
        Self(Arc::new(Inner { keep: keep.max(1), state, last: watch::Sender::new(0) }))
    }

    /// Something happened just now.
    pub fn emit(&self, kind: &'static str, subject: &str, detail: Value) {
        let mut state = self.state();
        let at = clock::since_epoch();
        state.number += 1;
        let number = state.number;
        if state.events.len() == self.0.keep {
            state.events.pop_front();
        }
        state.events.push_back(Event { number, at, kind, subject: subject.to_owned(), detail });
        drop(state);
        // Another may have been told in between.
        self.0.last.send_modify(|last| *last = number.max(*last));
    }

    /// Those after the one of that number that are still kept, the oldest first.
    #[must_use]
    pub fn after(&self, number: u64) -> Vec<Event> {
        let state = self.state();
        state.events.iter().filter(|event| event.number > number).cloned().collect()
    }

    /// Changes with every event; its value is the last one's number.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.last.subscribe()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // What is in it is whole at every moment.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_whoever_asks_again_is_told_what_is_new() {
        let events = Events::new(3);
        for subject in ["a", "b", "c", "d"] {
            events.emit("upstream_out", subject, json!({"reason": "dead"}));
        }
        let told = |after: u64| -> Vec<(u64, String)> {
            events.after(after).into_iter().map(|event| (event.number, event.subject)).collect()
        };
        assert_eq!(told(0), [(2, "b".into()), (3, "c".into()), (4, "d".into())]);
        assert_eq!(told(3), [(4, "d".into())]);
        assert_eq!(told(9), []);
        assert_eq!(*events.watch().borrow(), 4);
    }
}
