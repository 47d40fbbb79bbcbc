//! `nearhop load`: what a deployment can carry, and what becomes of it when parts fail.

use clap::Subcommand;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match args.command {}
}
