//! Entries as bytes: for the shared tier, and for the process that takes over.

use crate::entry::Entry;

/// Changes whenever an entry's fields do: what older or newer code wrote is then no entry.
const LAYOUT: u8 = 3;
/// Shorter ones are not worth the compressor's header.
const COMPRESS_MIN: usize = 128;
/// No entry is longer than an answer can be.
const BYTES_MAX: usize = 8 << 20;

/// An entry's bytes, compressed where that helps.
pub(crate) fn pack(entry: &Entry) -> Vec<u8> {
    let plain = postcard::to_allocvec(entry).expect("an entry is plain data");
    let squeezed = (plain.len() >= COMPRESS_MIN)
        .then(|| zstd::bulk::compress(&plain, 1).ok())
        .flatten()
        .filter(|squeezed| squeezed.len() < plain.len());
    let (mark, bytes) = squeezed.map_or((0, plain), |squeezed| (1, squeezed));
    let mut packed = Vec::with_capacity(bytes.len() + 2);
    packed.extend([LAYOUT, mark]);
    packed.extend(bytes);
    packed
}

/// The entry that was packed; `None` where other code wrote it, or nobody did.
pub(crate) fn unpack(packed: &[u8]) -> Option<Entry> {
    let [LAYOUT, mark, bytes @ ..] = packed else { return None };
    match mark {
        0 => postcard::from_bytes(bytes).ok(),
        1 => postcard::from_bytes(&zstd::bulk::decompress(bytes, BYTES_MAX).ok()?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        Around, Asked, Namer, Question,
        testing::{answer, ask, model, tenant},
    };

    fn entry(prefix: &str, text: &str) -> Entry {
        let request = ask(prefix, ")\n");
        let question = Question::of(&request, tenant("t"), &model("1"), &Namer::default());
        let (_, asked) = Asked::of(&question, Around::of(&request)).unwrap();
        Entry::new(asked, &answer(text), (3, question.tags), Duration::from_secs(9)).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_out(prefix in "[a-z \n]{0,600}", text in "[a-zé \n]{1,2000}") {
            let entry = entry(&prefix, &text);
            prop_assert_eq!(unpack(&pack(&entry)), Some(entry));
        }

        #[test]
        fn garbage_is_no_entry(mut packed in prop::collection::vec(any::<u8>(), 0..200), mark in 0u8..3) {
            let _ = unpack(&packed);
            packed.splice(0..0, [LAYOUT, mark]);
            let _ = unpack(&packed);
        }
    }
}
