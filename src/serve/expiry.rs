//! The ends of everything that ends by itself: certificates and revocation lists of the configuration, and credentials.

use std::collections::BTreeMap;

use super::clients::MutualTlsFiles;
use crate::config::Config;
use crate::crypto::certificate::validity::Validity;
use crate::model::event::Event;
use crate::model::time::UnixTime;
use crate::state::registry::snapshot::Snapshot;
use crate::transport::tls::Tls;
use crate::transport::tls::clients::ClientDates;

/// A certificate or a revocation list that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The label `kind` of `grantd_credential_expires_seconds`.
    pub kind: &'static str,
    /// The setting that names its file.
    pub key: &'static str,
    /// Its name and dates.
    pub validity: Validity,
}

impl Ending {
    /// From this second on it does not count.
    #[must_use]
    pub fn ends_at(&self) -> UnixTime {
        UnixTime(self.validity.not_after.saturating_add(1))
    }

    fn is_over(&self, now: UnixTime) -> bool {
        self.ends_at() <= now
    }

    /// Whether it is worth a warning. A revocation list is often made anew each week, and so has a third of its time.
    fn ends_soon(&self, now: UnixTime) -> bool {
        let notice = if self.kind == CLIENT_CRL { NOTICE.min(self.lifetime() / 3) } else { NOTICE };
        self.ends_at().0.saturating_sub(now.0) <= notice
    }

    fn lifetime(&self) -> i64 {
        self.validity.not_after.saturating_sub(self.validity.not_before)
    }

    /// The advice of `grantd doctor` on it. Certificates that live for a few days are renewed in the last third.
    fn fault(&self, now: UnixTime) -> Option<String> {
        let Self { key, validity, .. } = self;
        let (what, at) = (self.what(), self.ends_at());
        if self.is_over(now) {
            Some(format!("{key}: {what} of {} ended at {at}; {}", validity.name, remedy(self.kind)))
        } else if at.0.saturating_sub(now.0) <= NOTICE.min(self.lifetime() / 3) {
            Some(format!("{key}: {what} of {} ends at {at}; replace it before", validity.name))
        } else if validity.not_before > now.0 {
            let from = UnixTime(validity.not_before);
            Some(format!("{key}: {what} of {} is not valid before {from}; compare the clocks", validity.name))
        } else {
            None
        }
    }

    fn what(&self) -> &'static str {
        if self.kind == CLIENT_CRL { "the revocation list" } else { "the certificate" }
    }
}

/// All that the files in use hold.
#[must_use]
pub fn of_files(tls: Option<&Tls>, mutual_tls: &MutualTlsFiles, jwks_uri_cas: &[Validity]) -> Vec<Ending> {
    let with = |kind, key| move |validity| Ending { kind, key, validity };
    let mut endings = Vec::new();
    endings.extend(tls.iter().flat_map(|tls| tls.chain()).map(with("server_certificate", "server.tls.cert_file")));
    let listener = mutual_tls.listener.as_deref();
    endings.extend(listener.iter().flat_map(|tls| tls.chain()).map(with("mtls_certificate", "server.mtls.cert_file")));
    // Listener and header field use the same files.
    let header = || mutual_tls.header.as_ref().map(|vouching| vouching.dates());
    let ClientDates { cas, lists } = listener.and_then(Tls::client_dates).or_else(header).unwrap_or_default();
    endings.extend(cas.into_iter().map(with("client_ca", "server.mtls.client_ca_file")));
    endings.extend(lists.into_iter().map(with(CLIENT_CRL, "server.mtls.client_crl_file")));
    endings.extend(jwks_uri_cas.iter().cloned().map(with("jwks_uri_ca", "clients.jwks_uri_ca_file")));
    endings
}

/// All that the configuration names, read from its files.
///
/// # Errors
/// A file that cannot be used.
pub fn of_config(config: &Config) -> anyhow::Result<Vec<Ending>> {
    let tls = config.tls.clone().map(Tls::load).transpose();
    let tls = tls.map_err(|error| super::prepare::config_error("server.tls", &error))?;
    let mutual_tls = super::clients::mutual_tls(config)?;
    super::clients::fetcher(config)?;
    Ok(of_files(tls.as_ref(), &mutual_tls, &super::clients::jwks_uri_cas(config)?))
}

