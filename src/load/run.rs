//! `nearhop load run SCENARIO.yaml`.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, bail};
use nearhop_conf::{
    LoadPlan, Scenario, Target,
    source::{self, process_env},
};
use nearhop_load::{Options, Overall, PathCosts, Report};
use serde_json::json;
use tokio::task::LocalSet;

use super::regions::Regions;
use crate::{lifeline, print_line};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A file of scenarios; - for standard input
    scenarios: PathBuf,
    /// Only the scenario of this name
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// The deployment to ask, a file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "emulate"])]
    target: Option<PathBuf>,
    /// The deployment to ask, where a URL says all
    #[arg(long, requires = "model", conflicts_with = "emulate")]
    url: Option<String>,
    /// The model to ask for, beside --url
    #[arg(long, requires = "url")]
    model: Option<String>,
    /// A file with the API key to send, beside --url
    #[arg(long, value_name = "FILE", requires = "url")]
    key_file: Option<PathBuf>,
    /// Three regions on this machine, started for this run (Linux, as root)
    #[arg(long)]
    emulate: bool,
    /// The share of the scenario's users, over 0 and at most 1
    #[arg(long)]
    scale: Option<f64>,
    /// By what durations are divided, at least 1
    #[arg(long)]
    shorten: Option<f64>,
    /// What choices by chance begin with
    #[arg(long)]
    seed: Option<u64>,
    /// Threads that send
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// The edge's costs by path, from the benchmarks: JSON with `hit_cpu_s` and `miss_cpu_s`
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// Write NAME.json and NAME.html for each scenario into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Say what would be run, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// No progress on standard error
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let plan = read(args)?;
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("--out {}", out.display()))?;
    }
    let options = options(args, &plan)?;
    let wanted = |one: &&Scenario| args.scenario.as_ref().is_none_or(|name| *name == one.name);
    let scenarios: Vec<&Scenario> = plan.scenarios.iter().filter(wanted).collect();
    if scenarios.is_empty() {
        let known: Vec<&str> = plan.scenarios.iter().map(|one| one.name.as_str()).collect();
        bail!("--scenario: no such one in the file. It has {}", known.join(", "));
    }
    let named = named(args, plan.target.as_ref())?;
    for scenario in scenarios.iter().filter(|_| !args.emulate) {
        if let Some(target) = &named {
            nearhop_load::check(scenario, target)?;
        }
    }
    if args.dry_run {
        return scenarios.iter().try_for_each(|scenario| print_line(&planned(scenario, &options)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let (target, regions) = match named {
            Some(target) => (target, None),
            None if args.emulate => {
                let (regions, target) = Regions::start().await?;
                (target, Some(regions))
            }
            None => bail!(
                "nobody to ask: name --target FILE, --url URL or --emulate, or write `target:` into the file"
            ),
        };
        let done = run_all(args, &scenarios, &Arc::new(target), &options).await;
        if let Some(regions) = regions {
            regions.stop().await;
        }
        done
    })
}

async fn run_all(
    args: &Args,
    scenarios: &[&Scenario],
    target: &Arc<Target>,
    options: &Options,
) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, asked) = (lifeline::stopped(false)?, Arc::clone(&stop));
    tokio::spawn(async move {
        stopped.await;
        eprintln!("\nnearhop load: ending; once more to end at once");
        asked.store(true, Ordering::Relaxed);
        if let Ok(again) = lifeline::stopped(false) {
            again.await;
            std::process::exit(1);
        }
    });
    let mut failed = Vec::new();
    for scenario in scenarios {
        let report = nearhop_load::run(scenario, target, options, &stop).await?;
        if let Some(out) = &args.out {
            write(out, &report)?;
        }
        print_line(&report.text())?;
        match report.overall {
            Overall::Fail => {
                failed.push(format!("{}: {}", report.scenario, report.missed().join(", ")))
            }
            Overall::Invalid => failed.push(format!("{}: there is no verdict", report.scenario)),
            Overall::Pass | Overall::MetAtScale | Overall::Incomplete => {}
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("not met: {}", failed.join("; ")),
    }
}

fn read(args: &Args) -> anyhow::Result<LoadPlan> {
    let text = source::read(&args.scenarios)?;
    Ok(LoadPlan::read(&text, &args.scenarios.display().to_string(), &process_env)?)
}

fn options(args: &Args, plan: &LoadPlan) -> anyhow::Result<Options> {
    let scale = args.scale.unwrap_or(plan.scale);
    if !(scale > 0.0 && scale <= 1.0) {
        bail!("--scale {scale}: write a share over 0 and at most 1, such as 0.01");
    }
    let shorten = args.shorten.unwrap_or(plan.shorten);
    if !(shorten >= 1.0 && shorten.is_finite()) {
        bail!("--shorten {shorten}: write a number of at least 1, such as 10");
    }
    let read = |path: &PathBuf| -> anyhow::Result<PathCosts> {
        let text = std::fs::read_to_string(path)?;
        Ok(serde_json::from_str(&text)?)
    };
    let costs = args
        .costs
        .as_ref()
        .map(|path| read(path).with_context(|| format!("--costs {}", path.display())));
    Ok(Options {
        scale,
        shorten,
        seed: args.seed.unwrap_or(plan.seed),
        workers: args.workers.into(),
        costs: costs.transpose()?,
        progress: !args.quiet,
    })
}

fn planned(scenario: &Scenario, options: &Options) -> String {
    let rate = scenario.profile.rate();
    let seconds = scenario.duration.as_secs_f64() / options.shorten;
    format!(
        "{}: {:.1} requests/s at the height for {seconds:.0} s ({} of the scenario's {rate:.0}), {} chaos events",
        scenario.name,
        rate * options.scale,
        options.scale,
        scenario.chaos.len()
    )
}

/// Whom to ask, where that is said.
fn named(args: &Args, beside: Option<&Target>) -> anyhow::Result<Option<Target>> {
    if args.emulate {
        return Ok(None);
    }
    if let Some(path) = &args.target {
        let text = source::read(path)?;
        return Ok(Some(Target::read(&text, &path.display().to_string(), &process_env)?));
    }
    if let Some(url) = &args.url {
        let key: Vec<_> = args.key_file.iter().map(|path| json!({ "key_file": path })).collect();
        let said = json!({
            "model": args.model, "keys": key, "regions": [{"name": "target", "url": url}],
        });
        return Ok(Some(Target::read(&said.to_string(), "--url", &process_env)?));
    }
    Ok(beside.cloned())
}

fn write(folder: &Path, report: &Report) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    for (extension, text) in [("json", json + "\n"), ("html", report.html())] {
        let path = folder.join(format!("{}.{extension}", report.scenario));
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("nearhop load: wrote {}", path.display());
    }
    Ok(())
}
