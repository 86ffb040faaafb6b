//! The files of `database.seeds`: SQL that registers clients, applied once each, in order.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::migrate::{Migration, MigrationType};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

/// Error of a seed file or of the directory.
#[derive(Debug)]
pub(super) struct SeedFault {
    /// The file or directory.
    pub(super) path: String,
    /// The fault and the remedy.
    pub(super) reason: String,
}

/// Seed file that has been read.
pub(super) struct Seed {
    /// Version: the number before the underscore of the file name.
    pub(super) version: i64,
    /// Name: the part after the underscore.
    pub(super) name: String,
    /// Path of the file.
    pub(super) path: PathBuf,
    sql: String,
}

impl Seed {
    /// Turns the seed into a migration of sqlx.
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

/// Finds the first line that is a command of psql, with its number. Other lines that begin with a backslash may be part of
/// a text.
fn command_of_psql(sql: &str) -> Option<(usize, &str)> {
    sql.lines().enumerate().find_map(|(at, line)| {
        let command = line.split_whitespace().next()?;
        PSQL.contains(&command).then_some((at + 1, command))
    })
}

/// Commands of psql that dumps and scripts have.
const PSQL: [&str; 10] =
    [r"\restrict", r"\unrestrict", r"\connect", r"\c", r"\set", r"\i", r"\ir", r"\copy", r"\echo", r"\."];

/// Reads all files `<number>_<name>.sql`. A file with another name is an error and is not skipped silently.
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
            return Err(fault(&path, format!("has the same number as {}; give it another one", twin.path.display())));
        }
        let sql = fs::read_to_string(&path).map_err(|error| fault(&path, error.to_string()))?;
        // Some editors write a byte order mark, which is no SQL.
        let sql = sql.strip_prefix('\u{feff}').map_or_else(|| sql.clone(), str::to_owned);
        if let Some((line, command)) = command_of_psql(&sql) {
            return Err(fault(
                &path,
                format!(
                    "line {line} is `{command}`, a command of psql and no SQL; remove the lines that begin with a backslash, which pg_dump writes, and write COPY as INSERT (pg_dump --inserts)"
                ),
            ));
        }
        seeds.push(Seed { version, name, path, sql });
    }
    seeds.sort_by_key(|seed| seed.version);
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_psql_is_told_from_sql() {
        assert_eq!(command_of_psql("-- a dump\n\\restrict Ab12\nselect 1;"), Some((2, "\\restrict")));
        assert_eq!(command_of_psql("copy client from stdin;\nx\n\\.\n"), Some((3, "\\.")));
        for sql in ["", "select 1;", "select '\\restrict';", "select '\n\\d+ digits';"] {
            assert_eq!(command_of_psql(sql), None, "{sql}");
        }
    }
}
