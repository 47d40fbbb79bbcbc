//! DNS that answers with the nearest region, asked by `dig`, and explained.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{
    certificates::Authority,
    client::{LIMIT, get},
    eventually,
    process::{BINARY, Dev, Dns, has_ort, metric, root, say},
};

/// `dig`, or a loud skip.
fn dig(server: &str, arguments: &[&str]) -> Option<String> {
    let (address, port) = server.rsplit_once(':').unwrap();
    let server = format!("@{address}");
    let output = Command::new("dig")
        .args([server.as_str(), "-p", port, "+tries=1", "+time=20"])
        .args(arguments)
        .output();
    let Ok(output) = output else {
        let required = nearhop_conf::source::process_env("NEARHOP_REQUIRE_CLIENTS").is_some();
        assert!(!required, "dig is missing: `make setup`");
        say("SKIPPED: dig is not here, DNS was NOT tested by a real client: `make setup`");
        return None;
    };
    Some(words(&output))
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// A query for the service's address, for a client of that /24.
pub(crate) fn question([a, b, c, _]: [u8; 4]) -> Vec<u8> {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in ["complete", "example", "com"] {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    // OPT with 1,232 bytes, and the client's network (RFC 7871, section 6).
    query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0, a, b, c]);
    query
}

/// A configuration of three regions, with the repository's small database.
fn config() -> Value {
    json!({
        "regions": [
            {"name": "us-west", "location": [37.4, -122.1], "addresses": ["192.0.2.10", "2001:db8:1::10"]},
            {"name": "eu-west", "location": [53.3, -6.3], "addresses": ["198.51.100.10"]},
            {"name": "ap-south", "location": [19.1, 72.9], "addresses": ["203.0.113.10"]},
        ],
        "dns": {
            "listen": ["127.0.0.1:0"],
            "admin": {"listen": "127.0.0.1:0", "token": "test-admin-token-0123456789"},
            "zone": "complete.example.com",
            "name_servers": ["ns1.example.com"],
            "mmdb": root().join("conf/data/documentation.mmdb"),
        },
    })
}

#[tokio::test]
async fn dig_gets_the_nearest_region_over_udp_and_tcp() {
    let dns = Dns::start(&config());
    for (subnet, expected) in [
        ("192.0.2.0/24", "192.0.2.10"),
        ("198.51.100.0/24", "198.51.100.10"),
        ("203.0.113.0/24", "203.0.113.10"),
    ] {
        for transport in ["+notcp", "+tcp"] {
            let subnet = format!("+subnet={subnet}");
            let asked = ["complete.example.com", "A", &subnet, transport];
            let Some(said) = dig(&dns.address, &asked) else { return };
            assert!(said.contains("status: NOERROR") && said.contains(" aa"), "{said}");
            assert!(said.contains(&format!("IN\tA\t{expected}")), "{said}");
            assert!(said.contains("/24/24"), "the scope: {said}");
        }
    }
    let said = dig(&dns.address, &["nobody.complete.example.com"]).unwrap();
    assert!(said.contains("status: NXDOMAIN") && said.contains("SOA"), "{said}");
    let said = dig(&dns.address, &["example.org"]).unwrap();
    assert!(said.contains("status: REFUSED"), "{said}");
    let page = metric(&dns.admin, "nearhop_dns_queries_total{code=\"noerror\",transport=\"tcp\"}");
    assert_eq!(page.await, 3.0);
}

