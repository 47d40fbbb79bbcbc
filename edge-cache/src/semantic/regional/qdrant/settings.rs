//! Where Qdrant is, how it is spoken to, and what a new collection is like.

use std::{fmt, path::PathBuf, time::Duration};

/// Everything that has to be known of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http://` or `https://`, with a path where something stands before it that wants one.
    pub url: String,
    /// Sent with every request; over plain HTTP anybody on the way reads it.
    pub api_key: Option<ApiKey>,
    /// Over TLS, the authority to trust; without one, those that the system trusts. Read once.
    pub ca: Option<PathBuf>,
    /// Letters, digits, `-` and `_`. Name the embedder's revision in it: vectors of two of them do not
    /// compare.
    pub collection: String,
    /// The embedder's.
    pub dimensions: usize,
    /// Of a new collection: what is searched in memory.
    pub quantization: Quantization,
    /// Of a new collection; without one, the server's choice: one a node.
    pub shard_number: Option<u32>,
    /// Of a new collection: copies of each point.
    pub replication_factor: u32,
    /// Of a new collection: copies that must be written before a write counts.
    pub write_consistency_factor: u32,
    /// Connections at most, and so exchanges at once.
    pub connections: usize,
    /// How long a connection is kept unused. Below the server's own limit, which is five seconds: asking
    /// on a connection that is just being closed costs a second try.
    pub idle: Duration,
    /// How long a connection is kept for the answer to a question, whoever still waits for it.
    pub settle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:6333".to_owned(),
            api_key: None,
            ca: None,
            collection: "nearhop".to_owned(),
            dimensions: 384,
            quantization: Quantization::Int8,
            shard_number: None,
            replication_factor: 2,
            // A cache: what one replica took counts, or a lost one would end all writes.
            write_consistency_factor: 1,
            connections: 64,
            idle: Duration::from_secs(4),
            settle: Duration::from_secs(2),
        }
    }
}

/// The codes in which candidates are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// A byte a dimension.
    Int8,
    /// A bit a dimension: an eighth of the memory, and more candidates that are looked at.
    Binary,
}

/// A key that no log shows.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps it.
    #[must_use]
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// Why nothing can come of these settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It must say where Qdrant is.
    #[error("{0:?} is no URL of a Qdrant: it begins with http:// or https:// and names a host")]
    Url(String),
    /// It would not be a name.
    #[error("the collection {0:?} must be 1 to 64 letters, digits, - and _")]
    Collection(String),
    /// A header cannot carry it.
    #[error("the API key has characters that no header may have")]
    ApiKey,
    /// Out of range.
    #[error("{0} must be {1} to {2}")]
    Range(&'static str, usize, usize),
    /// The TLS library refuses what it was given.
    #[error("TLS towards Qdrant: {0}")]
    Tls(#[from] openssl::error::ErrorStack),
    /// The authority's file.
    #[error("TLS towards Qdrant: cannot read authorities from {path}: {why}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What the TLS library says of it.
        why: openssl::error::ErrorStack,
    },
}

impl Settings {
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let name = &self.collection;
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fine) {
            return Err(SettingsError::Collection(name.chars().take(64).collect()));
        }
        let shards = self.shard_number.unwrap_or(1) as usize;
        let copies = self.replication_factor as usize;
        let written = self.write_consistency_factor as usize;
        let ranges = [
            ("dimensions", self.dimensions, 1, 4096),
            ("shard_number", shards, 1, 1024),
            ("replication_factor", copies, 1, 16),
            ("write_consistency_factor", written, 1, copies.max(1)),
            ("connections", self.connections, 1, 1024),
        ];
        match ranges.iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some(&(name, _, low, high)) => Err(SettingsError::Range(name, low, high)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let settings = Settings { api_key: Some(ApiKey::new("hunter2")), ..Settings::default() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn settings_that_can_never_work_are_refused() {
        fn check(change: impl FnOnce(&mut Settings), expected: &str) {
            let mut settings = Settings::default();
            change(&mut settings);
            let said = match settings.check() {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            assert_eq!(said, expected);
        }
        check(|_| {}, "");
        let named = "must be 1 to 64 letters, digits, - and _";
        check(|s| s.collection = "a/b".into(), &format!("the collection \"a/b\" {named}"));
        check(|s| s.collection = String::new(), &format!("the collection \"\" {named}"));
        check(|s| s.dimensions = 0, "dimensions must be 1 to 4096");
        check(|s| s.write_consistency_factor = 3, "write_consistency_factor must be 1 to 2");
        check(|s| s.shard_number = Some(0), "shard_number must be 1 to 1024");
        check(|s| s.connections = 0, "connections must be 1 to 1024");
    }
}
