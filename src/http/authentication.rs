//! The description of a failed client authentication: the needs of the method that was tried.
//!
//! It depends on that method alone, so it is the same whether the client exists or not, and whatever was wrong.

use axum::http::{HeaderMap, header};

use super::form::Form;
use crate::protocol::AuthorizationServer;

/// An `error_description` for each method. RFC 6749 section 5.2 permits neither `"` nor `\` in it.
#[derive(Debug)]
pub(super) struct Descriptions {
    basic: String,
    post: String,
    assertion: String,
    certificate: String,
    none: String,
}

impl Descriptions {
    pub(super) fn new(server: &AuthorizationServer) -> Self {
        let failed = |needs: &str| {
            let text = format!("client authentication failed; {needs}");
            text.chars().map(|char| if matches!(char, '"' | '\\') || !char.is_ascii() { '?' } else { char }).collect()
        };
        let issuer = server.issuer.as_str();
        let listener = match &server.mutual_tls.alias {
            Some(alias) => format!(" to {}", alias.endpoint("/token")),
            None => String::new(),
        };
        Self {
            basic: failed(
                "HTTP Basic takes the client_id and a secret of that client, each form-urlencoded first (RFC 6749 section 2.3.1)",
            ),
            post: failed("the body needs the client_id and a client_secret of that client"),
            assertion: failed(&format!(
                "client_assertion_type is urn:ietf:params:oauth:client-assertion-type:jwt-bearer, and the client_assertion is signed by a key of the client, with aud '{issuer}', iss and sub the client_id, exp within five minutes, and a jti that is used once (RFC 7523)"
            )),
            certificate: failed(&format!(
                "mutual TLS takes the client_id in the body and a certificate of that client on the connection{listener} (RFC 8705)"
            )),
            none: failed(&format!(
                "the request has no credentials; token_endpoint_auth_methods_supported in {} lists how to send them",
                server.issuer.well_known("oauth-authorization-server")
            )),
        }
    }

    /// The description for the method that a request tried.
    pub(super) fn of(&self, headers: &HeaderMap, form: Option<&Form<'_>>, certificate: bool) -> &str {
        let has = |name| form.is_some_and(|form| form.all(name).next().is_some());
        if headers.contains_key(header::AUTHORIZATION) {
            &self.basic
        } else if has("client_assertion") || has("client_assertion_type") {
            &self.assertion
        } else if has("client_secret") {
            &self.post
        } else if certificate {
            &self.certificate
        } else {
            &self.none
        }
    }
}
