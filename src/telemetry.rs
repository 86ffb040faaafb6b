//! What operators see: structured events as JSON or text, and metrics.

mod filter;
mod json;
mod lines;
pub mod printable;
mod process;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;
use crate::http::log::Counts;
use crate::protocol::AuthorizationServer;
use crate::store::Store;
use json::Json;
use lines::{Lines, Writer};
use process::Process;

pub use filter::Filter;

/// Logging in progress. Dropping it writes the last lines.
pub struct Logging {
    _writer: Writer,
    lines: Lines,
}

/// Starts logging: to stdout for a daemon, to stderr for a command whose stdout is data. No level shows a secret: types
/// that hold one do not print it.
///
/// # Errors
/// When the system gives no thread to write with.
pub fn start(format: LogFormat, daemon: bool, filter: Filter) -> io::Result<Logging> {
    let terminal = if daemon { io::stdout().is_terminal() } else { io::stderr().is_terminal() };
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => daemon && !terminal,
    };
    let (lines, writer) = if daemon { Lines::to(io::stdout())? } else { Lines::to(io::stderr())? };
    let Filter { events: filter, silent } = filter;
    if daemon && silent {
        // The one thing that is still told; the reader of stderr may have gone.
        drop(writeln!(io::stderr(), "grantd: RUST_LOG switches the log off: no event is written"));
    }
    if json {
        tracing_subscriber::registry().with(filter).with(Json(lines.clone())).init();
    } else {
        let text = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone());
        text.with_target(false).with_ansi(terminal).fmt_fields(printable::fields()).init();
    }
    // A panic is an event like any other. Its message may quote input, so only its place is told.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map_or_else(|| "somewhere".to_owned(), ToString::to_string);
        tracing::error!(event = "internal", reason = "panic", at);
    }));
    Ok(Logging { _writer: writer, lines })
}

/// Says in how many seconds the next credential of each kind ends; less than zero for those that have ended.
pub type Ends = Box<dyn Fn() -> Vec<(&'static str, i64)> + Send + Sync>;

/// Label of `grantd_credential_expires_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// A function that writes all metrics in the text format of OpenMetrics.
#[must_use]
pub fn metrics(
    logging: &Logging,
    server: &Arc<AuthorizationServer>,
    store: &Store,
    counts: &Counts,
    ends: Ends,
) -> Arc<dyn Fn() -> String + Send + Sync> {
    let mut registry = Registry::with_prefix("grantd");
    let (age, clients, broken): (Gauge<f64, AtomicU64>, Gauge, Gauge) = Default::default();
    let expires: Family<Kind, Gauge> = Family::default();
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
        "introspections",
        "Questions about tokens by result, reason and method",
        counts.introspections.clone(),
    );
    registry.register(
        "revocations",
        "Requests to revoke a token by result, reason and method",
        counts.revocations.clone(),
    );
    registry.register(
        "verifications",
        "Requests to APIs whose gateways asked, by result and reason",
        counts.verifications.clone(),
    );
    registry.register(
        "connections_refused",
        "Connections and requests refused before a handler, by reason",
        counts.connections_refused.clone(),
    );
    registry.register(
        "argon2_verifications",
        "argon2 hashes computed",
        server.authenticator.lane.verifications.clone(),
    );
    registry.register("argon2_queue_depth", "Secrets waiting to be checked", server.authenticator.lane.depth.clone());
    registry.register("signing_seconds", "Time to make and sign a token", server.signing_seconds.clone());
    registry.register(
        "registry_age_seconds",
        "Time since the database last confirmed what is in memory; -1 before it did",
        age.clone(),
    );
    let skew = register_database(&mut registry, server, store);
    registry.register("registry_clients", "Clients in memory", clients.clone());
    registry.register("registry_malformed", "Rows that cannot be understood; grantd doctor names them", broken.clone());
    registry.register(
        "log_lines_dropped",
        "Log lines lost because their reader stalled or they could not be written",
        logging.lines.dropped().clone(),
    );
    registry.register(
        "credential_expires_seconds",
        "Time until the next credential of each kind ends",
        expires.clone(),
    );
    let built =
        [("version", env!("CARGO_PKG_VERSION")), ("os", std::env::consts::OS), ("arch", std::env::consts::ARCH)];
    registry.register("build", "The program that runs", Info::new(built.to_vec()));
    let mut of_process = Registry::default();
    of_process.register_collector(Box::new(Process));
    let server = Arc::clone(server);
    Arc::new(move || {
        expires.clear();
        for (kind, seconds) in ends() {
            expires.get_or_create(&Kind { kind }).set(seconds);
        }
        age.set(server.registry.age().map_or(-1.0, |age| age.as_secs_f64()));
        skew.set(
            std::time::Duration::from_millis(server.registry.clock_ahead().unsigned_abs())
                .as_secs_f64()
                .copysign(if server.registry.clock_ahead() < 0 { -1.0 } else { 1.0 }),
        );
        let snapshot = server.registry.snapshot();
        clients.set(i64::try_from(snapshot.client_count()).unwrap_or(i64::MAX));
        broken.set(i64::try_from(snapshot.broken().len()).unwrap_or(i64::MAX));
        let mut text = String::new();
        if encode_registry(&mut text, &registry).and_then(|()| encode(&mut text, &of_process)).is_err() {
            tracing::error!(event = "internal", reason = "metrics", "the metrics could not be written");
        }
        text
    })
}

/// Registers what concerns the database. Returns the gauge of the clocks' distance, which is set when metrics are read.
fn register_database(registry: &mut Registry, server: &AuthorizationServer, store: &Store) -> Gauge<f64, AtomicU64> {
    registry.register("database_queries", "Statements sent to the database", store.queries.clone());
    let skew: Gauge<f64, AtomicU64> = Gauge::default();
    registry.register(
        "clock_skew_seconds",
        "How far this machine's clock is ahead of the database's; negative when behind",
        skew.clone(),
    );
    registry.register(
        "database_write_failures",
        "Writes to the database that failed, constraints aside",
        store.health.write_failures.clone(),
    );
    registry.register(
        "registry_history_changes",
        "Databases with another past that were met: restores, failovers that lost changes",
        server.registry.history_changes.clone(),
    );
    registry.register(
        "registry_differences",
        "Whole loads that differed from what was held although nothing had changed",
        server.registry.differences.clone(),
    );
    skew
}
