//! `nearhop.yaml`, and what a model folder says without it.
//!
//! Every field of the file may be left out: what a folder's published files and its tokenizer say
//! is taken then, and each thing that was found that way is told.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    fim::{self, Fim, FimOrder},
    graph::Graph,
    published::Published,
    tokenizer::Tokenizer,
};

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// It continues text.
    Generate,
    /// It turns a text into a vector.
    Embed,
}

impl ModelKind {
    /// The word for it in answers and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Embed => "embed",
        }
    }
}

/// `nearhop.yaml` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Overrides {
    kind: Option<ModelKind>,
    name: Option<String>,
    revision: Option<String>,
    /// The weights' file, relative to the folder.
    pub(crate) weights: Option<PathBuf>,
    context_length: Option<usize>,
    /// Of an embedder's vector.
    dimensions: Option<usize>,
    fim_window: Option<FimWindow>,
    end_tokens: Option<Vec<u32>>,
    fim: Option<Fim>,
    sampling: Option<SamplingDefaults>,
    chat_template: Option<String>,
}

/// What a pod knows of a model, checked.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) kind: ModelKind,
    /// The name that requests use.
    pub(crate) name: String,
    /// The weights; changes with them.
    pub(crate) revision: String,
    /// Prompt and answer together, tokens.
    pub(crate) context_length: usize,
    /// Of an embedder's vector, where the manifest says it.
    pub(crate) dimensions: Option<usize>,
    /// What fill in the middle keeps.
    pub(crate) fim_window: FimWindow,
    /// Any of these ends an answer; never empty for a model that generates.
    pub(crate) end_tokens: Vec<u32>,
    /// Stands before every prompt but a chat's, whose template writes it.
    pub(crate) leading: Vec<u32>,
    /// Stands alone where there is no prompt.
    pub(crate) start: u32,
    /// Left out where the model was not trained to fill in the middle.
    pub(crate) fim: Option<Fim>,
    /// Where a request says nothing.
    pub(crate) sampling: SamplingDefaults,
    /// Jinja; left out where the model has no chat.
    pub(crate) chat_template: Option<String>,
    /// What chat templates call `bos_token` and `eos_token`.
    pub(crate) bos_text: String,
    pub(crate) eos_text: String,
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

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SamplingDefaults {
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    pub(crate) max_tokens: usize,
}

/// Where no file says it: the KV memory of a slot is as large as its context.
const CONTEXT_DEFAULT: usize = 2048;
/// More is a mistake: a slot's keys and values take kilobytes a token.
const CONTEXT_MAX: usize = 1 << 20;
/// A published context over this is cut to it: few requests use it, and every slot pays for it.
const CONTEXT_MAX_DEFAULT: usize = 8192;
/// Most of a prompt of code that is kept where nobody says otherwise, tokens.
const WINDOW_MAX_DEFAULT: FimWindow = FimWindow { prefix: 2048, suffix: 512 };

