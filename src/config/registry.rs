//! The settings of following the database.

use std::time::Duration;

use super::{ConfigError, SettingRef, Settings, Sources};
use crate::state::registry::RegistryOptions;

/// Parses the options of following the database.
pub(super) fn registry(settings: &Settings, sources: &Sources) -> Result<RegistryOptions, ConfigError> {
    let at = |key: &'static str| SettingRef { key, sources };
    let poll = humantime::parse_duration(&settings.registry.poll).ok();
    let poll = poll.filter(|poll| (Duration::from_millis(50)..=Duration::from_secs(30)).contains(poll));
    let max_clock_skew = at("database.max_clock_skew").span(&settings.database.max_clock_skew)?;
    if max_clock_skew.seconds() == 0 {
        return Err(at("database.max_clock_skew").wrong("at least 1s"));
    }
    let reload = at("registry.reload").span(&settings.registry.reload)?;
    if reload.seconds() < 10 {
        return Err(at("registry.reload").wrong("at least 10s; it reads every client"));
    }
    Ok(RegistryOptions {
        max_stale: at("registry.max_stale").span(&settings.registry.max_stale)?.duration(),
        poll: poll.ok_or_else(|| at("registry.poll").wrong("from 50ms to 30s, such as 250ms"))?,
        max_clock_skew: max_clock_skew.duration(),
        reload: reload.duration(),
        rewrite_lost_revocations: settings.registry.rewrite_lost_revocations,
    })
}
