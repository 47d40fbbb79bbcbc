//! What a pod serves: models by name, several revisions of each, one of them active.
//!
//! A [`Table`] never changes: loading, activating and unloading make a new one, which replaces the
//! old in one step. A request holds the model that it began with; an old revision's engine ends
//! when its last request does. One folder is loaded at a time; other changes do not wait for it.

mod open;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use nearhop_conf::{NO_MODEL_NAME, Provider, is_model_name};
use nearhop_wire::{ApiError, ModelReport};

pub(crate) use self::open::{Opener, OrtOpener};
use crate::{
    Model, OriginError, counters::Loaded, embed::Embedder, heartbeat::Heartbeat, session::Declined,
    worker::Engine,
};

/// A loaded model.
pub(crate) struct Served {
    pub(crate) model: Arc<Model>,
    pub(crate) runner: Runner,
    /// Sequences computed together; 0 for an embedder.
    pub(crate) slots: usize,
    pub(crate) provider: Provider,
    pub(crate) declined: Vec<Declined>,
    /// What was found when it was loaded.
    pub(crate) findings: Vec<String>,
    pub(crate) folder: PathBuf,
    /// Unix seconds.
    pub(crate) loaded: u64,
    /// About how long its longest step takes, as far as that was measured.
    pub(crate) longest_step: Duration,
    pub(crate) _shown: Loaded,
}

/// What computes it.
pub(crate) enum Runner {
    Generate(Engine),
    Embed(Embedder),
}

impl Served {
    pub(crate) fn report(&self) -> ModelReport {
        self.model.report()
    }

    fn revision(&self) -> &str {
        &self.model.manifest.revision
    }

    fn heartbeat(&self) -> &Heartbeat {
        match &self.runner {
            Runner::Generate(engine) => &engine.heartbeat,
            Runner::Embed(embedder) => &embedder.heartbeat,
        }
    }
}

/// The revisions of one model.
#[derive(Clone)]
struct Versions {
    active: Arc<Served>,
    /// Others, reached as `name@revision`.
    beside: Vec<Arc<Served>>,
    /// What was active before, and where it was loaded from.
    previous: Option<(String, PathBuf)>,
}

impl Versions {
    fn all(&self) -> impl Iterator<Item = &Arc<Served>> {
        std::iter::once(&self.active).chain(&self.beside)
    }

    fn find(&self, revision: &str) -> Option<&Arc<Served>> {
        self.all().find(|served| served.revision() == revision)
    }
}

/// Everything that is served. Never changes.
#[derive(Clone, Default)]
pub(crate) struct Table {
    models: BTreeMap<String, Versions>,
    /// To names.
    aliases: BTreeMap<String, String>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Load(#[from] OriginError),
    #[error("the model `{0}` is not loaded")]
    Unknown(String),
    #[error("revision {revision} of `{name}` is not loaded; there is {known}")]
    UnknownRevision { name: String, revision: String, known: String },
    #[error("revision {revision} of `{name}` is active; activate another before")]
    Active { name: String, revision: String },
    #[error(
        "revision {revision} of `{name}` is loaded already; change `revision` with the weights"
    )]
    Loaded { name: String, revision: String },
    #[error("`{name}` was not changed since the pod started, so there is nothing to go back to")]
    NothingBefore { name: String },
    #[error("the folder {} now holds revision {found}, not {wanted}", .folder.display())]
    Changed { folder: PathBuf, found: String, wanted: String },
    #[error("{LOADED_MAX} models are loaded already; unload one before")]
    Full,
    #[error(
        "{} holds `{name}` too, which another of origin.models does; set another `name` in its nearhop.yaml",
        .folder.display()
    )]
    Twice { name: String, folder: PathBuf },
    #[error("`{alias}` is the name of another model")]
    Taken { alias: String },
    #[error("`{0}` is {NO_MODEL_NAME}")]
    BadName(String),
    #[error("an alias means the active revision; leave `aliases` out, or `activate` it")]
    AliasesOfInactive,
    #[error("another model is being loaded; try again when it is")]
    Loading,
}

