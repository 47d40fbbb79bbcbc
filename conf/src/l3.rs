//! The semantic cache of conversations.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::{
    ByteSize, Secret, defaults,
    reader::{Section, flatten, read_given, read_secret},
};

/// The semantic cache of conversations.
#[derive(Debug, Clone, PartialEq)]
pub struct L3 {
    /// The alias of the embedder, one of `edge.local.roles`.
    pub embedder: String,
    /// Where it looks, the first that fits.
    pub routes: Vec<L3Route>,
    /// Questions less alike than this are never one, 0.95 to 1.
    pub floor: f64,
    /// From here on questions are taken to be alike without evidence of their own, `floor` to 1.
    pub sure: f64,
    /// The most of its answers that may be wrong, 0.006 to 0.25.
    pub wrong: f64,
    /// Judged answers before a route may serve.
    pub judged: usize,
    /// Of what could be served, the share that is generated all the same and compared, over 0 to 1.
    pub explore: f64,
    /// Who shares answers.
    pub scope: L3Scope,
    /// All that it holds; taken from `edge.l1.bytes`.
    pub bytes: ByteSize,
    /// What one tenant may hold of it.
    pub tenant_bytes: ByteSize,
    /// Answers that one tenant may hold.
    pub tenant_entries: usize,
    /// Answers that one user may hold.
    pub user_entries: usize,
    /// Answers of one user that enter in an hour.
    pub user_writes: usize,
    /// How long an answer may be served.
    pub ttl: Duration,
    /// How long a request waits for its question's vector.
    pub patience: Duration,
    /// How answers are compared.
    pub judge: L3Judge,
    /// Where it is kept while the edge is not running.
    pub snapshot: Option<PathBuf>,
    /// Seals what leaves the process.
    pub secret: Option<Secret>,
    /// The tier of the whole region.
    pub regional: Option<L3Regional>,
}

/// Some tenants' requests for some models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L3Route {
    /// The tenant; every one where not given.
    pub tenant: Option<String>,
    /// The model's name or alias; every one where not given.
    pub model: Option<String>,
    /// What is done with them.
    pub mode: L3Mode,
}

/// What is done with a route's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L3Mode {
    /// Nothing.
    Off,
    /// What would be served is judged, and never served.
    Shadow,
    /// Answers are served as long as the route's bound holds.
    Serve,
}

/// Who shares answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L3Scope {
    /// One API key.
    Key,
    /// The keys of one user; a key that names none is alone.
    User,
    /// All of a tenant. An answer serves others than its writer when two have had it.
    Tenant,
}

/// How an answer is compared with the one that was generated.
#[derive(Debug, Clone, PartialEq)]
pub struct L3Judge {
    /// Answers as alike as this say the same, 0 to 1.
    pub similarity: f64,
    /// A model that is asked where they do not look alike; it decides.
    pub model: Option<String>,
}

/// A Qdrant cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L3Regional {
    /// Its REST API.
    pub url: String,
    /// The key that it asks for.
    pub api_key: Option<Secret>,
    /// The collection's name.
    pub collection: String,
    /// Who vouches for it (PEM); the system's authorities where not given.
    pub ca: Option<PathBuf>,
    /// How long a look-up is waited for.
    pub patience: Duration,
    /// Shards of a collection that has to be made.
    pub shards: usize,
    /// Copies of each.
    pub replicas: usize,
}

/// No look-up is worth more.
const REGIONAL_PATIENCE_MAX: Duration = Duration::from_millis(8);

fn number(section: &mut Section<'_>, name: &'static str, default: usize) -> usize {
    section.optional::<NonZeroUsize>(name).map_or(default, NonZeroUsize::get)
}

