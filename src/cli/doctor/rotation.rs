//! The next rotation of each signing key, for `grantd doctor`.

use crate::cli::Shell;
use crate::config::Config;
use crate::model::time::UnixTime;
use crate::state::keyring::timelines;
use crate::store::Store;

/// Prints when the key of each algorithm is rotated. Returns advice on rotations that are overdue.
pub(super) async fn advice(
    shell: &Shell,
    config: &Config,
    store: &Store,
    now: UnixTime,
) -> anyhow::Result<Vec<String>> {
    let Some(every) = config.rotate_every else { return Ok(Vec::new()) };
    let mut advice = Vec::new();
    for (alg, timeline) in timelines(&store.keys().await?) {
        let Some(next) = timeline.next_rotation(now, every) else { continue };
        if next.due_at.0.saturating_add(OVERDUE) < now.0 {
            advice.push(format!(
                "keys.rotate_every: the {alg} signing key {} was due to be replaced at {}; a running `grantd serve` does that, if its role may insert into signing_key",
                next.key.kid, next.due_at
            ));
        } else {
            shell.info(&format!("note: another {alg} signing key signs from {}", next.due_at))?;
        }
    }
    Ok(advice)
}

/// Seconds for which a rotation may be late: a server that was stopped publishes the next key before it signs.
const OVERDUE: i64 = 900;
