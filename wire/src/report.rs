//! What a pod says of itself on `/readyz`: enough for an edge to route to it and to key its cache.

use serde::{Deserialize, Serialize};

/// The body of a ready pod's `/readyz`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PodReport {
    /// The models it serves.
    pub models: Vec<ModelReport>,
    /// Sequences that it computes together; 0 where it does not say.
    #[serde(default)]
    pub slots: usize,
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
}

impl ModelReport {
    /// `name@revision`: an answer's `system_fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{}@{}", self.name, self.revision)
    }
}
