//! Fuzz target of DPoP proofs: an accepted proof names the key that signed it, is for the configured URL and the
//! present time, and its `jti` is remembered for longer.
//!
//! The input is a proof. It is also used as claims, which are signed with the key of RFC 8037, since the fuzzer cannot
//! sign.

#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::seal::SealingKey;
use grantd::model::time::UnixTime;
use grantd::protocol::dpop::Dpop;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    read(input);
    let [header, claims] = [HEADER, input].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let signed = format!("{header}.{claims}");
    let signature = BASE64_URL_SAFE_NO_PAD.encode(KEY.sign(signed.as_bytes()));
    if let Some(jkt) = read(&format!("{signed}.{signature}")) {
        assert_eq!(jkt, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let claims: serde_json::Value = serde_json::from_str(input).expect("claims that are taken are JSON");
        assert_eq!(claims["htm"], "POST");
        let iat = claims["iat"].as_f64().expect("a number");
        assert!((iat - 1_700_000_000.0).abs() < 61.0);
        assert!(claims["htu"].is_string() && claims["jti"].is_string());
    }
});

fn read(proof: &str) -> Option<String> {
    assert_eq!(LENIENT.check(&[], false, NOW), Ok(None));
    assert!(LENIENT.check(&[proof, proof], false, NOW).is_err());
    // No nonce in the input is one of the server's.
    assert!(STRICT.check(&[proof], false, NOW).is_err());
    match LENIENT.check(&[proof], false, NOW) {
        Ok(taken) => {
            let taken = taken.expect("a proof was there");
            assert!(LENIENT.check(&[proof], false, taken.expires_at).is_err(), "it is taken for longer than it is remembered");
            Some(taken.jkt)
        }
        Err(error) => {
            assert!(error.to_string().len() < 200);
            None
        }
    }
}

const NOW: UnixTime = UnixTime(1_700_000_000);
const HEADER: &str = r#"{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}"#;

static KEY: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    let seed = BASE64_URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").expect("base64url");
    Ed25519KeyPair::from_seed_unchecked(&seed).expect("the key of RFC 8037")
});
static LENIENT: LazyLock<Dpop> = LazyLock::new(|| dpop(false));
static STRICT: LazyLock<Dpop> = LazyLock::new(|| dpop(true));

fn dpop(require_nonce: bool) -> Dpop {
    let key = SealingKey::from_base64("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("32 bytes");
    Dpop::new(key.derive("DPoP nonces"), require_nonce, "https://as.test/token")
}
