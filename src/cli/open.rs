//! Opens the database for a command: to read it, to change it, or to create it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::bail;

use super::Shell;
use crate::admin::{Admin, Policy};
use crate::config::{Config, ConfigError};
use crate::model::time::Clock;
use crate::serve::{prepare, sealing_key};
use crate::store::migrations::Schema;
use crate::store::{Database, Store, StoreError};

/// Purpose for which a command opens the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The command only reads. It creates no file, directory or key, and changes no schema.
    Read,
    /// The command changes registrations, so the database has to exist: on a new one it would fail, or report a
    /// revocation that revoked nothing.
    Change,
    /// The command registers something, which may be the first thing in a new embedded database.
    Create,
}

impl Shell {
    /// Opens the administration of the configured database. An embedded database is migrated unless the command only
    /// reads; PostgreSQL has to be up to date.
    pub(super) async fn admin(&self, purpose: Purpose) -> anyhow::Result<Admin> {
        let mut config = self.config()?;
        if purpose == Purpose::Read {
            config.sealing = config.sealing.of_existing();
        }
        match missing(&config.database) {
            Some(path) if purpose != Purpose::Create => return Err(self.no_database(&config, path).into()),
            Some(_) => self.make_database(&config)?,
            None => {}
        }
        // A command runs one statement at a time.
        let store = Store::open(&config.database, 1).of_command();
        match (&config.database, store.schema().await?) {
            (_, Schema::Usable | Schema::Newer { .. }) => {}
            (Database::Sqlite(_), Schema::Older { .. }) if purpose != Purpose::Read => {
                drop(prepare::prepare_database(&config, &store).await?);
            }
            (_, Schema::Older { pending }) => {
                bail!("the database lacks {pending} schema migrations: run `grantd migrate`")
            }
        }
        Ok(administration(&config, store).await?)
    }

    /// Creates the file of a missing embedded database, and reports it, since the directory may be the wrong one.
    pub(super) fn make_database(&self, config: &Config) -> anyhow::Result<()> {
        if let Some(path) = missing(&config.database) {
            prepare::make_room(config)?;
            self.info(&format!("note: created a new, empty database: {}", absolute(path)))?;
        }
        Ok(())
    }

    /// Returns the error of a command whose database does not exist.
    fn no_database(&self, config: &Config, path: &Path) -> ConfigError {
        let key = if config.database_by_default { "data_dir" } else { "database.url" };
        let remedy = format!(
            "there is no database at {}; {} or, to create a new one there, run `grantd migrate`",
            absolute(path),
            if config.database_by_default {
                "run the command in the directory of the server, name the server's data_dir or database.url (with --config FILE or in the environment),"
            } else {
                "name the file of the server"
            }
        );
        ConfigError { key: key.to_owned(), origin: self.sources.origin(key), remedy }
    }
}

/// Returns the administration of an open database, by the database's clock.
pub(super) async fn administration(config: &Config, store: Store) -> Result<Admin, StoreError> {
    let ahead = store.now().await?.0 - Clock::System.now().0;
    Ok(assembled(config, store, Clock::Shifted(ahead)))
}

/// Returns the administration of a database that may not exist, for use cases that need none.
pub(super) fn without_database(config: &Config) -> Admin {
    assembled(config, Store::open(&config.database, 1), Clock::System)
}

fn assembled(config: &Config, store: Store, clock: Clock) -> Admin {
    let issuer = config.issuer.clone().unwrap_or_default();
    let policy = Policy {
        profile: config.profile,
        argon2: config.argon2,
        secret_max_age: config.secret_max_age,
        defaults: config.defaults(&issuer),
        issuer,
        rotate_every: config.rotate_every,
        max_stale: config.registry.max_stale,
        fully_specified: config.fully_specified,
        has_client_ca: config.client_certificates.files.ca.is_some(),
        has_certificate_listener: config.client_certificates.mtls.is_some(),
        certificates_by_proxy: config.client_certificates.header,
    };
    let (settings, known) = (config.sealing.clone(), OnceLock::new());
    // Read once: a command may ask a KMS.
    let sealing_key = move || match known.get() {
        Some(key) => Ok(Arc::clone(key)),
        None => {
            let key = Arc::new(sealing_key::read(&settings)?);
            Ok(Arc::clone(known.get_or_init(|| key)))
        }
    };
    Admin::new(store, clock, policy, Box::new(sealing_key))
}

/// Returns the file of an embedded database when it does not exist.
pub(super) fn missing(database: &Database) -> Option<&Path> {
    match database {
        Database::Sqlite(path) if !path.exists() => Some(path),
        Database::Sqlite(_) | Database::Postgres(_) => None,
    }
}

/// Returns the absolute form of a path.
pub(super) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
