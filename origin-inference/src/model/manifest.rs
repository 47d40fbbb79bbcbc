//! `nearhop.yaml`: what a pod must know of a model and cannot read from its weights.

use serde::Deserialize;

/// The manifest as written; [`Manifest::check`] holds it against the tokenizer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The name that requests use.
    pub(crate) name: String,
    /// The weights; change it with them.
    pub(crate) revision: String,
    /// Prompt and answer together, tokens.
    pub(crate) context_length: usize,
    /// What fill in the middle keeps.
    pub(crate) fim_window: FimWindow,
    /// Any of these ends an answer; the first also stands before an empty prompt.
    pub(crate) end_tokens: Vec<u32>,
    /// Left out where the model was not trained to fill in the middle.
    #[serde(default)]
    pub(crate) fim: Option<Fim>,
    /// Where a request says nothing.
    pub(crate) sampling: SamplingDefaults,
    /// Jinja; left out where the model has no chat.
    #[serde(default)]
    pub(crate) chat_template: Option<String>,
}

/// Tokens kept of each side of the cursor.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FimWindow {
    /// Of the prefix's end.
    pub(crate) prefix: usize,
    /// Of the suffix's start.
    pub(crate) suffix: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fim {
    pub(crate) tokens: FimTokens,
    pub(crate) order: FimOrder,
}

/// The special tokens before each part.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FimTokens {
    pub(crate) prefix: u32,
    pub(crate) suffix: u32,
    pub(crate) middle: u32,
}

/// The order of the parts. Bavarian et al. 2022, "Efficient Training of Language Models to Fill in
/// the Middle", section 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FimOrder {
    /// PSM: prefix, suffix, middle.
    PrefixFirst,
    /// SPM: suffix, prefix, middle; a keystroke then changes only the prompt's end.
    SuffixFirst,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SamplingDefaults {
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    pub(crate) max_tokens: usize,
}

impl Manifest {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// What is wrong with it, for a tokenizer of `vocabulary` tokens.
    pub(crate) fn check(&self, vocabulary: usize) -> Result<(), String> {
        let known = |name: &str, token: u32| match (token as usize) < vocabulary {
            true => Ok(()),
            false => {
                Err(format!("{name}: there is no token {token}; the tokenizer has {vocabulary}"))
            }
        };
        if self.name.is_empty() || self.revision.is_empty() {
            return Err("name and revision must not be empty".to_owned());
        }
        if self.end_tokens.is_empty() {
            return Err("end_tokens: must name at least one token".to_owned());
        }
        for token in &self.end_tokens {
            known("end_tokens", *token)?;
        }
        if let Some(Fim { tokens, .. }) = &self.fim {
            known("fim.tokens.prefix", tokens.prefix)?;
            known("fim.tokens.suffix", tokens.suffix)?;
            known("fim.tokens.middle", tokens.middle)?;
        }
        let FimWindow { prefix, suffix } = self.fim_window;
        if prefix == 0 || prefix + suffix + 3 >= self.context_length {
            return Err(format!(
                "fim_window: {prefix} + {suffix} + 3 tokens leave no room for an answer in context_length {}",
                self.context_length
            ));
        }
        let SamplingDefaults { temperature, top_p, max_tokens } = self.sampling;
        if !(0.0..=2.0).contains(&temperature) {
            return Err("sampling.temperature: must be from 0 to 2".to_owned());
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err("sampling.top_p: must be over 0, up to 1".to_owned());
        }
        if max_tokens == 0 || max_tokens >= self.context_length {
            return Err("sampling.max_tokens: must be from 1 to context_length - 1".to_owned());
        }
        Ok(())
    }

    /// Everything beside the weights that decides what a request is answered: the layout of its
    /// prompt, and the sampling of one that says nothing.
    pub(crate) fn layout_digest(&self) -> Vec<u8> {
        format!(
            "{:?} {:?} {:?} {:?} {} {:?}",
            self.fim_window,
            self.fim,
            self.chat_template,
            self.end_tokens,
            self.context_length,
            self.sampling
        )
        .into_bytes()
    }
}
