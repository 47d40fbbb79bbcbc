//! What the edge's operator may ask below `/admin/v1`.

use std::sync::Arc;

use axum::{Json, Router, routing::get};
use serde_json::{Value, json};

use crate::{
    phase::Shared,
    upstream::{health::Standing, pods::Pod},
};

/// The edge's routes for the admin router.
pub(crate) fn routes(shared: &Arc<Shared>) -> Router {
    let shared = Arc::clone(shared);
    Router::new().route("/pods", get(move || async move { Json(pods(&shared)) }))
}

/// Every pod: whether it gets traffic and why not, what it serves, what is in progress on it.
fn pods(shared: &Shared) -> Value {
    Value::Array(shared.pods.iter().map(|pod| describe(pod)).collect())
}

fn describe(pod: &Pod) -> Value {
    let view = pod.view();
    let out = match view.standing {
        Standing::Ready => None,
        Standing::Out(reason) => Some(reason.name()),
    };
    json!({
        "name": pod.name,
        "address": pod.address,
        "ready": out.is_none() && view.report.is_some(),
        "out_because": out,
        "in_flight": view.in_flight,
        "models": view.report.as_ref().map(|report| json!(report.models)),
    })
}
