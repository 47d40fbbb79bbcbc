//! A configuration with the file it came from: what must be watched, and what changed since.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{Config, ConfigError, reader::parse_yaml, source, source::Env};

/// A configuration that was read from a file.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    path: PathBuf,
    /// Every value as it is written, by path. Variables are not put in: they may be secrets.
    values: BTreeMap<String, String>,
    /// Files beside it whose text is part of it.
    beside: Vec<PathBuf>,
}

/// One value that is another than before; `None` where it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where: `edge.limits.requests`, `access.keys[alice].expires`.
    pub path: String,
    /// What it was.
    pub from: Option<String>,
    /// What it is.
    pub to: Option<String>,
}

/// Values that are never shown. A webhook's URL may be all that it takes to use it.
const HIDDEN: [&str; 8] = [
    "key_secret",
    "token",
    "hmac_sha256",
    "cookie_secrets",
    "secret",
    "password",
    "bearer",
    "webhook",
];

/// Whether a value is never shown. `key` is a certificate's file elsewhere, and a secret here.
fn is_hidden(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or_default();
    let name = name.split('[').next().unwrap_or_default();
    HIDDEN.contains(&name) || (name == "key" && path.starts_with("edge.providers["))
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<String>| match value {
            None => "(none)".to_owned(),
            Some(_) if is_hidden(&self.path) => "(hidden)".to_owned(),
            Some(value) => value.clone(),
        };
        write!(f, "{}: {} → {}", self.path, show(&self.from), show(&self.to))
    }
}

impl Loaded {
    /// Reads the file at `path`, or standard input where it is `-`.
    ///
    /// # Errors
    /// [`ConfigError`], with every mistake in the file.
    pub fn read(path: &Path, env: Env<'_>) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = source::read(path)?;
        let config = Config::read(&text, &name, env)?;
        let mut values = BTreeMap::new();
        flatten(&parse_yaml(&text, &name)?, "", &mut values);
        if let Some(file) = &config.access.file {
            let name = file.display().to_string();
            flatten(&parse_yaml(&source::read(file)?, &name)?, "access", &mut values);
        }
        let named = |path: &str| path.ends_with("_file") && !path.ends_with("usage_file");
        let beside = values.iter().filter(|(path, _)| named(path)).map(|(_, file)| file.into());
        let beside = beside.chain(config.access.file.clone()).collect();
        Ok(Self { config, path: path.to_owned(), values, beside })
    }

    /// Where it came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every file that it was read from; none where it came from standard input, which cannot be
    /// read again.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        match self.path == Path::new("-") {
            true => Vec::new(),
            false => {
                std::iter::once(self.path.clone()).chain(self.beside.iter().cloned()).collect()
            }
        }
    }

    /// What `new` says otherwise.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let paths = self
            .values
            .keys()
            .chain(new.values.keys().filter(|path| !self.values.contains_key(*path)));
        let change = |path: &String| {
            let (from, to) = (self.values.get(path).cloned(), new.values.get(path).cloned());
            (from != to).then(|| Change { path: path.clone(), from, to })
        };
        let mut changes: Vec<Change> = paths.filter_map(change).collect();
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }
}

/// A tree's leaves by path. Entries of a list that have a name are known by it, so that one more
/// key is one change and not a shift of all that follow.
fn flatten(value: &Value, path: &str, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(field, &below, out);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let name = ["name", "issuer"].iter().find_map(|field| item.get(field)?.as_str());
                let below = match name {
                    Some(name) => format!("{path}[{name}]"),
                    None => format!("{path}[{at}]"),
                };
                flatten(item, &below, out);
            }
        }
        Value::String(text) => {
            out.insert(path.to_owned(), text.clone());
        }
        other => {
            out.insert(path.to_owned(), other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(keys: &str, requests: usize) -> (tempfile::TempDir, Loaded) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.yaml");
        let yaml = format!(
            "access: {{key_secret: a-secret-of-16-or-more, keys: [{keys}]}}\nedge: {{listen: '127.0.0.1:1', admin: {{listen: '127.0.0.1:2'}}, limits: {{requests: {requests}}}, pods: [{{name: p, address: '127.0.0.1:3'}}]}}\n"
        );
        std::fs::write(&path, yaml).unwrap();
        let loaded = Loaded::read(&path, &|_| None).unwrap();
        (folder, loaded)
    }

    fn key(name: &str, digit: char) -> String {
        format!("{{name: {name}, tenant: t, hmac_sha256: '{}'}}", String::from(digit).repeat(64))
    }

    #[test]
    fn what_is_never_shown_is_known_by_its_path() {
        let check = |path, expected| assert_eq!(is_hidden(path), expected, "{path}");
        check("edge.providers[example].key", true);
        check("edge.tls.certificates[0].key", false);
        check("edge.events.webhook", true);
        check("edge.events.bearer", true);
        check("edge.events.bearer_file", false);
        check("edge.l2.password", true);
        check("edge.l2.secret", true);
        check("dns.cookie_secrets[0]", true);
        check("edge.limits.requests", false);
    }

    #[test]
    fn a_change_is_told_and_a_secret_is_not() {
        let (_a, old) = loaded(&key("alice", '1'), 10);
        let (_b, new) = loaded(&format!("{}, {}", key("bob", '2'), key("alice", '3')), 20);
        let told: Vec<String> = old.changes(&new).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "access.keys[alice].hmac_sha256: (hidden) → (hidden)",
                "access.keys[bob].hmac_sha256: (none) → (hidden)",
                "access.keys[bob].name: (none) → bob",
                "access.keys[bob].tenant: (none) → t",
                "edge.limits.requests: 10 → 20",
            ]
        );
        assert!(old.changes(&old).is_empty());
    }
}
