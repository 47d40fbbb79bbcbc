//! Completion requests: read once, trusted after.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{ApiError, Endpoint, ErrorKind, Fields};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// The shape of the question and of its answer.
    pub endpoint: Endpoint,
    /// The model's name or alias.
    pub model: String,
    /// The text.
    pub input: Input,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// Whether the client wants server-sent events.
    pub stream: bool,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
    /// Whether pieces carry the ids of their tokens: the extension between edges and pods.
    pub return_token_ids: bool,
    /// Whether the request offers tools.
    pub tools: bool,
    /// Fields that ask for something Nearhop's own pods do not do.
    pub unsupported: Vec<String>,
    /// Fields whose meaning is not known here.
    pub unknown: Vec<String>,
}

/// The text of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Continue this.
    Prompt(String),
    /// Fill in the middle.
    Fim {
        /// Before the cursor.
        prefix: String,
        /// After it.
        suffix: String,
    },
    /// Answer this conversation.
    Chat(Vec<Message>),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Its text; several text parts are joined.
    pub content: String,
    /// Who speaks, where the client says so.
    pub name: Option<String>,
}

/// How tokens are chosen. `None` is the model's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// 0 to 2; 0 always takes the likeliest token.
    pub temperature: Option<f32>,
    /// Over 0, up to 1.
    pub top_p: Option<f32>,
    /// The most tokens of one choice.
    pub max_tokens: Option<usize>,
    /// Choices, 1 to 8.
    pub n: usize,
    /// Repeats the same choices on the same model.
    pub seed: Option<u64>,
    /// Ends an answer; not part of it. At most 8.
    pub stop: Vec<String>,
}

/// What a request is for. The order is the order of service; it is shed in reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Code at the cursor while somebody types.
    Inline,
    /// Fill in the middle.
    Fim,
    /// A conversation.
    Chat,
    /// A conversation with tools.
    Agent,
}

impl Kind {
    /// Its name in headers, metrics and the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Fim => "fim",
            Self::Chat => "chat",
            Self::Agent => "agent",
        }
    }

    /// Whether the answer is code to insert, not a message to read.
    #[must_use]
    pub const fn is_code(self) -> bool {
        matches!(self, Self::Inline | Self::Fim)
    }
}

const N_MAX: usize = 8;
const STOP_MAX: usize = 8;
const STOP_BYTES_MAX: usize = 256;
const MESSAGES_MAX: usize = 1024;

/// Fields that are read; `Fields` may hold others.
const KNOWN: [&str; 15] = [
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
];

/// OpenAI fields that change nothing at these values, and are not done by our pods at others.
const NEUTRAL: [(&str, &[&str]); 9] = [
    ("echo", &["false"]),
    ("best_of", &["1"]),
    ("logprobs", &["false", "0"]),
    ("top_logprobs", &["0"]),
    ("logit_bias", &["{}"]),
    ("frequency_penalty", &["0", "0.0"]),
    ("presence_penalty", &["0", "0.0"]),
    ("tools", &["[]"]),
    ("response_format", &[r#"{"type":"text"}"#]),
];

impl CompletionRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    /// An [`ApiError`] that names the field and what to send instead.
    pub fn parse(endpoint: Endpoint, body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::parse(body)?;
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
            Endpoint::Completions => read_prompt(&fields)?,
            Endpoint::Chat => Input::Chat(read_messages(&fields)?),
        };
        Ok(Self {
            endpoint,
            model: required(fields.get("model", "text")?, "model")?,
            input,
            sampling: read_sampling(&fields)?,
            stream: fields.get("stream", "true or false")?.unwrap_or(false),
            include_usage: options.is_some_and(|options| options.include_usage),
            return_token_ids: fields.get("return_token_ids", "true or false")?.unwrap_or(false),
            tools: unsupported.iter().any(|name| name == "tools"),
            unsupported,
            unknown,
        })
    }

    /// What it is for, as its shape says.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match (&self.input, self.tools) {
            (Input::Prompt(_), _) => Kind::Inline,
            (Input::Fim { .. }, _) => Kind::Fim,
            (Input::Chat(_), false) => Kind::Chat,
            (Input::Chat(_), true) => Kind::Agent,
        }
    }
}

impl Input {
    /// Every text in it, in an order that tells two inputs of the same kind apart.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Prompt(prompt) => vec![prompt],
            Self::Fim { prefix, suffix } => vec![prefix, suffix],
            Self::Chat(messages) => messages
                .iter()
                .flat_map(|message| {
                    let name = message.name.as_deref().unwrap_or_default();
                    [message.role.as_str(), name, message.content.as_str()]
                })
                .collect(),
        }
    }

    /// Bytes of text.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.texts().iter().map(|text| text.len()).sum()
    }
}

