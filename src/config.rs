//! `nearhop config default|schema`.

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Print a configuration file with every field at its default
    Default,
    /// Print the JSON Schema of configuration files, for editors and programs
    Schema,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match args.what {
        What::Default => crate::print_line(nearhop_conf::DEFAULT_YAML.trim_end()),
        What::Schema => crate::print_line(&serde_json::to_string_pretty(&nearhop_conf::schema())?),
    }
}
