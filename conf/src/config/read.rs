//! The file's sections to [`Config`], every mistake on the way reported.

use std::{
    collections::HashSet, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration,
};

use serde_json::Value;

use super::{
    Admin, ApiKey, Config, Deadlines, Edge, L1, Limits, Origin, Pod, Probes, Secret, Upstream,
};
use crate::{
    ByteSize, ConfigError, defaults,
    reader::{Problems, Section, expand},
    source::Env,
};

impl Config {
    /// Reads a configuration from its text. `path` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError::NotYaml`], or [`ConfigError::Invalid`] with every mistake in the file.
    pub fn read(text: &str, path: &str, env: Env<'_>) -> Result<Self, ConfigError> {
        let mut tree: Value = serde_saphyr::from_str(text).map_err(|error| {
            ConfigError::NotYaml { path: path.to_owned(), message: error.to_string() }
        })?;
        let problems = Problems::default();
        expand(&mut tree, "", env, &problems);
        let mut root = Section::root(tree, &problems);
        let config = Self::from_section(&mut root, &problems);
        root.finish();
        let problems = problems.into_list();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::Invalid { path: path.to_owned(), problems }),
        }
    }

    fn from_section(root: &mut Section<'_>, problems: &Problems) -> Option<Self> {
        let region = root.or("region", defaults::REGION.to_owned());
        if http_token(&region).is_none() {
            root.problem("region", "is sent in a header", "Use letters, digits, `-`, `_` and `.`");
        }
        let has_edge = root.has("edge");
        let keys = read_keys(root, has_edge, problems);
        let edge = has_edge.then(|| Edge::from_section(root.section("edge")));
        let origin = root.has("origin").then(|| Origin::from_section(root.section("origin")));
        if edge.is_none() && origin.is_none() {
            root.problem("edge", "is missing, and so is `origin`", "Describe at least one role");
        }
        // A role whose required fields are missing has already been reported.
        let (edge, origin) = (flatten(edge)?, flatten(origin)?);
        Some(Self { region, keys: keys?, edge, origin })
    }
}

/// `Some(None)`: the role is in the file but could not be read.
#[expect(clippy::option_option, reason = "absent, unreadable and read are three states")]
fn flatten<T>(role: Option<Option<T>>) -> Option<Option<T>> {
    match role {
        None => Some(None),
        Some(None) => None,
        Some(Some(role)) => Some(Some(role)),
    }
}

fn http_token(text: &str) -> Option<&str> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (!text.is_empty() && text.chars().all(fine)).then_some(text)
}

fn read_keys(root: &mut Section<'_>, needed: bool, problems: &Problems) -> Option<Vec<ApiKey>> {
    let sections = root.sections("keys");
    if needed && sections.is_empty() {
        root.problem(
            "keys",
            "has no key, so nobody could ask",
            "Add one: `nearhop key NAME TENANT`",
        );
    }
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    let mut all = Some(Vec::new());
    for mut section in sections {
        let name: Option<String> = section.required("name");
        let tenant: Option<String> = section.required("tenant");
        let hash: Option<String> = section.required("sha256");
        let sha256 = hash.and_then(|hash| {
            let parsed = hex32(&hash);
            if parsed.is_none() {
                section.problem(
                    "sha256",
                    "is not 64 hexadecimal digits",
                    "Take the output of `printf %s KEY | sha256sum`",
                );
            }
            parsed
        });
        if name.as_ref().is_some_and(|name| !names.insert(name.clone())) {
            section.problem("name", "is used twice", "Give each key a name of its own");
        }
        if sha256.is_some_and(|hash| !hashes.insert(hash)) {
            section.problem("sha256", "is another key's hash", "Make a key for each name");
        }
        let path = section.path_of("tenant");
        if tenant.as_deref().is_some_and(|tenant| http_token(tenant).is_none()) {
            problems.add(&path, "is sent in a header", "Use letters, digits, `-`, `_` and `.`");
        }
        section.finish();
        match (name, tenant, sha256, all.as_mut()) {
            (Some(name), Some(tenant), Some(sha256), Some(all)) => {
                all.push(ApiKey { name, tenant, sha256 });
            }
            _ => all = None,
        }
    }
    all
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}

impl Edge {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let listen = section.required("listen");
        let admin = Admin::from_section(section.section("admin"));
        let threads = section.or("threads", cores);
        let drain = section.or("drain", defaults::DRAIN);
        let limits = Limits::from_section(section.section("limits"));
        let deadlines = Deadlines::from_section(section.section("deadlines"));
        let upstream = Upstream::from_section(section.section("upstream"));
        let probes = Probes::from_section(section.section("probes"));
        let l1 = L1::from_section(section.section("l1"));
        let pods = read_pods(&mut section);
        section.finish();
        Some(Self {
            listen: listen?,
            admin: admin?,
            threads,
            drain,
            limits,
            deadlines,
            upstream,
            probes,
            pods: pods?,
            l1,
        })
    }
}

