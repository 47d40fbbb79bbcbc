//! `nearhop`: the command line. One file a subcommand; assembles roles, holds no logic.

mod built_in;
mod cache;
mod certificates;
mod check;
mod config;
mod dev;
mod dns;
mod edge;
mod explain;
mod key;
mod lifeline;
mod load;
mod log;
mod model;
mod operator;
mod origin;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use nearhop_conf::{Config, ConfigError, source};

// Small allocations of many sizes, freed on other threads than they were made on: the edge's
// pass-through path takes 5 to 20 % less CPU with it than with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "nearhop", version, about = "The edge gateway for self-hosted AI code completion")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run an edge and two pods with the built-in model on this machine
    Dev(dev::Args),
    /// Run an edge
    Edge(RoleArgs),
    /// Run an inference pod
    Origin(origin::Args),
    /// Run a DNS server that answers with the nearest region
    Dns(dns::Args),
    /// Say what is decided, and why
    Explain(explain::Args),
    /// Look at an edge's cache, or drop what is in it
    Cache(cache::Args),
    /// Put load on a deployment, and let parts of it fail
    Load(load::Args),
    /// Check a configuration file; exit code 64 if it has mistakes
    Check(check::Args),
    /// Show the default configuration
    Config(config::Args),
    /// Look into model folders
    Model(model::Args),
    /// Make an API key and the lines that admit it
    Key(key::Args),
}

/// What `edge`, `origin` and `dns` take.
#[derive(clap::Args)]
struct RoleArgs {
    /// The configuration file; - for standard input
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON line to standard output when ready
    #[arg(long)]
    ready_json: bool,
    /// Stop when standard input ends: for a parent that may die without a word
    #[arg(long, hide = true)]
    lifeline: bool,
}

/// `EX_USAGE` of sysexits.h: what the user wrote is wrong.
const EXIT_BAD_CONFIG: u8 = 64;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Dev(args) => dev::run(&args),
        Command::Edge(args) => edge::run(&args),
        Command::Origin(args) => origin::run(&args),
        Command::Dns(args) => dns::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Cache(args) => cache::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Key(args) => key::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nearhop: {error:#}");
            match error.is::<ConfigError>() {
                true => ExitCode::from(EXIT_BAD_CONFIG),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Reads and checks a configuration file.
fn read_config(path: &std::path::Path) -> Result<Config, ConfigError> {
    let text = source::read(path)?;
    Config::read(&text, &path.display().to_string(), &source::process_env)
}

/// One line on standard output, for programs. Who stops reading, as `head` does, has enough.
///
/// # Errors
/// It cannot be written, as on a full disk.
fn print_line(line: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("standard output cannot be written")
        }
        _ => Ok(()),
    }
}
