//! `nearhop dns -c FILE`, and `nearhop dns keys`.

mod keys;

use std::time::Duration;

use nearhop_conf::{Loaded, source::process_env};
use nearhop_geo::dns::Server;
use serde_json::json;

use crate::{RoleArgs, lifeline, log::Logging, print_line};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Option<RoleArgs>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// The keys that sign a zone
    #[command(subcommand)]
    Keys(keys::Command),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match (&args.command, &args.serve) {
        (Some(Command::Keys(command)), _) => keys::run(command),
        (None, Some(args)) => serve(args),
        (None, None) => anyhow::bail!("-c FILE is missing"),
    }
}

fn serve(args: &RoleArgs) -> anyhow::Result<()> {
    let loaded = Loaded::read(&args.config, &process_env)?;
    let _logging = Logging::start(&loaded.config.log);
    if loaded.config.dns.as_ref().is_some_and(|dns| dns.mmdb.is_none()) {
        tracing::warn!("no dns.mmdb: weights and overrides decide, not distance");
    }
    let server = Server::new(loaded)?;
    let ready = server.ready().clone();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = lifeline::stopped(args.lifeline)?;
        tracing::info!(listen = ?ready.listen, admin = %ready.admin, "DNS server ready");
        if args.ready_json {
            let listen = ready.listen.first();
            print_line(
                &json!({"ready": "dns", "listen": listen, "admin": ready.admin, "peer": ready.peer}).to_string(),
            )?;
        }
        server.run(shutdown).await?;
        anyhow::Ok(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}
