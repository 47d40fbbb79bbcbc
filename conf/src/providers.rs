//! External providers: APIs like OpenAI's that somebody else runs, or that run elsewhere.
//!
//! No request reaches one unless its tenant's `egress.providers` names it.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use http::Uri;
use serde_json::Value;

use crate::{
    Region, Secret,
    address::{is_private_url, is_url},
    defaults,
    reader::{Field, Section, read_bearer},
    routing::count,
    units::{http_token, is_model_name},
};

/// An API like OpenAI's beyond this region's pods and other regions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalProvider {
    /// Its name in headers, metrics, logs and `egress.providers`.
    pub name: String,
    /// Its base URL without a slash at its end, such as `https://api.example.com/v1`. `http` only
    /// where it is `private`.
    pub url: String,
    /// The bearer token it asks for; only a private one may ask for none.
    pub key: Option<Secret>,
    /// Lower is asked earlier; from 1.
    pub priority: u32,
    /// Our names of models to its own, at least one; [`ExternalProvider::model`] reads it.
    pub models: BTreeMap<String, String>,
    /// What it is asked.
    pub kinds: Vec<RequestKind>,
    /// Whether it may be at an address of which [`is_private`](crate::is_private) holds.
    pub private: bool,
    /// Who signs its certificate (PEM); the system's authorities where not given.
    pub ca: Option<PathBuf>,
    /// To an open connection, TLS included.
    pub connect: Duration,
    /// The most that an attempt waits for its first token.
    pub first_token: Duration,
    /// Between two tokens.
    pub next_token: Duration,
}

impl ExternalProvider {
    /// Its name for the model that a request asks for under ours; `None` where it has none. `*`
    /// stands for every other of our names, and on its side for that same name.
    #[must_use]
    pub fn model<'a>(&'a self, ours: &'a str) -> Option<&'a str> {
        let theirs = self.models.get(ours).or_else(|| self.models.get("*"))?;
        Some(if theirs == "*" { ours } else { theirs })
    }
}

/// What a request asks for, as the edge's deadlines tell requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Code at the cursor, without a suffix.
    Inline,
    /// Fill in the middle.
    Fim,
    /// A conversation.
    Chat,
    /// A conversation with tools.
    Agent,
}

impl RequestKind {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Inline, Self::Fim, Self::Chat, Self::Agent];

    /// Its word in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Fim => "fim",
            Self::Chat => "chat",
            Self::Agent => "agent",
        }
    }
}

/// Its text stays out of mistakes: somebody may have written a key into it.
struct BaseUrl(String);

impl Field for BaseUrl {
    const EXPECTED: &'static str = "a base URL such as https://api.example.com/v1";
    const SECRET: bool = true;
    fn parse(value: &Value) -> Option<Self> {
        value.as_str().filter(|url| url.len() <= 2048).map(|url| Self(url.to_owned()))
    }
}

/// A provider's own name for a model: some have `@` in it, none has spaces.
struct TheirModel(String);

impl Field for TheirModel {
    const EXPECTED: &'static str = "a model's name there, of 1 to 256 characters without spaces";
    fn parse(value: &Value) -> Option<Self> {
        let name = value.as_str()?;
        let fine = |c: char| !c.is_control() && !c.is_whitespace();
        ((1..=256).contains(&name.len()) && name.chars().all(fine)).then(|| Self(name.to_owned()))
    }
}

/// Each has connections, a breaker and metrics of its own.
const PROVIDERS_MAX: usize = 64;

