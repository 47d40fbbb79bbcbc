//! What the in-process cache holds, in messages: from a process to the one that takes over.
//!
//! A message is the number of what follows and so many entries with their places. The first says
//! whose names the tags are and how far the log of purges has come: a successor with another secret
//! takes nothing.

use std::{io, sync::Arc, time::Duration};

use crate::{
    entry::Entry,
    memory::Memory,
    pack::{pack, unpack},
    question::Place,
    tags::{Generation, Namer},
    validity::{Standing, Validity},
};

/// A message is at most so long, but for one entry that is longer alone: those are left out.
const MESSAGE_BYTES_MAX: usize = 48 << 10;

/// What a message begins with.
const FIRST: &[u8] = b"nearhop memory 1\n";
/// What the last one is.
pub const LAST: &[u8] = b"nearhop memory ends\n";

/// Sends everything; how many entries that were.
///
/// # Errors
/// Those of `send`: what was sent by then is of use all the same.
pub fn send(
    memory: &Memory,
    (validity, namer): (&Validity, &Namer),
    now: Duration,
    mut send: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<usize> {
    let mut first = FIRST.to_vec();
    first.extend(namer.name("check", &[]).to_le_bytes());
    first.extend(validity.generation().to_le_bytes());
    send(&first)?;
    let (mut message, mut sent) = (Vec::with_capacity(MESSAGE_BYTES_MAX), 0);
    for (place, entry) in memory.entries() {
        if validity.judge(&entry, now) == Standing::Gone {
            continue;
        }
        let packed = pack(&entry);
        let length = u32::try_from(packed.len()).unwrap_or(u32::MAX);
        if packed.len() + 20 > MESSAGE_BYTES_MAX {
            continue;
        }
        if message.len() + packed.len() + 20 > MESSAGE_BYTES_MAX {
            send(&message)?;
            message.clear();
        }
        message.extend(place.0);
        message.extend(length.to_le_bytes());
        message.extend(packed);
        sent += 1;
    }
    if !message.is_empty() {
        send(&message)?;
    }
    send(LAST)?;
    Ok(sent)
}

/// Takes messages.
#[derive(Debug, Default)]
pub struct Taker {
    generation: Option<Generation>,
    taken: usize,
}

/// Whether more messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// Perhaps.
    Yes,
    /// That was the last, or the first was not for us.
    No,
}

impl Taker {
    /// Entries taken so far.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.taken
    }

    /// Takes a message.
    pub fn take(
        &mut self,
        message: &[u8],
        (memory, validity, namer): (&Memory, &Validity, &Namer),
        now: Duration,
    ) -> More {
        if self.generation.is_none() {
            return self.begin(message, validity, namer);
        }
        if message == LAST {
            return More::No;
        }
        let mut rest = message;
        while let Some((place, entry, after)) = next(rest) {
            if memory.put(&[place], &Arc::new(entry), now).is_ok() {
                self.taken += 1;
            }
            rest = after;
        }
        More::Yes
    }

    fn begin(&mut self, message: &[u8], validity: &Validity, namer: &Namer) -> More {
        let numbers = message.strip_prefix(FIRST).and_then(|rest| {
            let (check, generation) = rest.split_first_chunk()?;
            let check = u64::from_le_bytes(*check);
            Some((check, u64::from_le_bytes(*generation.first_chunk()?)))
        });
        match numbers {
            Some((check, generation)) if check == namer.name("check", &[]) => {
                validity.reached(generation);
                self.generation = Some(generation);
                More::Yes
            }
            _ => More::No,
        }
    }
}

fn next(message: &[u8]) -> Option<(Place, Entry, &[u8])> {
    let (place, rest) = message.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (packed, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((Place(*place), unpack(packed)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Around, Asked, Need, Purge, Question,
        testing::{answer, ask, model, tenant},
    };

    const SECOND: Duration = Duration::from_secs(1);

    struct Rig {
        memory: Memory,
        validity: Arc<Validity>,
    }

    fn rig() -> Rig {
        let validity = Arc::new(Validity::new(60 * SECOND));
        Rig { memory: Memory::new(4 << 20, Arc::clone(&validity)), validity }
    }

    fn put(rig: &Rig, prefix: &str, text: &str) {
        let request = ask(prefix, "");
        let question = Question::of(&request, tenant("t"), &model("1"), &Namer::default());
        let (places, asked) = Asked::of(&question, Around::of(&request)).unwrap();
        let born = (rig.validity.generation(), question.tags);
        let entry = Entry::new(asked, &answer(text), born, SECOND).unwrap();
        rig.memory.put(&places, &Arc::new(entry), SECOND).unwrap();
    }

    fn find(rig: &Rig, prefix: &str) -> Option<String> {
        let request = ask(prefix, "");
        let question = Question::of(&request, tenant("t"), &model("1"), &Namer::default());
        let asking = (&question, Around::of(&request));
        let found = rig.memory.find(asking, Need::Fresh([true; 4]), SECOND)?;
        Some(found.entry.text()[found.fit.typed..].to_owned())
    }

    fn pass(old: &Rig, new: &Rig, namer: &Namer) -> usize {
        let mut taker = Taker::default();
        let mut more = More::Yes;
        send(&old.memory, (&old.validity, &Namer::default()), SECOND, |message| {
            assert!(message.len() <= MESSAGE_BYTES_MAX);
            if more == More::Yes {
                more = taker.take(message, (&new.memory, &new.validity, namer), SECOND);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(more, More::No);
        taker.taken()
    }

    #[test]
    fn a_successor_answers_as_its_predecessor_did() {
        let (old, new) = (rig(), rig());
        old.validity.purge(Purge::All, SECOND);
        for n in 0..500 {
            put(&old, &format!("line {n}\nx = "), &format!("value_{n} + {}", "y".repeat(300)));
        }
        put(&old, "line 7\nx = v", "other");
        assert_eq!(pass(&old, &new, &Namer::default()), 501);
        for prefix in ["line 7\nx = val", "line 7\nx = v", "line 499\nx = "] {
            assert_eq!(find(&new, prefix), find(&old, prefix), "{prefix}");
            assert!(find(&new, prefix).is_some());
        }
        // Its purges come after those that the entries have seen.
        new.validity.purge(Purge::All, SECOND);
        assert_eq!(find(&new, "line 7\nx = val"), None);
    }

    #[test]
    fn a_successor_with_another_secret_takes_nothing() {
        let (old, new) = (rig(), rig());
        put(&old, "x = ", "value");
        assert_eq!(pass(&old, &new, &Namer::new(b"another")), 0);
        assert_eq!(find(&new, "x = "), None);
    }

    #[test]
    fn garbage_is_nothing() {
        let rig = rig();
        let garbage = [b"".as_slice(), b"x", &[0; 40], FIRST, &[FIRST, &[0; 20]].concat()];
        for message in garbage {
            let mut taker = Taker::default();
            let _ = taker.take(message, (&rig.memory, &rig.validity, &Namer::default()), SECOND);
            taker.generation = Some(0);
            let _ = taker.take(message, (&rig.memory, &rig.validity, &Namer::default()), SECOND);
            assert_eq!(taker.taken(), 0);
        }
    }
}
