//! The files that models are published with beside their weights: those of `transformers`
//! (`config.json`, `generation_config.json`, `tokenizer_config.json`, `chat_template.jinja`) and of
//! onnxruntime-genai (`genai_config.json`). Only what a pod needs of them is read.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use crate::OriginError;

/// What a folder's published files say. Empty where there are none.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) config: Config,
    pub(crate) generation: Generation,
    pub(crate) genai: Option<Genai>,
    pub(crate) tokenizer: TokenizerConfig,
    /// `chat_template.jinja`.
    template: Option<String>,
    pooling: PoolingConfig,
}

/// How an embedder's vector is made of its tokens' vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    First,
}

/// sentence-transformers' `1_Pooling/config.json`.
#[derive(Debug, Default, Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
}

/// `config.json`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Config {
    pub(crate) max_position_embeddings: Option<usize>,
    pub(crate) n_positions: Option<usize>,
    eos_token_id: Option<Ids>,
}

/// `generation_config.json`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Generation {
    eos_token_id: Option<Ids>,
    pub(crate) temperature: Option<f32>,
}

/// `genai_config.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Genai {
    pub(crate) model: GenaiModel,
}

/// Its `model`.
#[derive(Debug, Deserialize)]
pub(crate) struct GenaiModel {
    #[serde(default)]
    pub(crate) context_length: Option<usize>,
    #[serde(default)]
    eos_token_id: Option<Ids>,
    pub(crate) decoder: GenaiDecoder,
}

/// Its `model.decoder`.
#[derive(Debug, Deserialize)]
pub(crate) struct GenaiDecoder {
    #[serde(default = "model_onnx")]
    pub(crate) filename: String,
    /// A model cut into several graphs.
    #[serde(default)]
    pub(crate) pipeline: Option<serde_json::Value>,
    #[serde(default)]
    pub(crate) inputs: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) outputs: BTreeMap<String, String>,
}

fn model_onnx() -> String {
    "model.onnx".to_owned()
}

/// `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct TokenizerConfig {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    chat_template: Option<Template>,
    pub(crate) add_bos_token: Option<bool>,
}

/// One id or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Object { content: String },
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Template {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl Published {
    pub(crate) fn read(folder: &Path) -> Result<Self, OriginError> {
        let template = folder.join("chat_template.jinja");
        let template = match template.is_file() {
            true => Some(
                std::fs::read_to_string(&template)
                    .map_err(|error| unreadable(&template, error.to_string()))?,
            ),
            false => None,
        };
        Ok(Self {
            config: json(&folder.join("config.json"))?.unwrap_or_default(),
            generation: json(&folder.join("generation_config.json"))?.unwrap_or_default(),
            genai: json(&folder.join("genai_config.json"))?,
            tokenizer: json(&folder.join("tokenizer_config.json"))?.unwrap_or_default(),
            template,
            pooling: json(&folder.join("1_Pooling/config.json"))?.unwrap_or_default(),
        })
    }

    pub(crate) fn pooling(&self) -> Pooling {
        match self.pooling.pooling_mode_cls_token {
            true => Pooling::First,
            false => Pooling::Mean,
        }
    }

    /// Every id that some file calls an end, in the order of how much it is to be believed.
    pub(crate) fn end_tokens(&self) -> Vec<u32> {
        let genai = self.genai.as_ref().and_then(|genai| genai.model.eos_token_id.clone());
        let said = [self.generation.eos_token_id.clone(), genai, self.config.eos_token_id.clone()];
        let mut ids = Vec::new();
        for said in said.into_iter().flatten() {
            let said = match said {
                Ids::One(id) => vec![id],
                Ids::Many(many) => many,
            };
            ids.extend(said);
        }
        ids
    }

    pub(crate) fn context_length(&self) -> Option<usize> {
        let genai = self.genai.as_ref().and_then(|genai| genai.model.context_length);
        genai.or(self.config.max_position_embeddings).or(self.config.n_positions)
    }

    /// The text of the token that begins a text, and of the one that ends it.
    pub(crate) fn bos(&self) -> Option<&str> {
        self.tokenizer.bos_token.as_ref().map(Token::text)
    }

    pub(crate) fn eos(&self) -> Option<&str> {
        self.tokenizer.eos_token.as_ref().map(Token::text)
    }

    /// The chat template; of several, the one called `default`.
    pub(crate) fn chat_template(&self) -> Option<&str> {
        if let Some(template) = &self.template {
            return Some(template);
        }
        match self.tokenizer.chat_template.as_ref()? {
            Template::One(template) => Some(template),
            Template::Named(all) => {
                let default = all.iter().find(|one| one.name == "default").or(all.first());
                default.map(|one| one.template.as_str())
            }
        }
    }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, OriginError> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read(path).map_err(|error| unreadable(path, error.to_string()))?;
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|error| unreadable(path, error.to_string()))
}

fn unreadable(path: &Path, what: String) -> OriginError {
    OriginError::ModelFile {
        path: path.to_owned(),
        what,
        fix: "Copy it from where the model came from again",
    }
}
