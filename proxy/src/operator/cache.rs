//! What the operator may ask of the cache.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use nearhop_admin::{api_error, clock};
use nearhop_conf::L3Judge;
use nearhop_edge_cache::{
    Around, Asked, Asker, Considered, Question, Rule, Standing, semantic::How,
};
use nearhop_wire::{ApiError, CompletionRequest, Endpoint, ErrorKind, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    phase::{Shared, lookup::REUSABLE},
    purge::{self, Wanted},
    semantic,
};

fn refused(message: String) -> Response {
    refused_field("body", message)
}

fn refused_field(field: &str, message: String) -> Response {
    api_error(StatusCode::BAD_REQUEST, &ApiError::invalid(field, message))
}

fn read<T: for<'a> Deserialize<'a>>(body: &str) -> Result<T, String> {
    serde_json::from_str(body).map_err(|error| error.to_string())
}

/// Drops what is named.
pub(super) async fn purge(shared: Arc<Shared>, body: String) -> Response {
    let wanted: Wanted = match read(&body) {
        Ok(wanted) => wanted,
        Err(message) => return refused(message),
    };
    if shared.handing_over.load(Ordering::Acquire) {
        let message = "a new process is about to take over; ask it in a moment";
        let error = ApiError::new(ErrorKind::Server, "handing_over", message);
        return api_error(StatusCode::SERVICE_UNAVAILABLE, &error);
    }
    // To its end, whether or not who asked still listens.
    let purged = tokio::spawn(async move { purge::purge(&shared, &wanted).await });
    match purged.await {
        Ok(Ok(said)) => Json(said).into_response(),
        Ok(Err(message)) => refused(message),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What it holds, and by which rules it serves.
pub(super) fn stats(shared: &Shared) -> Value {
    let allowed = shared.rules.allowed();
    let count =
        |tier: &str, result: &str| shared.metrics.lookups.with_label_values(&[tier, result]).get();
    let rules: serde_json::Map<String, Value> = Rule::ALL
        .iter()
        .map(|rule| {
            let name = rule.name();
            let said = json!({
                "serves": allowed[*rule as usize],
                "l1": count("l1", name),
                "joined": count("joined", name),
                "l2": count("l2", name),
                "audited": audited(shared, *rule),
            });
            (name.to_owned(), said)
        })
        .collect();
    json!({
        "l1": {
            "bytes": shared.l1.bytes(),
            "lines": shared.l1.places(),
            "miss": count("l1", "miss"),
            "asked": count("l1", "asked"),
            "bypass": count("l1", "bypass"),
        },
        "rules": rules,
        "l2": l2(shared),
        "l3": l3(shared),
        "generation": shared.validity.generation(),
    })
}

/// How a rule's answers compare with fresh ones.
fn audited(shared: &Shared, rule: Rule) -> Value {
    let tally = shared.auditor.tally(rule);
    let (least, most) = tally.bounds();
    json!({ "compared": tally.compared, "differing": tally.differing, "bounds": [least, most] })
}

/// What the semantic tier holds, and how its routes are.
fn l3(shared: &Shared) -> Value {
    let Some(semantic) = &shared.l3 else { return Value::Null };
    let held = semantic.cache.held();
    let count = |result: &str| shared.metrics.lookups.with_label_values(&["l3", result]).get();
    let routes: Vec<Value> = semantic
        .cache
        .routes()
        .iter()
        .map(|route| {
            json!({
                "tenant": route.tenant, "model": route.model,
                "mode": semantic::mode_name(semantic::mode_of_route(shared, route)),
                "exact": semantic::trial(route.trial(How::Exact)),
                "similar": semantic::trial(route.trial(How::Similar)),
            })
        })
        .collect();
    json!({
        "bytes": held.bytes, "entries": held.entries, "partitions": held.partitions,
        "exact": count("exact"), "similar": count("similar"), "explored": count("explored"),
        "limit": semantic.settings.wrong, "needs": semantic.settings.judged,
        "untold": shared.metrics.stores.with_label_values(&["l3", "untold"]).get(),
        "problem": judge_missing(shared, &semantic.settings.judge),
        "routes": routes,
    })
}

/// Why answers in other words can never be compared.
fn judge_missing(shared: &Shared, judge: &L3Judge) -> Option<String> {
    let model = judge.model.as_deref()?;
    let missing = shared.upstreams.own_model(model, clock::now()).is_none();
    missing.then(|| format!("no pod of this region serves {model}, edge.l3.judge.model"))
}

/// A route of the semantic tier.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proved {
    tenant: String,
    model: String,
}

/// Begins the proof of a route anew.
pub(super) fn prove(shared: &Shared, body: &str) -> Response {
    let Proved { tenant, model } = match read(body) {
        Ok(proved) => proved,
        Err(message) => return refused(message),
    };
    let Some(semantic) = &shared.l3 else {
        return refused("this edge has no semantic cache: edge.l3".to_owned());
    };
    let routes = semantic.prove_again(shared, &tenant, &model);
    Json(json!({ "routes": routes })).into_response()
}

/// How the shared cache is.
fn l2(shared: &Shared) -> Value {
    let Some(l2) = &shared.l2 else { return Value::Null };
    let shards: Vec<Value> = l2
        .cluster()
        .shards()
        .into_iter()
        .map(|shard| {
            json!({ "address": shard.address, "slots": shard.slots,
                "connected": shard.connected, "open": shard.open })
        })
        .collect();
    json!({ "shards": shards, "problem": l2.cluster().problem(), "purges_pending": l2.pending() })
}

/// Whose request is to be explained; what it asks, as its client sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explained {
    tenant: String,
    key: String,
    /// Where it is not said, who the key is of.
    user: Option<String>,
    #[serde(default = "completions")]
    path: String,
    request: Value,
}

