//! Whose request it is.

use std::sync::Arc;

use nearhop_conf::{Egress, Plan, Scope};

/// Who asks, as a credential proved it. The tenant comes from here and from nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key's name; for a token its issuer's host and its subject. Never the credential.
    pub key: String,
    /// The same for metrics, of which there may only be so many: a token's is its issuer's host.
    pub label: String,
    /// Whose it is.
    pub tenant: String,
    /// Who uses it, where that is known.
    pub user: Option<String>,
    /// What it may ask for.
    pub scopes: Vec<Scope>,
    /// What its tenant may use.
    pub plan: Arc<Plan>,
    /// Where its requests may go.
    pub egress: Arc<Egress>,
}
