//! The one admin router: open health and metrics, and `/admin/v1/…` behind the token.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use nearhop_conf::Secret;
use nearhop_wire::{ApiError, ErrorKind};
use sha2::{Digest as _, Sha256};

use crate::Metrics;

/// Whether a role is well; `Err` says why not.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What `/livez` and `/readyz` ask.
#[derive(Clone)]
pub struct Checks {
    /// Whether the process works at all; if not, restart it.
    pub live: Check,
    /// Whether it should get traffic.
    pub ready: Check,
}

/// The admin router of one role. `routes` are the role's own, reached below `/admin/v1` and only
/// with `token`; without a token that part answers 403.
pub fn admin_router(
    checks: Checks,
    metrics: Metrics,
    token: Option<&Secret>,
    routes: Router,
) -> Router {
    let Checks { live, ready } = checks;
    let expected = token.map(|token| digest(token.reveal()));
    let guarded = routes.fallback(not_found).layer(middleware::from_fn(
        move |request: Request, next: Next| async move {
            match refusal(expected, &request) {
                Some(refusal) => refusal,
                None => next.run(request).await,
            }
        },
    ));
    Router::new()
        .route("/livez", get(move || async move { answer(&live) }))
        .route("/readyz", get(move || async move { answer(&ready) }))
        .route("/metrics", get(move || async move { metrics_page(&metrics) }))
        .nest("/admin/v1", guarded)
        .fallback(not_found)
}

fn answer(check: &Check) -> Response {
    match check() {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

fn metrics_page(metrics: &Metrics) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()).into_response()
}

async fn not_found() -> Response {
    let message = "no such path; /livez, /readyz, /metrics and /admin/v1/… are here";
    let error = ApiError::new(ErrorKind::InvalidRequest, "not_found", message);
    api_error(StatusCode::NOT_FOUND, &error)
}

/// An error in the contract's shape.
pub fn api_error(status: StatusCode, error: &ApiError) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], error.body()).into_response()
}

/// Hashed before it is compared, so that the time of the comparison tells nothing of the token.
fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn refusal(expected: Option<[u8; 32]>, request: &Request) -> Option<Response> {
    let Some(expected) = expected else {
        let message = "the admin API is closed: set `admin.token` in the configuration";
        let error = ApiError::new(ErrorKind::Authentication, "admin_closed", message);
        return Some(api_error(StatusCode::FORBIDDEN, &error));
    };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    if given.is_some_and(|token| digest(token) == expected) {
        return None;
    }
    let message = "send the admin token as `Authorization: Bearer …`";
    let error = ApiError::new(ErrorKind::Authentication, "invalid_admin_token", message);
    Some(api_error(StatusCode::UNAUTHORIZED, &error))
}
