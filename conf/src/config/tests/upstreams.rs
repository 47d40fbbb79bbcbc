//! Where an edge's answers come from, and how what they come from is judged.

use super::*;
use crate::RequestKind;

/// `EDGE` without its pods.
fn podless() -> &'static str {
    EDGE.split_once("  pods:").unwrap().0
}

const PEER: &str =
    "  peer: {listen: '127.0.0.1:4', tls: {certificate: c, key: k, ca: a, names: [n.example]}}\n";

#[test]
fn an_edge_without_pods_has_another_source_of_answers() {
    let region = |name: &str, peers: &str| {
        format!("regions: [{{name: {name}, addresses: [192.0.2.1], peers: [{peers}]}}]\n")
    };
    let edge = podless();
    let far = region("far", "'10.0.0.1:8443'");
    let own = region("local", "'10.0.0.1:8443'");
    for (yaml, mistake) in [
        (format!("{KEY}{edge}"), "edge.pods: has no pod, so nothing could answer"),
        (format!("{KEY}{edge}  pods: []\n"), "edge.pods: has no pod"),
        (format!("{KEY}{edge}{PEER}{}", region("far", "")), "edge.pods: has no pod"),
        // Its own region's edges are as empty.
        (format!("{KEY}{edge}{PEER}{own}"), "edge.pods: has no pod"),
        (format!("{KEY}{edge}{far}"), "edge.peer.tls: is missing, and edges of the region `far`"),
        (format!("{KEY}{EDGE}{far}"), "edge.peer.tls: is missing, and edges of the region `far`"),
        (format!("{KEY}{edge}{PEER}{far}"), ""),
        (format!("{KEY}{EDGE}{own}"), ""),
        (format!("{KEY}{edge}  pods_from: [{{file: /p.yaml}}]\n"), ""),
    ] {
        let told = told(&yaml);
        assert!(told.contains(mistake) && told.is_empty() == mistake.is_empty(), "{yaml}: {told}");
    }
    // What could not be read is not said to be missing.
    let told = told(&format!("{KEY}{edge}{PEER}{}", region("far", "nobody")));
    assert!(told.contains("has 1 mistake:"), "{told}");
}

#[test]
fn peers_are_hosts_with_ports_and_each_is_of_one_region() {
    let read = |a: &str, b: &str| {
        told(&format!(
            "{KEY}{EDGE}{PEER}regions: [{{name: a, addresses: [192.0.2.1], peers: [{a}]}}, {{name: b, addresses: [192.0.2.2], peers: [{b}]}}]\n"
        ))
    };
    assert_eq!(read("'edge-1.a.example:8443', '[2001:db8::1]:8443'", "'192.0.2.2:1'"), "");
    for (a, b, mistake) in [
        ("nobody", "", "regions[0].peers: has `nobody`, which is no host:port"),
        ("'a:0'", "", "regions[0].peers: has `a:0`"),
        ("'https://a:1'", "", "regions[0].peers: has `https://a:1`"),
        ("'a:1'", "'b:1', 'a:1'", "regions[1].peers: has `a:1`, which is listed already"),
        ("'a:1', 'a:1'", "", "regions[0].peers: has `a:1`, which is listed already"),
        ("7", "", "regions[0].peers: [7] does not fit. Write a list"),
    ] {
        let told = read(a, b);
        assert!(told.contains(mistake), "{mistake}: {told}");
    }
}

