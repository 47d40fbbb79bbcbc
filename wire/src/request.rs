//! Completion requests: read once, trusted after.
//!
//! Whatever shape a client speaks, what comes out is one [`CompletionRequest`]. Pods speak OpenAI's
//! two shapes only: [`forward_body`] and [`CompletionRequest::pod_path`] say what they are sent.

mod context;
mod declared;
mod editor;
mod fim;
mod forward;
mod infill;
mod openai;
mod sampling;
mod tabby;

use std::time::Duration;

pub use self::{
    declared::{ContextFile, Declared},
    forward::{Receiver, forward_body},
};
use crate::{ApiError, Endpoint, ErrorKind, Fields};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// The shape of the question and of its answer.
    pub endpoint: Endpoint,
    /// The model's name or alias. `None` is the service's default model: llama.cpp's and Tabby's
    /// requests name none. OpenAI's and Mistral's always do.
    pub model: Option<String>,
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
    /// What to go on with.
    pub resume: Option<Resume>,
    /// Whether the request offers tools.
    pub tools: bool,
    /// Fields that ask for something Nearhop's own pods do not do.
    pub unsupported: Vec<String>,
    /// Fields whose meaning is not known here.
    pub unknown: Vec<String>,
    /// The longest that the client wants to wait: llama.cpp's `t_max_prompt_ms` and
    /// `t_max_predict_ms` together. More than 0.
    pub time_limit: Option<Duration>,
    /// Whether the prompt is only to be read, so that a later request finds it in a pod's prefix
    /// cache (llama.cpp's `n_predict: 0`). `max_tokens` is 1 then, and the answer shows no text.
    pub warm_up: bool,
    /// The fields of the answer that the client wants (llama.cpp); empty asks for all.
    pub response_fields: Vec<String>,
    /// What the editor says of the place that it asks about.
    pub declared: Declared,
    /// Bytes at the front of the prefix that are snippets of other files, where the shape sends
    /// them apart.
    pub snippet_bytes: usize,
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
    /// Ends an answer; not part of it. At most 32.
    pub stop: Vec<String>,
    /// What makes a token that is there already less likely.
    pub penalties: Penalties,
    /// How many of the likeliest tokens to show at each place, beside the one that was taken;
    /// `None` shows nothing. At most 20.
    pub logprobs: Option<usize>,
}

impl Sampling {
    /// Whether it asks for nothing that a stored answer's key does not tell apart.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.penalties == Penalties::default() && self.logprobs.is_none()
    }
}

/// What makes a token that is there already less likely.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Penalties {
    /// Taken off a token's logit for each time that the answer has it; −2 to 2.
    pub frequency: f32,
    /// Taken off once if the answer has it; −2 to 2.
    pub presence: f32,
    /// Divides a positive logit, and multiplies a negative one, of a token that the prompt or the
    /// answer has; over 0, up to 2. Keskar et al. 2019, "CTRL", section 4.1.
    pub repetition: f32,
}

impl Default for Penalties {
    fn default() -> Self {
        Self { frequency: 0.0, presence: 0.0, repetition: 1.0 }
    }
}

/// An answer to go on with: the extension between edges and pods by which a generation that broke
/// off continues on another pod.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The weights that the tokens came from; another revision refuses.
    pub revision: String,
    /// For each choice the tokens that its client has; `None` for one that has ended.
    pub token_ids: Vec<Option<Vec<u32>>>,
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

impl CompletionRequest {
    /// Reads a request's body. `endpoint` is what the path says; a body for
    /// [`Endpoint::Completions`] that has `segments` is Tabby's, and the request's `endpoint` says
    /// so.
    ///
    /// # Errors
    /// An [`ApiError`] that names the field and what to send instead.
    pub fn parse(endpoint: Endpoint, body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::parse(body)?;
        let declared = declared::read(&fields)?;
        let request = match endpoint {
            Endpoint::Completions if fields.raw("segments").is_some() => tabby::read(&fields),
            Endpoint::Completions | Endpoint::Chat => openai::read(endpoint, &fields),
            Endpoint::Fim => fim::read(&fields),
            Endpoint::Infill => infill::read(&fields),
            Endpoint::Tabby => tabby::read(&fields),
        }?;
        let own = request.declared;
        let declared = Declared {
            language: declared.language.or(own.language),
            file: declared.file.or(own.file),
            ..declared
        };
        Ok(Self { declared, ..request })
    }

    /// A request that asks for nothing but an answer to `input`.
    fn of(endpoint: Endpoint, input: Input) -> Self {
        Self {
            endpoint,
            model: None,
            input,
            sampling: Sampling { n: 1, ..Sampling::default() },
            stream: false,
            include_usage: false,
            return_token_ids: false,
            resume: None,
            tools: false,
            unsupported: Vec::new(),
            unknown: Vec::new(),
            time_limit: None,
            warm_up: false,
            response_fields: Vec::new(),
            declared: Declared::default(),
            snippet_bytes: 0,
        }
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

    /// Whether the model may answer by calling something: by its present or its former name.
    #[must_use]
    pub fn offers_tools(&self) -> bool {
        const FORMER: [&str; 2] = ["functions", "function_call"];
        self.tools || self.unknown.iter().any(|name| FORMER.contains(&name.as_str()))
    }

    /// The path that a pod answers it on; [`forward_body`] is what to send there.
    #[must_use]
    pub const fn pod_path(&self) -> &'static str {
        match self.input {
            Input::Prompt(_) | Input::Fim { .. } => "/v1/completions",
            Input::Chat(_) => "/v1/chat/completions",
        }
    }

    /// Whether [`crate::Answer::body`], which is stored with an answer, is what its client gets.
    #[must_use]
    pub const fn takes_full_body(&self) -> bool {
        self.response_fields.is_empty() && !self.warm_up
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
        match self {
            Self::Prompt(prompt) => prompt.len(),
            Self::Fim { prefix, suffix } => prefix.len() + suffix.len(),
            Self::Chat(_) => self.texts().iter().map(|text| text.len()).sum(),
        }
    }
}

fn required<T>(value: Option<T>, name: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError {
        code: Some("missing_field".to_owned()),
        ..ApiError::invalid(name, format!("{name} is missing"))
    })
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
