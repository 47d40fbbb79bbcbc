//! The file's sections to [`Config`], every mistake on the way reported.

use std::{collections::HashSet, num::NonZeroUsize, time::Duration};

use serde_json::Value;

use super::{
    Admin, Audit, Certificate, Config, Cors, Deadlines, Edge, L1, Limits, LocalPod, Log, MutualTls,
    Origin, OriginModel, Peer, Probes, Reuse, Tls, TlsVersion, Traces, Upstream,
    whole::{
        Around, check_answers, check_certificate, check_egress, check_embedder, check_peers,
        check_roles,
    },
};
use crate::{
    Access, Affinity, Breaker, ByteSize, ConfigError, Dns, Ejection, Events, Health, Hedge, L2, L3,
    Ladder, Retries, defaults,
    dns::read_regions,
    pods,
    providers::read_providers,
    reader::{Problems, Section, expand, flatten, parse_yaml, read_secret},
    routing::read_tips,
    shape::Shapes,
    source::Env,
    units::{NO_MODEL_NAME, http_token, is_model_name},
};

impl Config {
    /// Reads a configuration from its text. `path` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError::NotYaml`], or [`ConfigError::Invalid`] with every mistake in the file; the
    /// same of the file that `access.file` names.
    pub fn read(text: &str, path: &str, env: Env<'_>) -> Result<Self, ConfigError> {
        let mut tree = parse_yaml(text, path)?;
        let problems = Problems::default();
        expand(&mut tree, "", env, &problems);
        let mut root = Section::root(tree, &problems);
        let config = Self::from_section(&mut root, env)?;
        root.finish();
        let problems = problems.into_list();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(ConfigError::Invalid { path: path.to_owned(), problems }),
        }
    }

    /// Reads `access` alone: what else the file says, or does not say yet, is no matter.
    ///
    /// # Errors
    /// As [`Config::read`], of that section.
    pub fn read_access(text: &str, path: &str, env: Env<'_>) -> Result<Access, ConfigError> {
        let mut tree = parse_yaml(text, path)?;
        if let Some(fields) = tree.as_object_mut() {
            fields.retain(|name, _| name == "access");
        }
        let problems = Problems::default();
        expand(&mut tree, "", env, &problems);
        let access = Access::from_section(Section::root(tree, &problems).section("access"), env)?;
        let problems = problems.into_list();
        match access {
            Some(access) if problems.is_empty() => Ok(access),
            _ => Err(ConfigError::Invalid { path: path.to_owned(), problems }),
        }
    }

    /// Everything that a file may have.
    pub(crate) fn shapes() -> Shapes {
        let problems = Problems::describing();
        let mut root = Section::root(Value::Null, &problems);
        // Nothing is read, so nothing can be wrong.
        let _ = Self::from_section(&mut root, &|_| None);
        root.finish();
        problems.into_shapes()
    }

    fn from_section(root: &mut Section<'_>, env: Env<'_>) -> Result<Option<Self>, ConfigError> {
        let region = root.or("region", defaults::REGION.to_owned());
        if http_token(&region).is_none() {
            root.problem("region", "is sent in a header", "Use letters, digits, `-`, `_` and `.`");
        }
        let access = Access::from_section(root.section("access"), env)?;
        let regions = read_regions(root);
        let listed = regions.as_deref().unwrap_or_default();
        let around = Around { here: &region, regions: regions.as_deref() };
        let edge = root.has("edge").then(|| Edge::from_section(root.section("edge"), around));
        let origin = root.has("origin").then(|| Origin::from_section(root.section("origin")));
        let dns = root.has("dns").then(|| Dns::from_section(root.section("dns"), listed));
        let health =
            root.has("health").then(|| Health::from_section(root.section("health"), listed));
        if edge.is_none() && origin.is_none() && dns.is_none() {
            let what = "is missing, and so are `origin` and `dns`";
            root.problem("edge", what, "Describe at least one role");
        }
        let peers = [
            ("edge.peer", edge.iter().flatten().filter_map(|edge| edge.peer.as_ref()).next()),
            ("dns.peer", dns.iter().flatten().filter_map(|dns| dns.peer.as_ref()).next()),
        ];
        if let Some(Some(health)) = &health {
            check_peers(root, health, peers);
        }
        if let Some(Some(Edge { local: Some(local), .. })) = &edge {
            check_roles(root, local, origin.as_ref().and_then(Option::as_ref));
        }
        if let Some(Some(edge @ Edge { l3: Some(l3), .. })) = &edge {
            check_embedder(root, l3, edge);
        }
        if let (Some(access), Some(Some(edge))) = (&access, &edge) {
            check_egress(root, access, edge, around);
        }
        let nobody = |access: &Access| access.keys.is_empty() && access.issuers.is_empty();
        if edge.is_some() && access.as_ref().is_some_and(nobody) {
            let fix = "Add a key: `nearhop key NAME TENANT`";
            root.problem("access", "has no key and no issuer, so nobody could ask", fix);
        }
        let log = Log::from_section(root.section("log"));
        let traces = root.has("traces").then(|| Traces::from_section(root.section("traces")));
        // A role whose required fields are missing has already been reported.
        let whole = (|| {
            let (edge, origin, dns) = (flatten(edge)?, flatten(origin)?, flatten(dns)?);
            let (access, regions, traces) = (access?, regions?, flatten(traces)?);
            let health = flatten(health)?;
            Some(Self { region, access, edge, origin, regions, health, dns, log, traces })
        })();
        Ok(whole)
    }
}