#[test]
fn pods_are_learned_of_from_files_addresses_and_services() {
    let read = |sources: &str| {
        let yaml = format!("{KEY}{}  pods_from: [{sources}]\n", podless());
        let edge = Config::read(&yaml, "f", &no_env).map(|config| config.edge.unwrap());
        edge.map(|edge| edge.pods_from).map_err(|error| error.to_string())
    };
    assert_eq!(
        read("{file: /p.yaml}, {dns: 'pods.example.com:8091'}, {srv: _http._tcp.pods.example.com}"),
        Ok(vec![
            PodSource::File("/p.yaml".into()),
            PodSource::Addresses { name: "pods.example.com".into(), port: 8091 },
            PodSource::Services("_http._tcp.pods.example.com".into()),
        ])
    );
    let many = vec!["{dns: 'a:1'}"; 17].join(", ");
    for (sources, mistake) in [
        ("{}", "edge.pods_from[0].file: is not the one thing to ask for pods"),
        ("{file: /p, dns: 'a:1'}", "edge.pods_from[0].file: is not the one thing"),
        ("{dns: pods.example.com}", "edge.pods_from[0].dns: is no domain name with a port"),
        ("{dns: '192.0.2.1:8091'}", "edge.pods_from[0].dns: is no domain name with a port"),
        ("{srv: pods.example.com}", "edge.pods_from[0].srv: is no name of a service"),
        ("{dns: 'a:1'}, {dns: 'a:1'}", "edge.pods_from[1].dns: is listed twice"),
        ("{file: /p, every: 5s}", "edge.pods_from[0].every: is not a field"),
        (many.as_str(), "edge.pods_from: has 17 sources"),
    ] {
        let told = read(sources).unwrap_err();
        assert!(told.contains(mistake), "{mistake}: {told}");
    }
    let told = told(&format!("{KEY}{EDGE}  resolver: dns.example.com\n"));
    assert!(told.contains("edge.resolver: \"dns.example.com\" does not fit"), "{told}");
}

const PROVIDER: &str =
    "name: x, url: 'https://api.example.com/v1/', key: sk-0123456789, models: {small: their@small}";

fn providers(list: &str) -> Result<Vec<ExternalProvider>, String> {
    let yaml = format!(
        "region: here\n{KEY}{EDGE}  providers: [{list}]\n{}",
        "regions: [{name: there, addresses: [192.0.2.1]}]\n"
    );
    let edge = Config::read(&yaml, "f", &no_env).map(|config| config.edge.unwrap());
    edge.map(|edge| edge.providers).map_err(|error| error.to_string())
}

#[test]
fn a_provider_takes_every_default() {
    let read = providers(&format!("{{{PROVIDER}}}")).unwrap();
    let [provider] = read.as_slice() else { panic!("{read:?}") };
    assert_eq!(provider.url, "https://api.example.com/v1");
    assert_eq!(provider.key.as_ref().map(Secret::reveal), Some("sk-0123456789"));
    assert_eq!(provider.priority, 100);
    assert_eq!(provider.kinds, [RequestKind::Chat, RequestKind::Agent]);
    assert_eq!((provider.private, &provider.ca), (false, &None));
    assert_eq!(provider.connect, defaults::PROVIDER_CONNECT);
    assert_eq!(provider.first_token, defaults::PROVIDER_FIRST_TOKEN);
    assert_eq!(provider.next_token, defaults::PROVIDER_NEXT_TOKEN);
}

#[test]
fn a_provider_has_our_models_under_its_own_names() {
    let check = |models: &str, asked, expected| {
        let with = PROVIDER.replace("{small: their@small}", models);
        let read = providers(&format!("{{{with}}}")).unwrap();
        assert_eq!(read[0].model(asked), expected, "{models} {asked}");
    };
    check("{small: s}", "small", Some("s"));
    check("{small: s}", "large", None);
    check("{small: s, '*': other}", "small", Some("s"));
    check("{small: s, '*': other}", "large", Some("other"));
    check("{'*': '*'}", "large", Some("large"));
}

