//! The issuer's key set (RFC 7517 section 5): public signature keys, each with an id and the one algorithm it is for.

use std::collections::HashMap;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::jws::algorithm;

/// Keys by their ids.
#[derive(Debug, Default)]
pub struct KeySet(HashMap<String, (Algorithm, DecodingKey)>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a set. Keys that are no use here are passed over (RFC 7517 section 5); an id that stands twice is an error.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let Document { keys } = serde_json::from_slice(text).ok()?;
        let mut set = HashMap::new();
        for key in keys.iter().take(KEYS_MAX) {
            let Some((kid, entry)) = usable(key) else { continue };
            if set.insert(kid, entry).is_some() {
                return None;
            }
        }
        Some(Self(set))
    }

    /// Whether a key of that id is in the set.
    pub fn has(&self, kid: &str) -> bool {
        self.0.contains_key(kid)
    }

    pub(super) fn find(&self, kid: &str) -> Option<&(Algorithm, DecodingKey)> {
        self.0.get(kid)
    }
}

fn usable(key: &Value) -> Option<(String, (Algorithm, DecodingKey))> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let (kid, name) = (text("kid")?, text("alg")?);
    let fits = match (text("kty")?, text("crv")) {
        ("EC", Some("P-256")) => name == "ES256",
        ("OKP", Some("Ed25519")) => ["EdDSA", "Ed25519"].contains(&name),
        ("RSA", None) => ["PS256", "RS256"].contains(&name),
        _ => false,
    };
    let for_signatures = key.get("use").is_none_or(|what| what == "sig");
    if !fits || !for_signatures || kid.is_empty() {
        return None;
    }
    // Only what is needed: the library knows fewer names of algorithms than may stand in a set.
    let mut material = key.as_object()?.clone();
    material.retain(|name, _| ["kty", "crv", "x", "y", "n", "e"].contains(&name.as_str()));
    let jwk: Jwk = serde_json::from_value(Value::Object(material)).ok()?;
    Some((kid.to_owned(), (algorithm(name)?, DecodingKey::from_jwk(&jwk).ok()?)))
}

const KEYS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ed() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    fn parse(keys: &[Value]) -> Option<KeySet> {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes())
    }

    #[test]
    fn keys_that_are_no_use_here_are_passed_over() {
        let mut other = ed();
        other["kid"] = "b".into();
        for (member, value) in [
            ("use", json!("enc")),
            ("alg", json!("HS256")),
            ("alg", json!("ES256")),
            ("alg", json!(null)),
            ("kid", json!(null)),
            ("kid", json!("")),
            ("crv", json!("Ed448")),
            ("kty", json!("oct")),
            ("x", json!("!")),
        ] {
            let mut useless = ed();
            useless[member] = value;
            let set = parse(&[useless.clone(), other.clone(), json!("a key")]).unwrap();
            assert!(!set.has("a") && set.has("b"), "{useless}");
        }
        assert!(parse(&[ed(), ed()]).is_none(), "which one is meant?");
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#] {
            assert!(KeySet::parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    /// RFC 8037 appendix A.4.
    #[test]
    fn the_example_of_rfc_8037_verifies() {
        let set = parse(&[ed()]).unwrap();
        let (alg, key) = set.find("a").unwrap();
        let verify = |message: &str| {
            let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, *alg).unwrap()
        };
        assert!(verify("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"));
        assert!(!verify("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmM"));
    }
}
