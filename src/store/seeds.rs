//! The files of `database.seeds`: SQL that registers clients, applied once each, in order.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::migrate::{Migration, MigrationType};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

/// A seed that cannot be read.
#[derive(Debug)]
pub(super) struct SeedFault {
    /// The file or directory.
    pub(super) path: String,
    /// What is wrong and what to do.
    pub(super) reason: String,
}

/// A seed that has been read.
pub(super) struct Seed {
    /// The number before the underscore.
    pub(super) version: i64,
    /// The name behind it.
    pub(super) name: String,
    /// Where it stands.
    pub(super) path: PathBuf,
    sql: String,
}

impl Seed {
    /// The seed as sqlx applies it.
    pub(super) fn into_migration(self) -> Migration {
        Migration::new(
            self.version,
            self.name.into(),
            MigrationType::Simple,
            AssertSqlSafe(self.sql).into_sql_str(),
            false,
        )
    }
}

/// Reads `<number>_<name>.sql`, all of them: a file that would be passed over in silence is an error.
pub(super) fn read_seeds(directory: &Path) -> Result<Vec<Seed>, SeedFault> {
    let fault = |path: &Path, reason: String| SeedFault { path: path.display().to_string(), reason };
    let entries =
        fs::read_dir(directory).map_err(|error| fault(directory, format!("database.seeds cannot be read: {error}")))?;
    let mut seeds: Vec<Seed> = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| fault(directory, error.to_string()))?.path();
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if file_name.starts_with('.') || path.is_dir() {
            continue;
        }
        let parsed = file_name.strip_suffix(".sql").and_then(|stem| stem.split_once('_')).and_then(|(number, name)| {
            Some((number.parse::<i64>().ok().filter(|number| *number > 0)?, name.to_owned()))
        });
        let Some((version, name)) = parsed else {
            return Err(fault(&path, "a seed is named <number>_<name>.sql, such as 0010_billing.sql".into()));
        };
        if let Some(twin) = seeds.iter().find(|seed| seed.version == version) {
            return Err(fault(
                &path,
                format!("has the same number as {}; give it the next free one", twin.path.display()),
            ));
        }
        let sql = fs::read_to_string(&path).map_err(|error| fault(&path, error.to_string()))?;
        seeds.push(Seed { version, name, path, sql });
    }
    seeds.sort_by_key(|seed| seed.version);
    Ok(seeds)
}
