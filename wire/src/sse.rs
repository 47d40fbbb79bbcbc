//! Server-sent events, as far as completions use them: `data:` lines and one `event: error`.
//!
//! Source: WHATWG HTML, section 9.2 "Server-sent events". Absent: `id:` and `retry:`, which
//! completions never send.

use bytes::{Buf as _, Bytes, BytesMut};

/// The terminator of a complete stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// One event over the reader's limit: the stream is garbage, not a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stream event is longer than {limit} bytes")]
pub struct EventTooLong {
    /// The limit, bytes.
    pub limit: usize,
}

/// Frames `data` as one event. `data` is JSON on one line.
#[must_use]
pub fn event(data: &[u8]) -> Bytes {
    [b"data: ", data, b"\n\n"].concat().into()
}

/// Cuts a byte stream into the data of its events, wherever the network cut it before.
#[derive(Debug)]
pub struct SseReader {
    pending: BytesMut,
    /// How far `pending` has been searched for the end of an event.
    searched: usize,
    limit: usize,
}

impl SseReader {
    /// A reader that refuses events over `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { pending: BytesMut::new(), searched: 0, limit }
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The data of the next whole event; `None` until more bytes come. Comments are skipped.
    ///
    /// # Errors
    /// [`EventTooLong`] where an event is over the limit.
    pub fn next_event(&mut self) -> Result<Option<Bytes>, EventTooLong> {
        loop {
            let Some(end) = self.find_end() else {
                return match self.pending.len() > self.limit {
                    true => Err(EventTooLong { limit: self.limit }),
                    false => Ok(None),
                };
            };
            if end > self.limit {
                return Err(EventTooLong { limit: self.limit });
            }
            let block = self.pending.split_to(end).freeze();
            self.searched = 0;
            if let Some(data) = data_of(&block) {
                return Ok(Some(data));
            }
        }
    }

    /// Bytes of an event that has not ended; not zero at the end of a stream means it was cut.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// The index after the blank line that ends the first event.
    fn find_end(&mut self) -> Option<usize> {
        // Blank lines left over between events are no event of their own.
        while self.searched == 0 && matches!(self.pending.first(), Some(b'\n' | b'\r')) {
            self.pending.advance(1);
        }
        let from = self.searched.saturating_sub(3);
        let found = self.pending[from..].iter().enumerate().find_map(|(at, byte)| {
            let rest = &self.pending[from + at + 1..];
            let blank = *byte == b'\n' && (rest.starts_with(b"\n") || rest.starts_with(b"\r\n"));
            blank.then(|| from + at + if rest[0] == b'\n' { 2 } else { 3 })
        });
        self.searched = self.pending.len();
        found
    }
}

/// The `data:` of an event; several lines are joined with a newline, as the standard says.
fn data_of(block: &Bytes) -> Option<Bytes> {
    let mut lines = block
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter_map(|line| line.strip_prefix(b"data:"))
        .map(|data| data.strip_prefix(b" ").unwrap_or(data));
    let first = block.slice_ref(lines.next()?);
    let Some(second) = lines.next() else { return Some(first) };
    let mut joined = BytesMut::from(&first[..]);
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"\n");
        joined.extend_from_slice(line);
    }
    Some(joined.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(reader: &mut SseReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_event().unwrap())
            .map(|data| String::from_utf8(data.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn events_comments_and_line_ends_are_read() {
        let mut reader = SseReader::new(1024);
        reader.push(b": waiting\n\ndata: {\"a\":1}\n\ndata:x\r\n\r\nevent: error\ndata: e\n\ndata: 1\ndata: 2\n\ndata: cut");
        assert_eq!(all(&mut reader), ["{\"a\":1}", "x", "e", "1\n2"]);
        assert_eq!(reader.pending_bytes(), "data: cut".len());
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = SseReader::new(16);
        reader.push(b"data: 0123456789abcdef");
        assert_eq!(reader.next_event(), Err(EventTooLong { limit: 16 }));
    }

    proptest! {
        #[test]
        fn the_cuts_of_the_network_do_not_matter(
            events in prop::collection::vec("[a-z{}:\" é]{1,20}", 1..6),
            cuts in prop::collection::vec(0usize..200, 0..8),
        ) {
            let events: Vec<String> = events.iter().map(|e| e.trim().to_owned()).filter(|e| !e.is_empty()).collect();
            let stream: Vec<u8> = events.iter().flat_map(|e| event(e.as_bytes()).to_vec()).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let mut reader = SseReader::new(4096);
            let mut seen = Vec::new();
            for pair in cuts.windows(2) {
                reader.push(&stream[pair[0]..pair[1]]);
                seen.extend(all(&mut reader));
            }
            prop_assert_eq!(seen, events);
            prop_assert_eq!(reader.pending_bytes(), 0);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = SseReader::new(64);
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next_event() {}
        }
    }
}
