//! DPoP (RFC 9449): whether a proof shows that its sender holds a key, and nonces that replicas agree on without talking.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fluent_uri::Uri;

use super::error::dpop::DpopError;
use crate::crypto::jose::{Claims, JoseError, Kind, Unverified};
use crate::crypto::{NoEntropy, equal, random_id};
use crate::model::time::{Span, UnixTime};

/// What proofs are held against.
#[derive(Debug)]
pub struct Dpop {
    nonces: Nonces,
    require_nonce: bool,
    /// The token endpoint, normalised. It comes from the configuration: `Host` is what an attacker says it is (H47).
    htu: Option<String>,
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

impl Dpop {
    /// Holds proofs against the URL of the token endpoint. All replicas have the same `key`.
    #[must_use]
    pub fn new(key: hmac::Key, require_nonce: bool, token_endpoint: &str) -> Self {
        Self { nonces: Nonces(key), require_nonce, htu: normalised(token_endpoint) }
    }

    /// The proof of a POST to the token endpoint; `None` when there is none. The numbers are those of RFC 9449 section 4.3.
    ///
    /// # Errors
    /// [`DpopError`].
    pub fn check(&self, fields: &[&str], now: UnixTime) -> Result<Option<Proof>, DpopError> {
        // 1. "There is not more than one DPoP HTTP request header field."
        let proof = match fields {
            [] => return Ok(None),
            [proof] => proof,
            _ => return Err(DpopError::Repeated),
        };
        // 2. "a single and well-formed JWT", 4. typ, 5. "alg … indicates a registered asymmetric digital signature
        //    algorithm", 7. "The jwk JOSE Header Parameter does not contain a private key."
        let unverified = Unverified::parse(proof, Kind::DpopProof, LONGEST)?;
        // 6. "The JWT signature verifies with the public key contained in the jwk JOSE Header Parameter."
        let (claims, key) = unverified.verify_with_own_key()?;
        // 3. "All required claims per Section 4.2 are contained in the JWT."
        let htm = required(claims.string("htm", HTM_MAX), "htm")?;
        let htu = required(claims.string("htu", HTU_MAX), "htu")?;
        let jti = required(claims.string("jti", JTI_MAX), "jti")?;
        let iat = UnixTime(required(claims.numeric_date("iat"), "iat")?);
        // 8. "The htm claim matches the HTTP method of the current request."
        if htm != "POST" {
            return Err(DpopError::Htm);
        }
        // 9. "The htu claim matches the HTTP URI value for the HTTP request in which the JWT was received, ignoring any
        //    query and fragment parts."
        if self.htu.is_none() || normalised(htu) != self.htu {
            return Err(DpopError::Htu);
        }
        // 11. "The creation time of the JWT … is within an acceptable window".
        is_timely(claims, iat, now)?;
        // 10. "If the server provided a nonce value to the client, the nonce claim matches the server-provided nonce value."
        let nonce_due = if self.require_nonce { self.nonce_age(claims, now)? > 0 } else { false };
        let mut hash = [0; 32];
        let jti = digest::digest(&digest::SHA256, jti.as_bytes());
        hash.iter_mut().zip(jti.as_ref()).for_each(|(to, from)| *to = *from);
        // H39: remembered for longer than the proof is taken anywhere, whatever the clocks of replicas say.
        let expires_at = iat.plus(PAST).plus(CLOCKS);
        Ok(Some(Proof { jkt: key.jkt().to_owned(), jti: hash, expires_at, nonce_due }))
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

fn required<T>(claim: Result<Option<T>, JoseError>, name: &'static str) -> Result<T, JoseError> {
    claim?.ok_or(JoseError::Claim(name))
}

fn is_timely(claims: &Claims, iat: UnixTime, now: UnixTime) -> Result<(), DpopError> {
    let (exp, nbf) = (claims.numeric_date("exp")?.map(UnixTime), claims.numeric_date("nbf")?.map(UnixTime));
    let ahead = now.plus(AHEAD);
    let timely = now <= iat.plus(PAST) && iat <= ahead && exp.is_none_or(|exp| now < exp) && nbf.is_none_or(|nbf| nbf <= ahead);
    if timely { Ok(()) } else { Err(DpopError::Time) }
}

/// RFC 9449 section 4.3: "servers SHOULD employ syntax-based normalization (Section 6.2.2 of [RFC3986]) and scheme-based
/// normalization (Section 6.2.3 of [RFC3986]) before comparing the htu claim."
fn normalised(uri: &str) -> Option<String> {
    let uri = Uri::parse(uri).ok()?.normalize();
    let authority = uri.authority().filter(|authority| !authority.has_userinfo() && !authority.host().is_empty())?;
    let path = Some(uri.path().as_str()).filter(|path| !path.is_empty()).unwrap_or("/");
    Some(format!("{}://{authority}{path}", uri.scheme()))
}

/// Nonces (RFC 9449 section 8) that carry their own proof: a MAC over chance and the minute they were made in.
struct Nonces(hmac::Key);

impl Nonces {
    fn issue(&self, now: UnixTime) -> Result<String, NoEntropy> {
        let salt = random_id()?;
        let mac = self.mac(window(now), &salt);
        Ok(BASE64_URL_SAFE_NO_PAD.encode([salt, mac].concat()))
    }

    /// How many windows ago a nonce was made. One that is older than the window before this is nobody's.
    fn age(&self, nonce: &str, now: UnixTime) -> Option<i64> {
        let bytes: [u8; 32] = BASE64_URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?;
        let (salt, mac) = bytes.split_first_chunk::<16>()?;
        // The replica that made it may be in the next window already.
        [0, 1, -1].into_iter().find(|age| equal(mac, &self.mac(window(now) - age, salt)))
    }

    fn mac(&self, window: i64, salt: &[u8; 16]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&window.to_be_bytes());
        context.update(salt);
        let mut mac = [0; 16];
        mac.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        mac
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces")
    }
}

fn window(now: UnixTime) -> i64 {
    now.0.div_euclid(WINDOW)
}

/// How old a proof may be, and how far ahead the client's clock.
const PAST: Span = Span::from_secs(60);
const AHEAD: Span = Span::from_secs(30);
/// How far apart the clocks of replicas may be.
const CLOCKS: Span = Span::from_secs(60);
/// In seconds. A nonce lives for one window at least and two at most.
const WINDOW: i64 = 60;
const LONGEST: usize = 8192;
const HTM_MAX: usize = 32;
const HTU_MAX: usize = 2048;
const JTI_MAX: usize = 256;
const NONCE_MAX: usize = 256;
