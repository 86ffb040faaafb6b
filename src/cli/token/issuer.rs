//! The published documents of an issuer: its metadata (RFC 8414) and its JWK Set.

use std::path::Path;

use anyhow::{Context as _, bail};
use axum::body::{Body, Bytes};
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;

use crate::config::{ConfigError, Sources};
use crate::crypto::jwk_set::JwkSet;
use crate::crypto::verifying_key::VerifyingKey;
use crate::model::issuer::Issuer;
use crate::transport::client::{HttpClient, Identity};
use crate::transport::tls::pem_items;

/// Members of the metadata that a client or a verifier needs (RFC 8414 section 2).
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    token_endpoint: Option<String>,
    jwks_uri: Option<String>,
    #[serde(default)]
    mtls_endpoint_aliases: Aliases,
}

/// RFC 8705 section 5.
#[derive(Debug, Default, Deserialize)]
struct Aliases {
    token_endpoint: Option<String>,
}

/// Issuer that is asked over HTTP.
pub(super) struct Published {
    pub(super) issuer: Issuer,
    http: HttpClient,
    metadata: Metadata,
}

impl Published {
    /// Fetches the metadata of an issuer.
    pub(super) async fn discover(issuer: Issuer, http: HttpClient) -> anyhow::Result<Self> {
        let url = metadata_url(&issuer);
        let answer = get(&http, &url).await?;
        if answer.status() != StatusCode::OK {
            bail!(
                "{url} answered {}, where an issuer has its metadata; --issuer is the value of `iss` in its tokens, with its path",
                answer.status().as_u16()
            );
        }
        let metadata: Metadata = serde_json::from_slice(answer.body())
            .with_context(|| format!("{url} answered with what is not the metadata of an issuer"))?;
        // RFC 8414 section 3.3: "The "issuer" value returned MUST be identical to the authorization server's issuer
        // identifier value". Otherwise the credential could be sent to another server.
        if metadata.issuer != issuer.as_str() {
            bail!(
                "{url} has the metadata of the issuer {}, not of {issuer} (RFC 8414 section 3.3): write it in --issuer exactly as the server has it",
                metadata.issuer
            );
        }
        Ok(Self { issuer, http, metadata })
    }

    /// Returns the URL of the token endpoint: the one for clients with certificates where `by_certificate`, and where
    /// there is one.
    pub(super) fn token_endpoint(&self, by_certificate: bool) -> anyhow::Result<&str> {
        let Metadata { token_endpoint, mtls_endpoint_aliases, .. } = &self.metadata;
        // RFC 8705 section 5: a client that does mutual TLS uses the alias "in preference to" the usual endpoint.
        let alias = mtls_endpoint_aliases.token_endpoint.as_deref().filter(|_| by_certificate);
        self.protected("token_endpoint", alias.or(token_endpoint.as_deref()))
    }

    /// Fetches the keys that the issuer publishes.
    pub(super) async fn keys(&self) -> anyhow::Result<Vec<VerifyingKey>> {
        let url = self.protected("jwks_uri", self.metadata.jwks_uri.as_deref())?;
        let answer = get(&self.http, url).await?;
        if answer.status() != StatusCode::OK {
            bail!("{url}, the issuer's JWK Set, answered {}", answer.status().as_u16());
        }
        let set =
            JwkSet::parse(answer.body(), None, MAX_KEYS).with_context(|| format!("{url}, the issuer's JWK Set"))?;
        Ok(set.keys)
    }

    pub(super) async fn send(&self, request: Request<Body>) -> anyhow::Result<Response<Bytes>> {
        send(&self.http, request).await
    }

    /// Returns an URL of the metadata, which is over https when the issuer's is.
    fn protected<'u>(&self, name: &str, url: Option<&'u str>) -> anyhow::Result<&'u str> {
        let url = url.with_context(|| format!("the metadata of {} has no {name}", self.issuer))?;
        if self.issuer.is_https() && !url.starts_with("https://") {
            bail!("the metadata of {} has the {name} {url}, which is not over https", self.issuer);
        }
        Ok(url)
    }
}

/// Returns the issuer of `--issuer`, else the configured one, else that of a server on `server.listen`.
pub(super) fn issuer(given: Option<&Issuer>, sources: Result<Sources, ConfigError>) -> anyhow::Result<Issuer> {
    if let Some(issuer) = given {
        return Ok(issuer.clone());
    }
    let sources = sources?;
    let settings = sources.read()?;
    let wrong = |key: &str, remedy: String| ConfigError { key: key.into(), origin: sources.origin(key), remedy };
    if !settings.issuer.is_empty() {
        let parsed = settings.issuer.parse::<Issuer>();
        return Ok(parsed.map_err(|error| wrong("issuer", error.to_string()))?);
    }
    let listen = settings.server.listen;
    let by_address = format!("http://{listen}").parse().ok().filter(|_| !listen.ends_with(":0"));
    Ok(by_address.ok_or_else(|| {
        wrong("issuer", format!("it is not set, and does not follow from server.listen, {listen}; write --issuer URL"))
    })?)
}

/// Returns the HTTP client, which trusts the CAs of `ca_file` besides those of the public web.
pub(super) fn http_client(ca_file: Option<&Path>, identity: Option<Identity>) -> anyhow::Result<HttpClient> {
    let further = ca_file.map(pem_items).transpose().context("--ca-file")?.unwrap_or_default();
    HttpClient::new(further, identity).context("the certificates for TLS")
}

/// RFC 8414 section 3.1 inserts the well-known name between host and path.
fn metadata_url(issuer: &Issuer) -> String {
    let origin = issuer.as_str().trim_end_matches('/');
    let origin = origin.strip_suffix(issuer.path()).unwrap_or(origin);
    format!("{origin}{}", issuer.well_known("oauth-authorization-server"))
}

async fn get(http: &HttpClient, url: &str) -> anyhow::Result<Response<Bytes>> {
    let request = Request::get(url).header("accept", "application/json").header("user-agent", "grantd");
    send(http, request.body(Body::empty()).with_context(|| url.to_owned())?).await
}

async fn send(http: &HttpClient, request: Request<Body>) -> anyhow::Result<Response<Bytes>> {
    let url = request.uri().to_string();
    http.send(request).await.map_err(|fault| {
        let remedy = if fault.contains("UnknownIssuer") {
            "; name the CA of the server's certificate with --ca-file FILE"
        } else if fault.contains("refused") {
            "; is the server running, and is it that issuer?"
        } else {
            ""
        };
        anyhow::anyhow!("{url}: {fault}{remedy}")
    })
}

/// Maximum number of keys in the JWK Set of an issuer.
const MAX_KEYS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_stands_between_host_and_path() {
        for (issuer, url) in [
            ("https://as.test", "https://as.test/.well-known/oauth-authorization-server"),
            ("https://as.test/", "https://as.test/.well-known/oauth-authorization-server"),
            ("http://127.0.0.1:8080/t1", "http://127.0.0.1:8080/.well-known/oauth-authorization-server/t1"),
            ("https://as.test/a/b/", "https://as.test/.well-known/oauth-authorization-server/a/b"),
        ] {
            assert_eq!(metadata_url(&issuer.parse().unwrap()), url);
        }
    }
}
