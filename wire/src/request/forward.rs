//! What a pod is sent.

use serde::Serialize;

use super::{CompletionRequest, Input, Resume};
use crate::{ApiError, Endpoint, Fields};

/// Whom an edge asks.
#[derive(Debug, Clone, Copy)]
pub enum Receiver<'a> {
    /// A pod, or an edge that asks one of its own: token ids are wanted, and an answer may be gone
    /// on with.
    Pod {
        /// What to go on with.
        resume: Option<&'a Resume>,
    },
    /// An external provider, which knows no fields but OpenAI's.
    Provider,
}

/// The body an edge sends to `receiver` at [`CompletionRequest::pod_path`], for `request`, which was
/// read from `body`. It always asks for a stream with usage, and a pod for token ids.
///
/// OpenAI's bodies keep every field as the client sent it, unknown ones too, except those that the
/// edge decides. An editor's shape means nothing to a pod: a completion request is written anew,
/// of what was understood.
///
/// # Errors
/// As [`CompletionRequest::parse`]; never for the body that `request` was read from.
pub fn forward_body(
    request: &CompletionRequest,
    body: &[u8],
    model: &str,
    receiver: Receiver<'_>,
) -> Result<Vec<u8>, ApiError> {
    match (request.endpoint, &request.input) {
        (Endpoint::Fim | Endpoint::Infill | Endpoint::Tabby, Input::Prompt(prompt)) => {
            Ok(anew(request, (model, receiver), prompt, None))
        }
        (Endpoint::Fim | Endpoint::Infill | Endpoint::Tabby, Input::Fim { prefix, suffix }) => {
            Ok(anew(request, (model, receiver), prefix, Some(suffix)))
        }
        (Endpoint::Completions | Endpoint::Chat, _) | (_, Input::Chat(_)) => {
            as_sent(body, model, receiver)
        }
    }
}

fn as_sent(body: &[u8], model: &str, receiver: Receiver<'_>) -> Result<Vec<u8>, ApiError> {
    const DECIDED: [&str; 6] =
        ["model", "stream", "stream_options", "return_token_ids", "resume", "nearhop"];
    let fields = Fields::parse(body)?;
    let mut out = Vec::with_capacity(body.len() + 96);
    out.extend_from_slice(b"{\"model\":");
    serde_json::to_writer(&mut out, model).expect("text always serialises");
    for (name, value) in fields.iter().filter(|(name, _)| !DECIDED.contains(name)) {
        out.push(b',');
        serde_json::to_writer(&mut out, name).expect("text always serialises");
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(br#","stream":true,"stream_options":{"include_usage":true}"#);
    if let Receiver::Pod { resume } = receiver {
        out.extend_from_slice(br#","return_token_ids":true"#);
        if let Some(resume) = resume {
            out.extend_from_slice(br#","resume":"#);
            serde_json::to_writer(&mut out, resume).expect("numbers and text always serialise");
        }
    }
    out.push(b'}');
    Ok(out)
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    return_token_ids: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    resume: Option<&'a Resume>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

fn anew(
    request: &CompletionRequest,
    (model, receiver): (&str, Receiver<'_>),
    prompt: &str,
    suffix: Option<&str>,
) -> Vec<u8> {
    let sampling = &request.sampling;
    let (return_token_ids, resume) = match receiver {
        Receiver::Pod { resume } => (true, resume),
        Receiver::Provider => (false, None),
    };
    let body = Body {
        model,
        prompt,
        suffix,
        max_tokens: sampling.max_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        stop: &sampling.stop,
        seed: sampling.seed.map(u64::cast_signed),
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        return_token_ids,
        resume,
    };
    serde_json::to_vec(&body).expect("strings and numbers always serialise")
}
