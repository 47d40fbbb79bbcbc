//! Certificates of an authority of the test's own.

use std::{path::Path, process::Command};

use crate::Error;

/// `ca.pem`, and `leaf.pem` with `leaf-key.pem` for 127.0.0.1, in a folder; for two days.
///
/// # Errors
///
/// `openssl` is not installed, or does not write them.
pub fn certificates(folder: &Path) -> Result<(), Error> {
    let new = "req -x509 -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(folder, &format!("{new} -subj /CN=authority -keyout ca-key.pem -out ca.pem"))?;
    openssl(
        folder,
        &format!(
            "{new} -subj /CN=leaf -CA ca.pem -CAkey ca-key.pem -addext subjectAltName=IP:127.0.0.1 \
             -addext basicConstraints=critical,CA:FALSE -keyout leaf-key.pem -out leaf.pem"
        ),
    )
}

fn openssl(folder: &Path, arguments: &str) -> Result<(), Error> {
    let mut command = Command::new("openssl");
    command.args(arguments.split_ascii_whitespace()).current_dir(folder);
    let output = command.output().map_err(|_missing| Error::Missing("the program openssl"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Said(String::from_utf8_lossy(&output.stderr).into_owned()))
}
