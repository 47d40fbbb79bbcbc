//! OpenAI's two shapes, whole and streamed, and Mistral's FIM, which is the chat's with `tool_calls`.

use std::borrow::Cow;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::{
    Answer, Endpoint, Finish, Head, Piece, Usage,
    chunk::{DeltaOnWire, UsageOnWire},
    logprobs,
};

/// Everything that is written: one struct for all of them.
#[derive(Serialize)]
struct Written<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [WrittenChoice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<UsageOnWire>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearhop: Option<Provenance>,
}

/// What a stream's head could not say yet, in its last chunk.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Provenance {
    /// How often it broke off and was gone on with elsewhere.
    resumed: u32,
}

impl Provenance {
    /// Of an end; `None` where there is nothing to say.
    pub(super) fn of(finish: Option<Finish>, resumed: u32) -> Option<Self> {
        (finish.is_some() && resumed > 0).then_some(Self { resumed })
    }
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
    logprobs: Option<logprobs::Written<'a>>,
    finish_reason: Option<Finish>,
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    token_ids: &'a [u32],
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    /// `Some(None)` is `null`: Mistral's clients expect the field.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<Option<()>>,
}

#[derive(Clone, Copy)]
enum Form {
    Whole,
    Streamed,
}

fn written<'a>(
    head: &'a Head,
    form: Form,
    choices: &'a [WrittenChoice<'a>],
    usage: Option<Usage>,
) -> Written<'a> {
    let object = match (head.endpoint, form) {
        (Endpoint::Chat | Endpoint::Fim, Form::Whole) => "chat.completion",
        (Endpoint::Chat | Endpoint::Fim, Form::Streamed) => "chat.completion.chunk",
        (Endpoint::Completions | Endpoint::Infill | Endpoint::Tabby, _) => "text_completion",
    };
    Written {
        id: &head.id,
        object,
        created: head.created,
        model: &head.model,
        system_fingerprint: &head.fingerprint,
        choices,
        usage: usage.map(Into::into),
        nearhop: None,
    }
}

/// Writes `data` as one event.
pub(super) fn write_event(data: &impl Serialize, out: &mut BytesMut) {
    out.extend_from_slice(b"data: ");
    serde_json::to_writer(out.writer(), data).expect("strings and numbers always serialise");
    out.extend_from_slice(b"\n\n");
}

/// Writes a piece of a choice. `first` is whether it is the choice's first.
pub(super) fn write_piece(head: &Head, piece: &Piece<'_>, first: bool, out: &mut BytesMut) {
    let choices = [streamed_choice(head.endpoint, piece, first)];
    let nearhop = Provenance::of(piece.finish, piece.resumed);
    write_event(&Written { nearhop, ..written(head, Form::Streamed, &choices, None) }, out);
}

/// Writes the event that has the usage and no choice.
pub(super) fn write_usage(head: &Head, usage: Usage, out: &mut BytesMut) {
    write_event(&written(head, Form::Streamed, &[], Some(usage)), out);
}

/// Writes the event that ends the only choice and has the usage: Mistral's last.
pub(super) fn write_end(
    head: &Head,
    (finish, usage, resumed): (Option<Finish>, Usage, u32),
    out: &mut BytesMut,
) {
    let piece = Piece { index: 0, text: "", token_ids: &[], logprobs: &[], finish, resumed };
    let choices = [streamed_choice(head.endpoint, &piece, false)];
    let nearhop = Provenance::of(finish, resumed);
    write_event(&Written { nearhop, ..written(head, Form::Streamed, &choices, Some(usage)) }, out);
}

fn streamed_choice<'a>(endpoint: Endpoint, piece: &Piece<'a>, first: bool) -> WrittenChoice<'a> {
    let (text, delta) = match endpoint {
        Endpoint::Completions | Endpoint::Infill | Endpoint::Tabby => (Some(piece.text), None),
        Endpoint::Chat | Endpoint::Fim => {
            let role = first.then_some(Cow::Borrowed("assistant"));
            (None, Some(DeltaOnWire { role, content: Some(Cow::Borrowed(piece.text)) }))
        }
    };
    WrittenChoice {
        index: piece.index,
        text,
        message: None,
        delta,
        logprobs: logprobs::written(endpoint, piece.logprobs),
        finish_reason: piece.finish,
        token_ids: piece.token_ids,
    }
}

/// The whole answer.
pub(super) fn body(answer: &Answer) -> Vec<u8> {
    let endpoint = answer.head.endpoint;
    let choices = answer.choices.iter().enumerate().map(|(index, choice)| {
        let content = choice.text.as_str();
        let tool_calls = (endpoint == Endpoint::Fim).then_some(None);
        let (text, message) = match endpoint {
            Endpoint::Completions | Endpoint::Infill | Endpoint::Tabby => (Some(content), None),
            Endpoint::Chat | Endpoint::Fim => {
                (None, Some(Message { role: "assistant", content, tool_calls }))
            }
        };
        WrittenChoice {
            index,
            text,
            message,
            delta: None,
            logprobs: logprobs::written(endpoint, &choice.logprobs),
            finish_reason: Some(choice.finish),
            token_ids: &[],
        }
    });
    let choices: Vec<WrittenChoice<'_>> = choices.collect();
    let written = written(&answer.head, Form::Whole, &choices, Some(answer.usage));
    let mut out = Vec::with_capacity(answer.bytes());
    serde_json::to_writer(&mut out, &written).expect("strings and numbers always serialise");
    out
}
