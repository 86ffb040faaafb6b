//! What comes in and what goes out: requests as they were parsed, answers as they are to be written.

use std::net::IpAddr;
use std::sync::Arc;

use super::access_token::AccessToken;
use super::client_auth::{Noted, Presented};
use super::error::Error;
use super::error::inactive::Inactive;
use super::grant::Asked;
use crate::model::certificate::PeerCertificate;
use crate::model::client::AuthMethod;
use crate::model::scope::Scope;
use crate::model::time::Span;

/// A token request, parsed.
#[derive(Debug)]
pub struct TokenRequest<'a> {
    /// `grant_type`.
    pub grant_type: Option<&'a str>,
    /// The one credential, or why there is none.
    pub presented: Result<Presented<'a>, Error>,
    /// What is asked for.
    pub asked: Asked<'a>,
    /// Every `DPoP` header field.
    pub proofs: Vec<&'a str>,
    /// The certificate of its connection.
    pub certificate: Option<&'a PeerCertificate>,
    /// Whether it came by the listener that asks for certificates, under the URL of that one.
    pub by_alias: bool,
    /// Where it came from.
    pub source: IpAddr,
}

/// A question about a token, or the wish that it be revoked, parsed.
#[derive(Debug)]
pub struct TokenQuery<'a> {
    /// The one credential, or why there is none.
    pub presented: Result<Presented<'a>, Error>,
    /// `token`. A `token_type_hint` decides nothing: there is one type.
    pub token: Option<&'a str>,
    /// Where it came from.
    pub source: IpAddr,
}

/// A granted request.
#[derive(Debug)]
pub struct Granted {
    /// The token.
    pub access_token: AccessToken,
    /// What it is good for.
    pub scope: Scope,
    /// How long, in seconds.
    pub expires_in: Span,
    /// Its audience.
    pub aud: Arc<str>,
    /// `DPoP` or `Bearer`.
    pub token_type: &'static str,
    /// Whether a Basic secret was right only without form-decoding.
    pub raw_reading: bool,
}

/// A token that is revoked now, or that there is nothing to revoke of.
#[derive(Debug)]
pub struct Revocation {
    /// Its id.
    pub jti: Option<String>,
    /// Why there is nothing to revoke.
    pub inactive: Option<Inactive>,
}

/// An answer, with what the log may say of the request whether or not it succeeded.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The client that the request names, known or not.
    pub client_id: Option<String>,
    /// How it authenticates.
    pub method: Option<AuthMethod>,
    /// The secret, key or certificate that was right, even when it may no longer be used.
    pub credential_id: Option<Arc<str>>,
    /// Whether the client is to have a new nonce for its next DPoP proof.
    pub nonce_due: bool,
    /// What came of it.
    pub result: Result<T, Error>,
}

impl<T> Outcome<T> {
    /// What came of a request that nobody looked into.
    #[must_use]
    pub fn of(error: impl Into<Error>) -> Self {
        Self { client_id: None, method: None, credential_id: None, nonce_due: false, result: Err(error.into()) }
    }

    pub(super) fn new(presented: Result<Presented<'_>, Error>, noted: Noted, result: Result<T, Error>) -> Self {
        let (client_id, method) = presented.ok().map(|presented| (presented.client_id, presented.method)).unzip();
        let method = noted.method.or(method);
        Self { client_id, method, credential_id: noted.credential_id, nonce_due: false, result }
    }
}
