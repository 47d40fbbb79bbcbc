//! `nearhop cache stats|purge`.

use std::{fmt::Write as _, path::PathBuf};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::{operator::Operator, print_line};

/// Look at an edge's cache, or drop what is in it
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What it holds, and what each rule has served
    Stats(Asked),
    /// Drop a tenant's answers, or those with a tag; its pods drop the prompts
    Purge(PurgeArgs),
    /// Begin the proof of a route of the semantic cache anew
    Prove(ProveArgs),
}

#[derive(clap::Args)]
struct Asked {
    /// The edge's configuration; a running `nearhop dev` is asked where not given
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON rather than words
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct PurgeArgs {
    /// Whose answers
    #[arg(long)]
    tenant: Option<String>,
    /// Those of a declared repository
    #[arg(long, requires = "tenant", conflicts_with_all = ["session", "file_hash", "key", "user", "model"])]
    repo: Option<String>,
    /// Those of a declared session
    #[arg(long, requires = "tenant", conflicts_with_all = ["file_hash", "key", "user", "model"])]
    session: Option<String>,
    /// Those asked for while a file had this declared digest
    #[arg(long, requires = "tenant", conflicts_with_all = ["key", "user", "model"])]
    file_hash: Option<String>,
    /// Those asked for with an API key, by its name
    #[arg(long, requires = "tenant", conflicts_with_all = ["user", "model"])]
    key: Option<String>,
    /// Those that a user asked for, with any key
    #[arg(long, requires = "tenant", conflicts_with = "model")]
    user: Option<String>,
    /// Those of these weights, of everybody
    #[arg(long, value_name = "NAME@REVISION", conflicts_with = "tenant")]
    model: Option<String>,
    /// All there is, of everybody
    #[arg(long, conflicts_with_all = ["tenant", "model"])]
    everything: bool,
    #[command(flatten)]
    asked: Asked,
}

#[derive(clap::Args)]
struct ProveArgs {
    /// Whose requests
    #[arg(long)]
    tenant: String,
    /// For which model, by its name or NAME@REVISION
    #[arg(long)]
    model: String,
    #[command(flatten)]
    asked: Asked,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Stats(asked) => {
            let said = Operator::of_edge(asked.config.as_deref())?.ask_json("/cache", None)?;
            show(&said, asked.json, stats)
        }
        Command::Prove(args) => prove(args),
        Command::Purge(args) => {
            let operator = Operator::of_edge(args.asked.config.as_deref())?;
            let said = operator.ask_json("/cache/purge", Some(&wanted(args)))?;
            show(&said, args.asked.json, purged)?;
            match said["cluster"]["state"].as_str() {
                None | Some("done") => Ok(()),
                // Whoever deletes data has to know that it is not done.
                Some(state) => anyhow::bail!("the purge is {state} in Redis"),
            }
        }
    }
}

fn prove(args: &ProveArgs) -> anyhow::Result<()> {
    let operator = Operator::of_edge(args.asked.config.as_deref())?;
    let asked = json!({ "tenant": args.tenant, "model": args.model });
    let said = operator.ask_json("/cache/prove", Some(&asked))?;
    if said["routes"] == 0 {
        anyhow::bail!("nothing was compared yet for {} and {}", args.tenant, args.model);
    }
    show(&said, args.asked.json, |said| format!("{} routes prove themselves anew", said["routes"]))
}

fn show(said: &Value, json: bool, words: fn(&Value) -> String) -> anyhow::Result<()> {
    match json {
        true => print_line(&serde_json::to_string_pretty(said)?),
        false => print_line(words(said).trim_end()),
    }
}

fn wanted(args: &PurgeArgs) -> Value {
    let named = [
        ("tenant", &args.tenant),
        ("repo", &args.repo),
        ("session", &args.session),
        ("file_hash", &args.file_hash),
        ("key", &args.key),
        ("user", &args.user),
        ("model", &args.model),
    ];
    let mut wanted: Map<String, Value> = named
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))))
        .collect();
    if args.everything {
        wanted.insert("everything".to_owned(), json!(true));
    }
    Value::Object(wanted)
}

