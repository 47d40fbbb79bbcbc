//! A model folder: weights, tokenizer, and what says how to use them.
//!
//! Here text becomes tokens. What the network computes is [`crate::session`]'s affair.

mod fim;
mod graph;
mod manifest;
mod prompt;
mod published;
mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use nearhop_wire::{ApiError, ErrorKind, Input, Message, ModelReport};
use sha2::{Digest as _, Sha256};

use crate::OriginError;
pub(crate) use graph::{Element, Graph, Port};
pub use manifest::ModelKind;
pub(crate) use manifest::{Manifest, Overrides};
pub use prompt::Prompt;
use prompt::{ChatTemplate, Piece};
pub(crate) use published::Pooling;
use published::{GenaiDecoder, Published};
pub(crate) use tokenizer::Tokenizer;

/// A loaded model folder, without its weights.
#[derive(Debug)]
pub struct Model {
    pub(crate) manifest: Manifest,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) graph: Graph,
    /// What `genai_config.json` calls the graph's inputs and outputs.
    pub(crate) names: Option<GenaiDecoder>,
    /// Of an embedder.
    pub(crate) pooling: Pooling,
    template_revision: String,
    weights: PathBuf,
    findings: Vec<String>,
}

impl Model {
    /// Reads what is in `folder` beside the weights, and checks one file against the other.
    ///
    /// # Errors
    /// [`OriginError::ModelFile`], naming the file and the fix.
    pub fn load(folder: &Path) -> Result<Self, OriginError> {
        let path = folder.join("nearhop.yaml");
        let wrong = |path: &Path, what: String| OriginError::ModelFile {
            path: path.to_owned(),
            what,
            fix: "docs/model-folder.md lists what a folder needs and what nearhop.yaml may say",
        };
        if !folder.is_dir() {
            return Err(wrong(folder, "there is no such folder".to_owned()));
        }
        let text = match path.is_file() {
            true => {
                std::fs::read_to_string(&path).map_err(|error| wrong(&path, error.to_string()))?
            }
            false => String::new(),
        };
        let overrides = Overrides::parse(&text).map_err(|what| wrong(&path, what))?;
        let published = Published::read(folder)?;
        let weights =
            weights::find(folder, &overrides, &published).map_err(|what| wrong(folder, what))?;
        let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"))?;
        let graph = Graph::read(&weights).map_err(|what| OriginError::ModelFile {
            path: weights.clone(),
            what,
            fix: "Copy the model folder from where it came from again",
        })?;
        weights::check(&weights, &graph).map_err(|what| wrong(&weights, what))?;
        let mut findings = vec![format!("weights: {}", weights.display())];
        let revision = || weights::digest(&weights, &graph);
        let described = (&published, &tokenizer, &graph);
        let manifest = overrides
            .resolve(folder, described, revision, &mut findings)
            .map_err(|what| wrong(&path, what))?;
        if let Some(template) = chat_template(&manifest, &tokenizer) {
            findings.extend(template.check().map_err(|what| wrong(folder, what))?);
        }
        let mut digest = Sha256::new();
        digest.update(tokenizer.digest());
        digest.update(manifest.layout_digest());
        let pooling = published.pooling();
        if manifest.kind == ModelKind::Embed {
            digest.update(format!("{pooling:?}"));
        }
        let template_revision = hex(&digest.finalize()[..6]);
        let names = published.genai.map(|genai| genai.model.decoder);
        Ok(Self {
            manifest,
            tokenizer,
            graph,
            names,
            pooling,
            template_revision,
            weights,
            findings,
        })
    }

    /// The weights' file.
    #[must_use]
    pub fn weights(&self) -> &Path {
        &self.weights
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> ModelKind {
        self.manifest.kind
    }

    /// What was found in the folder rather than said in `nearhop.yaml`, a line each.
    #[must_use]
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// How prompts are laid out, a line each, for people.
    #[must_use]
    pub fn described(&self) -> Vec<String> {
        let manifest = &self.manifest;
        let fim = match &manifest.fim {
            Some(fim) => format!("fill in the middle: {}", fim.order.name()),
            None => "fill in the middle: no".to_owned(),
        };
        let chat = match &manifest.chat_template {
            Some(_) => "chat: by the model's template",
            None => "chat: no template",
        };
        let ends: Vec<String> =
            manifest.end_tokens.iter().map(|token| self.tokenizer.piece(*token)).collect();
        vec![fim, chat.to_owned(), format!("an answer ends at: {}", ends.join(" "))]
    }

    /// The tokens of a text to embed; `truncate` cuts what is over the context.
    ///
    /// # Errors
    /// An [`ApiError`] for a text that is longer.
    pub(crate) fn embedded(&self, text: &str, truncate: bool) -> Result<Vec<u32>, ApiError> {
        let context = self.manifest.context_length;
        let (read, unread) = prompt::start_of(text, self.longest_text());
        let too_long = |length: String| {
            over_context(
                "input",
                format!(
                    "a text is {length} long; the model's limit is {context} tokens. Send less of it, or \"truncate\": true"
                ),
            )
        };
        if unread > 0 && !truncate {
            return Err(too_long(format!("{} bytes", text.len())));
        }
        let mut tokens = self.tokenizer.encode_whole(read);
        if tokens.len() > context && !truncate {
            return Err(too_long(format!("{} tokens", tokens.len())));
        }
        if tokens.len() > context {
            // The token that ends a text, as trained, ends the cut one too.
            let last = tokens.pop();
            tokens.truncate(context - 1);
            tokens.extend(last);
        }
        if tokens.is_empty() {
            tokens.push(self.manifest.start);
        }
        Ok(tokens)
    }

    /// The longest sequence, prompt and answer together, tokens.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.manifest.context_length
    }

