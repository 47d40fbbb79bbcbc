//! llama.cpp's own answer, as its `/infill` gives it (tools/server/README.md there, "Response
//! format", and `to_json_non_oaicompat` of its server).
//!
//! What an edge does not know is not made up: `timings` has token counts and no milliseconds,
//! because neither phase was measured here and a cached answer had none; clients leave out what
//! they show of them. `generation_settings` and `prompt` are empty, `tokens` as well. `stop_type`
//! is `eos` also where a stop string ended the text: pods do not tell the two apart.

use bytes::BytesMut;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Answer, Choice, Finish, Head, Usage,
    openai::{Provenance, write_event},
};
use crate::CompletionRequest;

/// Whether the text is part of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// All of it.
    All,
    /// A warm-up asks for no text: the token that the pod made is kept back.
    NoText,
}

impl Shown {
    pub(super) const fn of(request: &CompletionRequest) -> Self {
        if request.warm_up { Self::NoText } else { Self::All }
    }
}

#[derive(Serialize)]
struct Written<'a> {
    index: usize,
    content: &'a str,
    tokens: [u32; 0],
    id_slot: u32,
    stop: bool,
    model: &'a str,
    tokens_predicted: usize,
    tokens_evaluated: usize,
    generation_settings: Map<String, Value>,
    prompt: &'static str,
    has_new_line: bool,
    truncated: bool,
    stop_type: &'static str,
    stopping_word: &'static str,
    tokens_cached: usize,
    timings: Timings,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearhop: Option<Provenance>,
}

#[derive(Serialize)]
struct Timings {
    cache_n: usize,
    prompt_n: usize,
    predicted_n: usize,
}

#[derive(Serialize)]
struct WrittenPiece<'a> {
    index: usize,
    content: &'a str,
    tokens: [u32; 0],
    stop: bool,
}

/// What the last object of a stream says of the text before it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct End {
    pub(super) finish: Option<Finish>,
    pub(super) usage: Usage,
    pub(super) has_new_line: bool,
    pub(super) resumed: u32,
}

fn written<'a>(head: &'a Head, content: &'a str, end: End) -> Written<'a> {
    let usage = end.usage;
    Written {
        index: 0,
        content,
        tokens: [],
        id_slot: 0,
        stop: true,
        model: &head.model,
        tokens_predicted: usage.completion_tokens,
        tokens_evaluated: usage.prompt_tokens,
        generation_settings: Map::new(),
        prompt: "",
        has_new_line: end.has_new_line,
        truncated: usage.truncated_tokens > 0,
        stop_type: match end.finish {
            Some(Finish::Stop) => "eos",
            Some(Finish::Length) => "limit",
            None => "none",
        },
        stopping_word: "",
        tokens_cached: usage.cached_tokens,
        timings: Timings {
            cache_n: usage.cached_tokens,
            prompt_n: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            predicted_n: usage.completion_tokens,
        },
        nearhop: Provenance::of(end.finish, end.resumed),
    }
}

/// The whole answer: its first choice, since the shape has no other.
pub(super) fn body(answer: &Answer, shown: Shown, fields: &[String]) -> Vec<u8> {
    let choice = answer.choices.first();
    let text = choice.filter(|_| shown == Shown::All).map_or("", |choice| choice.text.as_str());
    let end = End {
        finish: choice.map(|choice: &Choice| choice.finish),
        usage: answer.usage,
        has_new_line: text.contains('\n'),
        resumed: 0,
    };
    let written = written(&answer.head, text, end);
    match fields {
        [] => serde_json::to_vec(&written),
        fields => serde_json::to_vec(&chosen(&written, fields)),
    }
    .expect("strings and numbers always serialise")
}

/// Writes a piece of text.
pub(super) fn write_piece(text: &str, out: &mut BytesMut) {
    write_event(&WrittenPiece { index: 0, content: text, tokens: [], stop: false }, out);
}

/// Writes the last object of a stream: everything but the text. No `[DONE]` follows in this shape.
pub(super) fn write_end(head: &Head, end: End, fields: &[String], out: &mut BytesMut) {
    let written = written(head, "", end);
    match fields {
        [] => write_event(&written, out),
        fields => write_event(&chosen(&written, fields), out),
    }
}

/// `response_fields`: `a/b` is the field `b` of `a`, under the name `a/b`. What is not there is
/// left out.
fn chosen(written: &Written<'_>, fields: &[String]) -> Map<String, Value> {
    let all = serde_json::to_value(written).expect("strings and numbers always serialise");
    let pick = |path: &String| {
        let value = path.split('/').try_fold(&all, |value, name| value.as_object()?.get(name))?;
        Some((path.clone(), value.clone()))
    };
    fields.iter().filter_map(pick).collect()
}
