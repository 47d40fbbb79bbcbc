//! Regions that fail, as DNS sees them and as their neighbours do: three edges and two DNS servers,
//! each at an address of its own, with cuts between them.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nearhop_emulator::{Emulator, process};
use serde_json::{Value, json};

use crate::{
    nearest::question,
    support::{
        certificates::Authority,
        client::{LIMIT, get, post, request as request_of, send},
        eventually,
        fake_pod::{Act, FakePod},
        now,
        process::{BINARY, KEY_SECRET, key, root, say, soaking},
        steady::Steady,
        unique,
    },
};

const REGIONS: [(&str, [f64; 2], [u8; 4]); 3] = [
    ("us-west", [37.4, -122.1], [192, 0, 2, 0]),
    ("eu-west", [53.3, -6.3], [198, 51, 100, 0]),
    ("ap-south", [19.1, 72.9], [203, 0, 113, 0]),
];
const SERVERS: [&str; 2] = ["dns-1", "dns-2"];
const TOKEN: &str = "test-admin-token-0123456789";

/// Regions and servers on one machine.
struct Wan {
    wan: Emulator,
    folder: tempfile::TempDir,
    /// One of each edge; whoever asks it waits.
    pods: HashMap<&'static str, FakePod>,
    nodes: HashMap<&'static str, Child>,
}

