//! GitHub Actions: `repo:OWNER/REPO:…`, where names of owners and repositories can be registered again by others, and ids
//! cannot.

use super::Rules;
use crate::crypto::jwk_set::KeyUse;

pub(super) const RULES: Rules = Rules {
    name: "github",
    separators: &['/', ':'],
    parts_before: 2,
    single_use: true,
    key_use: KeyUse::Sig,
    pinned: &["repository_id", "repository_owner_id"],
    // Such a run has the rights of the base repository and may run code of a fork.
    refused: Some(("event_name", "pull_request_target")),
    is_subject: |_, _| true,
    subject_form: "repo:OWNER/REPO:…",
};
