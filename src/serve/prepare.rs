//! The preconditions of a server or a command: the database's schema and its file.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use sqlx::postgres::PgSslMode;

use crate::config::{Config, ConfigError, user};
use crate::model::event::Event;
use crate::state::registry::feed::PendingMigrations;
use crate::store::migrations::Schema;
use crate::store::{Database, Store, StoreError};

/// Brings schema and seeds up to date, or refuses to run on what is not. Returns what is still to be done when the
/// database cannot be reached.
///
/// # Errors
/// When the schema is older and may not be migrated here, or migrating fails.
pub async fn prepare_database(config: &Config, store: &Store) -> anyhow::Result<Option<PendingMigrations>> {
    let made = make_room(config)?;
    if let Database::Sqlite(path) = &config.database {
        if made {
            tracing::warn!(event = Event::DatabaseMade.as_str(), path = %path.display(), "made a new, empty database");
        }
        if config.database_by_default {
            tracing::warn!(event = Event::DatabaseEmbedded.as_str(), path = %path.display(), "no database is configured: using the embedded one. For production set database.url to PostgreSQL");
        }
    } else if let Database::Postgres(servers) = &config.database
        && servers.all().any(|options| {
            options.get_socket().is_none()
                && !matches!(options.get_host(), "localhost" | "127.0.0.1" | "::1")
                && !options.get_host().starts_with('/')
                && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
        })
    {
        tracing::warn!(
            event = Event::DatabaseUnverified.as_str(),
            "the connection to PostgreSQL does not verify who answers; add sslmode=verify-full&sslrootcert=… to database.url"
        );
    }
    let migrated = if config.auto_migrate {
        match store.migrate(&config.database, config.seeds.as_deref()).await {
            Ok(_) => wait_for_schema(store).await,
            Err(error) => Err(error.into()),
        }
    } else {
        wait_for_schema(store).await
    };
    match migrated {
        Err(error) if unreachable(&error) => {
            tracing::error!(event = Event::DatabaseWaiting.as_str(), reason = %error, "starting without the database; not ready until it is there");
            Ok(config
                .auto_migrate
                .then(|| PendingMigrations { database: config.database.clone(), seeds: config.seeds.clone() }))
        }
        other => other.map(|()| None),
    }
}

