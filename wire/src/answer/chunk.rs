//! OpenAI's chunks, as an edge reads them from a pod.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Delta, Finish, Usage, logprobs};

/// One chunk of a stream, as an edge reads it from a pod.
#[derive(Debug, Deserialize)]
pub struct Chunk<'a> {
    /// The generation's id; some providers give none.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// Unix seconds.
    #[serde(default)]
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
    #[serde(default)]
    index: usize,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    delta: Option<DeltaOnWire<'a>>,
    #[serde(default)]
    finish_reason: Option<FinishOnWire>,
    #[serde(default)]
    token_ids: Vec<u32>,
    #[serde(default)]
    logprobs: Option<logprobs::Read>,
}

/// Why a choice ended. Providers have reasons that ours do not know, such as a filter's: the text
/// ends there all the same.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FinishOnWire {
    Length,
    #[serde(other)]
    Other,
}

impl From<FinishOnWire> for Finish {
    fn from(finish: FinishOnWire) -> Self {
        match finish {
            FinishOnWire::Length => Self::Length,
            FinishOnWire::Other => Self::Stop,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DeltaOnWire<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<Cow<'a, str>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct UsageOnWire {
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
            logprobs: self.logprobs.map(logprobs::Read::into_tokens).unwrap_or_default(),
            finish: self.finish_reason.map(Into::into),
        }
    }
}
