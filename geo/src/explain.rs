//! A decision in words, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{AllDown, Decision, Health, Query, State, Tally, World};

const fn health(state: &State) -> &'static str {
    match state.health {
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Down => "down",
    }
}

/// What is known of a region as JSON; `load` is its use.
pub(crate) fn state_of(state: &State) -> Value {
    let votes = |votes: Tally| json!({"up": votes.up, "down": votes.down, "silent": votes.silent});
    json!({
        "health": health(state),
        "votes": state.votes.map(votes),
        "load": state.used,
        "moved": state.moved,
    })
}

/// A decision with its reasons as JSON: `name`, `region`, `answers`, `candidates` and what led to
/// them. Distances are in kilometres.
#[must_use]
pub fn explanation(query: &Query<'_>, world: &World, decision: &Decision, ttl_s: u64) -> Value {
    let candidates: Vec<Value> = decision
        .candidates
        .iter()
        .map(|candidate| {
            let mut said = state_of(&candidate.state);
            let more = json!({
                "region": candidate.id.as_str(),
                "verdict": candidate.verdict.name(),
                "tier": candidate.tier,
                "distance_km": candidate.distance_km.map(f64::round),
                "biased_km": candidate.biased_km.map(f64::round),
                "weight": world.regions()[candidate.region].weight,
                "score": candidate.score,
            });
            if let (Some(said), Value::Object(more)) = (said.as_object_mut(), more) {
                said.extend(more);
            }
            said
        })
        .collect();
    json!({
        "name": query.service,
        "region": decision.region().map(|region| region.id.as_str()),
        "answers": decision.answers,
        "ttl": ttl_s,
        "scope": decision.scope,
        "address": query.address,
        "source": query.source.name(),
        "prefix": format!("{}/{}", decision.prefix.address, decision.prefix.bits),
        "place": decision.place.map(|place| [place.latitude, place.longitude]),
        "located": world.is_located(),
        "override": decision.by_override,
        "all_down": decision.all_down,
        "candidates": candidates,
    })
}

/// The same for people.
#[must_use]
pub fn narration(query: &Query<'_>, world: &World, decision: &Decision, ttl_s: u64) -> String {
    let mut out = String::new();
    let answers: Vec<String> = decision.answers.iter().map(ToString::to_string).collect();
    let region = decision.region().map_or("no region", |region| region.id.as_str());
    let answers = if answers.is_empty() { "nothing".to_owned() } else { answers.join(", ") };
    let _ = writeln!(out, "{} for {} → {region}: {answers}", query.service, query.address);
    let place = match (decision.place, world.is_located()) {
        (Some(place), _) => format!("at {:.1}, {:.1}", place.latitude, place.longitude),
        (None, true) => "not in the database".to_owned(),
        (None, false) => "there is no database: weights and overrides decide".to_owned(),
    };
    let _ = writeln!(out, "  address   {}, {place}", query.source.name());
    let prefix = decision.prefix;
    let _ = writeln!(
        out,
        "  holds for /{} and {ttl_s} s; clients of {}/{} always go together",
        decision.scope, prefix.address, prefix.bits
    );
    if let Some(at) = decision.by_override {
        let _ = writeln!(out, "  order     named by dns.overrides[{at}]");
    }
    if decision.all_down {
        let policy = match &world.settings().all_down {
            AllDown::Nearest => "the nearest all the same",
            AllDown::NoData => "nothing",
            AllDown::Fallback(_) => "the fallback's addresses",
        };
        let _ = writeln!(out, "  every region is out: {policy}");
    }
    for candidate in &decision.candidates {
        let distance = match (candidate.distance_km, candidate.biased_km) {
            (Some(km), Some(biased)) if (km - biased).abs() >= 1.0 => {
                format!("{km:.0} km, counted as {biased:.0}")
            }
            (Some(km), _) => format!("{km:.0} km"),
            (None, _) => "distance unknown".to_owned(),
        };
        let mut why = format!(
            "tier {}, {distance}, health {}, score {:.2}",
            candidate.tier,
            health(&candidate.state),
            candidate.score
        );
        if let Some(votes) = candidate.state.votes {
            let _ = write!(
                why,
                ", votes {} up, {} down, {} silent",
                votes.up, votes.down, votes.silent
            );
        }
        if let Some(used) = candidate.state.used {
            let _ = write!(why, ", load {:.0} %", used * 100.0);
        }
        if candidate.state.moved > 0.0 {
            let _ = write!(why, ", {:.0} % of its clients moved", candidate.state.moved * 100.0);
        }
        let _ =
            writeln!(out, "  {:<9} {:<12} {why}", candidate.verdict.name(), candidate.id.as_str());
    }
    out
}
