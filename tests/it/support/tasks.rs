//! The tasks of HumanEval-infilling that the repository has.

use serde_json::Value;

use super::process::root;

/// A line that is missing between a prompt and a suffix.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// All before the line, its indentation included.
    pub(crate) prompt: String,
    pub(crate) suffix: String,
    /// Without indentation and line's end.
    pub(crate) line: String,
}

/// Those whose line has at least six characters.
pub(crate) fn tasks() -> Vec<Task> {
    let file = root().join("tests/data/human-eval-infilling-200.jsonl");
    let text = std::fs::read_to_string(file).unwrap();
    let task = |line: &str| {
        let task: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| task[field].as_str().unwrap().to_owned();
        let (prompt, solution) = (text("prompt"), text("canonical_solution"));
        let solution = solution.trim_matches('\n');
        let line = solution.trim_start();
        let indentation = &solution[..solution.len() - line.len()];
        Task {
            prompt: prompt + indentation,
            suffix: text("suffix"),
            line: line.trim_end().to_owned(),
        }
    };
    text.lines().map(task).filter(|task| task.line.len() >= 6).collect()
}
