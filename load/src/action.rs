//! tmp
use serde::{Deserialize, Serialize};
/// tmp
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// tmp
    KillLlmNodes {
        /// tmp
        count: u64,
        /// tmp
        region: Option<String>,
    },
    /// tmp
    Undo,
}
