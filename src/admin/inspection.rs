//! Inspection of a token: its contents and its faults.

use serde_json::{Map, Value};

use super::{Admin, AdminError};
use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::resource::TokenTyp;
use crate::model::time::UnixTime;
use crate::protocol::access_token::CLOCKS;
use crate::store::StoreError;

/// Inspected token.
#[derive(Debug)]
pub struct Inspection {
    /// The header; unverified while there are faults.
    pub header: Map<String, Value>,
    /// The claims; unverified while there are faults.
    pub claims: Map<String, Value>,
    /// Faults for which the token is not valid.
    pub faults: Vec<TokenFault>,
}

/// Fault that makes a token invalid.
#[derive(Debug, thiserror::Error)]
pub enum TokenFault {
    #[error("no key of this server has the kid `{0}`: the key was removed, or another server issued the token")]
    UnknownKey(String),
    #[error("{0}")]
    ClosedKey(StoreError),
    #[error("alg is `{alg}` and the key is for {of_key}")]
    Alg { alg: String, of_key: Alg },
    #[error("typ is `{0}`; an access token has at+jwt (RFC 9068 section 2.1), or JWT where its resource says so")]
    Typ(String),
    #[error("the signature does not verify: the token was altered")]
    Signature,
    #[error("iss is `{iss}` and this server is {issuer}")]
    Issuer { iss: String, issuer: String },
    #[error("exp is missing")]
    NoExpiry,
    #[error("expired at {at}, {} s ago", .now.0 - .at.0)]
    Expired { at: UnixTime, now: UnixTime },
    #[error("issued at {at}, which is ahead of this machine's clock by {} s", .at.0 - .now.0)]
    NotYetIssued { at: UnixTime, now: UnixTime },
    #[error("it was revoked")]
    Revoked,
    #[error("all tokens issued until {0} were revoked")]
    AllRevoked(UnixTime),
    #[error("client {0} no longer exists")]
    NoClient(String),
    #[error("{0}")]
    MalformedClient(StoreError),
    #[error("client {0} is disabled")]
    ClientDisabled(ClientId),
    #[error("client {client_id} expired at {at}")]
    ClientExpired { client_id: ClientId, at: UnixTime },
    #[error("all tokens of client {client_id} issued until {until} were revoked")]
    AllOfClientRevoked { client_id: ClientId, until: UnixTime },
}

impl Admin {
    /// Verifies a token, split into header and claims, against the keys, the issuer, the time and the revocations.
    pub async fn inspect_token(
        &self,
        token: &str,
        header: Map<String, Value>,
        claims: Map<String, Value>,
    ) -> Result<Inspection, AdminError> {
        let mut faults = Vec::new();
        let kid = text(&header, "kid");
        match self.store.keys().await?.iter().find(|key| key.kid == kid) {
            None => faults.push(TokenFault::UnknownKey(kid.to_owned())),
            Some(key) => match key.open(&*self.sealing_key()?) {
                Err(error) => faults.push(TokenFault::ClosedKey(error)),
                Ok(key) => faults.extend(signature_faults(&header, &key, token)),
            },
        }
        faults.extend(claim_faults(&claims, self.policy.issuer.as_str(), self.now()));
        // Revocations concern only tokens of this server.
        if faults.is_empty() {
            faults = self.revocation_faults(&claims).await?;
        }
        Ok(Inspection { header, claims, faults })
    }

    async fn revocation_faults(&self, claims: &Map<String, Value>) -> Result<Vec<TokenFault>, AdminError> {
        let (id, iat) = (text(claims, "client_id"), UnixTime(number(claims, "iat").unwrap_or_default()));
        let mut faults = Vec::new();
        if self.store.is_token_revoked(text(claims, "jti")).await? {
            faults.push(TokenFault::Revoked);
        }
        let cutoff = self.store.token_cutoff().await?;
        faults.extend(cutoff.filter(|at| iat <= *at).map(TokenFault::AllRevoked));
        match self.store.client(id).await {
            Ok(None) => faults.push(TokenFault::NoClient(id.to_owned())),
            Err(error @ StoreError::Malformed { .. }) => faults.push(TokenFault::MalformedClient(error)),
            Err(error) => return Err(error.into()),
            Ok(Some(client)) if !client.enabled => faults.push(TokenFault::ClientDisabled(client.client_id)),
            Ok(Some(Client { client_id, expires_at: Some(end), .. })) if end.is_over(self.now()) => {
                faults.push(TokenFault::ClientExpired { client_id, at: end.at() });
            }
            Ok(Some(client)) if iat <= client.not_before => {
                let (client_id, until) = (client.client_id, client.not_before);
                faults.push(TokenFault::AllOfClientRevoked { client_id, until });
            }
            Ok(Some(_)) => {}
        }
        Ok(faults)
    }
}

fn signature_faults(header: &Map<String, Value>, key: &SigningKey, token: &str) -> Vec<TokenFault> {
    let mut faults = Vec::new();
    let (alg, typ) = (text(header, "alg"), text(header, "typ"));
    if alg != key.alg().as_str() && !(key.alg() == Alg::EdDsa && alg == "Ed25519") {
        faults.push(TokenFault::Alg { alg: alg.to_owned(), of_key: key.alg() });
    }
    if !TokenTyp::ALL.iter().any(|one| one.as_str() == typ) {
        faults.push(TokenFault::Typ(typ.to_owned()));
    }
    if !key.verifies(token) {
        faults.push(TokenFault::Signature);
    }
    faults
}

fn claim_faults(claims: &Map<String, Value>, issuer: &str, now: UnixTime) -> Vec<TokenFault> {
    let mut faults = Vec::new();
    let iss = text(claims, "iss");
    if iss != issuer {
        faults.push(TokenFault::Issuer { iss: iss.to_owned(), issuer: issuer.to_owned() });
    }
    match number(claims, "exp").map(UnixTime) {
        None => faults.push(TokenFault::NoExpiry),
        Some(at) if at <= now => faults.push(TokenFault::Expired { at, now }),
        Some(_) => {}
    }
    // As in introspection: the clock of the issuing replica may be a little ahead.
    let iat = number(claims, "iat").map(UnixTime).filter(|iat| *iat > now.plus(CLOCKS));
    faults.extend(iat.map(|at| TokenFault::NotYetIssued { at, now }));
    faults
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> &'a str {
    members.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(members: &Map<String, Value>, name: &str) -> Option<i64> {
    members.get(name).and_then(Value::as_i64)
}
