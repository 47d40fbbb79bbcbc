//! `nearhop key NAME TENANT`.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Context as _;
use nearhop_admission::hash_key;
use nearhop_conf::{Config, Secret, source};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The operator's name for the key
    name: String,
    /// Whose it is
    tenant: String,
    /// Who uses it, where it is one person's: the semantic cache shares answers among a user's keys
    #[arg(long)]
    user: Option<String>,
    /// The configuration whose `access.key_secret` hashes it; a new secret where not given
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let key = format!("nh-{}", random_hex()?);
    let (secret, secret_lines) = match &args.config {
        Some(path) => {
            // A new file has no key, and so is no whole configuration yet.
            let text = source::read(path)?;
            let access =
                Config::read_access(&text, &path.display().to_string(), &source::process_env)?;
            let secret = access.key_secret.with_context(|| {
                format!("{}: access.key_secret is missing; add one first", path.display())
            })?;
            (secret, String::new())
        }
        None => {
            let secret = random_hex()?;
            let lines =
                format!("# Once, below `access:`, and kept secret:\nkey_secret: {secret}\n");
            (Secret::new(secret), lines)
        }
    };
    let user = args.user.as_ref().map_or_else(String::new, |user| format!("user: {user:?}, "));
    crate::print_line(&format!(
        "# Give this key to the client; it is shown only here:\n#   {key}\n{secret_lines}# Add this to `access.keys`:\n- {{name: {:?}, tenant: {:?}, {user}hmac_sha256: \"{}\"}}",
        args.name,
        args.tenant,
        hash_hex(&secret, &key)
    ))
}

/// 256 random bits.
pub(crate) fn random_hex() -> anyhow::Result<String> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("the system gives no random bytes")?;
    Ok(hex(&random))
}

/// A key's hash, as the configuration wants it.
pub(crate) fn hash_hex(secret: &Secret, key: &str) -> String {
    hex(&hash_key(secret, key.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes every write");
        text
    })
}
