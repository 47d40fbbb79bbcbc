use std::time::Duration;

use super::{Arrivals, Bounds, Criterion, LoadPlan, Scenario, Target};
use crate::ConfigError;

fn plan(text: &str) -> Result<LoadPlan, ConfigError> {
    LoadPlan::read(text, "test.yaml", &|_| None)
}

fn one(text: &str) -> Scenario {
    plan(text).unwrap().scenarios.remove(0)
}

/// The first mistake's path and what it says.
#[track_caller]
fn check_mistake(text: &str, path: &str, what: &str) {
    let Err(ConfigError::Invalid { problems, .. }) = plan(text) else { panic!("{text} is taken") };
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(
        problems.iter().any(|one| one.path == path && one.to_string().contains(what)),
        "{told:#?}"
    );
}

const WRITTEN: &str = r#"
scenarios:
  - name: baseline
    description: Normal weekday traffic
    duration: 30m
    profile:
      users: 100,000
      requests_per_user_per_hour: 200
      completion_type_distribution: {inline: 0.70, fim: 0.15, chat: 0.10, agent: 0.05}
  - name: peak
    duration: 30m
    profile: {users: "300,000", requests_per_user_per_hour: 300, spike_factor: 2.0}
  - name: stress
    description: Beyond expected capacity
    duration: 15m
    profile:
      users: 500_000
      requests_per_user_per_hour: 400
    success_criteria:
      - graceful_degradation: true
      - no_data_loss: true
  - name: chaos
    duration: 20m
    profile:
      users: 200,000
    chaos_events:
      - time: 10m
        action: network_partition
        region: us-west
      - time: 5m
        action: kill_llm_nodes
        count: 3
"#;

#[test]
fn scenarios_are_taken_as_plans_have_them() {
    let [baseline, peak, stress, chaos] = plan(WRITTEN).unwrap().scenarios.try_into().unwrap();
    assert_eq!(baseline, Scenario::baseline());
    let rates = [&baseline, &peak, &stress, &chaos].map(|one| one.profile.rate().round());
    assert_eq!(rates, [5556.0, 50_000.0, 55_556.0, 11_111.0]);
    assert_eq!(peak.bounds, Bounds::named("peak"));
    assert_eq!(stress.criteria, [Criterion::GracefulDegradation, Criterion::NoDataLoss]);
    assert_eq!(stress.profile.mix, baseline.profile.mix, "taken from baseline");
    assert_eq!(chaos.bounds, baseline.bounds);
    let events: Vec<_> = chaos.chaos.iter().map(|one| (one.at.as_secs(), one.count)).collect();
    assert_eq!(events, [(300, Some(3)), (600, None)], "in order of time");
    assert_eq!(chaos.chaos[1].region.as_deref(), Some("us-west"));
}

