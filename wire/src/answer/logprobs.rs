//! How likely each token was, in OpenAI's two shapes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};

use super::{Endpoint, chunk::or_nothing};

/// A token and how likely it was.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenLogprob {
    /// Its text. A token can be part of a character: its other bytes are U+FFFD then.
    pub token: String,
    /// Natural logarithm of its probability; at least [`TokenLogprob::LOWEST`].
    pub logprob: f32,
    /// Where its text begins in the choice's text, characters.
    pub offset: usize,
    /// The likeliest tokens at its place, the likeliest first.
    pub top: Vec<(String, f32)>,
}

impl TokenLogprob {
    /// Stands for a probability of zero, whose logarithm JSON cannot say.
    pub const LOWEST: f32 = -9999.0;
}

/// As it is written.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Written<'a> {
    /// Of completions: a list for each property.
    Lists {
        tokens: Vec<&'a str>,
        token_logprobs: Vec<f32>,
        top_logprobs: Vec<Top<'a>>,
        text_offset: Vec<usize>,
    },
    /// Of chat: an object for each token.
    Content { content: Vec<Content<'a>> },
}

/// An object from token to logarithm. Two tokens of one text are one.
pub(super) struct Top<'a>(&'a [(String, f32)]);

impl Serialize for Top<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (at, (token, logprob)) in self.0.iter().enumerate() {
            if !self.0[..at].iter().any(|(earlier, _)| earlier == token) {
                map.serialize_entry(token, logprob)?;
            }
        }
        map.end()
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Content<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    logprob: f32,
    #[serde(default)]
    bytes: Cow<'a, [u8]>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    top_logprobs: Vec<Self>,
}

impl<'a> Content<'a> {
    fn new(token: &'a str, logprob: f32, top: &'a [(String, f32)]) -> Self {
        let top_logprobs = top.iter().map(|(token, logprob)| Self::new(token, *logprob, &[]));
        Self {
            token: token.into(),
            logprob,
            bytes: token.as_bytes().into(),
            top_logprobs: top_logprobs.collect(),
        }
    }
}

/// What is written of `tokens`; nothing where there are none.
pub(super) fn written(endpoint: Endpoint, tokens: &[TokenLogprob]) -> Option<Written<'_>> {
    if tokens.is_empty() {
        return None;
    }
    Some(match endpoint {
        Endpoint::Chat | Endpoint::Fim => Written::Content {
            content: tokens
                .iter()
                .map(|token| Content::new(&token.token, token.logprob, &token.top))
                .collect(),
        },
        Endpoint::Completions | Endpoint::Infill | Endpoint::Tabby => Written::Lists {
            tokens: tokens.iter().map(|token| token.token.as_str()).collect(),
            token_logprobs: tokens.iter().map(|token| token.logprob).collect(),
            top_logprobs: tokens.iter().map(|token| Top(&token.top)).collect(),
            text_offset: tokens.iter().map(|token| token.offset).collect(),
        },
    })
}

/// As an edge reads it from a pod, in either shape.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Read {
    #[serde(default, deserialize_with = "or_nothing")]
    content: Vec<ReadContent>,
    #[serde(default, deserialize_with = "or_nothing")]
    tokens: Vec<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    token_logprobs: Vec<f32>,
    #[serde(default, deserialize_with = "or_nothing")]
    top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, deserialize_with = "or_nothing")]
    text_offset: Vec<usize>,
}

#[derive(Debug, Deserialize)]
struct ReadContent {
    token: String,
    logprob: f32,
    #[serde(default, deserialize_with = "or_nothing")]
    top_logprobs: Vec<Self>,
}

impl Read {
    pub(super) fn into_tokens(self) -> Vec<TokenLogprob> {
        let content = self.content.into_iter().map(|read| TokenLogprob {
            token: read.token,
            logprob: read.logprob,
            offset: 0,
            top: read.top_logprobs.into_iter().map(|top| (top.token, top.logprob)).collect(),
        });
        let mut tops = self.top_logprobs.into_iter();
        let mut offsets = self.text_offset.into_iter();
        let lists = self.tokens.into_iter().zip(self.token_logprobs).map(|(token, logprob)| {
            let top = tops.next().unwrap_or_default().into_iter();
            #[expect(clippy::cast_possible_truncation, reason = "it was written as float32")]
            let number = |value: serde_json::Value| value.as_f64().map(|value| value as f32);
            let mut top: Vec<(String, f32)> =
                top.filter_map(|(token, value)| Some((token, number(value)?))).collect();
            top.sort_by(|a, b| b.1.total_cmp(&a.1));
            TokenLogprob { token, logprob, offset: offsets.next().unwrap_or_default(), top }
        });
        content.chain(lists).collect()
    }
}