fn completions() -> String {
    "/v1/completions".to_owned()
}

/// What the cache would do with a request, and why.
pub(super) async fn explain(shared: &Shared, body: &str) -> Response {
    let Explained { tenant, key, user, path, request } = match read(body) {
        Ok(explained) => explained,
        Err(message) => return refused(message),
    };
    let known = match user_of(shared, &tenant, &key) {
        Ok(known) => known,
        Err(message) => return refused_field("key", message),
    };
    let user = user.or(known);
    let endpoint = match path.as_str() {
        "/v1/completions" => Endpoint::Completions,
        "/v1/chat/completions" => Endpoint::Chat,
        "/v1/fim/completions" => Endpoint::Fim,
        "/infill" | "/v1/infill" => Endpoint::Infill,
        _ => return refused(format!("path {path} takes no completions")),
    };
    let request = match CompletionRequest::parse(endpoint, request.to_string().as_bytes()) {
        Ok(request) => request,
        Err(error) => return api_error(StatusCode::BAD_REQUEST, &error),
    };
    let Some(model) = shared.upstreams.model(request.model.as_deref()) else {
        return refused("no pod serves its model".to_owned());
    };
    let mut verdict = crate::phase::lookup::reusable(&request, &model);
    let asker = Asker { tenant: &tenant, key: &key, user: user.as_deref() };
    let question = Question::of(&request, asker, &model, &shared.namer);
    let around = Around::of(&request);
    if let Err(skip) = Asked::of(&question, around) {
        verdict = skip.name();
    }
    let l3 = match &shared.l3 {
        Some(semantic) if verdict == REUSABLE && request.kind() == Kind::Chat => {
            semantic::explain((shared, semantic), &request, (asker, question.tags), &model).await
        }
        _ => Value::Null,
    };
    let considered = shared.l1.explain((&question, around), clock::since_epoch());
    let allowed = shared.rules.allowed();
    let entries: Vec<Value> =
        considered.iter().map(|considered| describe(considered, &allowed)).collect();
    Json(json!({
        "model": model.fingerprint(),
        "verdict": verdict,
        "places": question.places(around).map(|place| place.to_string()).collect::<Vec<_>>(),
        "entries": entries,
        "l3": l3,
    }))
    .into_response()
}

/// Who a key is of, where it names somebody.
///
/// # Errors
/// There is no such key, and no issuer of tokens either, whose subject it might be.
fn user_of(shared: &Shared, tenant: &str, key: &str) -> Result<Option<String>, String> {
    let live = shared.live.load();
    match live.directory.holder(tenant, key) {
        Some(holder) => Ok(holder.user.clone()),
        None if live.directory.takes_tokens() => Ok(None),
        None => Err(format!(
            "tenant {tenant} has no key {key} here: name one of `access.keys`, and the tenant that it is of"
        )),
    }
}

/// An entry's text is somebody's source code: lengths and reasons are shown, not the text.
fn describe(considered: &Considered, allowed: &[bool; Rule::ALL.len()]) -> Value {
    let Considered { entry, fit, standing } = considered;
    let (served, because) = match (fit, standing) {
        (_, Standing::Gone) => (false, "it was purged, or its session was idle".to_owned()),
        (Err(unfit), _) => (false, unfit.reason().to_owned()),
        (Ok(fit), _) if !allowed[fit.rule as usize] => {
            (false, format!("the rule {} is off", fit.rule.name()))
        }
        (Ok(fit), Standing::Stale(age)) => (
            false,
            format!("it fits by the rule {}, and is {} s old", fit.rule.name(), age.as_secs()),
        ),
        (Ok(fit), Standing::Fresh(left)) => (
            true,
            format!("it fits by the rule {}, for {} s more", fit.rule.name(), left.as_secs()),
        ),
    };
    json!({
        "serves": served,
        "because": because,
        "answer_bytes": entry.text().len(),
        "typed_bytes": fit.ok().map(|fit| fit.typed),
    })
}
