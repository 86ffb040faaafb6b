//! What operators see: structured events as JSON or text, and metrics.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;
use crate::http::log::Counts;
use crate::protocol::AuthorizationServer;
use crate::store::Store;

/// Logging in progress. Dropping it writes the last lines.
pub struct Logging {
    _worker: WorkerGuard,
    dropped: ErrorCounter,
}

/// Starts logging: to stdout for a daemon, to stderr for a command whose stdout is data. `RUST_LOG` chooses the level over
/// `level`. No level shows a secret: types that hold one do not print it.
///
/// Lines are written by a thread of their own, so that a reader that has stalled costs lines and not tokens; lines that
/// had to be dropped are counted.
#[must_use]
pub fn start(format: LogFormat, daemon: bool, level: &str) -> Logging {
    let terminal = if daemon { io::stdout().is_terminal() } else { io::stderr().is_terminal() };
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => daemon && !terminal,
    };
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(65_536).thread_name("log");
    let (writer, worker) = if daemon { builder.finish(io::stdout()) } else { builder.finish(io::stderr()) };
    let dropped = writer.error_counter();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    if json {
        subscriber.json().flatten_event(true).init();
    } else {
        subscriber.with_ansi(terminal).init();
    }
    // A panic is an event like any other. Its message may quote input, so only its place is told.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
        tracing::error!(event = "internal", reason = "panic", at);
    }));
    Logging { _worker: worker, dropped }
}

/// A function that writes all metrics in the text format of OpenMetrics.
#[must_use]
pub fn metrics(
    logging: &Logging,
    server: &Arc<AuthorizationServer>,
    store: &Store,
    counts: &Counts,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    let mut registry = Registry::with_prefix("grantd");
    let (age, clients, broken, dropped): (Gauge<f64, AtomicU64>, Gauge, Gauge, Gauge) = Default::default();
    registry.register(
        "token_requests",
        "Token requests by result, reason and authentication method",
        counts.token_requests.clone(),
    );
    registry.register("token_request_seconds", "Time to answer a token request", counts.token_seconds.clone());
    registry.register(
        "basic_reading",
        "Basic secrets that matched, by encoding: raw ones come from clients that do not form-encode",
        counts.basic_readings.clone(),
    );
    registry.register(
        "argon2_verifications",
        "argon2 hashes computed",
        server.authenticator.lane.verifications.clone(),
    );
    registry.register("argon2_queue_depth", "Secrets waiting to be checked", server.authenticator.lane.depth.clone());
    registry.register("signing_seconds", "Time to make and sign a token", server.signing_seconds.clone());
    registry.register("database_queries", "Statements sent to the database", store.queries.clone());
    registry.register(
        "registry_age_seconds",
        "Time since the database last confirmed what is in memory; -1 before it did",
        age.clone(),
    );
    registry.register("registry_clients", "Clients in memory", clients.clone());
    registry.register("registry_malformed", "Rows that cannot be understood; grantd doctor names them", broken.clone());
    registry.register("log_lines_dropped", "Log lines lost because their reader stalled", dropped.clone());
    let (server, lost) = (Arc::clone(server), logging.dropped.clone());
    Arc::new(move || {
        dropped.set(i64::try_from(lost.dropped_lines()).unwrap_or(i64::MAX));
        age.set(server.registry.age().map_or(-1.0, |age| age.as_secs_f64()));
        let snapshot = server.registry.snapshot();
        clients.set(i64::try_from(snapshot.client_count()).unwrap_or(i64::MAX));
        broken.set(i64::try_from(snapshot.broken().len()).unwrap_or(i64::MAX));
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            tracing::error!(event = "internal", reason = "metrics", "the metrics could not be written");
        }
        text
    })
}
