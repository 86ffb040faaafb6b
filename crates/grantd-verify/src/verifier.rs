//! One request (RFC 9068 section 4, RFC 6750 section 2, RFC 9449 section 7, RFC 8705 section 3).

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jose::jwk_set::JwkSet;
use jose::jwt::{JoseError, Kind, Unverified};
use jose::sha256;

use crate::access_token::{Claims, NOT_RIGHT};
use crate::key_cache::KeyCache;
use crate::replays::Replays;
use crate::{AccessToken, Fetching, Get, Refusal, Scheme, dpop};

/// A request to the API, as far as it concerns authorization.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, as it was sent.
    pub method: &'a str,
    /// The URL that the client called, with its query: made of your configuration and the path. `Host` and
    /// `X-Forwarded-Host` hold what the sender likes, so leave them out.
    pub url: &'a str,
    /// Every `Authorization` field.
    pub authorization: &'a [&'a str],
    /// Every `DPoP` field.
    pub dpop: &'a [&'a str],
    /// The certificate (DER) whose key the TLS handshake has proved, on this connection or on that of a trusted proxy.
    pub certificate: Option<&'a [u8]>,
}

/// Verifies the access tokens that one issuer gives out for one API. Make one when the program starts, and share it: it holds
/// the JWK Set and the DPoP proofs that were used.
///
/// Each process remembers proofs for itself, so with several replicas a stolen proof can be used once at each, within a minute.
pub struct Verifier {
    issuer: String,
    audience: String,
    public_url: String,
    metadata_url: Option<Arc<str>>,
    keys: Arc<KeyCache>,
    replays: Replays,
    clock: fn() -> i64,
}

