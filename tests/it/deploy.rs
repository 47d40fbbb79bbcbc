//! What lies in `deploy/` fits what the roles export.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use crate::support::process::{root, say};

/// Metrics of ours, and of other servers that pods export as well.
const PREFIXES: [&str; 6] =
    ["nearhop_", "gen_ai_", "vllm:", "llm_inference_", "completion_", "job"];
/// What Prometheus adds to the name of a histogram.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names in a query that look like metrics.
fn metrics(text: &str) -> BTreeSet<String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !in_name(c)).map(|word| word.trim_end_matches(':'));
    let ours = |word: &&str| {
        PREFIXES.iter().any(|prefix| word.starts_with(prefix))
            && (word.contains(':') || word.matches('_').count() > 1)
    };
    words
        .filter(ours)
        .map(|word| {
            let part = PARTS.iter().find_map(|part| word.strip_suffix(part));
            part.unwrap_or(word).to_owned()
        })
        .collect()
}

/// The queries of a file of rules or of a dashboard.
fn queries(path: &str) -> String {
    let text = read(path);
    let values: serde_json::Value = match path.ends_with(".json") {
        true => serde_json::from_str(&text).unwrap(),
        false => {
            return text
                .lines()
                .filter(|line| !line.trim_start().starts_with('#'))
                .collect::<Vec<_>>()
                .join("\n");
        }
    };
    let (mut found, mut next) = (String::new(), vec![&values]);
    while let Some(value) = next.pop() {
        if let Some(query) = value.get("expr").and_then(serde_json::Value::as_str) {
            found += query;
            found.push('\n');
        }
        match value {
            serde_json::Value::Array(items) => next.extend(items),
            serde_json::Value::Object(fields) => next.extend(fields.values()),
            _ => {}
        }
    }
    assert!(found.lines().count() > 10, "{path} asks for nothing");
    found
}

/// Every metric that the sources declare.
fn declared() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders: Vec<PathBuf> =
        vec![root().join("proxy/src"), root().join("origin-inference/src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(path).unwrap();
                found.extend(text.split('"').skip(1).step_by(2).map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn rules_and_dashboards_ask_for_what_is_there() {
    let mut there = declared();
    let recorded = read("deploy/prometheus/rules.yaml");
    there.extend(
        recorded.lines().filter_map(|line| Some(line.split_once("record: ")?.1.to_owned())),
    );
    let files = [
        "deploy/prometheus/alerts.yaml",
        "deploy/prometheus/rules.yaml",
        "deploy/grafana/pods.json",
        "deploy/grafana/edge.json",
    ];
    let mut asked = 0;
    for file in files {
        let missing: Vec<String> = metrics(&queries(file))
            .into_iter()
            .inspect(|_| asked += 1)
            .filter(|name| !there.contains(name))
            .collect();
        assert!(missing.is_empty(), "{file} asks for metrics that nobody exports: {missing:?}");
    }
    assert!(asked > 60, "{asked} names were found");
    assert!(!there.contains("nearhop_no_such_thing"));
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    let run = |arguments: &[&str]| {
        Command::new("promtool")
            .args(arguments)
            .current_dir(root().join("deploy/prometheus"))
            .output()
    };
    let required = nearhop_conf::source::process_env("NEARHOP_REQUIRE_CLIENTS").is_some();
    let Ok(checked) = run(&["check", "rules", "rules.yaml", "alerts.yaml"]) else {
        assert!(!required, "promtool is missing: `make setup`");
        say("SKIPPED: promtool is not here, alerts were NOT tested: `make setup`");
        return;
    };
    let words = |output: &std::process::Output| {
        String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat())
            .into_owned()
    };
    assert!(checked.status.success(), "{}", words(&checked));
    let tested = run(&["test", "rules", "alerts_test.yaml"]).unwrap();
    assert!(tested.status.success(), "{}", words(&tested));
}
