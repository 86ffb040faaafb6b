//! The check of a token against the status lists of its issuer (draft-ietf-oauth-status-list), to be copied.

use std::collections::{HashMap, HashSet};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit as inflate;
use serde_json::Value;

/// The lists of one issuer, each fetched at most once in its `ttl`. `fail_open` accepts tokens while no list is to be had.
pub struct StatusLists {
    pub issuer: String,
    pub http: reqwest::Client,
    pub fail_open: bool,
    pub kept: tokio::sync::Mutex<Kept>,
}

/// By URI: when to fetch a list again, its claims, and its bits.
type Kept = HashMap<String, (i64, Claims, Vec<u8>)>;

#[derive(Default, serde::Deserialize)]
pub struct Claims {
    exp: i64,
    ttl: i64,
    status_list: Value,
    revoked_jti: HashSet<String>,
}

impl StatusLists {
    /// Whether a verified token with this `status` and `jti` is revoked; `None` when that cannot be known.
    pub async fn is_revoked(&self, status: Option<&Value>, jti: &str, now: i64) -> Option<bool> {
        let Some(reference) = status.and_then(|status| status.get("status_list")) else { return Some(false) };
        let (idx, uri) = (reference.get("idx")?.as_u64()?, reference.get("uri")?.as_str()?);
        let mut kept = self.kept.lock().await;
        let (fetch_at, list, bits) = kept.entry(uri.to_owned()).or_default();
        if *fetch_at <= now {
            match self.fetch(uri).await {
                Ok((newer, its_bits)) if newer.exp >= list.exp => (*list, *bits) = (newer, its_bits),
                Ok(_) => {}
                Err(error) => eprintln!("{uri}: {error}"),
            }
            *fetch_at = now + list.ttl.max(2);
        }
        if list.exp <= now {
            return self.fail_open.then_some(false);
        }
        let byte = bits.get(usize::try_from(idx / 8).ok()?);
        Some(byte.is_none_or(|byte| byte >> (idx % 8) & 1 == 1) || list.revoked_jti.contains(jti))
    }

    async fn fetch(&self, uri: &str) -> Result<(Claims, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
        let get = async |url: &str| self.http.get(url).send().await?.error_for_status()?.text().await;
        let (jwt, jwks) = (get(uri).await?, get(&format!("{}/jwks", self.issuer.trim_end_matches('/'))).await?);
        let (header, keys) = (decode_header(&jwt)?, serde_json::from_str::<JwkSet>(&jwks)?);
        let key = keys.find(header.kid.as_deref().unwrap_or_default()).ok_or("signed by no key of the issuer")?;
        if header.typ.as_deref() != Some("statuslist+jwt") {
            return Err("not a status list".into());
        }
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["iss", "sub", "exp"]);
        validation.set_issuer(&[&self.issuer]);
        validation.sub = Some(uri.to_owned());
        let claims: Claims = decode(&jwt, &DecodingKey::from_jwk(key)?, &validation)?.claims;
        let lst = claims.status_list.get("lst").and_then(Value::as_str).ok_or("without lst")?;
        let bits = inflate(&BASE64_URL_SAFE_NO_PAD.decode(lst)?, 1 << 20).map_err(|error| error.to_string())?;
        Ok((claims, bits))
    }
}
