//! A model folder: `model.onnx`, `tokenizer.json`, `nearhop.yaml`.
//!
//! Here text becomes tokens. What the network computes is [`crate::session`]'s affair.

mod manifest;
mod prompt;
mod tokenizer;

use std::path::{Path, PathBuf};

use nearhop_wire::{ApiError, ErrorKind, Input, Message, ModelReport};
use sha2::{Digest as _, Sha256};

use crate::OriginError;
pub(crate) use manifest::Manifest;
pub use prompt::Prompt;
pub(crate) use tokenizer::Tokenizer;

/// A loaded model folder, without its weights.
#[derive(Debug)]
pub struct Model {
    pub(crate) manifest: Manifest,
    pub(crate) tokenizer: Tokenizer,
    template_revision: String,
    folder: PathBuf,
}

impl Model {
    /// Loads the manifest and the tokenizer in `folder` and checks one against the other.
    ///
    /// # Errors
    /// [`OriginError::ModelFile`], naming the file and the fix.
    pub fn load(folder: &Path) -> Result<Self, OriginError> {
        let path = folder.join("nearhop.yaml");
        let text = std::fs::read_to_string(&path).map_err(|error| OriginError::ModelFile {
            path: path.clone(),
            what: error.to_string(),
            fix: "A model folder has model.onnx, tokenizer.json and nearhop.yaml; check `model`",
        })?;
        let wrong = |path: PathBuf, what: String| OriginError::ModelFile {
            path,
            what,
            fix: "See origin-inference/models/nearhop-mini/nearhop.yaml for a complete example",
        };
        let manifest = Manifest::parse(&text).map_err(|what| wrong(path.clone(), what))?;
        let tokenizer = Tokenizer::load(&folder.join("tokenizer.json"))?;
        manifest.check(tokenizer.vocabulary()).map_err(|what| wrong(path, what))?;
        let mut digest = Sha256::new();
        digest.update(tokenizer.digest());
        digest.update(manifest.layout_digest());
        let template_revision =
            digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { manifest, tokenizer, template_revision, folder: folder.to_owned() })
    }

    /// The weights' file.
    #[must_use]
    pub fn weights(&self) -> PathBuf {
        self.folder.join("model.onnx")
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
        }
    }

    /// `name@revision`: the answers' `system_fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{}@{}", self.manifest.name, self.manifest.revision)
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
                let tokens = self.tokenizer.encode(text);
                // One token must be there to predict from: the end of another text, as trained.
                let start = self.manifest.end_tokens[0];
                // As much as fits beside an answer of the usual length.
                let keep = context.saturating_sub(self.manifest.sampling.max_tokens).max(1);
                Ok(prompt::inline(&tokens, keep, start))
            }
            Input::Fim { prefix, suffix } => {
                let Some(fim) = &self.manifest.fim else {
                    let message =
                        format!("the model `{}` cannot fill in the middle", self.manifest.name);
                    return Err(ApiError::invalid("suffix", message));
                };
                let prefix = self.tokenizer.encode(prefix);
                let suffix = self.tokenizer.encode(suffix);
                Ok(prompt::fill_in_the_middle(&prefix, &suffix, fim, window))
            }
            Input::Chat(messages) => self.chat_prompt(messages),
        }
    }

    fn chat_prompt(&self, messages: &[Message]) -> Result<Prompt, ApiError> {
        let context = self.manifest.context_length;
        let Some(template) = &self.manifest.chat_template else {
            let message = format!("the model `{}` has no chat template", self.manifest.name);
            return Err(ApiError::invalid("messages", message));
        };
        let text = prompt::render_chat(template, messages).map_err(|error| {
            let message = format!("the model's chat template refuses these messages: {error}");
            ApiError::invalid("messages", message)
        })?;
        let tokens = self.tokenizer.encode_template(template, &text);
        if tokens.len() >= context {
            let message = format!(
                "this conversation is {} tokens long; the model's limit is {context}, answer included. Send less of it",
                tokens.len()
            );
            return Err(ApiError::new(
                ErrorKind::InvalidRequest,
                "context_length_exceeded",
                message,
            )
            .about("messages"));
        }
        Ok(Prompt { tokens, left_out: 0 })
    }
}

#[cfg(test)]
mod tests;