/// Reads the list of providers. `regions` are the file's, `here` is this one's name.
pub(crate) fn read_providers(
    edge: &mut Section<'_>,
    here: &str,
    regions: &[Region],
) -> Option<Vec<ExternalProvider>> {
    let sections = edge.sections("providers");
    if sections.len() > PROVIDERS_MAX {
        let what = format!("has {} providers", sections.len());
        edge.problem("providers", what, format!("List at most {PROVIDERS_MAX}"));
        return None;
    }
    let mut names = HashSet::new();
    let providers: Vec<Option<ExternalProvider>> = sections
        .into_iter()
        .map(|mut section| {
            let provider = ExternalProvider::from_fields(&mut section);
            if let Some(name) = provider.as_ref().map(|provider| &provider.name) {
                if name == here || regions.iter().any(|region| region.name == *name) {
                    let fix = "Give it another: answers are labelled with it";
                    section.problem("name", "is a region's", fix);
                }
                if !names.insert(name.clone()) {
                    section.problem("name", "is used twice", "Give each provider its own");
                }
            }
            section.finish();
            provider
        })
        .collect();
    providers.into_iter().collect()
}

impl ExternalProvider {
    fn from_fields(section: &mut Section<'_>) -> Option<Self> {
        let name: Option<String> = section.required("name");
        if name.as_deref().is_some_and(|name| http_token(name).is_none()) {
            section.problem("name", "is sent in a header", "Use letters, digits, `-`, `_` and `.`");
        }
        let url = section.required("url").map(|BaseUrl(url)| url);
        let private = section.or("private", false);
        if let Some(url) = &url {
            check_url(section, url, private);
        }
        let key = read_key(section, private);
        let priority = count(section, "priority", defaults::PROVIDER_PRIORITY, 65_536);
        let models = read_models(section);
        let kinds = section.or("kinds", defaults::PROVIDER_KINDS.to_vec());
        if kinds.is_empty() {
            section.problem("kinds", "is empty", "Name some of inline, fim, chat and agent");
        }
        let ca = section.optional("ca");
        let connect = section.or("connect", defaults::PROVIDER_CONNECT);
        let first_token = section.or("first_token", defaults::PROVIDER_FIRST_TOKEN);
        let next_token = section.or("next_token", defaults::PROVIDER_NEXT_TOKEN);
        Some(Self {
            name: name?,
            url: url?.trim_end_matches('/').to_owned(),
            key,
            priority,
            models: models?,
            kinds,
            private,
            ca,
            connect,
            first_token,
            next_token,
        })
    }
}

fn check_url(section: &mut Section<'_>, url: &str, private: bool) {
    let query = url.parse::<Uri>().is_ok_and(|url| url.query().is_some()) || url.contains('#');
    if !is_url(url) || query {
        let fix =
            "Write a base URL such as https://api.example.com/v1, without a name, a key or a query";
        section.problem("url", "is no base URL", fix);
    } else if !private && !url.starts_with("https://") {
        let fix = "Use https; or write `private: true` where only your own network lies between";
        section.problem("url", "sends code and the key in plain text", fix);
    } else if !private && is_private_url(url) {
        let fix = "Write `private: true` where that is meant";
        section.problem("url", "is on this machine or a private network", fix);
    }
}

fn read_key(section: &mut Section<'_>, private: bool) -> Option<Secret> {
    let given = section.has("key") || section.has("key_file");
    let key = read_bearer(section, "key", "key_file");
    if !given && !private {
        let fix = "Add it, or `key_file`; only a provider with `private: true` may ask for none";
        section.problem("key", "is missing", fix);
    }
    key
}

fn read_models(section: &mut Section<'_>) -> Option<BTreeMap<String, String>> {
    let models: Option<BTreeMap<String, TheirModel>> = section.required("models");
    let models = models?;
    if models.is_empty() {
        let fix = "Map our names to its own: {small: its-small-model, \"*\": its-other-model}";
        section.problem("models", "is empty, so nothing could be asked", fix);
    }
    if let Some(bad) = models.keys().find(|name| !is_model_name(name)) {
        let what = format!("has `{bad}`, {}", crate::NO_MODEL_NAME);
        section.problem("models", what, "Write names that requests use, or `\"*\"`");
    }
    Some(models.into_iter().map(|(ours, TheirModel(theirs))| (ours, theirs)).collect())
}
