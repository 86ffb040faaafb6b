//! DPoP (RFC 9449): whether a proof shows that its sender holds a key, and nonces that replicas agree on without talking.

pub(crate) mod nonces;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fluent_uri::Uri;

use super::error::dpop::DpopError;
use crate::crypto::jose::{Claims, JoseError, Kind, Unverified};
use crate::crypto::{NoEntropy, sha256};
use crate::model::profile::Profile;
use crate::model::time::{Span, UnixTime};
use crate::store::spent::{SingleUseId, SingleUseKind};

use nonces::Nonces;

/// The checks of DPoP proofs, with the URLs and the nonces that they compare.
#[derive(Debug)]
pub struct Dpop {
    nonces: Nonces,
    require_nonce: bool,
    profile: Profile,
    /// The token endpoint's URL, normalised. It comes from the configuration, since an attacker chooses `Host`.
    htu: Option<String>,
    /// The same where clients come with certificates.
    alias: Option<String>,
}

/// A proof that was taken. It is not spent yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Proof {
    /// The thumbprint of the key that its sender holds.
    pub jkt: String,
    /// The hash of its id.
    pub jti: [u8; 32],
    /// Until when its id is to be remembered.
    pub expires_at: UnixTime,
    /// Whether its nonce is so old that the client should have a new one.
    pub nonce_due: bool,
}

impl Proof {
    /// The single use of this proof. A `jti` counts separately under each key.
    #[must_use]
    pub fn spend(&self) -> SingleUseId {
        SingleUseId {
            kind: SingleUseKind::DpopProof,
            owner: self.jkt.clone(),
            jti: self.jti,
            expires_at: self.expires_at,
        }
    }
}

impl Dpop {
    /// Holds proofs against the URL of the token endpoint. All replicas have the same `key`.
    #[must_use]
    pub fn new(key: hmac::Key, require_nonce: bool, token_endpoint: &str) -> Self {
        let (nonces, htu) = (Nonces::new(key), normalised(token_endpoint));
        Self { nonces, require_nonce, profile: Profile::Default, htu, alias: None }
    }

    /// The same, which also accepts nonces under `previous` and issues none under it.
    #[must_use]
    pub fn with_previous(self, previous: Option<hmac::Key>) -> Self {
        Self { nonces: self.nonces.with_previous(previous), ..self }
    }

