//! Hostile tokens and proofs at the API of the examples, and its answers.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use grantd_verify::{Fetched, Fetching, Get, Verifier};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::protected_api_by_hand::check::{Caller, Challenge, Checker, Credentials, KeySet, Request};
use crate::assertion::Signer as Foreign;

use super::signer::{Signer, base64url, sha256};

const ISSUER: &str = "https://as.test";
const API: &str = "https://api.test";
const URL: &str = "https://api.test/data";
const NOW: i64 = 1_800_000_000;

/// An API, its issuer's key, and the key of a client. The API decides by hand, and by the library to compare.
struct Setting {
    issuer: Signer,
    client: Signer,
    keys: KeySet,
    checker: Checker,
    verifier: Verifier,
    runtime: Runtime,
}

impl Setting {
    fn new() -> Self {
        let (issuer, client) = (Signer::generate(), Signer::generate());
        let jwks = json!({"keys": [issuer.published("k1")]}).to_string();
        let keys = KeySet::parse(jwks.as_bytes()).unwrap();
        let fetch = move |get: Get| {
            let metadata = json!({"issuer": ISSUER, "jwks_uri": "https://as.test/jwks"}).to_string();
            let body = if get.url.ends_with("/jwks") { jwks.clone() } else { metadata };
            Box::pin(async move { Ok(Fetched { status: 200, body: body.into(), ..Fetched::default() }) }) as Fetching
        };
        let verifier = Verifier::new(ISSUER, API, fetch).with_clock(|| NOW).with_metadata_url("https://api.test/m");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { issuer, client, keys, checker: Checker::new(ISSUER, API), verifier, runtime }
    }

    fn token_with(&self, member: &str, value: impl Into<Value>) -> String {
        let mut claims = claims();
        claims[member] = value.into();
        self.issuer.sign(&header(), &claims)
    }

    /// A token that is bound to the client's key.
    fn bound(&self) -> String {
        self.token_with("cnf", json!({"jkt": self.client.jkt()}))
    }

    fn ask(&self, authorization: &str, proofs: &[&str]) -> Result<Caller, Challenge> {
        self.ask_with(authorization, proofs, None)
    }

    fn ask_with(&self, authorization: &str, proofs: &[&str], certificate: Option<&[u8]>) -> Result<Caller, Challenge> {
        let request = Request { method: "GET", url: URL, proofs, certificate };
        let by_hand = Credentials::read(&[authorization])
            .and_then(|credentials| self.checker.verify(&credentials, &request, &self.keys, NOW));
        let (method, url, authorization) = ("GET", URL, &[authorization][..]);
        let request = grantd_verify::Request { method, url, authorization, dpop: proofs, certificate };
        let by_library = self.runtime.block_on(self.verifier.verify(&request));
        // Descriptions may differ; what a program reads may not.
        let codes = |challenges: Vec<String>| {
            challenges
                .iter()
                .map(|text| text.split(", error_description").next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            by_library
                .map(|token| token.client_id)
                .map_err(|refused| (refused.status(), codes(refused.www_authenticate()))),
            by_hand
                .clone()
                .map(|caller| caller.client_id)
                .map_err(|refused| { (refused.status, codes(refused.www_authenticate("https://api.test/m"))) }),
            "{authorization:?}"
        );
        by_hand
    }

    fn bearer(&self, token: &str) -> Result<Caller, Challenge> {
        self.ask(&format!("Bearer {token}"), &[])
    }

    fn dpop(&self, token: &str, proof: &str) -> Result<Caller, Challenge> {
        self.ask(&format!("DPoP {token}"), &[proof])
    }
}

fn header() -> Value {
    json!({"typ": "at+jwt", "alg": "ES256", "kid": "k1"})
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "billing", "client_id": "billing", "aud": API, "scope": "read:data list:data",
           "iat": NOW - 60, "exp": NOW + 540, "jti": "t1"})
}

