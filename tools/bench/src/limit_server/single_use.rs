//! The limit for what may be used once: the signature is verified, and the `jti` is on disk before the token is signed.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd_kit::grantd::{ISSUER, TOKEN_ENDPOINT};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::token::{Cnf, Form, Signer, answer, by_basic, mint, now};

/// A token endpoint for assertions and proofs.
pub struct SingleUse {
    signer: Signer,
    pool: PgPool,
    /// Keys of clients, parsed once.
    keys: HashMap<String, ParsedPublicKey>,
}

impl SingleUse {
    /// An endpoint on a database with grantd's schema. A connection is not tested before each use, which would be a second
    /// exchange for each token.
    ///
    /// `keys` has a line for each client: its id and the point of its P-256 key in base64url.
    pub fn new(signer: Signer, database: &str, connections: u32, keys: &str) -> anyhow::Result<Self> {
        let options = PgPoolOptions::new().max_connections(connections).test_before_acquire(false);
        let key = |line: &str| {
            let (client_id, point) = line.split_once(' ')?;
            let point = BASE64_URL_SAFE_NO_PAD.decode(point).ok()?;
            Some((client_id.to_owned(), ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?))
        };
        let keys = keys.lines().map(key).collect::<Option<_>>().context("a client's key")?;
        Ok(Self { signer, pool: options.connect_lazy(database)?, keys })
    }

    /// `INSERT` decides whether this is the first use.
    async fn spend(&self, kind: &str, owner: &str, jti: &str, expires_at: u64) -> Option<()> {
        let jti = digest(&SHA256, jti.as_bytes());
        let inserted = sqlx::query(INSERT)
            .bind(kind)
            .bind(owner)
            .bind(jti.as_ref())
            .bind(i64::try_from(expires_at).ok()?)
            .execute(&self.pool)
            .await
            .ok()?;
        (inserted.rows_affected() == 1).then_some(())
    }
}

/// `POST /token` for clients with assertions.
pub fn assertions(endpoint: Arc<SingleUse>) -> Router {
    let token = async |State(endpoint): State<Arc<SingleUse>>, body: Bytes| -> Response {
        answer(endpoint.by_assertion(&body).await)
    };
    Router::new().route("/token", post(token)).with_state(endpoint)
}

/// `POST /token` for clients with secrets and DPoP proofs.
pub fn proofs(endpoint: Arc<SingleUse>) -> Router {
    let token = async |State(endpoint): State<Arc<SingleUse>>, headers: HeaderMap, body: Bytes| -> Response {
        answer(endpoint.with_proof(&headers, &body).await)
    };
    Router::new().route("/token", post(token)).with_state(endpoint)
}

#[derive(Deserialize)]
struct Assertion {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    jti: String,
}

#[derive(Deserialize)]
struct ProofHeader {
    typ: String,
    jwk: Jwk,
}

#[derive(Deserialize)]
struct Jwk {
    x: String,
    y: String,
}

#[derive(Deserialize)]
struct Proof {
    htm: String,
    htu: String,
    iat: u64,
    jti: String,
}

impl SingleUse {
    async fn by_assertion(&self, body: &[u8]) -> Option<Vec<u8>> {
        let form = Form::parse(body)?;
        let jws = Jws::parse(form.client_assertion.as_deref()?)?;
        let claims: Assertion = read(jws.claims)?;
        jws.verify(self.keys.get(&claims.sub)?)?;
        let now = now()?;
        if claims.iss != claims.sub || claims.aud != ISSUER || claims.exp <= now || claims.exp > now + 300 {
            return None;
        }
        self.spend("assertion", &claims.sub, &claims.jti, claims.exp + CLOCKS).await?;
        mint(&self.signer, &claims.sub, form.scope.as_deref(), None)
    }

    async fn with_proof(&self, headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
        let form = Form::parse(body)?;
        let client_id = by_basic(headers)?;
        let jws = Jws::parse(headers.get("DPoP")?.to_str().ok()?)?;
        let header: ProofHeader = read(jws.header)?;
        let Jwk { x, y } = header.jwk;
        let mut point = vec![4];
        for half in [&x, &y] {
            BASE64_URL_SAFE_NO_PAD.decode_vec(half, &mut point).ok()?;
        }
        jws.verify(&ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).ok()?)?;
        let (claims, now): (Proof, u64) = (read(jws.claims)?, now()?);
        let timely = claims.iat + 60 >= now && claims.iat <= now + 30;
        if header.typ != "dpop+jwt" || claims.htm != "POST" || claims.htu != TOKEN_ENDPOINT || !timely {
            return None;
        }
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let jkt = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        self.spend("dpop_proof", &jkt, &claims.jti, claims.iat + 60 + CLOCKS).await?;
        mint(&self.signer, &client_id, form.scope.as_deref(), Some(Cnf::Jkt(&jkt)))
    }
}

/// A JWS in compact form, in its parts.
pub struct Jws<'a> {
    signed: &'a str,
    header: &'a str,
    pub claims: &'a str,
    signature: &'a str,
}

impl<'a> Jws<'a> {
    pub fn parse(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Self { signed, header, claims, signature })
    }

    pub fn verify(&self, key: &ParsedPublicKey) -> Option<()> {
        let signature = BASE64_URL_SAFE_NO_PAD.decode(self.signature).ok()?;
        key.verify_sig(self.signed.as_bytes(), &signature).ok()
    }
}

pub fn read<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

const INSERT: &str =
    "insert into spent_jti (kind, owner, jti, expires_at) values ($1, $2, $3, $4) on conflict do nothing";
/// Seconds for which an id is kept beyond its expiry, since clocks differ.
const CLOCKS: u64 = 70;

#[cfg(test)]
mod tests {
    use grantd_kit::client_key::{ClientKey, assertion_form};

    use super::*;

    #[tokio::test]
    async fn the_single_use_limit_server_checks_signatures() {
        let (ours, other) = (ClientKey::generate().unwrap(), ClientKey::generate().unwrap());
        let keys = format!("app {}", BASE64_URL_SAFE_NO_PAD.encode(ours.point()));
        // No database is there: what is right fails when it is to be spent.
        let new = |keys| SingleUse::new(Signer::generate("ES256").unwrap(), "postgres://x@127.0.0.1:1/x", 1, keys);
        let endpoint = new(&keys).unwrap();
        for (key, right) in [(&ours, true), (&other, false)] {
            let assertion = key.assertion("app", ISSUER).unwrap();
            let jws = Jws::parse(&assertion).unwrap();
            assert_eq!(jws.verify(endpoint.keys.get("app").unwrap()).is_some(), right);
            assert!(read::<Assertion>(jws.claims).is_some_and(|claims| claims.sub == "app"));
        }
        let form = assertion_form(&other.assertion("app", ISSUER).unwrap());
        assert!(endpoint.by_assertion(form.as_bytes()).await.is_none());
        let proof = ours.proof(TOKEN_ENDPOINT).unwrap();
        let header: ProofHeader = read(Jws::parse(&proof).unwrap().header).unwrap();
        assert!(ours.jwk().contains(&header.jwk.x) && ours.jwk().contains(&header.jwk.y));
        assert!(new("app x").is_err());
    }
}