#[test]
fn a_provider_that_cannot_be_used_is_refused() {
    let changed = |from: &str, to: &str| {
        assert!(PROVIDER.contains(from), "{from}");
        format!("{{{}}}", PROVIDER.replace(from, to))
    };
    let with = |more: &str| format!("{{{PROVIDER}, {more}}}");
    let url = |to: &str| changed("https://api.example.com/v1/", to);
    for (list, mistake) in [
        (changed("name: x, ", ""), "providers[0].name: is missing"),
        (changed("name: x", "name: 'a b'"), "providers[0].name: is sent in a header"),
        (changed("name: x", "name: here"), "providers[0].name: is a region's"),
        (changed("name: x", "name: there"), "providers[0].name: is a region's"),
        (format!("{{{PROVIDER}}}, {{{PROVIDER}}}"), "providers[1].name: is used twice"),
        (url("api.example.com"), "providers[0].url: is no base URL"),
        (url("https://api.example.com/v1?key=1"), "providers[0].url: is no base URL"),
        (url("https://api.example.com/v1#a"), "providers[0].url: is no base URL"),
        (url("https://me:pw@api.example.com"), "providers[0].url: is no base URL"),
        (url("http://api.example.com/v1"), "providers[0].url: sends code and the key in plain"),
        (url("https://10.0.0.1/v1"), "providers[0].url: is on this machine or a private"),
        (url("https://localhost/v1"), "providers[0].url: is on this machine or a private"),
        (changed("key: sk-0123456789, ", ""), "providers[0].key: is missing"),
        (changed("sk-0123456789", "'sk 1'"), "providers[0].key: cannot be sent in a header"),
        (with("key_file: /k"), "providers[0].key_file: stands beside `key`"),
        (changed(", models: {small: their@small}", ""), "providers[0].models: is missing"),
        (changed("{small: their@small}", "{}"), "providers[0].models: is empty"),
        (changed("{small: their@small}", "{small: 'a b'}"), "models: {\"small\":\"a b\"} does not"),
        (changed("{small: their@small}", "{small@1: a}"), "providers[0].models: has `small@1`"),
        (with("kinds: []"), "providers[0].kinds: is empty"),
        (with("kinds: [embed]"), "Write a list, each item inline, fim, chat or agent"),
        (with("priority: 0"), "providers[0].priority: 0 does not fit"),
        (with("first_token: 0s"), "providers[0].first_token: \"0s\" does not fit"),
        (with("weight: 1"), "providers[0].weight: is not a field"),
    ] {
        let told = providers(&list).unwrap_err();
        assert!(told.contains(mistake) && told.contains("has 1 mistake:"), "{mistake}: {told}");
    }
    for fine in [
        "{name: x, url: 'http://10.0.0.1:8000/v1', private: true, models: {'*': '*'}}",
        "{name: x, url: 'https://llm.corp.example', private: true, models: {a: b}, kinds: [inline, fim]}",
    ] {
        providers(fine).unwrap();
    }
}

#[test]
fn what_a_provider_and_a_webhook_ask_for_is_in_no_mistake() {
    let key = "sk-0123456789";
    let long = key.repeat(400);
    for list in [
        format!("{{{}}}", PROVIDER.replace(key, &long)),
        format!("{{{}}}", PROVIDER.replace(key, &format!("[{key}]"))),
        format!("{{{}}}", PROVIDER.replace(key, &format!("'{key} '"))),
        format!("{{{}}}", PROVIDER.replace("https://api", &format!("https://{key}@api"))),
        format!("{{{}}}", PROVIDER.replace("'https://api.example.com/v1/'", &format!("[{key}]"))),
    ] {
        let told = providers(&list).unwrap_err();
        assert!(!told.contains(key), "{told}");
    }
    for events in
        [format!("webhook: 'ftp://{key}/'"), format!("webhook: 'https://a/', bearer: [{key}]")]
    {
        let told = told(&format!("{KEY}{EDGE}  events: {{{events}}}\n"));
        assert!(told.contains("edge.events.") && !told.contains(key), "{told}");
    }
    let provider = providers(&format!("{{{PROVIDER}}}")).unwrap();
    assert!(!format!("{provider:?}").contains(key), "{provider:?}");
}

#[test]
fn a_tenants_requests_go_where_the_file_knows() {
    let read = |egress: &str, regions: &str| {
        let access =
            KEY.replace("keys:", &format!("tenants: [{{name: t, egress: {{{egress}}}}}], keys:"));
        told(&format!("region: here\n{access}{EDGE}  providers: [{{{PROVIDER}}}]\n{regions}"))
    };
    let there = "regions: [{name: there, addresses: [192.0.2.1]}]\n";
    for (egress, regions, mistake) in [
        ("providers: [x]", "", ""),
        ("providers: [other]", "", "access.tenants: t has the provider other, which is not there"),
        ("regions: [here]", there, ""),
        ("regions: [here, there]", there, ""),
        ("regions: [where]", there, "access.tenants: t has the region where, which is not there"),
        // A file without regions knows of no other, and its tenants may be those of many edges.
        ("regions: [where]", "", ""),
    ] {
        let told = read(egress, regions);
        assert!(
            told.contains(mistake) && told.is_empty() == mistake.is_empty(),
            "{egress}: {told}"
        );
    }
}

