//! `nearhop load`: what a deployment can carry, and what becomes of it when parts fail.

mod run;

use clap::Subcommand;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run scenarios against a deployment, and say whether it held
    Run(run::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Run(args) => run::run(args),
    }
}
