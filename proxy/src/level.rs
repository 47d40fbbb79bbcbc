//! How far service is degraded, and who is slower than its peers: judged beside requests by
//! `nearhop-routing`, told to whoever wants to know.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use nearhop_admin::clock;
use nearhop_routing::{Class, Component, Level, Seen, Step};
use serde_json::json;
use tokio::time::interval;

use crate::{
    phase::Shared,
    upstream::member::{Role, Upstream},
};

/// How often the level is judged.
const JUDGE: Duration = Duration::from_millis(500);

/// Judges how far service is degraded, and who is slower than its peers, for ever.
pub(crate) async fn judge(shared: Arc<Shared>) {
    let mut tick = interval(JUDGE);
    loop {
        tick.tick().await;
        let now = clock::now();
        shared.upstreams.judge_latency(now);
        shared.upstreams.show(now);
        // Before everybody was looked at, nothing is known to be out.
        if shared.upstreams.all_checked(now) {
            let seen = seen(&shared, now);
            let step = shared.ladder(|ladder| ladder.step(&seen, now));
            tell(&shared, step);
        }
    }
}

/// The operator holds the level, or lets it go.
pub(crate) fn hold(shared: &Shared, level: Option<Level>) {
    let step = shared.ladder(|ladder| ladder.force(level, clock::now()));
    tell(shared, step);
}

fn tell(shared: &Shared, step: Option<Step>) {
    let Some(Step { from, to, cause }) = step else { return };
    let number = Level::ALL.iter().position(|level| *level == to).unwrap_or_default();
    shared.level.store(u8::try_from(number).unwrap_or_default(), Ordering::Relaxed);
    shared.metrics.level.set(i64::try_from(number).unwrap_or_default());
    shared.metrics.level_changes.with_label_values(&[to.name(), cause.name()]).inc();
    if to > from {
        tracing::warn!(from = from.name(), to = to.name(), cause = cause.name(), "degraded");
    } else {
        tracing::info!(from = from.name(), to = to.name(), cause = cause.name(), "recovers");
    }
    let detail = json!({ "from": from.name(), "cause": cause.name() });
    shared.events.emit("level", to.name(), detail);
}

/// How the parts of the service are.
pub(crate) fn seen(shared: &Shared, now: Instant) -> Seen {
    let upstreams = &shared.upstreams;
    // More is asked than is done. How many wait does not say it: in a flood few do.
    let rate = shared.gate.rate();
    let crowded = rate > 0.0 && shared.gate.demand() > rate && shared.gate.waiting() > 0;
    let of = |class: Class, configured: bool| {
        let all = upstreams.of(class);
        let usable = |one: &&Arc<_>| is_usable(shared, one, now);
        let (mut any, mut strained) = (false, true);
        for one in all.iter().filter(usable) {
            any = true;
            strained &= one.look(now).paused;
        }
        match (all.is_empty() && !configured, any) {
            (true, _) => Component::Absent,
            (false, false) => Component::Out,
            (false, true) if strained || (class == Class::Pod && crowded) => Component::Strained,
            (false, true) => Component::Well,
        }
    };
    let local = upstreams.of(Class::Local);
    Seen {
        pods: of(Class::Pod, upstreams.has_pods()),
        regions: of(Class::Region, false),
        providers: of(Class::Provider, false),
        local: local.iter().any(|one| one.is_ready(now)),
    }
}

fn is_usable(shared: &Shared, upstream: &Upstream, now: Instant) -> bool {
    let up = match (&upstream.role, &shared.vantage) {
        (Role::Region(region), Some(vantage)) => {
            vantage.state(region).health != nearhop_geo::Health::Down
        }
        _ => true,
    };
    up && upstream.is_believed(now)
}
