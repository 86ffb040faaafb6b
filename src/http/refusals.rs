//! `GET /v1/refusals` of the admin listener: the last refusals of this process, with what decided them and the remedy. For
//! callers on this machine alone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::State;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use super::error;
use super::log::recent::{RecentRefusal, RecentRefusals};
use crate::model::certificate::RegisteredCertificate;
use crate::model::client::Client;
use crate::model::credential::SecretState;
use crate::model::time::UnixTime;
use crate::protocol::AuthorizationServer;
use crate::protocol::error::Error;
use crate::protocol::error::reason::Reason;
use crate::state::registry::snapshot::Snapshot;

/// The address of a caller of the admin listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The refusals that this process shows.
#[derive(Debug, Clone)]
pub struct ShownRefusals {
    /// Has the registered values that go beside the presented ones.
    pub server: Arc<AuthorizationServer>,
    /// The refusals.
    pub recent: Arc<RecentRefusals>,
    /// The name of this process among its replicas.
    pub replica: Arc<str>,
}

/// Answers with all refusals that are kept, the newest first.
pub(super) async fn refusals(
    State(shown): State<ShownRefusals>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
        return error::plain(StatusCode::FORBIDDEN, "this is for callers on the machine itself, by a loopback address");
    }
    // A page in a browser on this machine may have its name resolved to 127.0.0.1. Its requests have that name in Host.
    if !names_loopback(&uri, &headers) {
        return error::plain(
            StatusCode::FORBIDDEN,
            "Host has to be localhost or a loopback address, such as 127.0.0.1:9090",
        );
    }
    // Thousands of them may be looked up among the clients: no request has to wait for that.
    let document = tokio::task::spawn_blocking(move || {
        let (snapshot, now) = (shown.server.registry.snapshot(), shown.server.database_time());
        let newest = shown.recent.newest_first();
        let refusals: Vec<Value> = newest.iter().map(|refusal| document(refusal, &snapshot, now)).collect();
        json!({"replica": &*shown.replica, "refusals": refusals})
    });
    match document.await {
        Ok(document) => Json(document).into_response(),
        Err(_) => (&Error::Internal).into_response(),
    }
}

/// Whether the request is addressed to a loopback address, or to `localhost`. RFC 9112 section 3.2.2: the host of a request
/// target in absolute form counts instead of `Host`; here both have to be such a name.
fn names_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    // A host that cannot be read is no loopback address.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    host.is_some_and(|host| is_loopback(host.host())) && uri.host().is_none_or(is_loopback)
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

/// A refusal as a member of the answer.
fn document(refusal: &RecentRefusal, snapshot: &Snapshot, now: UnixTime) -> Value {
    let reason = refusal.cause.reason();
    let mut compared = match serde_json::to_value(&refusal.compared) {
        Ok(Value::Object(compared)) => compared,
        _ => Map::new(),
    };
    if let Some(method) = refusal.method {
        compared.insert("auth_method".into(), method.as_str().into());
    }
    if let Some(credential_id) = &refusal.credential_id {
        compared.insert("credential_id".into(), (**credential_id).into());
    }
    compared.extend(registered(refusal, snapshot, now).into_iter().map(|(name, value)| (name.to_owned(), value)));
    json!({
        "request_id": refusal.request_id.as_str(),
        "at": refusal.at,
        "client_id": refusal.client_id,
        "remote_addr": refusal.remote_addr,
        "reason": reason.as_str(),
        "detail": refusal.cause.to_string(),
        "remedy": reason.remedy(),
        "compared": compared,
    })
}

