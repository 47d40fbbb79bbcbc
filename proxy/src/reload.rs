//! A changed configuration file becomes the live configuration, or is refused and told.
//!
//! Read, validated and built whole, then swapped: no request ever sees half of it. What was built
//! once, such as listeners and pods, stays as it was started; that it differs is said by name, and
//! a hand-over (SIGUSR2) takes it up without refusing a connection.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use nearhop_admin::{clock, tls::TlsError};
use nearhop_conf::{Config, ConfigError, Edge, L3, Loaded, source::process_env};
use openssl::ssl::SslAcceptor;
use serde_json::{Value, json};

use crate::{live::Live, metrics::EdgeMetrics};

/// Sets what is logged; `Err` says why it cannot be.
pub type SetLevel = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Why a changed file was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("the file describes no edge any more; its `edge` section is gone")]
    NoEdge,
    #[error("log.level: {0}")]
    Level(String),
    #[error("the configuration came from standard input and cannot be read again")]
    NoFile,
}

/// Takes changed files.
pub(crate) struct Reloader {
    /// With what the edge was started.
    booted: Config,
    state: Mutex<State>,
    live: Arc<ArcSwap<Live>>,
    /// The public listener's, where it has TLS.
    acceptor: Option<Arc<ArcSwap<SslAcceptor>>>,
    set_level: SetLevel,
    metrics: EdgeMetrics,
}

struct State {
    current: Loaded,
    generation: u64,
    /// Unix seconds of the last swap.
    since: u64,
    /// Why the last file was refused; `None` where it was taken.
    refused: Option<String>,
}

impl Reloader {
    pub(crate) fn new(
        loaded: Loaded,
        live: Arc<ArcSwap<Live>>,
        acceptor: Option<Arc<ArcSwap<SslAcceptor>>>,
        set_level: SetLevel,
        metrics: EdgeMetrics,
    ) -> Self {
        let since = clock::since_epoch().as_secs();
        Self {
            booted: loaded.config.clone(),
            state: Mutex::new(State { current: loaded, generation: 1, since, refused: None }),
            live,
            acceptor,
            set_level,
            metrics,
        }
    }

    fn state<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        // What is in it is whole at every moment.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The files that matter now.
    pub(crate) fn files(&self) -> Vec<std::path::PathBuf> {
        self.state(|state| {
            let mut files = state.current.files();
            if let Some(tls) = state.current.config.edge.as_ref().and_then(|edge| edge.tls.as_ref())
            {
                for pair in &tls.certificates {
                    files.extend([pair.certificate.clone(), pair.key.clone()]);
                }
            }
            files
        })
    }

    /// Reads the files again and takes what they say, or keeps what there is and says why.
    pub(crate) fn reload(&self) -> Result<(), ReloadError> {
        let (before, result) = self.state(|state| (state.refused.clone(), self.take(state)));
        match &result {
            // Said once, however often it is tried.
            Err(error) if before == Some(error.to_string()) => {}
            Ok(()) => self.metrics.reloads.with_label_values(&["taken"]).inc(),
            Err(error) => {
                self.metrics.reloads.with_label_values(&["refused"]).inc();
                tracing::error!(%error, "the changed configuration is not taken; the old one stays");
            }
        }
        result
    }

    fn take(&self, state: &mut State) -> Result<(), ReloadError> {
        let taken = self.build(state);
        state.refused = taken.as_ref().err().map(ToString::to_string);
        let (new, live, acceptor) = taken?;
        // From here on nothing can fail.
        if let (Some(current), Some(built)) = (&self.acceptor, acceptor) {
            current.store(Arc::new(built));
        }
        self.live.store(Arc::new(live));
        for change in state.current.changes(&new) {
            tracing::info!(%change, "configuration changed");
        }
        let fixed = fixed(&self.booted, &new.config);
        if !fixed.is_empty() {
            let fixed = fixed.join(", ");
            tracing::warn!(
                fixed,
                "these change only with a new process: send SIGUSR2 for a hand-over"
            );
        }
        state.current = new;
        state.generation += 1;
        state.since = clock::since_epoch().as_secs();
        Ok(())
    }

