//! Trusted issuers: who they are, where their keys are, and what their tokens have to say.

use std::sync::Arc;

use super::kind::IssuerKind;
use crate::crypto::certificate::path::TrustAnchors;
use crate::crypto::jwk_set::JwkSet;
use crate::crypto::spiffe_bundle::SpiffeBundle;
use crate::model::credential::StoredKey;
use crate::model::jwks_uri::{JwksUri, JwksUriError};
use crate::model::lifetime::FederatedLifetime;
use crate::model::time::{Span, UnixTime};

/// Issuer of others whose tokens prove who a client is.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustedIssuer {
    /// The exact `iss` of its tokens; for SPIFFE the trust domain. Never normalised.
    pub issuer: Arc<str>,
    /// The kind.
    pub kind: IssuerKind,
    /// The source of its keys.
    pub keys: KeySource,
    /// The only `aud` of its tokens; `None` for the issuer of this server.
    pub audience: Option<Box<str>>,
    /// The longest lifetime of its tokens; `None` for [`MAX_LIFETIME`].
    pub max_lifetime: Option<FederatedLifetime>,
    /// The CAs of its hosts in PEM, instead of those of the public web.
    pub ca_pem: Option<Arc<str>>,
    /// Whether its tokens are accepted.
    pub enabled: bool,
    /// Time of registration.
    pub created_at: UnixTime,
}

/// Source of an issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// At the `jwks_uri` of the discovery document at this URL.
    Discovery(JwksUri),
    /// At this URL.
    JwksUri(JwksUri),
    /// Here.
    Pinned(PinnedKeys),
    /// At this SPIFFE bundle endpoint.
    Bundle(JwksUri),
}

/// Keys that stand in the registration.
#[derive(Debug, Clone)]
pub struct PinnedKeys {
    /// The JWK Set as registered.
    pub text: Arc<str>,
    /// The usable keys.
    pub keys: Arc<[StoredKey]>,
    /// The CAs of X.509-SVIDs, of a trust domain.
    pub authorities: TrustAnchors,
}

impl PartialEq for PinnedKeys {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PinnedKeys {}

/// The columns of an issuer, as texts.
#[derive(Debug, Clone, Copy)]
pub struct IssuerColumns<'a> {
    /// The exact `iss`, or the trust domain.
    pub issuer: &'a str,
    /// The kind.
    pub kind: IssuerKind,
    /// The URL of the key set.
    pub jwks_uri: Option<&'a str>,
    /// The key set itself.
    pub jwks: Option<&'a str>,
    /// The URL of the SPIFFE bundle.
    pub bundle_uri: Option<&'a str>,
    /// The only `aud`.
    pub audience: Option<&'a str>,
    /// CAs in PEM.
    pub ca_pem: Option<&'a str>,
}

/// Reasons for which an issuer cannot be trusted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TrustedIssuerError {
    /// The issuer is not an https URL.
    #[error(
        "issuer: the exact iss of its tokens, an https URL without user, query and fragment, such as https://token.actions.githubusercontent.com"
    )]
    Issuer,
    /// The issuer is not a trust domain.
    #[error("issuer: for kind spiffe the trust domain, such as spiffe://example.org")]
    TrustDomain,
    /// More than one source of keys.
    #[error("jwks_uri, jwks, bundle_uri: at most one of them")]
    KeySources,
    /// A trust domain without keys, or with a `jwks_uri`; another kind with a bundle.
    #[error("bundle_uri: kind spiffe needs it or jwks, and no other kind has it")]
    Bundle,
    /// A URL is not an https URL.
    #[error(transparent)]
    Uri(#[from] JwksUriError),
    /// The key set cannot be read, or none of its keys can be used.
    #[error("jwks: {0}")]
    Jwks(String),
    /// The audience is empty, too long, or not printable ASCII.
    #[error("audience: 1 to {MAX_LENGTH} printable ASCII characters without spaces")]
    Audience,
}

