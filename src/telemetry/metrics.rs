//! The metrics: one variant for each name. `grantd reference` prints this list.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric as MetricValue, Registry};

use super::Logging;
use super::process::ProcessCollector;
use crate::http::log::Counts;
use crate::model::event::Event;
use crate::protocol::AuthorizationServer;
use crate::store::Store;

macro_rules! metrics {
    ($($name:literal $suffix:literal $labels:literal $variant:ident $help:literal)+) => {
        /// Metric of grantd, apart from the metrics of the process.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric { $(#[doc = $help] $variant),+ }

        impl Metric {
            /// Every metric, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name, without `grantd_` and without the suffix that the format adds.
            const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The name as Prometheus stores it, with the names of the labels.
            #[must_use]
            pub const fn sample(self) -> &'static str {
                match self { $(Self::$variant => concat!("grantd_", $name, $suffix, $labels)),+ }
            }

            /// The meaning, with its unit.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),+ }
            }
        }
    };
}

metrics! {
    "token_requests" "_total" "{result,reason,method}" TokenRequests
        "Token requests; `result` is `issued` or `refused`"
    "token_request_seconds" "" "" TokenRequestSeconds
        "Time to answer a token request (histogram)"
    "introspections" "_total" "{result,reason,method}" Introspections
        "Introspection requests; `result` is `active`, `inactive` or `refused`"
    "revocations" "_total" "{result,reason,method}" Revocations
        "Revocation requests; `result` is `done` or `refused`"
    "verifications" "_total" "{result,reason}" Verifications
        "Requests to APIs about which a gateway asked `/verify`; `result` is `passed` or `refused`"
    "basic_reading" "_total" "{reading}" BasicReading
        "Basic secrets that matched: `form`, or `raw` from clients that do not form-encode"
    "connections_refused" "_total" "{reason}" ConnectionsRefused
        "Connections and requests that were refused before they reached an endpoint"
    "argon2_verifications" "_total" "" Argon2Verifications
        "argon2 hashes computed: one for each secret in use since the start, and those for guesses"
    "secret_verifier_mismatches" "_total" "" SecretVerifierMismatches
        "Secrets that were accepted by their verifier and did not match their hash; each is worth an alarm"
    "argon2_queue_depth" "" "" Argon2QueueDepth
        "Secrets that wait to be verified"
    "signing_seconds" "" "" SigningSeconds
        "Time to make and sign a token (histogram)"
    "database_queries" "_total" "" DatabaseQueries
        "Statements sent to the database"
    "database_write_failures" "_total" "" DatabaseWriteFailures
        "Writes to the database that failed, constraint violations aside"
    "clock_skew_seconds" "" "" ClockSkewSeconds
        "Seconds by which this machine's clock is ahead of the database's; negative when it is behind"
    "registry_age_seconds" "" "" RegistryAgeSeconds
        "Time since the database last confirmed the registry; -1 before it ever did"
    "registry_history_changes" "_total" "" RegistryHistoryChanges
        "Databases with another history that were found: restores, and failovers that lost changes"
    "registry_differences" "_total" "" RegistryDifferences
        "Full loads that differed from the registry although no change was announced; each is worth an alarm"
    "registry_clients" "" "" RegistryClients
        "Clients in memory"
    "registry_malformed" "" "" RegistryMalformed
        "Rows that cannot be read; `grantd doctor` names them"
    "status_list_build_seconds" "" "" StatusListBuildSeconds
        "Time to build and sign the status lists (histogram)"
    "status_list_indices" "" "" StatusListIndices
        "Status indices: one for each client, and those whose epoch ended in the last 36 hours"
    "log_lines_dropped" "_total" "" LogLinesDropped
        "Log lines that were lost because their reader stalled or they could not be written"
    "credential_expires_seconds" "" "{kind}" CredentialExpiresSeconds
        "Time until the next credential of a kind expires. Of the configuration, negative once it has expired: `server_certificate`, `mtls_certificate`, `client_ca`, `client_crl`, `jwks_uri_ca`. Of enabled clients, those that have not expired: `client_secret`, `client_key`, `client_certificate`, `federation_rule`, and `client` for the clients themselves. A kind of which nothing expires is absent"
    "key_next_rotation_seconds" "" "{alg}" KeyNextRotationSeconds
        "Time until the next signing key of an algorithm signs (`keys.rotate_every`); negative while a rotation is overdue, absent with `never`"
    "build" "_info" "{version,os,arch}" Build
        "The running program; always 1"
}

/// Registers a metric with its name and help.
fn register(registry: &mut Registry, metric: Metric, value: impl MetricValue) {
    registry.register(metric.name(), metric.help(), value);
}

/// Function that returns, for each kind of credential, the seconds until the next one expires; negative after its
/// expiry.
pub type TimeToExpiry = Box<dyn Fn() -> Vec<(&'static str, i64)> + Send + Sync>;

/// Label of `grantd_credential_expires_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Label of `grantd_key_next_rotation_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlgLabel {
    alg: &'static str,
}

