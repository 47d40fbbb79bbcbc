//! What operators and other vantage points may ask of the DNS server.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::Query as Parameters,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use nearhop_admin::api_error;
use nearhop_wire::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::live::Live;
use crate::{
    Query, Source, VOTES_PATH, decide,
    explain::{explanation, narration, state_of},
};

/// What the operator may ask below `/admin/v1`.
pub(super) fn routes(live: Arc<Live>) -> Router {
    let shown = Arc::clone(&live);
    Router::new()
        .route(
            "/explain/dns",
            get(move |asked: Parameters<Asked>| async move { explain(&live, &asked) }),
        )
        .route("/regions", get(move || async move { Json(regions(&shown)) }))
}

/// What other vantage points may ask.
pub(super) fn votes(live: Arc<Live>) -> Router {
    let view = move || async move {
        let view = live.vantage.load().as_ref().and_then(|vantage| vantage.view());
        let json = [(header::CONTENT_TYPE, "application/json")];
        view.map_or(StatusCode::NOT_FOUND.into_response(), |view| (json, view).into_response())
    };
    Router::new().route(VOTES_PATH, get(view))
}

/// Every region, and what is known of it.
fn regions(live: &Live) -> Value {
    let state = live.state();
    let world = &state.world;
    let regions = world.regions().iter().zip(world.states()).map(|(region, state)| {
        let mut known = state_of(state);
        known["region"] = json!(region.id.as_str());
        known["drained"] = json!(region.drained);
        known
    });
    Value::Array(regions.collect())
}

#[derive(Deserialize)]
struct Asked {
    client: String,
    name: Option<String>,
    /// In words rather than as JSON.
    #[serde(default)]
    words: bool,
}

fn explain(live: &Live, asked: &Asked) -> Response {
    let state = live.state();
    let Ok(address) = asked.client.parse() else {
        let error = ApiError::invalid("client", "client must be an IP address");
        return api_error(StatusCode::BAD_REQUEST, &error);
    };
    let service = match state.zone.service(asked.name.as_deref()) {
        Ok(service) => service,
        Err(error) => {
            let error = ApiError::invalid("name", error.to_string());
            return api_error(StatusCode::BAD_REQUEST, &error);
        }
    };
    let query = Query { service: &service, address, source: Source::Client };
    let decision = decide(&query, &state.world);
    match asked.words {
        true => narration(&query, &state.world, &decision, state.ttl_s).into_response(),
        false => Json(explanation(&query, &state.world, &decision, state.ttl_s)).into_response(),
    }
}