impl TrustedIssuer {
    /// Makes an enabled issuer, with its kind's default lifetime.
    ///
    /// # Errors
    /// [`TrustedIssuerError`].
    pub fn new(columns: IssuerColumns<'_>, created_at: UnixTime) -> Result<Self, TrustedIssuerError> {
        let IssuerColumns { issuer, kind, audience, ca_pem, .. } = columns;
        let is_plain =
            |text: &str| (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if kind == IssuerKind::Spiffe {
            trust_domain(issuer).ok_or(TrustedIssuerError::TrustDomain)?;
        } else {
            // `JwksUri` is any https URL with a host, and without user and fragment.
            let uri: JwksUri = issuer.parse().map_err(|_| TrustedIssuerError::Issuer)?;
            if uri.target().contains('?') || !is_plain(issuer) {
                return Err(TrustedIssuerError::Issuer);
            }
        }
        if audience.is_some_and(|audience| !is_plain(audience)) {
            return Err(TrustedIssuerError::Audience);
        }
        Ok(Self {
            issuer: issuer.into(),
            kind,
            keys: key_source(&columns, created_at)?,
            audience: audience.map(Into::into),
            max_lifetime: None,
            ca_pem: ca_pem.map(Into::into),
            enabled: true,
            created_at,
        })
    }

    /// The longest time from `iat`, or from now, to `exp` of a token.
    #[must_use]
    pub fn lifetime(&self) -> Span {
        self.max_lifetime.map_or(MAX_LIFETIME, Span::from)
    }
}

/// The trust domain of a SPIFFE ID: the text between `spiffe://` and the path. `None` for another text than a trust
/// domain.
#[must_use]
pub fn trust_domain(id: &str) -> Option<&str> {
    let domain = id.strip_prefix("spiffe://")?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    Some(domain).filter(|domain| (1..=255).contains(&domain.len()) && domain.bytes().all(fits))
}

fn key_source(columns: &IssuerColumns<'_>, created_at: UnixTime) -> Result<KeySource, TrustedIssuerError> {
    let IssuerColumns { issuer, kind, jwks_uri, jwks, bundle_uri, .. } = *columns;
    let is_spiffe = kind == IssuerKind::Spiffe;
    Ok(match (jwks_uri, jwks, bundle_uri) {
        (Some(uri), None, None) if !is_spiffe => KeySource::JwksUri(uri.parse()?),
        (None, Some(text), None) => KeySource::Pinned(PinnedKeys::read(text, kind, created_at)?),
        (None, None, Some(uri)) if is_spiffe => KeySource::Bundle(uri.parse()?),
        (None, None, None) if !is_spiffe => KeySource::Discovery(discovery_uri(issuer)?),
        (Some(_), None, None) | (None, None, _) => return Err(TrustedIssuerError::Bundle),
        _ => return Err(TrustedIssuerError::KeySources),
    })
}

/// OpenID Connect Discovery 1.0 section 4: "If the Issuer value contains a path component, any terminating / MUST be
/// removed before appending /.well-known/openid-configuration."
fn discovery_uri(issuer: &str) -> Result<JwksUri, JwksUriError> {
    format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer)).parse()
}

impl PinnedKeys {
    fn read(text: &str, kind: IssuerKind, created_at: UnixTime) -> Result<Self, TrustedIssuerError> {
        let fault = |error: &dyn std::fmt::Display| TrustedIssuerError::Jwks(error.to_string());
        if kind == IssuerKind::Spiffe {
            // An empty bundle revokes every key of a trust domain.
            let bundle = SpiffeBundle::parse(text.as_bytes(), MOST_KEYS).map_err(|error| fault(&error))?;
            let keys = bundle.jwt_keys.into_iter().map(|key| StoredKey::unregistered(key, created_at)).collect();
            return Ok(Self { text: text.into(), keys, authorities: bundle.x509_authorities });
        }
        let set = JwkSet::parse_for(text.as_bytes(), kind.key_use(), MOST_KEYS).map_err(|error| fault(&error))?;
        if set.keys.is_empty() {
            return Err(fault(&set.skipped.first().map_or("no keys".to_owned(), |skipped| skipped.why.to_string())));
        }
        let keys = set.keys.into_iter().map(|key| StoredKey::unregistered(key, created_at)).collect();
        Ok(Self { text: text.into(), keys, authorities: TrustAnchors::default() })
    }
}