/// Returns a function that writes all metrics in the text format of OpenMetrics.
#[must_use]
pub fn exposition(
    logging: &Logging,
    server: &Arc<AuthorizationServer>,
    store: &Store,
    counts: &Counts,
    time_to_expiry: TimeToExpiry,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    let mut registry = Registry::with_prefix("grantd");
    let (age, clients, broken, indices): (Gauge<f64, AtomicU64>, Gauge, Gauge, Gauge) = Default::default();
    let expires: Family<KindLabel, Gauge> = Family::default();
    register(&mut registry, Metric::TokenRequests, counts.token_requests.clone());
    register(&mut registry, Metric::TokenRequestSeconds, counts.token_seconds.clone());
    register(&mut registry, Metric::BasicReading, counts.basic_readings.clone());
    register(&mut registry, Metric::Introspections, counts.introspections.clone());
    register(&mut registry, Metric::Revocations, counts.revocations.clone());
    register(&mut registry, Metric::Verifications, counts.verifications.clone());
    register(&mut registry, Metric::ConnectionsRefused, counts.connections_refused.clone());
    register(&mut registry, Metric::Argon2Verifications, server.authenticator.lane.verifications.clone());
    register(&mut registry, Metric::SecretVerifierMismatches, server.authenticator.verifier_mismatches.clone());
    register(&mut registry, Metric::Argon2QueueDepth, server.authenticator.lane.depth.clone());
    register(&mut registry, Metric::SigningSeconds, counts.signing_seconds.clone());
    register(&mut registry, Metric::RegistryAgeSeconds, age.clone());
    let skew = register_database(&mut registry, server, store);
    register(&mut registry, Metric::RegistryClients, clients.clone());
    register(&mut registry, Metric::RegistryMalformed, broken.clone());
    register(&mut registry, Metric::StatusListBuildSeconds, server.status_lists.build_seconds.clone());
    register(&mut registry, Metric::StatusListIndices, indices.clone());
    register(&mut registry, Metric::LogLinesDropped, logging.lines.dropped().clone());
    register(&mut registry, Metric::CredentialExpiresSeconds, expires.clone());
    let rotations: Family<AlgLabel, Gauge> = Family::default();
    register(&mut registry, Metric::KeyNextRotationSeconds, rotations.clone());
    let built =
        [("version", env!("CARGO_PKG_VERSION")), ("os", std::env::consts::OS), ("arch", std::env::consts::ARCH)];
    register(&mut registry, Metric::Build, Info::new(built.to_vec()));
    let mut of_process = Registry::default();
    of_process.register_collector(Box::new(ProcessCollector));
    let server = Arc::clone(server);
    Arc::new(move || {
        expires.clear();
        for (kind, seconds) in time_to_expiry() {
            expires.get_or_create(&KindLabel { kind }).set(seconds);
        }
        rotations.clear();
        let now = server.database_time();
        for (alg, next) in server.keyring.next_rotations(now) {
            let alg = server.keyring.alg_name(alg);
            rotations.get_or_create(&AlgLabel { alg }).set(next.due_at.0.saturating_sub(now.0));
        }
        age.set(server.registry.age().map_or(-1.0, |age| age.as_secs_f64()));
        skew.set(
            std::time::Duration::from_millis(server.registry.clock_ahead().unsigned_abs())
                .as_secs_f64()
                .copysign(if server.registry.clock_ahead() < 0 { -1.0 } else { 1.0 }),
        );
        let snapshot = server.registry.snapshot();
        clients.set(i64::try_from(snapshot.client_count()).unwrap_or(i64::MAX));
        indices.set(i64::try_from(server.status_indices()).unwrap_or(i64::MAX));
        broken.set(i64::try_from(snapshot.malformed().len()).unwrap_or(i64::MAX));
        let mut text = String::new();
        if encode_registry(&mut text, &registry).and_then(|()| encode(&mut text, &of_process)).is_err() {
            tracing::error!(event = Event::Internal.as_str(), reason = "metrics", "the metrics could not be written");
        }
        text
    })
}

/// Registers the metrics of the database. Returns the gauge of the clock skew, which is set when metrics are read.
fn register_database(registry: &mut Registry, server: &AuthorizationServer, store: &Store) -> Gauge<f64, AtomicU64> {
    register(registry, Metric::DatabaseQueries, store.queries.clone());
    let skew: Gauge<f64, AtomicU64> = Gauge::default();
    register(registry, Metric::ClockSkewSeconds, skew.clone());
    register(registry, Metric::DatabaseWriteFailures, store.health.write_failures.clone());
    register(registry, Metric::RegistryHistoryChanges, server.registry.history_changes.clone());
    register(registry, Metric::RegistryDifferences, server.registry.differences.clone());
    skew
}
