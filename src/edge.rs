//! `nearhop edge -c FILE`.

use std::sync::Arc;

use anyhow::Context as _;
use nearhop_conf::{Loaded, source::process_env};
use nearhop_proxy::{Edge, Inherited, Ready, Start, Successor};
use serde_json::json;

use crate::{RoleArgs, lifeline, log::Logging, print_line};

pub(crate) fn run(args: &RoleArgs) -> anyhow::Result<()> {
    // First: what was handed over must not be taken for files of ours.
    let inherited = Inherited::take();
    let loaded = Loaded::read(&args.config, &process_env)?;
    let logging = Logging::start(&loaded.config.log);
    let set_level = Arc::new(logging.set_level());
    // The path, not the file: a hand-over runs what was installed there meanwhile.
    let successor = Successor {
        binary: std::env::current_exe().context("this binary's own path")?,
        arguments: std::env::args_os().skip(1).collect(),
    };
    let edge = Edge::new(Start { loaded, inherited, successor, set_level })?;
    if args.lifeline {
        lifeline::hold(|| std::process::exit(0))?;
    }
    let ready_json = args.ready_json;
    edge.run(move |ready: Ready| {
        tracing::info!(listen = %ready.listen, admin = %ready.admin, "edge ready");
        if ready_json {
            let line = json!({
                "ready": "edge",
                "listen": ready.listen,
                "admin": ready.admin,
                "peer": ready.peer,
                "pid": std::process::id(),
            });
            // It serves all the same.
            if let Err(error) = print_line(&line.to_string()) {
                tracing::error!(error = format!("{error:#}"), "nobody is told that it is ready");
            }
        }
    })?;
    Ok(())
}
