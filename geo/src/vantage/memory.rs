//! The last known states on disk, so that a node that starts alone knows them. Best effort: without
//! the file every region is unknown, and used.

use std::{collections::BTreeMap, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Health, State};

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    down: bool,
    moved: f64,
}

/// What was kept; nothing where there is no file yet, or one of which nothing can be made.
pub(super) fn recall(file: &Path) -> BTreeMap<String, State> {
    let kept: io::Result<BTreeMap<String, Kept>> =
        std::fs::read(file).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    let kept = kept.unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(%error, file = %file.display(), "health.state_file cannot be read; every region is unknown");
        }
        BTreeMap::new()
    });
    let state = |kept: Kept| State {
        health: if kept.down { Health::Down } else { Health::Up },
        moved: if kept.moved.is_finite() { kept.moved.clamp(0.0, 1.0) } else { 0.0 },
        ..State::default()
    };
    kept.into_iter().map(|(name, kept)| (name, state(kept))).collect()
}

/// Keeps what is known, in one step.
pub(super) fn keep(file: &Path, states: &BTreeMap<String, State>) -> io::Result<()> {
    let known = states.iter().filter(|(_, state)| state.health != Health::Unknown);
    let kept: BTreeMap<&String, Kept> = known
        .map(|(name, state)| {
            (name, Kept { down: state.health == Health::Down, moved: state.moved })
        })
        .collect();
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, serde_json::to_vec(&kept)?)?;
    std::fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_known_again_and_a_broken_file_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("health.json");
        assert!(recall(&file).is_empty());
        let down = State { health: Health::Down, moved: 0.25, ..State::default() };
        let up = State { health: Health::Up, ..State::default() };
        let states = BTreeMap::from([
            ("a".to_owned(), down),
            ("b".to_owned(), up),
            ("c".to_owned(), State::default()),
        ]);
        keep(&file, &states).unwrap();
        let mut expected = states;
        expected.remove("c");
        assert_eq!(recall(&file), expected);
        std::fs::write(&file, "{").unwrap();
        assert!(recall(&file).is_empty());
    }
}
