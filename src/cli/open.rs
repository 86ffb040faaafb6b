//! Opens the database of a command: to look at it, to change what it holds, or to begin with an empty one.

use std::path::Path;

use anyhow::bail;

use super::Shell;
use crate::config::{Config, ConfigError};
use crate::serve::prepare;
use crate::store::migrations::Schema;
use crate::store::{Database, Store};

/// What a command does with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It only reads. No file, directory or key is made, and no schema is changed.
    Look,
    /// It changes what is registered, so the database has to exist: on a new one it could only fail, or claim that it
    /// revoked something.
    Change,
    /// It registers something, which may be the first thing in a new embedded database.
    Create,
}

impl Shell {
    /// The configuration and the store, ready to work on. An embedded database is brought up to date unless the command
    /// only looks; PostgreSQL has to be.
    pub(super) async fn store(&self, purpose: Purpose) -> anyhow::Result<(Config, Store)> {
        let mut config = self.config()?;
        config.make_sealing_key &= purpose != Purpose::Look;
        match missing(&config.database) {
            Some(path) if purpose != Purpose::Create => return Err(self.no_database(&config, path).into()),
            Some(_) => self.make_database(&config)?,
            None => {}
        }
        let store = Store::open(&config.database, 2);
        match (&config.database, store.schema().await?) {
            (_, Schema::Usable | Schema::Newer { .. }) => {}
            (Database::Sqlite(_), Schema::Older { .. }) if purpose != Purpose::Look => {
                drop(prepare::prepare_database(&config, &store).await?);
            }
            (_, Schema::Older { pending }) => {
                bail!("the database lacks {pending} schema migrations: run `grantd migrate`")
            }
        }
        self.set_clock(&store).await?;
        Ok((config, store))
    }

    /// Makes the file of an embedded database that does not exist, and says so: it may be the wrong directory.
    pub(super) fn make_database(&self, config: &Config) -> anyhow::Result<()> {
        if let Some(path) = missing(&config.database) {
            prepare::make_room(config)?;
            self.say(&format!("note: made a new, empty database: {}", absolute(path)))?;
        }
        Ok(())
    }

    /// The error of a command that needs a database where none exists.
    fn no_database(&self, config: &Config, path: &Path) -> ConfigError {
        let key = if config.database_by_default { "data_dir" } else { "database.url" };
        let remedy = format!(
            "there is no database at {}; {} or, to make a new one there, run `grantd migrate`",
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

/// The file of an embedded database, when it does not exist.
pub(super) fn missing(database: &Database) -> Option<&Path> {
    match database {
        Database::Sqlite(path) if !path.exists() => Some(path),
        Database::Sqlite(_) | Database::Postgres(_) => None,
    }
}

/// A path as it is found from anywhere.
pub(super) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
