//! Origins of key sets: the `jwks_uri` of a client, or what a trusted issuer publishes. Each is fetched and read here.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{PAUSE, REFRESH};
use crate::crypto::certificate::path::TrustAnchors;
use crate::crypto::json;
use crate::crypto::jwk_set::{JwkSet, Skipped};
use crate::crypto::spiffe_bundle::SpiffeBundle;
use crate::model::credential::StoredKey;
use crate::model::federation::kind::IssuerKind;
use crate::model::federation::trusted_issuer::{KeySource, TrustedIssuer};
use crate::model::jwks_uri::JwksUri;
use crate::model::time::{Span, UnixTime};

/// Fetch of a document, and the channel for its result.
#[derive(Debug)]
pub struct Fetch {
    /// The URL of the document.
    pub uri: JwksUri,
    /// The CAs that vouch for its host, in PEM; `None` for those of the public web and the configured ones.
    pub ca_pem: Option<Arc<str>>,
    /// Receives the document, or the reason for which there is none.
    pub reply: oneshot::Sender<Result<FetchedDocument, String>>,
}

/// Fetched document.
#[derive(Debug, Clone)]
pub struct FetchedDocument {
    /// The bytes.
    pub document: Vec<u8>,
    /// `max-age` of `Cache-Control` (RFC 9111 section 5.2.2.1).
    pub max_age: Option<Span>,
}

/// Origin of a key set.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The `jwks_uri` of a client.
    Client(JwksUri),
    /// The discovery document, key set or bundle of an issuer.
    Issuer(IssuerSource),
}

/// Origin of an issuer's keys.
#[derive(Debug, Clone, PartialEq)]
pub struct IssuerSource {
    issuer: Arc<str>,
    kind: IssuerKind,
    /// The URL of the key set or the bundle, or of the discovery document.
    uri: JwksUri,
    is_discovery: bool,
    ca_pem: Option<Arc<str>>,
}

/// Keys of a fetched set.
#[derive(Debug)]
pub struct FetchedSet {
    /// The usable keys.
    pub keys: Vec<StoredKey>,
    /// The CAs of X.509-SVIDs, in a SPIFFE bundle.
    pub authorities: TrustAnchors,
    /// The keys that cannot be used.
    skipped: Vec<Skipped>,
    /// The age from which on the set is fetched again before it is used.
    pub(super) refresh: Span,
    /// `spiffe_sequence`.
    pub(super) sequence: Option<u64>,
}

impl FetchedSet {
    /// Returns the keys that cannot be used, with reasons.
    #[must_use]
    pub fn skipped_keys(&self) -> Option<String> {
        (!self.skipped.is_empty()).then(|| reasons(&self.skipped))
    }
}

impl Source {
    /// Returns the origin of an issuer's keys; `None` for pinned keys.
    #[must_use]
    pub fn of_issuer(issuer: &TrustedIssuer) -> Option<Self> {
        let (uri, is_discovery) = match &issuer.keys {
            KeySource::Pinned(_) => return None,
            KeySource::Discovery(uri) => (uri, true),
            KeySource::JwksUri(uri) | KeySource::Bundle(uri) => (uri, false),
        };
        Some(Self::Issuer(IssuerSource {
            issuer: Arc::clone(&issuer.issuer),
            kind: issuer.kind,
            uri: uri.clone(),
            is_discovery,
            ca_pem: issuer.ca_pem.clone(),
        }))
    }

    /// The URL that is fetched first.
    pub(super) fn uri(&self) -> &JwksUri {
        match self {
            Self::Client(uri) => uri,
            Self::Issuer(issuer) => &issuer.uri,
        }
    }

    /// Fetches and reads the set. With an issuer's set comes its discovery document, if it has one.
    ///
    /// # Errors
    /// The reason for which there are no keys.
    pub async fn fetch(&self, fetches: &mpsc::Sender<Fetch>, now: UnixTime) -> Result<FetchedSet, String> {
        match self {
            Self::Client(uri) => {
                let published = fetch(fetches, uri, None).await?;
                let set = JwkSet::parse(&published.document, None, MOST).map_err(|error| error.to_string())?;
                usable(set, now)
            }
            Self::Issuer(issuer) => issuer.fetch(fetches, now).await,
        }
    }
}

