//! `[token]`: lifetimes and the signing algorithm.

use super::{ConfigError, SettingRef, Settings, Sources};
use crate::crypto::jwk::{Alg, KeyError};
use crate::model::profile::Profile;
use crate::model::time::Span;

/// Parses the default lifetime of tokens.
pub(super) fn ttl(settings: &Settings, sources: &Sources) -> Result<Span, ConfigError> {
    let at = SettingRef { key: "token.ttl", sources };
    let ttl = at.span(&settings.token.ttl)?;
    if (1..=86400).contains(&ttl.seconds()) { Ok(ttl) } else { Err(at.wrong("write a lifetime from 1s to 24h")) }
}

/// Parses the time for which a verifier may keep the status list.
pub(super) fn status_ttl(settings: &Settings, sources: &Sources) -> Result<Span, ConfigError> {
    let at = SettingRef { key: "token.status_ttl", sources };
    let ttl = at.span(&settings.token.status_ttl)?;
    if (2..=3600).contains(&ttl.seconds()) { Ok(ttl) } else { Err(at.wrong("write a time from 2s to 1h")) }
}

/// Parses the signing algorithm, and whether Ed25519 has the name of RFC 9864 section 2.2; the keys are the same.
pub(super) fn alg(settings: &Settings, profile: Profile, sources: &Sources) -> Result<(Alg, bool), ConfigError> {
    let at = SettingRef { key: "token.alg", sources };
    let fully_specified = settings.token.alg == "Ed25519";
    let name = if fully_specified { Alg::EdDsa.as_str() } else { &settings.token.alg };
    let alg: Alg = name.parse().map_err(|error: KeyError| at.wrong(&error.to_string()))?;
    if !profile.permits_alg(alg) {
        return Err(at.wrong(&format!("the fapi2 profile does not permit {alg}; write ES256, EdDSA, Ed25519 or PS256")));
    }
    Ok((alg, fully_specified))
}
