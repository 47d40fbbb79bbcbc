//! `nearhop check -c FILE`.

use std::path::PathBuf;

use anyhow::bail;
use nearhop_admin::tls::{TlsError, acceptor, mutual_acceptor, read_certificates};
use nearhop_conf::{Config, OriginModel};
use nearhop_origin_inference::{Model, ModelKind};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The configuration file; - for standard input
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Check the file alone, not the certificates, keys, databases and models that it names
    #[arg(long)]
    file_only: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = crate::read_config(&args.config)?;
    if !args.file_only {
        let mut mistakes = certificates(&config);
        mistakes.extend(health_files(&config));
        mistakes.extend(model_folders(&config));
        mistakes.extend(dns_files(&config));
        if !mistakes.is_empty() {
            bail!(
                "{} names files that cannot be used:\n{}",
                args.config.display(),
                mistakes.join("\n")
            );
        }
    }
    crate::print_line(&format!("{}: ok. {}", args.config.display(), describe(&config)))
}

/// What is wrong with the certificates, each with its field.
fn certificates(config: &Config) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut check = |field: &str, built: Result<(), TlsError>| {
        if let Err(error) = built {
            mistakes.push(format!("  {field}: {error}"));
        }
    };
    if let Some(edge) = &config.edge {
        if let Some(tls) = &edge.tls {
            check("edge.tls", acceptor(tls).map(drop));
        }
        if let Some(peer) = &edge.peer {
            check("edge.peer.tls", mutual_acceptor(&peer.tls).map(drop));
        }
        if let Some(tls) = &edge.upstream.tls {
            check("edge.upstream.tls", mutual_acceptor(tls).map(drop));
        }
    }
    if let Some(tls) = config.origin.as_ref().and_then(|origin| origin.tls.as_ref()) {
        check("origin.tls", mutual_acceptor(tls).map(drop));
    }
    mistakes
}

/// Why no DNS server could start: names, keys, databases, certificates.
fn dns_files(config: &Config) -> Option<String> {
    config.dns.as_ref()?;
    nearhop_geo::dns::check(config).err().map(|error| format!("  {error}"))
}

/// Why regions could not be looked at.
fn health_files(config: &Config) -> Option<String> {
    let ca = config.health.as_ref()?.ca.as_ref()?;
    read_certificates(ca).err().map(|error| format!("  health.ca: {error}"))
}

/// Models that could not be loaded, and an embedder that is none. An edge's own pod loads those of
/// its roles alone.
fn model_folders(config: &Config) -> Vec<String> {
    let edge = config.edge.as_ref();
    let embedder = edge.and_then(|edge| edge.l3.as_ref()).map(|l3| &l3.embedder);
    let roles = edge.and_then(|edge| edge.local.as_ref()).map(|local| &local.roles);
    let loaded = |entry: &OriginModel| {
        roles.is_none_or(|roles| roles.iter().any(|role| entry.aliases.contains(role)))
    };
    let models = config.origin.iter().flat_map(|origin| origin.models.iter().enumerate());
    let check = |(at, entry): (usize, &OriginModel)| match Model::load(&entry.folder) {
        Err(error) => Some(format!("  origin.models[{at}].folder: {error}")),
        Ok(model) => {
            let embeds = embedder.filter(|alias| entry.aliases.contains(alias));
            let alias = embeds.filter(|_| model.kind() != ModelKind::Embed)?;
            let (name, does) = (model.fingerprint(), model.kind().name());
            Some(format!(
                "  edge.l3.embedder: `{alias}` is {name}, a model that is to {does}. Give the alias to one that is to embed"
            ))
        }
    };
    models.filter(|(_, entry)| loaded(entry)).filter_map(check).collect()
}

/// What the file would run, so that a file of the wrong role is noticed.
fn describe(config: &Config) -> String {
    let edge = config.edge.as_ref().map(|edge| {
        format!(
            "an edge on {} with {} pods, {} keys and {} token issuers",
            edge.listen,
            edge.pods.len(),
            config.access.keys.len(),
            config.access.issuers.len()
        )
    });
    let origin = config.origin.as_ref().map(|origin| {
        let folders = origin.models.iter().map(|model| model.folder.display().to_string());
        let folders: Vec<String> = folders.collect();
        format!("a pod on {} with the models in {}", origin.listen, folders.join(", "))
    });
    let dns = config
        .dns
        .as_ref()
        .map(|dns| format!("a DNS server for {} with {} regions", dns.zone, config.regions.len()));
    let health = config
        .health
        .as_ref()
        .map(|health| format!("regions watched by {} vantage points", health.vantage_points.len()));
    let roles = edge.into_iter().chain(origin).chain(dns).chain(health);
    let roles: Vec<String> = roles.collect();
    format!("Region {}: {}", config.region, roles.join("; "))
}
