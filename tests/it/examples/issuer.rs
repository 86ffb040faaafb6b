//! A stand-in for an authorization server, for what the real one is not to be made to say: it answers as it was told to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::now;
use super::signer::{Signer, sha256};

pub const API: &str = "https://api.test";

/// The next answer of the token endpoint.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// A token after this many milliseconds; bound, if the request had a proof.
    Token(u64),
    /// A bearer token, also when the request had a proof.
    Bearer,
    Busy(u16, Option<&'static str>),
    Refused(u16, &'static str),
    Nonce(&'static str),
}

pub struct Issuer {
    pub url: String,
    pub key: Signer,
    /// Headers and body of every token request.
    pub requests: Mutex<Vec<(HeaderMap, String)>>,
    pub jwks_fetches: AtomicUsize,
    answers: Mutex<VecDeque<Answer>>,
}

impl Issuer {
    /// Starts one that gives these answers, and then tokens.
    pub async fn start(answers: &[Answer]) -> Arc<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Arc::new(Self {
            url: format!("http://{}", socket.local_addr().unwrap()),
            key: Signer::generate(),
            requests: Mutex::default(),
            jwks_fetches: AtomicUsize::new(0),
            answers: Mutex::new(answers.iter().copied().collect()),
        });
        let app = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .route("/with-nonce", get(with_nonce))
            .with_state(Arc::clone(&issuer));
        tokio::spawn(async move { axum::serve(socket, app).await.unwrap() });
        issuer
    }

    pub fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// A token for the API with this `cnf`, or none if it is null.
    pub fn token(&self, cnf: &Value) -> String {
        let mut claims = json!({"iss": self.url, "sub": "c", "client_id": "c", "aud": API, "scope": "read:data",
            "iat": now(), "exp": now() + 600, "jti": "t1"});
        if !cnf.is_null() {
            claims["cnf"] = cnf.clone();
        }
        self.key.sign(&json!({"typ": "at+jwt", "alg": "ES256", "kid": "k1"}), &claims)
    }
}

async fn metadata(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    let at = |path| format!("{}{path}", issuer.url);
    Json(json!({"issuer": issuer.url, "jwks_uri": at("/jwks"), "token_endpoint": at("/token")}))
}

async fn jwks(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    issuer.jwks_fetches.fetch_add(1, Ordering::SeqCst);
    Json(json!({"keys": [issuer.key.published("k1")]}))
}

async fn token(State(issuer): State<Arc<Issuer>>, headers: HeaderMap, body: String) -> Response {
    let proof = headers.get("dpop").map(|proof| decoded(proof.to_str().unwrap(), 0));
    issuer.requests.lock().unwrap().push((headers, body));
    let answer = issuer.answers.lock().unwrap().pop_front().unwrap_or(Answer::Token(0));
    let error =
        |status, error: &str| (StatusCode::from_u16(status).unwrap(), Json(json!({"error": error}))).into_response();
    let token_answer = |cnf: &Value, token_type| {
        Json(json!({"access_token": issuer.token(cnf), "token_type": token_type, "expires_in": 600})).into_response()
    };
    match answer {
        Answer::Token(after) => {
            tokio::time::sleep(Duration::from_millis(after)).await;
            match proof {
                Some(header) => token_answer(&json!({"jkt": sha256(&header["jwk"].to_string())}), "DPoP"),
                None => token_answer(&Value::Null, "Bearer"),
            }
        }
        Answer::Bearer => token_answer(&Value::Null, "Bearer"),
        Answer::Busy(status, None) => error(status, "temporarily_unavailable"),
        Answer::Busy(status, Some(said)) => {
            ([("retry-after", said)], error(status, "temporarily_unavailable")).into_response()
        }
        Answer::Refused(status, code) => error(status, code),
        Answer::Nonce(nonce) => ([("dpop-nonce", nonce)], error(400, "use_dpop_nonce")).into_response(),
    }
}

/// An API that wants the nonce `n2` in proofs (RFC 9449 section 9).
async fn with_nonce(headers: HeaderMap) -> Response {
    let proof = decoded(headers["dpop"].to_str().unwrap(), 1);
    if proof["nonce"] == "n2" {
        return "with nonce".into_response();
    }
    let challenge = [("www-authenticate", "DPoP error=\"use_dpop_nonce\""), ("dpop-nonce", "n2")];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}

/// Header (0) or claims (1) of a JWT, unverified.
pub fn decoded(jwt: &str, part: usize) -> Value {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(jwt.split('.').nth(part).unwrap()).unwrap()).unwrap()
}
