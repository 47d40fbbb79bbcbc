//! The chaos scenario that is shipped, made small: GeoDNS, edges and pods of three regions as real
//! processes, users who resolve and ask, pods that are killed and a region that is cut off.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use nearhop_emulator::Emulator;
use serde_json::Value;

use crate::support::process::{BINARY, has_ort, root, say, soaking};

/// Says aloud where regions cannot be had.
fn has_regions() -> bool {
    let missing = Emulator::start(&["probe"]).err();
    let Some(error) = missing else { return true };
    let required = nearhop_conf::source::process_env("NEARHOP_REQUIRE_CLIENTS").is_some();
    assert!(!required, "{error}");
    say(&format!("SKIPPED: regions cannot be had here, the chaos scenario was NOT run: {error}"));
    false
}

#[test]
fn users_go_on_while_pods_die_and_a_region_is_cut_off() {
    if !has_ort() || !has_regions() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shipped = std::fs::read_to_string(root().join("deploy/load/chaos.yaml")).unwrap();
    // Who is cut off waits that long for an answer.
    let patient = shipped.replace("users: 200,000", "users: 200,000\n      timeout: 10s");
    assert_ne!(patient, shipped);
    let file = folder.path().join("chaos.yaml");
    std::fs::write(&file, patient).unwrap();
    let (scale, shorten) = if soaking() { ("0.0008", "10") } else { ("0.0004", "40") };
    let ended = Command::new(BINARY)
        .args(["load", "run", "--emulate", "--quiet", "--scale", scale, "--shorten", shorten])
        .arg(&file)
        .arg("--out")
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    let report = std::fs::read_to_string(folder.path().join("chaos.json"));
    let report: Value = serde_json::from_str(&report.unwrap_or_else(|_| panic!("{said}"))).unwrap();
    if soaking() {
        say(&said);
    }
    check(&report, &said);
}

fn check(report: &Value, said: &str) {
    assert_eq!(report["ended"], "finished", "{said}");
    let events = report["events"].as_array().unwrap();
    let event = |what: &str, text: &str| {
        let is = |one: &&Value| one["what"] == what && one["said"].as_str().unwrap().contains(text);
        let found = events.iter().find(is).unwrap_or_else(|| panic!("{what} {text}: {said}"));
        found["at_s"].as_f64().unwrap()
    };
    event("kill_llm_nodes", "killed us-west/pod-1, eu-west/pod-1, ap-south/pod-1");
    let cut = event("network_partition", "us-west");
    event("undo", "started us-west/pod-1");

    // The clients of the region that was cut off are sent elsewhere, and answered there.
    let is_moved = |one: &&Value| {
        one["what"] == "way"
            && one["said"].as_str().unwrap().starts_with("clients of us-west")
            && one["at_s"].as_f64().unwrap() > cut
    };
    assert!(events.iter().any(|one| is_moved(&one)), "{said}");
    let outcome = |region: &str, name: &str| {
        let all = report["regions"].as_array().unwrap();
        let one = all.iter().find(|one| one["name"] == region).unwrap();
        one["outcomes"][name].as_u64().unwrap()
    };
    for region in ["us-west", "eu-west", "ap-south"] {
        assert!(outcome(region, "answered") > 2, "{region}: {said}");
    }
    // Of the others nobody saw more of it than a slower answer.
    for region in ["eu-west", "ap-south"] {
        for wrong in ["unreachable", "broken_off", "garbled", "refused_4xx", "failed_5xx"] {
            assert_eq!(outcome(region, wrong), 0, "{region} {wrong}: {said}");
        }
    }
    let seconds = report["seconds"].as_array().unwrap();
    let due: u64 = seconds.iter().map(|one| one["due"].as_u64().unwrap()).sum();
    let outcomes = report["all"]["outcomes"].as_object().unwrap();
    assert_eq!(outcomes.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), due);
    for part in [1, 2] {
        let loss = &report["criteria"][1]["parts"][part];
        assert_eq!(loss["verdict"], "met", "neither usage nor a purge is lost: {loss}");
    }
    assert_ne!(report["overall"], "pass", "it was a fraction");
    let took = Duration::from_secs_f64(report["took_s"].as_f64().unwrap());
    say(&format!("chaos took {took:.0?}; {}", report["all"]["outcomes"]));
}
