mod semantic;
mod upstreams;

use expect_test::{Expect, expect};

use super::*;
use crate::{ConfigError, DEFAULT_YAML, defaults};

fn no_env(_: &str) -> Option<String> {
    None
}

fn check(yaml: &str, expected: &Expect) {
    let error = Config::read(yaml, "edge.yaml", &no_env).unwrap_err();
    expected.assert_eq(&error.to_string());
}

const KEY: &str = "access: {key_secret: 0123456789abcdefg, keys: [{name: a, tenant: t, hmac_sha256: '0000000000000000000000000000000000000000000000000000000000000001'}]}\n";
const EDGE: &str = "edge:\n  listen: 127.0.0.1:1\n  admin: {listen: '127.0.0.1:2'}\n  pods: [{name: p, address: '127.0.0.1:3'}]\n";

#[test]
fn the_default_file_is_the_defaults() {
    let config = Config::read(DEFAULT_YAML, "default", &no_env).unwrap();
    let edge = config.edge.unwrap();
    assert_eq!(edge.limits, Limits::default());
    assert_eq!(edge.deadlines, Deadlines::default());
    assert_eq!(edge.upstream, Upstream::default());
    assert_eq!(edge.probes, Probes::default());
    assert_eq!(edge.l1, L1::default());
    assert_eq!(edge.drain, defaults::DRAIN);
    assert_eq!(edge.breaker, Breaker::default());
    assert_eq!(edge.ejection, Ejection::default());
    assert_eq!(edge.hedge, Hedge::default());
    assert_eq!(edge.retries, Retries::default());
    assert_eq!(edge.affinity, Affinity::default());
    assert_eq!(edge.ladder, Ladder::default());
    assert_eq!(edge.events, Events::default());
    assert_eq!(edge.tips, defaults::TIPS);
    assert!(edge.pods_from.is_empty() && edge.providers.is_empty());
    assert_eq!(config.log, Log::default());
    assert_eq!(config.access.tenants[0].plan.as_deref(), Some("team"));
    let origin = config.origin.unwrap();
    assert_eq!((origin.slots, origin.queue), (defaults::SLOTS, defaults::QUEUE));
    assert_eq!(origin.prefill_chunk, defaults::PREFILL_CHUNK);
    assert_eq!(origin.queue_tokens, defaults::QUEUE_TOKENS);
    assert_eq!(origin.prefix_cache, defaults::PREFIX_CACHE);
    assert_eq!(origin.embed_batch, defaults::EMBED_BATCH);
    assert_eq!(origin.stall_after, defaults::STALL_AFTER);
}