impl Log {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let log = Self {
            level: section.or("level", default.level),
            access: section.or("access", default.access),
            format: section.or("format", default.format),
        };
        section.finish();
        log
    }
}

impl Traces {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let endpoint: Option<String> = section.required("endpoint");
        if endpoint
            .as_deref()
            .is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://"))
        {
            let fix = "Write the collector's URL, such as http://127.0.0.1:4318/v1/traces";
            section.problem("endpoint", "is no http URL", fix);
        }
        let sample = section.or("sample", defaults::TRACE_SAMPLE);
        section.finish();
        Some(Self { endpoint: endpoint?, sample })
    }
}

impl Edge {
    fn from_section(mut section: Section<'_>, around: Around<'_>) -> Option<Self> {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let listen = section.required("listen");
        let tls = section.has("tls").then(|| Tls::from_section(section.section("tls")));
        let proxy_protocol = section.or("proxy_protocol", Vec::new());
        let cors = section.has("cors").then(|| Cors::from_section(section.section("cors")));
        check_certificate(&section, around);
        let peer = section.has("peer").then(|| Peer::from_section(section.section("peer")));
        let admin = Admin::from_section(section.section("admin"));
        let threads = section.or("threads", cores);
        let lame_duck = section.optional("lame_duck");
        let drain = section.or("drain", defaults::DRAIN);
        let limits = Limits::from_section(section.section("limits"));
        let deadlines = Deadlines::from_section(section.section("deadlines"));
        let upstream = Upstream::from_section(section.section("upstream"));
        let probes = Probes::from_section(section.section("probes"));
        let l1 = L1::from_section(section.section("l1"));
        let l2 = section.has("l2").then(|| L2::from_section(section.section("l2")));
        let l3 = section.has("l3").then(|| L3::from_section(section.section("l3")));
        let reuse = Reuse::from_section(section.section("reuse"));
        let local = section.has("local").then(|| LocalPod::from_section(section.section("local")));
        let pods = pods::listed(&mut section);
        let pods_from = pods::read_sources(&mut section);
        let nothing = pods.as_ref().is_some_and(Vec::is_empty);
        if nothing && pods_from.as_ref().is_some_and(Vec::is_empty) {
            check_answers(&section, around);
        }
        let resolver = section.optional("resolver");
        let regions = around.regions.unwrap_or_default();
        let providers = read_providers(&mut section, around.here, regions);
        let breaker = Breaker::from_section(section.section("breaker"));
        let ejection = Ejection::from_section(section.section("ejection"));
        let hedge = Hedge::from_section(section.section("hedge"));
        let retries = Retries::from_section(section.section("retries"));
        let affinity = Affinity::from_section(section.section("affinity"));
        let ladder = Ladder::from_section(section.section("ladder"));
        let tips = read_tips(&mut section, defaults::TIPS.map(str::to_owned).to_vec());
        let events = Events::from_section(section.section("events"));
        section.finish();
        Some(Self {
            listen: listen?,
            tls: flatten(tls)?,
            proxy_protocol,
            cors: flatten(cors)?,
            peer: flatten(peer)?,
            admin: admin?,
            threads,
            lame_duck,
            drain,
            limits,
            deadlines,
            upstream,
            probes,
            pods: pods?,
            pods_from: pods_from?,
            resolver,
            providers: providers?,
            breaker,
            ejection,
            hedge,
            retries,
            affinity,
            ladder,
            tips,
            events,
            l1,
            l2: flatten(l2)?,
            l3: flatten(l3)?,
            reuse,
            local: flatten(local)?,
        })
    }
}