impl Verifier {
    /// A verifier of tokens whose `iss` is `issuer` and whose `aud` is `audience`; both are compared character by character.
    ///
    /// `fetch` gets the issuer's metadata and JWK Set: [`https`](crate::https), or a function of your own.
    ///
    /// ```
    /// use grantd_verify::{Fetched, Verifier};
    ///
    /// let verifier = Verifier::new("https://as.example.com", "https://api.example.com", |get| {
    ///     Box::pin(async move { Err::<Fetched, _>(format!("{}: no network here", get.url)) })
    /// });
    /// # drop(verifier);
    /// ```
    pub fn new<F>(issuer: &str, audience: &str, fetch: F) -> Self
    where
        F: Fn(Get) -> Fetching + Send + Sync + 'static,
    {
        Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            public_url: audience.trim_end_matches('/').to_owned(),
            metadata_url: None,
            keys: Arc::new(KeyCache::new(issuer, Box::new(fetch))),
            replays: Replays::new(REPLAYS_MAX),
            clock: system_clock,
        }
    }

    /// Sets what clients call, up to the path: the extractor for axum compares DPoP proofs with it. The default is the audience.
    #[must_use]
    pub fn with_public_url(self, public_url: &str) -> Self {
        Self { public_url: public_url.trim_end_matches('/').to_owned(), ..self }
    }

    /// Sets the URL of this API's metadata (RFC 9728), which challenges then name as `resource_metadata`.
    #[must_use]
    pub fn with_metadata_url(self, metadata_url: &str) -> Self {
        Self { metadata_url: Some(metadata_url.into()), ..self }
    }

    /// Sets the clock, in seconds since 1970. The default is the system's.
    #[must_use]
    pub fn with_clock(self, clock: fn() -> i64) -> Self {
        Self { clock, ..self }
    }

    /// The URL of the API as its clients call it, up to the path.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Verifies the access token of a request, with the DPoP proof or the certificate that it is bound to. Fetches the JWK Set
    /// when there is none, when it is old, and when the token's `kid` is not in it.
    ///
    /// # Errors
    /// [`Refusal`]: the answer to send.
    pub async fn verify(&self, request: &Request<'_>) -> Result<AccessToken, Refusal> {
        self.verify_request(request).await.map_err(|refusal| refusal.with_metadata_url(self.metadata_url.clone()))
    }

    async fn verify_request(&self, request: &Request<'_>) -> Result<AccessToken, Refusal> {
        let (scheme, token) = credentials(request.authorization)?;
        // RFC 6750 section 2: "Clients MUST NOT use more than one method to transmit the token in each request." The other
        // methods are not accepted at all (RFC 9700 section 4.3.2).
        let query = request.url.split_once('?').map_or("", |(_, query)| query);
        if query.split('&').any(|pair| pair.starts_with("access_token=")) {
            return Err(Refusal::request("the token is sent twice"));
        }
        // RFC 9068 section 4: "The resource server MUST verify that the "typ" header value is "at+jwt" or "application/at+jwt"
        // and reject tokens carrying any other value."
        let jwt = Unverified::parse(token, Kind::AccessToken, LONGEST).map_err(|error| match error {
            JoseError::Typ => Refusal::token(scheme, "the token is no access token"),
            JoseError::Claims(_) => Refusal::token(scheme, NOT_RIGHT),
            _ => Refusal::token(scheme, "the token is no JWT of ours"),
        })?;
        let keys = self.keys.with(jwt.header().kid()).await.ok_or_else(Refusal::unavailable)?;
        self.decide(request, scheme, token, &jwt, &keys)
    }

    fn decide(
        &self,
        request: &Request<'_>,
        scheme: Scheme,
        token: &str,
        jwt: &Unverified<'_>,
        keys: &JwkSet,
    ) -> Result<AccessToken, Refusal> {
        let (now, refused) = ((self.clock)(), |why| Refusal::token(scheme, why));
        let (claims, members) = Claims::verified(jwt, keys).map_err(refused)?;
        claims.are_for(&self.issuer, &self.audience, now).map_err(refused)?;
        let (jkt, x5t) = claims.binding().map_err(refused)?;
        // RFC 8705 section 3: "If the presented certificate … doesn't match … or no certificate … the resource server MUST
        // reject the request with the error invalid_token".
        if x5t.is_some_and(|x5t| request.certificate.map(x5t_s256).as_deref() != Some(x5t)) {
            return Err(refused("the token is bound to another certificate"));
        }
        match (scheme, jkt) {
            (Scheme::Bearer, None) => {}
            // RFC 9449 section 7.2: such a token "MUST be rejected" when it comes as a bearer token.
            (Scheme::Bearer, Some(_)) => return Err(refused("the token is bound to a key: use the DPoP scheme")),
            (Scheme::Dpop, None) => return Err(refused("the token is not bound to a key: use the Bearer scheme")),
            (Scheme::Dpop, Some(jkt)) => {
                let [proof] = request.dpop else { return Err(Refusal::proof("exactly one DPoP proof is needed")) };
                let proof = dpop::verify(proof, request.method, request.url, token, now).map_err(Refusal::proof)?;
                if proof.jkt != jkt {
                    return Err(refused("the token is bound to another key"));
                }
                let new = self.replays.first_time(proof.id, now, now.saturating_add(dpop::REMEMBERED));
                if !new.ok_or_else(Refusal::unavailable)? {
                    return Err(Refusal::proof("the proof was used before"));
                }
            }
        }
        Ok(AccessToken::new(claims, members, scheme, self.metadata_url.clone()))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} for {})", self.issuer, self.audience)
    }
}

/// The scheme and the token of the one `Authorization` field.
fn credentials<'a>(authorization: &[&'a str]) -> Result<(Scheme, &'a str), Refusal> {
    let field = match authorization {
        [] => return Err(Refusal::unauthenticated()),
        [field] => field.trim_matches(' '),
        _ => return Err(Refusal::request("more than one Authorization field")),
    };
    let (scheme, token) = field.split_once(' ').unwrap_or((field, ""));
    // RFC 9110 section 11.1: the scheme is a "case-insensitive token".
    let scheme = match scheme {
        name if name.eq_ignore_ascii_case("Bearer") => Scheme::Bearer,
        name if name.eq_ignore_ascii_case("DPoP") => Scheme::Dpop,
        _ => return Err(Refusal::unauthenticated()),
    };
    let token = token.trim_start_matches(' ');
    // RFC 6750 section 2.1, b64token.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if token.is_empty() || !token.bytes().all(is_token) {
        return Err(Refusal::request("the Authorization field is malformed"));
    }
    Ok((scheme, token))
}

/// RFC 8705 section 3.1: "the base64url-encoded SHA-256 hash of the DER encoding of the X.509 certificate".
fn x5t_s256(certificate: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(sha256::<32>(certificate))
}

