//! OpenAI's bodies: completions and chat.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{CompletionRequest, Input, Message, Sampling, required, sampling};
use crate::{ApiError, Endpoint, Fields, fields::cut};

const N_MAX: usize = 8;
const MESSAGES_MAX: usize = 1024;

/// Fields that are read; `Fields` may hold others.
const KNOWN: [&str; 21] = [
    "model",
    "prompt",
    "suffix",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "n",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "user",
    "return_token_ids",
    "resume",
    "logprobs",
    "top_logprobs",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
];

/// OpenAI fields that change nothing at these values, and are not done by our pods at others.
const NEUTRAL: [(&str, &[&str]); 5] = [
    ("echo", &["false"]),
    ("best_of", &["1"]),
    ("logit_bias", &["{}"]),
    ("tools", &["[]"]),
    ("response_format", &[r#"{"type":"text"}"#]),
];

/// Reads a body of [`Endpoint::Completions`] or [`Endpoint::Chat`].
pub(super) fn read(endpoint: Endpoint, fields: &Fields<'_>) -> Result<CompletionRequest, ApiError> {
    let mut unsupported = Vec::new();
    let mut unknown = Vec::new();
    for (name, value) in fields.iter() {
        match NEUTRAL.iter().find(|(known, _)| *known == name) {
            Some((_, values)) if value == "null" || values.contains(&value) => {}
            Some(_) => unsupported.push(name.to_owned()),
            None if KNOWN.contains(&name) || name == "nearhop" => {}
            None => unknown.push(name.to_owned()),
        }
    }
    let options: Option<StreamOptions> =
        fields.get("stream_options", "an object such as {\"include_usage\": true}")?;
    let input = match endpoint {
        Endpoint::Chat => {
            unknown.extend(unknown_in_messages(fields));
            Input::Chat(read_messages(fields)?)
        }
        _ => read_prompt(fields)?,
    };
    let max_tokens = match fields.raw("max_completion_tokens") {
        Some(_) => sampling::positive(fields, "max_completion_tokens", usize::MAX)?,
        None => sampling::positive(fields, "max_tokens", usize::MAX)?,
    };
    Ok(CompletionRequest {
        model: Some(required(fields.get("model", "text")?, "model")?),
        sampling: Sampling {
            temperature: sampling::temperature(fields)?,
            top_p: sampling::top_p(fields)?,
            max_tokens,
            n: sampling::positive(fields, "n", N_MAX)?.unwrap_or(1),
            seed: sampling::seed(fields, "seed")?,
            stop: sampling::stop(fields)?,
            penalties: sampling::penalties(fields)?,
            logprobs: sampling::logprobs(endpoint, fields)?,
        },
        stream: fields.get("stream", "true or false")?.unwrap_or(false),
        include_usage: options.is_some_and(|options| options.include_usage),
        return_token_ids: fields.get("return_token_ids", "true or false")?.unwrap_or(false),
        resume: fields.get("resume", "{\"revision\", \"token_ids\": a list for each choice}")?,
        tools: unsupported.iter().any(|name| name == "tools"),
        unsupported,
        unknown,
        ..CompletionRequest::of(endpoint, input)
    })
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// `prompt` and `suffix`.
pub(super) fn read_prompt(fields: &Fields<'_>) -> Result<Input, ApiError> {
    const EXPECTED: &str = "text; for several prompts send a request each";
    let wrong = || ApiError::invalid("prompt", format!("prompt must be {EXPECTED}"));
    let raw = required(fields.raw("prompt"), "prompt")?;
    let prompt: String = match raw.starts_with('[') {
        false => serde_json::from_str(raw).map_err(|_not_text| wrong())?,
        true => {
            let [only]: [String; 1] = serde_json::from_str(raw).map_err(|_not_one| wrong())?;
            only
        }
    };
    Ok(match fields.get::<String>("suffix", "text")? {
        Some(suffix) => Input::Fim { prefix: prompt, suffix },
        None => Input::Prompt(prompt),
    })
}

#[derive(Deserialize)]
struct MessageOnWire<'a> {
    role: String,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

fn read_messages(fields: &Fields<'_>) -> Result<Vec<Message>, ApiError> {
    let raw = required(fields.raw("messages"), "messages")?;
    let invalid = |message: String| ApiError::invalid("messages", message);
    let messages: Vec<MessageOnWire<'_>> = serde_json::from_str(raw).map_err(|error| {
        invalid(cut(format!("messages must be a list of {{\"role\", \"content\"}}: {error}")))
    })?;
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        return Err(invalid(format!("messages must have 1 to {MESSAGES_MAX} messages")));
    }
    messages.into_iter().enumerate().map(|(at, message)| read_message(at, message)).collect()
}

/// Fields of messages that are in no key: tool calls and their like.
fn unknown_in_messages(fields: &Fields<'_>) -> Vec<String> {
    const KNOWN: [&str; 3] = ["role", "content", "name"];
    let raw = fields.raw("messages").unwrap_or_default();
    let messages: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
    let messages = messages.iter().filter_map(|raw| Fields::parse(raw.get().as_bytes()).ok());
    let names = messages.flat_map(|message| {
        let unknown = message
            .iter()
            .filter(|(name, value)| !KNOWN.contains(name) && !matches!(*value, "null" | "[]"));
        unknown.map(|(name, _)| format!("messages[].{name}")).collect::<Vec<_>>()
    });
    names.take(1).collect()
}

fn read_message(at: usize, message: MessageOnWire<'_>) -> Result<Message, ApiError> {
    const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
    let invalid = |message: String| ApiError::invalid("messages", message);
    if !ROLES.contains(&message.role.as_str()) {
        return Err(invalid(format!("messages[{at}].role must be one of {}", ROLES.join(", "))));
    }
    let content = match message.content.map(RawValue::get) {
        None | Some("null") => String::new(),
        Some(raw) => match serde_json::from_str::<Cow<'_, str>>(raw) {
            Ok(text) => text.into_owned(),
            Err(_) => read_parts(at, raw)?,
        },
    };
    Ok(Message { role: message.role, content, name: message.name })
}

fn read_parts(at: usize, raw: &str) -> Result<String, ApiError> {
    let wrong = || {
        let text = format!("messages[{at}].content must be text, or a list of text parts");
        ApiError::invalid("messages", text)
    };
    let parts: Vec<Part> = serde_json::from_str(raw).map_err(|_not_parts| wrong())?;
    parts
        .into_iter()
        .map(|part| part.text.filter(|_| part.kind == "text").ok_or_else(wrong))
        .collect()
}
