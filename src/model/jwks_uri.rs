//! `jwks_uri` (RFC 7591 section 2): the https URL of a client's JWK Set.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use fluent_uri::Uri;

/// URL of a client's JWK Set, split into the parts that a request for it needs. Small, since most clients have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUri(Arc<Parts>);

#[derive(Debug, PartialEq, Eq)]
struct Parts {
    text: Box<str>,
    host: Box<str>,
    port: u16,
    target: Box<str>,
}

/// Error for a text that is not an acceptable `jwks_uri`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("jwks_uri is an https URL with a host and without user or fragment, such as https://client.example.com/jwks")]
pub struct JwksUriError;

impl JwksUri {
    /// The URL as registered.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The host: a name or an address, without the brackets of IPv6.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The port; 443 when the URL has none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Host and port, as the `Host` field has them.
    #[must_use]
    pub fn authority(&self) -> String {
        let Parts { host, port, .. } = &*self.0;
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        if *port == HTTPS { host } else { format!("{host}:{port}") }
    }

    /// Path and query, the target of the request.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.0.target
    }
}

impl FromStr for JwksUri {
    type Err = JwksUriError;

    fn from_str(text: &str) -> Result<Self, JwksUriError> {
        let uri = Uri::parse(text).map_err(|_| JwksUriError)?;
        let authority = uri.authority().ok_or(JwksUriError)?;
        // RFC 3986 section 3.2.1 deprecates user information. Here it would be a credential that the server sends.
        let plain = !uri.has_fragment() && !authority.has_userinfo() && text.len() <= 2048;
        // Over plain http, an attacker on the path could replace the client's keys.
        if uri.scheme().as_str() != "https" || !plain {
            return Err(JwksUriError);
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let readable =
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:_".contains(&byte));
        let port = match authority.port() {
            None => HTTPS,
            Some(port) if port.as_str().is_empty() => HTTPS,
            Some(port) => port.as_str().parse().ok().filter(|port| *port != 0).ok_or(JwksUriError)?,
        };
        let path = if uri.path().as_str().is_empty() { "/" } else { uri.path().as_str() };
        let target = match uri.query() {
            Some(query) => format!("{path}?{}", query.as_str()),
            None => path.to_owned(),
        };
        let parts = Parts { text: text.into(), host: host.into(), port, target: target.into() };
        if readable { Ok(Self(Arc::new(parts))) } else { Err(JwksUriError) }
    }
}

impl fmt::Display for JwksUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const HTTPS: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwks_uri_is_https_with_a_host_and_without_credentials() {
        let parts = |text: &str| {
            let uri: JwksUri = text.parse().unwrap();
            (uri.host().to_owned(), uri.port(), uri.authority(), uri.target().to_owned())
        };
        let read = |host: &str, port, authority: &str, target: &str| {
            (host.to_owned(), port, authority.to_owned(), target.to_owned())
        };
        assert_eq!(parts("https://c.example/jwks?v=1"), read("c.example", 443, "c.example", "/jwks?v=1"));
        assert_eq!(parts("https://c.example:8443"), read("c.example", 8443, "c.example:8443", "/"));
        assert_eq!(parts("https://[2001:db8::1]/k"), read("2001:db8::1", 443, "[2001:db8::1]", "/k"));
        for wrong in [
            "",
            "c.example",
            "http://c.example/jwks",
            "file:///etc/passwd",
            "ftp://c.example/jwks",
            "https://",
            "https:///jwks",
            "https://u@c.example/jwks",
            "https://u:p@c.example/jwks",
            "https://c.example/jwks#k",
            "https://c.example:0/",
            "https://c.example:65536/",
            "https://c%2eexample/",
            "https://c.example/a b",
            "https://c.example/\r\nx",
        ] {
            assert_eq!(wrong.parse::<JwksUri>(), Err(JwksUriError), "{wrong}");
        }
    }
}