impl L3 {
    pub(crate) fn from_section(mut section: Section<'_>) -> Option<Self> {
        let embedder = section.required("embedder");
        if !section.has("routes") {
            let fix = "Write {tenant, model, mode} of each; {mode: shadow} is everybody's";
            section.problem("routes", "is missing: nothing would be looked up", fix);
        }
        let routes = section.sections("routes").into_iter().map(L3Route::from_section);
        let routes: Option<Vec<_>> = routes.collect::<Vec<_>>().into_iter().collect();
        let floor = section.or("floor", defaults::L3_FLOOR);
        if !(defaults::L3_FLOOR..=1.0).contains(&floor) {
            section.problem("floor", "is not within 0.95 and 1", "It can be raised from 0.95 only");
        }
        let sure = section.or("sure", defaults::L3_SURE.max(floor));
        if !(floor..=1.0).contains(&sure) {
            section.problem("sure", "is not within `floor` and 1", "0.97 suits most embedders");
        }
        let wrong = section.or("wrong", defaults::L3_WRONG);
        if !(0.006..=0.25).contains(&wrong) {
            let fix = "0.02 is one in fifty; less than 0.006 can never be shown";
            section.problem("wrong", "is not within 0.006 and 0.25", fix);
        }
        let judged = number(&mut section, "judged", defaults::L3_JUDGED);
        if !(20..=10_000).contains(&judged) {
            section.problem("judged", "is not within 20 and 10000", "300 bound an error of 1 %");
        }
        let explore = section.or("explore", defaults::L3_EXPLORE);
        if !(explore > 0.0 && explore <= 1.0) {
            let fix = "0.05 is one in twenty; without any, nothing would be known";
            section.problem("explore", "is not over 0 and up to 1", fix);
        }
        let scope = section.or("scope", L3Scope::User);
        let bytes = section.or("bytes", defaults::L3_BYTES);
        if bytes < ByteSize::mib(1) {
            section.problem(
                "bytes",
                "is under 1MiB",
                "Some kilobytes an answer: 152MiB is the default",
            );
        }
        let quarter = ByteSize(bytes.0 / 4);
        let tenant_bytes = section.or("tenant_bytes", quarter);
        if tenant_bytes > bytes {
            section.problem("tenant_bytes", "is over `bytes`", "A quarter of it is the default");
        }
        let tenant_entries = number(&mut section, "tenant_entries", defaults::L3_TENANT_ENTRIES);
        let user_entries = number(&mut section, "user_entries", defaults::L3_USER_ENTRIES);
        let user_writes = number(&mut section, "user_writes", defaults::L3_USER_WRITES);
        let ttl = section.or("ttl", defaults::L3_TTL);
        if ttl > defaults::KEPT_MAX {
            section.problem("ttl", "is over 7 days", "Purges are remembered for so long");
        }
        let patience = section.or("patience", defaults::L3_PATIENCE);
        if patience.is_zero() || patience > Duration::from_secs(1) {
            section.problem(
                "patience",
                "is not within 1ms and 1s",
                "30ms is little beside an answer",
            );
        }
        let judge = L3Judge::from_section(section.section("judge"));
        let snapshot: Option<PathBuf> = section.optional("snapshot");
        let secret = read_secret(&mut section, "secret", "secret_file");
        let regional = section.has("regional");
        let regional = regional.then(|| L3Regional::from_section(section.section("regional")));
        let leaves = snapshot.is_some() || regional.is_some();
        if leaves && secret.is_none() {
            let fix = "Add one with `openssl rand -hex 32`, the same on every edge of this region";
            section.problem("secret", "is missing: what leaves the process is sealed with it", fix);
        }
        section.finish();
        Some(Self {
            embedder: embedder?,
            routes: routes?,
            floor,
            sure,
            wrong,
            judged,
            explore,
            scope,
            bytes,
            tenant_bytes,
            tenant_entries,
            user_entries,
            user_writes,
            ttl,
            patience,
            judge,
            snapshot,
            secret,
            regional: flatten(regional)?,
        })
    }
}

impl L3Route {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let (tenant, model) = (section.optional("tenant"), section.optional("model"));
        // YAML reads a bare `off` as false.
        let mode = match section.peek("mode") {
            Some(Value::Bool(false)) => section.optional::<bool>("mode").map(|_| L3Mode::Off),
            _ => section.required("mode"),
        };
        section.finish();
        Some(Self { tenant, model, mode: mode? })
    }

    /// Whether it is the route of a tenant's requests for a model, which has these names.
    #[must_use]
    pub fn is_of<'a>(&self, tenant: &str, mut names: impl Iterator<Item = &'a str>) -> bool {
        self.tenant.as_deref().is_none_or(|own| own == tenant)
            && self.model.as_deref().is_none_or(|own| names.any(|name| name == own))
    }
}

impl L3Judge {
    fn from_section(mut section: Section<'_>) -> Self {
        let similarity = section.or("similarity", defaults::L3_ANSWERS);
        if !(0.0..=1.0).contains(&similarity) {
            section.problem("similarity", "is not within 0 and 1", "0.9 suits most embedders");
        }
        let model = section.optional("model");
        section.finish();
        Self { similarity, model }
    }
}

impl L3Regional {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let url: Option<String> = section.required("url");
        let plain = url.as_deref().is_some_and(|url| url.starts_with("http://"));
        let fine = plain || url.as_deref().is_some_and(|url| url.starts_with("https://"));
        if url.is_some() && !fine {
            section.problem("url", "is no URL", "Write one such as https://qdrant:6333");
        }
        let api_key = read_given(&mut section, "api_key", "api_key_file");
        let collection = section.or("collection", "nearhop".to_owned());
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !(1..=48).contains(&collection.len()) || !collection.chars().all(letters) {
            let fix = "Write letters, digits, - and _, such as nearhop";
            section.problem("collection", "is no collection's name", fix);
        }
        let ca = section.optional("ca");
        let patience = section.or("patience", REGIONAL_PATIENCE_MAX);
        if patience.is_zero() || patience > REGIONAL_PATIENCE_MAX {
            section.problem("patience", "is not within 1ms and 8ms", "8ms is what it may cost");
        }
        let shards = number(&mut section, "shards", 1);
        let replicas = number(&mut section, "replicas", 1);
        for (name, value) in [("shards", shards), ("replicas", replicas)] {
            if value > 1024 {
                section.problem(name, "is over 1024", "1 suits one node");
            }
        }
        section.finish();
        Some(Self { url: url?, api_key, collection, ca, patience, shards, replicas })
    }
}
