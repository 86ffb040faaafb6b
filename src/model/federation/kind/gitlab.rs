//! GitLab CI: `project_path:GROUP/PROJECT:…`. In merge request pipelines of forks the claims name the fork.

use super::Rules;
use crate::crypto::jwk_set::KeyUse;

pub(super) const RULES: Rules = Rules {
    name: "gitlab",
    separators: &['/', ':'],
    parts_before: 2,
    single_use: true,
    key_use: KeyUse::Sig,
    pinned: &["project_id", "namespace_id"],
    refused: None,
    is_subject: |_, _| true,
    subject_form: "project_path:GROUP/PROJECT:…",
};