fn read_models(origin: &mut Section<'_>) -> Option<Vec<OriginModel>> {
    let sections = origin.sections("models");
    if sections.is_empty() {
        origin.problem("models", "has no model, so nothing could be served", "Add `- {folder}`");
        return None;
    }
    let mut names = HashSet::new();
    let models = sections.into_iter().map(|mut section| {
        let folder = section.required("folder");
        let aliases: Vec<String> = section.optional("aliases").unwrap_or_default();
        if let Some(twice) = aliases.iter().find(|alias| !names.insert((*alias).clone())) {
            let what = format!("has `{twice}`, which another model has too");
            section.problem("aliases", what, "Give each alias to one model");
        }
        if let Some(bad) = aliases.iter().find(|alias| !is_model_name(alias)) {
            let what = format!("has `{bad}`, {NO_MODEL_NAME}");
            section.problem("aliases", what, "Write a plain name such as small");
        }
        section.finish();
        Some(OriginModel { folder: folder?, aliases })
    });
    models.collect()
}

impl Tls {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let minimum = section.or("minimum", TlsVersion::V1_2);
        let sections = section.sections("certificates");
        if sections.is_empty() {
            let fix = "Add `- {certificate: FILE, key: FILE}`";
            section.problem("certificates", "has none to show", fix);
        }
        let certificates = sections.into_iter().map(|mut section| {
            let certificate = Certificate::from_fields(&mut section);
            section.finish();
            certificate
        });
        let certificates: Option<Vec<_>> = certificates.collect();
        section.finish();
        Some(Self { certificates: certificates?, minimum })
    }
}

impl Certificate {
    fn from_fields(section: &mut Section<'_>) -> Option<Self> {
        let (certificate, key) = (section.required("certificate"), section.required("key"));
        Some(Self { certificate: certificate?, key: key? })
    }
}

impl MutualTls {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let own = Certificate::from_fields(&mut section);
        let ca = section.required("ca");
        let names: Option<Vec<String>> = section.required("names");
        let whole = |name: &String| {
            let labels = name.strip_prefix("*.").unwrap_or(name);
            labels.split('.').all(|label| http_token(label).is_some())
        };
        if names.as_ref().is_some_and(|names| names.is_empty() || !names.iter().all(whole)) {
            let fix = "Write DNS names such as edge-1.example.com or *.edges.example.com";
            section.problem("names", "are not names that a certificate could have", fix);
        }
        section.finish();
        Some(Self { own: own?, ca: ca?, names: names? })
    }
}

impl Peer {
    pub(crate) fn from_section(mut section: Section<'_>) -> Option<Self> {
        let listen = section.required("listen");
        let name = section.optional("name");
        let tls = MutualTls::from_section(section.section("tls"));
        section.finish();
        Some(Self { listen: listen?, name, tls: tls? })
    }
}

impl Cors {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let origins: Option<Vec<String>> = section.required("origins");
        let fine = |origin: &String| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            origin == "*"
                || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ']))
        };
        if origins.as_ref().is_some_and(|origins| !origins.iter().all(fine)) {
            let fix =
                "Write them as a browser does, https://ide.example.com without a path, or `*`";
            section.problem("origins", "are not all origins", fix);
        }
        let max_age = section.or("max_age", defaults::CORS_MAX_AGE);
        section.finish();
        Some(Self { origins: origins?, max_age })
    }
}

impl Admin {
    pub(crate) fn from_section(mut section: Section<'_>) -> Option<Self> {
        let listen = section.required("listen");
        let token = read_secret(&mut section, "token", "token_file");
        section.finish();
        Some(Self { listen: listen?, token })
    }
}

