//! `nearhop dns -c FILE`.

use std::time::Duration;

use anyhow::Context as _;
use nearhop_geo::dns::Server;
use serde_json::json;

use crate::{RoleArgs, lifeline, log::Logging, print_line, read_config};

pub(crate) fn run(args: &RoleArgs) -> anyhow::Result<()> {
    let config = read_config(&args.config)?;
    let _logging = Logging::start(&config.log);
    let dns = config.dns.context("the configuration has no `dns` section")?;
    if dns.mmdb.is_none() {
        tracing::warn!("no dns.mmdb: weights and overrides decide, not distance");
    }
    let server = Server::new(config.regions, dns)?;
    let ready = server.ready().clone();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let shutdown = lifeline::stopped(args.lifeline)?;
        tracing::info!(listen = ?ready.listen, admin = %ready.admin, "DNS server ready");
        if args.ready_json {
            let listen = ready.listen.first();
            print_line(
                &json!({"ready": "dns", "listen": listen, "admin": ready.admin}).to_string(),
            );
        }
        server.run(shutdown).await?;
        anyhow::Ok(())
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}