#[test]
fn how_upstreams_are_judged_has_bounds() {
    for (field, mistake) in [
        ("breaker: {failures: 0}", "edge.breaker.failures: 0 does not fit"),
        ("breaker: {failures: 1001}", "edge.breaker.failures: is over 1000. 5 suits most"),
        ("breaker: {window: 500ms}", "edge.breaker.window: is not within 1s and 10m. 30s suits"),
        ("breaker: {open: 11m}", "edge.breaker.open: is not within 1s and 10m"),
        ("breaker: {rate: 5}", "edge.breaker.rate: 5 does not fit. Write a number from 0 to 1"),
        ("breaker: {half_open: 0}", "edge.breaker.half_open: 0 does not fit"),
        ("ejection: {share: 1.5}", "edge.ejection.share: 1.5 does not fit"),
        ("hedge: {enabled: 1}", "edge.hedge.enabled: 1 does not fit"),
        ("hedge: {share: -1}", "edge.hedge.share: -1 does not fit"),
        ("retries: {share: 2}", "edge.retries.share: 2 does not fit"),
        ("retries: {per_second: 0}", "edge.retries.per_second: 0 does not fit"),
        ("ladder: {hold: 2h}", "edge.ladder.hold: is not within 1s and 1h. 60s suits"),
        ("ladder: {window: 1ms}", "edge.ladder.window: is not within 1s and 10m"),
        ("ladder: {samples: 0}", "edge.ladder.samples: 0 does not fit"),
        ("affinity: {blocks: 1048577}", "edge.affinity.blocks: is over 1048576. 16384 suits"),
        ("breaker: {failures: 4294967297}", "edge.breaker.failures: is over 1000"),
        ("events: {keep: 0}", "edge.events.keep: 0 does not fit"),
        ("events: {webhook: 'http://a.example/'}", "edge.events.webhook: is not reached safely"),
        ("events: {bearer: a}", "edge.events.bearer: is for nobody"),
        ("events: {ca: a.pem}", "edge.events.ca: is for nobody"),
        (
            "tips: ['']",
            "edge.tips: [\"\"] does not fit. Write a list, each item a text of 1 to 500",
        ),
        ("breaker: {failure: 1}", "edge.breaker.failure: is not a field of this section. Did you"),
        ("breaker: {failures: 1, window: 10m, rate: 1, open: 1s}", ""),
        ("breaker: {rate: 0}", ""),
        ("ejection: {share: 0}", ""),
        ("hedge: {enabled: false}", ""),
        ("retries: {share: 0.2, per_second: 65536}", ""),
        ("events: {webhook: 'http://127.0.0.1:9/', bearer: a, ca: a.pem, keep: 1}", ""),
        ("tips: []", ""),
    ] {
        let told = told(&format!("{KEY}{EDGE}  {field}\n"));
        assert!(told.contains(mistake) && told.is_empty() == mistake.is_empty(), "{field}: {told}");
    }
}

#[test]
fn tips_are_few_and_short() {
    let read = |tips: Vec<String>| {
        let yaml = format!("{KEY}{EDGE}  tips: {}\n", serde_json::json!(tips));
        let edge = Config::read(&yaml, "f", &no_env).map(|config| config.edge.unwrap());
        edge.map(|edge| edge.tips).map_err(|error| error.to_string())
    };
    // Characters, not bytes.
    let long = "ü".repeat(500);
    assert_eq!(read(vec![long.clone(); 16]), Ok(vec![long.clone(); 16]));
    assert!(read(vec![format!("{long}.")]).unwrap_err().contains("edge.tips"));
    assert!(read(vec![long; 17]).unwrap_err().contains("edge.tips: has 17 texts"));
}