/// Models loaded at once, revisions counted.
const LOADED_MAX: usize = 16;

impl Table {
    /// The model that a request names: by name, by alias, or as `name@revision`. Without a name
    /// the alias `default`, or the only model.
    pub(crate) fn find(&self, asked: Option<&str>) -> Result<Arc<Served>, ApiError> {
        let unknown = |asked: &str| {
            let known: Vec<&str> = self.models.keys().map(String::as_str).collect();
            ApiError::unknown_model(asked, &known)
        };
        let asked = match (asked, self.models.len()) {
            (Some(asked), _) => asked,
            (None, 1) => {
                let mut only = self.models.values();
                return Ok(Arc::clone(&only.next().ok_or_else(|| unknown(""))?.active));
            }
            (None, _) => "default",
        };
        if let Some(versions) = self.versions(asked) {
            return Ok(Arc::clone(&versions.active));
        }
        let versioned =
            asked.rsplit_once('@').and_then(|(name, revision)| self.versions(name)?.find(revision));
        versioned.cloned().ok_or_else(|| unknown(asked))
    }

    fn versions(&self, asked: &str) -> Option<&Versions> {
        let name = self.aliases.get(asked).map_or(asked, String::as_str);
        self.models.get(name)
    }

    /// Active models, by name.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.models.values().map(|versions| &versions.active)
    }

    /// Every loaded model, and whether it is active.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Arc<Served>, bool)> {
        self.models.values().flat_map(|versions| {
            versions.all().map(|served| (served, Arc::ptr_eq(served, &versions.active)))
        })
    }

    /// What is said of a loaded model; one that is active has its aliases.
    pub(crate) fn report(&self, served: &Served, active: bool) -> ModelReport {
        let mut report = served.report();
        if active {
            let mine = self.aliases.iter().filter(|(_, model)| **model == report.name);
            report.aliases = mine.map(|(alias, _)| alias.clone()).collect();
        }
        report
    }

    /// Refuses a model that cannot be added.
    fn takes(&self, model: &Model) -> Result<(), ChangeError> {
        if self.all().count() >= LOADED_MAX {
            return Err(ChangeError::Full);
        }
        let (name, revision) = (model.manifest.name.clone(), model.manifest.revision.clone());
        if self.aliases.contains_key(&name) {
            return Err(ChangeError::Taken { alias: name });
        }
        match self.models.get(&name).and_then(|versions| versions.find(&revision)) {
            Some(_) => Err(ChangeError::Loaded { name, revision }),
            None => Ok(()),
        }
    }

    /// With a loaded model. `activate` makes it the one that its name means; the one before stays
    /// beside it only where `keep` says so.
    fn with(&self, served: Arc<Served>, activate: bool, keep: bool) -> Result<Self, ChangeError> {
        self.takes(&served.model)?;
        let mut table = self.clone();
        let name = served.model.manifest.name.clone();
        let revision = served.revision().to_owned();
        let Some(versions) = table.models.get_mut(&name) else {
            let versions = Versions { active: served, beside: Vec::new(), previous: None };
            table.models.insert(name, versions);
            return Ok(table);
        };
        versions.beside.push(served);
        match activate {
            true => table.activated(&name, &revision, keep),
            false => Ok(table),
        }
    }

    /// With another revision active.
    fn activated(&self, name: &str, revision: &str, keep: bool) -> Result<Self, ChangeError> {
        let mut table = self.clone();
        let versions =
            table.models.get_mut(name).ok_or_else(|| ChangeError::Unknown(name.to_owned()))?;
        let Some(next) = versions.find(revision).cloned() else {
            return Err(unknown_revision(name, revision, versions));
        };
        if Arc::ptr_eq(&next, &versions.active) {
            return Ok(table);
        }
        versions.beside.retain(|served| !Arc::ptr_eq(served, &next));
        let before = std::mem::replace(&mut versions.active, next);
        versions.previous = Some((before.revision().to_owned(), before.folder.clone()));
        if keep {
            versions.beside.push(before);
        }
        Ok(table)
    }

    /// Without a revision, or without the model where none is given.
    fn without(&self, name: &str, revision: Option<&str>) -> Result<Self, ChangeError> {
        let mut table = self.clone();
        let versions =
            table.models.get_mut(name).ok_or_else(|| ChangeError::Unknown(name.to_owned()))?;
        let Some(revision) = revision else {
            table.models.remove(name);
            table.aliases.retain(|_, model| model != name);
            return Ok(table);
        };
        let Some(gone) = versions.find(revision).cloned() else {
            return Err(unknown_revision(name, revision, versions));
        };
        if Arc::ptr_eq(&gone, &versions.active) {
            let (name, revision) = (name.to_owned(), revision.to_owned());
            return Err(ChangeError::Active { name, revision });
        }
        versions.beside.retain(|served| !Arc::ptr_eq(served, &gone));
        Ok(table)
    }

    /// With `alias` for `name`, whatever it meant before.
    fn aliased(&self, alias: &str, name: &str) -> Result<Self, ChangeError> {
        if !self.models.contains_key(name) {
            return Err(ChangeError::Unknown(name.to_owned()));
        }
        if self.models.contains_key(alias) {
            return Err(ChangeError::Taken { alias: alias.to_owned() });
        }
        if !is_model_name(alias) {
            return Err(ChangeError::BadName(alias.to_owned()));
        }
        let mut table = self.clone();
        table.aliases.insert(alias.to_owned(), name.to_owned());
        Ok(table)
    }
}

