//! JWTs and keys of others, by the vectors of the RFCs and by signatures that OpenSSL made.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::jose::{JoseError, Kind, Unverified};
use grantd::crypto::signature_alg::SignatureAlg;
use grantd::crypto::verifying_key::{JwkError, VerifyingKey};
use serde_json::{Value, json};

const LONGEST: usize = 8192;

fn key(jwk: &Value, alg: Option<SignatureAlg>) -> VerifyingKey {
    VerifyingKey::from_text(jwk.to_string().as_bytes(), alg).unwrap()
}

#[test]
fn the_jws_of_rfc_8037_verifies() {
    let key = key(&json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}), None);
    let jws = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
               hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let (signed, signature) = jws.rsplit_once('.').unwrap();
    assert!(key.verifies(SignatureAlg::EdDsa, signed.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap()));
    // It signs a text and no claims, so it is no JWT.
    assert!(matches!(Unverified::parse(jws, Kind::ClientAssertion, LONGEST), Err(JoseError::Claims(_))));
}

#[test]
fn the_proofs_of_rfc_9449_verify_with_the_key_they_carry() {
    for (proof, htm, htu, iat) in [
        (PROOF_FOR_TOKEN, "POST", "https://server.example.com/token", 1_562_262_616),
        (PROOF_FOR_RESOURCE, "GET", "https://resource.example.org/protectedresource", 1_562_262_618),
    ] {
        let proof = format!("{PROOF_HEADER}.{proof}");
        let unverified = Unverified::parse(&proof, Kind::DpopProof, LONGEST).unwrap();
        let (claims, key) = unverified.verify_with_own_key().unwrap();
        assert_eq!((key.jkt(), key.alg()), ("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", Some(SignatureAlg::Es256)));
        assert_eq!(claims.string("htm", 16), Ok(Some(htm)));
        assert_eq!(claims.string("htu", 2048), Ok(Some(htu)));
        assert_eq!(claims.numeric_date("iat"), Ok(Some(iat)));
        assert!(claims.string("jti", 256).unwrap().is_some());
        for kind in [Kind::ClientAssertion, Kind::AccessToken] {
            assert_eq!(Unverified::parse(&proof, kind, LONGEST).unwrap_err(), JoseError::Typ);
        }
    }
    let crossed = format!(
        "{PROOF_HEADER}.{}.{}",
        PROOF_FOR_TOKEN.split_once('.').unwrap().0,
        PROOF_FOR_RESOURCE.split_once('.').unwrap().1
    );
    let crossed = Unverified::parse(&crossed, Kind::DpopProof, LONGEST).unwrap();
    assert_eq!(crossed.verify_with_own_key().unwrap_err(), JoseError::Signature);
}

#[test]
fn a_proof_carries_a_public_key_that_fits_its_algorithm() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let [x, y] = [&point[1..33], &point[33..]].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
    let refusal = |alg: &str, jwk: &Value| {
        let header = json!({"typ": "dpop+jwt", "alg": alg, "jwk": jwk}).to_string();
        let signed = format!("{}.e30", BASE64_URL_SAFE_NO_PAD.encode(header));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let proof = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
        Unverified::parse(&proof, Kind::DpopProof, LONGEST)?.verify_with_own_key().map(|(_, key)| key.jkt().to_owned())
    };
    let with = |member: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[member] = value;
        jwk
    };
    assert_eq!(refusal("ES256", &jwk), Ok(key(&jwk, None).jkt().to_owned()));
    assert_eq!(refusal("ES256", &with("d", x.clone().into())), Err(JwkError::Private("d").into()));
    assert_eq!(refusal("EdDSA", &jwk), Err(JwkError::Alg.into()));
    assert_eq!(refusal("PS256", &with("alg", "ES256".into())), Err(JwkError::OtherAlg.into()));
    assert_eq!(refusal("none", &jwk), Err(JoseError::Alg));
    assert_eq!(refusal("HS256", &json!({"kty": "oct", "k": "AAAA"})), Err(JoseError::Alg));
    assert_eq!(refusal("ES256", &json!({"kty": "oct", "k": "AAAA"})), Err(JwkError::Private("k").into()));
    assert_eq!(refusal("ES256", &with("y", x.into())), Err(JwkError::Point.into()));
    assert_eq!(refusal("ES256", &with("use", "enc".into())), Err(JwkError::Use.into()));
    for (n, e) in
        [("_".repeat(683), "AQ"), ("_".repeat(683), "____"), ("_".repeat(2731), "AQAB"), ("_".repeat(172), "AQAB")]
    {
        let refused = refusal("PS256", &json!({"kty": "RSA", "n": n, "e": e})).unwrap_err();
        assert!(matches!(refused, JoseError::Jwk(JwkError::RsaSize | JwkError::RsaExponent)), "{refused}");
    }
}