    fn build(&self, state: &State) -> Result<(Loaded, Live, Option<SslAcceptor>), ReloadError> {
        if state.current.files().is_empty() {
            return Err(ReloadError::NoFile);
        }
        let new = Loaded::read(state.current.path(), &process_env)?;
        let edge = new.config.edge.as_ref().ok_or(ReloadError::NoEdge)?;
        let acceptor = match (&self.acceptor, &edge.tls) {
            (Some(_), Some(tls)) => Some(nearhop_admin::tls::acceptor(tls)?),
            _ => None,
        };
        let live = Live::new(&new.config, edge);
        if new.config.log.level != state.current.config.log.level {
            (self.set_level)(&new.config.log.level).map_err(ReloadError::Level)?;
        }
        Ok((new, live, acceptor))
    }

    /// Whether the last file was refused. What it lacked may be in a file that nobody watches yet.
    pub(crate) fn is_refused(&self) -> bool {
        self.state(|state| state.refused.is_some())
    }

    /// Sets what is logged until the file says otherwise.
    pub(crate) fn set_level(&self, level: &str) -> Result<(), String> {
        (self.set_level)(level)
    }

    /// For `/admin/v1/config`.
    pub(crate) fn describe(&self) -> Value {
        self.state(|state| {
            json!({
                "file": state.current.path(),
                "generation": state.generation,
                "since": state.since,
                "refused": state.refused,
                "needs_new_process": fixed(&self.booted, &state.current.config),
            })
        })
    }
}

/// The fields that differ from what the edge was started with and that only a new process takes up.
fn fixed(booted: &Config, new: &Config) -> Vec<&'static str> {
    let mut fixed = Vec::new();
    let mut differs = |name, differs: bool| {
        if differs {
            fixed.push(name);
        }
    };
    differs("region", booted.region != new.region);
    differs("access.usage_file", booted.access.usage_file != new.access.usage_file);
    differs("log.format", booted.log.format != new.log.format);
    differs("traces", booted.traces != new.traces);
    differs("health", booted.health != new.health);
    differs("regions", booted.regions != new.regions);
    if let (Some(old), Some(new)) = (&booted.edge, &new.edge) {
        edge_fixed(old, new, &mut differs);
    }
    fixed
}

fn edge_fixed(old: &Edge, new: &Edge, differs: &mut impl FnMut(&'static str, bool)) {
    differs("edge.listen", old.listen != new.listen);
    differs("edge.tls", old.tls.is_some() != new.tls.is_some());
    differs("edge.peer", old.peer != new.peer);
    differs("edge.admin", old.admin != new.admin);
    differs("edge.threads", old.threads != new.threads);
    differs("edge.lame_duck", old.lame_duck != new.lame_duck);
    differs("edge.drain", old.drain != new.drain);
    differs("edge.limits.connections", old.limits.connections != new.limits.connections);
    differs("edge.limits.h2_streams", old.limits.h2_streams != new.limits.h2_streams);
    differs("edge.limits.keepalive (HTTP/2)", old.limits.keepalive != new.limits.keepalive);
    let pools = |upstream: &nearhop_conf::Upstream| {
        (upstream.protocol, upstream.connect, upstream.idle_connections, upstream.idle_timeout)
    };
    differs("edge.upstream", pools(&old.upstream) != pools(&new.upstream));
    differs("edge.upstream.tls", old.upstream.tls != new.upstream.tls);
    differs("edge.probes", old.probes != new.probes);
    differs("edge.pods", old.pods != new.pods);
    differs("edge.pods_from", old.pods_from != new.pods_from);
    differs("edge.resolver", old.resolver != new.resolver);
    differs("edge.providers", old.providers != new.providers);
    differs("edge.breaker", old.breaker != new.breaker);
    differs("edge.ejection", old.ejection != new.ejection);
    differs("edge.hedge.share", old.hedge.share.total_cmp(&new.hedge.share).is_ne());
    differs("edge.retries", old.retries != new.retries);
    differs("edge.affinity", old.affinity != new.affinity);
    differs("edge.ladder", old.ladder != new.ladder);
    differs("edge.events", old.events != new.events);
    differs("edge.l1", old.l1 != new.l1);
    differs("edge.l2", old.l2 != new.l2);
    // Routes are taken at once.
    let l3 = |l3: &Option<L3>| l3.clone().map(|l3| L3 { routes: Vec::new(), ..l3 });
    differs("edge.l3", l3(&old.l3) != l3(&new.l3));
    differs("edge.reuse", old.reuse != new.reuse);
    differs("edge.local", old.local != new.local);
}
