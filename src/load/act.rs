//! `nearhop load act`: the client of a world's control socket.

use std::path::PathBuf;

use nearhop_load::{
    action::{Action, FORMS},
    control::ask,
};

#[derive(clap::Args)]
#[command(after_help = format!("Actions, with their fields: {FORMS}"))]
pub(crate) struct Args {
    /// What is to be done
    action: String,
    /// Its fields: region=us-west count=2
    #[arg(value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    /// The socket, as `nearhop load emulate` says it
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let action = Action::from_words(&args.action, &args.fields)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    crate::print_line(&runtime.block_on(ask(&args.control, &action))?)
}