impl Drop for Wan {
    fn drop(&mut self) {
        for node in self.nodes.values_mut() {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl Wan {
    /// Everything up; `None`, aloud, where this machine cannot.
    fn start(health: &Value) -> Option<Self> {
        let mut names: Vec<&str> = REGIONS.iter().map(|region| region.0).collect();
        names.extend(SERVERS);
        let wan = match Emulator::start(&names) {
            Ok(wan) => wan,
            Err(error) => {
                let required =
                    nearhop_conf::source::process_env("NEARHOP_REQUIRE_CLIENTS").is_some();
                assert!(!required, "{error}");
                say(&format!(
                    "SKIPPED: regions cannot be had here, failover by DNS was NOT tested: {error}"
                ));
                return None;
            }
        };
        for (at, one) in names.iter().enumerate() {
            for other in &names[at + 1..] {
                wan.link(one, other)
                    .delay(Duration::from_millis(10))
                    .jitter(Duration::from_millis(2));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path());
        let tls = authority.mutual("node", &["node.example.com"], &["node.example.com"]);
        let mut pods = HashMap::new();
        for (region, ..) in REGIONS {
            let pod = FakePod::start_at(wan.host_address(), Act::Hang);
            pod.set_slots(8);
            pods.insert(region, pod);
        }
        for name in &names {
            let at = wan.site(name).address();
            let mut config = shared(&wan, health, &folder.path().join(format!("{name}.json")));
            let peer = json!({"listen": format!("{at}:8443"), "name": name, "tls": tls});
            let admin = json!({"listen": format!("{at}:8081"), "token": TOKEN});
            if SERVERS.contains(name) {
                config["dns"] = json!({
                    "listen": [format!("{at}:5300")],
                    "admin": admin,
                    "zone": "complete.example.com",
                    "name_servers": ["ns1.example.com"],
                    "mmdb": root().join("conf/data/documentation.mmdb"),
                    "peer": peer,
                });
            } else {
                config["region"] = json!(name);
                config["access"] =
                    json!({"key_secret": KEY_SECRET, "keys": [key("dev", "dev", "nh-dev")]});
                config["edge"] = json!({
                    "listen": format!("{at}:8080"),
                    "admin": admin,
                    "threads": 1,
                    "pods": [{"name": "fake", "address": pods[name].address}],
                    "peer": peer,
                });
            }
            std::fs::write(folder.path().join(format!("{name}.yaml")), config.to_string()).unwrap();
        }
        let mut started = Self { wan, folder, pods, nodes: HashMap::new() };
        for (name, ..) in REGIONS {
            started.run(name);
        }
        for name in SERVERS {
            started.run(name);
        }
        Some(started)
    }

    /// Starts a node, and waits until it is ready.
    fn run(&mut self, name: &'static str) {
        let role = if SERVERS.contains(&name) { "dns" } else { "edge" };
        let config: PathBuf = self.folder.path().join(format!("{name}.yaml"));
        let mut child = self
            .wan
            .site(name)
            .command(BINARY)
            .args([role, "--ready-json", "--lifeline", "-c"])
            .arg(config)
            .env("RUST_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("\"ready\""), "{name}: {line:?}");
        self.nodes.insert(name, child);
    }

    fn kill(&mut self, name: &str) {
        let mut node = self.nodes.remove(name).unwrap();
        process::kill(node.id()).unwrap();
        node.wait().unwrap();
    }

    /// What a server knows of a region.
    async fn known(&self, server: &str, region: &str) -> Value {
        let all = self.told(server, "/regions").await;
        let all = all.as_array().unwrap();
        all.iter().find(|known| known["region"] == region).unwrap().clone()
    }

    /// What a node's operator is told.
    async fn told(&self, node: &str, path: &str) -> Value {
        let (admin, token) = (self.at(node, 8081), format!("Bearer {TOKEN}"));
        let path = format!("/admin/v1{path}");
        get(&admin, &path, &[("authorization", &token)]).await.unwrap().json()
    }

    fn at(&self, node: &str, port: u16) -> String {
        format!("{}:{port}", self.wan.site(node).address())
    }

    async fn until(&self, what: &str, server: &str, region: &str, holds: impl Fn(&Value) -> bool) {
        let holds = &holds;
        eventually(what, LIMIT, || async {
            let known = self.known(server, region).await;
            holds(&known).then_some(())
        })
        .await;
    }

    /// The region that a server answers clients of that network with.
    fn answer(&self, server: &str, network: [u8; 4]) -> &'static str {
        let socket = UdpSocket::bind((self.wan.host_address(), 0)).unwrap();
        socket.connect((self.wan.site(server).address(), 5300)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut buffer = [0; 1500];
        for _ in 0..60 {
            socket.send(&question(network)).unwrap();
            let Ok(length) = socket.recv(&mut buffer) else { continue };
            let address = &buffer[..length];
            let named = |region: &&(&'static str, [f64; 2], [u8; 4])| {
                let octets = self.wan.site(region.0).address().octets();
                address.windows(4).any(|four| four == octets)
            };
            return REGIONS.iter().find(named).map_or("none", |region| region.0);
        }
        panic!("{server} does not answer");
    }
}

fn shared(wan: &Emulator, health: &Value, state_file: &std::path::Path) -> Value {
    let regions: Vec<Value> = REGIONS
        .iter()
        .map(|(name, location, _)| {
            let at = wan.site(name).address();
            json!({"name": name, "location": location, "addresses": [at], "health": format!("http://{at}:8080/health"), "peers": [format!("{at}:8443")]})
        })
        .collect();
    let points = REGIONS.iter().map(|region| region.0).chain(SERVERS).map(
        |name| json!({"name": name, "url": format!("https://{}:8443", wan.site(name).address())}),
    );
    let points: Vec<Value> = points.collect();
    let witness = |name: &str, port: u16| format!("{}:{port}", wan.site(name).address());
    let mut health = health.clone();
    health["vantage_points"] = json!(points);
    health["witnesses"] = json!([witness("dns-1", 5300), witness("us-west", 8443)]);
    health["state_file"] = json!(state_file);
    json!({"regions": regions, "health": health})
}

fn is(health: &'static str) -> impl Fn(&Value) -> bool {
    move |known| known["health"] == health
}

#[tokio::test]
async fn a_dead_region_leaves_the_answers_and_one_that_one_server_cannot_see_does_not() {
    let health = json!({
        "interval": "400ms", "deadline": "800ms", "exchange": "300ms", "fresh": "4s",
        "fall": 2, "rise": 2, "hold": "3s",
    });
    let Some(mut wan) = Wan::start(&health) else { return };
    let [(_, _, american), (_, _, european), (_, _, indian)] = REGIONS;
    for server in SERVERS {
        for (region, _, network) in REGIONS {
            wan.until("all five vote", server, region, |known| known["votes"]["up"] == 5).await;
            assert_eq!(wan.answer(server, network), region);
        }
    }
    let known = wan.known("dns-1", "us-west").await;
    assert_eq!((&known["load"], &known["moved"]), (&json!(0.0), &json!(0.0)), "from /health");

    // A region that is full passes its clients on, and takes them back.
    let edge = format!("{}:8080", wan.wan.site("ap-south").address());
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let edge = edge.clone();
        let body = json!({"model": "fake", "messages": [{"role": "user", "content": unique()}]});
        waiting.spawn(async move {
            let _ = post(&edge, "/v1/chat/completions", &body, &[]).await;
        });
    }
    wan.until("it is full", "dns-1", "ap-south", |known| known["load"] == 1.0).await;
    for server in SERVERS {
        eventually("its clients go elsewhere", LIMIT, || async {
            (wan.answer(server, indian) != "ap-south").then_some(())
        })
        .await;
    }
    waiting.shutdown().await;
    wan.until("they come back", "dns-1", "ap-south", |known| known["moved"] == 0.0).await;
    wan.until("at the other too", "dns-2", "ap-south", |known| known["moved"] == 0.0).await;

    // One server cannot see one region, and it is the only one.
    wan.wan.cut("ap-south", "dns-1");
    wan.until("it says so", "dns-1", "ap-south", |known| known["votes"]["down"] == 1).await;
    wan.until("the other hears it", "dns-2", "ap-south", |known| known["votes"]["down"] == 1).await;
    assert_eq!(wan.known("dns-1", "ap-south").await["health"], "up");
    assert_eq!(wan.answer("dns-1", indian), "ap-south", "a majority sees it");
    wan.wan.heal("ap-south", "dns-1");
    wan.until("healed", "dns-1", "ap-south", |known| known["votes"]["up"] == 5).await;

    // A server that is cut off from everybody knows what it knew.
    wan.wan.isolate("dns-2");
    wan.until("it is alone", "dns-2", "eu-west", |known| known["votes"]["silent"] == 5).await;
    wan.kill("eu-west");
    wan.until("a quorum says so", "dns-1", "eu-west", is("down")).await;
    for host in 0..=255 {
        let [a, b, c, _] = european;
        assert_ne!(wan.answer("dns-1", [a, b, c, host]), "eu-west", "while others are up");
    }
    assert_eq!(wan.answer("dns-2", european), "eu-west");
    assert_eq!(wan.answer("dns-2", american), "us-west", "and nobody else is down to it");
    wan.wan.rejoin("dns-2");
    wan.until("it hears the others", "dns-2", "eu-west", is("down")).await;

    // Started again alone, it knows it from its file.
    wan.kill("dns-2");
    wan.wan.isolate("dns-2");
    wan.run("dns-2");
    wan.until("it has counted", "dns-2", "eu-west", |known| known["votes"]["silent"] == 5).await;
    assert_eq!(wan.known("dns-2", "eu-west").await["health"], "down");
    assert_ne!(wan.answer("dns-2", european), "eu-west");
    wan.wan.rejoin("dns-2");

    // It comes back, and a second fall makes it wait.
    wan.run("eu-west");
    wan.until("it is back", "dns-1", "eu-west", is("up")).await;
    eventually("its clients are", LIMIT, || async {
        (wan.answer("dns-1", european) == "eu-west").then_some(())
    })
    .await;
    // Now it hangs: its looks time out. Those who saw it fall before do not trust it at once.
    let began = now();
    let hung = wan.nodes["eu-west"].id();
    process::pause(hung).unwrap();
    wan.until("all four say so", "dns-1", "eu-west", |known| known["votes"]["down"] == 4).await;
    assert_eq!(wan.known("dns-1", "eu-west").await["health"], "down");
    process::resume(hung).unwrap();
    wan.until("it is back", "dns-1", "eu-west", is("up")).await;
    let waited = now() - began;
    assert!(waited >= Duration::from_secs(3), "held down: {waited:?}");
}

/// With the default settings: from a region's end to answers without it.
#[tokio::test]
async fn a_dead_region_is_out_of_the_answers_within_the_budget() {
    if !soaking() {
        return;
    }
    let Some(mut wan) = Wan::start(&json!({})) else { return };
    let (_, _, european) = REGIONS[1];
    for server in SERVERS {
        wan.until("all five vote", server, "eu-west", |known| known["votes"]["up"] == 5).await;
    }
    let mut times = Vec::new();
    for _ in 0..3 {
        let began = now();
        wan.kill("eu-west");
        for server in SERVERS {
            eventually("it is out", Duration::from_secs(60), || async {
                (wan.answer(server, european) != "eu-west").then_some(())
            })
            .await;
        }
        times.push((now() - began).as_secs_f32());
        wan.run("eu-west");
        eventually("it is back", Duration::from_secs(400), || async {
            (wan.known("dns-1", "eu-west").await["health"] == "up").then_some(())
        })
        .await;
    }
    say(&format!(
        "from a region's end to answers without it, both servers: {times:.1?} s (budget 25 s)"
    ));
    assert!(times.iter().all(|time| *time <= 25.0), "{times:?}");
}

/// Regions are watched with little patience.
fn quick() -> Value {
    json!({
        "interval": "400ms", "deadline": "800ms", "exchange": "300ms", "fresh": "4s",
        "fall": 2, "rise": 2, "hold": "1s",
    })
}

/// Clients of a region whose pods are gone, while this and that happens to its neighbours.
struct Bereft {
    wan: Wan,
    /// Of the region without pods, and of one with.
    clients: [Steady; 2],
}

impl Bereft {
    /// Indians are nearest to Europeans.
    async fn start() -> Option<Self> {
        let mut wan = Wan::start(&quick())?;
        for region in ["ap-south", "us-west"] {
            wan.pods[region].act(Act::Slow(region));
        }
        wan.pods.remove("eu-west");
        let clients = ["eu-west", "us-west"].map(|edge| Steady::start(&wan.at(edge, 8080), 4));
        let started = Self { wan, clients };
        let [bereft, _] = &started.clients;
        let began = now();
        eventually("the nearest answers", LIMIT, || async { bereft.first("ap-south", began) })
            .await;
        Some(started)
    }

    /// Waits until that region answers, and says how long that took from `began`.
    async fn until_answered(&self, what: &str, by: &str, began: Instant) {
        let [bereft, _] = &self.clients;
        let first = eventually(what, LIMIT, || async { bereft.first(by, began) }).await;
        // Ten more: one alone may have been sent to find out.
        eventually(what, LIMIT, || async {
            let asked = bereft.asked();
            let last = asked.iter().rev().take(10);
            last.into_iter().all(|one| one.answer.as_deref() == Ok(by)).then_some(())
        })
        .await;
        let settled = now() - began;
        let (requests, longest) = bereft.since(began);
        say(&format!(
            "{what}: {by} answers after {:.2} s, alone after {:.2} s; the longest of {requests} requests took {:.2} s",
            (first - began).as_secs_f32(),
            settled.as_secs_f32(),
            longest.as_secs_f32()
        ));
        self.check(what);
    }

    fn check(&self, what: &str) {
        for clients in &self.clients {
            assert!(clients.failed().is_empty(), "{what}: {:?}", clients.failed());
        }
    }

    fn said(&self) -> String {
        let [bereft, other] = self.clients.each_ref().map(Steady::asked);
        let broken = bereft.iter().filter(|one| one.broken).count();
        let all = bereft.len() + other.len();
        format!("{all} requests, 0 failed, {broken} streams broke off after their first content")
    }
}

#[tokio::test]
async fn no_request_is_lost_when_a_region_dies_that_answers_for_another() {
    let Some(mut bereft) = Bereft::start().await else { return };
    let began = now();
    bereft.wan.kill("ap-south");
    bereft.until_answered("killed", "us-west", began).await;
    bereft.wan.run("ap-south");
    bereft.until_answered("started again", "ap-south", now()).await;

    let began = now();
    let id = bereft.wan.nodes["ap-south"].id();
    process::pause(id).unwrap();
    bereft.until_answered("paused", "us-west", began).await;
    process::resume(id).unwrap();
    bereft.until_answered("it goes on", "ap-south", now()).await;
    say(&bereft.said());
}

#[tokio::test]
async fn what_a_region_cannot_reach_it_does_not_use_nor_what_the_others_say_is_down() {
    let Some(bereft) = Bereft::start().await else { return };
    let wan = &bereft.wan;
    let began = now();
    wan.wan.cut("eu-west", "ap-south");
    bereft.until_answered("cut off from it", "us-west", began).await;
    wan.until("it says so", "dns-1", "ap-south", |known| known["votes"]["down"] == 1).await;
    assert_eq!(wan.known("dns-1", "ap-south").await["health"], "up", "the others see it");
    wan.wan.heal("eu-west", "ap-south");
    bereft.until_answered("healed", "ap-south", now()).await;

    // Now it is only this one that sees it.
    let began = now();
    for other in ["us-west", "dns-1", "dns-2"] {
        wan.wan.cut("ap-south", other);
    }
    bereft.until_answered("only seen from here", "us-west", began).await;
    let upstreams = wan.told("eu-west", "/upstreams").await;
    let name = format!("ap-south/{}", wan.at("ap-south", 8443));
    let known = upstreams.as_array().unwrap().iter().find(|one| one["name"] == *name).unwrap();
    assert_eq!(known["ready"], true, "its own checks pass: {known}");
    let request = json!({"model": "fake", "prompt": "x"});
    let asked = json!({"tenant": "dev", "path": "/v1/completions", "request": request});
    let mut explain = request_of("/admin/v1/route/explain", &asked, &[]);
    explain.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    let explained = send(&wan.at("eu-west", 8081), explain).await.unwrap().whole().await.unwrap();
    let left_out = explained.json()["left_out"].clone();
    let known = left_out.as_array().unwrap().iter().find(|one| one["name"] == *name);
    assert_eq!(known.unwrap()["because"], "region down", "{left_out}");
    wan.until("a quorum says so", "dns-1", "ap-south", is("down")).await;
    for other in ["us-west", "dns-1", "dns-2"] {
        wan.wan.heal("ap-south", other);
    }
    bereft.until_answered("seen again", "ap-south", now()).await;
    say(&bereft.said());
}
