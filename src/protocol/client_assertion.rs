//! `private_key_jwt` (RFC 7521 section 4.2, RFC 7523 sections 2.2 and 3): a JWT that the client signed for us, once.

use std::sync::{Arc, LazyLock};

use super::error::ClientAuthError;
use crate::crypto::jose::{Audience, Claims, JoseError, TRIED_MAX, Unverified};
use crate::crypto::sha256;
use crate::crypto::verifying_key::VerifyingKey;
use crate::model::credential::StoredKey;
use crate::model::time::{Span, UnixTime};
use crate::store::spent::{SingleUseId, SingleUseKind};

/// An assertion whose signature and claims are right. That it is the first of its `jti` is for the store to say.
#[derive(Debug)]
pub struct VerifiedAssertion {
    /// The key that signed it.
    pub key: StoredKey,
    /// Whether that key's time is over.
    pub key_expired: bool,
    /// Its one use, which is not spent yet.
    pub assertion: SingleUseId,
}

/// The requirements on the assertions of one client.
#[derive(Debug)]
pub struct Terms<'a> {
    /// The audience that is always accepted.
    pub issuer: &'a str,
    /// The URLs of the token endpoint, where the client is registered for them.
    pub token_endpoints: &'a [Box<str>],
    /// The longest lifetime.
    pub lifetime: Span,
    /// Whether `aud` may be an array of one element.
    pub one_in_an_array: bool,
}

/// Whether one of `keys` signed it, and it keeps `terms` at `now`. When none did, `at_least` as many signatures
/// have been checked, whatever keys there are, so that a client that does not exist costs what others do.
///
/// # Errors
/// [`ClientAuthError`].
pub fn verify(
    assertion: &Unverified<'_>,
    keys: &[StoredKey],
    client_id: &str,
    terms: &Terms<'_>,
    now: UnixTime,
    at_least: usize,
) -> Result<VerifiedAssertion, ClientAuthError> {
    let (claims, key) = verify_signature(assertion, keys, at_least, now)?;
    let assertion = accept(claims, client_id, terms, now)?;
    Ok(VerifiedAssertion { key_expired: has_expired(key, now), key: key.clone(), assertion })
}

/// The claims, and which of `keys` vouches for them. When none does, `at_least` as many signatures have been checked.
///
/// # Errors
/// [`JoseError`].
pub fn verify_signature<'j, 'k>(
    assertion: &'j Unverified<'_>,
    keys: &'k [StoredKey],
    at_least: usize,
    now: UnixTime,
) -> Result<(&'j Claims, &'k StoredKey), JoseError> {
    // A few are tried when none is named: those first that may still be used.
    let mut candidates: Vec<&StoredKey> = keys.iter().collect();
    candidates.sort_by_key(|stored| has_expired(stored, now));
    let (claims, key) = match assertion.verify_with_one_of(candidates.iter().map(|stored| &*stored.key)) {
        Ok(verified) => verified,
        Err(error) => {
            check_decoys(assertion, decoys(assertion, keys, at_least));
            return Err(error);
        }
    };
    let stored = candidates.into_iter().find(|stored| std::ptr::eq(Arc::as_ptr(&stored.key), key));
    Ok((claims, stored.ok_or(JoseError::NoKey)?))
}

fn has_expired(stored: &StoredKey, now: UnixTime) -> bool {
    stored.expires_at.is_some_and(|at| at <= now)
}

/// How many signatures are still to be checked when none of `keys` fits, so that it is `at_least` as many.
fn decoys(assertion: &Unverified<'_>, keys: &[StoredKey], at_least: usize) -> usize {
    let tried = keys.iter().filter(|stored| assertion.header().may_be_by(&stored.key)).count().min(TRIED_MAX);
    at_least.saturating_sub(tried)
}

