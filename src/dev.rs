//! `nearhop dev`: an edge and pods on this machine, as child processes that die with this one.
//!
//! Each child is the same binary in its ordinary role with an ordinary configuration file, so that
//! what works here works elsewhere. A dead pod stays dead unless `--restart`: kill one and watch
//! the editor not notice.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nearhop_admin::reserve;
use nearhop_conf::{Log, Secret};
use nearhop_proxy::child::{self, Child};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{interval, sleep},
};

use crate::{
    built_in::{MMDB, ServedModel, ZONE, find_model},
    certificates::Certificates,
    key::{hash_hex, random_hex},
    lifeline,
    log::Logging,
    print_line,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The edge's port for clients; 0 takes any free port
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The edge's admin port
    #[arg(long, default_value_t = ADMIN_PORT)]
    admin_port: u16,
    /// The pods' ports: one pod for each
    #[arg(long, value_delimiter = ',', default_values_t = [8091, 8092])]
    pod_ports: Vec<u16>,
    /// The DNS server's port
    #[arg(long, default_value_t = DNS_PORT)]
    dns_port: u16,
    /// The model folder
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Start a pod again when it dies
    #[arg(long)]
    restart: bool,
    /// TLS everywhere, with certificates made for this run
    #[arg(long)]
    tls: bool,
    /// Print one JSON line when ready instead of words
    #[arg(long)]
    ready_json: bool,
    /// Stop when standard input ends: for a parent that may die without a word
    #[arg(long, hide = true)]
    lifeline: bool,
}

const KEY: &str = "nh-dev";
/// Where the DNS server listens, as far as nobody says otherwise; its operator's port is the next.
pub(crate) const DNS_PORT: u16 = 5300;
/// Where the operator of `dev`'s edge asks.
pub(crate) const ADMIN_PORT: u16 = 8081;
/// A pod's admin port stands this much over its serving port.
const POD_ADMIN_OFFSET: u16 = 100;
const RESTART_DELAY: Duration = Duration::from_millis(500);

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let _logging = Logging::start(&Log::default());
    let model = find_model(args.model.as_deref())?;
    for port in &args.pod_ports {
        reserve(local(*port), "a pod", "--pod-ports")?;
        reserve(local(pod_admin(*port)), "a pod's admin listener", "--pod-ports")?;
    }
    reserve(local(args.port), "the edge", "--port")?;
    reserve(local(args.admin_port), "the edge's admin listener", "--admin-port")?;
    reserve(local(args.dns_port), "the DNS server", "--dns-port")?;
    reserve(dns_admin(args.dns_port), "the DNS server's admin listener", "--dns-port")?;
    // One thread: it only waits.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(supervise(args, &model))
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The address of `dev`'s edge for its operator.
pub(crate) const fn edge_admin(port: u16) -> SocketAddr {
    local(port)
}

/// Where the operator of `dev`'s DNS server asks.
pub(crate) const fn dns_admin(port: u16) -> SocketAddr {
    local(if port == 0 { 0 } else { port.saturating_add(1) })
}

const fn pod_admin(port: u16) -> u16 {
    if port == 0 { 0 } else { port.saturating_add(POD_ADMIN_OFFSET) }
}

async fn supervise(args: &Args, model: &ServedModel) -> anyhow::Result<()> {
    // Before the first child: a signal from now on must find somebody who ends them.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = lifeline::ended(args.lifeline)?;
    let folder = tempfile::tempdir().context("no folder for the children's configuration")?;
    let tls = args.tls.then(|| Certificates::make(folder.path())).transpose()?;
    let mut children = Vec::new();
    let ended = tokio::select! {
        ended = run_children(args, model, (&folder, tls.as_ref()), &mut children) => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        () = ended => Ok(()),
    };
    child::stop_all(children).await;
    ended
}

