//! Any OpenID provider: the whole `sub`, of whatever form.

use super::{Rules, is_whole};

pub(super) const RULES: Rules = Rules {
    name: "oidc",
    separators: &[],
    parts_before: 0,
    single_use: true,
    pinned: &[],
    refused: None,
    is_subject: is_whole,
    subject_form: "the whole sub, without /* or :* at its end",
};
