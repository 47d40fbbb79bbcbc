//! The last known states on disk, so that a node that starts alone knows them. Best effort: without
//! the file every region is unknown, and used.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

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

/// The file, and what is in it as far as it was written from here.
pub(super) struct Memory {
    file: Option<PathBuf>,
    written: Mutex<Written>,
}

struct Written {
    bytes: Vec<u8>,
    failing: bool,
}

impl Memory {
    pub(super) fn new(file: Option<&Path>) -> Self {
        // As long as nothing is known there is nothing to keep.
        let written = Written { bytes: to_bytes(&BTreeMap::new()), failing: false };
        Self { file: file.map(Path::to_owned), written: Mutex::new(written) }
    }

    /// Keeps what is known, unless the file has it; so what a full disk refused is written when there
    /// is space again.
    pub(super) fn keep(&self, states: &BTreeMap<String, State>) {
        let Some(file) = &self.file else { return };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = to_bytes(states);
        if bytes == written.bytes {
            return;
        }
        match write(file, &bytes) {
            Ok(()) => *written = Written { bytes, failing: false },
            Err(error) => {
                // Said once: it is tried again with each exchange.
                if !std::mem::replace(&mut written.failing, true) {
                    tracing::warn!(%error, file = %file.display(), "health.state_file cannot be written");
                }
            }
        }
    }
}

fn to_bytes(states: &BTreeMap<String, State>) -> Vec<u8> {
    let known = states.iter().filter(|(_, state)| state.health != Health::Unknown);
    let kept: BTreeMap<&String, Kept> = known
        .map(|(name, state)| {
            (name, Kept { down: state.health == Health::Down, moved: state.moved })
        })
        .collect();
    serde_json::to_vec(&kept).expect("names and numbers become JSON")
}

/// In one step.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    std::fs::write(&new, bytes)?;
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
        Memory::new(Some(&file)).keep(&states);
        let mut expected = states;
        expected.remove("c");
        assert_eq!(recall(&file), expected);
        std::fs::write(&file, "{").unwrap();
        assert!(recall(&file).is_empty());
    }
    #[test]
    fn what_could_not_be_written_is_written_later_and_what_is_there_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("later/health.json");
        let states =
            |health| BTreeMap::from([("a".to_owned(), State { health, ..State::default() })]);
        let memory = Memory::new(Some(&file));
        memory.keep(&states(Health::Down));
        std::fs::create_dir(folder.path().join("later")).unwrap();
        memory.keep(&states(Health::Unknown));
        assert!(!file.exists(), "nothing is known");
        memory.keep(&states(Health::Down));
        assert_eq!(recall(&file), states(Health::Down));
        std::fs::remove_file(&file).unwrap();
        memory.keep(&states(Health::Down));
        assert!(!file.exists(), "it was written before");
    }
}
