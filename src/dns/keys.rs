//! `nearhop dns keys generate --zone ZONE --out FILE` and `nearhop dns keys ds FILE --zone ZONE`.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nearhop_geo::dns::ZoneKey;

use crate::print_line;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Make a key for a zone and print the DS record for the zone's parent
    Generate {
        /// The zone
        #[arg(long, value_name = "ZONE")]
        zone: String,
        /// The file to make, which only its owner may read
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print a key's DS record for the zone's parent, and its DNSKEY record
    Ds {
        /// The key's file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The zone
        #[arg(long, value_name = "ZONE")]
        zone: String,
    },
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Generate { zone, out } => {
            let text = ZoneKey::generate()?;
            // Before there is a file: a zone that is none leaves nothing behind.
            let ds = ZoneKey::from_pem(text.as_bytes())?.ds(zone)?;
            write_new(out, &text)?;
            print_line(&ds)?;
        }
        Command::Ds { file, zone } => {
            let text = fs::read(file).with_context(|| format!("{}", file.display()))?;
            let key = ZoneKey::from_pem(&text);
            let key = key.map_err(|error| anyhow::anyhow!("{} {error}", file.display()))?;
            print_line(&key.ds(zone)?)?;
            print_line(&key.dnskey(zone)?)?;
        }
    }
    Ok(())
}

/// A file that was not there, and that only its owner may read.
fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        // A key that the parent knows is not to be lost by a second run.
        ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} exists, and is not replaced; name another file", path.display())
        }
        _ => anyhow::anyhow!("{}: {error}", path.display()),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("{}", path.display()))
}
