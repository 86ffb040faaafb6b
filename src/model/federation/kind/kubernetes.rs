//! Kubernetes: the service account of a pod. The kubelet replaces a projected token before it expires, and the pod uses it
//! until then.

use super::Rules;
use crate::crypto::jwk_set::KeyUse;

pub(super) const RULES: Rules = Rules {
    name: "kubernetes",
    separators: &[],
    parts_before: 0,
    single_use: false,
    key_use: KeyUse::Sig,
    pinned: &[],
    refused: None,
    is_subject,
    subject_form: "system:serviceaccount:NAMESPACE:NAME",
};

/// RFC 1123: a namespace is a label, the name of a service account a subdomain.
fn is_subject(subject: &str, _issuer: &str) -> bool {
    let Some((namespace, name)) =
        subject.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'))
    else {
        return false;
    };
    let is_name = |text: &str, dots: bool| {
        let fits =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || dots && byte == b'.';
        !text.is_empty() && text.bytes().all(fits)
    };
    is_name(namespace, false) && is_name(name, true)
}
