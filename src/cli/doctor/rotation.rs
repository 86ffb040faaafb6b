//! The next rotation of each signing key, for `grantd doctor`.

use crate::admin::Admin;
use crate::admin::keys::ListedKey;
use crate::cli::Shell;
use crate::config::Config;
use crate::state::keyring::KeyState;

/// Prints when the key of each algorithm is rotated. Returns advice on rotations that are overdue.
pub(super) async fn advice(shell: &Shell, config: &Config, admin: &Admin) -> anyhow::Result<Vec<String>> {
    let (Some(_), now) = (config.rotate_every, admin.now()) else { return Ok(Vec::new()) };
    let mut advice = Vec::new();
    // Keys that do not open are faults of their own.
    for ListedKey { key, state, changes_at, opened } in admin.keys().await?.value {
        let Some(due_at) = changes_at.filter(|_| state == KeyState::Active) else { continue };
        let in_module = opened.is_some_and(|opened| opened.module.is_some());
        let (alg, kid) = (key.alg, key.kid);
        if due_at.0.saturating_add(OVERDUE) < now.0 {
            let remedy = if in_module {
                "it is in a PKCS #11 module, so attach the next one with `grantd key attach`"
            } else {
                "a running `grantd serve` does that, if its role may insert into signing_key"
            };
            advice.push(format!(
                "keys.rotate_every: the {alg} signing key {kid} was due to be replaced at {due_at}; {remedy}"
            ));
        } else if in_module {
            shell.info(&format!("note: the {alg} signing key {kid} is due to be replaced at {due_at}: attach the next one with `grantd key attach`"))?;
        } else {
            shell.info(&format!("note: another {alg} signing key signs from {due_at}"))?;
        }
    }
    Ok(advice)
}

/// Seconds for which a rotation may be late: a server that was stopped publishes the next key before it signs.
const OVERDUE: i64 = 900;
