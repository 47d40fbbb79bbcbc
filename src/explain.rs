//! `nearhop explain dns|route|cache`.

use std::{
    fmt::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use nearhop_conf::{Dns, source};
use nearhop_geo::{
    Query, Source, World, decide, diff, dns::Zone, explanation, narration, world_of,
};
use serde_json::{Value, json};

use crate::{dev, operator::Operator, print_line, read_config};

/// Say what is decided, and why
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Which region a client is sent to
    Dns(DnsArgs),
    /// Where a request would go now, in which order, and why not elsewhere
    Route(RouteArgs),
    /// Whether a request would be answered without a model
    Cache(CacheArgs),
}

#[derive(clap::Args)]
struct RouteArgs {
    /// The request's body; - for standard input
    #[arg(value_name = "REQUEST.json")]
    request: PathBuf,
    /// Whose request
    #[arg(long, default_value = "dev")]
    tenant: String,
    /// Where it is sent
    #[arg(long, default_value = "/v1/completions")]
    path: String,
    /// The edge's configuration; a running `nearhop dev` is asked where not given
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON rather than words
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct CacheArgs {
    /// The request's body; - for standard input
    #[arg(value_name = "REQUEST.json")]
    request: PathBuf,
    /// Whose request
    #[arg(long, default_value = "dev")]
    tenant: String,
    /// The name of its API key
    #[arg(long, default_value = "dev")]
    key: String,
    /// Who uses that key; who the configuration says where not given
    #[arg(long)]
    user: Option<String>,
    /// Where it is sent; without, /v1/chat/completions where it has messages, else /v1/completions
    #[arg(long)]
    path: Option<String>,
    /// The edge's configuration; a running `nearhop dev` is asked where not given
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON rather than words
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct DnsArgs {
    /// The client's address
    #[arg(long, value_name = "IP", required_unless_present = "diff")]
    client: Option<IpAddr>,
    /// The service's name; the first of the zone where not given
    #[arg(long)]
    name: Option<String>,
    /// Decide by this file, with every region well; the running `nearhop dev` is asked where not
    /// given
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How answers would change from -c FILE to this one, counted in clients' prefixes
    #[arg(long, value_name = "FILE", requires = "config", conflicts_with = "client")]
    diff: Option<PathBuf>,
    /// JSON rather than words
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let args = match &args.command {
        Command::Cache(args) => return cache(args),
        Command::Route(args) => return route(args),
        Command::Dns(args) => args,
    };
    let said = match (&args.config, &args.diff, args.client) {
        (Some(old), Some(new), _) => changes(args, old, new)?,
        (Some(path), None, Some(client)) => by_file(args, path, client)?,
        (None, None, Some(client)) => by_dev(args, client)?,
        _ => bail!("--client IP is missing"),
    };
    print_line(said.trim_end())
}

/// What a file says of DNS.
fn read(path: &Path) -> anyhow::Result<(Dns, Zone, World)> {
    let config = read_config(path)?;
    let none = || format!("{} has no `dns` section", path.display());
    let dns = config.dns.with_context(none)?;
    let (zone, world) = (Zone::new(&dns, 1)?, world_of(&config.regions, &dns)?);
    Ok((dns, zone, world))
}

fn changes(args: &DnsArgs, old: &Path, new: &Path) -> anyhow::Result<String> {
    let ((_, zone, old), (_, _, new)) = (read(old)?, read(new)?);
    let diff = diff(&zone.service(args.name.as_deref())?, &old, &new);
    Ok(match args.json {
        true => serde_json::to_string_pretty(&diff.to_json())?,
        false => diff.to_words(),
    })
}

fn by_file(args: &DnsArgs, path: &Path, client: IpAddr) -> anyhow::Result<String> {
    let (dns, zone, world) = read(path)?;
    let service = zone.service(args.name.as_deref())?;
    let query = Query { service: &service, address: client, source: Source::Client };
    let (decision, ttl) = (decide(&query, &world), dns.ttl.as_secs());
    Ok(match args.json {
        true => serde_json::to_string_pretty(&explanation(&query, &world, &decision, ttl))?,
        false => narration(&query, &world, &decision, ttl),
    })
}

/// Asks the DNS server of a running `nearhop dev`.
fn by_dev(args: &DnsArgs, client: IpAddr) -> anyhow::Result<String> {
    let operator = Operator::of_dev(dev::dns_admin(dev::DNS_PORT));
    let mut query = format!("client={client}");
    if let Some(name) = &args.name {
        // Domain names need no escaping; what would is none.
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !name.chars().all(fine) {
            bail!("--name {name} is no domain name");
        }
        query += &format!("&name={name}");
    }
    if !args.json {
        query += "&words=true";
    }
    let path = format!("/explain/dns?{query}");
    match args.json {
        true => Ok(serde_json::to_string_pretty(&operator.ask_json(&path, None)?)?),
        false => Ok(String::from_utf8(operator.ask(&path, None)?)?),
    }
}

fn read_request(path: &Path) -> anyhow::Result<Value> {
    let text = source::read(path)?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

/// Where an edge would send a request.
fn route(args: &RouteArgs) -> anyhow::Result<()> {
    let request = read_request(&args.request)?;
    let asked = json!({ "tenant": args.tenant, "path": args.path, "request": request });
    tell((args.config.as_deref(), args.json), ("/route/explain", &asked), route_words)
}

/// Asks an edge's operator, and prints what it says, in words or as JSON.
fn tell(
    (config, json): (Option<&Path>, bool),
    (path, asked): (&str, &Value),
    words: fn(&Value) -> String,
) -> anyhow::Result<()> {
    let said = Operator::of_edge(config)?.ask_json(path, Some(asked))?;
    match json {
        true => print_line(&serde_json::to_string_pretty(&said)?),
        false => print_line(words(&said).trim_end()),
    }
}

fn route_words(said: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (model, kind, level) = (text(&said["model"]), text(&said["kind"]), text(&said["level"]));
    let mut words = format!("{kind} request for {model}, at level {level}\n");
    let list = |name: &str| said[name].as_array().cloned().unwrap_or_default();
    for (at, one) in list("candidates").iter().enumerate() {
        let (name, class) = (text(&one["name"]), text(&one["class"]));
        let (in_flight, queued) = (&one["in_flight"], &one["queued"]);
        let because = text(&one["because"]);
        let _ = write!(words, "{}. {name} ({class}): {because}", at + 1);
        let _ = writeln!(words, "; {in_flight} in flight, {queued} queued");
    }
    if list("candidates").is_empty() {
        words += "nobody would take it now\n";
    }
    for one in list("left_out") {
        let (name, class) = (text(&one["name"]), text(&one["class"]));
        let _ = writeln!(words, "-  {name} ({class}): {}", text(&one["because"]));
    }
    words
}

/// What an edge's cache would do with a request.
fn cache(args: &CacheArgs) -> anyhow::Result<()> {
    let request = read_request(&args.request)?;
    let CacheArgs { tenant, key, user, path, .. } = args;
    let own =
        if request.get("messages").is_some() { "/v1/chat/completions" } else { "/v1/completions" };
    let path = path.as_deref().unwrap_or(own);
    let asked =
        json!({ "tenant": tenant, "key": key, "user": user, "path": path, "request": request });
    tell((args.config.as_deref(), args.json), ("/cache/explain", &asked), cache_words)
}

fn cache_words(said: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut words = format!("{}: {}\n", text(&said["model"]), text(&said["verdict"]));
    let entries = said["entries"].as_array().map_or(&[][..], Vec::as_slice);
    for entry in entries {
        let mark = if entry["serves"] == true { "+" } else { "-" };
        let bytes = &entry["answer_bytes"];
        let _ = writeln!(words, "{mark} an answer of {bytes} bytes: {}", text(&entry["because"]));
    }
    if entries.is_empty() {
        words += "nothing was stored at this cursor's line or the lines above it\n";
    }
    words + &alike(&said["l3"])
}

/// What was asked alike.
fn alike(l3: &Value) -> String {
    if l3.is_null() {
        return String::new();
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut words = format!("asked alike: {}\n", text(&l3["verdict"]));
    let limit = 100.0 * l3["route"]["limit"].as_f64().unwrap_or(0.0);
    for (how, name) in [("exact", "the same question"), ("similar", "alike")] {
        let Some(trial) = l3["route"].get(how) else { continue };
        let bound = 100.0 * trial["bound"].as_f64().unwrap_or(1.0);
        let (wrong, judged) = (&trial["recent_wrong"], &trial["recent"]);
        let stage = text(&trial["stage"]);
        let _ = writeln!(
            words,
            "  {name}: {stage}, {wrong} of {judged} judged wrong, at most {bound:.1} % (limit {limit:.1} %)"
        );
    }
    for one in l3["neighbours"].as_array().into_iter().flatten() {
        let similarity = one["similarity"].as_f64().unwrap_or(0.0);
        let lacks: Vec<String> = one["lacks"].as_array().into_iter().flatten().map(&text).collect();
        let because = match one["veto"].as_str() {
            None => "no word speaks against it".to_owned(),
            Some(veto) => format!(
                "{veto}: it lacks [{}], and has {} words more",
                lacks.join(", "),
                one["has_more"]
            ),
        };
        let (compared, wrong) = (&one["evidence"]["compared"], &one["evidence"]["wrong"]);
        let _ = writeln!(
            words,
            "  {similarity:.3} {}: {because}; compared {compared} times, wrong {wrong}",
            text(&one["age"])
        );
    }
    words
}
