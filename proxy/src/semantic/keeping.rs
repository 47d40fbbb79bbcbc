//! The tier outlives the process: written to its file now and then, after each purge and at the end;
//! read at the start. And what is too old goes.

use std::{
    io,
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use nearhop_admin::clock;
use nearhop_edge_cache::semantic::Loaded;
use tokio::{sync::watch, time::interval};

use super::Semantic;
use crate::phase::Shared;

/// From one look to the next.
const LOOK: Duration = Duration::from_secs(60);
/// So many looks are an hour.
const REGION_LOOKS: u32 = 60;
/// No answer is kept for longer, fresh or not.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Semantic {
    /// Takes what the last process wrote.
    pub(crate) fn load(&self) {
        let Some(path) = &self.settings.snapshot else { return };
        match self.cache.load(path, clock::since_epoch()) {
            Ok(loaded) => {
                let Loaded { answers, whole, damaged } = loaded;
                if damaged {
                    tracing::warn!(
                        path = %path.display(),
                        answers,
                        "the semantic cache's snapshot is damaged, or sealed with another secret: the rest of it is lost"
                    );
                } else if whole {
                    tracing::info!(
                        answers,
                        "the semantic cache goes on with what its snapshot holds"
                    );
                }
            }
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
        if retired {
            self.save();
        }
        *self.retired.lock().unwrap_or_else(PoisonError::into_inner) = retired;
    }

    fn write(&self, or_delete: bool) -> Result<(), (&Path, io::Error)> {
        let Some(path) = &self.settings.snapshot else { return Ok(()) };
        // What is in it is a word.
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        if *retired {
            return Ok(());
        }
        match self.cache.save(path, clock::since_epoch()) {
            Ok(_answers) => Ok(()),
            Err(error) if or_delete => {
                tracing::warn!(%error, "the semantic cache's snapshot is deleted: it may hold what was purged, and cannot be written anew");
                std::fs::remove_file(path).map_err(|error| (path.as_path(), error))
            }
            Err(error) => Err((path, error)),
        }
    }

    /// Drops what must not be served any more; how many answers.
    fn sweep(&self) -> usize {
        self.cache.sweep(KEPT, clock::since_epoch())
    }

    /// Drops what was purged, from the file as well: it must not come back with the next process. What
    /// is in the file need not be in memory any more.
    pub(crate) fn purge(&self) -> usize {
        let dropped = self.sweep();
        if let Err((path, error)) = self.write(true) {
            tracing::error!(path = %path.display(), %error, "the snapshot may hold what was purged and cannot be deleted; delete it by hand");
        }
        dropped
    }
}

/// Keeps the file true until `closing` says so, and writes it a last time.
pub(crate) async fn keep(shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    if let Some(semantic) = &shared.l3 {
        semantic.show(&shared);
    }
    let mut tick = interval(LOOK);
    // At once it would write what was just read.
    tick.tick().await;
    let mut looks = 0;
    loop {
        let ends = tokio::select! {
            _ = tick.tick() => false,
            _ = closing.wait_for(|closing| *closing) => true,
        };
        looks += 1;
        if looks % REGION_LOOKS == 0
            && let Some(semantic) = &shared.l3
        {
            semantic.forget_in_region(KEPT).await;
        }
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