fn unknown_revision(name: &str, revision: &str, versions: &Versions) -> ChangeError {
    let known: Vec<&str> = versions.all().map(|served| served.revision()).collect();
    ChangeError::UnknownRevision {
        name: name.to_owned(),
        revision: revision.to_owned(),
        known: known.join(", "),
    }
}

/// The table that counts now, and how it is changed.
pub(crate) struct Registry {
    table: ArcSwap<Table>,
    /// Held while one table becomes the next.
    changing: Mutex<()>,
    /// Held while a folder is loaded: one at a time, for each takes its memory.
    loading: Arc<tokio::sync::Mutex<()>>,
    opener: Arc<dyn Opener>,
}

impl Registry {
    /// # Errors
    /// [`ChangeError`] of the first folder that cannot be served.
    pub(crate) fn start(
        opener: Arc<dyn Opener>,
        models: &[nearhop_conf::OriginModel],
    ) -> Result<Self, ChangeError> {
        let registry = Self {
            table: ArcSwap::default(),
            changing: Mutex::default(),
            loading: Arc::default(),
            opener,
        };
        for model in models {
            let served = Arc::new(registry.open(&model.folder)?);
            let name = served.report().name;
            if registry.table().models.contains_key(&name) {
                return Err(ChangeError::Twice { name, folder: model.folder.clone() });
            }
            registry.change(|table| with_aliases(table, served, (true, false), &model.aliases))?;
        }
        Ok(registry)
    }

