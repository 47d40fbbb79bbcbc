//! What an operator does with a running pod: look at its models, load, switch and unload them, drop
//! cached prefixes. Under `/admin/v1`, behind the admin listener's token.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
    response::Response,
    routing::{delete, get, post, put},
};
use nearhop_admin::api_error;
use nearhop_wire::{ApiError, CompletionRequest, Endpoint, ErrorKind};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    prefix::BLOCK,
    queue::Purge,
    registry::{ChangeError, Registry, Runner, Served, Table},
};

/// The routes.
pub(crate) fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/models", get(list).post(load))
        .route("/models/{name}", delete(unload))
        .route("/models/{name}/revisions/{revision}", delete(unload_revision))
        .route("/models/{name}/activate", post(activate))
        .route("/models/{name}/rollback", post(roll_back))
        .route("/aliases/{alias}", put(alias))
        .route("/prefix-cache/purge", post(purge))
        .with_state(registry)
}

type Pod = State<Arc<Registry>>;

/// A request that was not done.
pub(crate) struct Refusal(StatusCode, ApiError);

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let (status, code) = match &error {
            ChangeError::Load(_) => (StatusCode::UNPROCESSABLE_ENTITY, "model_unusable"),
            ChangeError::Unknown(_) | ChangeError::UnknownRevision { .. } => {
                (StatusCode::NOT_FOUND, "model_not_found")
            }
            ChangeError::BadName(_) | ChangeError::AliasesOfInactive => {
                (StatusCode::BAD_REQUEST, "invalid_request")
            }
            ChangeError::Loading => (StatusCode::CONFLICT, "loading"),
            ChangeError::Active { .. }
            | ChangeError::Loaded { .. }
            | ChangeError::NothingBefore { .. }
            | ChangeError::Changed { .. }
            | ChangeError::Full
            | ChangeError::Twice { .. }
            | ChangeError::Taken { .. } => (StatusCode::CONFLICT, "models_unchanged"),
        };
        Self(status, ApiError::new(ErrorKind::InvalidRequest, code, error.to_string()))
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let status = match error.code.as_deref() {
            Some("model_not_found") => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, error)
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, ApiError::invalid("body", rejection.body_text()))
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> Response {
        api_error(self.0, &self.1)
    }
}

type Done = Result<Json<Value>, Refusal>;

fn described(table: &Table, served: &Served, active: bool) -> Value {
    let report = table.report(served, active);
    let declined: Vec<Value> = served
        .declined
        .iter()
        .map(|declined| json!({"provider": declined.provider.name(), "reason": declined.reason}))
        .collect();
    json!({
        "name": report.name,
        "revision": report.revision,
        "template": report.template,
        "kind": served.model.kind().name(),
        "active": active,
        "aliases": report.aliases,
        "folder": served.folder,
        "loaded": served.loaded,
        "slots": served.slots,
        "provider": served.provider.name(),
        "declined": declined,
        "findings": served.findings,
    })
}

fn table(registry: &Registry) -> Json<Value> {
    let table = registry.table();
    let models: Vec<Value> =
        table.all().map(|(served, active)| described(&table, served, active)).collect();
    Json(json!({ "models": models }))
}

async fn list(State(registry): Pod) -> Json<Value> {
    table(&registry)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Load {
    folder: PathBuf,
    /// Whether its name means it from now on.
    #[serde(default = "yes")]
    activate: bool,
    /// Whether the revision before stays loaded, as `name@revision`.
    #[serde(default)]
    keep: bool,
    #[serde(default)]
    aliases: Vec<String>,
}

const fn yes() -> bool {
    true
}

async fn load(State(registry): Pod, body: Result<Json<Load>, JsonRejection>) -> Done {
    let Json(Load { folder, activate, keep, aliases }) = body?;
    registry.load(&folder, (activate, keep), &aliases).await?;
    Ok(table(&registry))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activate {
    revision: String,
    #[serde(default)]
    keep: bool,
}

async fn activate(
    State(registry): Pod,
    Path(name): Path<String>,
    body: Result<Json<Activate>, JsonRejection>,
) -> Done {
    let Json(Activate { revision, keep }) = body?;
    registry.activate(&name, &revision, keep)?;
    Ok(table(&registry))
}

async fn roll_back(State(registry): Pod, Path(name): Path<String>) -> Done {
    registry.roll_back(&name).await?;
    Ok(table(&registry))
}

async fn unload(State(registry): Pod, Path(name): Path<String>) -> Done {
    registry.unload(&name, None)?;
    Ok(table(&registry))
}

async fn unload_revision(
    State(registry): Pod,
    Path((name, revision)): Path<(String, String)>,
) -> Done {
    registry.unload(&name, Some(&revision))?;
    Ok(table(&registry))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alias {
    model: String,
}

async fn alias(
    State(registry): Pod,
    Path(alias): Path<String>,
    body: Result<Json<Alias>, JsonRejection>,
) -> Done {
    let Json(Alias { model }) = body?;
    registry.alias(&alias, &model)?;
    Ok(table(&registry))
}

/// What to drop: everything, a tenant's, or what begins with a request's prompt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drop {
    /// Of one model only.
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    tenant: Option<String>,
    /// A completion or chat request, whose prompt is laid out as when it was asked: `tenant`'s, or
    /// anybody's. It may name the model.
    #[serde(default)]
    request: Option<Value>,
}

/// A step of the engine takes less.
const PURGE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(30);

pub(crate) async fn purge(State(registry): Pod, body: Result<Json<Drop>, JsonRejection>) -> Done {
    let Json(Drop { model, tenant, request }) = body?;
    let table = registry.table();
    let named = request.as_ref().and_then(|request| request["model"].as_str());
    let models: Vec<Arc<Served>> = match model.as_deref().or(named) {
        Some(model) => vec![table.find(Some(model))?],
        None => table.all().map(|(served, _)| Arc::clone(served)).collect(),
    };
    let mut dropped = 0;
    for served in models {
        let Runner::Generate(engine) = &served.runner else { continue };
        let what = match (&request, &tenant) {
            (Some(request), tenant) => {
                let tenant = tenant.as_deref().map(Arc::from);
                Purge::Prefix(tenant, prompt(&served, request.clone())?)
            }
            (None, Some(tenant)) => Purge::Tenant(tenant.as_str().into()),
            (None, None) => Purge::All,
        };
        let purged = tokio::time::timeout(PURGE_DEADLINE, engine.entrance.purge(what)).await;
        let stuck = |_elapsed| {
            let message = format!("the engine of {} does not answer", served.model.fingerprint());
            let error = ApiError::new(ErrorKind::Server, "engine_stuck", message);
            Refusal(StatusCode::SERVICE_UNAVAILABLE, error)
        };
        dropped += purged.map_err(stuck)?.unwrap_or(0);
    }
    Ok(Json(json!({ "dropped_blocks": dropped })))
}

fn prompt(served: &Served, mut request: Value) -> Result<Vec<u32>, ApiError> {
    let endpoint = match request.get("messages") {
        Some(_) => Endpoint::Chat,
        None => Endpoint::Completions,
    };
    if let Some(fields) = request.as_object_mut() {
        fields.entry("model").or_insert_with(|| Value::String(served.report().name));
    }
    let request = CompletionRequest::parse(endpoint, request.to_string().as_bytes())?;
    let tokens = served.model.prompt(&request.input)?.tokens;
    if tokens.len() < BLOCK {
        let message = format!(
            "its prompt has {} tokens, and what is cached is blocks of {BLOCK}; name more of it, or the tenant alone",
            tokens.len()
        );
        return Err(ApiError::invalid("request", message));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests;