fn proof_claims(token: &str, jti: &str) -> Value {
    json!({"jti": jti, "htm": "GET", "htu": URL, "iat": NOW, "ath": sha256(token)})
}

/// Status and challenges of a refusal.
fn face(refused: Result<Caller, Challenge>) -> String {
    let challenge = refused.unwrap_err();
    format!("{}\n{}", challenge.status, challenge.www_authenticate("https://api.test/m").join("\n"))
}

#[track_caller]
fn assert_refused(refused: Result<Caller, Challenge>, error: &str, why: &str) {
    let face = face(refused);
    let part = format!("error=\"{error}\", error_description=\"{why}\"");
    assert!(face.starts_with("401") && face.contains(&part), "{part} is not in {face}");
}

#[test]
fn a_good_token_names_its_caller() {
    let setting = Setting::new();
    let token = setting.issuer.sign(&header(), &claims());
    let caller = setting.bearer(&token).unwrap();
    assert_eq!((caller.client_id.as_str(), caller.sub.as_str(), caller.jti.as_str()), ("billing", "billing", "t1"));
    assert!(caller.needs("read:data").is_ok() && caller.needs("list:data").is_ok());
    for missing in ["write:data", "read", "READ:DATA", "read:data list:data", ""] {
        assert!(caller.needs(missing).is_err(), "{missing}");
    }
    for scheme in ["bearer", "BEARER", "Bearer "] {
        assert!(setting.ask(&format!("{scheme} {token}"), &[]).is_ok(), "{scheme}");
    }
    for typ in ["application/at+jwt", "AT+JWT"] {
        let token = setting.issuer.sign(&json!({"typ": typ, "alg": "ES256", "kid": "k1", "x": [1]}), &claims());
        assert!(setting.bearer(&token).is_ok(), "{typ}");
    }
    // A proof that nobody asked for is not looked at.
    assert!(setting.ask(&format!("Bearer {token}"), &["x"]).is_ok());
    let without_scope = setting.token_with("scope", "");
    assert!(setting.bearer(&without_scope).unwrap().needs("read:data").is_err());
}