/// The values that are registered now, beside the presented ones. They are looked up here and not when the request was refused: then each
/// refusal would take longer for a client that exists.
fn registered(refusal: &RecentRefusal, snapshot: &Snapshot, now: UnixTime) -> Vec<(&'static str, Value)> {
    let Some(client_id) = refusal.client_id.as_deref() else { return Vec::new() };
    let reason = refusal.cause.reason();
    let Some(client) = snapshot.client(client_id) else {
        let similar = Some(client_id).filter(|_| reason == Reason::UnknownClient);
        let similar = similar.and_then(|client_id| similar_client(client_id, snapshot));
        return similar.map(|client| ("similar_client", json!(client.client_id))).into_iter().collect();
    };
    match reason {
        Reason::WrongSecret => {
            let owner = refusal.presented_secret_id.as_deref().and_then(|id| snapshot.owner_of_secret(id));
            let other = owner.filter(|owner| owner.client_id != client.client_id);
            let other = other.map(|owner| ("secret_of_client", json!(owner.client_id)));
            let live = client.secrets.iter().filter(|secret| secret.state(now) == SecretState::Live).count();
            other.into_iter().chain([("live_secrets", json!(live))]).collect()
        }
        Reason::SecretExpired | Reason::SecretRevoked => {
            let is_it = |id: &str| refusal.credential_id.as_deref() == Some(id);
            let secret = client.secrets.iter().find(|secret| is_it(&secret.secret_id));
            let ends = secret.map(|secret| [("expires_at", secret.expires_at), ("revoked_at", secret.revoked_at)]);
            ends.into_iter().flatten().filter_map(|(name, at)| Some((name, json!(at?)))).collect()
        }
        Reason::AuthMethodNotAllowed => vec![("allowed_auth_methods", json!(client.auth_methods))],
        Reason::JwsKey | Reason::JwsSignature | Reason::JwsAlg => match &client.jwks_uri {
            Some(uri) => vec![("jwks_uri", json!(uri.to_string()))],
            None => {
                let keys = client.keys.iter().take(LISTED).map(|key| format!("{} ({})", key.kid, key.key.alg_text()));
                vec![("registered_keys", json!(keys.collect::<Vec<_>>()))]
            }
        },
        Reason::CertificateUnknown => registered_certificates(refusal, client),
        _ => Vec::new(),
    }
}

fn registered_certificates(refusal: &RecentRefusal, client: &Client) -> Vec<(&'static str, Value)> {
    let presented = refusal.compared.text_of("certificate_subject");
    let reversed = client.certificates.iter().find_map(|stored| match &stored.registered {
        RegisteredCertificate::SubjectDn(subject) => {
            let reversed = subject.reversed().to_string();
            (Some(&*reversed) == presented)
                .then(|| [("reversed_subject", reversed), ("cert_id", stored.cert_id.to_string())])
        }
        _ => None,
    });
    let all = client.certificates.iter().take(LISTED).map(|stored| &stored.registered);
    let all = all.map(|registered| format!("{} {registered}", registered.kind())).collect::<Vec<_>>();
    let reversed = reversed.into_iter().flatten().map(|(name, text)| (name, json!(text)));
    [("registered_certificates", json!(all))].into_iter().chain(reversed).collect()
}

/// The client that is meant by an id with blanks around it, or in another case.
fn similar_client<'a>(client_id: &str, snapshot: &'a Snapshot) -> Option<&'a Client> {
    let trimmed =
        client_id.trim_matches(|character: char| character.is_whitespace() || "\"'`\u{feff}".contains(character));
    let lower = trimmed.to_ascii_lowercase();
    [trimmed, lower.as_str()].into_iter().find_map(|id| snapshot.client(id)).map(|client| &**client)
}

/// Most registered credentials that are named beside one refusal.
const LISTED: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_taken() {
        let asked = |target: &str, host: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            names_loopback(&target.parse().unwrap(), &headers)
        };
        for host in ["127.0.0.1:9090", "127.9.9.9", "localhost:9090", "LOCALHOST", "[::1]:9090", "[::1]"] {
            assert!(asked("/v1/refusals", Some(host)), "{host}");
        }
        for host in [
            "evil.test:9090",
            "127.0.0.1.evil.test",
            "localhost.evil.test",
            "10.0.0.1:9090",
            "0.0.0.0",
            "[::]",
            "[::ffff:10.0.0.1]",
            "",
        ] {
            assert!(!asked("/v1/refusals", Some(host)), "{host}");
        }
        assert!(!asked("/v1/refusals", None));
        assert!(!asked("http://evil.test/v1/refusals", Some("127.0.0.1")));
        assert!(asked("http://127.0.0.1/v1/refusals", Some("127.0.0.1")));
    }
}