    /// The same, with the algorithms that `profile` permits.
    #[must_use]
    pub fn under(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    /// The same with another URL of the token endpoint, for connections with a certificate (RFC 8705 section 5).
    #[must_use]
    pub fn with_alias(self, token_endpoint: &str) -> Self {
        Self { alias: normalised(token_endpoint), ..self }
    }

    /// The proof of a POST to the token endpoint; `None` when there is none. `by_alias` says that it
    /// came by the listener that asks for certificates. The numbers are those of RFC 9449 section 4.3.
    ///
    /// # Errors
    /// [`DpopError`].
    pub fn check(&self, fields: &[&str], by_alias: bool, now: UnixTime) -> Result<Option<Proof>, DpopError> {
        let Some(proof) = only(fields)? else { return Ok(None) };
        let url = if by_alias && self.alias.is_some() { &self.alias } else { &self.htu };
        // 10. "If the server provided a nonce value to the client, the nonce claim matches the server-provided nonce value."
        let nonce_age = |claims: &Claims| if self.require_nonce { self.nonce_age(claims, now) } else { Ok(0) };
        let (proof, nonce_age) = self.read(proof, ("POST", url.as_deref()), now, nonce_age)?;
        Ok(Some(Proof { nonce_due: nonce_age > 0, ..proof }))
    }

    /// The proof beside an access token, by `request`, the method and URL of a request to an API. No nonce is asked for:
    /// those of the token endpoint are for the token endpoint.
    ///
    /// # Errors
    /// [`DpopError`].
    pub fn check_at_api(
        &self,
        fields: &[&str],
        (method, url): (&str, &str),
        (token, jkt): (&str, &str),
        now: UnixTime,
    ) -> Result<Proof, DpopError> {
        let proof = only(fields)?.ok_or(DpopError::Absent)?;
        // 12. "If presented to a protected resource in conjunction with an access token: ensure that the value of the ath
        //     claim equals the hash of that access token; confirm that the public key to which the access token is bound
        //     matches the public key from the DPoP proof."
        let hash_of_token = |claims: &Claims| {
            let ath = required(claims.string("ath", ATH_MAX), "ath")?;
            let expected = BASE64_URL_SAFE_NO_PAD.encode(sha256::<32>(token.as_bytes()));
            if ath == expected { Ok(()) } else { Err(DpopError::Ath) }
        };
        let (proof, ()) = self.read(proof, (method, normalised(url).as_deref()), now, hash_of_token)?;
        if proof.jkt == jkt { Ok(proof) } else { Err(DpopError::OtherKey) }
    }

    /// A proof that shows a key to the request of this method and URL, with what `further` finds in its claims.
    fn read<T>(
        &self,
        proof: &str,
        (method, url): (&str, Option<&str>),
        now: UnixTime,
        further: impl FnOnce(&Claims) -> Result<T, DpopError>,
    ) -> Result<(Proof, T), DpopError> {
        // 2. "a single and well-formed JWT", 4. typ, 5. "alg … indicates a registered asymmetric digital signature
        //    algorithm".
        let unverified = Unverified::parse(proof, Kind::DpopProof, MAX_BYTES)?;
        if !self.profile.permits_signature(unverified.header().alg()) {
            return Err(DpopError::Alg);
        }
        // 6. "The JWT signature verifies with the public key contained in the jwk JOSE Header Parameter."
        // 7. "The jwk JOSE Header Parameter does not contain a private key."
        let (claims, key) = unverified.verify_with_own_key()?;
        // 3. "All required claims per Section 4.2 are contained in the JWT."
        let htm = required(claims.string("htm", HTM_MAX), "htm")?;
        let htu = required(claims.string("htu", HTU_MAX), "htu")?;
        let jti = required(claims.string("jti", JTI_MAX), "jti")?;
        let iat = UnixTime(required(claims.numeric_date("iat"), "iat")?);
        // 8. "The htm claim matches the HTTP method of the current request."
        if htm != method {
            return Err(DpopError::Htm);
        }
        // 9. "The htu claim matches the HTTP URI value for the HTTP request in which the JWT was received, ignoring any
        //    query and fragment parts."
        let htu = normalised(htu).ok_or(DpopError::Htu)?;
        if url != Some(&*htu) {
            return Err(DpopError::Htu);
        }
        // 11. "The creation time of the JWT … is within an acceptable window".
        is_timely(claims, iat, now)?;
        let found = further(claims)?;
        let hash = sha256(jti.as_bytes());
        // Remembered for longer than any replica accepts the proof, whatever its clock says.
        let expires_at = iat.plus(MAX_AGE).plus(REPLICA_SKEW);
        Ok((Proof { jkt: key.jkt().to_owned(), jti: hash, expires_at, nonce_due: false }, found))
    }

    fn nonce_age(&self, claims: &Claims, now: UnixTime) -> Result<i64, DpopError> {
        let nonce = claims.string("nonce", NONCE_MAX).ok().flatten();
        nonce.and_then(|nonce| self.nonces.age(nonce, now)).ok_or(DpopError::Nonce)
    }

    /// A nonce for the next proof of whoever asks.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn nonce(&self, now: UnixTime) -> Result<String, NoEntropy> {
        self.nonces.issue(now)
    }
}

/// 1. "There is not more than one DPoP HTTP request header field."
fn only<'a>(fields: &[&'a str]) -> Result<Option<&'a str>, DpopError> {
    match fields {
        [] => Ok(None),
        [proof] => Ok(Some(proof)),
        _ => Err(DpopError::Repeated),
    }
}

fn required<T>(claim: Result<Option<T>, JoseError>, name: &'static str) -> Result<T, JoseError> {
    claim?.ok_or(JoseError::Claim(name))
}

fn is_timely(claims: &Claims, iat: UnixTime, now: UnixTime) -> Result<(), DpopError> {
    let (exp, nbf) = (claims.numeric_date("exp")?.map(UnixTime), claims.numeric_date("nbf")?.map(UnixTime));
    let ahead = now.plus(FUTURE_LEEWAY);
    let in_time = |exp: UnixTime| now < exp.plus(EXP_LEEWAY);
    let timely =
        now <= iat.plus(MAX_AGE) && iat <= ahead && exp.is_none_or(in_time) && nbf.is_none_or(|nbf| nbf <= ahead);
    if timely { Ok(()) } else { Err(DpopError::Time) }
}

