//! The benchmarks' own programs, small: that they go on working, and what they observe of the edge.
//! Never their times.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::support::process::{BINARY, root, say};

const NEEDED: [&str; 5] = ["python3", "taskset", "nginx", "wrk", "curl"];
const HITS: [&str; 3] = ["L1 hit", "L1 hit, streamed", "L1 hit, typed into"];
const MISSES: [&str; 4] =
    ["miss, streamed", "miss, assembled", "added latency, p50", "added latency, p99"];

fn has_programs() -> bool {
    let env = nearhop_conf::source::process_env;
    let path = env("PATH").unwrap_or_default();
    let missing = NEEDED.iter().find(|name| {
        // Servers are not on everybody's PATH.
        !path.split(':').chain(["/usr/sbin"]).any(|folder| Path::new(folder).join(name).is_file())
    });
    let Some(missing) = missing else {
        return true;
    };
    assert!(env("NEARHOP_REQUIRE_CLIENTS").is_none(), "{missing} is not here: `make setup`");
    say(&format!("SKIPPED: {missing} is not here, the benchmarks were NOT tried: `make setup`"));
    false
}

fn run(arguments: &[&str]) -> Output {
    Command::new("python3")
        .arg(root().join("benches/run.py"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap()
}

/// The rows of `server`, by their names.
fn observed<'a>(suite: &'a Value, server: &str) -> Vec<(&'a str, &'a Value)> {
    let rows = suite["rows"].as_array().unwrap();
    let rows = rows.iter().filter(|row| row["server"] == server);
    rows.map(|row| (row["row"].as_str().unwrap(), row)).collect()
}

#[test]
fn the_gateway_and_its_behaviour_are_measured() {
    if !has_programs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("results.json");
    let suites = ["gateway", "behaviour", "load"];
    let given = ["--small", "--binary", BINARY, "--json", json.to_str().unwrap()];
    let arguments: Vec<&str> = suites.into_iter().chain(given).collect();
    let output = run(&arguments);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    let suites: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let (gateway, behaviour, load) = (&suites[0], &suites[1], &suites[2]);

    for suite in [gateway, behaviour] {
        assert!(suite["peers"]["nginx"].is_string(), "{suite}");
        assert!(suite["skipped"]["envoy"].is_string(), "what was left out is said: {suite}");
        assert!(said.contains("*** SKIPPED: envoy"), "aloud: {said}");
        assert!(suite["machine"]["cores"].as_u64().unwrap() > 0, "{suite}");
    }
    let compared = HITS.map(|row| (row, "nginx-cache")).into_iter();
    for (row, peer) in compared.chain(MISSES.map(|row| (row, "nginx"))) {
        let rows = gateway["rows"].as_array().unwrap();
        let found = rows.iter().find(|found| found["row"] == row && found["peer"] == peer);
        let found = found.unwrap_or_else(|| panic!("no {row} beside {peer}: {gateway}"));
        assert!(found["ours"].is_number() && found["theirs"].is_number(), "{found}");
    }
    let about_us = observed(gateway, "nearhop");
    for start in ["streams without a stall", "resident after start", "resident, 50 idle streams"] {
        let found = about_us.iter().find(|(row, _)| row.starts_with(start));
        assert!(found.is_some_and(|(_, row)| row["value"].is_number()), "{start}: {gateway}");
    }

    let rows = load["rows"].as_array().unwrap();
    let beside_wrk: Vec<&Value> = rows.iter().filter(|row| row["peer"] == "wrk").collect();
    assert_eq!(beside_wrk.len(), 4, "{load}");
    assert!(beside_wrk.iter().all(|row| row["ours"].as_f64().unwrap() > 0.0), "{load}");

    let about_us = observed(behaviour, "nearhop");
    let value = |name: &str| {
        let found = about_us.iter().find(|(row, _)| *row == name);
        &found.unwrap_or_else(|| panic!("no {name}: {behaviour}")).1["value"]
    };
    for row in ["client gone, whole answer: stopped after", "client gone, stream: stopped after"] {
        assert!(value(row).is_number(), "{row}: {}", value(row));
    }
    let times = ["stopped after", "median gap", "longest gap"];
    for (name, row) in &about_us {
        let late = times.iter().any(|time| name.ends_with(time));
        assert!(late || row["verdict"] != "broken", "{row}");
    }
    assert_eq!(value("after 15 x 400, a good request"), 200);
    assert_eq!(value("upstream down, a completion: status"), "200, labelled degraded");
    assert_eq!(value("upstream down, a chat: status"), 503);
    assert_eq!(value("upstream down, a chat: shape"), "OpenAI's");
    assert_eq!(value("malformed JSON: shape"), "OpenAI's");
    assert_eq!(observed(behaviour, "nginx").len(), about_us.len(), "rows are the same for all");
}

#[test]
fn every_program_can_be_read() {
    if !has_programs() {
        return;
    }
    let output = Command::new("python3")
        .args(["-m", "compileall", "-q", "-f", "benches"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_suite_that_is_not_there_is_named() {
    if !has_programs() {
        return;
    }
    let output = run(&["gatewey"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("no suite gatewey"), "{said}");
}
