//! The shared completion cache: Redis Cluster.

use std::{path::PathBuf, time::Duration};

use crate::{
    Secret, defaults,
    reader::{Section, read_given, read_secret},
};

/// The shared completion cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L2 {
    /// Host and port of some of its nodes; the others are learned from them.
    pub nodes: Vec<(String, u16)>,
    /// The ACL user; the servers' default user where not given.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// TLS towards the servers.
    pub tls: Option<L2Tls>,
    /// What seals the tenants' keys. All edges of a cluster have the same.
    pub secret: Secret,
    /// Leads every key.
    pub prefix: String,
    /// How long Redis keeps an answer; longer than it is fresh, for when nothing else answers.
    pub keep: Duration,
    /// After that long without an answer a pod is asked as well.
    pub start_after: Duration,
    /// After that long an answer is not waited for any more.
    pub patience: Duration,
    /// Whether the edges of a cluster count token and request limits together.
    pub share_limits: bool,
}

/// TLS towards Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct L2Tls {
    /// Who signs the servers' certificates (PEM); the system's authorities where not given.
    pub ca: Option<PathBuf>,
}

impl L2 {
    pub(crate) fn from_section(mut section: Section<'_>) -> Option<Self> {
        let nodes: Option<Vec<String>> = section.required("nodes");
        let nodes = nodes.and_then(|nodes| {
            let read: Option<Vec<_>> = nodes.iter().map(|node| read_node(node)).collect();
            if nodes.is_empty() || read.is_none() {
                let fix =
                    "Write host:port of some of its nodes, such as [redis-1:6379, redis-2:6379]";
                section.problem("nodes", "are not all host:port", fix);
                return None;
            }
            read
        });
        let username = section.optional("username");
        let password = read_given(&mut section, "password", "password_file");
        let tls = section.has("tls").then(|| L2Tls::from_section(section.section("tls")));
        let secret = read_secret(&mut section, "secret", "secret_file");
        if secret.is_none() && !section.has("secret") && !section.has("secret_file") {
            let fix = "Add one with `openssl rand -hex 32`, the same on every edge of this cluster";
            section.problem("secret", "is missing: what is stored is sealed with it", fix);
        }
        let prefix = section.or("prefix", "nearhop".to_owned());
        let fine = |c: char| !c.is_whitespace() && !"{}*?[]\\".contains(c);
        if !(1..=64).contains(&prefix.len()) || !prefix.chars().all(fine) {
            section.problem("prefix", "is no key prefix", "Write a word such as nearhop");
        }
        let keep = section.or("keep", Duration::from_secs(24 * 3600));
        if keep > defaults::KEPT_MAX {
            section.problem("keep", "is over 7 days", "Purges are remembered for so long");
        }
        let start_after = section.or("start_after", Duration::from_millis(5));
        let patience = section.or("patience", Duration::from_millis(50));
        if start_after > patience {
            section.problem("start_after", "is over `patience`", "5ms and 50ms suit one region");
        }
        let share_limits = section.or("share_limits", false);
        section.finish();
        Some(Self {
            nodes: nodes?,
            username,
            password,
            tls,
            secret: secret?,
            prefix,
            keep,
            start_after,
            patience,
            share_limits,
        })
    }
}

fn read_node(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    (!host.is_empty()).then_some((host.to_owned(), port.parse().ok().filter(|port| *port > 0)?))
}

impl L2Tls {
    fn from_section(mut section: Section<'_>) -> Self {
        let ca = section.optional("ca");
        section.finish();
        Self { ca }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_hosts_with_ports() {
        let check = |text, expected: Option<(&str, u16)>| {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(read_node(text), expected, "{text}");
        };
        check("redis-1:6379", Some(("redis-1", 6379)));
        check("[::1]:6379", Some(("::1", 6379)));
        check("redis-1", None);
        check("redis-1:0", None);
        check(":6379", None);
    }
}