/// RFC 9449 section 4.3: "servers SHOULD employ syntax-based normalization (Section 6.2.2 of \[RFC3986\]) and scheme-based
/// normalization (Section 6.2.3 of \[RFC3986\]) before comparing the htu claim."
fn normalised(uri: &str) -> Option<String> {
    let uri = Uri::parse(uri).ok()?.normalize();
    let authority = uri.authority().filter(|authority| !authority.has_userinfo() && !authority.host().is_empty())?;
    let path = Some(uri.path().as_str()).filter(|path| !path.is_empty()).unwrap_or("/");
    Some(format!("{}://{authority}{path}", uri.scheme()))
}

/// Oldest accepted `iat` of a proof; leeway for a client's clock is part of it.
pub(crate) const MAX_AGE: Span = Span::from_secs(60);
/// Leeway for a client's clock that is ahead.
pub(crate) const FUTURE_LEEWAY: Span = Span::from_secs(30);
/// Leeway after the `exp` of a proof that has one, for a client's clock that is behind.
pub(crate) const EXP_LEEWAY: Span = Span::from_secs(10);
/// Greatest difference between the clocks of replicas.
pub(crate) const REPLICA_SKEW: Span = Span::from_secs(60);
/// Most bytes of a proof.
pub(crate) const MAX_BYTES: usize = 8192;
const HTM_MAX: usize = 32;
const HTU_MAX: usize = 2048;
/// Most bytes of a proof's `jti`.
pub(crate) const JTI_MAX: usize = 256;
const NONCE_MAX: usize = 256;
/// A digest of SHA-256 in base64url.
const ATH_MAX: usize = 43;

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::nonces::WINDOW;
    use super::*;

    const NOW: UnixTime = UnixTime(1_700_000_000);
    const ALIAS: &str = "https://mtls.as.test:443/token";

    struct Prover(EcdsaKeyPair);

    impl Prover {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        fn jwk(&self) -> Value {
            let point = self.0.public_key().as_ref();
            let [x, y] = [&point[1..33], &point[33..]].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
        }

        fn sign(&self, claims: &Value) -> String {
            let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()}).to_string();
            let [header, claims] = [header, claims.to_string()].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
            let signed = format!("{header}.{claims}");
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
        }
    }

    fn dpop(require_nonce: bool) -> Dpop {
        Dpop::new(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), require_nonce, "https://as.test/token")
    }

    fn claims() -> Value {
        json!({"htm": "POST", "htu": "https://as.test/token", "jti": "a", "iat": NOW.0})
    }

    fn with(name: &str, value: impl Into<Value>) -> Value {
        let mut claims = claims();
        claims[name] = value.into();
        claims
    }

    fn verdict(claims: &Value) -> Result<(), DpopError> {
        dpop(false).check(&[&Prover::new().sign(claims)], false, NOW).map(|proof| assert!(proof.is_some()))
    }

    #[test]
    fn one_proof_is_accepted_and_names_the_key_of_its_sender() {
        let (prover, dpop) = (Prover::new(), dpop(false));
        let proof = prover.sign(&claims());
        let taken = dpop.check(&[&proof], false, NOW).unwrap().unwrap();
        let jwk = prover.jwk().to_string();
        let key = crate::crypto::verifying_key::VerifyingKey::from_text(jwk.as_bytes(), None).unwrap();
        assert_eq!(taken.jkt, key.jkt());
        assert_eq!(dpop.check(&[], false, NOW), Ok(None));
        assert_eq!(dpop.check(&[&proof, &proof], false, NOW), Err(DpopError::Repeated));
        for malformed in
            [format!("{proof},{proof}"), format!("{proof}, {proof}"), "x".into(), String::new(), "a.b".into()]
        {
            let refused = dpop.check(&[&malformed], false, NOW);
            assert_eq!(refused, Err(DpopError::Proof(JoseError::NotCompact)), "{malformed}");
        }
    }

    #[test]
    fn each_required_claim_is_present_and_has_its_type() {
        for name in ["jti", "htm", "htu", "iat"] {
            let mut without = claims();
            without.as_object_mut().unwrap().remove(name);
            assert_eq!(verdict(&without), Err(DpopError::Proof(JoseError::Claim(name))), "{name}");
            for wrong in [json!(["a"]), json!({}), json!(null), json!(true), json!(""), json!(-1)] {
                assert_eq!(
                    verdict(&with(name, wrong.clone())),
                    Err(DpopError::Proof(JoseError::Claim(name))),
                    "{name} {wrong}"
                );
            }
        }
        assert_eq!(verdict(&with("jti", "x".repeat(257))), Err(DpopError::Proof(JoseError::Claim("jti"))));
        assert_eq!(verdict(&with("jti", "x".repeat(65_536))), Err(DpopError::Proof(JoseError::TooLong)));
    }

    #[test]
    fn htm_and_htu_are_the_method_and_url_of_this_endpoint() {
        for htm in ["GET", "post", "Post", "PUT", "POST "] {
            assert_eq!(verdict(&with("htm", htm)), Err(DpopError::Htm), "{htm}");
        }
        for same in [
            "https://as.test/token?a=b#c",
            "https://as.test/token?",
            "HTTPS://AS.TEST:443/token",
            "https://as.test:/token",
            "https://as.test/%74oken",
            "https://as.test/./token",
            "https://as.test/x/../token",
            "https://as.test/%2e/token",
        ] {
            assert_eq!(verdict(&with("htu", same)), Ok(()), "{same}");
        }
        let (dpop, proof) =
            (dpop(false).with_alias("https://mtls.as.test/token"), Prover::new().sign(&with("htu", ALIAS)));
        assert!(dpop.check(&[&proof], true, NOW).is_ok(), "where clients come with certificates");
        assert_eq!(dpop.check(&[&proof], false, NOW), Err(DpopError::Htu));
        for other in [
            "http://as.test/token",
            "https://as.test:8443/token",
            "https://evil.test/token",
            "https://as.test.evil.test/token",
            "https://as.test@evil.test/token",
            "https://user@as.test/token",
            "https://as.test/Token",
            "https://as.test/token/",
            "https://as.test/t1/token",
            "https://as.test/introspect",
            "https://as.test/%2Ftoken",
            "https://as.test",
            "//as.test/token",
            "/token",
            "as.test/token",
            "https:///token",
            "https://as.test/tok en",
            ALIAS,
        ] {
            assert_eq!(verdict(&with("htu", other)), Err(DpopError::Htu), "{other}");
        }
    }

    #[test]
    fn a_proof_is_recent_and_is_remembered_for_longer_than_it_is_accepted() {
        for near in [-60, -10, 0, 10, 30] {
            assert_eq!(verdict(&with("iat", NOW.0 + near)), Ok(()), "{near}");
        }
        for far in [-3600, -61, 31, 3600] {
            assert_eq!(verdict(&with("iat", NOW.0 + far)), Err(DpopError::Time), "{far}");
        }
        let (prover, dpop) = (Prover::new(), dpop(false));
        let proof = prover.sign(&with("iat", NOW.0 + 30));
        let remembered_until = dpop.check(&[&proof], false, NOW).unwrap().unwrap().expires_at;
        for later in 0..200 {
            let later = UnixTime(NOW.0 + later);
            assert!(dpop.check(&[&proof], false, later).is_err() || later < remembered_until, "{later}");
        }
    }

    #[test]
    fn unknown_members_are_ignored_and_exp_and_nbf_are_obeyed() {
        assert_eq!(verdict(&with("ath", "x")), Ok(()));
        assert_eq!(verdict(&with("nonce", "of somebody else")), Ok(()), "none is demanded");
        let mut valid = with("nbf", NOW.0);
        valid["exp"] = (NOW.0 + 300).into();
        assert_eq!(verdict(&valid), Ok(()));
        assert_eq!(verdict(&with("exp", NOW.0 - 9)), Ok(()), "the client's clock may be behind");
        assert_eq!(verdict(&with("exp", NOW.0 - 10)), Err(DpopError::Time));
        assert_eq!(verdict(&with("nbf", NOW.0 + 30)), Ok(()));
        assert_eq!(verdict(&with("nbf", NOW.0 + 60)), Err(DpopError::Time));
        assert_eq!(verdict(&with("exp", "soon")), Err(DpopError::Proof(JoseError::Claim("exp"))));
    }

    #[test]
    fn a_demanded_nonce_is_ours_and_recent() {
        let (here, there, prover) = (dpop(true), dpop(true), Prover::new());
        let age = |nonce: &str, seconds: i64| {
            let now = UnixTime(NOW.0 + seconds);
            let mut claims = with("iat", now.0);
            claims["nonce"] = nonce.into();
            there.check(&[&prover.sign(&claims)], false, now).map(|proof| proof.unwrap().nonce_due)
        };
        let nonce = here.nonce(NOW).unwrap();
        let begun = NOW.0 % WINDOW;
        assert_eq!(age(&nonce, 0), Ok(false), "another replica takes it");
        assert_eq!(age(&nonce, WINDOW - begun - 1), Ok(false));
        assert_eq!(age(&nonce, WINDOW - begun), Ok(true), "a new one is due");
        assert_eq!(age(&nonce, 2 * WINDOW - begun - 1), Ok(true));
        assert_eq!(age(&nonce, 2 * WINDOW - begun), Err(DpopError::Nonce));
        assert_eq!(age(&nonce, -begun - 1), Ok(false), "the clock of the replica that made it is ahead");
        assert_eq!(age(&nonce, -begun - 1 - WINDOW), Err(DpopError::Nonce));
        for wrong in ["", "x", &nonce[1..], &format!("{nonce}="), &nonce.to_uppercase()] {
            assert_eq!(age(wrong, 0), Err(DpopError::Nonce), "{wrong}");
        }
        assert_eq!(there.check(&[&prover.sign(&claims())], false, NOW), Err(DpopError::Nonce), "no downgrade");
        let other = Dpop::new(hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]), true, "https://as.test/token");
        assert_eq!(age(&other.nonce(NOW).unwrap(), 0), Err(DpopError::Nonce));
        // While the sealing key is changed, a nonce under either key counts, and one under the former brings a new one.
        let changing = other.with_previous(Some(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])));
        let due = |nonce: String, seconds: i64| {
            let now = UnixTime(NOW.0 + seconds);
            let mut claims = with("iat", now.0);
            claims["nonce"] = nonce.into();
            changing.check(&[&prover.sign(&claims)], false, now).map(|proof| proof.unwrap().nonce_due)
        };
        assert_eq!(due(here.nonce(NOW).unwrap(), 0), Ok(true));
        assert_eq!(due(here.nonce(NOW).unwrap(), 2 * WINDOW - begun), Err(DpopError::Nonce));
        assert_eq!(due(changing.nonce(NOW).unwrap(), 0), Ok(false), "nonces are issued under the current key");

        let nonces: std::collections::HashSet<String> = (0..1000).map(|_| here.nonce(NOW).unwrap()).collect();
        assert_eq!(nonces.len(), 1000, "all distinct");
        let nqchar = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        assert!(nonces.iter().all(|nonce| nonce.len() == 43 && nonce.bytes().all(nqchar)));
    }

    #[test]
    fn the_proof_of_rfc_9449_is_accepted_at_its_time_and_url() {
        let proof = concat!(
            "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rs",
            "cEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2",
            "In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2Vu",
            "IiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZ",
            "T3Lg"
        );
        let at = |now, endpoint| {
            Dpop::new(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), false, endpoint).check(
                &[proof],
                false,
                UnixTime(now),
            )
        };
        let taken = at(1_562_262_616, "https://server.example.com/token").unwrap().unwrap();
        assert_eq!(taken.jkt, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        assert_eq!(at(1_562_262_616, "https://as.test/token"), Err(DpopError::Htu));
        assert_eq!(at(1_700_000_000, "https://server.example.com/token"), Err(DpopError::Time));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_claim_makes_it_panic(name in "htm|htu|jti|iat|exp|nbf|nonce", value in any::<String>(), number in any::<f64>()) {
            let prover = Prover::new();
            for claims in [with(&name, value.clone()), with(&name, number)] {
                for require_nonce in [false, true] {
                    let _ = dpop(require_nonce).check(&[&prover.sign(&claims)], false, NOW);
                }
            }
        }
    }
}
