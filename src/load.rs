//! `nearhop load`: what a deployment can carry, and what becomes of it when parts fail.

mod act;
mod emulate;
mod regions;
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
    /// Run regions on this machine, with links between them that can be cut
    Emulate(emulate::Args),
    /// Make something fail in emulated regions, or put it right
    Act(act::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Run(args) => run::run(args),
        Command::Emulate(args) => emulate::run(args),
        Command::Act(args) => act::run(args),
    }
}
