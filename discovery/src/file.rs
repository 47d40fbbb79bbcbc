//! A list of pods in a file.
//!
//! Absent on purpose: inotify. It says nothing of files that are mounted from elsewhere, and of
//! links that are swapped above the file, as Kubernetes does with its volumes; looking costs one
//! system call.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use nearhop_admin::tls::Files;
use nearhop_conf::read_pods;
use tokio::time::sleep;

use crate::source::{Found, Source};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// Far more than the longest list that [`read_pods`] takes.
const BYTES_MAX: u64 = 1 << 20;

/// A file that is watched.
pub(crate) struct File {
    path: PathBuf,
    name: String,
    files: Files,
    /// What was told last.
    told: Option<Vec<Found>>,
    /// It was not read since it changed, or could not be.
    pending: bool,
    /// What is wrong, as it was logged.
    trouble: Option<String>,
}

impl File {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            name: path.display().to_string(),
            // Before it is read: what is written in between is seen as a change.
            files: Files::new(vec![path.clone()]),
            path,
            told: None,
            pending: true,
            trouble: None,
        }
    }

    /// The pods, where they are others than before.
    fn look(&mut self) -> Option<Vec<Found>> {
        self.pending |= self.files.changed();
        if !self.pending {
            return None;
        }
        match read(&self.path, &self.name) {
            Ok(pods) => {
                self.pending = false;
                if self.trouble.take().is_some() {
                    tracing::info!(file = self.name, "the list of pods can be read again");
                }
                (self.told.as_ref() != Some(&pods)).then(|| {
                    self.told = Some(pods.clone());
                    pods
                })
            }
            Err(trouble) => {
                // Tried again even if the file stays: its permissions may change, which shows nowhere.
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(
                        file = self.name,
                        error = trouble,
                        "the list of pods cannot be read; the pods known stay"
                    );
                    self.trouble = Some(trouble);
                }
                None
            }
        }
    }
}

#[async_trait]
impl Source for File {
    fn name(&self) -> &str {
        &self.name
    }

    async fn next(&mut self) -> Vec<Found> {
        loop {
            if let Some(pods) = self.look() {
                return pods;
            }
            sleep(LOOK).await;
        }
    }
}

/// The file's pods, or every mistake in it.
fn read(path: &Path, name: &str) -> Result<Vec<Found>, String> {
    let text = read_text(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let pods = read_pods(&text, name).map_err(|error| error.to_string())?;
    Ok(pods.into_iter().map(|pod| Found { name: pod.name, address: pod.address }).collect())
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= BYTES_MAX => Ok(text),
        _ => Err(io::Error::other(format!("it has more than {BYTES_MAX} bytes"))),
    }
}

#[cfg(test)]
mod tests;
