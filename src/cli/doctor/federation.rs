//! Checks of `grantd doctor` on trusted issuers, and its advice about the rules of clients.

use futures_util::future::join_all;
use serde::Deserialize;

use super::faults::Faults;
use crate::admin::checkup::FaultKind;
use crate::admin::federation_advice::RuleAdvice;
use crate::admin::{Admin, AdminError};
use crate::cli::Shell;
use crate::cli::admin_listener::AdminListener;
use crate::cli::federation::keys;
use crate::config::Config;
use crate::model::client_id::in_shell;
use crate::model::federation::trusted_issuer::{KeySource, TrustedIssuer};
use crate::model::time::UnixTime;
use crate::store::{Store, StoreError};

/// Names trusted issuers whose rows cannot be read.
pub(super) async fn examine(store: &Store, faults: &mut Faults) -> Result<(), StoreError> {
    let issuers = store.trusted_issuers().await?;
    issuers.into_iter().filter_map(Result::err).for_each(|fault| faults.push(fault.to_string()));
    Ok(())
}

/// Returns advice about rules, and about issuers whose keys cannot be fetched, now or by the running server.
pub(super) async fn advice(
    shell: &Shell,
    config: &Config,
    admin: &Admin,
    store: &Store,
) -> Result<Vec<String>, AdminError> {
    let mut advice = Faults::default();
    for (stored, about) in admin.rule_advice().await? {
        let (client, rule) = (&stored.client_id, &stored.rule);
        let word = in_shell(client);
        let mend = match &about {
            RuleAdvice::NoIssuer(issuer) => format!("`grantd trusted-issuer create {}` registers it", in_shell(issuer)),
            RuleAdvice::IssuerDisabled(issuer) => {
                format!("`grantd trusted-issuer enable {}` enables it", in_shell(issuer))
            }
            RuleAdvice::Unsafe(_) | RuleAdvice::Weak(_) => {
                format!("`grantd client federation add {word}` adds a narrower one")
            }
            RuleAdvice::NeverUsed(_) | RuleAdvice::Unused(_) => {
                format!("`grantd client federation remove {word} {}` removes it", rule.rule_id)
            }
        };
        let kind = match &about {
            RuleAdvice::NoIssuer(_) | RuleAdvice::IssuerDisabled(_) | RuleAdvice::Unsafe(_) => FaultKind::DeadRule,
            RuleAdvice::Weak(_) => FaultKind::WeakRule,
            RuleAdvice::NeverUsed(_) | RuleAdvice::Unused(_) => FaultKind::UnusedRule,
        };
        advice.add(kind, client, || format!("client {client}: rule {}: {about}; {mend}", rule.rule_id));
    }
    // A row that cannot be read is named by `examine`.
    let issuers = store.trusted_issuers().await?.into_iter().filter_map(Result::ok);
    let publishes = |issuer: &TrustedIssuer| issuer.enabled && !matches!(issuer.keys, KeySource::Pinned(_));
    let issuers: Vec<TrustedIssuer> = issuers.filter(publishes).collect();
    for together in issuers.chunks(AT_ONCE) {
        let found = join_all(together.iter().map(|issuer| keys::fetch(config, issuer))).await;
        for (issuer, fault) in together.iter().zip(found).filter_map(|(issuer, found)| Some((issuer, found.err()?))) {
            advice.push(format!(
                "trusted issuer {}: its keys cannot be fetched now, and servers use those that they have for an hour: {fault:#}",
                issuer.issuer
            ));
        }
    }
    let stale = if issuers.is_empty() { Vec::new() } else { stale_at_server(shell).await };
    for StaleKeys { issuer, fetched_at } in stale {
        if issuers.iter().any(|known| *known.issuer == *issuer) {
            let since = fetched_at.map_or_else(
                || "has never fetched its keys".to_owned(),
                |at| format!("has keys of {}, which are older than an hour", UnixTime(at)),
            );
            advice.push(format!(
                "trusted issuer {issuer}: the running server {since}, so it refuses the issuer's tokens; its event issuer.keys_trouble says why"
            ));
        }
    }
    Ok(advice.into_lines())
}

/// The part of `/readyz` that is about issuers.
#[derive(Deserialize)]
struct Readiness {
    stale_issuer_keys: Vec<StaleKeys>,
}

/// Issuer whose keys the running server could not fetch.
#[derive(Deserialize)]
struct StaleKeys {
    issuer: String,
    fetched_at: Option<i64>,
}

/// Asks the server that runs with this configuration on this machine. None may run here, or an older grantd.
async fn stale_at_server(shell: &Shell) -> Vec<StaleKeys> {
    let Ok(listener) = AdminListener::of(&shell.sources) else { return Vec::new() };
    let Ok((_, body)) = listener.get("/readyz").await else { return Vec::new() };
    // The answer of an older grantd lacks the member, or is something else.
    serde_json::from_str::<Readiness>(&body).map(|ready| ready.stale_issuer_keys).unwrap_or_default()
}

/// Number of issuers whose keys are fetched at once.
const AT_ONCE: usize = 16;
