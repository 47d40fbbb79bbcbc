//! `nearhop load run`: what it measures of servers that are known, what it says of mistakes, and
//! that nothing measured is lost.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    client::LIMIT,
    eventually,
    process::{BINARY, Dev, has_ort, root, signal},
    stalling::Stalling,
};

/// A load that is on its way, in a folder of its own.
struct Load {
    folder: tempfile::TempDir,
    child: Child,
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Load {
    fn start(scenario: &Value, target: &Value, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scenario.yaml");
        let plan = json!({"scenarios": [scenario], "target": target});
        std::fs::write(&file, plan.to_string()).unwrap();
        let child = Command::new(BINARY)
            .args(["load", "run", "--quiet"])
            .arg(file)
            .arg("--out")
            .arg(folder.path().join("out"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { folder, child }
    }

    /// Waits for its end; its exit code, what it said, and what went wrong.
    async fn end(&mut self) -> (i32, String, String) {
        let ended = eventually("the load ends", LIMIT, || {
            let ended = self.child.try_wait().unwrap();
            async move { ended }
        })
        .await;
        let read = |pipe: &mut dyn std::io::Read| {
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text
        };
        let said = read(self.child.stdout.as_mut().unwrap());
        let error = read(self.child.stderr.as_mut().unwrap());
        (ended.code().unwrap(), said, error)
    }

    /// The report, after the end.
    fn report(&self) -> Value {
        let text = std::fs::read_to_string(self.folder.path().join("out/s.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// Everybody asks alone, and for a whole answer.
fn plain(rate: u64, duration: &str) -> Value {
    json!({
        "name": "s", "duration": duration,
        "profile": {
            "users": rate, "requests_per_user_per_hour": 3600, "typing": 0.0, "streamed": 0.0,
            "completion_type_distribution": {"inline": 0.5, "fim": 0.5}, "arrivals": "even",
        },
    })
}

fn at(server: &Stalling) -> Value {
    json!({"model": "m", "regions": [{"name": "here", "url": format!("http://{}", server.address)}]})
}

fn count(report: &Value, outcome: &str) -> u64 {
    report["all"]["outcomes"][outcome].as_u64().unwrap()
}

#[tokio::test]
async fn a_stall_shows_where_a_closed_loop_would_hide_it() {
    let server = Stalling::start().await;
    let mut load = Load::start(&plain(50, "10s"), &at(&server), &[]);
    server.until_answered(150).await;
    server.stall(true);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    server.stall(false);
    let (code, said, error) = load.end().await;
    let report = load.report();
    // 75 of 500 came while it stood still. Somebody who waits for an answer before the next question
    // would have asked one of them.
    let first = &report["all"]["first_token"];
    let ms = |name: &str| first[name].as_f64().unwrap();
    assert!(ms("p95_ms") > 500.0 && ms("p99_ms") > 1000.0, "{first} {said} {error}");
    assert!(ms("p50_ms") < ms("p95_ms") / 2.0, "{first}");
    // Every request that was due was sent, and counted once, here as there. The question before the
    // load is the one more.
    assert_eq!(count(&report, "answered"), 500, "{said} {error}");
    assert_eq!(server.answered(), 501);
    assert_eq!((code, &report["rows"][1]["verdict"]), (1, &json!("missed")));
}

#[tokio::test]
async fn what_was_measured_is_kept_when_the_target_dies_or_the_user_has_seen_enough() {
    let server = Stalling::start().await;
    let mut load = Load::start(&plain(50, "10m"), &at(&server), &[]);
    server.until_answered(100).await;
    server.end();
    let (code, said, error) = load.end().await;
    let report = load.report();
    assert_eq!(code, 1, "{error}");
    assert!(
        report["ended"]["target_gone"].as_str().unwrap().contains("nothing was heard"),
        "{said}"
    );
    assert_eq!(report["overall"], "invalid");
    assert!(count(&report, "answered") >= 99 && count(&report, "unreachable") > 50, "{report}");

    let server = Stalling::start().await;
    let mut load = Load::start(&plain(50, "10m"), &at(&server), &[]);
    server.until_answered(100).await;
    signal(load.child.id().into(), "INT");
    let (code, said, _) = load.end().await;
    let report = load.report();
    assert_eq!(
        (code, &report["ended"], &report["overall"]),
        (1, &json!("interrupted"), &json!("invalid"))
    );
    assert!(count(&report, "answered") >= 99 && said.contains("ENDED EARLY"), "{said}");
}

/// What an operator gets to read, for input that cannot be run.
fn check_refused(scenario: &str, arguments: &[&str], expected: &[&str], code: i32) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scenario.yaml");
    std::fs::write(&file, scenario).unwrap();
    let Output { status, stderr, .. } =
        Command::new(BINARY).args(["load", "run"]).arg(file).args(arguments).output().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    for text in expected {
        assert!(error.contains(text), "{text}: {error}");
    }
    assert_eq!(status.code(), Some(code), "{error}");
}

#[test]
fn what_cannot_be_run_is_told_before_anything_is_asked() {
    let fine = "scenarios: [{name: s, duration: 1s}]";
    check_refused(
        "scenarios: [{name: s, durations: 1s}]",
        &[],
        &["scenarios[0].durations", "`duration`"],
        64,
    );
    check_refused(
        "scenarios: [{name: s, profile: {users: -5}}]",
        &[],
        &["scenarios[0].profile.users"],
        64,
    );
    check_refused(fine, &[], &["--target FILE", "--emulate"], 1);
    check_refused(fine, &["--scale", "0"], &["--scale 0", "over 0"], 1);
    check_refused(fine, &["--scenario", "peak"], &["--scenario", "It has s"], 1);
    // Nobody listens on the port of discard.
    let nobody = ["--url", "http://127.0.0.1:9", "--model", "m"];
    check_refused(fine, &nobody, &["regions[target]", "127.0.0.1:9", "does not answer"], 1);
    let chaos = "scenarios: [{name: s, duration: 9s, chaos_events: [{time: 1s, action: kill_llm_nodes, count: 3}]}]";
    check_refused(chaos, &nobody, &["chaos_events[0].action kill_llm_nodes", "--emulate"], 1);
    let trace = "scenarios: [{name: s, duration: 9s, profile: {trace: /nowhere.csv}}]";
    check_refused(trace, &nobody, &["/nowhere.csv", "`trace`"], 1);
}

/// A small run of every scenario that is shipped, against real pods.
#[test]
fn a_fraction_of_a_shipped_scenario_is_measured_and_never_called_a_pass() {
    if !has_ort() {
        return;
    }
    let dev = Dev::shared();
    let folder = tempfile::tempdir().unwrap();
    let target = json!({
        "model": dev.ready()["model"], "keys": [{"key": dev.ready()["key"], "tenant": "dev"}],
        "admin_token": dev.ready()["admin_token"],
        "regions": [{
            "name": "dev", "url": format!("http://{}", dev.edge()),
            "admin": dev.ready()["admin"].as_str().unwrap().trim_start_matches("http://"),
            "pods": [dev.pod_admin(0), dev.pod_admin(1)],
        }],
    });
    let file = folder.path().join("target.yaml");
    std::fs::write(&file, target.to_string()).unwrap();
    for (name, scale, shorten) in [("baseline", "0.001", "150"), ("peak", "0.0001", "300")] {
        let out = folder.path().join(name);
        let ended = Command::new(BINARY)
            .args(["load", "run", "--scale", scale, "--shorten", shorten])
            .arg(root().join(format!("deploy/load/{name}.yaml")))
            .arg("--target")
            .arg(&file)
            .arg("--out")
            .arg(&out)
            .output()
            .unwrap();
        let said =
            String::from_utf8(ended.stdout).unwrap() + &String::from_utf8_lossy(&ended.stderr);
        let report = std::fs::read_to_string(out.join(format!("{name}.json")));
        let report: Value =
            serde_json::from_str(&report.unwrap_or_else(|_| panic!("{said}"))).unwrap();
        check_report(&report, &said);
        check_page(&out.join(format!("{name}.html")));
    }
}

fn check_report(report: &Value, said: &str) {
    assert_ne!(report["overall"], "pass", "{said}");
    assert!(said.contains("A FRACTION"), "{said}");
    let outcomes = report["all"]["outcomes"].as_object().unwrap();
    let sum: u64 = outcomes.values().map(|count| count.as_u64().unwrap()).sum();
    let due: u64 =
        report["seconds"].as_array().unwrap().iter().map(|one| one["due"].as_u64().unwrap()).sum();
    assert_eq!(sum, due, "each is counted once: {said}");
    assert!(count(report, "answered") > 10, "{said}");
    for wrong in ["refused_4xx", "unreachable", "garbled", "broken_off", "not_sent"] {
        assert_eq!(count(report, wrong), 0, "{wrong}: {said}");
    }
    let rows: Vec<&str> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["metric"].as_str().unwrap())
        .collect();
    assert_eq!(
        rows,
        ["P50 latency", "P99 latency", "error rate", "throughput", "CPU use", "GPU use"]
    );
    assert!(
        report["rows"][4]["value"].as_f64().unwrap() > 0.0,
        "the target's processes say so: {said}"
    );
    assert_eq!(report["rows"][5]["verdict"], "not_measured");
    // What clients were told they used the edge has counted, and purges held.
    let no_loss = &report["criteria"][1];
    assert_eq!(no_loss["criterion"], "no_data_loss");
    assert_ne!(no_loss["verdict"], "missed", "{no_loss}");
    for part in [0, 1, 2] {
        assert_eq!(no_loss["parts"][part]["verdict"], "met", "{no_loss}");
    }
    let streams = report["all"]["inter_token"]["count"].as_u64().unwrap();
    assert!(streams > 0, "streams have tokens behind the first: {said}");
    let need = &report["capacity"][0];
    assert!(
        need["edge_cores"].as_f64().unwrap() > 0.0 && need["pod_cores"].as_f64().unwrap() > 0.0
    );
    let text = report.to_string();
    assert!(!text.contains("nh-dev"), "no key in the report");
}

/// One file: it asks nobody for anything.
fn check_page(page: &Path) {
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.matches("<svg").count() >= 4 && page.contains("</html>"));
    for outside in ["<script", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains("nh-dev"));
}
