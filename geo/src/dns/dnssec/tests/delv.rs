//! A real validator against a real server: `delv`, with a trust anchor of our own.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use nearhop_conf::Loaded;

use crate::dns::{Server, ZoneKey};

const CONFIG: &str = r#"
regions: [{name: one, addresses: [192.0.2.10, 192.0.2.11, "2001:db8:1::10"]}]
dns:
  listen: ["127.0.0.1:0"]
  admin: {listen: "127.0.0.1:0"}
  zone: Complete.example.com
  name_servers: [NS1.example.com, ns2.example.com]
  services: ["@", api.v1]
  rate_limit: {answers: 65536, nothing: 65536}
"#;

/// Whether `delv` is here; a loud skip where it is not.
fn delv_is_here() -> bool {
    if Command::new("delv").arg("-v").output().is_ok() {
        return true;
    }
    let required = nearhop_conf::source::process_env("NEARHOP_REQUIRE_CLIENTS").is_some();
    assert!(!required, "delv is missing: `make setup`");
    let text =
        "SKIPPED: delv is not here, DNSSEC was NOT tested by a real validator: `make setup`\n";
    // Past the test's capture of output, which would hide it.
    let _ = std::io::stderr().write_all(text.as_bytes());
    false
}

fn make_key(folder: &Path, name: &str) -> (PathBuf, ZoneKey) {
    let (path, text) = (folder.join(name), ZoneKey::generate().unwrap());
    std::fs::write(&path, &text).unwrap();
    (path, ZoneKey::from_pem(text.as_bytes()).unwrap())
}

/// Runs a server whose zone these keys sign while `asks` asks it.
fn with_server(keys: &[PathBuf], asks: impl FnOnce(SocketAddr)) {
    let mut text = format!("{CONFIG}  dnssec:\n    keys:\n");
    for key in keys {
        writeln!(text, "      - {}", key.display()).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dns.yaml");
    std::fs::write(&file, &text).unwrap();
    let loaded = Loaded::read(&file, &|_| None).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = Server::new(loaded).unwrap();
    let address = server.ready().listen[0];
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = runtime.spawn(server.run(async {
        let _ = stopped.await;
    }));
    asks(address);
    drop(stop);
    runtime.block_on(running).unwrap().unwrap();
}

/// What `delv` says, which trusts `key` alone.
fn delv(server: SocketAddr, anchor: &Path, name: &str, asked: &str) -> String {
    let output = Command::new("delv")
        .args([format!("@{}", server.ip()), "-p".to_owned(), server.port().to_string()])
        .args(["-a".as_ref(), anchor.as_os_str()])
        .args(["+root=complete.example.com", name, asked])
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The same by what the parent has.
fn anchor_by_digest(folder: &Path, key: &ZoneKey) -> PathBuf {
    let line = key.ds("complete.example.com").unwrap();
    let (start, digest) = line.rsplit_once(' ').unwrap();
    let start = start.replace("IN DS", "static-ds");
    let path = folder.join(format!("digest-{}", key.tag()));
    std::fs::write(&path, format!("trust-anchors {{ {start} \"{digest}\"; }};\n")).unwrap();
    path
}

fn anchor(folder: &Path, key: &ZoneKey) -> PathBuf {
    let line = key.dnskey("complete.example.com").unwrap();
    let (start, public) = line.rsplit_once(' ').unwrap();
    let start = start.replace("IN DNSKEY", "static-key");
    let path = folder.join(format!("anchor-{}", key.tag()));
    std::fs::write(&path, format!("trust-anchors {{ {start} \"{public}\"; }};\n")).unwrap();
    path
}

#[test]
fn delv_validates_answers_and_denials() {
    if !delv_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (path, key) = make_key(folder.path(), "zone.key");
    let anchor = anchor(folder.path(), &key);
    with_server(&[path], |server| {
        for (name, asked, expected) in [
            ("complete.example.com", "A", "; fully validated"),
            ("complete.example.com", "AAAA", "; fully validated"),
            ("complete.example.com", "HTTPS", "; fully validated"),
            ("complete.example.com", "SOA", "; fully validated"),
            ("complete.example.com", "NS", "; fully validated"),
            ("complete.example.com", "DNSKEY", "; fully validated"),
            ("complete.example.com", "NSEC", "; fully validated"),
            ("API.v1.complete.example.com", "A", "; fully validated"),
            ("complete.example.com", "TXT", "; negative response, fully validated"),
            ("api.v1.complete.example.com", "MX", "; negative response, fully validated"),
            ("v1.complete.example.com", "A", "; negative response, fully validated"),
            ("nobody.complete.example.com", "A", "; negative response, fully validated"),
            ("a.b.noBody.complete.example.com", "MX", "; negative response, fully validated"),
            ("*.complete.example.com", "A", "; negative response, fully validated"),
        ] {
            let said = delv(server, &anchor, name, asked);
            assert!(said.contains(expected), "{name} {asked}: {said}");
        }
    });
}

#[test]
fn while_a_key_is_rolled_delv_may_trust_either() {
    if !delv_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (first, one) = make_key(folder.path(), "one.key");
    let (second, two) = make_key(folder.path(), "two.key");
    let (_, other) = make_key(folder.path(), "other.key");
    let trusted = |key| anchor(folder.path(), key);
    let ask = |server, key| delv(server, &trusted(key), "complete.example.com", "A");
    for order in [[first.clone(), second.clone()], [second, first]] {
        with_server(&order, |server| {
            for key in [&one, &two] {
                let said = ask(server, key);
                assert!(said.contains("; fully validated"), "{said}");
            }
            let digest = anchor_by_digest(folder.path(), &two);
            let said = delv(server, &digest, "complete.example.com", "NS");
            assert!(said.contains("; fully validated"), "by the parent's record: {said}");
            let said = ask(server, &other);
            assert!(!said.contains("fully validated"), "a key that is not the zone's: {said}");
        });
    }
}
