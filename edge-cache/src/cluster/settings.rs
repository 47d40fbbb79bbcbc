//! What a cluster needs to be told, and the words for what can go wrong.

use std::{fmt, path::PathBuf, time::Duration};

/// Where the cluster is and how it is spoken to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Host and port of some nodes; the others are learned from them.
    pub nodes: Vec<(String, u16)>,
    /// The ACL user; without one, the servers' default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Password>,
    /// Speak TLS. The certificates must bear the address that a node has in `CLUSTER NODES`, or the name
    /// that it announces there.
    pub tls: Option<Tls>,
    /// Leads every key and channel; no braces, which would move the hash tag.
    pub prefix: String,
    /// How long a call may take: redirects included, connecting excluded, since no call waits for that.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            nodes: vec![],
            username: None,
            password: None,
            tls: None,
            prefix: "nearhop".to_owned(),
            patience: Duration::from_millis(50),
        }
    }
}

/// TLS towards the servers.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The authority to trust; without one, those that the system trusts. Read once.
    pub ca: Option<PathBuf>,
}

/// A password that no log shows.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Wraps it.
    #[must_use]
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Why there can be no cluster with these settings. That Redis is away is not among the reasons.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No node to begin with.
    #[error("name at least one node of the Redis Cluster")]
    NoNodes,
    /// Keys would be malformed.
    #[error("the key prefix {0:?} must be 1 to 64 characters, without spaces and braces")]
    Prefix(String),
    /// The TLS library refuses what it was given.
    #[error("TLS towards Redis: {0}")]
    Tls(#[from] openssl::error::ErrorStack),
    /// The authority's file.
    #[error("TLS towards Redis: cannot read authorities from {path}: {why}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the TLS library says of it.
        why: openssl::error::ErrorStack,
    },
    /// Connections need a runtime to live in.
    #[error("make the cluster inside a tokio runtime")]
    NoRuntime,
}

/// Why a call has no answer. Nothing depends on Redis, so there is one thing to do about each: go on
/// without. [`name`](Self::name) is for the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The shard failed lately; its socket was not touched.
    Open,
    /// No answer in time. A write may still happen.
    Late,
    /// Too many calls wait for this node already.
    Busy,
    /// No connection to the shard's master, or none is known. Never more than a line.
    Away(String),
    /// The server, or the connection, says no. Never more than a line.
    Failed(String),
}

impl Trouble {
    /// One word, of a closed set.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Late => "late",
            Self::Busy => "busy",
            Self::Away(_) => "away",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("the shard's breaker is open"),
            Self::Late => f.write_str("no answer in time"),
            Self::Busy => f.write_str("too many calls wait for this node"),
            Self::Away(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Trouble {}

/// A reason of bounded length: servers write what they like.
pub(crate) fn bounded(reason: impl fmt::Display) -> String {
    let reason = reason.to_string();
    reason.chars().take(200).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_printed() {
        let settings = Settings { password: Some(Password::new("hunter2")), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn reasons_are_one_short_line() {
        let reason = bounded("a\nb".repeat(400));
        assert!(reason.chars().count() == 200 && !reason.contains('\n'));
    }
}
