//! States of clients, credentials and signing keys, in words and in colour.

use super::look::Tone;
use super::table::{Cell, Times};
use crate::model::client::Client;
use crate::model::credential::SecretState;
use crate::model::time::{Expiry, UnixTime};
use crate::state::keyring::KeyState;
use crate::store::secrets::SecretSummary;

/// Returns the state of a client: whether it is enabled, its end, and whether it has a credential that still works.
pub(super) fn of_client(client: &Client, times: Times) -> Cell<'static> {
    if !client.enabled {
        return Cell::toned("DISABLED", Tone::Bad);
    }
    if client.has_expired(times.now) {
        return Cell::toned("EXPIRED", Tone::Bad);
    }
    let secrets = client.secrets.iter().filter(|secret| secret.state(times.now) != SecretState::Revoked);
    let ends = secrets.map(|secret| secret.expires_at.map(Expiry::at));
    let ends = ends.chain(client.keys.iter().map(|key| key.expires_at));
    let ends = ends.chain(client.certificates.iter().map(|certificate| certificate.expires_at));
    let ends = ends.chain(client.federation.as_slice().iter().map(|rule| rule.expires_at));
    // A JWK Set that the client publishes has no end.
    let ends = ends.chain(client.jwks_uri.iter().map(|_| None));
    match ends.map(|end| end.unwrap_or(UnixTime(i64::MAX))).max() {
        None => Cell::toned("no credential", Tone::Warning),
        Some(last) if last <= times.now => Cell::toned("credentials EXPIRED", Tone::Bad),
        _ if client.expires_at.is_some_and(|end| is_soon(end.at(), times)) => {
            let end = client.expires_at.map(|end| times.words(end.at())).unwrap_or_default();
            Cell::toned(format!("ends {end}"), Tone::Warning)
        }
        Some(last) if is_soon(last, times) => {
            Cell::toned(format!("credentials end {}", times.words(last)), Tone::Warning)
        }
        Some(_) => Cell::toned("enabled", Tone::Good),
    }
}

/// Returns the state of a secret.
pub(super) fn of_secret(secret: &SecretSummary, times: Times) -> Cell<'static> {
    let state = match secret.revoked_at {
        Some(at) => Cell::toned(format!("REVOKED {}", times.words(at)), Tone::Bad),
        None => of_credential(secret.created_at, secret.expires_at, secret.last_used_at, times),
    };
    if secret.imported { state.and(", imported") } else { state }
}

/// Returns the state of a credential: expired, about to expire, unused, or live.
pub(super) fn of_credential(
    created_at: UnixTime,
    expires_at: Option<UnixTime>,
    last_used_at: Option<UnixTime>,
    times: Times,
) -> Cell<'static> {
    let used = last_used_at.map_or(created_at, |at| at.max(created_at));
    match expires_at {
        Some(at) if at <= times.now => Cell::toned(format!("EXPIRED {}", times.words(at)), Tone::Bad),
        Some(at) if is_soon(at, times) => Cell::toned(format!("ends {}", times.words(at)), Tone::Warning),
        _ if times.now.0.saturating_sub(used.0) >= UNUSED => {
            Cell::toned(format!("unused {}", times.since(used)), Tone::Warning)
        }
        _ => Cell::toned("live", Tone::Good),
    }
}

/// Returns the state of a signing key.
pub(super) fn of_signing_key(state: KeyState) -> Cell<'static> {
    match state {
        KeyState::Next => Cell::new("next"),
        KeyState::Active => Cell::toned("active", Tone::Good),
        KeyState::Retiring => Cell::toned("RETIRING", Tone::Warning),
        KeyState::Gone => Cell::toned("gone", Tone::Faint),
    }
}

fn is_soon(at: UnixTime, times: Times) -> bool {
    at.0.saturating_sub(times.now.0) <= SOON
}

/// Time before its expiry from which a credential is said to end, as in the daemon's warnings: 14 days.
const SOON: i64 = 14 * 86400;
/// Time without a use from which a credential is said to be unused: 90 days.
const UNUSED: i64 = 90 * 86400;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86400;
    const NOW: UnixTime = UnixTime(1_800_000_000);

    #[test]
    fn a_credential_is_expired_ending_unused_or_live() {
        let times = Times { now: NOW, utc: false };
        let at = |days: i64| UnixTime(NOW.0 + days * DAY);
        for (made, expires, used, words, tone) in [
            (-1, None, None, "live", Tone::Good),
            (-120, None, None, "unused for 120 days", Tone::Warning),
            (-300, None, Some(-120), "unused for 120 days", Tone::Warning),
            (-300, None, Some(-89), "live", Tone::Good),
            (-300, Some(9), Some(-120), "ends in 9 days", Tone::Warning),
            (-300, Some(15), Some(-1), "live", Tone::Good),
            (-300, Some(0), Some(-1), "EXPIRED now", Tone::Bad),
            (-300, Some(-3), Some(-4), "EXPIRED 3 days ago", Tone::Bad),
        ] {
            let state = of_credential(at(made), expires.map(at), used.map(at), times);
            assert_eq!(state, Cell::toned(words, tone));
        }
        let utc = Times { utc: true, ..times };
        let state = of_credential(at(-120), None, None, utc);
        assert_eq!(state, Cell::toned("unused since 2026-09-17T08:00:00Z", Tone::Warning));
    }

    #[test]
    fn a_client_without_a_live_credential_says_so() {
        let times = Times { now: NOW, utc: false };
        let mut client = Client::new("c".parse().unwrap(), crate::model::client::ClientScope::default(), NOW);
        assert_eq!(of_client(&client, times), Cell::toned("no credential", Tone::Warning));
        client.jwks_uri = Some("https://keys.test/jwks".parse().unwrap());
        assert_eq!(of_client(&client, times), Cell::toned("enabled", Tone::Good));
        client.enabled = false;
        assert_eq!(of_client(&client, times), Cell::toned("DISABLED", Tone::Bad));
    }
}
