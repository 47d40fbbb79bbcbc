//! A stream in the client's shape, out of the pieces that a pod sends.

use bytes::BytesMut;

use super::{
    Delta, Endpoint, Finish, Head, Piece, Usage,
    infill::{self, End, Shown},
    openai,
};
use crate::{CompletionRequest, sse};

/// Writes the events of one answer. Take [`EventWriter::delta`] for every piece,
/// [`EventWriter::usage`] once, then [`EventWriter::done`].
///
/// OpenAI's shapes say each thing in an event of its own. Mistral's and llama.cpp's say at the end,
/// in one event, why the text ended and how long it is: there the reason is kept until then. A
/// stream that breaks before its end therefore never looks like a finished one.
#[derive(Debug)]
pub struct EventWriter {
    head: Head,
    include_usage: bool,
    /// llama.cpp's; empty asks for all.
    response_fields: Vec<String>,
    shown: Shown,
    /// Choices that have had a piece.
    begun: Vec<bool>,
    finish: Option<Finish>,
    usage: Usage,
    has_new_line: bool,
    resumed: u32,
}

impl EventWriter {
    /// The writer of the answer to `request` that begins with `head`.
    #[must_use]
    pub fn new(head: Head, request: &CompletionRequest) -> Self {
        Self {
            head,
            include_usage: request.include_usage,
            response_fields: request.response_fields.clone(),
            shown: Shown::of(request),
            begun: vec![false; request.sampling.n],
            finish: None,
            usage: Usage::default(),
            has_new_line: false,
            resumed: 0,
        }
    }

    /// The answer was gone on with elsewhere, for the so-manieth time; its end will say so.
    pub fn resumed(&mut self, times: u32) {
        self.resumed = times;
    }

    /// Writes a piece, as far as it can be said now. Its token ids are written too, in OpenAI's
    /// shapes: clear them where the client did not ask.
    pub fn delta(&mut self, delta: &Delta, out: &mut BytesMut) {
        self.piece(&delta.piece(), out);
    }

    pub(super) fn piece(&mut self, piece: &Piece<'_>, out: &mut BytesMut) {
        let piece = &Piece { resumed: self.resumed, ..*piece };
        let begun = self.begun.get_mut(piece.index);
        let first = begun.is_some_and(|begun| !std::mem::replace(begun, true));
        match self.head.endpoint {
            Endpoint::Completions | Endpoint::Chat | Endpoint::Tabby => {
                openai::write_piece(&self.head, piece, first, out);
            }
            Endpoint::Fim => {
                self.finish = self.finish.or(piece.finish);
                if first || !piece.text.is_empty() {
                    let open = Piece { finish: None, token_ids: &[], logprobs: &[], ..*piece };
                    openai::write_piece(&self.head, &open, first, out);
                }
            }
            Endpoint::Infill => {
                self.finish = self.finish.or(piece.finish);
                if self.shown == Shown::All && !piece.text.is_empty() {
                    self.has_new_line |= piece.text.contains('\n');
                    infill::write_piece(piece.text, out);
                }
            }
        }
    }

    /// Takes the usage, after every choice has ended, and writes it where it is an event.
    pub fn usage(&mut self, usage: Usage, out: &mut BytesMut) {
        self.usage = usage;
        let own_event = match self.head.endpoint {
            Endpoint::Completions | Endpoint::Chat | Endpoint::Tabby => self.include_usage,
            Endpoint::Fim | Endpoint::Infill => false,
        };
        if own_event {
            openai::write_usage(&self.head, usage, out);
        }
    }

    /// Writes what ends a complete stream.
    pub fn done(&mut self, out: &mut BytesMut) {
        match self.head.endpoint {
            Endpoint::Completions | Endpoint::Chat | Endpoint::Tabby => {
                out.extend_from_slice(sse::DONE);
            }
            Endpoint::Fim => {
                let end = (self.finish, self.usage, self.resumed);
                openai::write_end(&self.head, end, out);
                out.extend_from_slice(sse::DONE);
            }
            Endpoint::Infill => {
                let Self { finish, usage, has_new_line, resumed, .. } = *self;
                let end = End { finish, usage, has_new_line, resumed };
                infill::write_end(&self.head, end, &self.response_fields, out);
            }
        }
    }
}