/// Waits for the schema: in a cluster the job that migrates often starts beside the servers.
async fn wait_for_schema(store: &Store) -> anyhow::Result<()> {
    let until = Instant::now() + SCHEMA_PATIENCE;
    let mut reported = false;
    loop {
        let pending = match store.schema().await? {
            Schema::Usable => return Ok(()),
            Schema::Newer { by } => {
                tracing::warn!(
                    event = Event::DatabaseNewerSchema.as_str(),
                    by,
                    "a newer grantd has migrated this database; this version works on it too, until the rollout is complete"
                );
                return Ok(());
            }
            Schema::Older { pending } => pending,
        };
        let reason = format!(
            "the database lacks {pending} schema migrations: run `grantd migrate`, or set database.auto_migrate = true"
        );
        if Instant::now() >= until {
            bail!(reason);
        }
        if !std::mem::replace(&mut reported, true) {
            tracing::error!(
                event = Event::DatabaseWaiting.as_str(),
                reason,
                "waiting {} s for the schema",
                SCHEMA_PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Whether an error says no more than that the database is away.
#[must_use]
pub fn unreachable(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<StoreError>().is_some_and(StoreError::is_outage))
}

/// Tells what the server starts with, and what of it is open to doubt.
pub fn announce(config: &Config) {
    let profile = config.profile.as_str();
    match &config.file {
        Some(path) => {
            tracing::info!(event = Event::ConfigFile.as_str(), path = %path.display(), profile, "the configuration file in force");
        }
        None => {
            tracing::info!(
                event = Event::ConfigFile.as_str(),
                profile,
                "no configuration file: environment, flags and defaults are in force"
            );
        }
    }
    if config.behind_proxy && config.trusted_proxies.is_empty() {
        tracing::warn!(
            event = Event::ProxyUntrusted.as_str(),
            "server.cleartext is behind-proxy and server.trusted_proxies is empty: every request seems to come from the proxy, so clients share rate limits, and logs lack their addresses"
        );
    }
    let mtls_key = config.client_certificates.mtls.as_ref().map(|mtls| &mtls.files.key);
    let files = [
        ("keys.sealing_key_file", config.sealing.file()),
        ("keys.sealing_key_previous_file", config.sealing.previous_file.as_deref()),
        ("keys.pkcs11_pin_file", config.pkcs11.as_ref().and_then(|pkcs11| pkcs11.pin_file.as_deref())),
        ("database.url_file", config.database_url_file.as_ref().map(|file| &*file.path)),
        ("server.tls.key_file", config.tls.as_ref().map(|tls| &*tls.key)),
        ("server.mtls.key_file", mtls_key.map(|key| &**key)),
    ];
    for (key, path) in files {
        if let Some(fault) = path.and_then(exposed) {
            tracing::warn!(event = Event::ConfigExposed.as_str(), key, reason = %fault);
        }
    }
}

/// Says so when a file that holds a secret can be read by others than its owner. As for PostgreSQL's own key files, a group
/// may read one that belongs to root, which is how Kubernetes mounts secrets.
#[must_use]
pub fn exposed(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let allowed = if metadata.uid() == 0 { 0o740 } else { 0o700 };
    let mode = metadata.mode() & 0o777;
    (mode & !allowed != 0).then(|| {
        format!(
            "{}: mode {mode:04o} lets others than its owner read it; `chmod {} {}`",
            path.display(),
            if metadata.uid() == 0 { "0640" } else { "0600" },
            path.display()
        )
    })
}

/// Makes the file of an embedded database, readable by its owner alone, and its directory. Returns whether it was missing.
///
/// # Errors
/// When they cannot be made, or not be written.
pub fn make_room(config: &Config) -> Result<bool, ConfigError> {
    let Database::Sqlite(path) = &config.database else { return Ok(false) };
    let wrong = |error: io::Error| unwritable(key_of(config, path), path, &error);
    make_directory(directory_of(path)).map_err(wrong)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => check_room(config).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check_room(config).map(|()| false),
        Err(error) => Err(wrong(error)),
    }
}

/// Whether an embedded database can be written where the configuration puts it. Makes nothing.
///
/// # Errors
/// When it cannot.
pub fn check_room(config: &Config) -> Result<(), ConfigError> {
    let Database::Sqlite(path) = &config.database else { return Ok(()) };
    let wrong = |error: Errno| unwritable(key_of(config, path), path, &error.into());
    // SQLite makes files beside its own, so it is the directory that has to be writable too.
    let there = directory_of(path).ancestors().find(|&directory| !is_absent(directory)).unwrap_or(Path::new(""));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if !there.is_dir() && !is_absent(there) {
        return Err(wrong(access(there, Access::EXEC_OK).err().unwrap_or(Errno::NOTDIR)));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(wrong)?;
    if path.is_dir() {
        return Err(wrong(Errno::ISDIR));
    }
    if is_absent(path) { Ok(()) } else { access(path, Access::READ_OK | Access::WRITE_OK).map_err(wrong) }
}

/// Whether nothing is at a path. What cannot be reached may well be there.
#[must_use]
pub fn is_absent(path: &Path) -> bool {
    !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The setting that puts the embedded database where it is.
fn key_of(config: &Config, path: &Path) -> &'static str {
    if *path == config.data_dir.join("grantd.db") { "data_dir" } else { "database.url" }
}

/// Makes the error of a directory that cannot be written.
pub(super) fn unwritable(key: &str, path: &Path, error: &io::Error) -> ConfigError {
    config_error(
        key,
        &format!(
            "{}: {} cannot write there: {error}; give that user the directory, or name another",
            path.display(),
            user()
        ),
    )
}

/// A setting that cannot be used, as the configuration tells it.
pub(super) fn config_error(key: &str, remedy: &dyn std::fmt::Display) -> ConfigError {
    ConfigError { key: key.to_owned(), origin: "as configured".to_owned(), remedy: remedy.to_string() }
}

/// How long a start waits for `grantd migrate` before it gives up.
const SCHEMA_PATIENCE: Duration = Duration::from_secs(15);