#[test]
fn what_is_shipped_is_what_is_built_in() {
    let read = |name: &str| {
        let file = format!("{}/../deploy/load/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        one(&std::fs::read_to_string(file).unwrap())
    };
    assert_eq!(read("baseline"), Scenario::baseline());
    let written = plan(WRITTEN).unwrap().scenarios;
    for name in ["peak", "stress", "chaos"] {
        let shipped = read(name);
        let same = written.iter().find(|one| one.name == name).unwrap();
        assert_eq!((&shipped.profile, shipped.bounds), (&same.profile, same.bounds), "{name}");
        assert_eq!(shipped.chaos, same.chaos);
    }
    let file = format!("{}/../deploy/load/target-dev.yaml", env!("CARGO_MANIFEST_DIR"));
    let target = Target::read(&std::fs::read_to_string(file).unwrap(), "dev", &|_| None).unwrap();
    assert_eq!((target.model.as_str(), target.regions.len()), ("nearhop-mini", 1));
}

#[test]
fn others_take_from_the_baseline_of_their_file_wherever_it_stands() {
    let text = "scenarios: [{name: a}, {name: baseline, duration: 2m, profile: {users: 7}, bounds: {error_rate: <2%}}]";
    let [a, baseline] = plan(text).unwrap().scenarios.try_into().unwrap();
    assert_eq!((a.duration, a.profile.users), (Duration::from_secs(120), 7));
    assert_eq!((a.name.as_str(), baseline.name.as_str()), ("a", "baseline"));
    assert!((a.bounds.error_rate - 0.02).abs() < 1e-9);
}

#[test]
fn arrivals_may_be_even_or_a_trace() {
    let of = |text: &str| {
        one(&format!("scenarios: [{{name: a, profile: {{{text}}}}}]")).profile.arrivals
    };
    assert_eq!(of("users: 1"), Arrivals::Poisson);
    assert_eq!(of("arrivals: even"), Arrivals::Even);
    assert_eq!(of("trace: code.csv.gz"), Arrivals::Trace("code.csv.gz".into()));
}

#[test]
fn mistakes_name_the_field_and_the_fix() {
    let profile = |text: &str| format!("scenarios: [{{name: a, profile: {{{text}}}}}]");
    for (text, path, what) in [
        (profile("users: 0"), "scenarios[0].profile.users", "Write a whole number of at least 1"),
        (profile("users: '1,00'"), "scenarios[0].profile.users", "such as 100000 or 100,000"),
        (profile("user: 5"), "scenarios[0].profile.user", "Did you mean `users`?"),
        (profile("spike_factor: 0.5"), "scenarios[0].profile.spike_factor", "under 1"),
        (profile("requests_per_user_per_hour: -1"), "scenarios[0].profile.requests_per_user_per_hour", "over 0"),
        (profile("requests_per_user_per_hour: 1e9"), "scenarios[0].profile.users", "requests a second"),
        (profile("completion_type_distribution: {inline: 0.7}"), "scenarios[0].profile.completion_type_distribution", "adds up to 0.7"),
        (profile("completion_type_distribution: {tab: 1}"), "scenarios[0].profile.completion_type_distribution.tab", "Known here"),
        (profile("arrivals: trace"), "scenarios[0].profile.trace", "Name the CSV file"),
        ("scenarios: [{name: a, duration: 5}]".to_owned(), "scenarios[0].duration", "a duration"),
        ("scenarios: [{name: a}, {name: a}]".to_owned(), "scenarios[1].name", "two scenarios"),
        ("scenarios: []".to_owned(), "scenarios", "has no scenario"),
        ("scenarios: [{name: a}]\nscale: 2".to_owned(), "scale", "over 1"),
        ("scenarios: [{name: a}]\nshorten: 0.5".to_owned(), "shorten", "under 1"),
        ("scenarios: [{name: a, duration: 1m, chaos_events: [{time: 1m, action: x}]}]".to_owned(), "scenarios[0].chaos_events[0].time", "after the end"),
        ("scenarios: [{name: a, success_criteria: [{graceful: true}]}]".to_owned(), "scenarios[0].success_criteria[0].graceful", "Known here"),
        ("scenarios: [{name: a, bounds: {p99_latency: 1ms}}]".to_owned(), "scenarios[0].bounds", "under p50_latency"),
        ("scenarios: [{name: a}]\ntarget: {model: m, regions: [{name: x, url: 'http://h/v1'}]}".to_owned(), "target.regions[0].url", "without a path"),
        ("scenarios: [{name: a}]\ntarget: {model: m, regions: []}".to_owned(), "target.regions", "has no region"),
        ("scenarios: [{name: a}]\ntarget: {model: m, regions: [{name: x, url: 'http://h'}], dns: {name: c.example.com, servers: ['1.2.3.4:53']}}".to_owned(), "target.regions", "clients"),
        ("scenarios: [{name: a}]\ntarget: {model: m, keys: [{weight: 1}], regions: [{name: x, url: 'http://h'}]}".to_owned(), "target.keys[0].key", "missing"),
    ] {
        check_mistake(&text, path, what);
    }
    let one_by_one = one(
        "scenarios: [{name: a, success_criteria: [{p50_latency: <350ms}, {p99_latency: <900ms}]}]",
    );
    assert_eq!(one_by_one.bounds.p99_latency, Duration::from_millis(900));
    check_mistake("scenarios: [{name: ../a}]", "scenarios[0].name", "cannot name a file");
    assert!(matches!(plan("scenarios: ["), Err(ConfigError::NotYaml { .. })));
    check_mistake("[]", "", "is not a mapping");
}