/// The end of each kind that comes first. What the configuration names stays in it after its end, since it is in use.
/// Credentials of clients leave it then: nothing has to be done about a secret that was replaced.
#[must_use]
pub fn soonest(endings: &[Ending], snapshot: &Snapshot, now: UnixTime) -> BTreeMap<&'static str, UnixTime> {
    let mut soonest: BTreeMap<&'static str, UnixTime> = BTreeMap::new();
    let mut add = |kind, at: UnixTime| {
        let known = soonest.entry(kind).or_insert(at);
        *known = at.min(*known);
    };
    for ending in endings {
        add(ending.kind, ending.ends_at());
    }
    for (kind, at) in snapshot.soonest_ends(now) {
        add(kind, at);
    }
    soonest
}

/// The remedy for a file that ends.
fn remedy(kind: &str) -> &'static str {
    match kind {
        "jwks_uri_ca" => "replace the file and send SIGHUP",
        _ => "replace the file; it is read again within seconds",
    }
}

/// Logs a warning for each of what has ended or ends soon.
pub fn warn(endings: &[Ending], now: UnixTime) {
    for ending in endings.iter().filter(|ending| ending.ends_soon(now)) {
        let Ending { kind, key, validity } = ending;
        let (name, expires_at, over) = (&validity.name, ending.ends_at(), ending.is_over(now));
        if over {
            tracing::warn!(event = Event::CredentialExpiring.as_str(), kind, setting = key, name, %expires_at, "it has ended; {}", remedy(kind));
        } else {
            tracing::warn!(event = Event::CredentialExpiring.as_str(), kind, setting = key, name, %expires_at, "it ends soon; {}", remedy(kind));
        }
    }
}

/// The advice of `grantd doctor` on them.
#[must_use]
pub fn faults(endings: &[Ending], now: UnixTime) -> Vec<String> {
    endings.iter().filter_map(|ending| ending.fault(now)).collect()
}

const CLIENT_CRL: &str = "client_crl";
/// 14 days.
const NOTICE: i64 = 14 * 86400;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const DAY: i64 = 86400;

    fn ending(kind: &'static str, lifetime: i64, left: i64) -> Ending {
        let not_after = NOW.0 + left - 1;
        let validity = Validity { name: "CN=x".into(), not_before: not_after - lifetime, not_after };
        Ending { kind, key: "server.tls.cert_file", validity }
    }

    #[test]
    fn a_certificate_is_warned_about_from_14_days_before_its_end() {
        let soon = |lifetime, left| ending("server_certificate", lifetime, left).ends_soon(NOW);
        assert!(!soon(90 * DAY, 14 * DAY + 1) && soon(90 * DAY, 14 * DAY) && soon(90 * DAY, -1));
        assert!(soon(10 * DAY, 10 * DAY - 1));
        assert!(ending("server_certificate", 90 * DAY, 0).is_over(NOW));
        assert!(!ending("server_certificate", 90 * DAY, 1).is_over(NOW));
    }

    #[test]
    fn a_weekly_revocation_list_is_warned_about_in_its_last_third() {
        let soon = |left| ending(CLIENT_CRL, 7 * DAY, left).ends_soon(NOW);
        assert!(!soon(3 * DAY) && soon(2 * DAY) && soon(-1));
    }

    #[test]
    fn doctor_names_what_has_ended_ends_soon_or_has_not_begun() {
        let fault = |lifetime, left| ending("server_certificate", lifetime, left).fault(NOW);
        assert_eq!(fault(90 * DAY, 20 * DAY), None);
        assert!(fault(90 * DAY, 13 * DAY).is_some_and(|fault| fault.contains("ends at")));
        assert_eq!(fault(DAY, DAY / 2), None, "it lives for a day and is renewed by a program");
        assert!(
            fault(90 * DAY, -1)
                .is_some_and(|fault| fault.starts_with("server.tls.cert_file: the certificate of CN=x ended"))
        );
        assert!(fault(90 * DAY, 91 * DAY).is_some_and(|fault| fault.contains("is not valid before")));
    }
}
