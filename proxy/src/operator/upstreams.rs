//! What the operator is shown of upstreams, breakers, the level and events, and may hold.

use std::{collections::HashMap, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::{Path, Query},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use nearhop_admin::{Event, api_error, clock};
use nearhop_admission::Caller;
use nearhop_conf::Scope;
use nearhop_routing::{Class, Forced, LeftOut, Level, Standing, View};
use nearhop_wire::{ApiError, CompletionRequest, Endpoint};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    level,
    phase::{
        Shared,
        admit::{Admitted, Head},
        route::{self, Constraints, Routed},
    },
    upstream::{member::Upstream, pool::Upstreams},
};

/// The routes.
pub(super) fn routes(shared: &Arc<Shared>) -> Router {
    let with = || Arc::clone(shared);
    let (pods, all, breakers, one, ladder, held, events, explained) =
        (with(), with(), with(), with(), with(), with(), with(), with());
    Router::new()
        .route("/pods", get(move || async move { Json(list(&pods.upstreams, Some(Class::Pod))) }))
        .route("/upstreams", get(move || async move { Json(list(&all.upstreams, None)) }))
        .route("/breakers", get(move || async move { Json(states(&breakers.upstreams)) }))
        .route(
            "/breakers/{*name}",
            put(move |Path(name): Path<String>, body: String| async move {
                force(&one, &name, &body)
            }),
        )
        .route("/ladder", get(move || async move { Json(describe_level(&ladder)) }))
        .route("/ladder", put(move |body: String| async move { hold(&held, &body) }))
        .route(
            "/events",
            get(move |Query(query): Query<HashMap<String, String>>| async move {
                told(&events, &query)
            }),
        )
        .route("/route/explain", post(move |body: String| async move { explain(&explained, &body) }))
}

fn list(upstreams: &Upstreams, class: Option<Class>) -> Value {
    let now = clock::now();
    let all = upstreams.all();
    let wanted = all.iter().filter(|one| class.is_none_or(|class| one.class() == class));
    Value::Array(wanted.map(|one| describe(one, now)).collect())
}

fn describe(upstream: &Upstream, now: Instant) -> Value {
    let look = upstream.look(now);
    let out = out_because(look.standing);
    let known = look.report.is_some() || upstream.class() == Class::Provider;
    let address = match upstream.role.provider() {
        Some(_) => upstream.peer.load().as_ref().map(|peer| peer._address.to_string()),
        None => Some(upstream.address.to_string()),
    };
    json!({
        "name": upstream.name,
        "class": upstream.class().name(),
        "address": address,
        "ready": out.is_none() && known,
        "standing": standing(look.standing),
        "out_because": out,
        "paused": look.paused,
        "in_flight": look.in_flight,
        "running": look.running,
        "queued": look.queued,
        "slowness": (look.slowness * 1000.0).round() / 1000.0,
        "ready_for_seconds": look.ready_for.map(|time| time.as_secs()),
        "models": look.report.as_ref().map(|report| json!(report.models)),
    })
}

fn out_because(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Out(reason) => Some(reason.name()),
        Standing::Ready | Standing::Probing | Standing::Full => None,
    }
}

const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Ready => "ready",
        Standing::Probing => "probing",
        Standing::Full => "full",
        Standing::Out(_) => "out",
    }
}

fn states(upstreams: &Upstreams) -> Value {
    let now = clock::now();
    let all = upstreams.all();
    Value::Array(all.iter().map(|one| describe_breaker(one, now)).collect())
}

