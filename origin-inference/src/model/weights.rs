//! Finds a folder's weights.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{graph::Graph, manifest::Overrides, published::Published};

/// The ONNX file: the one that `nearhop.yaml` or `genai_config.json` names, else `model.onnx`, else
/// the only one in the folder or in its `onnx/`.
pub(super) fn find(
    folder: &Path,
    overrides: &Overrides,
    published: &Published,
) -> Result<PathBuf, String> {
    if let Some(genai) = &published.genai
        && genai.model.decoder.pipeline.is_some()
    {
        return Err(
            "genai_config.json describes a pipeline of several graphs, as NPU exports have; export the model as one graph"
                .to_owned(),
        );
    }
    let named = overrides
        .weights
        .clone()
        .or_else(|| Some(PathBuf::from(&published.genai.as_ref()?.model.decoder.filename)));
    if let Some(named) = named {
        if !is_inside(&named) {
            return Err(format!("the weights are at `{}`, outside the folder", named.display()));
        }
        let path = folder.join(&named);
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!("the weights {} do not exist", named.display())),
        };
    }
    for usual in ["model.onnx", "onnx/model.onnx"] {
        if folder.join(usual).is_file() {
            return Ok(folder.join(usual));
        }
    }
    let mut found: Vec<PathBuf> =
        ["", "onnx"].iter().flat_map(|sub| onnx_files(&folder.join(sub))).collect();
    found.sort();
    match found.as_slice() {
        [] => Err("it holds no model.onnx, nor another .onnx file".to_owned()),
        [only] => Ok(only.clone()),
        several => {
            let names: Vec<_> = several
                .iter()
                .filter_map(|path| Some(path.strip_prefix(folder).ok()?.display().to_string()))
                .collect();
            Err(format!(
                "it holds several models: {}. Write the one to use into nearhop.yaml, as in `weights: {}`",
                names.join(", "),
                names.first().map_or("model.onnx", String::as_str)
            ))
        }
    }
}

fn onnx_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "onnx")).collect()
}

/// Whether a path leads nowhere but down.
fn is_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// Refuses what can be known to fail before ONNX Runtime is asked.
pub(super) fn check(weights: &Path, graph: &Graph) -> Result<(), String> {
    for external in &graph.external {
        // A name of another folder's file would read what the operator did not put there.
        if !is_inside(Path::new(external)) {
            return Err(format!("its weights are in `{external}`, outside its folder"));
        }
        if !weights.with_file_name(external).is_file() {
            return Err(format!(
                "its weights are in the file `{external}` beside it, which is missing"
            ));
        }
    }
    if graph.inputs.iter().any(|input| input.name == "use_cache_branch") {
        return Err(
            "this is a merged decoder of an old export (input `use_cache_branch`); export it again with optimum-cli's task `text-generation-with-past`"
                .to_owned(),
        );
    }
    let mut names = graph.inputs.iter().map(|input| &input.name);
    if let Some(name) = names.find(|name| name.ends_with("key_value")) {
        return Err(format!(
            "keys and values share one tensor (`{name}`), as in GPT-BigCode exports; StarCoder2 and other models with separate ones work"
        ));
    }
    Ok(())
}

/// A revision for weights that nobody named: a digest of all their bytes.
pub(super) fn digest(weights: &Path, graph: &Graph) -> Result<String, String> {
    let mut digest = Sha256::new();
    let beside = graph.external.iter().map(|external| weights.with_file_name(external));
    for path in std::iter::once(weights.to_owned()).chain(beside) {
        add(&path, &mut digest).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(super::hex(&digest.finalize()[..6]))
}

fn add(path: &Path, digest: &mut Sha256) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            read => digest.update(&piece[..read]),
        }
    }
}
