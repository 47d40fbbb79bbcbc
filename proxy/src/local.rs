//! The edge's own pod: small models on loopback, in a process beside this one.
//!
//! A model in the edge's process could crash it, hold its cores or eat its memory. So it runs as
//! `nearhop origin --role …`, speaks the same protocol as any pod, dies with the edge, and is
//! started again when it ends, hangs or grows; the pauses between starts grow while it does not
//! stay ([`mod@judge`]).

mod judge;

use std::{
    ffi::OsString,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nearhop_admin::{Question, Trust, clock, fetch};
use nearhop_conf::LocalPod;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use self::judge::{End, Seen, Verdict, judge, pause};
use crate::{
    child::{Child, ChildError, stop_all},
    metrics::EdgeMetrics,
    upstream::{
        member::Role,
        pool::{Found, Source, Upstreams},
    },
};

const NAME: &str = "the edge's own pod";
const NAME_AS_UPSTREAM: &str = "local";
/// From one look at it to the next.
const LOOK: Duration = Duration::from_secs(1);

/// The pod's state, for the operator and for whoever wants to ask it.
pub(crate) struct Local {
    settings: LocalPod,
    arguments: Vec<OsString>,
    metrics: EdgeMetrics,
    upstreams: Arc<Upstreams>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    pid: Option<u32>,
    listen: Option<std::net::SocketAddr>,
    admin: Option<std::net::SocketAddr>,
    memory: u64,
    starts: u64,
    last_end: Option<String>,
}

impl Local {
    /// A pod for `settings`, whose models are in the configuration at `config`.
    pub(crate) fn new(
        settings: LocalPod,
        config: &Path,
        (metrics, upstreams): (EdgeMetrics, Arc<Upstreams>),
    ) -> Self {
        let words = ["origin".to_owned(), "--role".to_owned(), settings.roles.join(",")];
        let threads = ["--threads".to_owned(), settings.threads.to_string(), "-c".to_owned()];
        let arguments = words.into_iter().chain(threads).map(OsString::from);
        let arguments = arguments.chain([config.as_os_str().to_owned()]).collect();
        Self { settings, arguments, metrics, upstreams, state: Mutex::default() }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let memory = i64::try_from(state.memory).unwrap_or(i64::MAX);
        self.metrics.local_memory.set(memory);
        self.metrics.local_ready.set(i64::from(state.listen.is_some()));
        let found = state.listen.map(|address| Found {
            name: NAME_AS_UPSTREAM.to_owned(),
            address,
            role: Role::Local,
        });
        drop(state);
        self.upstreams.set(&Source::Local, found.into_iter().collect(), clock::now());
    }

    /// For `/admin/v1/local`.
    pub(crate) fn describe(&self) -> Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        json!({
            "roles": self.settings.roles,
            "ready": state.listen.is_some(),
            "pid": state.pid,
            "listen": state.listen,
            "admin": state.admin,
            "memory_bytes": state.memory,
            "memory_limit_bytes": self.settings.memory.0,
            "starts": state.starts,
            "last_end": state.last_end,
        })
    }

    /// Keeps it running until `closing` says so.
    pub(crate) async fn supervise(&self, mut closing: watch::Receiver<bool>) {
        let mut failures = 0;
        loop {
            let began = clock::now();
            let mut children = Vec::new();
            let ended = tokio::select! {
                ended = self.run(&mut children) => ended,
                () = until(&mut closing) => {
                    stop_all(children).await;
                    return;
                }
            };
            stop_all(children).await;
            failures = judge::failures(failures, clock::now() - began);
            let pause = pause(failures);
            let end = ended.name();
            self.metrics.local_ends.with_label_values(&[end]).inc();
            tracing::warn!(reason = %ended, ?pause, "{NAME} ended; it is started again");
            self.change(|state| {
                let (starts, last_end) = (state.starts, Some(ended.to_string()));
                *state = State { starts, last_end, ..State::default() };
            });
            tokio::select! {
                () = sleep(pause) => {}
                () = until(&mut closing) => return,
            }
        }
    }

    /// Starts it, and looks at it until there is a reason to end it. It is in `running` meanwhile.
    async fn run(&self, running: &mut Vec<Child>) -> End {
        let failed = |error: ChildError| End::Start(error.to_string());
        let child = match Child::spawn(NAME, &self.arguments) {
            Ok(child) => child,
            Err(error) => return failed(error),
        };
        running.push(child);
        let child = &mut running[0];
        self.change(|state| {
            state.starts += 1;
            state.pid = Some(child.pid);
        });
        if let Err(error) = child.wait_ready().await {
            return failed(error);
        }
        let (listen, admin) = (child.listen(), child.admin());
        tracing::info!(pid = child.pid, ?listen, "{NAME} is ready");
        self.change(|state| (state.listen, state.admin) = (listen, admin));
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = 0;
        loop {
            tick.tick().await;
            silent = match lives(admin).await {
                true => 0,
                false => silent + 1,
            };
            let memory = child.memory().unwrap_or(0);
            self.change(|state| state.memory = memory);
            let seen = Seen { ended: child.has_ended(), silent, memory };
            if let Verdict::End(end) = judge(seen, self.settings.memory.0) {
                return end;
            }
        }
    }
}

async fn until(closing: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and the edge with it.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Whether its engines move.
async fn lives(admin: Option<std::net::SocketAddr>) -> bool {
    let Some(admin) = admin else { return false };
    let url = format!("http://{admin}/livez");
    let within = Duration::from_millis(800);
    let (host, trust, body) = (None, Trust::System, None);
    fetch(Question { url: &url, host, trust, body, bearer: None, limit: 4096, within })
        .await
        .is_ok()
}