fn read_pods(edge: &mut Section<'_>) -> Option<Vec<Pod>> {
    let sections = edge.sections("pods");
    if sections.is_empty() {
        edge.problem("pods", "has no pod, so nothing could answer", "Add `- {name, address}`");
        return None;
    }
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    let mut all = Some(Vec::new());
    for mut section in sections {
        let name: Option<String> = section.required("name");
        let address: Option<SocketAddr> = section.required("address");
        if name.as_ref().is_some_and(|name| !names.insert(name.clone())) {
            section.problem("name", "is used twice", "Give each pod a name of its own");
        }
        if address.is_some_and(|address| !addresses.insert(address)) {
            section.problem("address", "is another pod's", "List each pod once");
        }
        section.finish();
        match (name, address, all.as_mut()) {
            (Some(name), Some(address), Some(all)) => all.push(Pod { name, address }),
            _ => all = None,
        }
    }
    all
}

impl Admin {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let listen = section.required("listen");
        let token = read_secret(&mut section);
        section.finish();
        Some(Self { listen: listen?, token })
    }
}

/// `token`, or `token_file` for a secret that lies in a file.
fn read_secret(section: &mut Section<'_>) -> Option<Secret> {
    let given: Option<String> = section.optional("token");
    let file: Option<PathBuf> = section.optional("token_file");
    let text = match (given, file) {
        (Some(_), Some(_)) => {
            section.problem("token_file", "stands beside `token`", "Keep one of the two");
            return None;
        }
        (None, None) => return None,
        (Some(text), None) => text,
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => {
                let what = format!("cannot read {}: {error}", path.display());
                section.problem("token_file", what, "Check the path and its permissions");
                return None;
            }
        },
    };
    if text.len() < 16 {
        section.problem("token", "is shorter than 16 characters", "Use `openssl rand -hex 32`");
        return None;
    }
    Some(Secret(text))
}

impl Limits {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let limits = Self {
            body: section.or("body", default.body),
            prompt: section.or("prompt", default.prompt),
            headers: section.or("headers", default.headers),
            body_read: section.or("body_read", default.body_read),
            client_write: section.or("client_write", default.client_write),
            keepalive: section.or("keepalive", default.keepalive),
            requests: count(&mut section, "requests", default.requests),
        };
        if limits.body < ByteSize::kib(1) {
            section.problem("body", "is under 1KiB", "Ordinary requests are 2KiB to 1MiB");
        }
        if limits.prompt > limits.body {
            section.problem("prompt", "is over `body`", "A prompt arrives inside a body");
        }
        if limits.keepalive < Duration::from_secs(1) {
            section.problem("keepalive", "is under 1s", "It is counted in whole seconds");
        }
        section.finish();
        limits
    }
}

fn count(section: &mut Section<'_>, name: &'static str, default: usize) -> usize {
    section.optional::<NonZeroUsize>(name).map_or(default, NonZeroUsize::get)
}

impl Deadlines {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let deadlines = Self {
            inline: section.or("inline", default.inline),
            fim: section.or("fim", default.fim),
            chat: section.or("chat", default.chat),
            agent: section.or("agent", default.agent),
        };
        section.finish();
        deadlines
    }
}

impl Upstream {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let upstream = Self {
            protocol: section.or("protocol", default.protocol),
            connect: section.or("connect", default.connect),
            first_byte: section.or("first_byte", default.first_byte),
            next_token: section.or("next_token", default.next_token),
            attempts: count(&mut section, "attempts", default.attempts),
            idle_connections: count(&mut section, "idle_connections", default.idle_connections),
            idle_timeout: section.or("idle_timeout", default.idle_timeout),
        };
        section.finish();
        upstream
    }
}

impl Probes {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let probes = Self {
            interval: section.or("interval", default.interval),
            deadline: section.or("deadline", default.deadline),
            failures: count(&mut section, "failures", default.failures),
        };
        if probes.deadline >= probes.interval {
            section.problem("deadline", "is not below `interval`", "Checks would pile up");
        }
        section.finish();
        probes
    }
}

impl L1 {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let l1 =
            Self { bytes: section.or("bytes", default.bytes), ttl: section.or("ttl", default.ttl) };
        section.finish();
        l1
    }
}

impl Origin {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let listen = section.required("listen");
        let admin = Admin::from_section(section.section("admin"));
        let model = section.required("model");
        let slots = count(&mut section, "slots", defaults::SLOTS);
        let queue = count(&mut section, "queue", defaults::QUEUE);
        let prefill_chunk = count(&mut section, "prefill_chunk", defaults::PREFILL_CHUNK);
        if prefill_chunk < 16 {
            section.problem("prefill_chunk", "is under 16", "128 suits most models");
        }
        let threads = count(&mut section, "threads", defaults::ORT_THREADS);
        let stall_after = section.or("stall_after", defaults::STALL_AFTER);
        let drain = section.or("drain", defaults::DRAIN);
        let ort_library = section.optional("ort_library");
        section.finish();
        Some(Self {
            listen: listen?,
            admin: admin?,
            model: model?,
            slots,
            queue,
            prefill_chunk,
            threads,
            stall_after,
            drain,
            ort_library,
        })
    }
}
