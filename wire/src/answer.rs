//! Answers: whole ones, and the chunks of a stream.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::sse;

/// Which of OpenAI's two shapes a request and its answer have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/v1/completions`: `choices[].text`.
    Completions,
    /// `/v1/chat/completions`: `choices[].message`, in a stream `choices[].delta`.
    Chat,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The generated text.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// A finished answer; `choices[i]` has index `i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it begins with.
    pub head: Head,
    /// In order of their index.
    pub choices: Vec<Choice>,
    /// Its tokens.
    pub usage: Usage,
}

/// The next piece of one choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// The choice's index.
    pub index: usize,
    /// Text to append; may be empty in the last piece.
    pub text: String,
    /// The tokens that `text` came from: the internal extension that resuming needs.
    pub token_ids: Vec<u32>,
    /// Set in the choice's last piece.
    pub finish: Option<Finish>,
}

/// One chunk of a stream, as an edge reads it from a pod.
#[derive(Debug, Deserialize)]
pub struct Chunk<'a> {
    /// The generation's id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// Unix seconds.
    pub created: u64,
    /// The weights.
    #[serde(borrow, default)]
    pub system_fingerprint: Option<Cow<'a, str>>,
    /// Empty in the chunk that carries the usage.
    #[serde(borrow)]
    pub choices: Vec<ChunkChoice<'a>>,
    /// In the last chunk only.
    #[serde(default)]
    usage: Option<UsageOnWire>,
}

/// One choice's piece in a [`Chunk`]. Text is in `text` or in `delta.content`, by endpoint.
#[derive(Debug, Deserialize)]
pub struct ChunkChoice<'a> {
    index: usize,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<DeltaOnWire<'a>>,
    #[serde(default)]
    finish_reason: Option<Finish>,
    #[serde(default)]
    token_ids: Vec<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DeltaOnWire<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    content: Option<Cow<'a, str>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct UsageOnWire {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    #[serde(default)]
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct PromptTokensDetails {
    #[serde(default)]
    cached_tokens: usize,
    #[serde(default)]
    truncated_tokens: usize,
}

impl From<Usage> for UsageOnWire {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: usage.cached_tokens,
                truncated_tokens: usage.truncated_tokens,
            },
        }
    }
}

impl Chunk<'_> {
    /// The usage, in the chunk that carries it.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage.map(|usage| Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.prompt_tokens_details.cached_tokens,
            truncated_tokens: usage.prompt_tokens_details.truncated_tokens,
        })
    }
}

impl ChunkChoice<'_> {
    /// The piece it brings, whichever endpoint's shape it has.
    #[must_use]
    pub fn into_delta(self) -> Delta {
        let text = self.text.or_else(|| self.delta.and_then(|delta| delta.content));
        Delta {
            index: self.index,
            text: text.map(Cow::into_owned).unwrap_or_default(),
            token_ids: self.token_ids,
            finish: self.finish_reason,
        }
    }
}

/// Everything that is written: one struct for both endpoints, whole and streamed.
#[derive(Serialize)]
struct Written<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<WrittenChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageOnWire>,
}

#[derive(Serialize)]
struct WrittenChoice<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<DeltaOnWire<'a>>,
    logprobs: Option<()>,
    finish_reason: Option<Finish>,
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    token_ids: &'a [u32],
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

impl Head {
    fn write(
        &self,
        streamed: bool,
        choices: Vec<WrittenChoice<'_>>,
        usage: Option<Usage>,
    ) -> Vec<u8> {
        let object = match (self.endpoint, streamed) {
            (Endpoint::Completions, _) => "text_completion",
            (Endpoint::Chat, false) => "chat.completion",
            (Endpoint::Chat, true) => "chat.completion.chunk",
        };
        let written = Written {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices,
            usage: usage.map(Into::into),
        };
        serde_json::to_vec(&written).expect("strings and numbers always serialise")
    }

    /// One event of a stream. `first` is whether it is the choice's first piece, in which chat
    /// names the role.
    #[must_use]
    pub fn delta_event(&self, delta: &Delta, first: bool) -> Bytes {
        let mut choice = WrittenChoice {
            index: delta.index,
            text: None,
            message: None,
            delta: None,
            logprobs: None,
            finish_reason: delta.finish,
            token_ids: &delta.token_ids,
        };
        match self.endpoint {
            Endpoint::Completions => choice.text = Some(&delta.text),
            Endpoint::Chat => {
                choice.delta = Some(DeltaOnWire {
                    role: first.then_some(Cow::Borrowed("assistant")),
                    content: Some(Cow::Borrowed(delta.text.as_str())),
                });
            }
        }
        sse::event(&self.write(true, vec![choice], None))
    }

    /// The event with the usage, after every choice has ended (`stream_options.include_usage`).
    #[must_use]
    pub fn usage_event(&self, usage: Usage) -> Bytes {
        sse::event(&self.write(true, Vec::new(), Some(usage)))
    }
}

impl Answer {
    /// The whole answer as one JSON body.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let choices = self.choices.iter().enumerate().map(|(index, choice)| {
            let (text, message) = match self.head.endpoint {
                Endpoint::Completions => (Some(choice.text.as_str()), None),
                Endpoint::Chat => {
                    (None, Some(Message { role: "assistant", content: &choice.text }))
                }
            };
            WrittenChoice {
                index,
                text,
                message,
                delta: None,
                logprobs: None,
                finish_reason: Some(choice.finish),
                token_ids: &[],
            }
        });
        self.head.write(false, choices.collect(), Some(self.usage)).into()
    }

    /// The whole answer as a stream: one event a choice, the usage where asked for, `[DONE]`.
    #[must_use]
    pub fn stream(&self, include_usage: bool) -> Bytes {
        let mut out = Vec::new();
        for (index, choice) in self.choices.iter().enumerate() {
            let delta = Delta {
                index,
                text: choice.text.clone(),
                token_ids: Vec::new(),
                finish: Some(choice.finish),
            };
            out.extend_from_slice(&self.head.delta_event(&delta, true));
        }
        if include_usage {
            out.extend_from_slice(&self.head.usage_event(self.usage));
        }
        out.extend_from_slice(sse::DONE);
        out.into()
    }
}

#[cfg(test)]
mod tests;
