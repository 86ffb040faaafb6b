//! What has to be there before a server or a command can work: the database's schema, its file, the sealing key.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlx::postgres::PgSslMode;

use crate::config::{Config, ConfigError, read_secret};
use crate::crypto::seal::SealingKey;
use crate::registry::feed::Owed;
use crate::store::migrations::Schema;
use crate::store::{Database, Store, StoreError};

/// Brings schema and seeds up to date, or refuses to run on what is not. Returns what is still to be done when the
/// database cannot be reached.
///
/// # Errors
/// When the schema is older and may not be migrated here, or migrating fails.
pub async fn prepare_database(config: &Config, store: &Store) -> anyhow::Result<Option<Owed>> {
    let made = make_room(&config.database)?;
    if let Database::Sqlite(path) = &config.database {
        if made {
            tracing::warn!(event = "database.made", path = %path.display(), "made a new, empty database");
        }
        if config.database_by_default {
            tracing::warn!(event = "database.embedded", path = %path.display(), "no database is configured: using the embedded one. For production set database.url to PostgreSQL");
        }
    } else if let Database::Postgres(options) = &config.database
        && !matches!(options.get_host(), "localhost" | "127.0.0.1" | "::1")
        && !options.get_host().starts_with('/')
        && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
    {
        tracing::warn!(
            event = "database.unverified",
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
            tracing::error!(event = "registry.trouble", reason = %error, "starting without the database; not ready until it is there");
            Ok(config.auto_migrate.then(|| Owed { database: config.database.clone(), seeds: config.seeds.clone() }))
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
                    event = "database.newer_schema",
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
                event = "registry.trouble",
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

/// Reads the sealing key; beside an embedded database that has none, makes one and says so.
///
/// # Errors
/// When it cannot be read, or made.
pub fn sealing_key(config: &Config) -> anyhow::Result<SealingKey> {
    let path = &config.sealing_key_file;
    if config.make_sealing_key && !path.exists() {
        make_directory(path.parent().unwrap_or(Path::new(".")))?;
        let text = SealingKey::generate_base64()?;
        // Written whole under another name, then linked: a process that starts beside us reads all of it or finds nothing.
        let unfinished = path.with_extension(format!("{}.new", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .with_context(|| unfinished.display().to_string())?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| unfinished.display().to_string())?;
        match fs::hard_link(&unfinished, path) {
            Ok(()) => {
                tracing::warn!(event = "key.sealing_key_made", path = %path.display(), "made a sealing key; back it up, the signing keys are lost without it");
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
        fs::remove_file(&unfinished).with_context(|| unfinished.display().to_string())?;
    }
    let wrong =
        |error: &dyn std::fmt::Display| config_error("keys.sealing_key_file", &format!("{}: {error}", path.display()));
    let text = zeroize::Zeroizing::new(read_secret(path).map_err(|error| wrong(&error))?);
    Ok(SealingKey::from_base64(&text).map_err(|error| wrong(&error))?)
}

/// Makes the file of an embedded database, readable by its owner alone, and its directory. Returns whether it was missing.
///
/// # Errors
/// When it cannot be made.
pub fn make_room(database: &Database) -> anyhow::Result<bool> {
    let Database::Sqlite(path) = database else { return Ok(false) };
    make_directory(path.parent().unwrap_or(Path::new(".")))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("making the data directory {}", path.display()))
}

/// A setting that cannot be used, as the configuration tells it.
pub(super) fn config_error(key: &str, remedy: &dyn std::fmt::Display) -> ConfigError {
    ConfigError { key: key.to_owned(), origin: "as configured".to_owned(), remedy: remedy.to_string() }
}

/// How long a start waits for `grantd migrate` before it gives up.
const SCHEMA_PATIENCE: Duration = Duration::from_secs(15);