/// The body an edge sends to a pod: every field as the client sent it, except those that the edge
/// decides. It always asks for a stream with usage and token ids.
///
/// # Errors
/// As [`CompletionRequest::parse`]; never for a body that was parsed before.
pub fn forward_body(body: &[u8], model: &str) -> Result<Vec<u8>, ApiError> {
    const DECIDED: [&str; 5] = ["model", "stream", "stream_options", "return_token_ids", "nearhop"];
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
    out.extend_from_slice(
        br#","stream":true,"stream_options":{"include_usage":true},"return_token_ids":true}"#,
    );
    Ok(out)
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

fn required<T>(value: Option<T>, name: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError {
        code: Some("missing_field".to_owned()),
        ..ApiError::invalid(name, format!("{name} is missing"))
    })
}

fn read_prompt(fields: &Fields<'_>) -> Result<Input, ApiError> {
    const EXPECTED: &str = "text; for several prompts send a request each";
    let prompt: Value = required(fields.get("prompt", EXPECTED)?, "prompt")?;
    let prompt = match prompt {
        Value::String(text) => text,
        Value::Array(mut items) if items.len() == 1 && items[0].is_string() => {
            let Value::String(text) = items.remove(0) else { unreachable!("checked above") };
            text
        }
        _ => return Err(ApiError::invalid("prompt", format!("prompt must be {EXPECTED}"))),
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
        invalid(format!("messages must be a list of {{\"role\", \"content\"}}: {error}"))
    })?;
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        return Err(invalid(format!("messages must have 1 to {MESSAGES_MAX} messages")));
    }
    messages.into_iter().enumerate().map(|(at, message)| read_message(at, message)).collect()
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

fn read_sampling(fields: &Fields<'_>) -> Result<Sampling, ApiError> {
    let temperature =
        ranged(fields, "temperature", "a number from 0 to 2", |t| (0.0..=2.0).contains(&t))?;
    let top_p = ranged(fields, "top_p", "a number over 0, up to 1", |p| p > 0.0 && p <= 1.0)?;
    let max_tokens = match fields.raw("max_completion_tokens") {
        Some(_) => positive(fields, "max_completion_tokens", usize::MAX)?,
        None => positive(fields, "max_tokens", usize::MAX)?,
    };
    Ok(Sampling {
        temperature,
        top_p,
        max_tokens,
        n: positive(fields, "n", N_MAX)?.unwrap_or(1),
        seed: fields.get::<i64>("seed", "a whole number")?.map(i64::cast_unsigned),
        stop: read_stop(fields)?,
    })
}

fn ranged(
    fields: &Fields<'_>,
    name: &str,
    expected: &str,
    fits: impl Fn(f32) -> bool,
) -> Result<Option<f32>, ApiError> {
    match fields.get::<f32>(name, expected)? {
        Some(value) if !fits(value) => {
            Err(ApiError::invalid(name, format!("{name} must be {expected}")))
        }
        value => Ok(value),
    }
}

fn positive(fields: &Fields<'_>, name: &str, max: usize) -> Result<Option<usize>, ApiError> {
    let expected = match max {
        usize::MAX => "a whole number of at least 1".to_owned(),
        max => format!("a whole number from 1 to {max}"),
    };
    match fields.get::<usize>(name, &expected)? {
        Some(value) if value == 0 || value > max => {
            Err(ApiError::invalid(name, format!("{name} must be {expected}")))
        }
        value => Ok(value),
    }
}

fn read_stop(fields: &Fields<'_>) -> Result<Vec<String>, ApiError> {
    let expected =
        format!("text, or a list of up to {STOP_MAX} texts of 1 to {STOP_BYTES_MAX} bytes");
    let wrong = || ApiError::invalid("stop", format!("stop must be {expected}"));
    let stop = match fields.get::<Value>("stop", &expected)? {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) => vec![text],
        Some(list) => serde_json::from_value(list).map_err(|_not_texts| wrong())?,
    };
    let fits = |text: &String| (1..=STOP_BYTES_MAX).contains(&text.len());
    if stop.len() > STOP_MAX || !stop.iter().all(fits) {
        return Err(wrong());
    }
    Ok(stop)
}

/// The error for a model nobody serves.
impl ApiError {
    /// 404: the model `name` is not served; `known` are.
    #[must_use]
    pub fn unknown_model(name: &str, known: &[&str]) -> Self {
        // The name comes from outside: cut, or an error could be as long as a prompt.
        let name: String = name.chars().take(64).collect();
        let message =
            format!("the model `{name}` is not served here; there is {}", known.join(", "));
        Self::new(ErrorKind::InvalidRequest, "model_not_found", message).about("model")
    }
}

#[cfg(test)]
mod tests;
