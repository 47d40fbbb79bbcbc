//! Finds the ONNX Runtime library.
//!
//! `ort` would look for it by itself, and panic in the first call where it is not: a pod asks
//! first, and names every place it looked at.

use std::path::{Path, PathBuf};

use nearhop_conf::source::Env;

use crate::OriginError;

/// The library's file name on this platform.
pub(crate) const FILE: &str = if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else if cfg!(windows) {
    "onnxruntime.dll"
} else {
    "libonnxruntime.so"
};

/// The library to load: the configured one, else `ORT_DYLIB_PATH`, else the first that exists of
/// `.ort/` here, `.ort/` and `lib/` beside or above the binary, and the system's.
///
/// # Errors
/// [`OriginError::LibraryMissing`]. A path that was asked for is never silently replaced.
pub(crate) fn find(configured: Option<&Path>, env: Env<'_>) -> Result<PathBuf, OriginError> {
    let asked = configured.map(Path::to_owned).or_else(|| env("ORT_DYLIB_PATH").map(PathBuf::from));
    let candidates = match asked {
        Some(path) => vec![path],
        None => usual_places(),
    };
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => {
            let tried: Vec<String> =
                candidates.iter().map(|path| path.display().to_string()).collect();
            Err(OriginError::LibraryMissing { tried: tried.join(", ") })
        }
    }
}

fn usual_places() -> Vec<PathBuf> {
    let mut places = vec![Path::new(".ort").join(FILE)];
    let binary = std::env::current_exe().unwrap_or_default();
    for folder in binary.ancestors().skip(1).take(4) {
        places.push(folder.join(".ort").join(FILE));
        places.push(folder.join("lib").join(FILE));
    }
    places.push(Path::new("/usr/local/lib").join(FILE));
    places.push(Path::new("/usr/lib").join(FILE));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asked_for_library_is_never_replaced() {
        let env = |name: &str| (name == "ORT_DYLIB_PATH").then(|| "/nowhere/lib.so".to_owned());
        let error = find(None, &env).unwrap_err().to_string();
        assert!(error.contains("/nowhere/lib.so") && error.contains("make setup"), "{error}");
        let error = find(Some(Path::new("/else/lib.so")), &env).unwrap_err().to_string();
        assert!(error.contains("/else/lib.so") && !error.contains("nowhere"), "{error}");
    }

    #[test]
    fn the_environment_names_a_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "").unwrap();
        let env = |_: &str| Some(path.display().to_string());
        assert_eq!(find(None, &env).unwrap(), path);
    }
}
