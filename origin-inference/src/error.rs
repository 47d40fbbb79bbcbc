//! Why a pod cannot start.

use std::path::PathBuf;

use nearhop_admin::{BindError, tls::TlsError};

/// Why a pod cannot start, in words that name the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// No ONNX Runtime library was found.
    #[error(
        "the ONNX Runtime library was not found; looked at {tried}. \
         Run `make setup`, or set ORT_DYLIB_PATH to libonnxruntime.so (1.24 or newer)"
    )]
    LibraryMissing {
        /// Every place looked at.
        tried: String,
    },
    /// The library is there but does not load.
    #[error(
        "the ONNX Runtime library {path} cannot be used: {message}. \
         Run `make setup` again, or set ORT_DYLIB_PATH to a libonnxruntime.so of 1.24 or newer"
    )]
    LibraryUnusable {
        /// The library.
        path: PathBuf,
        /// What went wrong.
        message: String,
    },
    /// A file of the model folder is missing, cut short or not what it should be.
    #[error("the model file {path} cannot be used: {what}. {fix}")]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What to do.
        fix: &'static str,
    },
    /// The execution provider that was asked for does not take the model.
    #[error(
        "the execution provider `{provider}` was asked for and does not take the model: {reason}. \
         docs/operations.md lists what each provider needs; without `require_provider` the next one is tried"
    )]
    Provider {
        /// Its name.
        provider: &'static str,
        /// What it said.
        reason: String,
    },
    /// The configured models do not go together.
    #[error("the models cannot be served together: {0}. Check `origin.models`")]
    Models(String),
    /// A listener could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operating system refused something else, such as a thread.
    #[error("the pod cannot start: {0}")]
    System(#[from] std::io::Error),
}