/// Longest lifetime of tokens, unless the issuer is registered for another.
pub const MAX_LIFETIME: Span = Span::from_secs(3600);
/// Longest issuer and audience.
const MAX_LENGTH: usize = 1024;
/// Maximum number of keys in a set.
const MOST_KEYS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(issuer: &str, kind: IssuerKind) -> IssuerColumns<'_> {
        IssuerColumns { issuer, kind, jwks_uri: None, jwks: None, bundle_uri: None, audience: None, ca_pem: None }
    }

    fn read(columns: IssuerColumns<'_>) -> Result<TrustedIssuer, TrustedIssuerError> {
        TrustedIssuer::new(columns, UnixTime(1))
    }

    #[test]
    fn an_issuer_is_kept_byte_for_byte() {
        for (issuer, document) in [
            ("https://token.actions.githubusercontent.com", "https://token.actions.githubusercontent.com"),
            ("https://oic.prod-aks.azure.com/a/b/", "https://oic.prod-aks.azure.com/a/b"),
            ("https://GitLab.example:8443", "https://GitLab.example:8443"),
        ] {
            let trusted = read(columns(issuer, IssuerKind::Oidc)).unwrap();
            assert_eq!(&*trusted.issuer, issuer);
            let document = format!("{document}/.well-known/openid-configuration").parse().unwrap();
            assert_eq!(trusted.keys, KeySource::Discovery(document));
        }
        for issuer in [
            "http://i.test",
            "https://i.test?x",
            "https://i.test#x",
            "https://u@i.test",
            "https://",
            "i.test",
            "https://i.test/ ",
        ] {
            assert_eq!(read(columns(issuer, IssuerKind::Oidc)), Err(TrustedIssuerError::Issuer), "{issuer}");
        }
        for issuer in ["https://td.test", "spiffe://", "spiffe://TD.test", "spiffe://td.test/a", "spiffe://td.test:1"] {
            assert_eq!(read(columns(issuer, IssuerKind::Spiffe)), Err(TrustedIssuerError::TrustDomain), "{issuer}");
        }
    }

    #[test]
    fn keys_come_from_one_place() {
        let (uri, set) = (Some("https://k.test/keys"), Some(r#"{"keys":[]}"#));
        let oidc = columns("https://i.test", IssuerKind::Oidc);
        assert!(matches!(read(IssuerColumns { jwks_uri: uri, ..oidc }).unwrap().keys, KeySource::JwksUri(_)));
        assert_eq!(read(IssuerColumns { jwks_uri: uri, jwks: set, ..oidc }), Err(TrustedIssuerError::KeySources));
        assert_eq!(read(IssuerColumns { jwks: set, ..oidc }), Err(TrustedIssuerError::Jwks("no keys".into())));
        let private =
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"AA"}]}"#;
        assert!(matches!(read(IssuerColumns { jwks: Some(private), ..oidc }), Err(TrustedIssuerError::Jwks(_))));
        assert_eq!(read(IssuerColumns { bundle_uri: uri, ..oidc }), Err(TrustedIssuerError::Bundle));
        let spiffe = columns("spiffe://td.test", IssuerKind::Spiffe);
        assert_eq!(read(spiffe), Err(TrustedIssuerError::Bundle));
        assert_eq!(read(IssuerColumns { jwks_uri: uri, ..spiffe }), Err(TrustedIssuerError::Bundle));
        assert!(matches!(read(IssuerColumns { bundle_uri: uri, ..spiffe }).unwrap().keys, KeySource::Bundle(_)));
        let KeySource::Pinned(pinned) = read(IssuerColumns { jwks: set, ..spiffe }).unwrap().keys else { panic!() };
        assert!(pinned.keys.is_empty(), "an empty bundle revokes all");
    }
}