#[tokio::test]
async fn a_replaced_database_is_taken_up_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("places.mmdb");
    let put = |bytes: &[u8]| {
        let new = folder.path().join("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    let good = std::fs::read(root().join("conf/data/documentation.mmdb")).unwrap();
    put(&good);
    let mut config = config();
    config["dns"]["mmdb"] = json!(file);
    let dns = Dns::start(&config);
    let place = async |client: &str| {
        let path = format!("/admin/v1/explain/dns?client={client}");
        let token = [("authorization", "Bearer test-admin-token-0123456789")];
        get(&dns.admin, &path, &token).await.unwrap().json()["place"].clone()
    };
    assert_eq!(place("203.0.113.1").await, json!([28.61, 77.21]));
    for (broken, times) in [(&good[..good.len() / 2], 1.0), (b"no database", 2.0)] {
        put(broken);
        eventually("it is refused", LIMIT, || async {
            let refused = metric(&dns.admin, "nearhop_dns_reloads_total{result=\"refused\"}").await;
            (refused >= times).then_some(())
        })
        .await;
    }
    // Another place for the same network: Delhi moves to Sydney.
    let (delhi, sydney) = ([28.61f64, 77.21], [-33.87f64, 151.21]);
    let mut moved = good.clone();
    for (from, to) in delhi.iter().zip(sydney) {
        let at = moved.windows(8).position(|eight| eight == from.to_be_bytes()).unwrap();
        moved[at..at + 8].copy_from_slice(&to.to_be_bytes());
    }
    assert_eq!(
        place("203.0.113.1").await,
        json!([28.61, 77.21]),
        "the broken ones changed nothing"
    );
    put(&moved);
    eventually("the new database is taken up", LIMIT, || async {
        (place("203.0.113.1").await == json!([-33.87, 151.21])).then_some(())
    })
    .await;
}

#[test]
fn an_explanation_by_a_file_says_which_region_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dns.yaml");
    std::fs::write(&path, config().to_string()).unwrap();
    let explain = |more: &[&str]| {
        let output = Command::new(BINARY)
            .args(["explain", "dns", "--client", "203.0.113.7", "-c"])
            .arg(&path)
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", words(&output));
        words(&output)
    };
    let said: Value = serde_json::from_str(&explain(&["--json"])).unwrap();
    assert_eq!(
        (&said["name"], &said["region"]),
        (&json!("complete.example.com."), &json!("ap-south"))
    );
    assert_eq!(said["answers"], json!(["203.0.113.10"]));
    assert_eq!(said["candidates"].as_array().unwrap().len(), 3);
    assert_eq!(said["candidates"][0]["verdict"], "chosen");
    let told = explain(&[]);
    for part in ["ap-south", "203.0.113.10", "km", "chosen", "next", "/24"] {
        assert!(told.contains(part), "`{part}` is not in {told}");
    }
}

#[tokio::test]
async fn a_key_is_made_once_and_signs_the_zone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zone.key");
    let keys = |arguments: &[&str], file: &[&std::path::Path]| {
        let zone = ["--zone", "complete.example.com"];
        let command = &mut Command::new(BINARY);
        command.args(["dns", "keys"]).args(arguments).args(file).args(zone).output().unwrap()
    };
    let made = keys(&["generate", "--out"], &[&file]);
    assert!(made.status.success(), "{}", words(&made));
    let ds = words(&made);
    assert!(ds.starts_with("complete.example.com. IN DS "), "{ds}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read(&file).unwrap();
    let again = keys(&["generate", "--out"], &[&file]);
    assert!(!again.status.success() && words(&again).contains("exists"), "{}", words(&again));
    assert_eq!(std::fs::read(&file).unwrap(), text);
    let told = words(&keys(&["ds"], &[&file]));
    assert!(told.starts_with(&ds) && told.contains(" IN DNSKEY 257 3 13 "), "{told}");

    let mut config = config();
    config["dns"]["dnssec"] = json!({"keys": [&file]});
    let dns = Dns::start(&config);
    for (name, signed) in
        [("complete.example.com", "RRSIG\tA "), ("no.complete.example.com", "NSEC")]
    {
        let Some(said) = dig(&dns.address, &[name, "+dnssec"]) else { return };
        assert!(said.contains("status: NOERROR") && said.contains(signed), "{said}");
    }
    let said = dig(&dns.address, &["no.complete.example.com"]).unwrap();
    assert!(said.contains("status: NXDOMAIN") && !said.contains("RRSIG"), "{said}");
    // The server counts them once a second.
    let made = "nearhop_dns_signatures_total{what=\"made\"}";
    eventually("the denial's signature is counted", LIMIT, || async {
        (metric(&dns.admin, made).await == 1.0).then_some(())
    })
    .await;
    // A new key at the old one's place is taken up.
    let other = folder.path().join("other.key");
    assert!(keys(&["generate", "--out"], &[&other]).status.success());
    let told = words(&keys(&["ds"], &[&other]));
    let public: String = told.rsplit_once(' ').unwrap().1.trim().to_owned();
    std::fs::rename(other, &file).unwrap();
    eventually("the new key is published", LIMIT, || async {
        let said = dig(&dns.address, &["complete.example.com", "DNSKEY"]).unwrap();
        // dig puts a space into long keys.
        said.replace(' ', "").contains(&public).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_changed_configuration_is_taken_up_and_a_wrong_one_is_not() {
    let mut config = config();
    let dns = Dns::start(&config);
    let chosen = async || {
        let path = "/admin/v1/explain/dns?client=198.51.100.7";
        let token = [("authorization", "Bearer test-admin-token-0123456789")];
        get(&dns.admin, path, &token).await.unwrap().json()["region"].clone()
    };
    assert_eq!(chosen().await, "eu-west");
    let mut wrong = config.clone();
    wrong["regions"][1]["drained"] = json!("perhaps");
    dns.configure(&wrong);
    eventually("it is refused", LIMIT, || async {
        let refused = metric(&dns.admin, "nearhop_dns_reloads_total{result=\"refused\"}").await;
        (refused >= 1.0).then_some(())
    })
    .await;
    assert_eq!(chosen().await, "eu-west", "a wrong one changes nothing");
    config["regions"][1]["drained"] = json!(true);
    config["dns"]["ttl"] = json!("7s");
    dns.configure(&config);
    eventually("a drained region is out", LIMIT, || async {
        (chosen().await != "eu-west").then_some(())
    })
    .await;
    let Some(said) = dig(&dns.address, &["complete.example.com", "+subnet=198.51.100.0/24"]) else {
        return;
    };
    assert!(said.contains("\t7\tIN\tA\t203.0.113.10"), "{said}");
}

#[tokio::test]
async fn how_regions_are_watched_may_come_go_and_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Authority::new(folder.path()).mutual("n", &["n.test"], &["n.test"]);
    let plain = config();
    let mut watched = config();
    watched["dns"]["peer"] = json!({"listen": "127.0.0.1:0", "name": "a", "tls": tls});
    for region in watched["regions"].as_array_mut().unwrap() {
        // Nobody is there.
        region["health"] = json!("http://127.0.0.1:9/health");
    }
    let point = |name: &str| json!({"name": name, "url": "https://127.0.0.1:9"});
    watched["health"] = json!({
        "vantage_points": [point("a"), point("b"), point("c")],
        "interval": "100ms", "deadline": "500ms", "exchange": "100ms", "fresh": "3s",
    });
    let dns = Dns::start(&watched);
    let votes = async || {
        let token = [("authorization", "Bearer test-admin-token-0123456789")];
        let told = get(&dns.admin, "/admin/v1/regions", &token).await.unwrap().json();
        told[0]["votes"].clone()
    };
    let alone = json!({"up": 0, "down": 1, "silent": 2});
    let is = async |what: &str, expected: &Value| {
        eventually(what, LIMIT, || async { (votes().await == *expected).then_some(()) }).await;
    };
    is("it is watched", &alone).await;
    dns.configure(&plain);
    is("it is not", &Value::Null).await;
    dns.configure(&watched);
    is("it is again", &alone).await;
}

#[test]
fn whose_answers_another_configuration_changes_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.yaml"), folder.path().join("new.yaml"));
    let mut config = config();
    std::fs::write(&old, config.to_string()).unwrap();
    config["dns"]["overrides"] = json!([{"networks": ["203.0.113.0/24"], "regions": ["eu-west"]}]);
    std::fs::write(&new, config.to_string()).unwrap();
    let ask = |more: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["explain", "dns", "-c"]).arg(&old).arg("--diff").arg(&new).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", words(&output));
        words(&output)
    };
    let said: Value = serde_json::from_str(&ask(&["--json"])).unwrap();
    assert_eq!(
        said["changes"],
        json!([{"from": "ap-south", "to": "eu-west", "v4": 1.0, "v6": 0.0, "example": "203.0.113.0"}])
    );
    assert!(ask(&[]).contains("ap-south"));
}

