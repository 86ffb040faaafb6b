//! SPIFFE: workloads of a trust domain, by their SPIFFE ID or by whole segments of its path.

use super::Rules;
use crate::crypto::jwk_set::KeyUse;
use crate::model::federation::subject::is_spiffe_path;

pub(super) const RULES: Rules = Rules {
    name: "spiffe",
    separators: &['/'],
    parts_before: 0,
    single_use: false,
    key_use: KeyUse::JwtSvid,
    pinned: &[],
    refused: None,
    is_subject,
    subject_form: "spiffe://TRUST-DOMAIN/PATH in the trust domain of its issuer, or with /* at the end",
};

fn is_subject(subject: &str, issuer: &str) -> bool {
    subject.strip_prefix(issuer).is_some_and(|path| match path.strip_suffix("/*") {
        Some(path) => path.is_empty() || is_spiffe_path(path),
        None => is_spiffe_path(path),
    })
}
