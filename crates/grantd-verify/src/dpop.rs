//! The DPoP proof of a request (RFC 9449 section 4.3): the client holds a private key, and made this for this request.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fluent_uri::Uri;
use jose::jwt::{JoseError, Kind, Unverified};
use jose::sha256;
use jose::signature_alg::SignatureAlg;
use serde::Deserialize;
use serde_json::Value;

/// A verified proof. Whether it was used before is for [`Replays`](crate::replays::Replays) to say.
#[derive(Debug)]
pub(crate) struct Proof {
    /// The RFC 7638 thumbprint of the key that made it.
    pub(crate) jkt: String,
    /// A hash of key, URL and `jti`: the same for a proof that is sent again.
    pub(crate) id: [u8; 32],
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    iat: i64,
    ath: Option<String>,
    nbf: Option<i64>,
    exp: Option<i64>,
}

/// Verifies the proof of a request with this method, URL and access token. The numbers are those of RFC 9449 section 4.3; 1 is
/// the caller's, and 10, a nonce, is not asked for.
pub(crate) fn verify(proof: &str, method: &str, url: &str, token: &str, now: i64) -> Result<Proof, &'static str> {
    // 2. "a single and well-formed JWT", 4. "The typ JOSE Header Parameter has the value dpop+jwt."
    let unverified = Unverified::parse(proof, Kind::DpopProof, LONGEST).map_err(|error| match error {
        JoseError::Typ => "the proof's typ is not dpop+jwt",
        JoseError::Member("jwk") => NO_KEY,
        JoseError::Claims(_) => NOT_RIGHT,
        _ => "the proof is no JWT",
    })?;
    // 5. "alg … indicates a registered asymmetric digital signature algorithm … and is acceptable per local policy".
    if !ALGS.iter().any(|(_, alg)| *alg == unverified.header().alg()) {
        return Err("the proof's alg is not one of those listed");
    }
    // 6. "The JWT signature verifies with the public key contained in the jwk JOSE Header Parameter.", 7. "The jwk JOSE Header
    //    Parameter does not contain a private key."
    let (claims, key) = unverified.verify_with_own_key().map_err(|error| match error {
        JoseError::Jwk(_) => NO_KEY,
        _ => NOT_RIGHT,
    })?;
    // 3. "All required claims per Section 4.2 are contained in the JWT."
    let claims = serde_json::from_value(Value::Object(claims.clone().into_members()));
    let Claims { jti, htm, htu, iat, ath, nbf, exp } = claims.map_err(|_| NOT_RIGHT)?;
    if jti.is_empty() || jti.len() > JTI_MAX {
        return Err("the proof's jti is empty or too long");
    }
    // 8. "The htm claim matches the HTTP method of the current request."
    if htm != method {
        return Err("the proof's htm is another method");
    }
    // 9. "The htu claim matches the HTTP URI value for the HTTP request in which the JWT was received, ignoring any query and
    //    fragment parts."
    let htu = normal(&htu).ok_or("the proof's htu is no absolute URL")?;
    if Some(&htu) != normal(url).as_ref() {
        return Err("the proof's htu is another URL");
    }
    // 11. "The creation time of the JWT … is within an acceptable window".
    let started = |at: i64| at <= now.saturating_add(AHEAD);
    let over = |at: i64| at.saturating_add(AHEAD) <= now;
    if !started(iat) || iat.saturating_add(AGE_MAX) < now || !nbf.is_none_or(started) || exp.is_some_and(over) {
        return Err("the proof is too old or too new: is the clock right?");
    }
    // 12. "ensure that the value of the ath claim equals the hash of that access token".
    if ath != Some(BASE64_URL_SAFE_NO_PAD.encode(sha256::<32>(token.as_bytes()))) {
        return Err("the proof's ath is missing or of another token");
    }
    let jkt = key.jkt().to_owned();
    let id = sha256(format!("{jkt}\n{htu}\n{jti}").as_bytes());
    Ok(Proof { jkt, id })
}

/// RFC 9449 section 4.3: "servers SHOULD employ syntax-based normalization (Section 6.2.2 of \[RFC3986\]) and scheme-based
/// normalization (Section 6.2.3 of \[RFC3986\]) before comparing the htu claim."
fn normal(url: &str) -> Option<String> {
    let url = Uri::parse(url).ok()?.normalize();
    let path = Some(url.path().as_str()).filter(|path| !path.is_empty()).unwrap_or("/");
    Some(format!("{}://{}{path}", url.scheme(), url.authority()?.as_str()))
}

const NO_KEY: &str = "the proof's jwk is missing or not accepted here";
const NOT_RIGHT: &str = "the proof's signature or claims are not right";

/// The accepted algorithms, as the challenge lists them.
pub(crate) const ALGS: [(&str, SignatureAlg); 3] =
    [("ES256", SignatureAlg::Es256), ("EdDSA", SignatureAlg::EdDsa), ("PS256", SignatureAlg::Ps256)];

/// Greatest age of a proof in seconds, for a slow network and a slow clock.
const AGE_MAX: i64 = 60;
/// Seconds that the client's clock may be ahead.
const AHEAD: i64 = 10;
/// Seconds after which a proof is too old, however new it was.
pub(crate) const REMEMBERED: i64 = AGE_MAX + AHEAD + 1;
const LONGEST: usize = 8192;
const JTI_MAX: usize = 256;
