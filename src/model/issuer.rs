//! The issuer identifier (RFC 8414 section 2).

use std::fmt;
use std::str::FromStr;

use fluent_uri::Uri;

/// Issuer identifier (RFC 8414 section 2), character for character as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    /// The path without a trailing slash; empty when there is none.
    path: String,
    https: bool,
}

/// Error for a text that is not an issuer identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "an issuer is an https URL without query and fragment, such as https://auth.example.com (http on loopback only)"
)]
pub struct IssuerError;

impl FromStr for Issuer {
    type Err = IssuerError;

    /// RFC 8414 section 2: "a URL that uses the "https" scheme and has no query or fragment components".
    fn from_str(text: &str) -> Result<Self, IssuerError> {
        let uri = Uri::parse(text).map_err(|_| IssuerError)?;
        let authority = uri.authority().ok_or(IssuerError)?;
        let https = uri.scheme().as_str() == "https";
        let host = authority.host();
        let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]")
            || host.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback());
        let plain = uri.has_query() || uri.has_fragment() || authority.has_userinfo() || host.is_empty();
        if plain || !(https || (uri.scheme().as_str() == "http" && loopback)) {
            return Err(IssuerError);
        }
        let path = uri.path().as_str().trim_end_matches('/').to_owned();
        // The router would read these characters as parameters, and clients resolve dot segments.
        if path.contains(['{', '}', '*', ':', '%']) || path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(IssuerError);
        }
        Ok(Self { text: text.to_owned(), path, https })
    }
}

impl Default for Issuer {
    /// Returns the issuer of an unconfigured server, on its default port.
    fn default() -> Self {
        Self { text: "http://127.0.0.1:8080".into(), path: String::new(), https: false }
    }
}

impl Issuer {
    /// The value of `iss`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path that precedes the path of each endpoint: "" or "/t1".
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the issuer is an https URL.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Returns the URL of an endpoint.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> String {
        format!("{}{path}", self.text.trim_end_matches('/'))
    }

    /// Returns the https URL of the same host and path on another port.
    #[must_use]
    pub fn on_port(&self, port: u16) -> Self {
        let host = Uri::parse(self.text.as_str()).ok().and_then(|uri| Some(uri.authority()?.host().to_owned()));
        let host = host.unwrap_or_default();
        Self { text: format!("https://{host}:{port}{}", self.path), path: self.path.clone(), https: true }
    }

    /// Returns the path of a well-known document. RFC 8414 section 3.1 inserts its name between host and path.
    #[must_use]
    pub fn well_known(&self, name: &str) -> String {
        format!("/.well-known/{name}{}", self.path)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_https_or_on_loopback_without_query_or_fragment() {
        for right in [
            "https://as.test",
            "https://as.test/t1",
            "https://as.test/t1/",
            "http://127.0.0.1:8080",
            "http://localhost:1",
            "http://[::1]:8080",
        ] {
            assert_eq!(right.parse::<Issuer>().unwrap().as_str(), right);
        }
        for wrong in [
            "",
            "as.test",
            "http://as.test",
            "http://127.0.0.1.evil.test",
            "https://as.test?x",
            "https://as.test#x",
            "https://u@as.test",
            "https://",
            "ftp://as.test",
            "https://as.test/{id}",
        ] {
            assert_eq!(wrong.parse::<Issuer>(), Err(IssuerError), "{wrong}");
        }
    }

    #[test]
    fn the_well_known_name_is_inserted_before_the_issuers_path() {
        let issuer: Issuer = "https://as.test/t1/".parse().unwrap();
        assert_eq!(issuer.well_known("oauth-authorization-server"), "/.well-known/oauth-authorization-server/t1");
        assert_eq!(issuer.endpoint("/token"), "https://as.test/t1/token");
    }
}
