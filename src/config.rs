//! `nearhop config default`.

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Print a configuration file with every field at its default
    Default,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let What::Default = args.what;
    crate::print_line(nearhop_conf::DEFAULT_YAML.trim_end());
    Ok(())
}
