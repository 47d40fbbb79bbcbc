//! Text to tokens and back. The only file that imports `tokenizers`.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::OriginError;

/// A tokenizer that reads users' text as text: a special token's name in it is no special token.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    text: tokenizers::Tokenizer,
    /// The same tokenizer, reading special tokens: for chat templates that write them.
    template: tokenizers::Tokenizer,
    special: Vec<String>,
    digest: [u8; 32],
}

impl Tokenizer {
    pub(crate) fn load(path: &Path) -> Result<Self, OriginError> {
        let wrong = |what: String| OriginError::ModelFile {
            path: path.to_owned(),
            what,
            fix: "Copy tokenizer.json from where the model came from again",
        };
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let mut template = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|error| wrong(format!("not a tokenizer: {error}")))?;
        // Exports ship with padding and truncation meant for training.
        template.with_padding(None);
        template.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        let mut text = template.clone();
        text.set_encode_special_tokens(true);
        let special = template
            .get_added_tokens_decoder()
            .into_values()
            .filter(|token| token.special)
            .map(|token| token.content)
            .collect();
        Ok(Self { text, template, special, digest: Sha256::digest(&bytes).into() })
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.text.get_vocab_size(true)
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The tokens of a user's text.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        encode(&self.text, text)
    }

    /// The tokens of a rendered chat. Special tokens are read only where `template` itself writes
    /// them; a user's text can then still imitate one, which the template's authors accept.
    pub(crate) fn encode_template(&self, template: &str, rendered: &str) -> Vec<u32> {
        match self.special.iter().any(|special| template.contains(special)) {
            true => encode(&self.template, rendered),
            false => encode(&self.text, rendered),
        }
    }

    /// The text of tokens, without special ones. Bytes that are no whole character yet become
    /// U+FFFD.
    pub(crate) fn decode(&self, tokens: &[u32]) -> String {
        self.text.decode(tokens, true).unwrap_or_default()
    }
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    match tokenizer.encode_fast(text, false) {
        Ok(encoding) => encoding.get_ids().to_vec(),
        Err(error) => {
            // Byte-level tokenizers have a token for every byte; others may refuse some text.
            tracing::warn!(%error, "the tokenizer refuses a text");
            Vec::new()
        }
    }
}