fn stats(said: &Value) -> String {
    let l1 = &said["l1"];
    let mut words = format!("L1: {} bytes, answers at {} cursor lines\n", l1["bytes"], l1["lines"]);
    let _ = writeln!(words, "    misses {}, kept out {}", l1["miss"], l1["bypass"]);
    for (name, rule) in said["rules"].as_object().into_iter().flatten() {
        let off = if rule["serves"] == true { "" } else { "   off" };
        let audited = &rule["audited"];
        let _ = writeln!(
            words,
            "{name:>11}: {} served, {} from L2, {} joined another's generation; generated again {}, \
             different {}, at most {:.1} %{off}",
            rule["l1"],
            rule["l2"],
            rule["joined"],
            audited["compared"],
            audited["differing"],
            100.0 * audited["bounds"][1].as_f64().unwrap_or(1.0),
        );
    }
    for shard in said["l2"]["shards"].as_array().into_iter().flatten() {
        let state = match (shard["connected"] == true, shard["open"] == true) {
            (true, false) => "well",
            (true, true) => "failing, not asked for the moment",
            (false, _) => "not connected",
        };
        let address = shard["address"].as_str().unwrap_or_default();
        let _ = writeln!(words, "L2 {address}: {} slots, {state}", shard["slots"]);
    }
    words += &semantic(&said["l3"]);
    if said["l2"]["purges_pending"].as_u64() > Some(0) {
        let _ = writeln!(words, "L2: {} purges wait for Redis", said["l2"]["purges_pending"]);
    }
    if let Some(problem) = said["l2"]["problem"].as_str() {
        let _ = writeln!(words, "L2: {problem}");
    }
    words
}

/// A line for what the semantic cache holds, and one for each of its routes.
fn semantic(l3: &Value) -> String {
    if l3.is_null() {
        return String::new();
    }
    let percent = |value: &Value| format!("{:.1} %", 100.0 * value.as_f64().unwrap_or(1.0));
    let mut words = format!(
        "L3: {} bytes, {} answers; {} served by the same question, {} by one alike, {} generated all the same\n",
        l3["bytes"], l3["entries"], l3["exact"], l3["similar"], l3["explored"],
    );
    if l3["untold"].as_u64() > Some(0) {
        let _ = writeln!(words, "L3: {} answers not kept: nobody could compare them", l3["untold"]);
    }
    if let Some(problem) = l3["problem"].as_str() {
        let _ = writeln!(words, "L3: {problem}");
    }
    for route in l3["routes"].as_array().into_iter().flatten() {
        let text = |name: &str| route[name].as_str().unwrap_or_default();
        let trial = |how: &str| {
            let of = &route[how];
            format!(
                "{}, {} of {} wrong, at most {}",
                of["stage"].as_str().unwrap_or_default(),
                of["recent_wrong"],
                of["recent"],
                percent(&of["bound"]),
            )
        };
        let _ = writeln!(
            words,
            "L3 {} {} ({}; limit {}, after {}): the same question {}; alike {}",
            text("tenant"),
            text("model"),
            text("mode"),
            percent(&l3["limit"]),
            l3["needs"],
            trial("exact"),
            trial("similar"),
        );
    }
    words
}

fn purged(said: &Value) -> String {
    let mut words = format!("{} entries dropped from L1\n", said["l1_entries"]);
    if said["l3_entries"].as_u64() > Some(0) {
        let _ = writeln!(words, "{} from the semantic cache", said["l3_entries"]);
    }
    for (kind, name) in said["unknown"].as_object().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        let _ = writeln!(words, "note: this edge's configuration has no {kind} {name}");
    }
    match (said["region"]["state"].as_str(), said["region"]["why"].as_str()) {
        (None, _) => {}
        (Some("done"), _) => words += "and from the region's\n",
        (Some(_), why) => {
            let why = why.unwrap_or("its points do not say of what they are");
            let _ =
                writeln!(words, "in the region's it is never served again, and still there: {why}");
        }
    }
    match said["cluster"]["state"].as_str() {
        None => {}
        Some("done") if said["cluster"]["replicas"] == 0 => {
            words += "every edge is told; no replica of Redis has confirmed it\n";
        }
        Some("done") => words += "every edge is told, and what Redis has is dropped\n",
        Some(state) => {
            let why = said["cluster"]["why"].as_str().unwrap_or_default();
            let _ = writeln!(words, "the other edges: {state}: {why}");
        }
    }
    for (pod, told) in said["pods"].as_object().into_iter().flatten() {
        let _ = match told.get("error").and_then(Value::as_str) {
            Some(error) => writeln!(words, "{pod}: not told: {error}"),
            None => writeln!(words, "{pod}: {} blocks of prompts dropped", told["dropped_blocks"]),
        };
    }
    words
}
