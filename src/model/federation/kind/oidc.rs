//! Any OpenID provider: the whole `sub`, of whatever form.

use super::{Rules, is_whole};
use crate::crypto::jwk_set::KeyUse;

pub(super) const RULES: Rules = Rules {
    name: "oidc",
    separators: &[],
    parts_before: 0,
    single_use: true,
    key_use: KeyUse::Sig,
    pinned: &[],
    refused: None,
    is_subject: is_whole,
    subject_form: "the whole sub, without /* or :* at its end",
};
