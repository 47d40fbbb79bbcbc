//! `nearhop check -c FILE`.

use std::path::PathBuf;

use nearhop_conf::Config;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The configuration file; - for standard input
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = crate::read_config(&args.config)?;
    crate::print_line(&format!("{}: ok. {}", args.config.display(), describe(&config)));
    Ok(())
}

/// What the file would run, so that a file of the wrong role is noticed.
fn describe(config: &Config) -> String {
    let edge = config.edge.as_ref().map(|edge| {
        format!(
            "an edge on {} with {} pods and {} keys",
            edge.listen,
            edge.pods.len(),
            config.access.keys.len()
        )
    });
    let origin = config.origin.as_ref().map(|origin| {
        format!("a pod on {} with the model in {}", origin.listen, origin.model.display())
    });
    let roles: Vec<String> = edge.into_iter().chain(origin).collect();
    format!("Region {}: {}", config.region, roles.join("; "))
}
