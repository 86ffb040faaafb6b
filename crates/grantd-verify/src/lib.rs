//! Verifies the access tokens of requests to an API: JWT access tokens (RFC 9068) sent as bearer tokens (RFC 6750), bound to
//! a DPoP key (RFC 9449) or to a client certificate (RFC 8705). Works with grantd and with every authorization server that
//! publishes metadata (RFC 8414) and a JWK Set.
//!
//! - [`Verifier`] checks one request: signature, `typ`, `iss`, `aud`, `exp`, `nbf`, `iat`, and `cnf` with the DPoP proof or
//!   the certificate that it calls for. It caches the issuer's JWK Set.
//! - [`AccessToken`] is the result: who called, and with which scope.
//! - [`Refusal`] is the failure: the status code and the `WWW-Authenticate` fields of the answer.
//!
//! ```no_run
//! use grantd_verify::{Request, Verifier, https};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let verifier = Verifier::new("https://as.example.com", "https://api.example.com", https(None)?);
//!
//! let token = verifier
//!     .verify(&Request {
//!         method: "GET",
//!         url: "https://api.example.com/data",
//!         authorization: &["Bearer eyJhbGciOi…"],
//!         dpop: &[],
//!         certificate: None,
//!     })
//!     .await?;
//! token.require_scope("read:data")?;
//! println!("called by {}", token.client_id);
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `axum`, [`AccessToken`] is an extractor and [`Refusal`] a response:
//!
#![cfg_attr(feature = "axum", doc = "```no_run")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use std::sync::Arc;
//!
//! use axum::{Router, routing::get};
//! use grantd_verify::{AccessToken, Refusal, Verifier, https};
//!
//! async fn data(token: AccessToken) -> Result<String, Refusal> {
//!     token.require_scope("read:data")?;
//!     Ok(format!("read by {}", token.client_id))
//! }
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let verifier = Verifier::new("https://as.example.com", "https://api.example.com", https(None)?);
//! let app: Router = Router::new().route("/data", get(data)).with_state(Arc::new(verifier));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod access_token;
mod client_certificate;
mod dpop;
#[cfg(feature = "axum")]
mod extract;
#[cfg(feature = "https")]
mod fetch;
mod key_cache;
mod refusal;
mod replays;
mod verifier;

pub use access_token::AccessToken;
pub use client_certificate::ClientCertificate;
#[cfg(feature = "https")]
pub use fetch::https;
pub use key_cache::{Fetched, Fetching, Get};
pub use refusal::{Refusal, Scheme};
pub use verifier::{Request, Verifier};
