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
    Model, OriginError,
    http::App,
    queue::Entrance,
    scheduler::Limits,
    session::{self, Options, Runtime, Session},
    worker::{Counters, Engine},
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
    /// Loads the model and opens both listeners. Blocks for as long as the weights take to load;
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
        let model = Arc::new(Model::load(&origin.model)?);
        let runtime = Runtime::load(origin.ort_library.as_deref(), env)?;
        let options = Options {
            slots: origin.slots,
            threads: origin.threads,
            chunk: origin.prefill_chunk,
            provider: None,
            cache: None,
        };
        let opened = session::open(&runtime, &model, &options)?;
        tracing::info!(model = model.fingerprint(), slots = origin.slots, "model loaded");
        let pod = Self::assemble(origin, opened.session, model, (serving, admin))?;
        Ok(Self { tls, ..pod })
    }

    fn assemble(
        origin: &Origin,
        session: Box<dyn Session>,
        model: Arc<Model>,
        (serving, admin): (TcpListener, TcpListener),
    ) -> Result<Self, OriginError> {
        let metrics = Metrics::default();
        let waiting = vec![
            metrics.gauge("vllm:num_requests_waiting", "Sequences that wait for a slot."),
            metrics.gauge("llm_inference_queue_length", "Sequences that wait for a slot."),
        ];
        let entrance = Entrance::new(origin.queue, waiting);
        let limits = Limits { slots: origin.slots, chunk: origin.prefill_chunk };
        let counters = Counters::new(&metrics);
        let engine = Engine::start(session, Arc::clone(&model), limits, entrance, counters)?;
        let (draining, drained) = watch::channel(false);
        let (heartbeat, stall_after) = (engine.heartbeat.clone(), origin.stall_after);
        let live = move || match heartbeat.silence(clock::now()) {
            silence if silence < stall_after => Ok(()),
            silence => Err(format!("the engine has not moved for {} s", silence.as_secs())),
        };
        let live: nearhop_admin::Check = Arc::new(live);
        let alive = Arc::clone(&live);
        let ready: nearhop_admin::Check = Arc::new(move || match *drained.borrow() {
            true => Err("stopping".to_owned()),
            false => alive(),
        });
        let app = App::new(model, (engine, origin.slots), Arc::clone(&ready), &metrics).router();
        let token = origin.admin.token.as_ref();
        let admin_app = admin_router(Checks { live, ready }, metrics, token, axum::Router::new());
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
