//! Where configuration text comes from: a file, or standard input for `-`.
//!
//! The only place in Nearhop that reads the environment.

use std::{io::Read as _, path::Path};

use crate::ConfigError;

/// Looks up an environment variable. Tests give a closure over a table.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A configuration file is small; anything over this is a mistake, not a file to read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The process's environment variable of that name, if it is set and valid Unicode.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reader of the environment")]
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the file at `path`, or standard input where `path` is `-`.
///
/// # Errors
/// [`ConfigError::Unreadable`] where it cannot be read, is over 1 MiB, or is not UTF-8.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.display().to_string(), source };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    };
    match read.map_err(unreadable)? as u64 {
        0..=FILE_BYTES_MAX => Ok(text),
        _ => Err(unreadable(std::io::Error::other("larger than 1 MiB"))),
    }
}
