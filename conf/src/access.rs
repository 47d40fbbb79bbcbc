//! Who may ask, and how much: plans, tenants, API keys and token issuers.
//!
//! They stand in the configuration's `access` section, and may also stand in a file of their own
//! (`access.file`) that changes more often; what is in both is one list. A control plane feeds the
//! same type.

mod read;

use std::{path::PathBuf, time::Duration};

use crate::Secret;

/// Everything that admission needs to know.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Access {
    /// The key of the keyed hash under which API keys are stored. Present where `keys` has any.
    pub key_secret: Option<Secret>,
    /// What tenants may use.
    pub plans: Vec<Plan>,
    /// Who shares a plan, a budget and a cache. Where the list is empty, every tenant that a
    /// credential names is known and without limits; else a credential of another tenant is
    /// refused.
    pub tenants: Vec<Tenant>,
    /// API keys.
    pub keys: Vec<ApiKey>,
    /// Who may sign tokens (JWT, RFC 7519).
    pub issuers: Vec<Issuer>,
    /// The database in which usage outlives this process (SQLite); in memory where not given.
    pub usage_file: Option<PathBuf>,
    /// The file that was read beside the configuration, to be watched.
    pub file: Option<PathBuf>,
}

/// What a tenant may use, all of it together, and each of its keys by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// For all of the tenant's keys together.
    pub tenant: Rates,
    /// For each of its keys, or each subject of its tokens.
    pub key: Rates,
    /// Prompt and completion tokens in a calendar month (UTC), all keys together.
    pub tokens_per_month: Option<u64>,
}

/// Limits; `None` is without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Requests a minute; as many may come at once.
    pub requests_per_minute: Option<u64>,
    /// Prompt and completion tokens a minute; as many may come at once.
    pub tokens_per_minute: Option<u64>,
    /// Requests in progress at once.
    pub concurrent: Option<usize>,
}

/// A tenant: the boundary of limits, caches and egress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name; leads every cache key.
    pub name: String,
    /// The name of its plan; without limits where not given.
    pub plan: Option<String>,
    /// Where its requests may go.
    pub egress: Egress,
}

/// Where a tenant's requests may go: nowhere that is not named here, and a region that is asked
/// looks into its own file again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Egress {
    /// Regions that may see its requests; `None` is every region of the configuration.
    pub regions: Option<Vec<String>>,
    /// External providers that may see its requests.
    pub providers: Vec<String>,
}

/// What a credential may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Code: inline and fill-in-the-middle completions.
    Completions,
    /// Conversations.
    Chat,
}

impl Scope {
    /// Every scope; what a credential has that names none.
    pub const ALL: [Self; 2] = [Self::Completions, Self::Chat];

    /// Its name in the configuration; in a token's `scope` claim it follows `nearhop:`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Chat => "chat",
        }
    }
}

/// An API key: kept only as its keyed hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The operator's name for it; shown in admin and logs instead of the key.
    pub name: String,
    /// Whose it is.
    pub tenant: String,
    /// Who uses it, where it is one person's.
    pub user: Option<String>,
    /// What it may ask for.
    pub scopes: Vec<Scope>,
    /// Unix seconds from which on it is refused.
    pub expires: Option<u64>,
    /// HMAC-SHA-256 (RFC 2104) of the key as the client sends it, under `key_secret`.
    pub hmac_sha256: [u8; 32],
}

/// A signature algorithm (RFC 7518, section 3.1; RFC 8037). Only asymmetric ones: an issuer's
/// public key must never be usable as a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Its name in a token's header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// Who signs tokens, and how to read theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// The `iss` claim, exactly.
    pub issuer: String,
    /// The `aud` claim that must be there.
    pub audience: String,
    /// Where its public keys are (JWKS, RFC 7517): an `https` URL, or `http` on loopback.
    pub jwks_url: String,
    /// Algorithms that are taken; a token's own word is never enough.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// The claim that names the user.
    pub user_claim: String,
    /// How often the keys are fetched again.
    pub refresh: Duration,
    /// How long fetched keys are trusted while the URL cannot be reached.
    pub stale: Duration,
    /// Certificate authorities (PEM) that vouch for the URL; the system's where not given.
    pub ca: Option<PathBuf>,
}
