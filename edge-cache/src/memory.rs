//! The in-process tier (L1): bounded in bytes, expiry checked when reading.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use nearhop_wire::Answer;
use quick_cache::{Weighter, sync::Cache};

use crate::{
    Freshness, Key,
    admission::{self, Skip},
    freshness,
};

/// A stored answer. The body is rendered once, when it is stored, not at every hit.
#[derive(Debug)]
pub struct Entry {
    /// The answer; streams are made from it.
    pub answer: Answer,
    /// Its JSON body.
    pub body: Bytes,
    stored: Duration,
}

/// Allocations around an entry: key, `Arc`, `Answer`, map slot and ghost.
const OVERHEAD_BYTES: usize = 512;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Arc<Entry>> for ByBytes {
    fn weight(&self, _: &Key, entry: &Arc<Entry>) -> u64 {
        let text: usize = entry.answer.choices.iter().map(|choice| choice.text.len()).sum();
        (OVERHEAD_BYTES + entry.body.len() + text) as u64
    }
}

/// The in-process cache. Shared between threads by reference.
pub struct Memory {
    entries: Cache<Key, Arc<Entry>, ByBytes>,
    ttl: Duration,
    entry_bytes_max: usize,
}

impl Memory {
    /// A cache of at most `bytes` bytes whose entries live for `ttl`.
    #[must_use]
    pub fn new(bytes: usize, ttl: Duration) -> Self {
        // An ordinary answer is under 2 KiB: the estimate only sizes the table.
        let estimate = (bytes / 2048).max(16);
        Self {
            entries: Cache::with_weighter(estimate, bytes as u64, ByBytes),
            ttl,
            entry_bytes_max: bytes / 16,
        }
    }

    /// The fresh entry under that key, and how long it may still be served.
    #[must_use]
    pub fn get(&self, key: &Key, now: Duration) -> Option<(Arc<Entry>, Duration)> {
        let entry = self.entries.get(key)?;
        match freshness::judge(entry.stored, self.ttl, now) {
            Freshness::Fresh(left) => Some((entry, left)),
            Freshness::Expired => {
                self.entries.remove(key);
                None
            }
        }
    }

    /// Stores a finished answer.
    ///
    /// # Errors
    /// Why it was not stored.
    pub fn put(&self, key: Key, answer: Answer, body: Bytes, now: Duration) -> Result<(), Skip> {
        admission::admit(&answer, body.len(), self.entry_bytes_max)?;
        self.entries.insert(key, Arc::new(Entry { answer, body, stored: now }));
        Ok(())
    }

    /// Bytes held, as they are counted against the limit.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use nearhop_wire::{Choice, Endpoint, Finish, Head, Usage};

    use super::*;
    use crate::Parts;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(text: &str) -> Key {
        Key::of(&Parts {
            tenant: "t",
            model: "m",
            revision: "1",
            template: "t",
            endpoint: Endpoint::Completions,
            text: &[text],
            fill_in_the_middle: false,
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: None,
            n: 1,
            seed: None,
            stop: &[],
        })
    }

    fn answer(text: &str) -> (Answer, Bytes) {
        let head = Head {
            id: "1".into(),
            created: 0,
            model: "m".into(),
            fingerprint: "f".into(),
            endpoint: Endpoint::Completions,
        };
        let choices =
            vec![Choice { text: text.into(), finish: Finish::Stop, logprobs: Vec::new() }];
        let answer = Answer { head, choices, usage: Usage::default() };
        let body = answer.body();
        (answer, body)
    }

    #[test]
    fn a_stored_answer_is_served_until_it_expires() {
        let memory = Memory::new(1 << 20, 10 * SECOND);
        let (stored, body) = answer("x");
        memory.put(key("a"), stored.clone(), body, SECOND).unwrap();
        let (entry, left) = memory.get(&key("a"), 3 * SECOND).unwrap();
        assert_eq!((&entry.answer, left), (&stored, 8 * SECOND));
        assert!(memory.get(&key("b"), SECOND).is_none());
        assert!(memory.get(&key("a"), 11 * SECOND).is_none());
        assert!(memory.is_empty(), "an expired entry is dropped when it is met");
    }

    #[test]
    fn the_bytes_stay_within_the_limit() {
        let memory = Memory::new(64 << 10, SECOND);
        for n in 0..1000 {
            let (answer, body) = answer(&"x".repeat(500));
            memory.put(key(&n.to_string()), answer, body, SECOND).unwrap();
            assert!(memory.bytes() <= 64 << 10);
        }
        assert!(memory.len() > 8, "{}", memory.len());
    }

    #[test]
    fn empty_and_huge_answers_stay_out() {
        let memory = Memory::new(64 << 10, SECOND);
        let (empty, body) = answer("");
        assert_eq!(memory.put(key("e"), empty, body, SECOND), Err(Skip::Empty));
        let (huge, body) = answer(&"x".repeat(8 << 10));
        assert_eq!(memory.put(key("h"), huge, body, SECOND), Err(Skip::TooLarge));
    }
}