impl Limits {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let limits = Self {
            body: section.or("body", default.body),
            prompt: section.or("prompt", default.prompt),
            headers: section.or("headers", default.headers),
            header_count: count(&mut section, "header_count", default.header_count),
            header_read: section.or("header_read", default.header_read),
            body_read: section.or("body_read", default.body_read),
            client_write: section.or("client_write", default.client_write),
            keepalive: section.or("keepalive", default.keepalive),
            requests: count(&mut section, "requests", default.requests),
            connections: count(&mut section, "connections", default.connections),
            connections_per_address: count(
                &mut section,
                "connections_per_address",
                default.connections_per_address,
            ),
            h2_streams: count(&mut section, "h2_streams", default.h2_streams),
            h2_resets: count(&mut section, "h2_resets", default.h2_resets),
            buffered: section.or("buffered", default.buffered),
        };
        if limits.buffered < limits.body {
            section.problem("buffered", "is below `body`", "Leave room for some bodies at once");
        }
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
            tls: section
                .has("tls")
                .then(|| MutualTls::from_section(section.section("tls")))
                .flatten(),
            connect: section.or("connect", default.connect),
            first_byte: section.or("first_byte", default.first_byte),
            next_token: section.or("next_token", default.next_token),
            attempts: count(&mut section, "attempts", default.attempts),
            idle_connections: count(&mut section, "idle_connections", default.idle_connections),
            idle_timeout: section.or("idle_timeout", default.idle_timeout),
        };
        let one = |tls: &MutualTls| matches!(&tls.names[..], [name] if !name.starts_with("*."));
        if upstream.tls.as_ref().is_some_and(|tls| !one(tls)) {
            let fix =
                "Write the one name that every pod's certificate has, such as pods.example.com";
            section.problem("tls.names", "is not one name to ask pods for", fix);
        }
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
        if l1.ttl > defaults::KEPT_MAX {
            section.problem("ttl", "is over 7 days", "Purges are remembered for so long");
        }
        section.finish();
        l1
    }
}

impl Reuse {
    fn from_section(mut section: Section<'_>) -> Self {
        let rules = section.or("rules", Self::default().rules);
        let audit = Audit::from_section(section.section("audit"));
        section.finish();
        Self { rules, audit }
    }
}

impl Audit {
    fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let audit = Self {
            share: section.or("share", default.share),
            limit: section.or("limit", default.limit),
        };
        for (name, value) in [("share", audit.share), ("limit", audit.limit)] {
            if !(0.0..=1.0).contains(&value) {
                section.problem(name, "is not within 0 and 1", "0.01 is one in a hundred");
            }
        }
        section.finish();
        audit
    }
}

impl LocalPod {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let roles: Option<Vec<String>> = section.required("roles");
        if roles.as_ref().is_some_and(Vec::is_empty) {
            section.problem("roles", "is empty", "Name aliases such as [small, embed]");
        }
        let threads = section.or("threads", NonZeroUsize::MIN);
        let memory = section.or("memory", defaults::LOCAL_MEMORY);
        section.finish();
        Some(Self { roles: roles?, threads, memory })
    }
}

impl Origin {
    fn from_section(mut section: Section<'_>) -> Option<Self> {
        let listen = section.required("listen");
        let tls = section.has("tls").then(|| MutualTls::from_section(section.section("tls")));
        let admin = Admin::from_section(section.section("admin"));
        let models = read_models(&mut section);
        let slots = count(&mut section, "slots", defaults::SLOTS);
        let queue = count(&mut section, "queue", defaults::QUEUE);
        let queue_tokens = count(&mut section, "queue_tokens", defaults::QUEUE_TOKENS);
        let prefix_cache = section.or("prefix_cache", defaults::PREFIX_CACHE);
        let embed_batch = count(&mut section, "embed_batch", defaults::EMBED_BATCH);
        let prefill_chunk = count(&mut section, "prefill_chunk", defaults::PREFILL_CHUNK);
        if prefill_chunk < 16 {
            section.problem("prefill_chunk", "is under 16", "128 suits most models");
        }
        let threads = count(&mut section, "threads", defaults::ORT_THREADS);
        let require_provider = section.optional("require_provider");
        let engine_cache = section.optional("engine_cache");
        let stall_after = section.or("stall_after", defaults::STALL_AFTER);
        let drain = section.or("drain", defaults::DRAIN);
        let ort_library = section.optional("ort_library");
        section.finish();
        Some(Self {
            listen: listen?,
            tls: flatten(tls)?,
            admin: admin?,
            models: models?,
            slots,
            queue,
            queue_tokens,
            prefill_chunk,
            prefix_cache,
            embed_batch,
            threads,
            require_provider,
            engine_cache,
            stall_after,
            drain,
            ort_library,
        })
    }
}
