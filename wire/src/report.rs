//! What a pod says of itself on `/readyz`: enough for an edge to route to it and to key its cache.

use serde::{Deserialize, Serialize};

/// Where a pod's serving listener takes purges of its prefix cache from edges: a POST of `{}`,
/// `{"tenant"}` or `{"model"}`.
pub const PREFIX_CACHE_PURGE_PATH: &str = "/internal/v1/prefix-cache/purge";

/// The body of a ready pod's `/readyz`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodReport {
    /// The models it serves, each at the revision that its name means.
    pub models: Vec<ModelReport>,
    /// Other revisions, which answer to `name@revision` alone.
    #[serde(default)]
    pub kept: Vec<ModelReport>,
    /// Sequences that it computes together; 0 where it does not say.
    #[serde(default)]
    pub slots: usize,
    /// Models that make vectors of texts; no completion is sent to them.
    #[serde(default)]
    pub embedders: Vec<EmbedderReport>,
}

/// One embedder on one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbedderReport {
    /// The name that requests use.
    pub name: String,
    /// The weights. Vectors of two revisions are never compared.
    pub revision: String,
    /// Other names that requests may use.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Values of a vector.
    pub dimensions: usize,
}

impl EmbedderReport {
    /// `name@revision`: what a request names that wants these weights and no others.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{}@{}", self.name, self.revision)
    }
}

/// One model on one pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The name that requests use.
    pub name: String,
    /// The weights. Two revisions never share an answer.
    pub revision: String,
    /// How prompts are laid out for it: a digest of its tokenizer, templates and window.
    pub template: String,
    /// The temperature of a request that names none.
    pub temperature: f32,
    /// Tokens of an answer whose request names no limit.
    pub max_tokens: usize,
    /// Prompt and answer together, tokens.
    pub context_length: usize,
    /// Other names that requests may use.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Whether the suffix is laid out before the prefix where there is a gap to fill: what an edge
    /// must know to see which prompts begin alike.
    #[serde(default)]
    pub suffix_first: bool,
}

impl PodReport {
    /// Whether it answers requests for `model` with that revision; `pinned` says that they name the
    /// revision, and not only the model.
    #[must_use]
    pub fn serves(&self, model: &ModelReport, pinned: bool) -> bool {
        let kept = self.kept.iter().filter(|_| pinned);
        self.models.iter().chain(kept).any(|served| {
            (&served.name, &served.revision, &served.template)
                == (&model.name, &model.revision, &model.template)
        })
    }
}

impl ModelReport {
    /// `name@revision`: an answer's `system_fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{}@{}", self.name, self.revision)
    }
}