#[test]
fn tokens_that_the_issuer_did_not_sign_are_refused() {
    let setting = Setting::new();
    let good = setting.issuer.sign(&header(), &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, payload) = signed.split_once('.').unwrap();
    let none = base64url(json!({"typ": "at+jwt", "alg": "none", "kid": "k1"}).to_string().as_bytes());
    let other = Signer::generate();
    let with_own_key =
        json!({"typ": "at+jwt", "alg": "ES256", "kid": "k1", "jwk": other.jwk(), "jku": "https://evil.test"});
    let admin = base64url(claims().to_string().replace("billing", "admin").as_bytes());
    let malformed = [
        format!("{none}.{payload}."),
        format!("{none}.{payload}"),
        format!("{none}.{payload}.{signature}"),
        format!("{signed}."),
        signed.to_owned(),
        format!("{good}.{signature}"),
        format!("{good}{}", "A".repeat(8192)),
        setting.issuer.sign(&json!({"typ": "at+jwt", "alg": "ES256", "kid": "k1", "crit": ["x"], "x": 1}), &claims()),
        setting.issuer.sign(&json!({"typ": "at+jwt", "alg": "ES256", "kid": "k1", "crit": null}), &claims()),
        setting.issuer.sign(&json!({"typ": "at+jwt", "alg": "es256", "kid": "k1"}), &claims()),
        setting.issuer.sign_text(r#"{"typ":"at+jwt","alg":"ES256","alg":"ES256","kid":"k1"}"#, &claims().to_string()),
        "x.y.z".to_owned(),
    ];
    for token in malformed {
        assert_refused(setting.bearer(&token), "invalid_token", "the token is no JWT of ours");
    }
    // A public key, in whatever form, is not the secret of a MAC.
    let published = setting.issuer.published("k1").to_string();
    let secrets = [published, setting.issuer.jwk().to_string(), setting.issuer.jwk()["x"].as_str().unwrap().to_owned()];
    for (secret, name) in secrets.iter().flat_map(|secret| ["HS256", "HS512"].map(|name| (secret, name))) {
        let head = base64url(json!({"typ": "at+jwt", "alg": name, "kid": "k1"}).to_string().as_bytes());
        let mac =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), format!("{head}.{payload}").as_bytes());
        let token = format!("{head}.{payload}.{}", base64url(mac.as_ref()));
        assert_refused(setting.bearer(&token), "invalid_token", "the token is no JWT of ours");
    }
    let forged = [
        other.sign(&header(), &claims()),
        other.sign(&with_own_key, &claims()),
        format!("{head}.{admin}.{signature}"),
        format!("{head}.{payload}.{}", base64url(&[0; 64])),
        setting.issuer.sign(&json!({"typ": "at+jwt", "alg": "EdDSA", "kid": "k1"}), &claims()),
        setting.issuer.sign(&json!({"typ": "at+jwt", "alg": "RS256", "kid": "k1"}), &claims()),
        setting
            .issuer
            .sign_text(&header().to_string(), &claims().to_string().replacen('{', r#"{"aud":"https://x.test","#, 1)),
    ];
    for token in forged {
        assert_refused(setting.bearer(&token), "invalid_token", "the token's signature or claims are not right");
    }
    for kid in [json!("k2"), json!("K1"), json!(null), json!("../../dev/null")] {
        let token = setting.issuer.sign(&json!({"typ": "at+jwt", "alg": "ES256", "kid": kid}), &claims());
        assert_refused(setting.bearer(&token), "invalid_token", "the token's key is not known");
    }
}

#[test]
fn other_jwts_of_the_issuer_are_refused_as_access_tokens() {
    let setting = Setting::new();
    for typ in [json!(null), json!("JWT"), json!("dpop+jwt"), json!("client-authentication+jwt"), json!("text/at+jwt")]
    {
        let token = setting.issuer.sign(&json!({"typ": typ, "alg": "ES256", "kid": "k1"}), &claims());
        assert_refused(setting.bearer(&token), "invalid_token", "the token is no access token");
    }
}

#[test]
fn tokens_for_others_or_for_another_time_are_refused() {
    let setting = Setting::new();
    let malformed = "the token's signature or claims are not right";
    let (audience, issuer) = ("the token is for another audience", "the token is of another issuer");
    let (early, nobody) = ("the token is not valid yet", "the token names nobody");
    for (member, value, why) in [
        ("aud", json!("https://other.test"), audience),
        ("aud", json!("https://api.test/"), audience),
        ("aud", json!("billing"), audience),
        ("aud", json!([API, "https://other.test"]), malformed),
        ("aud", json!([API]), malformed),
        ("aud", json!(null), malformed),
        ("iss", json!("https://as.test/"), issuer),
        ("iss", json!("https://evil.test"), issuer),
        ("exp", json!(NOW - 30), "the token has expired"),
        ("exp", json!(0), "the token has expired"),
        ("exp", json!("1900000000"), malformed),
        ("exp", json!(1e20), malformed),
        ("exp", json!(null), malformed),
        ("iat", json!(NOW + 31), early),
        ("iat", json!(NOW + 540), early),
        ("nbf", json!(NOW + 31), early),
        ("nbf", json!("0"), malformed),
        ("sub", json!(null), malformed),
        ("client_id", json!(""), nobody),
        ("jti", json!(""), nobody),
        ("scope", json!(["read:data"]), malformed),
        ("cnf", json!({}), "the token is bound to nothing"),
        ("cnf", json!({"kid": "x"}), malformed),
        ("cnf", json!({"jkt": 1}), malformed),
    ] {
        assert_refused(setting.bearer(&setting.token_with(member, value)), "invalid_token", why);
    }
    for (member, value) in [("exp", NOW - 29), ("iat", NOW + 30), ("nbf", NOW + 30)] {
        assert!(setting.bearer(&setting.token_with(member, value)).is_ok(), "half a minute is for clocks: {member}");
    }
}

#[test]
fn challenges_say_what_to_do() {
    let setting = Setting::new();
    let token = setting.issuer.sign(&header(), &claims());
    let none = "401\nBearer resource_metadata=\"https://api.test/m\"\nDPoP algs=\"ES256 EdDSA PS256\", resource_metadata=\"https://api.test/m\"";
    assert_eq!(face(Credentials::read(&[]).map(|_| unreachable!())), none, "no error code");
    assert_eq!(face(setting.ask("Basic YTpi", &[])), none);
    // RFC 6750 section 3.1: 401, 403 and 400; and a DPoP token without a proof.
    insta::assert_snapshot!(face(setting.bearer("a.b.c")), @r#"
    401
    Bearer resource_metadata="https://api.test/m", error="invalid_token", error_description="the token is no JWT of ours"
    DPoP algs="ES256 EdDSA PS256", resource_metadata="https://api.test/m"
    "#);
    insta::assert_snapshot!(face(setting.bearer(&token).unwrap().needs("write:data").map(|()| unreachable!())), @r#"
    403
    Bearer resource_metadata="https://api.test/m", error="insufficient_scope", error_description="the token's scope is not enough", scope="write:data"
    "#);
    insta::assert_snapshot!(face(setting.ask(&format!("DPoP {}", setting.bound()), &[])), @r#"
    401
    Bearer resource_metadata="https://api.test/m"
    DPoP algs="ES256 EdDSA PS256", resource_metadata="https://api.test/m", error="invalid_dpop_proof", error_description="exactly one DPoP proof is needed"
    "#);
    let twice = format!("Bearer {token}");
    let twice = Credentials::read(&[&twice, &twice]).map(|_| unreachable!());
    insta::assert_snapshot!(face(twice), @r#"
    400
    Bearer resource_metadata="https://api.test/m", error="invalid_request", error_description="more than one Authorization field"
    "#);
    for malformed in ["Bearer", "Bearer ", "bearer a b", "Bearer a,b", "DPoP \u{1}", "Bearer \"a\""] {
        assert!(face(setting.ask(malformed, &[])).contains("error=\"invalid_request\""), "{malformed}");
    }
    assert_eq!(face(Err(Challenge::busy())), "503\n");
}

/// RFC 6750 section 3: which characters, and "MUST NOT be present more than once".
#[test]
fn a_challenge_has_each_attribute_once_and_in_allowed_characters() {
    let setting = Setting::new();
    let token = setting.issuer.sign(&header(), &claims());
    let expired = setting.token_with("exp", 0);
    for refused in [
        Credentials::read(&[]).map(|_| unreachable!()),
        setting.ask("Bearer", &[]),
        setting.bearer("a.b.c\"x"),
        setting.bearer(&expired),
        setting.ask(&format!("DPoP {token}"), &[]),
        setting.ask(&format!("DPoP {}", setting.bound()), &[]),
        setting.bearer(&token).unwrap().needs("write:data").map(|()| unreachable!()),
    ] {
        for field in refused.unwrap_err().www_authenticate("https://api.test/m") {
            let (scheme, attributes) = field.split_once(' ').unwrap();
            assert!(["Bearer", "DPoP"].contains(&scheme), "{field}");
            let mut names = Vec::new();
            for attribute in attributes.split(", ") {
                let (name, value) = attribute.split_once('=').unwrap();
                let value = value.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
                // %x20-21 / %x23-5B / %x5D-7E
                assert!(value.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && !b"\"\\".contains(&byte)), "{field}");
                assert!(!names.contains(&name), "{name} twice: {field}");
                names.push(name);
            }
        }
    }
}

#[test]
fn a_bound_token_needs_a_proof_by_its_key_for_this_request() {
    let setting = Setting::new();
    let token = setting.bound();
    let proof = setting.client.proof(&proof_claims(&token, "p1"));
    assert_eq!(setting.dpop(&token, &proof).unwrap().client_id, "billing");
    assert_refused(setting.dpop(&token, &proof), "invalid_dpop_proof", "the proof was used before");
    for scheme in ["dpop", "DPOP"] {
        let proof = setting.client.proof(&proof_claims(&token, scheme));
        assert!(setting.ask(&format!("{scheme} {token}"), &[&proof]).is_ok());
    }
    // Unknown members, and the window of `iat`.
    for (member, value) in [("nbf", NOW), ("exp", NOW + 300), ("x", 1), ("iat", NOW - 60), ("iat", NOW + 10)] {
        let mut claims = proof_claims(&token, &format!("{member}{value}"));
        claims[member] = value.into();
        assert!(setting.dpop(&token, &setting.client.proof(&claims)).is_ok(), "{member} {value}");
    }
    // A bound token is refused as a bearer token, and an unbound one as a DPoP token.
    let downgraded = setting.ask(&format!("Bearer {token}"), &[&setting.client.proof(&proof_claims(&token, "p2"))]);
    assert_refused(downgraded, "invalid_token", "the token is bound to a key: use the DPoP scheme");
    let free = setting.issuer.sign(&header(), &claims());
    let proof = setting.client.proof(&proof_claims(&free, "p3"));
    assert_refused(
        setting.dpop(&free, &proof),
        "invalid_token",
        "the token is not bound to a key: use the Bearer scheme",
    );
    let proof = Signer::generate().proof(&proof_claims(&token, "p4"));
    assert_refused(setting.dpop(&token, &proof), "invalid_token", "the token is bound to another key");
    let (one, two) = (proof_claims(&token, "p5"), proof_claims(&token, "p6"));
    let two = setting.ask(&format!("DPoP {token}"), &[&setting.client.proof(&one), &setting.client.proof(&two)]);
    assert_refused(two, "invalid_dpop_proof", "exactly one DPoP proof is needed");
}

#[test]
fn proofs_by_every_algorithm_that_the_challenge_lists_are_taken() {
    let setting = Setting::new();
    for signer in [Foreign::es256(), Foreign::ed25519(), Foreign::rsa("PS256"), Foreign::rsa("RS256"), Foreign::es384()]
    {
        let (mut claims, mut jwk) = (claims(), signer.jwk());
        let jkt = grantd::crypto::verifying_key::VerifyingKey::from_text(jwk.to_string().as_bytes(), None).unwrap();
        claims["cnf"] = json!({"jkt": jkt.jkt()});
        jwk.as_object_mut().unwrap().remove("alg");
        let token = setting.issuer.sign(&header(), &claims);
        let header = json!({"typ": "dpop+jwt", "alg": signer.alg(), "jwk": jwk}).to_string();
        let proof = signer.sign(&header, &proof_claims(&token, signer.alg()).to_string());
        let listed = ["ES256", "EdDSA", "PS256"].contains(&signer.alg());
        assert_eq!(setting.dpop(&token, &proof).is_ok(), listed, "{}", signer.alg());
    }
}

#[test]
fn malformed_and_mismatched_proofs_are_refused() {
    let setting = Setting::new();
    let token = setting.bound();
    let malformed = "the proof's signature or claims are not right";
    let (method, url) = ("the proof's htm is another method", "the proof's htu is another URL");
    let (ath, time) =
        ("the proof's ath is missing or of another token", "the proof is too old or too new: is the clock right?");
    for (member, value, why) in [
        ("ath", json!(null), ath),
        ("ath", json!(""), ath),
        ("ath", json!(sha256("another token")), ath),
        ("ath", json!([sha256(&token)]), malformed),
        ("htm", json!("POST"), method),
        ("htm", json!("get"), method),
        ("htm", json!(null), malformed),
        ("htu", json!("https://evil.test/data"), url),
        ("htu", json!("https://api.test/other"), url),
        ("htu", json!("http://api.test/data"), url),
        ("htu", json!("/data"), "the proof's htu is no absolute URL"),
        ("htu", json!(1), malformed),
        ("iat", json!(NOW - 61), time),
        ("iat", json!(NOW + 11), time),
        ("iat", json!(NOW - 3600), time),
        ("iat", json!(NOW + 3600), time),
        ("iat", json!(null), malformed),
        ("nbf", json!(NOW + 11), time),
        ("exp", json!(NOW - 10), time),
        ("jti", json!(""), "the proof's jti is empty or too long"),
        ("jti", json!("x".repeat(257)), "the proof's jti is empty or too long"),
        ("jti", json!(null), malformed),
        ("jti", json!("x".repeat(65_536)), "the proof is no JWT"),
    ] {
        let mut claims = proof_claims(&token, "p");
        claims[member] = value;
        assert_refused(setting.dpop(&token, &setting.client.proof(&claims)), "invalid_dpop_proof", why);
    }
    let (jwk, claims) = (setting.client.jwk(), proof_claims(&token, "p"));
    let (mut private, typ) = (jwk.clone(), "the proof's typ is not dpop+jwt");
    private["d"] = "AA".into();
    let (other, none) = (Signer::generate().jwk(), "the proof's jwk is missing or not taken here");
    for (header, why) in [
        (json!({"typ": "JWT", "alg": "ES256", "jwk": jwk}), typ),
        (json!({"alg": "ES256", "jwk": jwk}), typ),
        (json!({"typ": "dpop+jwt+wrong", "alg": "ES256", "jwk": jwk}), typ),
        (json!({"typ": "dpop+jwt", "alg": "none", "jwk": jwk}), "the proof is no JWT"),
        (json!({"typ": "dpop+jwt", "alg": "HS256", "jwk": jwk}), "the proof is no JWT"),
        (json!({"typ": "dpop+jwt", "jwk": jwk}), "the proof is no JWT"),
        (json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk}), malformed),
        (json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": other}), malformed),
        (json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": private}), none),
        (json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": {"kty": "oct", "k": "AA"}}), none),
        (json!({"typ": "dpop+jwt", "alg": "ES256", "kid": "k1"}), none),
    ] {
        assert_refused(setting.dpop(&token, &setting.client.sign(&header, &claims)), "invalid_dpop_proof", why);
    }
    let good = setting.client.proof(&claims);
    for proof in ["", "x", "x.y", &format!("{good},{good}"), &token] {
        let face = face(setting.dpop(&token, proof));
        assert!(face.contains("error=\"invalid_dpop_proof\""), "{proof}: {face}");
    }
    // None of them has used up the identifier of the good one.
    assert!(setting.dpop(&token, &good).is_ok());
}

/// RFC 8705 appendix A.
const CERTIFICATE: &str = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=";

#[test]
fn a_certificate_bound_token_needs_that_certificate() {
    let setting = Setting::new();
    let certificate = BASE64_STANDARD.decode(CERTIFICATE).unwrap();
    let x5t = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";
    let token = setting.token_with("cnf", json!({"x5t#S256": x5t}));
    let bearer = format!("Bearer {token}");
    assert!(setting.ask_with(&bearer, &[], Some(&certificate)).is_ok());
    let other = certificate.get(1..).unwrap();
    for shown in [None, Some(other), Some(&[][..]), Some(x5t.as_bytes())] {
        let why = "the token is bound to another certificate";
        assert_refused(setting.ask_with(&bearer, &[], shown), "invalid_token", why);
    }
    // Both bindings are checked.
    let both = setting.token_with("cnf", json!({"x5t#S256": x5t, "jkt": setting.client.jkt()}));
    let proof = setting.client.proof(&proof_claims(&both, "p1"));
    let ask = |certificate| setting.ask_with(&format!("DPoP {both}"), &[&proof], certificate);
    assert!(ask(None).is_err() && setting.ask_with(&format!("Bearer {both}"), &[], Some(&certificate)).is_err());
    assert!(ask(Some(&certificate)).is_ok());
}