#[expect(clippy::disallowed_methods, reason = "this is the clock that is handed in by default")]
fn system_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

/// DPoP proofs that are remembered at most; beyond that, requests with a proof get 503.
const REPLAYS_MAX: usize = 100_000;

/// Tokens of grantd are shorter than 2 KiB, unless many claims are registered for a client.
const LONGEST: usize = 8192;

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use jose::jwk::Alg;
    use jose::jws::SigningKey;
    use serde_json::{Value, json};

    use super::*;
    use crate::Fetched;

    const ISSUER: &str = "https://as.test";
    const API: &str = "https://api.test";
    const NOW: i64 = 1_800_000_000;

    fn verifier(key: &SigningKey) -> Verifier {
        let jwks = json!({"keys": [key.published()]});
        let fetch = move |get: Get| {
            let metadata = json!({"issuer": ISSUER, "jwks_uri": "https://as.test/jwks"});
            let body = if get.url.ends_with("/jwks") { &jwks } else { &metadata };
            let answer = Fetched { status: 200, body: body.to_string().into_bytes(), ..Fetched::default() };
            Box::pin(async move { Ok(answer) }) as Fetching
        };
        Verifier::new(ISSUER, API, fetch).with_metadata_url("https://api.test/m").with_clock(|| NOW)
    }

    fn token(key: &SigningKey, member: &str, value: Value) -> String {
        let mut claims = json!({"iss": ISSUER, "sub": "billing", "client_id": "billing", "aud": API, "jti": "t1",
            "scope": "read:data list:data", "iat": NOW - 60, "exp": NOW + 540});
        claims[member] = value;
        key.sign(claims.to_string().as_bytes()).unwrap()
    }

    fn get<'a>(authorization: &'a [&'a str], dpop: &'a [&'a str]) -> Request<'a> {
        Request { method: "GET", url: "https://api.test/data?x=y", authorization, dpop, certificate: None }
    }

    async fn bearer(verifier: &Verifier, token: &str) -> Result<AccessToken, Refusal> {
        verifier.verify(&get(&[&format!("Bearer {token}")], &[])).await
    }

    /// A DPoP key, and its proofs.
    struct Prover(EcdsaKeyPair);

    impl Prover {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        fn jwk(&self) -> Value {
            let point = self.0.public_key().as_ref();
            let coordinate = |at| BASE64_URL_SAFE_NO_PAD.encode(&point[at..at + 32]);
            json!({"kty": "EC", "crv": "P-256", "x": coordinate(1), "y": coordinate(33)})
        }

        /// RFC 7638: members sorted by name, which is how `Value` writes them.
        fn jkt(&self) -> String {
            x5t_s256(self.jwk().to_string().as_bytes())
        }

        fn proof(&self, jti: &str, token: &str, further: &Value) -> String {
            let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()});
            let mut claims = json!({"jti": jti, "htm": "GET", "htu": "https://api.test/data", "iat": NOW,
                "ath": x5t_s256(token.as_bytes())});
            claims.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
            let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
        }
    }

    #[tokio::test]
    async fn a_bearer_token_of_every_algorithm_names_its_client_and_scope() {
        for alg in Alg::ALL {
            let (key, _) = SigningKey::generate(alg).unwrap();
            let verifier = verifier(&key);
            let read = bearer(&verifier, &token(&key, "tenant", json!("t1"))).await.unwrap();
            assert_eq!((read.client_id.as_str(), read.sub.as_str(), read.jti.as_str()), ("billing", "billing", "t1"));
            assert_eq!((read.expires_at, read.claim("tenant")), (NOW + 540, Some(&json!("t1"))));
            assert!(read.has_scope("read:data") && read.require_scope("list:data").is_ok());
            let refused = read.require_scope("write:data").unwrap_err();
            assert_eq!((refused.status(), refused.error()), (403, Some("insufficient_scope")));
            let [challenge] = &refused.www_authenticate()[..] else { panic!("{refused:?}") };
            assert!(challenge.starts_with("Bearer resource_metadata=\"https://api.test/m\", error="), "{challenge}");
            assert!(challenge.ends_with(", scope=\"write:data\""), "{challenge}");
        }
    }

    #[tokio::test]
    async fn tokens_of_others_for_others_or_for_another_time_are_refused() {
        let (key, _) = SigningKey::generate(Alg::Es256).unwrap();
        let (other, _) = SigningKey::generate(Alg::Es256).unwrap();
        let verifier = verifier(&key);
        let claims = br#"{"iss":"https://as.test"}"#;
        let mut bad = vec![
            token(&other, "x", json!(1)),
            key.sign_as("JWT", claims).unwrap(),
            key.sign(claims).unwrap(),
            "a.b.c".to_owned(),
        ];
        for (member, value) in [
            ("iss", json!("https://as.test/")),
            ("aud", json!("https://other.test")),
            ("aud", json!([API, "https://other.test"])),
            ("exp", json!(NOW - 30)),
            ("nbf", json!(NOW + 31)),
            ("iat", json!(NOW + 31)),
            ("sub", json!("")),
            ("cnf", json!({})),
            ("cnf", json!({"kid": "x"})),
        ] {
            bad.push(token(&key, member, value));
        }
        for token in bad {
            let refused = bearer(&verifier, &token).await.unwrap_err();
            assert_eq!((refused.status(), refused.error()), (401, Some("invalid_token")), "{token}");
        }
        let good = token(&key, "x", json!(1));
        assert!(bearer(&verifier, &good).await.is_ok());
        let authorization = [&*format!("Bearer {good}")];
        let twice = Request { url: "https://api.test/data?a=b&access_token=x", ..get(&authorization, &[]) };
        assert_eq!(verifier.verify(&twice).await.unwrap_err().status(), 400);
        let none = verifier.verify(&get(&[], &[])).await.unwrap_err();
        assert_eq!((none.status(), none.error(), none.www_authenticate().len()), (401, None, 2));
    }

    #[tokio::test]
    async fn a_token_bound_to_a_key_needs_a_new_proof_by_that_key_for_this_request() {
        let ((key, _), prover) = (SigningKey::generate(Alg::EdDsa).unwrap(), Prover::new());
        let verifier = verifier(&key);
        let bound = token(&key, "cnf", json!({"jkt": prover.jkt()}));
        let authorization = format!("DPoP {bound}");
        let ask = async |proofs: &[&str]| verifier.verify(&get(&[&authorization], proofs)).await.map_err(|e| e.error());
        let good = prover.proof("p1", &bound, &json!({}));
        assert!(ask(&[&good]).await.is_ok());
        assert_eq!(ask(&[&good]).await, Err(Some("invalid_dpop_proof")), "used before");
        assert_eq!(ask(&[&Prover::new().proof("p2", &bound, &json!({}))]).await, Err(Some("invalid_token")));
        for (n, wrong) in [
            json!({"htm": "POST"}),
            json!({"htu": "https://api.test/other"}),
            json!({"ath": "x"}),
            json!({"iat": NOW - 61}),
            json!({"iat": NOW + 11}),
            json!({"jti": ""}),
        ]
        .into_iter()
        .enumerate()
        {
            let proof = prover.proof(&format!("w{n}"), &bound, &wrong);
            assert_eq!(ask(&[&proof]).await, Err(Some("invalid_dpop_proof")), "{wrong}");
        }
        assert_eq!(ask(&[]).await, Err(Some("invalid_dpop_proof")));
        assert!(ask(&[&prover.proof("p3", &bound, &json!({"htu": "HTTPS://API.test:443/data?q"}))]).await.is_ok());
        assert_eq!(bearer(&verifier, &bound).await.unwrap_err().error(), Some("invalid_token"), "a downgrade");
    }

    #[tokio::test]
    async fn a_token_bound_to_a_certificate_needs_that_certificate() {
        let (key, _) = SigningKey::generate(Alg::Ps256).unwrap();
        let verifier = verifier(&key);
        let bound = token(&key, "cnf", json!({"x5t#S256": x5t_s256(b"certificate")}));
        let authorization = [&*format!("Bearer {bound}")];
        for (shown, accepted) in [(Some(&b"certificate"[..]), true), (Some(b"another"), false), (None, false)] {
            let request = Request { certificate: shown, ..get(&authorization, &[]) };
            assert_eq!(verifier.verify(&request).await.is_ok(), accepted, "{shown:?}");
        }
    }
}
