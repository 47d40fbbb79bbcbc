//! OpenAI's chunks, as an edge reads them from a pod.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Delta, Finish, Usage, logprobs};

/// One chunk of a stream, as an edge reads it from a pod.
#[derive(Debug, Deserialize)]
pub struct Chunk<'a> {
    /// The generation's id; some providers give none.
    #[serde(borrow, default, deserialize_with = "text")]
    pub id: Cow<'a, str>,
    /// Unix seconds.
    #[serde(default, deserialize_with = "or_nothing")]
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
    #[serde(default, deserialize_with = "or_nothing")]
    token_ids: Vec<u32>,
    #[serde(default)]
    logprobs: Option<logprobs::Read>,
}

/// Providers write `null` where others leave a field out.
pub(super) fn or_nothing<'de, D, T>(value: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(value).map(Option::unwrap_or_default)
}

/// The same of a text, which is borrowed where it can be.
fn text<'de, D: Deserializer<'de>>(value: D) -> Result<Cow<'de, str>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let text: Option<Text<'de>> = Deserialize::deserialize(value)?;
    Ok(text.map_or_else(Cow::default, |Text(text)| text))
}

/// Why a choice ended. Providers have reasons that ours do not know, such as a filter's: the text
/// ends there all the same.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FinishOnWire {
    Length,
    /// Some say this until it ends.
    #[serde(rename = "")]
    NotYet,
    #[serde(other)]
    Other,
}

impl From<FinishOnWire> for Option<Finish> {
    fn from(finish: FinishOnWire) -> Self {
        match finish {
            FinishOnWire::Length => Some(Finish::Length),
            FinishOnWire::NotYet => None,
            FinishOnWire::Other => Some(Finish::Stop),
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
    #[serde(default)]
    total_tokens: usize,
    #[serde(default, deserialize_with = "or_nothing")]
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct PromptTokensDetails {
    #[serde(default, deserialize_with = "or_nothing")]
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
            finish: self.finish_reason.and_then(Into::into),
        }
    }
}
