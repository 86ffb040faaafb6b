//! Fuzz target of received JWTs of every kind: a parsed JWT has one reading, is bounded, and is unverified.
//!
//! The input is a JWT, or a header on the first line and claims after it, from which a JWT is made.

#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::jose::{Audience, Claims, JoseError, Kind, Unverified};
use grantd::crypto::verifying_key::VerifyingKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    read(input);
    if let Some((header, claims)) = input.split_once('\n') {
        let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        read(&format!("{header}.{claims}.AAAA"));
    }
});

fn read(jwt: &str) {
    for kind in [Kind::ClientAssertion, Kind::DpopProof, Kind::AccessToken, Kind::AccessTokenOrJwt] {
        let jwt = match Unverified::parse(jwt, kind, LONGEST) {
            Ok(read) => read,
            Err(error) => {
                assert!(error.to_string().len() < 200);
                continue;
            }
        };
        let kid = jwt.header().kid();
        assert!(kid.is_none_or(|kid| (1..=256).contains(&kid.len()) && !kid.contains(char::is_control)));
        claims(jwt.claims_nobody_vouches_for());
        // No input is signed by this key: RFC 8037 prints its private half, and nothing here signs with it.
        let verified = jwt.verify(&KEY);
        assert!(matches!(verified, Ok(_) | Err(JoseError::OtherAlg | JoseError::Signature)));
        assert_eq!(
            jwt.verify_with_one_of([&*KEY]).is_ok(),
            verified.is_ok() && kid.is_none_or(|kid| KEY.is_called(kid))
        );
        let own = jwt.verify_with_own_key();
        assert!(own.is_err() || kind == Kind::DpopProof, "a key out of a header");
    }
}

fn claims(claims: &Claims) {
    let members = claims.clone().into_members();
    for name in ["exp", "nbf", "iat"] {
        let date = claims.numeric_date(name);
        assert_eq!(date == Ok(None), !members.contains_key(name), "malformed is not absent");
        assert!(date.is_err() || date.is_ok_and(|date| date.is_none_or(|date| (0..1 << 53).contains(&date))));
    }
    for name in ["iss", "sub", "jti", "htm", "htu", "nonce", "ath"] {
        let text = claims.string(name, 256);
        assert_eq!(text == Ok(None), !members.contains_key(name), "malformed is not absent");
        assert!(text.is_err() || text.is_ok_and(|text| text.is_none_or(|text| (1..=256).contains(&text.len()))));
    }
    if let Ok(Some(audience)) = claims.audience() {
        assert_eq!(audience.sole().is_none(), matches!(&audience, Audience::Many(many) if many.len() != 1));
    }
}

static KEY: LazyLock<VerifyingKey> = LazyLock::new(|| {
    let jwk = br#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    VerifyingKey::from_text(jwk, None).expect("the key of RFC 8037")
});

const LONGEST: usize = 8192;
