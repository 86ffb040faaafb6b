//! The admin listener: liveness, readiness, metrics and refusals, on an address of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{BoxError, Json, Router};
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::exposition::Format;
use super::message;
use super::refusals::{self, Peer, ShownRefusals};
use crate::protocol::AuthorizationServer;
use crate::protocol::error::Error;

/// The state that the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    /// The server.
    pub server: Arc<AuthorizationServer>,
    /// Set when the process has been told to stop.
    pub draining: Arc<AtomicBool>,
    /// Writes the metrics in the text format of OpenMetrics.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The refusals that are shown to callers on the machine itself.
    pub refusals: ShownRefusals,
}

/// `/livez`, `/readyz`, `/metrics`, `/v1/refusals`.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(async || Json(json!({"status": "ok"}))))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/refusals", get(refusals::refusals).with_state(admin.refusals.clone()))
        .with_state(admin)
        .layer(CatchPanicLayer::custom(|_| (&Error::Internal).into_response()))
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
}

/// Answers a request of the admin listener.
pub fn answer<B>(
    router: &Router,
    peer: SocketAddr,
    mut request: Request<B>,
) -> impl Future<Output = Response> + Send + use<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let refusal = message::refusal(&request);
    request.extensions_mut().insert(Peer(peer));
    let answer = router.clone().oneshot(request.map(Body::new));
    async move {
        if let Some(refusal) = refusal {
            return refusal;
        }
        // A service that cannot fail.
        let Ok(response) = answer.await;
        response
    }
}

/// 200 when every item is, else 503; each item with its reason.
async fn readyz(State(admin): State<Admin>) -> Response {
    let mut items = admin.server.readiness();
    let draining = admin.draining.load(Ordering::Relaxed);
    items.push(("draining", if draining { Err("the process has been told to stop".into()) } else { Ok(()) }));
    let ready = items.iter().all(|(_, item)| item.is_ok());
    let checks: Map<String, Value> = items
        .into_iter()
        .map(|(name, item)| {
            let value = match item {
                Ok(()) => json!({"ready": true}),
                Err(reason) => json!({"ready": false, "reason": reason}),
            };
            (name.to_owned(), value)
        })
        .collect();
    let age = admin.server.registry.age().map(|age| age.as_secs_f64());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let trouble = admin.server.registry.trouble();
    // No check: all replicas share the database, and tokens for secrets need no write. Taking every replica out would end
    // those too.
    let writes = admin.server.store.health.trouble();
    let position = admin.server.registry.snapshot().position();
    let clock_skew = admin.server.registry.clock_ahead() / 1000;
    let now = admin.server.database_time();
    let (keys, rotations) = (admin.server.keyring.schedule(now), admin.server.keyring.next_rotations(now));
    let keys: Vec<Value> = keys
        .iter()
        .map(|(key, state, changes_at)| {
            let alg = admin.server.keyring.alg_name(key.alg());
            let rotation = rotations.get(&key.alg()).filter(|next| next.key.kid() == key.kid());
            let due_at = rotation.map(|next| next.due_at);
            json!({"kid": key.kid(), "alg": alg, "state": state, "changes_at": changes_at, "rotation_due_at": due_at})
        })
        .collect();
    let stale = admin.server.authenticator.stale_issuers(admin.server.database_time());
    let stale: Vec<Value> = stale.iter().map(|(issuer, at)| json!({"issuer": &**issuer, "fetched_at": at})).collect();
    // No check: replicas often share the module, and key sets, introspection and other keys need it as little as before.
    let module = admin.server.keyring.module_trouble(now);
    let module = module.map(|(kid, reason)| json!({"kid": kid, "reason": reason}));
    let body = json!({
        "ready": ready,
        "checks": checks,
        "registry_age_seconds": age,
        "registry_trouble": trouble,
        "registry_revision": position.revision,
        "registry_history": &*position.history,
        "standby": admin.server.registry.is_on_standby(),
        "database_write_trouble": writes,
        "clock_skew_seconds": clock_skew,
        "signing_keys": keys,
        "signing_module_trouble": module,
        // Not a check: the tokens of other issuers, and all secrets and keys, work.
        "stale_issuer_keys": stale,
    });
    (status, Json(body)).into_response()
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let format = Format::accepted(&headers);
    // Many clients are looked through for what ends first: no request has to wait for that.
    let Ok(text) = tokio::task::spawn_blocking(move || format.write((admin.metrics)())).await else {
        return (&Error::Internal).into_response();
    };
    // RFC 9110 section 12.5.5: the answer depends on this field.
    let fields = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    (fields, text).into_response()
}