/// The work of some signature checks, for results that nobody reads.
pub fn check_decoys(assertion: &Unverified<'_>, count: usize) {
    for _ in 0..count {
        for decoy in DECOYS.iter().filter(|decoy| decoy.takes(assertion.header().alg())) {
            let _: bool = assertion.verify(decoy).is_ok();
        }
    }
}

/// RFC 7523 section 3, claim by claim.
fn accept(claims: &Claims, client_id: &str, terms: &Terms<'_>, now: UnixTime) -> Result<SingleUseId, ClientAuthError> {
    // draft-ietf-oauth-rfc7523bis section 4: the audience is the issuer identifier "as the sole value"; "Simple String
    // Comparison" (RFC 3986 section 6.2.1). A second audience could replay the assertion here.
    let aud = match claims.audience()? {
        Some(Audience::One(aud)) => aud,
        Some(auds @ Audience::Many(_)) if terms.one_in_an_array => {
            auds.sole().ok_or(ClientAuthError::AssertionAudience)?
        }
        _ => return Err(ClientAuthError::AssertionAudience),
    };
    if aud != terms.issuer && !terms.token_endpoints.iter().any(|endpoint| **endpoint == *aud) {
        return Err(ClientAuthError::AssertionAudience);
    }
    // "The JWT MUST contain an "exp" (expiration time) claim that limits the time window during which the JWT can be used."
    let exp = UnixTime(claims.numeric_date("exp")?.ok_or(ClientAuthError::AssertionIncomplete("exp"))?);
    if exp.plus(EXP_LEEWAY) <= now {
        return Err(ClientAuthError::AssertionExpired);
    }
    let (iat, nbf) = (claims.numeric_date("iat")?.map(UnixTime), claims.numeric_date("nbf")?.map(UnixTime));
    if [nbf, iat].into_iter().flatten().any(|at| at > now.plus(NBF_LEEWAY)) {
        return Err(ClientAuthError::AssertionEarly);
    }
    if iat.is_some_and(|iat| iat.plus(MAX_IAT_AGE) < now) {
        return Err(ClientAuthError::AssertionOld);
    }
    // The jti is remembered until exp, so exp is bounded. The lifetime counts from the client's own time where the
    // client names it, with the same room for clocks as iat and nbf have.
    if exp > iat.unwrap_or(now).plus(terms.lifetime).plus(NBF_LEEWAY) {
        return Err(ClientAuthError::AssertionLifetime);
    }
    let jti = claims.string("jti", JTI)?.ok_or(ClientAuthError::AssertionIncomplete("jti"))?;
    // Remembered for longer than any replica accepts the assertion, also by a clock that is a minute behind.
    let expires_at = exp.plus(EXP_LEEWAY).plus(REPLICA_SKEW);
    Ok(SingleUseId {
        kind: SingleUseKind::Assertion,
        owner: client_id.to_owned(),
        jti: sha256(jti.as_bytes()),
        expires_at,
    })
}

/// Most bytes of an assertion.
pub(crate) const MAX_ASSERTION_BYTES: usize = 8 * 1024;
/// Most bytes of a `jti`.
pub(crate) const JTI: usize = 256;
/// Longest time from `iat` to `exp` of an assertion, unless the client is registered for another.
pub const LIFETIME: Span = Span::from_secs(300);
/// Leeway after `exp`, for a client's clock that is behind.
pub(crate) const EXP_LEEWAY: Span = Span::from_secs(10);
/// Leeway before `nbf` and `iat`, for a client's clock that is ahead.
pub(crate) const NBF_LEEWAY: Span = Span::from_secs(30);
/// Oldest accepted `iat`, whatever `exp` says.
pub(crate) const MAX_IAT_AGE: Span = Span::from_secs(86400);
/// Greatest difference between the clocks of replicas, or of a replica and the database.
pub(crate) const REPLICA_SKEW: Span = Span::from_secs(60);

