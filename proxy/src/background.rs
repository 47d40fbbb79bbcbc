//! What runs beside requests, on a runtime of its own: the operator's listener, the watched files,
//! the keys of token issuers.

use std::{net::TcpListener, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::join_all;
use nearhop_admin::{Question, ServeLimits, Trust, clock, fetch, serve, tls::Files};
use nearhop_admission::{KEY_SET_BYTES_MAX, Others, Used};
use nearhop_edge_cache::{
    cluster::Trouble,
    l2::{self, Applied},
};
use nearhop_routing::Class;
use prometheus::IntGauge;
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    time::interval,
};

use crate::{
    phase::{Shared, places},
    reload::Reloader,
};

/// The operator's listener, until `stopped` ends.
pub(crate) async fn serve_admin(
    listener: TcpListener,
    app: axum::Router,
    stopped: impl Future<Output = ()> + Send + 'static,
) {
    let limits = ServeLimits {
        connections: 64,
        header_read: Duration::from_secs(30),
        drain: Duration::from_secs(1),
    };
    serve(listener, app, limits, None, stopped).await;
}

/// How often a refused configuration is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often files are looked at: a revoked key is refused within a second.
const LOOK: Duration = Duration::from_millis(300);

/// Reads the configuration again whenever a file of it changed.
pub(crate) async fn watch_files(reloader: Arc<Reloader>) {
    let mut paths: Vec<PathBuf> = reloader.files();
    let mut files = Files::new(paths.clone());
    let mut tick = interval(LOOK);
    let mut tried = clock::now();
    loop {
        tick.tick().await;
        let again = reloader.is_refused() && clock::now() > tried + AGAIN;
        if !files.changed() && !again {
            continue;
        }
        tried = clock::now();
        reload(Arc::clone(&reloader)).await;
        let now = reloader.files();
        if now != paths {
            paths = now;
            files = Files::new(paths.clone());
        }
    }
}

/// Gives pods as many requests as they compute, or as they turn out to do well with, whenever that
/// changes.
pub(crate) async fn size_gate(shared: Arc<Shared>) {
    let mut tick = interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        let requests = shared.live.load().limits.requests;
        let limit = places(Some(shared.upstreams.capacity(requests, clock::now())), requests);
        shared.gate.resize(limit, requests / 4);
        shared.metrics.concurrency_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }
}

/// Counts the tasks of the edge's runtimes once a second: what is never ended shows there first.
pub(crate) async fn count_tasks(runtimes: [Handle; 2], tasks: IntGauge) {
    let mut tick = interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let alive: usize = runtimes.iter().map(|one| one.metrics().num_alive_tasks()).sum();
        tasks.set(i64::try_from(alive).unwrap_or(i64::MAX));
    }
}

/// How often connections to other regions are used, so that they stay open.
const WARM: Duration = Duration::from_secs(5);

/// Keeps connections to other regions' edges open, so that no request waits for handshakes.
pub(crate) async fn keep_warm(shared: Arc<Shared>) {
    const WITHIN: Duration = Duration::from_secs(3);
    let mut tick = interval(WARM);
    loop {
        tick.tick().await;
        let warming = shared.upstreams.of(Class::Region).into_iter().map(|edge| {
            let shared = Arc::clone(&shared);
            async move {
                let warmed = tokio::time::timeout(WITHIN, shared.exchanges.warm(&edge)).await;
                if let Ok(Err(error)) = warmed {
                    tracing::debug!(upstream = edge.name, error, "no connection is kept open");
                }
            }
        });
        join_all(warming).await;
    }
}

/// Closes connections to pods that nobody uses any more.
pub(crate) async fn close_idle(shared: Arc<Shared>) {
    let mut tick = interval(Duration::from_secs(5));
    loop {
        tick.tick().await;
        shared.exchanges.sweep(clock::now());
    }
}

