//! What `nearhop load` does: scenarios, in the form that capacity plans are written in, and the
//! deployment that they are run against.
//!
//! One file holds one scenario or many, and may hold its target beside them; a target may as well be
//! a file of its own. What a scenario leaves out it takes from the one named `baseline`: that of the
//! same file, else [`Scenario::baseline`].

mod bounds;
mod scenario;
mod target;

use serde_json::Value;

pub use self::{
    bounds::{Bounds, Criterion},
    scenario::{Arrivals, ChaosEvent, LoadProfile, Scenario},
    target::{LoadKey, Target, TargetDns, TargetRegion},
};
use crate::{
    ConfigError,
    reader::{Problems, Section, expand, parse_yaml},
    source::Env,
};

/// More than anybody runs in a row.
const SCENARIOS_MAX: usize = 64;

/// A file of scenarios.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// In the order of the file; at least one.
    pub scenarios: Vec<Scenario>,
    /// What they are run against, where the file says so.
    pub target: Option<Target>,
    /// The share of the users that is there, over 0 and at most 1.
    pub scale: f64,
    /// By how much durations are divided, at least 1.
    pub shorten: f64,
    /// What every choice by chance begins with.
    pub seed: u64,
}

impl LoadPlan {
    /// Reads scenarios from YAML or JSON. `path` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError::NotYaml`], or [`ConfigError::Invalid`] with every mistake in the file.
    pub fn read(text: &str, path: &str, env: Env<'_>) -> Result<Self, ConfigError> {
        whole(text, path, env, |root, problems| {
            let (scenarios, target) = (read_scenarios(root, problems), read_target(root));
            let scale = root.or("scale", scenario::Above(1.0)).0;
            if scale > 1.0 {
                root.problem("scale", "is over 1", "Write the share of the users, such as 0.01");
            }
            let scenario::Above(shorten) = root.or("shorten", scenario::Above(1.0));
            if shorten < 1.0 {
                root.problem("shorten", "is under 1", "Write what to divide durations by, as 10");
            }
            let seed = root.or("seed", 1);
            if scenarios.is_empty() {
                let fix = "Start one with `- name: baseline`";
                problems.add("scenarios", "has no scenario", fix);
            }
            Self { scenarios, target, scale, shorten, seed }
        })
    }
}

impl Target {
    /// Reads a target from a file of its own.
    ///
    /// # Errors
    /// As [`LoadPlan::read`].
    pub fn read(text: &str, path: &str, env: Env<'_>) -> Result<Self, ConfigError> {
        let read = whole(text, path, env, |root, _| target::read(root))?;
        Ok(read.expect("what could not be read was told as a mistake"))
    }
}

/// The file's tree, read by `with`; an error where that told any mistake.
fn whole<T>(
    text: &str,
    path: &str,
    env: Env<'_>,
    with: impl FnOnce(&mut Section<'_>, &Problems) -> T,
) -> Result<T, ConfigError> {
    let mut tree = parse_yaml(text, path)?;
    let problems = Problems::default();
    if !matches!(tree, Value::Object(_)) {
        problems.add("", "is not a mapping", "Begin with `scenarios:`, or with a target's fields");
        tree = Value::Null;
    }
    expand(&mut tree, "", env, &problems);
    let mut root = Section::root(tree, &problems);
    let read = with(&mut root, &problems);
    root.finish();
    match problems.into_list() {
        problems if problems.is_empty() => Ok(read),
        problems => Err(ConfigError::Invalid { path: path.to_owned(), problems }),
    }
}

fn read_target(root: &mut Section<'_>) -> Option<Target> {
    if !root.has("target") {
        return None;
    }
    let mut section = root.section("target");
    let target = target::read(&mut section);
    section.finish();
    target
}

fn read_scenarios(root: &mut Section<'_>, problems: &Problems) -> Vec<Scenario> {
    let sections = root.sections("scenarios");
    if sections.len() > SCENARIOS_MAX {
        let what = format!("has {} scenarios", sections.len());
        root.problem("scenarios", what, format!("List at most {SCENARIOS_MAX}"));
        return Vec::new();
    }
    let mut sections: Vec<Option<Section<'_>>> = sections.into_iter().map(Some).collect();
    // The others take from it, wherever it stands.
    let is_base = |one: &Option<Section<'_>>| {
        one.as_ref().and_then(|one| one.peek("name")).is_some_and(|name| name == "baseline")
    };
    let base_at = sections.iter().position(is_base);
    let built_in = Scenario::baseline();
    let own = base_at.and_then(|at| sections[at].take()).map(|one| scenario::read(one, &built_in));
    let base = own.clone().unwrap_or(built_in);
    let mut scenarios: Vec<Scenario> = Vec::new();
    for section in sections {
        let Some(section) = section else {
            scenarios.extend(own.clone());
            continue;
        };
        let name_at = section.path_of("name");
        let scenario = scenario::read(section, &base);
        if scenarios.iter().any(|earlier| earlier.name == scenario.name) {
            let what = format!("{} is the name of two scenarios", scenario.name);
            problems.add(&name_at, what, "Give each a name of its own");
        }
        scenarios.push(scenario);
    }
    scenarios
}

#[cfg(test)]
mod tests;
