//! `nearhop model check DIR`.

use std::path::PathBuf;

use clap::Subcommand;
use nearhop_conf::source;
use nearhop_origin_inference::{
    Model, ModelKind,
    session::{self, Options, Runtime},
};

/// Look into model folders
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a model folder, test it, and show what was found
    Check(CheckArgs),
}

#[derive(clap::Args)]
struct CheckArgs {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The ONNX Runtime library; searched for where not given
    #[arg(long, value_name = "FILE")]
    ort_library: Option<PathBuf>,
    /// ONNX Runtime's threads
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Command::Check(args) = &args.command;
    let model = Model::load(&args.folder)?;
    let runtime = Runtime::load(args.ort_library.as_deref(), &source::process_env)?;
    let report = model.report();
    let mut lines = vec![
        format!("{}: a model that is to {}", model.fingerprint(), model.kind().name()),
        format!(
            "context: {} tokens; vocabulary: {} tokens",
            report.context_length,
            model.vocabulary()
        ),
    ];
    if model.kind() == ModelKind::Generate {
        lines.extend(model.described());
    }
    lines.extend_from_slice(model.findings());
    let options = Options {
        slots: 2,
        threads: args.threads,
        chunk: 128,
        batch: 4096,
        provider: None,
        cache: None,
    };
    let (provider, declined, findings) = match model.kind() {
        ModelKind::Generate => {
            let opened = session::open(&runtime, &model, &options)?;
            (opened.provider, opened.declined, opened.findings)
        }
        ModelKind::Embed => {
            let opened = session::open_encoder(&runtime, &model, &options)?;
            (opened.provider, opened.declined, opened.findings)
        }
    };
    for declined in &declined {
        lines.push(format!("provider {}: no, {}", declined.provider, declined.reason));
    }
    lines.push(format!("provider {provider}: yes"));
    lines.extend(findings);
    crate::print_line(&lines.join("\n"))
}