#[test]
fn a_pss_signature_has_one_hash_and_a_salt_of_its_length() {
    let jwk = json!({"kty": "RSA", "e": "AQAB", "n": RSA_N});
    for (at, (how, signature)) in PSS.into_iter().enumerate() {
        let jwt = format!("eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiJhIn0.{signature}");
        let unverified = Unverified::parse(&jwt, Kind::ClientAssertion, LONGEST).unwrap();
        assert_eq!(unverified.verify(&key(&jwk, None)).is_ok(), at == 0, "{how}");
        assert_eq!(unverified.verify(&key(&jwk, Some(SignatureAlg::Rs256))).unwrap_err(), JoseError::OtherAlg);
    }
}

#[test]
fn json_and_jwe_bombs_are_refused_at_once() {
    let header = |header: &Value| BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
    let nested = BASE64_URL_SAFE_NO_PAD.encode(format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)));
    let wide: Vec<String> = (0..20_000).map(|n| format!("\"{n}\":0")).collect();
    let wide = BASE64_URL_SAFE_NO_PAD.encode(format!("{{{}}}", wide.join(",")));
    let digits = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{}}}", "9".repeat(1_000_000)));
    let signed = header(&json!({"alg": "ES256"}));
    let pbes2 = header(
        &json!({"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 2_147_483_647, "p2s": "AA", "zip": "DEF"}),
    );
    let bombs = [
        ".".repeat(30_000),
        "A".repeat(1 << 20),
        format!("{signed}.{nested}.AAAA"),
        format!("{nested}.{signed}.AAAA"),
        format!("{signed}.{wide}.AAAA"),
        format!("{signed}.{digits}.AAAA"),
        format!("{pbes2}.AAAA.AAAA.AAAA.AAAA"),
        format!("{pbes2}.e30.AAAA"),
    ];
    for bomb in &bombs {
        // Bounds of the caller come first; without them nothing is worse.
        assert!(Unverified::parse(bomb, Kind::ClientAssertion, LONGEST).is_err());
        let start = std::time::Instant::now();
        assert!(Unverified::parse(bomb, Kind::ClientAssertion, usize::MAX).is_err());
        assert!(start.elapsed().as_millis() < 500, "{} took {:?}", &bomb[..40], start.elapsed());
    }
}

const PROOF_HEADER: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZ\
                            OXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIs\
                            ImNydiI6IlAtMjU2In19";

const PROOF_FOR_TOKEN: &str = "eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rv\
                               a2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNy\
                               JK70nfbV37xRZT3Lg";

const PROOF_FOR_RESOURCE: &str = "eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9w\
                                  cm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlp\
                                  S0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJp\
                                  LjA";

/// A modulus, and what OpenSSL made of `{"sub":"a"}` with its private half. Only the first is PS256 (RFC 7518 section 3.5).
const RSA_N: &str = "yWODmX6QdpCzsWGmUjYYWD47mCzdNr5ZETXlU4SUFwv4PAoWt3m3Mbm2cxUBQjboTHIBDWz8l9xryujqV4QsL08CEoLJOKmhMxjh\
                     lY4ZM_04Y9TmzlKwf1VA6_AAL1cQ95zXrGfJ1nZFyX007wPHE4rvNKUr2H9STOm4L9z9WjEtk0x2EmHLoGs_7uUFmdTkhr6qfuCl\
                     GgBiCxA4vHQltrAtFGeCk3Z1pp-jZqVfjXMvsHhFmJ7kMS5jKsLquAOKVK1g7LIyxGlXi12wjUrkdWTPutAdfJnCWrl0FWKqbv8J\
                     GW7OqMAkWWtg4DAxB1jV3GpRRfEUXYu-dzZ1bFd-Yw";

const PSS: [(&str, &str); 6] = [
    (
        "salt of 32 octets, MGF1 with sha256",
        "wT3vP-Bm3rPOK1QY0HA6OsjwAYQhqnjXpR0fc-CsJghJdN0tfoNNhItkplwyrSOHF3JetZSzDIm4o8j0sw6oYr01xkc0cmiP322j\
             rMEdoYZgXq8u0joWG0AfioFytF4nLU_IJ20rPYKsSiU5Wrx2WM9dH7WVpyK74C7aJhP5c4fAW267PyhlDOMqnkykpLIroLZoNKny\
             fZKsgukR9ALfyTeV4RTphjqqonayk3o1xq_H55snvT4WZ2iupyatU0kpBGvBQpL0gvrPGEjpU-xHabeLv8LRwGL4-2S0R_cmIWMj\
             9GjslguU4pTWDAyvTrifaPIV_Zw-RlJ77MRupIulwQ",
    ),
    (
        "salt of 0 octets, MGF1 with sha256",
        "GSJGPsL-3FET_bQQK9G0lz_vKMyerQH32OpeJy9mqwC3cnPaBOrlcIeVbNAXG1A2XbgOHKFHj2u8o5z8CZxtSElhxVkaUmZCFxL1\
             4KnB1Jxb4S_y_fkbuQWYtpNQr_1WCP4G5GY7NyIw6U5nW8P497M4zNLG4R7jYGIHhT_nEQ1jN14IrX90w6zmwUvmzpXLOUeL3YRP\
             izPJYGbrZwj5wso2uOw4PJzUJqP6P4rx5d1W09mJwlZEbZMymkoHwmVm3fksQiRj_nbQVnPJvt0_NCTKqbGfs_DOwYSaPogHy146\
             qjRbhnZUSO0vv36jitIzBhoGNwCAbxBY5CL8g-KHuw",
    ),
    (
        "salt of 20 octets, MGF1 with sha256",
        "TRshikxstlYK1htZ60N0OD9X9m4gxSkqy2JLTJEvNWvL-gUkJ5Vfmhz1Vlwb5IS-S86PwZVzXP1Yizw2f4ISsDDDdmSv1b3sxK_J\
             Ism7n7skFzozZ6cw2EzcGpfQaPCS5-aPcnYOOsMcbE1aglRT1upnQNj2dLjCJ1EWQlyrehHGpdkVuS0HlY3x1ES8l-LuTvqesHYj\
             lPciTmZGnsrV_24q-Xrx1rbNrlaKtRIFheHwWVayT7z9klrzV8cLl1Moy0KDySFJ6JSQZKhsIFjxdKzwqME1qLIEa-O7JGFmKet4\
             6ylQsKRMWx17K8qu3COk4X1s2fkcK8yfxqy0BPzEwQ",
    ),
    (
        "salt of 222 octets, MGF1 with sha256",
        "MAwvsCCA1LTGigswMG51YPPHoXmzW1YAhoC07S4W1PM2i4MVkgKCbp7ZTSbg2P2_c898_bNBOHRroAg9dBngplFXnPW7wy6_lq8c\
             DoOESnOM88vQFw9JsaACc1ZJ0KA9eQjqdfQrjVI2jr4sHlkOEx518G7FPMmGk118Dbx2XE0vnScVfAGKp7fdPNmY9jYr0ZhfxDeW\
             LWRWzk9-6T01b1DoXNtPpiH8qRBbjQtCYCFlPuDKdCc4elr4r1kNmJiXBqlasHi7hiSqlNY7Wzw-B3k6GJKJ4pQJzNtRWYuCp-3n\
             TYqa7vRXHmpae9mkHzDFRtNlp_Au5HWPL2xMl5B2Mw",
    ),
    (
        "salt of 32 octets, MGF1 with sha1",
        "H58G9i9vGFzFoj1NNQNulwJysheN3FozwgyY8T99DI9GAx866vUQ_jwSeU1ux2VTNHGGhIDwpBa9od6ZBf5iYp_PGiUvbz6P-_6s\
             yfCE_rX_Zt6CAlnku3WQ4H3ktTWkQXGABbSt3mda0SzHqDuEwvxCn9WMEwabcXMJrfQj53_mVTAYbuJ86zz0vSFWFHi_5caAp53q\
             XPTnREQqC-VWGIMLoNuE600b2ygP8qVZhNipsmeJbRm_LlBXjU2CFw0np6EYPc4uTEvKKICtM6Qgv8pUkkUtU44S1HkG8mKXjgqF\
             3ak0gnhru9s5kCvJWMhJ4JgqmJzlrkJ7Ho5viUZ3og",
    ),
    (
        "salt of none octets, MGF1 with PKCS#1 v1.5",
        "kpA9WnU0BOtzvnvaPsEq1QfNGz5gYXW9BkI9ZHXITMCWkQ8HpuHeUj5qqF4LyOwy2THZsJQRzjVCGr7M9e8N1SDUg512gDh7IBYp\
             66o9oV779mrMTP-JNnlcaN9FowgC3qDPESbkQEXbJCk54aqGEOhev6weoZb_8BYI3rB2XDXvEQcgibvj5h7CnPI6QUrPPTtUTKZm\
             uNHVdb7S5hizdH7_L5d8uS9kZytrfGoEQgKUo50uubdx4KskGBznCtM19_1URShvnPyOB7Nsgvq05EcZaiDmKQG5-XnSBKy-Pix3\
             WAHQ00VljZgvlfYzYSL2MEYuvPKXEYWapbEPzRtfkw",
    ),
];