    /// The number of tokens that the tokenizer knows.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.vocabulary()
    }

    /// What the pod says of it on `/readyz`.
    #[must_use]
    pub fn report(&self) -> ModelReport {
        ModelReport {
            name: self.manifest.name.clone(),
            revision: self.manifest.revision.clone(),
            template: self.template_revision.clone(),
            temperature: self.manifest.sampling.temperature,
            max_tokens: self.manifest.sampling.max_tokens,
            context_length: self.manifest.context_length,
            aliases: Vec::new(),
            suffix_first: self.manifest.fim.as_ref().is_some_and(|fim| fim.order.suffix_first()),
        }
    }

    /// `name@revision`: the answers' `system_fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.report().fingerprint()
    }

    /// Lays out a request's text as tokens. Takes about 1 ms for 3 kB of code; call it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// An [`ApiError`] for a conversation that is longer than the context, or that the model's
    /// template refuses.
    pub fn prompt(&self, input: &Input) -> Result<Prompt, ApiError> {
        let context = self.manifest.context_length;
        let window = self.manifest.fim_window;
        match input {
            Input::Prompt(text) => {
                let leading = &self.manifest.leading;
                // As much as fits beside an answer of the usual length.
                let taken = self.manifest.sampling.max_tokens + leading.len();
                let keep = context.saturating_sub(taken).max(1);
                // One token must be there to predict from.
                let start = self.manifest.start;
                let (read, unread) = prompt::end_of(text, prompt::read_at_most(keep));
                let tokens = self.tokenizer.encode(read);
                let mut prompt = prompt::inline(&tokens, keep, start).after(leading);
                prompt.left_out += prompt::about(unread, read, &tokens);
                Ok(prompt)
            }
            Input::Fim { prefix, suffix } => {
                let Some(fim) = &self.manifest.fim else {
                    let message =
                        format!("the model `{}` cannot fill in the middle", self.manifest.name);
                    return Err(ApiError::invalid("suffix", message));
                };
                let (before, before_unread) =
                    prompt::end_of(prefix, prompt::read_at_most(window.prefix));
                let (after, after_unread) =
                    prompt::start_of(suffix, prompt::read_at_most(window.suffix));
                let prefix = self.tokenizer.encode(before);
                let suffix = self.tokenizer.encode_continued(after);
                let prompt = prompt::fill_in_the_middle(&prefix, &suffix, fim, window);
                let mut prompt = prompt.after(&self.manifest.leading);
                prompt.left_out += prompt::about(before_unread, before, &prefix);
                prompt.left_out += prompt::about(after_unread, after, &suffix);
                Ok(prompt)
            }
            Input::Chat(messages) => self.chat_prompt(messages),
        }
    }

    /// A text of more bytes cannot fit into the context: it is refused unread.
    fn longest_text(&self) -> usize {
        prompt::read_at_most(0).max(self.manifest.context_length * self.tokenizer.longest())
    }

    fn chat_prompt(&self, messages: &[Message]) -> Result<Prompt, ApiError> {
        let context = self.manifest.context_length;
        let Some(template) = chat_template(&self.manifest, &self.tokenizer) else {
            let message = format!("the model `{}` has no chat template", self.manifest.name);
            return Err(ApiError::invalid("messages", message));
        };
        let too_long = |length: String| {
            over_context(
                "messages",
                format!(
                    "this conversation is {length} long; the model's limit is {context} tokens, answer included. Send less of it"
                ),
            )
        };
        let bytes: usize = messages
            .iter()
            .map(|Message { role, content, name }| {
                role.len() + content.len() + name.as_ref().map_or(0, String::len)
            })
            .sum();
        if bytes > self.longest_text() {
            return Err(too_long(format!("{bytes} bytes")));
        }
        let pieces = template.render(messages).map_err(|error| {
            let message = format!("the model's chat template refuses these messages: {error}");
            ApiError::invalid("messages", message)
        })?;
        let mut tokens = Vec::new();
        for piece in &pieces {
            tokens.extend(match piece {
                Piece::Template(text) => self.tokenizer.encode_template(text),
                Piece::Text(text) => self.tokenizer.encode(text),
            });
        }
        if tokens.is_empty() {
            tokens.push(self.manifest.start);
        }
        if tokens.len() >= context {
            return Err(too_long(format!("{} tokens", tokens.len())));
        }
        Ok(Prompt { tokens, left_out: 0 })
    }
}

fn chat_template<'a>(manifest: &'a Manifest, tokenizer: &'a Tokenizer) -> Option<ChatTemplate<'a>> {
    Some(ChatTemplate {
        template: manifest.chat_template.as_deref()?,
        bos: &manifest.bos_text,
        eos: &manifest.eos_text,
        special: tokenizer.special(),
    })
}

fn over_context(field: &str, message: String) -> ApiError {
    let code = "context_length_exceeded";
    ApiError::new(ErrorKind::InvalidRequest, code, message).about(field)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
