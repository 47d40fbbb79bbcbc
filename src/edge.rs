//! `nearhop edge -c FILE`.

use nearhop_proxy::{Edge, Ready};
use serde_json::json;

use crate::{RoleArgs, lifeline, print_line, read_config};

pub(crate) fn run(args: &RoleArgs) -> anyhow::Result<()> {
    let config = read_config(&args.config)?;
    let edge = Edge::new(&config)?;
    if args.lifeline {
        lifeline::hold(|| std::process::exit(0))?;
    }
    let ready_json = args.ready_json;
    edge.run(move |ready: Ready| {
        tracing::info!(listen = %ready.listen, admin = %ready.admin, "edge ready");
        if ready_json {
            let line = json!({"ready": "edge", "listen": ready.listen, "admin": ready.admin});
            print_line(&line.to_string());
        }
    });
    Ok(())
}