impl Overrides {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// The manifest: these fields, and for each that is missing what was found in `folder`.
    /// `findings` gets a line for each choice that somebody may wonder about.
    pub(crate) fn resolve(
        self,
        folder: &Path,
        (published, tokenizer, graph): (&Published, &Tokenizer, &Graph),
        revision: impl FnOnce() -> Result<String, String>,
        findings: &mut Vec<String>,
    ) -> Result<Manifest, String> {
        let takes_past = graph.inputs.iter().any(|input| input.name.contains("past"));
        let kind = self.kind.unwrap_or(match takes_past {
            true => ModelKind::Generate,
            false => ModelKind::Embed,
        });
        let name = self.name.or_else(|| {
            let name = std::fs::canonicalize(folder).ok()?;
            let name = name.file_name()?.to_string_lossy().into_owned();
            Some(name.replace(|c: char| c.is_whitespace() || c.is_control() || c == '@', "-"))
        });
        let revision = match self.revision {
            Some(revision) => revision,
            None => {
                let revision = revision()?;
                findings.push(format!("revision: {revision}, a digest of the weights"));
                revision
            }
        };
        let context_length = match (self.context_length, published.context_length()) {
            (Some(length), _) => length,
            (None, Some(length)) if length <= CONTEXT_MAX_DEFAULT => length,
            (None, Some(length)) => {
                findings.push(format!(
                    "context: {CONTEXT_MAX_DEFAULT} of the model's {length} tokens; set context_length for more, at the price of KV memory"
                ));
                CONTEXT_MAX_DEFAULT
            }
            (None, None) => CONTEXT_DEFAULT,
        };
        let sampling = self.sampling.unwrap_or(SamplingDefaults {
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: 256.min(context_length / 4).max(1),
        });
        if let Some(asked) = published.generation.temperature.filter(|asked| *asked > 0.0)
            && sampling.temperature == 0.0
        {
            findings.push(format!(
                "temperature: 0 for requests that name none; generation_config.json suggests {asked}, which repeats nothing"
            ));
        }
        let id = |text: &str| tokenizer.id(text);
        let known = fim::find(id);
        if let (None, Some((family, fim))) = (&self.fim, &known) {
            findings.push(format!(
                "fill in the middle: tokens of {}, order {}",
                family.name,
                fim.order.name()
            ));
        }
        let end_tokens = match self.end_tokens {
            Some(tokens) => tokens,
            None => {
                let mut tokens = published.end_tokens();
                tokens.extend(published.eos().and_then(id));
                let ends = known.as_ref().map_or(&[][..], |(family, _)| family.ends);
                tokens.extend(ends.iter().filter_map(|end| id(end)));
                let mut seen = std::collections::HashSet::new();
                tokens.retain(|token| seen.insert(*token));
                tokens
            }
        };
        let leading = match published.tokenizer.add_bos_token {
            Some(false) => Vec::new(),
            Some(true) => published.bos().and_then(id).into_iter().collect(),
            None => tokenizer.leading(),
        };
        let bos = leading.first().copied().or_else(|| published.bos().and_then(id));
        let start = bos.or_else(|| end_tokens.first().copied()).unwrap_or(0);
        let room = context_length.saturating_sub(sampling.max_tokens + leading.len() + 3);
        let fim_window = self.fim_window.unwrap_or(FimWindow {
            prefix: (room * 3 / 4).min(WINDOW_MAX_DEFAULT.prefix),
            suffix: (room / 5).min(WINDOW_MAX_DEFAULT.suffix),
        });
        let text = |token: Option<&str>| token.unwrap_or_default().to_owned();
        let manifest = Manifest {
            kind,
            name: name.unwrap_or_default(),
            revision,
            context_length,
            dimensions: self.dimensions,
            fim_window,
            end_tokens,
            leading,
            start,
            fim: self.fim.or(known.map(|(_, fim)| fim)),
            sampling,
            chat_template: self
                .chat_template
                .or_else(|| published.chat_template().map(str::to_owned)),
            bos_text: text(published.bos()),
            eos_text: text(published.eos()),
        };
        manifest.check(tokenizer.vocabulary())?;
        Ok(manifest)
    }
}

impl Manifest {
    /// What is wrong with it, for a tokenizer of `vocabulary` tokens.
    fn check(&self, vocabulary: usize) -> Result<(), String> {
        let known = |name: &str, token: u32| match (token as usize) < vocabulary {
            true => Ok(()),
            false => {
                Err(format!("{name}: there is no token {token}; the tokenizer has {vocabulary}"))
            }
        };
        for (field, name) in [("name", &self.name), ("revision", &self.revision)] {
            if !nearhop_conf::is_model_name(name) {
                return Err(format!("{field}: `{name}` is {}", nearhop_conf::NO_MODEL_NAME));
            }
        }
        if !(8..=CONTEXT_MAX).contains(&self.context_length) {
            return Err(format!("context_length: must be from 8 to {CONTEXT_MAX}"));
        }
        if self.kind == ModelKind::Embed {
            return match self.dimensions {
                Some(0) => Err("dimensions: must be at least 1".to_owned()),
                _ => Ok(()),
            };
        }
        if self.end_tokens.is_empty() {
            return Err("end_tokens: no file names a token that ends an answer; name at least one"
                .to_owned());
        }
        for token in &self.end_tokens {
            known("end_tokens", *token)?;
        }
        let mut marks = 3;
        if let Some(Fim { tokens, order }) = &self.fim {
            known("fim.tokens.prefix", tokens.prefix)?;
            known("fim.tokens.suffix", tokens.suffix)?;
            match (tokens.middle, order) {
                (Some(middle), _) => known("fim.tokens.middle", middle)?,
                (None, FimOrder::SuffixPrefix) => {}
                (None, _) => {
                    return Err("fim.tokens.middle: this order needs the middle token".to_owned());
                }
            }
            marks = order.marks();
        }
        marks += self.leading.len();
        let FimWindow { prefix, suffix } = self.fim_window;
        if prefix == 0 || prefix + suffix + marks >= self.context_length {
            return Err(format!(
                "fim_window: {prefix} + {suffix} + {marks} tokens leave no room for an answer in context_length {}",
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
            "{:?} {:?} {:?} {:?} {:?} {} {} {:?} {:?} {:?}",
            self.fim_window,
            self.fim,
            self.chat_template,
            self.end_tokens,
            self.leading,
            self.start,
            self.context_length,
            self.sampling,
            self.bos_text,
            self.eos_text,
        )
        .into_bytes()
    }
}
