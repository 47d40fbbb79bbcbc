//! Places in files, and lines that are missing there: what people ask about.

use serde::Deserialize;

/// A line that is missing between what is before and after it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) before: String,
    pub(crate) after: String,
    /// Without indentation and line's end.
    pub(crate) line: String,
}

/// HumanEval's single-line infilling tasks (MIT, tests/data/LICENSE.human-eval-infilling).
const TASKS: &str = include_str!("../../tests/data/human-eval-infilling-200.jsonl");

#[derive(Deserialize)]
struct Task {
    prompt: String,
    suffix: String,
    canonical_solution: String,
}

/// All places whose line has at least six characters.
///
/// # Panics
/// Never: the file is part of the program, and a test reads it.
pub(crate) fn places() -> Vec<Place> {
    let place = |line: &str| {
        let task: Task = serde_json::from_str(line).expect("the tasks are JSON lines");
        let solution = task.canonical_solution.trim_matches('\n');
        let line = solution.trim_start();
        let indentation = &solution[..solution.len() - line.len()];
        let before = task.prompt + indentation;
        Place { before, after: task.suffix, line: line.trim_end().to_owned() }
    };
    TASKS.lines().map(place).filter(|place| place.line.len() >= 6).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_places_to_ask_about() {
        let places = super::places();
        assert!(places.len() > 150, "{}", places.len());
        assert!(places.iter().all(|place| !place.before.is_empty() && !place.line.contains('\n')));
    }
}
