//! What the edge's operator may ask below `/admin/v1`.

mod cache;
mod upstreams;

use std::sync::Arc;

use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post, put},
};
use nearhop_admin::api_error;
use nearhop_wire::ApiError;
use serde_json::{Value, json};

use crate::{local::Local, phase::Shared, reload::Reloader};

/// The edge's routes for the admin router.
pub(crate) fn routes(
    shared: &Arc<Shared>,
    reloader: &Arc<Reloader>,
    local: Option<Arc<Local>>,
) -> Router {
    let (stats, purged, explained) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    let (accounts, proved) = (Arc::clone(shared), Arc::clone(shared));
    let (shown, reloaded, level) =
        (Arc::clone(reloader), Arc::clone(reloader), Arc::clone(reloader));
    let local = move || async move { Json(local.map(|local| local.describe())) };
    Router::new()
        .route("/local", get(local))
        .merge(upstreams::routes(shared))
        .route("/cache", get(move || async move { Json(cache::stats(&stats)) }))
        .route("/cache/purge", post(move |body: String| cache::purge(purged, body)))
        .route(
            "/cache/explain",
            post(move |body: String| async move { cache::explain(&explained, &body).await }),
        )
        .route(
            "/cache/prove",
            post(move |body: String| async move { cache::prove(&proved, &body) }),
        )
        .route("/usage", get(move || async move { Json(usage(&accounts)) }))
        .route("/config", get(move || async move { Json(shown.describe()) }))
        .route("/config/reload", post(move || reload(reloaded)))
        .route("/log-level", put(move |text: String| async move { set_level(&level, &text) }))
}

/// What every tenant has used this month, and whether it is written down.
fn usage(shared: &Shared) -> Value {
    let spent = shared.usage.all_spent(nearhop_admin::clock::since_epoch());
    let tenants: serde_json::Map<String, Value> =
        spent.into_iter().map(|(tenant, tokens)| (tenant, json!({ "tokens": tokens }))).collect();
    json!({ "written": shared.usage.is_healthy(), "month": tenants })
}

/// Reads the configuration files again; what is wrong with them is the answer.
async fn reload(reloader: Arc<Reloader>) -> Response {
    let again = Arc::clone(&reloader);
    let done =
        tokio::task::spawn_blocking(move || again.reload().map_err(|error| error.to_string()));
    match done.await {
        Ok(Ok(())) => Json(reloader.describe()).into_response(),
        Ok(Err(message)) => {
            let error = ApiError::invalid("config", message);
            api_error(StatusCode::UNPROCESSABLE_ENTITY, &error)
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Sets what is logged, as `RUST_LOG` has it, until the configuration says otherwise.
fn set_level(reloader: &Reloader, text: &str) -> Response {
    match reloader.set_level(text.trim()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(message) => api_error(StatusCode::BAD_REQUEST, &ApiError::invalid("body", message)),
    }
}
