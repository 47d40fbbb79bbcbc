//! `nearhop explain dns`.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use nearhop_conf::Dns;
use nearhop_geo::{
    Query, Source, World, decide, diff, dns::Zone, explanation, narration, world_of,
};

use crate::{dev, print_line, read_config};

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
    let Command::Dns(args) = &args.command;
    let said = match (&args.config, &args.diff, args.client) {
        (Some(old), Some(new), _) => changes(args, old, new)?,
        (Some(path), None, Some(client)) => by_file(args, path, client)?,
        (None, None, Some(client)) => by_dev(args, client)?,
        _ => bail!("--client IP is missing"),
    };
    print_line(said.trim_end());
    Ok(())
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

const WITHIN: Duration = Duration::from_secs(5);
const ANSWER_MAX: u64 = 1 << 20;

/// Asks the DNS server of a running `nearhop dev`.
fn by_dev(args: &DnsArgs, client: IpAddr) -> anyhow::Result<String> {
    let address = dev::dns_admin(dev::DNS_PORT);
    let told = || {
        format!(
            "no `nearhop dev` answers on {address}; start one with DNS on its usual port, or decide by a file with -c FILE"
        )
    };
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
    let answer = get(address, &format!("/admin/v1/explain/dns?{query}")).with_context(told)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("it answered no HTTP")?;
    if !head.starts_with("HTTP/1.0 200") && !head.starts_with("HTTP/1.1 200") {
        bail!("it answered {}: {body}", head.lines().next().unwrap_or_default());
    }
    match args.json {
        true => {
            let value: serde_json::Value = serde_json::from_str(body)?;
            Ok(serde_json::to_string_pretty(&value)?)
        }
        false => Ok(body.to_owned()),
    }
}

/// One request, whose answer ends with the connection.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    let token = dev::ADMIN_TOKEN;
    let request =
        format!("GET {path} HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
