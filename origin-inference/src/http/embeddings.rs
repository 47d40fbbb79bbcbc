//! `/v1/embeddings`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use nearhop_admin::clock;
use nearhop_wire::{ApiError, EmbeddingRequest, ErrorKind};
use tokio::time::timeout_at;

use super::{App, Found, Refusal, asked_deadline, in_turn, read_body, respond::late};
use crate::{embed::EmbedError, registry::Runner};

pub(super) async fn answer(State(app): State<App>, request: Request) -> Response {
    let mut found = Found::default();
    let result = embed(&app, request, &mut found).await;
    app.finish(result, found)
}

async fn embed(app: &App, request: Request, found: &mut Found) -> Result<Response, Refusal> {
    let arrived = clock::now();
    let deadline = arrived + asked_deadline(&request);
    let body = read_body(request.into_body()).await?;
    let request = EmbeddingRequest::parse(&body)?;
    let served = app.registry.table().find(request.model.as_deref())?;
    found.served = Some(Arc::clone(&served));
    let Runner::Embed(embedder) = &served.runner else {
        let message = "this model completes text; ask /v1/completions";
        return Err(ApiError::invalid("model", message).into());
    };
    if request.dimensions.is_some_and(|asked| asked != embedder.dimensions) {
        let message = format!("this model's vectors have {} values", embedder.dimensions);
        return Err(ApiError::invalid("dimensions", message).into());
    }
    let model = Arc::clone(&served.model);
    let (texts, truncate) = (request.input.clone(), request.truncate);
    let read = in_turn(app, move || {
        texts.iter().map(|text| model.embedded(text, truncate)).collect::<Result<Vec<_>, _>>()
    });
    let rows = timeout_at(deadline.into(), read).await.map_err(|_elapsed| late())??;
    let tokens = rows.iter().map(Vec::len).sum();
    let vectors = timeout_at(deadline.into(), embedder.embed(rows)).await;
    let vectors = vectors.map_err(|_elapsed| late())?.map_err(refused)?;
    app.counters.tokens.with_label_values(&["input"]).inc_by(tokens as u64);
    app.counters.duration_seconds.observe((clock::now() - arrived).as_secs_f64());
    let body = request.body(&served.report().name, &vectors, tokens);
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn refused(error: EmbedError) -> Refusal {
    let (status, kind, code) = match error {
        EmbedError::Full { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, ErrorKind::Overloaded, "queue_full")
        }
        EmbedError::Step => (StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Server, "engine_failed"),
        EmbedError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Server, "stopping"),
    };
    Refusal::new(status, kind, code, error.to_string())
}
