//! The values that a refused request was compared by, for the operator: what it presented and what was expected. They hold
//! no secret and no part of one.

use serde::{Serialize, Serializer};

use super::dpop::MAX_BYTES;
use super::error::dpop::DpopError;
use super::error::{ClientAuthError, GrantError};
use crate::crypto::jose::{Audience, Kind, Unverified};
use crate::model::certificate::PeerCertificate;
use crate::model::client::Client;
use crate::model::resource::ResourceId;
use crate::model::scope::Scope;
use crate::model::time::UnixTime;
use crate::state::registry::snapshot::Snapshot;

/// Named values of a refused request. Each text is cut, so that a sender cannot fill the memory.
///
/// The facts of a request without an authenticated client depend on its bytes alone. The registered values are looked up
/// when the refusals are read, so that a refusal takes the same work whether the client exists or not.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Compared(Vec<(&'static str, Fact)>);

/// A value of [`Compared`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Fact {
    /// A text of at most 512 bytes, or one that was cut there and ends with `…`.
    Text(Box<str>),
    /// A number, in the unit that its name says.
    Number(i64),
}

impl Serialize for Compared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, fact)| (name, fact)))
    }
}

impl Compared {
    /// Notes a text.
    pub fn text(&mut self, name: &'static str, text: &str) {
        let cut = cut(text, MAX_TEXT);
        let text = if cut.len() < text.len() { format!("{cut}…").into() } else { text.into() };
        self.0.push((name, Fact::Text(text)));
    }

    /// Notes a number.
    pub fn number(&mut self, name: &'static str, number: i64) {
        self.0.push((name, Fact::Number(number)));
    }

    /// The text of that name.
    #[must_use]
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|(mine, fact)| match fact {
            Fact::Text(text) if *mine == name => Some(&**text),
            _ => None,
        })
    }

    /// The bytes that its texts take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of_texts = self.0.iter().map(|(_, fact)| if let Fact::Text(text) = fact { text.len() } else { 0 });
        self.0.capacity() * size_of::<(&str, Fact)>() + of_texts.sum::<usize>()
    }

    /// Notes what a refused assertion says of itself, and how far its times are from `now`.
    pub fn assertion(&mut self, jwt: &Unverified<'_>, error: &ClientAuthError, issuer: &str, now: UnixTime) {
        self.text("alg", jwt.header().alg().as_str());
        if let Some(kid) = jwt.header().kid() {
            self.text("kid", kid);
        }
        let claims = jwt.claims_nobody_vouches_for();
        // A claim of the wrong type is another refusal, and there is nothing to compare.
        let date = |name| claims.numeric_date(name).ok().flatten();
        match error {
            ClientAuthError::AssertionAudience => {
                match claims.audience().ok().flatten() {
                    Some(Audience::One(aud)) => self.text("aud", aud),
                    Some(auds @ Audience::Many(_)) => self.text("aud", auds.sole().unwrap_or("(several)")),
                    None => {}
                }
                self.text("expected_aud", issuer);
            }
            ClientAuthError::AssertionExpired => self.difference(date("exp"), now),
            ClientAuthError::AssertionEarly => self.difference(date("iat").max(date("nbf")), now),
            ClientAuthError::AssertionOld => self.difference(date("iat"), now),
            ClientAuthError::AssertionLifetime => {
                if let Some(exp) = date("exp") {
                    self.number("lifetime_seconds", exp.saturating_sub(date("iat").unwrap_or(now.0)));
                }
                self.difference(date("iat"), now);
            }
            _ => {}
        }
    }

    /// Notes what a refused DPoP proof says of itself.
    pub fn proof(&mut self, proof: &str, error: DpopError, now: UnixTime) {
        if !matches!(error, DpopError::Time | DpopError::Htu | DpopError::Htm) {
            return;
        }
        // It was read before, so it can be read again.
        let Ok(proof) = Unverified::parse(proof, Kind::DpopProof, MAX_BYTES) else { return };
        let claims = proof.claims_nobody_vouches_for();
        // A claim of the wrong type is another refusal, and there is nothing to compare.
        match error {
            DpopError::Time => self.difference(claims.numeric_date("iat").ok().flatten(), now),
            DpopError::Htu => self.text("htu", claims.string("htu", MAX_BYTES).ok().flatten().unwrap_or_default()),
            _ => self.text("htm", claims.string("htm", MAX_BYTES).ok().flatten().unwrap_or_default()),
        }
    }

    /// Notes by how many seconds a time of the client is ahead of ours; negative when it is behind.
    fn difference(&mut self, presented: Option<i64>, now: UnixTime) {
        if let Some(presented) = presented {
            self.number("clock_difference_seconds", presented.saturating_sub(now.0));
        }
    }

    /// Notes which certificate was presented.
    pub fn certificate(&mut self, presented: &PeerCertificate) {
        self.text("certificate_subject", &presented.certificate.subject().to_string());
        self.text("certificate_x5t_s256", &presented.certificate.x5t_s256());
    }

    /// Notes the access that an authenticated client asked for, beside what it may ask for. Returns the scopes or the
    /// resource that were refused, as the answer to this client may repeat them.
    pub fn access(
        &mut self,
        error: GrantError,
        client: &Client,
        snapshot: &Snapshot,
        (requested, resources): (Option<&str>, &[&str]),
    ) -> Option<Repeatable> {
        let about_resource = matches!(
            error,
            GrantError::ResourceNotAllowed
                | GrantError::ResourceMalformed
                | GrantError::ResourceBlank
                | GrantError::SeveralResources
                | GrantError::ResourceAmbiguous
                | GrantError::ScopeNotForResource
        );
        let requested = requested.unwrap_or_default();
        let allowed = client.scopes.allowed();
        let named = resources.first().copied();
        self.text("requested_scope", requested);
        self.text("allowed_scope", allowed.as_str());
        if about_resource || named.is_some() {
            self.text("requested_resource", &resources.join(" "));
            let ids: Vec<&str> = client.resources.iter().map(ResourceId::as_str).collect();
            self.text("allowed_resource", &ids.join(" "));
        }
        let lacking = |known: &Scope| {
            let lacking: Vec<&str> = requested.split(' ').filter(|scope| !known.contains(scope)).collect();
            lacking.join(" ")
        };
        let refused = match error {
            GrantError::ScopeNotAllowed | GrantError::ScopeSeparator => lacking(allowed),
            GrantError::ScopeNotForResource => {
                let resource = named.and_then(|named| snapshot.resource(named))?;
                self.text("resource_scope", resource.scope.as_str());
                lacking(&resource.scope)
            }
            GrantError::ResourceNotAllowed | GrantError::ResourceMalformed => named.unwrap_or_default().to_owned(),
            _ => return None,
        };
        Repeatable::new(&refused)
    }
}

