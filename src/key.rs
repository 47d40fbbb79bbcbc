//! `nearhop key NAME TENANT`.

use std::fmt::Write as _;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The operator's name for the key
    name: String,
    /// Whose it is
    tenant: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("the system gives no random bytes")?;
    let key = format!("nh-{}", hex(&random));
    crate::print_line(&format!(
        "# Give this key to the client; it is shown only here:\n#   {key}\n# Add this to `keys:` in the configuration:\n- {{name: {:?}, tenant: {:?}, sha256: \"{}\"}}",
        args.name,
        args.tenant,
        sha256_hex(&key)
    ));
    Ok(())
}

/// A key's hash, as the configuration wants it.
pub(crate) fn sha256_hex(key: &str) -> String {
    hex(&Sha256::digest(key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}