#[test]
fn the_small_database_is_what_its_script_writes() {
    let checked =
        Command::new("python3").arg(root().join("scripts/geo/mmdb.py")).arg("--check").output();
    let checked = checked.unwrap();
    assert!(checked.status.success(), "{}", words(&checked));
}

#[tokio::test]
async fn dev_answers_dns_too() {
    if !has_ort() {
        return;
    }
    let dev = Dev::shared();
    let server = dev.ready()["dns"].as_str().unwrap();
    let asked = ["complete.example.com", "+short", "+subnet=198.51.100.0/24"];
    let Some(said) = dig(server, &asked) else { return };
    assert_eq!(said.trim(), "198.51.100.10");
}

#[tokio::test]
async fn a_network_that_asks_too_fast_gets_cut_answers_and_then_fewer() {
    let mut config = config();
    config["dns"]["rate_limit"] = json!({"answers": 4, "nothing": 4});
    let dns = Dns::start(&config);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(&dns.address).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let mut query = question([203, 0, 113, 0]);
    for id in 0..100u8 {
        query[1] = id;
        socket.send(&query).unwrap();
    }
    let answered = "nearhop_dns_queries_total{code=\"noerror\",transport=\"udp\"}";
    eventually("all were looked at", LIMIT, || async {
        (metric(&dns.admin, answered).await == 100.0).then_some(())
    })
    .await;
    let (mut whole, mut cut, mut buffer) = (0, 0, [0; 1500]);
    // All but the last have been sent, and wait in the socket.
    while let Ok(length) = socket.recv(&mut buffer) {
        match buffer[2] & 2 != 0 {
            true => {
                assert!(length <= query.len(), "a cut answer is no larger than its question");
                cut += 1;
            }
            false => whole += 1,
        }
    }
    // How many are whole depends on how long the hundred took; most of them are limited.
    assert!(whole >= 1 && cut >= 10 && whole + cut < 80, "{whole} whole, {cut} cut");
}
