//! Does what a scenario says fails: by the emulator's socket, or by a program of the operator's own.

use std::{process::Stdio, time::Duration};

use nearhop_conf::{ChaosEvent, Target};
use serde_json::{Map, Value};

use crate::{action::Action, control};

/// A program of the operator's may take so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is wrong with a scenario's events, before anything is asked.
///
/// # Errors
/// Which action the target cannot do, and what would let it.
pub(crate) fn check(events: &[ChaosEvent], target: &Target) -> Result<(), String> {
    for (at, event) in events.iter().enumerate() {
        if target.actions.contains_key(&event.action) {
            continue;
        }
        let fix = match target.control {
            Some(_) => match action(event) {
                Ok(_) => continue,
                Err(error) => error,
            },
            None => format!(
                "the target cannot do it: run with --emulate, or add `actions: {{{}: [PROGRAM, …]}}` to the target",
                event.action
            ),
        };
        return Err(format!("chaos_events[{at}].action {}: {fix}", event.action));
    }
    Ok(())
}

/// Does it, and says what was done.
///
/// # Errors
/// What went wrong, for the report.
pub(crate) async fn perform(event: &ChaosEvent, target: &Target) -> Result<String, String> {
    if let Some(program) = target.actions.get(&event.action) {
        return run(program, event).await;
    }
    let control = target.control.as_ref().ok_or("the target has no `control`")?;
    control::ask(control, &action(event)?).await.map_err(|error| error.to_string())
}

fn action(event: &ChaosEvent) -> Result<Action, String> {
    let mut fields = Map::new();
    fields.insert("action".to_owned(), event.action.clone().into());
    if let Some(count) = event.count {
        fields.insert("count".to_owned(), count.into());
    }
    if let Some(region) = &event.region {
        fields.insert("region".to_owned(), region.clone().into());
    }
    if let Some(delay) = event.delay {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        fields.insert("delay_ms".to_owned(), millis.into());
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
}

async fn run(program: &[String], event: &ChaosEvent) -> Result<String, String> {
    let (name, arguments) = program.split_first().ok_or("the action names no program")?;
    let text = |number: Option<u128>| number.map_or_else(String::new, |number| number.to_string());
    let child = tokio::process::Command::new(name)
        .args(arguments)
        .env("NEARHOP_COUNT", text(event.count.map(u128::from)))
        .env("NEARHOP_REGION", event.region.as_deref().unwrap_or_default())
        .env("NEARHOP_DELAY_MS", text(event.delay.map(|delay| delay.as_millis())))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(PATIENCE, child).await;
    let ended = ended.map_err(|_late| format!("{name} took over {} s", PATIENCE.as_secs()))?;
    let ended = ended.map_err(|error| format!("{name} cannot be run: {error}"))?;
    let said =
        String::from_utf8_lossy(if ended.status.success() { &ended.stdout } else { &ended.stderr });
    let line = said.lines().last().unwrap_or_default().to_owned();
    match ended.status.success() {
        true if line.is_empty() => Ok(format!("{name} is done")),
        true => Ok(line),
        false => Err(format!("{name} ended with {}: {line}", ended.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(more: &str) -> Target {
        let text = format!("{{model: m, regions: [{{name: x, url: 'http://h'}}]{more}}}");
        Target::read(&text, "test", &|_| None).unwrap()
    }

    fn event(action: &str) -> ChaosEvent {
        let (count, region) = (Some(3), Some("us-west".to_owned()));
        ChaosEvent { at: Duration::ZERO, action: action.to_owned(), count, region, delay: None }
    }

    #[test]
    fn what_a_target_cannot_do_is_told_before_anything_is_asked() {
        let told = check(&[event("kill_llm_nodes")], &target("")).unwrap_err();
        assert!(told.contains("--emulate") && told.contains("chaos_events[0]"), "{told}");
        let emulated = target(", control: /nowhere.sock");
        assert_eq!(check(&[event("kill_llm_nodes")], &emulated), Ok(()));
        let told = check(&[event("kill_everything")], &emulated).unwrap_err();
        assert!(told.contains("kill_llm_nodes"), "{told}");
    }

    #[tokio::test]
    async fn a_program_of_the_operators_finds_what_to_do_in_its_environment() {
        let of = |script: &str| target(&format!(", actions: {{x: [sh, -c, '{script}']}}"));
        let said = perform(&event("x"), &of("echo $NEARHOP_COUNT pods of $NEARHOP_REGION")).await;
        assert_eq!(said.as_deref(), Ok("3 pods of us-west"));
        let said = perform(&event("x"), &of("echo no >&2; exit 3")).await.unwrap_err();
        assert!(said.contains("exit status: 3: no"), "{said}");
    }
}