fn describe_breaker(upstream: &Upstream, now: Instant) -> Value {
    let (view, now_standing) =
        upstream.state(|state| (state.breaker.view(now), state.breaker.standing(now)));
    json!({
        "name": upstream.name,
        "class": upstream.class().name(),
        "state": view.state,
        "because": out_because(now_standing),
        "failures": view.failures,
        "total": view.total,
        "successes": view.successes,
        "running": view.running,
        "retry_in_seconds": view.retry_at.map(|at| at.saturating_duration_since(now).as_secs_f64()),
        "strikes": view.strikes,
        "forced": view.forced.map(|forced| match forced {
            Forced::Open => "open",
            Forced::Closed => "closed",
        }),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Force {
    forced: Option<String>,
}

/// Holds a breaker open or closed, or lets it go.
fn force(shared: &Shared, name: &str, body: &str) -> Response {
    let wrong =
        |message: String| api_error(StatusCode::BAD_REQUEST, &ApiError::invalid("forced", message));
    let wanted = serde_json::from_str::<Force>(body);
    let forced = match wanted.as_ref().map(|wanted| wanted.forced.as_deref()) {
        Ok(Some("open")) => Some(Forced::Open),
        Ok(Some("closed")) => Some(Forced::Closed),
        Ok(None) => None,
        Ok(Some(_)) | Err(_) => {
            return wrong("send {\"forced\": \"open\"}, \"closed\" or null".to_owned());
        }
    };
    let Some(upstream) = shared.upstreams.by_name(name) else {
        let all = shared.upstreams.all();
        let known: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        let message = format!("there is no upstream of that name; there is {}", known.join(", "));
        return api_error(StatusCode::NOT_FOUND, &ApiError::invalid("name", message));
    };
    let now = clock::now();
    shared.upstreams.force(&upstream, forced, now);
    tracing::warn!(upstream = upstream.name, forced = ?forced, "the operator holds a breaker");
    Json(describe_breaker(&upstream, now)).into_response()
}

fn describe_level(shared: &Shared) -> Value {
    let now = clock::now();
    let seen = level::seen(shared, now);
    let (level, cause, p99, forced) =
        shared.ladder(|ladder| (ladder.level(), ladder.cause(), ladder.p99(now), ladder.forced()));
    json!({
        "level": level.name(),
        "cause": cause.name(),
        "forced": forced.map(Level::name),
        "first_token_p99_ms": p99.map(|p99| p99.as_secs_f64() * 1000.0),
        "pods": seen.pods.name(),
        "regions": seen.regions.name(),
        "providers": seen.providers.name(),
        "local": seen.local,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    level: Option<String>,
}

/// Holds the level, or lets it go.
fn hold(shared: &Shared, body: &str) -> Response {
    let wrong = || {
        let message = "send {\"level\": \"L0\"} to \"L4\", or null to let it go";
        api_error(StatusCode::BAD_REQUEST, &ApiError::invalid("level", message))
    };
    let Ok(Hold { level: wanted }) = serde_json::from_str(body) else { return wrong() };
    let level = match wanted.as_deref().map(Level::parse) {
        None => None,
        Some(Some(level)) => Some(level),
        Some(None) => return wrong(),
    };
    level::hold(shared, level);
    tracing::warn!(level = ?level, "the operator holds the level");
    Json(describe_level(shared)).into_response()
}

/// Events after the one of that number; all that are kept without one.
fn told(shared: &Shared, query: &HashMap<String, String>) -> Response {
    let after = query.get("after").map_or(Ok(0), |text| text.parse());
    let Ok(after) = after else {
        let error = ApiError::invalid("after", "after must be an event's number");
        return api_error(StatusCode::BAD_REQUEST, &error);
    };
    let events: Vec<Value> = shared.events.after(after).iter().map(Event::to_json).collect();
    Json(events).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    tenant: String,
    path: String,
    request: Value,
}

/// Where a request would go now, in which order, and why not elsewhere. Nothing is sent.
fn explain(shared: &Shared, body: &str) -> Response {
    let wrong = |field: &str, message: String| {
        api_error(StatusCode::BAD_REQUEST, &ApiError::invalid(field, message))
    };
    let asked: Asked = match serde_json::from_str(body) {
        Ok(asked) => asked,
        Err(error) => return wrong("body", format!("send tenant, path and request: {error}")),
    };
    let endpoint = match asked.path.as_str() {
        "/v1/completions" => Endpoint::Completions,
        "/v1/chat/completions" => Endpoint::Chat,
        "/v1/fim/completions" => Endpoint::Fim,
        "/infill" | "/v1/infill" => Endpoint::Infill,
        _ => return wrong("path", "there is no such path for requests".to_owned()),
    };
    let body = asked.request.to_string();
    let request = match CompletionRequest::parse(endpoint, body.as_bytes()) {
        Ok(request) => request,
        Err(error) => return api_error(StatusCode::BAD_REQUEST, &error),
    };
    let Some(model) = shared.upstreams.model(request.model.as_deref()) else {
        return wrong("model", "no such model is served here".to_owned());
    };
    let live = shared.live.load();
    let Some(caller) = live.directory.on_behalf_of(&asked.tenant) else {
        return wrong("tenant", "no such tenant is served here".to_owned());
    };
    let caller = Caller { scopes: Scope::ALL.to_vec(), ..caller };
    let now = clock::now();
    let admitted = Admitted {
        kind: request.kind(),
        head: Head::explained(caller, endpoint),
        request,
        body: body.into(),
        deadline: now,
        hurried: false,
        model,
        client: std::net::IpAddr::from([127, 0, 0, 1]),
    };
    let chain = route::chain(shared, &admitted);
    let at = (now, fastrand::u64(..));
    let routed = route::plan(shared, &admitted, (chain.as_ref(), &[]), Constraints::default(), at);
    Json(explanation(shared, &admitted, &routed)).into_response()
}

fn explanation(shared: &Shared, admitted: &Admitted, routed: &Routed) -> Value {
    let described = |at: usize| {
        let (view, upstream): (&View, _) = (&routed.views[at], &routed.upstreams[at]);
        json!({
            "name": upstream.name,
            "class": view.class.name(),
            "in_flight": view.in_flight,
            "queued": view.queued,
            "slots": view.slots,
            "slowness": (view.slowness * 1000.0).round() / 1000.0,
            "prefix_matched": (view.matched * 1000.0).round() / 1000.0,
        })
    };
    let candidates = routed.plan.candidates.iter().map(|candidate| {
        let mut said = described(candidate.at);
        said["rung"] = json!(candidate.rung.name());
        said["because"] = json!(candidate.why.name());
        said
    });
    let left_out = routed.plan.left_out.iter().map(|(at, why)| {
        let mut said = described(*at);
        said["because"] = match why {
            LeftOut::Out(reason) => json!(format!("{}: {}", why.name(), reason.name())),
            why => json!(why.name()),
        };
        said
    });
    json!({
        "model": admitted.model.fingerprint(),
        "kind": admitted.kind.name(),
        "level": shared.level().name(),
        "candidates": candidates.collect::<Vec<_>>(),
        "left_out": left_out.collect::<Vec<_>>(),
    })
}