/// Fetches the keys of token issuers whenever they are due.
pub(crate) async fn fetch_keys(shared: Arc<Shared>) {
    const WITHIN: Duration = Duration::from_secs(5);
    let mut tick = interval(Duration::from_millis(500));
    loop {
        tick.tick().await;
        let live = shared.live.load_full();
        for issuer in shared.jwks.due(live.directory.issuers(), clock::since_epoch().as_secs()) {
            let (shared, issuer) = (Arc::clone(&shared), issuer.clone());
            tokio::spawn(async move {
                let question = Question {
                    url: &issuer.jwks_url,
                    host: None,
                    trust: issuer.ca.as_deref().map_or(Trust::System, Trust::Authorities),
                    body: None,
                    bearer: None,
                    limit: KEY_SET_BYTES_MAX,
                    within: WITHIN,
                };
                let answer = fetch(question).await.map_err(|error| error.to_string());
                let now = clock::since_epoch().as_secs();
                let result = match shared.jwks.fetched(&issuer.issuer, answer, now) {
                    Ok(()) => "taken",
                    Err(reason) => {
                        tracing::warn!(
                            issuer = issuer.issuer,
                            reason,
                            "an issuer's keys cannot be had"
                        );
                        "failed"
                    }
                };
                shared.metrics.jwks.with_label_values(&[result]).inc();
            });
        }
    }
}

/// Away from the threads of requests: files are read and certificates parsed.
pub(crate) async fn reload(reloader: Arc<Reloader>) {
    // What went wrong was logged, counted and kept for the operator.
    let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
}

/// What the shared cache has to have done beside requests: writes, and the log of purges.
pub(crate) async fn serve_l2(shared: Arc<Shared>, writes: mpsc::Receiver<l2::Write>) {
    let Some(tier) = shared.l2.clone() else { return };
    let stores = shared.metrics.stores.clone();
    let done = move |written: Result<(), Trouble>| {
        let result = written.map_or_else(|trouble| trouble.name(), |()| "stored");
        stores.with_label_values(&["l2", result]).inc();
    };
    let (purged, sweeping) = (Arc::new(Notify::new()), Arc::clone(&shared));
    let told = Arc::clone(&purged);
    let apply = move |applied| {
        if applied == Applied::Gap {
            tracing::warn!("the log of purges lost records: everything older is dropped");
        }
        told.notify_one();
    };
    // However many purges come at once, one sweep drops them all.
    let sweep = async move {
        loop {
            purged.notified().await;
            crate::purge::sweep(&sweeping).await;
        }
    };
    tokio::join!(
        tier.write_behind(writes, done),
        Arc::clone(&tier).follow(clock::since_epoch, apply),
        tell_trouble(Arc::clone(&tier)),
        sweep,
        forget(shared),
    );
}

/// How often edges tell each other what was used of limits.
const TELL: Duration = Duration::from_millis(500);
/// Owners told of at once; the rest is told with the next.
const TELLING: usize = 32;

/// Tells other edges what was used of limits here, and charges what they used.
pub(crate) async fn share_limits(shared: Arc<Shared>) {
    let Some(tier) = shared.l2.clone() else { return };
    let (mut tick, mut others) = (interval(TELL), Others::default());
    loop {
        tick.tick().await;
        let minute = clock::since_epoch().as_secs() / 60;
        others.forget(minute);
        for owners in shared.limiter.tell().chunks(TELLING) {
            let telling = owners.iter().map(|(owner, used)| {
                let tier = Arc::clone(&tier);
                async move {
                    let whose: Vec<&str> = std::iter::once(owner.tenant.as_str())
                        .chain(owner.key.as_deref())
                        .collect();
                    let added = [used.tokens, used.requests];
                    (owner, *used, tier.count(&whose, minute, added).await)
                }
            });
            for (owner, used, total) in join_all(telling).await {
                match total {
                    Ok([tokens, requests]) => {
                        let total = Used { tokens, requests };
                        shared.limiter.charge(owner, others.learn(owner, minute, used, total));
                    }
                    // Where nobody answers, each edge counts alone.
                    Err(_) => others.lost(owner, minute, used),
                }
            }
        }
    }
}

/// Says when the shared cache cannot be used, and why, whenever that changes.
async fn tell_trouble(tier: Arc<l2::Shared>) {
    let (mut tick, mut told) = (interval(Duration::from_secs(5)), None);
    loop {
        tick.tick().await;
        let problem = tier.cluster().problem();
        match &problem {
            _ if problem == told => {}
            Some(problem) => tracing::warn!(problem, "the shared cache cannot be used"),
            None => tracing::info!("the shared cache can be used again"),
        }
        told = problem;
    }
}

/// Purges that are older than any entry are of no use.
async fn forget(shared: Arc<Shared>) {
    const OLDEST: Duration = Duration::from_secs(8 * 24 * 3600);
    let mut tick = interval(Duration::from_secs(3600));
    loop {
        tick.tick().await;
        shared.validity.forget(OLDEST, clock::since_epoch());
    }
}
