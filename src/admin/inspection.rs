//! Inspection of a token: its contents and its faults.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{Admin, AdminError};
use crate::crypto::signature_alg::SignatureAlg;
use crate::crypto::verifying_key::VerifyingKey;
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::model::resource::TokenTyp;
use crate::model::time::UnixTime;
use crate::protocol::access_token::CLOCKS;
use crate::protocol::status_list::claim;
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
    Alg { alg: String, of_key: String },
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
    #[error(
        "its status index has ended: all tokens of then were revoked, or its client was disabled or deleted meanwhile"
    )]
    StatusEnded,
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
        let kid = text(&header, "kid");
        let key = match self.store.keys().await?.iter().find(|key| key.kid == kid) {
            None => Err(TokenFault::UnknownKey(kid.to_owned())),
            Some(key) => key.open(&*self.sealing_key()?).map(|opened| opened.key).map_err(TokenFault::ClosedKey),
        };
        let mut faults = match key {
            Err(fault) => vec![fault],
            Ok(key) => signature_faults(&header, key.verifying(), token),
        };
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
        // A token with a status index is told by that, as in introspection, and not by the second of a cut-off.
        let index = claim::index_of(claims, self.policy.issuer.as_str());
        if let Some(index) = index
            && self.store.has_ended(index).await?
        {
            faults.push(TokenFault::StatusEnded);
        }
        let is_cut_off = |at: UnixTime| index.is_none() && iat <= at;
        let cutoff = self.store.token_cutoff().await?;
        faults.extend(cutoff.filter(|at| is_cut_off(*at)).map(TokenFault::AllRevoked));
        match self.store.client(id).await {
            Ok(None) => faults.push(TokenFault::NoClient(id.to_owned())),
            Err(error @ StoreError::Malformed { .. }) => faults.push(TokenFault::MalformedClient(error)),
            Err(error) => return Err(error.into()),
            Ok(Some(client)) if !client.enabled => faults.push(TokenFault::ClientDisabled(client.client_id)),
            Ok(Some(Client { client_id, expires_at: Some(end), .. })) if end.is_over(self.now()) => {
                faults.push(TokenFault::ClientExpired { client_id, at: end.at() });
            }
            Ok(Some(client)) if is_cut_off(client.not_before) => {
                let (client_id, until) = (client.client_id, client.not_before);
                faults.push(TokenFault::AllOfClientRevoked { client_id, until });
            }
            Ok(Some(_)) => {}
        }
        Ok(faults)
    }
}

/// Returns the faults of a token by published keys alone: those of an issuer, which are in its JWK Set. Whether the token was
/// revoked is not in there.
#[must_use]
pub fn published_faults(
    token: &str,
    (header, claims): (&Map<String, Value>, &Map<String, Value>),
    (issuer, keys): (&str, &[VerifyingKey]),
    now: UnixTime,
) -> Vec<TokenFault> {
    let kid = header.get("kid").and_then(Value::as_str);
    let named = keys.iter().filter(|key| kid.is_none_or(|kid| key.is_called(kid)));
    // Of several keys that may be meant, the one that fits best counts.
    let by_best = named.map(|key| signature_faults(header, key, token)).min_by_key(Vec::len);
    let mut faults = by_best.unwrap_or_else(|| vec![TokenFault::UnknownKey(kid.unwrap_or_default().to_owned())]);
    faults.extend(claim_faults(claims, issuer, now));
    faults
}

fn signature_faults(header: &Map<String, Value>, key: &VerifyingKey, token: &str) -> Vec<TokenFault> {
    let mut faults = Vec::new();
    let (alg, typ) = (text(header, "alg"), text(header, "typ"));
    if !SignatureAlg::named(alg).is_some_and(|alg| key.takes(alg)) {
        faults.push(TokenFault::Alg { alg: alg.to_owned(), of_key: key.alg_text() });
    }
    if !TokenTyp::ALL.iter().any(|one| one.as_str() == typ) {
        faults.push(TokenFault::Typ(typ.to_owned()));
    }
    let signed = token.rsplit_once('.').and_then(|(signed, signature)| {
        // A signature that is not base64url verifies with no key.
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        key.algs().any(|alg| key.verifies(alg, signed.as_bytes(), &signature)).then_some(())
    });
    if signed.is_none() {
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