#[test]
fn the_edges_own_pod_takes_its_models_from_the_file() {
    let local = "  local: {roles: [small, embed]}\n";
    let origin = "origin:\n  listen: 127.0.0.1:4\n  admin: {listen: '127.0.0.1:5'}\n  models: [{folder: /a, aliases: [small, x]}, {folder: /b, aliases: [embed]}, {folder: /c}]\n";
    let config = Config::read(&format!("{KEY}{EDGE}{local}{origin}"), "f", &no_env).unwrap();
    let own = config.edge.unwrap().local.unwrap();
    assert_eq!((own.threads.get(), own.memory), (1, defaults::LOCAL_MEMORY));
    let origin_of = config.origin.unwrap();
    let pod = origin_of.for_roles(&own.roles).unwrap();
    let folders: Vec<_> = pod.models.iter().map(|model| model.folder.to_str().unwrap()).collect();
    assert_eq!(folders, ["/a", "/b"]);
    assert!(pod.listen.ip().is_loopback() && pod.listen.port() == 0 && pod.tls.is_none());
    check(
        &format!("{KEY}{EDGE}{local}"),
        &expect![[r#"
        edge.yaml has 1 mistake:
          edge.local: needs the models of an `origin` section. Add an `origin` section with `models`, each with its role as an alias"#]],
    );
    let other = "  local: {roles: [small, smaller]}\n";
    check(
        &format!("{KEY}{EDGE}{other}{origin}"),
        &expect![[r#"
        edge.yaml has 1 mistake:
          edge.local.roles: no model has the alias `smaller`; origin.models[].aliases has small, x, embed. Give that alias to a model"#]],
    );
    check(
        &format!("{KEY}{EDGE}  local: {{roles: []}}\n{origin}"),
        &expect![[r#"
        edge.yaml has 1 mistake:
          edge.local.roles: is empty. Name aliases such as [small, embed]"#]],
    );
}

#[test]
fn a_short_file_takes_every_default() {
    let config = Config::read(&format!("{KEY}{EDGE}"), "short", &no_env).unwrap();
    let edge = config.edge.unwrap();
    assert_eq!(edge.limits, Limits::default());
    assert_eq!(config.region, "local");
}

#[test]
fn every_mistake_is_reported_at_once() {
    check(
        "region: eu west\naccess: {keys: [{name: a, hmac_sha256: 12}]}\nedge:\n  listen: localhost\n  limit: {body: 1MB}\n  limits: {body: 1MB, requests: 0}\n  probes: {interval: 1s, deadline: 2s}\n  pods: [{name: a, address: '127.0.0.1:1'}, {name: a, address: '127.0.0.1:1', weight: 2}]\n",
        &expect![[r#"
            edge.yaml has 12 mistakes:
              region: is sent in a header. Use letters, digits, `-`, `_` and `.`
              access.keys[0].tenant: is missing. Add it: text of 1 to 256 characters, in quotes where it looks like a number
              access.keys[0].hmac_sha256: 12 does not fit. Write text of 1 to 256 characters, in quotes where it looks like a number
              edge.listen: "localhost" does not fit. Write an IP address and a port such as 127.0.0.1:8080 or [::1]:8080
              edge.admin.listen: is missing. Add it: an IP address and a port such as 127.0.0.1:8080 or [::1]:8080
              edge.limits.body: "1MB" does not fit. Write a size such as 64KiB or 256MiB
              edge.limits.requests: 0 does not fit. Write a whole number from 1 to 65536
              edge.probes.deadline: is not below `interval`. Checks would pile up
              edge.pods[1].name: is used twice. Give each pod a name of its own
              edge.pods[1].address: is another pod's. List each pod once
              edge.pods[1].weight: is not a field of this section. Known here: name, address
              edge.limit: is not a field of this section. Did you mean `limits`?"#]],
    );
}

#[test]
fn a_zone_is_signed_by_one_to_four_keys() {
    let regions = "regions: [{name: a, addresses: [192.0.2.1]}]\n";
    let dns = "dns:\n  listen: ['127.0.0.1:0']\n  admin: {listen: '127.0.0.1:0'}\n  zone: a.example\n  name_servers: [ns.example]\n";
    let read = |dnssec: &str| {
        let text = format!("{regions}{dns}{dnssec}");
        Config::read(&text, "dns.yaml", &no_env).map(|config| config.dns.unwrap().dnssec)
    };
    assert_eq!(read("").unwrap(), None);
    let signed = read("  dnssec: {keys: [/k]}\n").unwrap().unwrap();
    assert_eq!((signed.keys.len(), signed.denials), (1, defaults::DNS_DENIALS));
    for (dnssec, mistake) in [
        ("{}", "dns.dnssec.keys: is missing"),
        ("{keys: []}", "dns.dnssec.keys: has 0 files"),
        ("{keys: [/1, /2, /3, /4, /5]}", "dns.dnssec.keys: has 5 files"),
        ("{keys: [/k], denials: 0}", "dns.dnssec.denials: 0 does not fit"),
        ("{key: /k}", "dns.dnssec.key: is not a field"),
    ] {
        let error = read(&format!("  dnssec: {dnssec}\n")).unwrap_err().to_string();
        assert!(error.contains(mistake), "{error}");
    }
}

#[test]
fn a_file_without_a_role_is_refused() {
    check(
        "region: eu\n",
        &expect![[r#"
            edge.yaml has 1 mistake:
              edge: is missing, and so are `origin` and `dns`. Describe at least one role"#]],
    );
}

#[test]
fn a_duplicate_field_is_refused_with_its_line() {
    let error = Config::read("region: eu\nregion: us\n", "x", &no_env).unwrap_err();
    assert!(matches!(error, ConfigError::NotYaml { .. }), "{error}");
    assert!(error.to_string().contains("region"), "{error}");
}

#[test]
fn environment_variables_are_put_in() {
    let env = |name: &str| (name == "TOKEN").then(|| "0123456789abcdef".to_owned());
    let yaml =
        format!("{KEY}{}", EDGE.replace("'127.0.0.1:2'}", "'127.0.0.1:2', token: '${TOKEN}'}"));
    let config = Config::read(&yaml, "x", &env).unwrap();
    let token = config.edge.unwrap().admin.token.unwrap();
    assert_eq!(token.reveal(), "0123456789abcdef");
    assert_eq!(format!("{token:?}"), "Secret(…)");
    check(
        &yaml,
        &expect![[r#"
            edge.yaml has 1 mistake:
              edge.admin.token: the environment variable TOKEN is not set. Set TOKEN, or write the value here"#]],
    );
}

#[test]
fn a_secret_may_lie_in_a_file() {
    let yaml = format!(
        "{KEY}{}",
        EDGE.replace("'127.0.0.1:2'}", "'127.0.0.1:2', token_file: /does/not/exist}")
    );
    check(
        &yaml,
        &expect![[r#"
        edge.yaml has 1 mistake:
          edge.admin.token_file: cannot read /does/not/exist: No such file or directory (os error 2). Check the path and its permissions"#]],
    );
}

#[test]
fn a_secret_is_in_no_mistake() {
    let key = "sk-0123456789";
    for yaml in [
        format!("key: {key}\nkey: {key}\n"),
        format!("a: {{key: {key}\n"),
        format!("access: {{key_secret: [{key}]}}\n{EDGE}"),
        format!("access: {{key_secret: {}}}\n{EDGE}", key.repeat(400)),
        format!(
            "regions: [{{name: a, addresses: [192.0.2.1]}}]\ndns: {{cookie_secrets: ['{key}']}}\n"
        ),
    ] {
        let told = Config::read(&yaml, "f", &no_env).unwrap_err().to_string();
        assert!(!told.contains(key), "{told}");
    }
}

#[test]
fn every_example_is_valid() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let env = |name: &str| match name.ends_with("SHA256") {
        // Each its own.
        true => Some(name.bytes().cycle().take(32).map(|byte| format!("{byte:02x}")).collect()),
        false => Some(format!("value-of-{name}-0123456789")),
    };
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if let Err(error) = Config::read(&text, &path.display().to_string(), &env) {
            panic!("{error}");
        }
        seen += 1;
    }
    assert!(seen > 0, "conf/examples is empty");
}

#[test]
fn access_is_one_list_from_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.yaml");
    let hash = "02".repeat(32);
    let keys = format!(
        "keys: [{{name: b, tenant: t, scopes: [chat], expires: '2027-01-31T00:00:00Z', hmac_sha256: '{hash}'}}]\n"
    );
    std::fs::write(&file, &keys).unwrap();
    let yaml = format!(
        "{}{EDGE}",
        KEY.replace("access: {", &format!("access: {{file: '{}', ", file.display()))
    );
    let access = Config::read(&yaml, "x", &no_env).unwrap().access;
    let names: Vec<&str> = access.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(access.keys[1].expires, Some(1_801_353_600));
    assert_eq!(access.keys[1].scopes, [crate::Scope::Chat]);
    std::fs::write(&file, "keys: [{name: a}]\n").unwrap();
    let error = Config::read(&yaml, "x", &no_env).unwrap_err().to_string();
    assert!(error.contains("access.yaml has 2 mistakes"), "{error}");
}

/// What is said of a file; nothing where it is fine.
fn told(yaml: &str) -> String {
    Config::read(yaml, "f", &no_env).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn what_no_entry_can_know_is_judged_over_all() {
    check(
        &format!(
            "access: {{plans: [{{name: p}}, {{name: p}}], tenants: [{{name: t, plan: q}}], keys: [{{name: a, tenant: u, hmac_sha256: '{}'}}]}}\n{EDGE}",
            "01".repeat(32)
        ),
        &expect![[r#"
            edge.yaml has 4 mistakes:
              access.plans: has p twice. Keep one plan of a name
              access.tenants: t has the plan q, which is not there. Add it to `plans`, or name another
              access.keys: a belongs to u, which is not there. Add the tenant to `tenants`
              access.key_secret: is missing, and keys are stored under it. Add it, 32 random bytes such as `openssl rand -hex 32` gives, or `key_secret_file`"#]],
    );
}

#[test]
fn how_regions_are_watched_is_judged_as_a_whole() {
    let read = |regions: &str, health: &str, name: &str| {
        let text = format!(
            "regions: [{regions}]\nhealth: {{{health}}}\ndns:\n  listen: ['127.0.0.1:0']\n  admin: {{listen: '127.0.0.1:0'}}\n  zone: a.example\n  name_servers: [ns.example]\n  peer: {{listen: '127.0.0.1:0', name: {name}, tls: {{certificate: c, key: k, ca: a, names: [n.example]}}}}\n"
        );
        Config::read(&text, "dns.yaml", &no_env).map_err(|error| error.to_string())
    };
    let region = "{name: r, addresses: [192.0.2.1], health: 'https://192.0.2.1/health'}";
    let point = |name: &str| format!("{{name: {name}, url: 'https://[2001:db8::1]:8443'}}");
    let three = format!("vantage_points: [{}, {}, {}]", point("a"), point("b"), point("c"));
    let health = read(region, &three, "a").unwrap().health.unwrap();
    assert_eq!((health.fall, health.vantage_points.len()), (3, 3));
    let two = format!("vantage_points: [{}, {}]", point("a"), point("b"));
    for (regions, health, name, mistake) in [
        (region, two.clone(), "a", "need a third vantage point"),
        (region, format!("{three}, fresh: 10s"), "a", "health.fresh: is over before"),
        (region, format!("{three}, fall: 0"), "a", "health.fall: is 0"),
        (region, format!("{three}, host: 'a b'"), "a", "health.host: is no domain name"),
        (region, format!("{three}, witnesses: [nobody]"), "a", "health.witnesses: has `nobody`"),
        (region, format!("{three}, spill: {{stop: 0.9}}"), "a", "health.spill.stop: is not below"),
        (region, three.clone(), "d", "dns.peer: has the name `d`"),
        ("{name: r, addresses: [192.0.2.1]}", three.clone(), "a", "of the region `r`"),
    ] {
        let error = read(regions, &health, name).unwrap_err();
        assert!(error.contains(mistake), "{mistake}: {error}");
    }
    for url in [
        "https://",
        "https://:443/h",
        "https://a:0/",
        "https://a:99999/",
        "https://[::1/h",
        "https://u@a/",
        "ftp://a/",
        "https://a b/",
        "/health",
    ] {
        let regions = format!("{{name: r, addresses: [192.0.2.1], health: '{url}'}}");
        let error = read(&regions, &three, "a").unwrap_err();
        assert!(error.contains("regions[0].health: is no http URL"), "{url}: {error}");
    }
    for url in [
        "http://a",
        "https://a.example:8443/x?y=z",
        "https://[2001:db8::1]/health",
        "http://192.0.2.1:80/",
    ] {
        let regions = format!("{{name: r, addresses: [192.0.2.1], health: '{url}'}}");
        assert!(read(&regions, &three, "a").is_ok(), "{url}");
    }
}

#[test]
fn keys_for_tokens_are_fetched_safely() {
    check(
        &format!(
            "access: {{issuers: [{{issuer: i, audience: a, jwks_url: 'http://example.com/keys'}}]}}\n{EDGE}"
        ),
        &expect![[r#"
            edge.yaml has 1 mistake:
              access.issuers[0].jwks_url: is not fetched safely. Use an https URL: who can change the keys can sign for anybody"#]],
    );
}
