//! Answers: whole ones, and the events of a stream.

mod chunk;
mod events;
mod infill;
mod logprobs;
mod openai;
mod tabby;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

pub use self::{
    chunk::{Chunk, ChunkChoice},
    events::EventWriter,
    logprobs::TokenLogprob,
    tabby::tabby_health,
};
use crate::CompletionRequest;

/// The shape of a question and of its answer. Pods speak the first two; the others are what
/// editors say to an edge, which translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/v1/completions`: `choices[].text`.
    Completions,
    /// `/v1/chat/completions`: `choices[].message`, in a stream `choices[].delta`.
    Chat,
    /// Mistral's `/v1/fim/completions`: `prompt` and `suffix`, answered as a chat is.
    Fim,
    /// llama.cpp's `/infill`: `input_prefix`, `input_suffix` and `input_extra`, answered with
    /// `content`.
    Infill,
    /// Tabby's `/v1/completions`: `segments`, answered with `choices[].text`. Never streamed.
    Tabby,
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// At an end token or a stop string.
    Stop,
    /// At `max_tokens`, or at the end of the context.
    Length,
}

/// What an answer and every chunk of it begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Names the generation. A cached answer keeps it: it is the same generation.
    pub id: String,
    /// Unix time in seconds at which the generation began.
    pub created: u64,
    /// The model's name as requests use it.
    pub model: String,
    /// The weights that answered: `system_fingerprint`.
    pub fingerprint: String,
    /// The shape.
    pub endpoint: Endpoint,
}

/// Tokens of a request and its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Computed or reused tokens of the prompt, over all choices counted once.
    pub prompt_tokens: usize,
    /// Tokens of all choices.
    pub completion_tokens: usize,
    /// Of `prompt_tokens`, those whose state came from the pod's prefix cache.
    pub cached_tokens: usize,
    /// Tokens of the request's text that the model's window left out.
    pub truncated_tokens: usize,
}

/// One finished choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The generated text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// How likely its tokens were, where the request asks.
    pub logprobs: Vec<TokenLogprob>,
}

/// A finished answer; `choices[i]` has index `i`.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What it begins with.
    pub head: Head,
    /// In order of their index.
    pub choices: Vec<Choice>,
    /// Its tokens.
    pub usage: Usage,
}

/// The next piece of one choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// The choice's index.
    pub index: usize,
    /// Text to append; may be empty in the last piece.
    pub text: String,
    /// The tokens that `text` came from: the internal extension that resuming needs.
    pub token_ids: Vec<u32>,
    /// How likely these tokens were, where the request asks.
    pub logprobs: Vec<TokenLogprob>,
    /// Set in the choice's last piece.
    pub finish: Option<Finish>,
}

/// A [`Delta`] that owns nothing.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    index: usize,
    text: &'a str,
    token_ids: &'a [u32],
    logprobs: &'a [TokenLogprob],
    finish: Option<Finish>,
    /// How often the answer was gone on with elsewhere; said with its end.
    resumed: u32,
}

impl Delta {
    fn piece(&self) -> Piece<'_> {
        let Self { index, text, token_ids, logprobs, finish } = self;
        Piece { index: *index, text, token_ids, logprobs, finish: *finish, resumed: 0 }
    }
}

impl Head {
    /// One event of a stream in OpenAI's shapes, as pods write it; [`EventWriter`] knows the
    /// others. `first` is whether it is the choice's first piece, in which chat names the role.
    #[must_use]
    pub fn delta_event(&self, delta: &Delta, first: bool) -> Bytes {
        let mut out = BytesMut::new();
        openai::write_piece(self, &delta.piece(), first, &mut out);
        out.freeze()
    }

    /// The event with the usage, after every choice has ended (`stream_options.include_usage`).
    #[must_use]
    pub fn usage_event(&self, usage: Usage) -> Bytes {
        let mut out = BytesMut::new();
        openai::write_usage(self, usage, &mut out);
        out.freeze()
    }
}

impl Answer {
    /// About as many bytes as it takes when it is written.
    fn bytes(&self) -> usize {
        const FRAME: usize = 512;
        FRAME + self.choices.iter().map(|choice| FRAME / 2 + choice.text.len()).sum::<usize>()
    }

    /// The whole answer as one JSON body, with every field of its shape.
    #[must_use]
    pub fn body(&self) -> Bytes {
        match self.head.endpoint {
            Endpoint::Completions | Endpoint::Chat | Endpoint::Fim => openai::body(self),
            Endpoint::Infill => infill::body(self, infill::Shown::All, &[]),
            Endpoint::Tabby => tabby::body(self),
        }
        .into()
    }

    /// The whole answer as `request` wants it: [`Answer::body`], less what llama.cpp's
    /// `response_fields` leave out, and without text for a warm-up.
    ///
    /// A stored body serves every request that [`CompletionRequest::takes_full_body`].
    #[must_use]
    pub fn body_for(&self, request: &CompletionRequest) -> Bytes {
        match self.head.endpoint {
            Endpoint::Infill => {
                let shown = infill::Shown::of(request);
                infill::body(self, shown, &request.response_fields).into()
            }
            _ => self.body(),
        }
    }

    /// The whole answer as a stream: one event a choice, then whatever ends a stream of its shape.
    #[must_use]
    pub fn stream(&self, request: &CompletionRequest) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes());
        let mut writer = EventWriter::new(self.head.clone(), request);
        for (index, choice) in self.choices.iter().enumerate() {
            let finish = Some(choice.finish);
            let (text, logprobs) = (&choice.text, &choice.logprobs);
            let piece = Piece { index, text, token_ids: &[], logprobs, finish, resumed: 0 };
            writer.piece(&piece, &mut out);
        }
        writer.usage(self.usage, &mut out);
        writer.done(&mut out);
        out.freeze()
    }
}

#[cfg(test)]
mod tests;