/// Starts everything, then waits on it; returns only when it cannot go on.
async fn run_children(
    args: &Args,
    model: &ServedModel,
    (folder, tls): (&TempDir, Option<&Certificates>),
    children: &mut Vec<Child>,
) -> anyhow::Result<()> {
    for (at, port) in args.pod_ports.iter().enumerate() {
        let name = format!("pod-{}", at + 1);
        let config = folder.path().join(format!("{name}.yaml"));
        std::fs::write(&config, pod_config(*port, &model.folder, tls)?)?;
        children.push(spawn(&name, "origin", &config)?);
    }
    for child in children.iter_mut() {
        child.wait_ready().await?;
    }
    let (config, mmdb) = (folder.path().join("dns.yaml"), folder.path().join("places.mmdb"));
    std::fs::write(&mmdb, MMDB)?;
    std::fs::write(&config, dns_config(args.dns_port, &mmdb)?)?;
    let mut dns = spawn("dns", "dns", &config)?;
    let ready = dns.wait_ready().await;
    children.push(dns);
    ready?;
    let config = folder.path().join("edge.yaml");
    std::fs::write(&config, edge_config(args, &pods(children), tls)?)?;
    let mut edge = spawn("edge", "edge", &config)?;
    let ready = edge.wait_ready().await;
    children.push(edge);
    ready?;
    print_line(&announcement(args, children, &model.name, tls))?;
    loop {
        let at = any_exit(children).await;
        let (name, pid) = (children[at].name.clone(), children[at].pid);
        if name == "edge" || name == "dns" {
            bail!("{name} (pid {pid}) ended; its last words are above");
        }
        if !args.restart {
            eprintln!("nearhop dev: {name} (pid {pid}) ended; the edge goes on without it");
            children.remove(at);
            continue;
        }
        eprintln!("nearhop dev: {name} (pid {pid}) ended; starting it again");
        sleep(RESTART_DELAY).await;
        // Where it was: the edge looks for it there.
        let listen = children[at].listen();
        let config = folder.path().join(format!("{name}.yaml"));
        std::fs::write(
            &config,
            pod_config(listen.map_or(0, |listen| listen.port()), &model.folder, tls)?,
        )?;
        children[at] = spawn(&name, "origin", &config)?;
        if let Err(error) = children[at].wait_ready().await {
            eprintln!("nearhop dev: {error:#}");
        }
    }
}

fn spawn(name: &str, role: &str, config: &Path) -> anyhow::Result<Child> {
    Ok(Child::spawn(name, &[role.into(), "-c".into(), config.into()])?)
}

/// Waits until a child ends; its place among `children`.
async fn any_exit(children: &mut [Child]) -> usize {
    let mut tick = interval(Duration::from_millis(50));
    loop {
        tick.tick().await;
        if let Some(at) = children.iter_mut().position(Child::has_ended) {
            return at;
        }
    }
}

/// JSON is YAML: a path with a colon or a quote in it stays a path.
fn pod_config(port: u16, model: &Path, tls: Option<&Certificates>) -> anyhow::Result<String> {
    let mut config = json!({
        "region": "local",
        "origin": {
            "listen": local(port),
            "admin": { "listen": local(pod_admin(port)) },
            "models": [{ "folder": model, "aliases": ["default"] }],
            "drain": "500ms",
        },
    });
    if let Some(tls) = tls {
        config["origin"]["tls"] = tls.of_pods();
    }
    Ok(serde_json::to_string_pretty(&config)?)
}

