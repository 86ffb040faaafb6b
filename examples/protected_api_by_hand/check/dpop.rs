//! The DPoP proof (RFC 9449 section 4.3): the caller holds a private key, and made this for this very request.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fluent_uri::Uri;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::jws::{Jws, sha256_text};

/// The request that the proof must be for.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) token: &'a str,
}

/// A proof that is right, unless it was used before.
#[derive(Debug)]
pub(super) struct Proof {
    /// The RFC 7638 thumbprint of the key that made it.
    pub(super) jkt: String,
    /// The same for proofs that are the same.
    pub(super) id: [u8; 32],
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

pub(super) fn verified(proof: &str, asked: &Asked<'_>, now: i64) -> Result<Proof, &'static str> {
    let jws = Jws::parse(proof).ok_or("the proof is no JWT")?;
    if !jws.is_a("dpop+jwt") {
        return Err("the proof's typ is not dpop+jwt");
    }
    let (key, alg, jkt) = jws.jwk.as_ref().and_then(own_key).ok_or("the proof's jwk is missing or not taken here")?;
    let claims: Claims = jws.claims(&key, alg).ok_or("the proof's signature or claims are not right")?;
    let Claims { jti, htm, htu, iat, ath, nbf, exp } = claims;
    if htm != asked.method {
        return Err("the proof's htm is another method");
    }
    let htu = normal(&htu).ok_or("the proof's htu is no absolute URL")?;
    if Some(&htu) != normal(asked.url).as_ref() {
        return Err("the proof's htu is another URL");
    }
    let started = |at: i64| at <= now.saturating_add(AHEAD);
    let over = |at: i64| at.saturating_add(AHEAD) <= now;
    if !started(iat) || iat.saturating_add(AGE_MAX) < now || !nbf.is_none_or(started) || exp.is_some_and(over) {
        return Err("the proof is too old or too new: is the clock right?");
    }
    // RFC 9449 section 4.3: "ensure that the value of the ath claim equals the hash of that access token".
    if ath.as_deref() != Some(sha256_text(asked.token.as_bytes()).as_str()) {
        return Err("the proof's ath is missing or of another token");
    }
    if jti.is_empty() || jti.len() > JTI_MAX {
        return Err("the proof's jti is empty or too long");
    }
    let mut id = [0; 32];
    id.copy_from_slice(digest::digest(&digest::SHA256, format!("{jkt}\n{htu}\n{jti}").as_bytes()).as_ref());
    Ok(Proof { jkt, id })
}

/// The key in a proof's header, its algorithm and its thumbprint.
fn own_key(jwk: &Value) -> Option<(DecodingKey, Algorithm, String)> {
    let jwk = jwk.as_object()?;
    // RFC 9449 section 4.3: "The jwk JOSE Header Parameter does not contain a private key." `k` is that of a shared secret.
    if ["d", "k", "p", "q"].iter().any(|name| jwk.contains_key(*name)) {
        return None;
    }
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let coordinate =
        |name| text(name).filter(|value| BASE64_URL_SAFE_NO_PAD.decode(value).is_ok_and(|v| v.len() == 32));
    // RFC 7638 section 3.2: the required members, in this order, and nothing else.
    match (text("kty")?, text("crv")) {
        ("RSA", None) => {
            // RFC 7518 section 3.5: "A key of size 2048 bits or larger MUST be used". Larger than 4096 costs too much.
            let size = |n: &&str| BASE64_URL_SAFE_NO_PAD.decode(n).is_ok_and(|n| (256..=512).contains(&n.len()));
            let (n, e) = (text("n").filter(size)?, text("e").filter(|e| *e == "AQAB")?);
            let canonical = format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#);
            let key = DecodingKey::from_rsa_components(n, e).ok()?;
            Some((key, Algorithm::PS256, sha256_text(canonical.as_bytes())))
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (coordinate("x")?, coordinate("y")?);
            let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
            let key = DecodingKey::from_ec_components(x, y).ok()?;
            Some((key, Algorithm::ES256, sha256_text(canonical.as_bytes())))
        }
        ("OKP", Some("Ed25519")) => {
            let x = coordinate("x")?;
            let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
            let key = DecodingKey::from_ed_components(x).ok()?;
            Some((key, Algorithm::EdDSA, sha256_text(canonical.as_bytes())))
        }
        _ => None,
    }
}

/// Without query and fragment, and in the normal form of RFC 3986 sections 6.2.2 and 6.2.3.
fn normal(url: &str) -> Option<String> {
    let url = Uri::parse(url).ok()?.normalize();
    let path = Some(url.path().as_str()).filter(|path| !path.is_empty()).unwrap_or("/");
    Some(format!("{}://{}{path}", url.scheme(), url.authority()?.as_str()))
}

/// The signing algorithms that the challenge lists.
pub(super) const ALGS: &str = "ES256 EdDSA PS256";

/// Seconds that a proof may be old, for a slow network and a slow clock.
const AGE_MAX: i64 = 60;

/// Seconds that the caller's clock may be ahead.
const AHEAD: i64 = 10;

/// Seconds until a proof is too old, however new it was.
pub(super) const REMEMBERED: i64 = AGE_MAX + AHEAD + 1;

const JTI_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_compared_in_their_normal_form() {
        let same = [
            "https://api.test/a/b?x=y#z",
            "HTTPS://API.Test:443/a/b",
            "https://api.test/a/./%62",
            "https://api.test/c/../a/b",
        ];
        for url in same {
            assert_eq!(normal(url).as_deref(), Some("https://api.test/a/b"), "{url}");
        }
        assert_eq!(normal("https://api.test").as_deref(), Some("https://api.test/"));
        for url in
            ["http://api.test/a/b", "https://api.test:444/a/b", "https://u@api.test/a/b", "https://api.test/a/b/"]
        {
            assert_ne!(normal(url).as_deref(), Some("https://api.test/a/b"), "{url}");
        }
        for url in ["", "/a/b", "api.test/a/b", "mailto:a@api.test", "https://api.test/ a"] {
            assert_eq!(normal(url), None, "{url}");
        }
    }

    #[test]
    fn thumbprints_match_rfc_7638_and_rfc_9449() {
        let ec = serde_json::json!({"kty": "EC", "crv": "P-256", "use": "sig",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"});
        assert_eq!(own_key(&ec).unwrap().2, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        let ed =
            serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(own_key(&ed).unwrap().2, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        for (name, value) in [("d", "AA"), ("k", "AA"), ("crv", "P-384"), ("kty", "oct"), ("x", "AA"), ("x", "")] {
            let mut bad = ec.clone();
            bad[name] = value.into();
            assert!(own_key(&bad).is_none(), "{name} {value}");
        }
    }

    /// The proof for a protected resource in RFC 9449 section 7.1.
    #[test]
    fn the_resource_proof_of_rfc_9449_verifies() {
        const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
        const URL: &str = "https://resource.example.org/protectedresource";
        let proof = include_str!("rfc9449_proof.txt").trim();
        let asked = Asked { method: "GET", url: URL, token: TOKEN };
        let done = verified(proof, &asked, 1_562_262_618).unwrap();
        assert_eq!(done.jkt, "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
        assert!(verified(proof, &asked, 1_562_262_618 + AGE_MAX).is_ok());
        for (method, url, token, now) in [
            ("get", URL, TOKEN, 0),
            ("POST", URL, TOKEN, 0),
            ("GET", "https://resource.example.org/", TOKEN, 0),
            ("GET", URL, "another", 0),
            ("GET", URL, TOKEN, AGE_MAX + 1),
            ("GET", URL, TOKEN, -AHEAD - 1),
        ] {
            let asked = Asked { method, url, token };
            assert!(verified(proof, &asked, 1_562_262_618 + now).is_err(), "{method} {url} {token} {now}");
        }
    }
}
