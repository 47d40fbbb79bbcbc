//! `nearhop origin -c FILE`.

use std::{num::NonZeroUsize, time::Duration};

use anyhow::Context as _;
use nearhop_conf::source;
use nearhop_origin_inference::{Pod, run as serve};
use serde_json::json;

use crate::{RoleArgs, lifeline, log::Logging, print_line, read_config};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    role: RoleArgs,
    /// Serve the models with these aliases alone, on free ports of loopback: how an edge runs a pod
    /// of its own
    #[arg(long = "role", value_name = "ALIAS", value_delimiter = ',')]
    roles: Vec<String>,
    /// ONNX Runtime's threads, of each model, instead of `origin.threads`
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Args { role: args, roles, threads } = args;
    let config = read_config(&args.config)?;
    let _logging = Logging::start(&config.log);
    let mut origin = config.origin.context("the configuration has no `origin` section")?;
    if !roles.is_empty() {
        origin = origin.for_roles(roles)?;
        give_way();
    }
    if let Some(threads) = threads {
        origin.threads = threads.get();
    }
    let pod = Pod::start(&origin, &source::process_env)?;
    let (listen, admin) = pod.addresses()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = lifeline::stopped(args.lifeline)?;
        tracing::info!(%listen, %admin, "pod ready");
        if args.ready_json {
            print_line(&json!({"ready": "origin", "listen": listen, "admin": admin}).to_string())?;
        }
        serve(pod, shutdown).await;
        anyhow::Ok(())
    })?;
    // A text that is still being read would hold up the end for as long as it takes.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

/// Where memory runs out, the system is to end this process before the edge that started it.
fn give_way() {
    // Raising one's own score needs no rights; where there is no such file there is no such rule.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
}