impl IssuerSource {
    async fn fetch(&self, fetches: &mpsc::Sender<Fetch>, now: UnixTime) -> Result<FetchedSet, String> {
        let ca_pem = self.ca_pem.as_ref();
        let first = fetch(fetches, &self.uri, ca_pem).await?;
        if !self.is_discovery {
            return self.read(&first, now);
        }
        let keys =
            jwks_uri(&first.document, &self.issuer).map_err(|fault| format!("the discovery document: {fault}"))?;
        let at = |fault| format!("the key set at {keys}: {fault}");
        let set = fetch(fetches, &keys, ca_pem).await.map_err(at)?;
        self.read(&set, now).map_err(at)
    }

    /// Reads a key set or a bundle.
    fn read(&self, fetched: &FetchedDocument, now: UnixTime) -> Result<FetchedSet, String> {
        if self.kind == IssuerKind::Spiffe {
            // An empty bundle revokes all.
            let bundle = SpiffeBundle::parse(&fetched.document, MOST).map_err(|error| error.to_string())?;
            let hint = bundle.refresh_hint.map(Span::from_secs);
            return Ok(FetchedSet {
                keys: bundle.jwt_keys.into_iter().map(|key| StoredKey::unregistered(key, now)).collect(),
                authorities: bundle.x509_authorities,
                skipped: bundle.skipped,
                refresh: hint.map_or(REFRESH, |hint| hint.clamp(PAUSE, LONGEST_HINT)),
                sequence: bundle.sequence,
            });
        }
        let set = JwkSet::parse_for(&fetched.document, self.kind.key_use(), MOST).map_err(|error| error.to_string())?;
        // A long max-age is not believed: issuers rotate within it.
        let refresh = fetched.max_age.map_or(REFRESH, |age| age.clamp(PAUSE, REFRESH));
        Ok(FetchedSet { refresh, ..usable(set, now)? })
    }
}

/// Fetches a document.
async fn fetch(
    fetches: &mpsc::Sender<Fetch>,
    uri: &JwksUri,
    ca_pem: Option<&Arc<str>>,
) -> Result<FetchedDocument, String> {
    let (reply, answer) = oneshot::channel();
    let ended = || "the fetch ended without an answer".to_owned();
    fetches.send(Fetch { uri: uri.clone(), ca_pem: ca_pem.cloned(), reply }).await.map_err(|_| ended())?;
    answer.await.unwrap_or_else(|_| Err(ended()))
}

/// Reads the `jwks_uri` of a discovery document (OpenID Connect Discovery 1.0 section 4.3): its `issuer` "MUST exactly
/// match the value of the Issuer URL".
fn jwks_uri(document: &[u8], issuer: &str) -> Result<JwksUri, String> {
    let document = json::object(document).map_err(|error| error.to_string())?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    match text("issuer") {
        Some(named) if named == issuer => {}
        Some(named) => return Err(format!("its issuer is {named:?}, not {issuer:?}")),
        None => return Err("it has no issuer".to_owned()),
    }
    text("jwks_uri").ok_or("it has no jwks_uri")?.parse().map_err(|error| format!("its jwks_uri: {error}"))
}

/// The usable keys of a set. One without any is a mistake, and the last good set stays.
fn usable(set: JwkSet, now: UnixTime) -> Result<FetchedSet, String> {
    if set.keys.is_empty() {
        return Err(format!("no usable key among {}: {}", set.skipped.len(), reasons(&set.skipped)));
    }
    let keys = set.keys.into_iter().map(|key| StoredKey::unregistered(key, now)).collect();
    let authorities = TrustAnchors::default();
    Ok(FetchedSet { keys, authorities, skipped: set.skipped, refresh: REFRESH, sequence: None })
}

/// Lists the reasons for skipped keys, eight at most.
fn reasons(skipped: &[Skipped]) -> String {
    let told: Vec<String> = skipped.iter().take(8).map(|one| format!("key {}: {}", one.at + 1, one.why)).collect();
    let more = skipped.len().saturating_sub(told.len());
    let told = told.join("; ");
    if more == 0 { told } else { format!("{told}; and {more} more") }
}

/// Maximum number of keys in a set.
const MOST: usize = 100;
/// Longest `spiffe_refresh_hint` that is obeyed.
const LONGEST_HINT: Span = Span::from_secs(3600);