/// Three regions at documentation addresses; nobody is there, and nobody asks how they are.
fn dns_config(port: u16, mmdb: &Path) -> anyhow::Result<String> {
    let region = |name: &str, location: [f64; 2], addresses: [&str; 2]| json!({"name": name, "location": location, "addresses": addresses});
    let config = json!({
        "regions": [
            region("us-west", [37.4, -122.1], ["192.0.2.10", "2001:db8:1::10"]),
            region("eu-west", [53.3, -6.3], ["198.51.100.10", "2001:db8:2::10"]),
            region("ap-south", [19.1, 72.9], ["203.0.113.10", "2001:db8:3::10"]),
        ],
        "dns": {
            "listen": [local(port)],
            "admin": { "listen": dns_admin(port), "token": ADMIN_TOKEN },
            "zone": ZONE,
            "name_servers": ["ns1.example.com"],
            "mmdb": mmdb,
        },
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

/// The children that are pods.
fn pods(children: &[Child]) -> Vec<&Child> {
    children.iter().filter(|child| child.name.starts_with("pod-")).collect()
}

fn edge_config(args: &Args, pods: &[&Child], tls: Option<&Certificates>) -> anyhow::Result<String> {
    let pods: Vec<Value> =
        pods.iter().map(|pod| json!({"name": pod.name, "address": pod.listen()})).collect();
    // A secret of this run's own; the key is no secret.
    let secret = random_hex()?;
    let hash = hash_hex(&Secret::new(secret.as_str()), KEY);
    let mut config = json!({
        "region": "local",
        "access": {
            "key_secret": secret,
            "keys": [{"name": "dev", "tenant": "dev", "hmac_sha256": hash}],
        },
        "edge": {
            "listen": local(args.port),
            "admin": { "listen": local(args.admin_port), "token": ADMIN_TOKEN },
            "drain": "500ms",
            "pods": pods,
        },
    });
    if let Some(tls) = tls {
        config["edge"]["tls"] = tls.public();
        config["edge"]["upstream"] = json!({ "tls": tls.toward_pods() });
    }
    Ok(serde_json::to_string_pretty(&config)?)
}

/// On 127.0.0.1 only, and printed: no secret.
pub(crate) const ADMIN_TOKEN: &str = "nh-dev-admin-token";

fn announcement(
    args: &Args,
    children: &[Child],
    model: &str,
    tls: Option<&Certificates>,
) -> String {
    let edge = children.iter().find(|child| child.name == "edge");
    let dns = children.iter().find(|child| child.name == "dns");
    let pods = pods(children);
    let url = |child: Option<&Child>| {
        let scheme = if args.tls { "https" } else { "http" };
        child
            .and_then(Child::listen)
            .map(|listen| format!("{scheme}://{listen}"))
            .unwrap_or_default()
    };
    let edge_url = url(edge);
    let authority = tls.map(Certificates::authority);
    let admin =
        edge.and_then(Child::admin).map(|admin| format!("http://{admin}")).unwrap_or_default();
    if args.ready_json {
        let pods: Vec<Value> = pods
            .iter()
            .map(|pod| json!({"name": pod.name, "pid": pod.pid, "listen": pod.listen(), "admin": pod.admin()}))
            .collect();
        return json!({
            "ready": "dev",
            "edge": edge_url,
            "authority": authority,
            "admin": admin,
            "admin_token": ADMIN_TOKEN,
            "edge_pid": edge.map(|edge| edge.pid),
            "pods": pods,
            "dns": dns.and_then(Child::listen),
            "dns_admin": dns.and_then(Child::admin),
            "key": KEY,
            "model": model,
        })
        .to_string();
    }
    let pods: Vec<String> = pods
        .iter()
        .map(|pod| format!("  {}  {}   kill {}", pod.name, url(Some(pod)), pod.pid))
        .collect();
    let (curl, python, trust) = match &authority {
        None => (String::new(), String::new(), String::new()),
        Some(file) => (
            format!(" --cacert {}", file.display()),
            format!("SSL_CERT_FILE={} ", file.display()),
            format!("  trust  {}   the authority of this run's certificates\n", file.display()),
        ),
    };
    format!(
        r#"
Nearhop is ready.

  edge   {edge_url}/v1   key {KEY}, model {model}
  admin  {admin}   /readyz, /metrics; /admin/v1/pods with token {ADMIN_TOKEN}
{trust}{pods}
  dns    {dns}   {ZONE}, with three regions at documentation addresses

Try it:
  curl{curl} {edge_url}/v1/completions -H 'authorization: Bearer {KEY}' \
    -d '{{"model": "{model}", "prompt": "def add(a, b):\n    return ", "suffix": "\n", "max_tokens": 16}}'
  {python}python3 -c 'from openai import OpenAI; print(OpenAI(base_url="{edge_url}/v1", api_key="{KEY}").completions.create(model="{model}", prompt="for i in range(", max_tokens=16).choices[0].text)'

  dig @{dns_host} -p {dns_port} {ZONE} +subnet=203.0.113.0/24 +short; nearhop explain dns --client 203.0.113.7

Kill a pod and ask again; Ctrl-C stops everything."#,
        pods = pods.join("\n"),
        dns = dns.and_then(Child::listen).map(|listen| listen.to_string()).unwrap_or_default(),
        dns_host = Ipv4Addr::LOCALHOST,
        dns_port = dns.and_then(Child::listen).map_or(0, |listen| listen.port()),
    )
}
