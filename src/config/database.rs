//! Choice of the database: `database.url`, `database.url_file`, `DATABASE_URL`, or the embedded one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::{ConfigError, SettingRef, Settings, Sources, postgres_url, read_secret};
use crate::store::Database;
use crate::store::pooling::Pooling;
use crate::store::servers::Servers;

/// The chosen database.
pub(super) struct DatabaseChoice {
    pub(super) database: Database,
    /// Whether no setting names it.
    pub(super) by_default: bool,
    pub(super) url_file: Option<UrlFile>,
}

/// `database.url_file` and the URL that was read from it.
#[derive(Debug, Clone)]
pub struct UrlFile {
    /// The file.
    pub path: PathBuf,
    /// The URL in the file, with its password.
    pub url: SecretString,
}

impl UrlFile {
    /// Reads the file again, since its password may have been rotated. `None` when nothing has changed.
    ///
    /// # Errors
    /// The fault of the file. The message does not quote it.
    pub fn reread(&mut self) -> Result<Option<Servers>, String> {
        let url = read_url(&self.path)?;
        if url.expose_secret() == self.url.expose_secret() {
            return Ok(None);
        }
        self.url = url;
        let servers = postgres_url::parse(self.url.expose_secret(), &HashMap::new());
        servers.map(Some).map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

fn read_url(path: &Path) -> Result<SecretString, String> {
    let url = read_secret(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if url.trim().is_empty() {
        return Err(format!("{}: the file is empty; write the URL into it", path.display()));
    }
    Ok(url.trim().into())
}

/// Chooses the database: `database.url` or `database.url_file`, else `DATABASE_URL`, else a file in `data_dir`.
pub(super) fn database(settings: &Settings, sources: &Sources) -> Result<DatabaseChoice, ConfigError> {
    let at = SettingRef { key: "database.url", sources };
    let configured = match (&settings.database.url, &settings.database.url_file) {
        (Some(_), file) if !file.as_os_str().is_empty() => {
            return Err(at.wrong("set database.url or database.url_file, not both"));
        }
        (Some(url), _) => Some((at, url.clone(), None)),
        (None, file) if !file.as_os_str().is_empty() => {
            let at = SettingRef { key: "database.url_file", sources };
            let url = read_url(file).map_err(|remedy| at.wrong(&remedy))?;
            Some((at, url.clone(), Some(UrlFile { path: file.clone(), url })))
        }
        (None, _) => sources.database_url().map(|url| (at, url.into(), None)),
    };
    let Some((at, url, url_file)) = configured else {
        if let Some(name) = sources.similar_to_database_url() {
            return Err(at.wrong(&format!("no database is configured, but {name} is set; write DATABASE_URL")));
        }
        let database = Database::Sqlite(settings.data_dir.join("grantd.db"));
        return Ok(DatabaseChoice { database, by_default: true, url_file: None });
    };
    let database = named(url.expose_secret(), at, settings, sources)?;
    Ok(DatabaseChoice { database, by_default: false, url_file })
}

/// Parses the URL of a database other than the configured one, with the same pooler.
///
/// # Errors
/// [`ConfigError`] when the text is no URL of a database.
pub fn database_at(url: &str, settings: &Settings, sources: &Sources) -> Result<Database, ConfigError> {
    named(url, SettingRef { key: "database.url", sources }, settings, sources)
}

fn named(url: &str, at: SettingRef<'_>, settings: &Settings, sources: &Sources) -> Result<Database, ConfigError> {
    if url.is_empty() {
        return Err(at.wrong("set, but empty; give it a value or remove it"));
    }
    let pooling = SettingRef { key: "database.pooling", sources }.one_of(
        &settings.database.pooling,
        &[Pooling::Session, Pooling::Transaction].map(|pooling| (pooling.as_str(), pooling)),
    )?;
    Ok(match url.strip_prefix("sqlite:") {
        Some(path) => Database::Sqlite(sqlite(path).map_err(|remedy| at.wrong(remedy))?),
        None => {
            let servers = postgres_url::parse(url, &sources.environment).map_err(|remedy| at.wrong(&remedy))?;
            Database::Postgres(Box::new(Servers { pooling, ..servers }))
        }
    })
}

fn sqlite(path: &str) -> Result<PathBuf, &'static str> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.contains('?') {
        return Err("a sqlite URL is a path without parameters, such as sqlite:/var/lib/grantd/grantd.db");
    }
    if path.is_empty() || path.contains(":memory:") {
        return Err("name a file, such as sqlite:/var/lib/grantd/grantd.db");
    }
    Ok(path.into())
}
