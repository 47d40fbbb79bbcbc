//! What comes with the repository or in the binary, for commands that need no file of the user's.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nearhop_origin_inference::{Model, ModelKind};

/// Documentation networks at made-up places; see `scripts/geo/mmdb.py`.
pub(crate) const MMDB: &[u8] = include_bytes!("../conf/data/documentation.mmdb");
/// The zone that DNS servers answer for.
pub(crate) const ZONE: &str = nearhop_load::world::ZONE;

/// What the pods serve.
pub(crate) struct ServedModel {
    pub(crate) folder: PathBuf,
    pub(crate) name: String,
}

/// The folder asked for, else the repository's, seen from here or from the binary.
pub(crate) fn find_model(asked: Option<&Path>) -> anyhow::Result<ServedModel> {
    const BUILT_IN: &str = "origin-inference/models/nearhop-mini";
    let places: Vec<PathBuf> = match asked {
        Some(folder) => vec![folder.to_owned()],
        None => {
            let binary = std::env::current_exe().unwrap_or_default();
            let above = binary.ancestors().skip(1).map(|folder| folder.join(BUILT_IN));
            std::iter::once(PathBuf::from(BUILT_IN)).chain(above).collect()
        }
    };
    let found = places.iter().find(|folder| folder.is_dir());
    let folder = found.with_context(|| {
        let tried: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        format!("no model folder: looked at {}. Name one with --model DIR", tried.join(", "))
    })?;
    let model = Model::load(folder)?;
    if model.kind() == ModelKind::Embed {
        bail!("{} embeds texts; --model takes a model that completes them", folder.display());
    }
    Ok(ServedModel { folder: std::path::absolute(folder)?, name: model.report().name })
}