    /// The table as it is now.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    fn change(
        &self,
        next: impl FnOnce(&Table) -> Result<Table, ChangeError>,
    ) -> Result<(), ChangeError> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = next(&self.table())?;
        self.table.store(Arc::new(table));
        Ok(())
    }

    /// Blocks for as long as the weights take.
    fn open(&self, folder: &Path) -> Result<Served, ChangeError> {
        let model = Arc::new(Model::load(folder)?);
        self.table().takes(&model)?;
        Ok(self.opener.open(folder, model)?)
    }

    /// Loads a folder, and then does `then` with it. Goes on where whoever asked has gone: half of
    /// it cannot be stopped, and a second beside it would take as much memory again.
    async fn load_then(
        self: &Arc<Self>,
        folder: PathBuf,
        then: impl FnOnce(&Self, Arc<Served>) -> Result<(), ChangeError> + Send + 'static,
    ) -> Result<Arc<Served>, ChangeError> {
        let turn = Arc::clone(&self.loading).try_lock_owned();
        let turn = turn.map_err(|_held| ChangeError::Loading)?;
        let registry = Arc::clone(self);
        let loading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let served = Arc::new(registry.open(&folder)?);
            then(&registry, Arc::clone(&served))?;
            Ok(served)
        });
        loading.await.unwrap_or_else(|panicked| {
            let error = std::io::Error::other(format!("loading panicked: {panicked}"));
            Err(OriginError::System(error).into())
        })
    }

    /// Loads a folder beside what is served, and then makes it what its name means, or not. What
    /// is served meanwhile, and where it fails, is what was served before.
    pub(crate) async fn load(
        self: &Arc<Self>,
        folder: &Path,
        how: (bool, bool),
        aliases: &[String],
    ) -> Result<Arc<Served>, ChangeError> {
        if !(how.0 || aliases.is_empty()) {
            return Err(ChangeError::AliasesOfInactive);
        }
        let aliases = aliases.to_vec();
        let add = move |registry: &Self, served: Arc<Served>| {
            let fingerprint = served.model.fingerprint();
            registry.change(|table| with_aliases(table, served, how, &aliases))?;
            tracing::info!(model = fingerprint, active = how.0, "a model was loaded");
            Ok(())
        };
        self.load_then(folder.to_owned(), add).await
    }

    /// Makes a loaded revision the active one.
    pub(crate) fn activate(
        &self,
        name: &str,
        revision: &str,
        keep: bool,
    ) -> Result<(), ChangeError> {
        self.change(|table| table.activated(name, revision, keep))?;
        tracing::info!(model = name, revision, "a revision was activated");
        Ok(())
    }

    /// Goes back to the revision that was active before, loading it again where it is gone.
    pub(crate) async fn roll_back(self: &Arc<Self>, name: &str) -> Result<String, ChangeError> {
        let table = self.table();
        let versions =
            table.models.get(name).ok_or_else(|| ChangeError::Unknown(name.to_owned()))?;
        let Some((revision, folder)) = versions.previous.clone() else {
            return Err(ChangeError::NothingBefore { name: name.to_owned() });
        };
        if versions.find(&revision).is_some() {
            self.change(|table| table.activated(name, &revision, false))?;
        } else {
            let (wanted, name) = (revision.clone(), name.to_owned());
            let put_back = move |registry: &Self, served: Arc<Served>| {
                let found = served.revision().to_owned();
                if found != wanted || served.model.manifest.name != name {
                    let folder = served.folder.clone();
                    return Err(ChangeError::Changed { folder, found, wanted });
                }
                registry.change(|table| table.with(served, true, false))
            };
            self.load_then(folder, put_back).await?;
        }
        tracing::warn!(model = name, revision, "rolled back");
        Ok(revision)
    }

    pub(crate) fn unload(&self, name: &str, revision: Option<&str>) -> Result<(), ChangeError> {
        self.change(|table| table.without(name, revision))?;
        tracing::info!(model = name, revision, "a model was unloaded");
        Ok(())
    }

    pub(crate) fn alias(&self, alias: &str, name: &str) -> Result<(), ChangeError> {
        self.change(|table| table.aliased(alias, name))
    }

    /// Whether every engine moves.
    pub(crate) fn check(&self, now: Instant, stall_after: Duration) -> Result<(), String> {
        for (served, _) in self.table().all() {
            let silence = served.heartbeat().silence(now);
            // A step that always takes long is no stall.
            if silence >= stall_after.max(served.longest_step * STEPS_OF_SILENCE) {
                let model = served.model.fingerprint();
                return Err(format!(
                    "the engine of {model} has not moved for {} s",
                    silence.as_secs()
                ));
            }
        }
        Ok(())
    }
}

/// A step takes this many times what was measured when nothing else ran, and is still no stall.
const STEPS_OF_SILENCE: u32 = 4;

fn with_aliases(
    table: &Table,
    served: Arc<Served>,
    (activate, keep): (bool, bool),
    aliases: &[String],
) -> Result<Table, ChangeError> {
    let name = served.model.manifest.name.clone();
    let mut table = table.with(served, activate, keep)?;
    for alias in aliases {
        table = table.aliased(alias, &name)?;
    }
    Ok(table)
}

#[cfg(test)]
pub(crate) mod tests;