/// A text of the request that its answer may repeat. RFC 6749 section 5.2: values of `error_description` "MUST NOT include
/// characters outside the set %x20-21 / %x23-5B / %x5D-7E". Of these, the ones of scopes and URIs are taken, and none that
/// means something in HTML or in a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeatable(Box<str>);

impl Repeatable {
    /// Takes a text that fits, and cuts a long one. `None` for an empty text, or one with other characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" -._~:/?#[]@!*+,;=%|".contains(&byte);
        let fits = !text.is_empty() && text.bytes().all(is_plain);
        let cut = cut(text, MAX_REPEATED);
        fits.then(|| Self(if cut.len() < text.len() { format!("{cut}...").into() } else { text.into() }))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns at most `most` bytes of a text, cut at a character.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// Most bytes of one text that is kept of a refused request.
pub(crate) const MAX_TEXT: usize = 512;
/// Most bytes of a request that its answer repeats.
pub(crate) const MAX_REPEATED: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_and_says_so() {
        let mut compared = Compared::default();
        compared.text("short", "a b");
        compared.text("long", &"é".repeat(400));
        compared.number("seconds", -7);
        assert_eq!(compared.text_of("short"), Some("a b"));
        assert_eq!(compared.text_of("long").unwrap(), format!("{}…", "é".repeat(256)));
        assert_eq!(compared.text_of("seconds"), None);
        let json = serde_json::to_value(&compared).unwrap();
        assert_eq!((&json["short"], &json["seconds"]), (&"a b".into(), &(-7).into()));
        assert!(compared.bytes() < 1000, "{}", compared.bytes());
    }

    #[test]
    fn only_what_an_error_description_may_have_is_repeated() {
        assert_eq!(Repeatable::new("invoices:read").unwrap().as_str(), "invoices:read");
        for wrong in ["", "a\"b", "a\\b", "a\nb", "caf\u{e9}", "\u{7f}", "<script>", "$(x)", "a`b", "a'b"] {
            assert_eq!(Repeatable::new(wrong), None, "{wrong:?}");
        }
        assert_eq!(Repeatable::new(&"a".repeat(4096)).unwrap().as_str().len(), MAX_REPEATED + 3);
    }
}
