//! The tier outlives the process: written to its file now and then, after each purge and at the end;
//! read at the start. And what is too old goes.

use std::{
    io,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use nearhop_admin::clock;
use tokio::{sync::watch, time::interval};

use super::Semantic;
use crate::phase::Shared;

/// From one look to the next.
const LOOK: Duration = Duration::from_secs(60);
/// No answer is kept for longer, fresh or not.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Semantic {
    /// Takes what the last process wrote.
    pub(crate) fn load(&self) {
        let Some(path) = &self.settings.snapshot else { return };
        match self.cache.load(path, clock::since_epoch()) {
            Ok(loaded) if loaded.answers > 0 || loaded.whole => tracing::info!(
                answers = loaded.answers,
                whole = loaded.whole,
                "the semantic cache goes on with what its snapshot holds"
            ),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the semantic cache's snapshot cannot be read");
            }
        }
    }

    /// Writes what is held.
    pub(crate) fn save(&self) {
        if let Err((path, error)) = self.write(false) {
            tracing::warn!(path = %path.display(), %error, "the semantic cache's snapshot cannot be written");
        }
    }

    /// Writes it for a new process, which alone writes it from now on; or, where that does not serve,
    /// takes that back.
    pub(crate) fn retire(&self, retired: bool) {
        self.save();
        *self.retired.lock().unwrap_or_else(PoisonError::into_inner) = retired;
    }

    fn write(&self, or_delete: bool) -> Result<(), (&Path, io::Error)> {
        let Some(path) = &self.settings.snapshot else { return Ok(()) };
        // What is in it is a word.
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        if *retired {
            return Ok(());
        }
        match self.cache.save(path) {
            Ok(_answers) => Ok(()),
            Err(error) if or_delete => {
                tracing::warn!(%error, "the semantic cache's snapshot is deleted: it holds what was purged, and cannot be written anew");
                std::fs::remove_file(path).map_err(|error| (path.as_path(), error))
            }
            Err(error) => Err((path, error)),
        }
    }

    /// Drops what was purged, from the file as well: what is purged must not come back with the next
    /// process.
    pub(crate) fn sweep(&self) -> usize {
        let dropped = self.cache.sweep(KEPT, clock::since_epoch());
        if dropped > 0
            && let Err((path, error)) = self.write(true)
        {
            tracing::error!(path = %path.display(), %error, "the snapshot holds what was purged and cannot be deleted; delete it by hand");
        }
        dropped
    }
}

/// Keeps the file true until `closing` says so, and writes it a last time.
pub(crate) async fn keep(shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    let mut tick = interval(LOOK);
    // At once it would write what was just read.
    tick.tick().await;
    loop {
        let ends = tokio::select! {
            _ = tick.tick() => false,
            _ = closing.wait_for(|closing| *closing) => true,
        };
        let shared = Arc::clone(&shared);
        // Away from the threads that answer.
        let kept = tokio::task::spawn_blocking(move || {
            if let Some(semantic) = &shared.l3 {
                semantic.sweep();
                semantic.save();
                semantic.show(&shared);
            }
        });
        let _ = kept.await;
        if ends {
            return;
        }
    }
}
