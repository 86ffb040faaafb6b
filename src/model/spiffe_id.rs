//! SPIFFE IDs (the SPIFFE ID specification, section 2): the name of a workload within its trust domain.

use super::federation::subject::is_spiffe_path;
use super::federation::trusted_issuer::trust_domain;

/// SPIFFE ID, such as `spiffe://example.org/ns/pay/sa/billing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiffeId<'a> {
    text: &'a str,
    /// The length of `spiffe://` and the name of the trust domain.
    domain: usize,
}

/// Error for a text that is not a SPIFFE ID.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error(
    "a SPIFFE ID is spiffe://TRUST-DOMAIN/PATH: the trust domain of lower-case letters, digits, '.', '-' and '_', the path of segments of letters, digits, '.', '-' and '_'"
)]
pub struct SpiffeIdError;

impl<'a> SpiffeId<'a> {
    /// Maximum number of bytes (section 2.3).
    pub const MAX_LENGTH: usize = 2048;

    /// Reads the SPIFFE ID of a workload. Nothing is normalised: each ID has one spelling.
    ///
    /// # Errors
    /// [`SpiffeIdError`]. An ID without a path is that of a trust domain, and no workload's.
    pub fn parse(text: &'a str) -> Result<Self, SpiffeIdError> {
        let rest = text.strip_prefix(SCHEME).filter(|_| text.len() <= Self::MAX_LENGTH).ok_or(SpiffeIdError)?;
        let domain = SCHEME.len() + rest.find('/').ok_or(SpiffeIdError)?;
        let (issuer, path) = text.split_at(domain);
        if trust_domain(issuer).is_some() && is_spiffe_path(path) {
            Ok(Self { text, domain })
        } else {
            Err(SpiffeIdError)
        }
    }

    /// The ID as text.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.text
    }

    /// The trust domain as a URI, `spiffe://example.org`, as `trusted_issuer.issuer` has it.
    #[must_use]
    pub fn trust_domain(self) -> &'a str {
        self.text.get(..self.domain).unwrap_or_default()
    }
}

const SCHEME: &str = "spiffe://";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_spiffe_id_has_a_trust_domain_and_a_path_in_one_spelling() {
        let longest = format!("spiffe://td/{}", "x".repeat(2036));
        for right in ["spiffe://example.org/a", "spiffe://a_b-c.1/A.b/..c/_", "spiffe://1.2.3.4/x", &longest] {
            let id = SpiffeId::parse(right).unwrap();
            assert_eq!(id.as_str(), right);
            assert_eq!(id.trust_domain(), right.split('/').take(3).collect::<Vec<_>>().join("/"));
        }
        let (long_domain, too_long) = (format!("spiffe://{}/a", "x".repeat(256)), format!("{longest}x"));
        for wrong in [
            "",
            "spiffe://",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///a",
            "SPIFFE://example.org/a",
            "spiffe://Example.org/a",
            "spiffe://example.org:443/a",
            "spiffe://u@example.org/a",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/a/./b",
            "spiffe://example.org/../a",
            "spiffe://example.org/a?b",
            "spiffe://example.org/a#b",
            "spiffe://example.org/a%2fb",
            "spiffe://example.org/a b",
            "spiffe://example.org/é",
            "spiffe://example.org/*",
            "https://example.org/a",
            &long_domain,
            &too_long,
        ] {
            assert_eq!(SpiffeId::parse(wrong), Err(SpiffeIdError), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_spiffe_id_begins_with_its_trust_domain(text in "(spiffe://)?[a-zA-Z./%?#_-]{0,40}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert!(trust_domain(id.trust_domain()).is_some());
                let beginning = format!("{}/", id.trust_domain());
                prop_assert!(id.as_str().starts_with(&beginning));
            }
        }
    }
}
