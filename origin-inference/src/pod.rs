//! Assembles a pod: model, engine, listeners.

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use nearhop_admin::{
    Checks, Metrics, ServeLimits, ServeTls, admin_router, bind, clock, serve,
    tls::{TlsError, keep_fresh, mutual_acceptor, mutual_files},
};
use nearhop_conf::{MutualTls, Origin, source::Env};
use tokio::sync::watch;

use crate::{
    OriginError,
    counters::Families,
    http::App,
    operator,
    registry::{ChangeError, OrtOpener, Registry},
    session::Runtime,
};

/// An edge's pooled connections lie idle for a minute; ours must not close them first.
const IDLE: Duration = Duration::from_secs(120);

/// A pod that is loaded and listens; [`run`] serves it.
pub struct Pod {
    serving: TcpListener,
    admin: TcpListener,
    app: axum::Router,
    admin_app: axum::Router,
    draining: watch::Sender<bool>,
    drain: Duration,
    tls: Option<(MutualTls, ServeTls)>,
}

impl Pod {
    /// Loads the models and opens both listeners. Blocks for as long as the weights take to load;
    /// a small model takes well under a second.
    ///
    /// # Errors
    /// [`OriginError`].
    pub fn start(origin: &Origin, env: Env<'_>) -> Result<Self, OriginError> {
        // First, so that a port in use is told before a large model is loaded.
        let serving = bind(origin.listen, "the pod", "origin.listen")?;
        let admin = bind(origin.admin.listen, "the pod's admin listener", "origin.admin.listen")?;
        let tls = origin.tls.as_ref().map(|tls| {
            let acceptor = Arc::new(ArcSwap::from_pointee(mutual_acceptor(tls)?));
            Ok::<_, TlsError>((tls.clone(), ServeTls { acceptor, names: tls.names.clone().into() }))
        });
        let tls = tls.transpose()?;
        let runtime = Runtime::load(origin.ort_library.as_deref(), env)?;
        let metrics = Metrics::default();
        let families = Families::new(&metrics);
        let opener = Arc::new(OrtOpener { runtime, origin: origin.clone(), families });
        let registry = Registry::start(opener, &origin.models).map_err(|error| match error {
            ChangeError::Load(error) => error,
            other => OriginError::Models(other.to_string()),
        })?;
        let pod = Self::assemble(origin, registry, metrics, (serving, admin))?;
        Ok(Self { tls, ..pod })
    }

    fn assemble(
        origin: &Origin,
        registry: Registry,
        metrics: Metrics,
        (serving, admin): (TcpListener, TcpListener),
    ) -> Result<Self, OriginError> {
        let registry = Arc::new(registry);
        let (draining, drained) = watch::channel(false);
        let (checked, stall_after) = (Arc::clone(&registry), origin.stall_after);
        let live: nearhop_admin::Check = Arc::new(move || checked.check(clock::now(), stall_after));
        let alive = Arc::clone(&live);
        let ready: nearhop_admin::Check = Arc::new(move || match *drained.borrow() {
            true => Err("stopping".to_owned()),
            false => alive(),
        });
        let app = App::new(Arc::clone(&registry), Arc::clone(&ready), &metrics).router();
        let token = origin.admin.token.as_ref();
        let admin_app =
            admin_router(Checks { live, ready }, metrics, token, operator::router(registry));
        Ok(Self { serving, admin, app, admin_app, draining, drain: origin.drain, tls: None })
    }

    /// Where it serves, and where its operator looks.
    ///
    /// # Errors
    /// What the operating system says of its sockets.
    pub fn addresses(&self) -> std::io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.serving.local_addr()?, self.admin.local_addr()?))
    }
}

/// Serves until `shutdown` ends: then `/readyz` fails, and running answers may finish.
pub async fn run(pod: Pod, shutdown: impl Future<Output = ()>) {
    let Pod { serving, admin, app, admin_app, draining, drain, tls } = pod;
    let limits = ServeLimits { connections: 4096, header_read: IDLE, drain };
    let admin_limits = ServeLimits { connections: 64, ..limits };
    let stop = draining.subscribe();
    let admin = serve(admin, admin_app, admin_limits, None, stopped(stop.clone()));
    let admin = tokio::spawn(admin);
    let serve_tls = tls.as_ref().map(|(_, serve_tls)| serve_tls.clone());
    let fresh = tls.map(|(files, serve_tls)| {
        let paths = mutual_files(&files);
        tokio::spawn(keep_fresh(paths, serve_tls.acceptor, move || mutual_acceptor(&files)))
    });
    let serving = serve(serving, app, limits, serve_tls, stopped(stop));
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = shutdown => {
            draining.send_replace(true);
            serving.await;
        }
    }
    admin.abort();
    if let Some(fresh) = fresh {
        fresh.abort();
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|stopping| *stopping).await;
}

#[cfg(test)]
mod tests;
