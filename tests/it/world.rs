//! `nearhop load emulate`: regions of real processes with real models, made to fail through the socket
//! that load scenarios use.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::UdpSocket,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    nearest::question,
    support::{
        client::{LIMIT, get, post},
        eventually,
        process::{BINARY, alive, has_ort, root, say},
        unique,
    },
};

const REGIONS: [(&str, [u8; 4]); 3] =
    [("us-west", [192, 0, 2, 0]), ("eu-west", [198, 51, 100, 0]), ("ap-south", [203, 0, 113, 0])];

/// A running world.
struct World {
    child: Child,
    target: Value,
}

impl Drop for World {
    fn drop(&mut self) {
        // It ends with its lifeline, and takes its namespaces, disks and files along.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl World {
    /// Three regions of one pod each; `None`, aloud, where this machine cannot.
    fn start() -> Option<Self> {
        if !has_ort() {
            return None;
        }
        // The same need of rights and programs, and a better word for what is missing.
        if let Err(error) = nearhop_emulator::Emulator::start(&["here"]) {
            let required = nearhop_conf::source::process_env("NEARHOP_REQUIRE_CLIENTS").is_some();
            assert!(!required, "{error}");
            say(&format!("SKIPPED: regions cannot be had here, chaos was NOT tested: {error}"));
            return None;
        }
        let mut child = Command::new(BINARY)
            .args(["load", "emulate", "--regions", "3", "--pods", "1"])
            .args(["--ready-json", "--lifeline"])
            .current_dir(root())
            .env("RUST_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let target =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Some(Self { child, target })
    }

    fn control(&self) -> &Path {
        Path::new(self.target["control"].as_str().unwrap())
    }

    /// What is said of an action: its answer, or its error.
    fn act(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new(BINARY)
            .args(["load", "act", "--control"])
            .arg(self.control())
            .args(words)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    #[track_caller]
    fn done(&self, words: &[&str], expected: &str) {
        assert_eq!(self.act(words).as_deref(), Ok(expected), "{words:?}");
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.act(&["state"]).unwrap()).unwrap()
    }

    /// Processes that run.
    fn pids(&self) -> Vec<u64> {
        let state = self.state();
        let nodes = state["nodes"].as_array().unwrap();
        nodes.iter().filter_map(|node| node["pid"].as_u64()).collect()
    }

    fn region(&self, name: &str) -> &Value {
        let regions = self.target["regions"].as_array().unwrap();
        regions.iter().find(|region| region["name"] == name).unwrap()
    }

    fn edge(&self, region: &str) -> &str {
        self.region(region)["url"].as_str().unwrap().strip_prefix("http://").unwrap()
    }

    /// Asks a region's edge for code until `source` answers; no request may fail meanwhile.
    async fn answered(&self, region: &str, source: &str) {
        let edge = self.edge(region);
        eventually(&format!("{source} answers for {region}"), LIMIT, || async {
            let prompt = format!("def add_{}(a, b):\n    return ", unique());
            let body = json!({"model": self.target["model"], "prompt": prompt, "max_tokens": 4});
            let answer = post(edge, "/v1/completions", &body, &[]).await;
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            (answer.header("x-nearhop-source") == source).then_some(())
        })
        .await;
    }

    /// The region that a DNS server answers clients of that network with.
    fn answer(&self, server: &str, network: [u8; 4]) -> String {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut buffer = [0; 1500];
        for _ in 0..60 {
            socket.send(&question(network)).unwrap();
            let Ok(length) = socket.recv(&mut buffer) else { continue };
            let named = |region: &&(&str, [u8; 4])| {
                let address: std::net::SocketAddrV4 = self.edge(region.0).parse().unwrap();
                let octets = address.ip().octets();
                buffer[..length].windows(4).any(|four| four == octets)
            };
            let found = REGIONS.iter().find(named);
            return found.map_or("none", |region| region.0).to_owned();
        }
        panic!("{server} does not answer");
    }

    /// Waits until every DNS server answers clients of that region so.
    async fn until_sent(&self, region: &str, holds: impl Fn(&str) -> bool) {
        let (_, network) = REGIONS.iter().find(|known| known.0 == region).unwrap();
        for server in self.target["dns"]["servers"].as_array().unwrap() {
            let (server, holds) = (server.as_str().unwrap(), &holds);
            eventually(&format!("{server} about {region}"), LIMIT, || async {
                holds(&self.answer(server, *network)).then_some(())
            })
            .await;
        }
    }

    /// Waits until a region's edge can, or cannot, write down what is used.
    async fn until_written(&self, region: &str, written: bool) {
        let admin = self.region(region)["admin"].as_str().unwrap();
        let token = format!("Bearer {}", self.target["admin_token"].as_str().unwrap());
        eventually(&format!("written: {written}"), LIMIT, || async {
            let headers = [("authorization", token.as_str())];
            let usage = get(admin, "/admin/v1/usage", &headers).await.unwrap().json();
            (usage["written"] == written).then_some(())
        })
        .await;
    }

    /// All is well: each region answers its own clients by itself, and DNS sends them there.
    async fn is_whole(&self) {
        for (region, _) in REGIONS {
            self.answered(region, "origin").await;
            self.until_sent(region, |answer| answer == region).await;
        }
        let state = self.state();
        let nodes = state["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 8);
        assert!(nodes.iter().all(|node| node["state"] == "running"), "{state}");
        assert_eq!((&state["cuts"], &state["full_disks"]), (&json!([]), &json!([])));
    }
}

#[tokio::test]
async fn regions_fail_on_command_are_served_by_others_and_are_put_right() {
    let Some(world) = World::start() else { return };
    world.is_whole().await;

    // Pods die: their region's clients are served by another.
    world.done(&["kill_llm_nodes", "count=1"], "killed us-west/pod-1");
    world.answered("us-west", "region").await;
    let state = world.state();
    let pod = &state["nodes"][0];
    assert_eq!((&pod["name"], &pod["state"]), (&json!("us-west/pod-1"), &json!("killed")));
    assert_eq!(pod["pid"], Value::Null);

    // A region is cut off from the world, its clients too: DNS sends them elsewhere.
    world.done(&["network_partition", "region=us-west"], "cut off us-west");
    world.until_sent("us-west", |answer| answer != "us-west" && answer != "none").await;
    let reached = timeout(Duration::from_secs(1), TcpStream::connect(world.edge("us-west"))).await;
    assert!(!matches!(reached, Ok(Ok(_))), "it is cut off from the host");
    world.answered("eu-west", "origin").await;

    // A full disk: what is used cannot be written, and everybody is served.
    world.done(&["fill_disk", "region=eu-west"], "filled the disk of eu-west");
    world.answered("eu-west", "origin").await;
    world.until_written("eu-west", false).await;
    world.answered("eu-west", "origin").await;

    world.done(&["pause_llm_nodes", "region=ap-south"], "paused ap-south/pod-1");
    world.done(&["slow_network", "region=ap-south", "delay_ms=50"], "delayed ap-south by 50 ms");
    world.done(&["kill_edge", "region=ap-south"], "killed ap-south/edge");
    world.until_sent("ap-south", |answer| answer == "eu-west").await;
    world.done(
        &["undo"],
        "healed us-west; no delay any more at ap-south; cleared the disk of eu-west; \
         let go on ap-south/pod-1; started us-west/pod-1, ap-south/edge",
    );
    world.is_whole().await;
    world.until_written("eu-west", true).await;

    world.done(&["slow_llm_nodes", "count=1", "times=3"], "slowed us-west/pod-1 3 times");
    world.answered("us-west", "origin").await;
}

#[tokio::test]
async fn mistakes_are_answered_with_the_fix_and_nobody_survives_the_world() {
    let Some(mut world) = World::start() else { return };
    for (words, expected) in [
        (&["explode"][..], "unknown variant `explode`"),
        (&["kill_edge", "region=mars"], "write one of us-west, eu-west, ap-south"),
        (&["kill_edge"], "missing field `region`"),
        (&["kill_llm_nodes", "count=4"], "count is 4, and 3 pods of all regions together run"),
        (&["slow_network", "region=us-west", "delay_ms=soon"], "\"soon\""),
        (&["undo", "region=us-west"], "unknown field `region`"),
    ] {
        let error = world.act(words).unwrap_err();
        assert!(error.contains(expected), "{words:?}: {error}");
    }
    let mut socket = UnixStream::connect(world.control()).unwrap();
    socket.write_all(b"kill everything\n").unwrap();
    let mut line = String::new();
    BufReader::new(&socket).read_line(&mut line).unwrap();
    assert!(line.contains("\"error\":") && line.contains("kill_llm_nodes"), "{line}");
    world.done(&["undo"], "nothing was to be done");

    // It is killed, and a pod that is stopped cannot notice by itself.
    world.done(&["pause_llm_nodes"], "paused us-west/pod-1");
    let pids = world.pids();
    assert_eq!(pids.len(), 8);
    world.child.kill().unwrap();
    world.child.wait().unwrap();
    for pid in pids {
        eventually(&format!("{pid} ends"), LIMIT, || async { (!alive(pid)).then_some(()) }).await;
    }
    // The next one takes away what this one could not.
    let folder: PathBuf = world.control().parent().unwrap().to_owned();
    assert!(folder.exists());
    let Some(_next) = World::start() else { return };
    assert!(!folder.exists(), "{}", folder.display());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
}
