//! `nearhop origin -c FILE`.

use anyhow::Context as _;
use nearhop_conf::source;
use nearhop_origin_inference::{Pod, run as serve};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::{RoleArgs, lifeline, log::Logging, print_line, read_config};

pub(crate) fn run(args: &RoleArgs) -> anyhow::Result<()> {
    let config = read_config(&args.config)?;
    let _logging = Logging::start(&config.log);
    let origin = config.origin.context("the configuration has no `origin` section")?;
    let pod = Pod::start(&origin, &source::process_env)?;
    let (listen, admin) = pod.addresses()?;
    let ended = lifeline::ended(args.lifeline)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                () = ended => {}
            }
        };
        tracing::info!(%listen, %admin, "pod ready");
        if args.ready_json {
            print_line(&json!({"ready": "origin", "listen": listen, "admin": admin}).to_string());
        }
        serve(pod, shutdown).await;
        anyhow::Ok(())
    })
}