/// Keys for each algorithm that are nobody's here: the examples of RFC 9449, RFC 8037 and RFC 7638, and the base point of
/// P-384.
static DECOYS: LazyLock<Vec<VerifyingKey>> = LazyLock::new(|| {
    let rsa = format!(r#"{{"kty":"RSA","e":"AQAB","n":"{RSA_N}"}}"#);
    [P256.to_owned(), P384.to_owned(), OKP.to_owned(), rsa]
        .iter()
        .filter_map(|jwk| VerifyingKey::from_text(jwk.as_bytes(), None).ok())
        .collect()
});
const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}"#;
const P384: &str = r#"{"kty":"EC","crv":"P-384","x":"qofKIr6LBTeOscce8yCtdG4dO2KLp5uYWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3","y":"NhfeSpYmLG9dnpi_kpLcKfj0Hb0omhR86doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f"}"#;
const OKP: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
const RSA_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;
    use crate::crypto::jose::Kind;
    use crate::crypto::jwk::Alg;
    use crate::crypto::jws::SigningKey;
    use crate::crypto::signature_alg::SignatureAlg;
    use crate::model::credential::KeyCounts;

    /// A JWT that nobody signed, and keys that are as many as they may be.
    fn forged(kid: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let header = format!(r#"{{"alg":"ES256"{kid}}}"#);
        format!("{}.{}.{}", part(&header), part("{}"), BASE64_URL_SAFE_NO_PAD.encode([1; 64]))
    }

    fn keys(count: usize, kid: Option<&str>) -> Vec<StoredKey> {
        let made = |number: usize| {
            let mut jwk = SigningKey::generate(Alg::Es256).unwrap().0.published();
            match kid {
                Some(kid) => jwk["kid"] = format!("{kid}{number}").into(),
                None => drop(jwk.as_object_mut().unwrap().remove("kid")),
            }
            let key = VerifyingKey::from_text(jwk.to_string().as_bytes(), None).unwrap();
            StoredKey {
                kid: key.jkt().into(),
                key: Arc::new(key),
                created_at: UnixTime(1),
                expires_at: None,
                used: Arc::default(),
            }
        };
        (0..count).map(made).collect()
    }

    const TERMS: Terms<'_> = Terms { issuer: "a", token_endpoints: &[], lifetime: LIFETIME, one_in_an_array: false };

    #[test]
    fn a_forged_assertion_costs_the_same_whatever_keys_the_client_has() {
        let sets = [keys(0, None), keys(1, None), keys(TRIED_MAX, None), keys(20, None), keys(TRIED_MAX, Some("k"))];
        let most = sets.iter().map(|keys| KeyCounts::of(keys)).fold(KeyCounts::default(), KeyCounts::max);
        assert_eq!((most.with(SignatureAlg::Es256), most.with(SignatureAlg::EdDsa)), (TRIED_MAX, 1));
        for header in ["", r#","kid":"k1""#, r#","kid":"unknown""#] {
            let jwt = forged(header);
            let unverified = Unverified::parse(&jwt, Kind::ClientAssertion, MAX_ASSERTION_BYTES).unwrap();
            for keys in &sets {
                verify(&unverified, keys, "c", &TERMS, UnixTime(1), most.with(SignatureAlg::Es256)).unwrap_err();
                let own = keys.iter().filter(|stored| stored.key.kid().is_none_or(|kid| header.contains(kid)));
                let own = if header.is_empty() { keys.len() } else { own.count() }.min(TRIED_MAX);
                let checked = own + decoys(&unverified, keys, most.with(SignatureAlg::Es256));
                assert_eq!(checked, TRIED_MAX, "{header}, {} keys", keys.len());
            }
        }
    }

    #[test]
    fn there_is_a_decoy_of_each_algorithm() {
        for alg in SignatureAlg::ALL {
            assert_eq!(DECOYS.iter().filter(|decoy| decoy.takes(alg)).count(), 1, "{alg}");
        }
    }
}
