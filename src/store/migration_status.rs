//! Migrations that a database has, and those that one run applied.

use std::collections::{HashMap, HashSet};

use sqlx::AssertSqlSafe;
use sqlx::migrate::{MigrateError, Migrator};

use super::session::{Session, within};
use super::statement::args;
use super::{StoreError, on};

/// Migration or seed, and whether it has been applied.
#[derive(Debug, serde::Serialize)]
pub struct MigrationStatus {
    /// `schema` or `seed`.
    pub kind: &'static str,
    /// Version: the number before the underscore of the file name.
    pub version: i64,
    /// Name: the part after the underscore.
    pub name: String,
    /// Whether it has been applied.
    pub applied: bool,
}

/// Applies the pending migrations of `migrator`, and returns their versions. The caller holds the lock, so no other
/// process applies any.
pub(super) async fn run(migrator: &Migrator, session: &mut Session) -> Result<HashSet<i64>, MigrateError> {
    let fault = |error: StoreError| MigrateError::Source(error.into());
    let before = applied_migrations(session, &migrator.table_name).await.map_err(fault)?;
    on!(Session, session, connection => migrator.run_direct(None, connection, false).await)?;
    let after = applied_migrations(session, &migrator.table_name).await.map_err(fault)?;
    Ok(after.into_keys().filter(|version| !before.contains_key(version)).collect())
}

/// Returns the migrations of `migrator` whose versions are in `applied`.
pub(super) fn statuses(kind: &'static str, migrator: &Migrator, applied: &HashSet<i64>) -> Vec<MigrationStatus> {
    let of_this_run = migrator.iter().filter(|migration| applied.contains(&migration.version));
    of_this_run
        .map(|migration| MigrationStatus {
            kind,
            version: migration.version,
            name: migration.description.to_string(),
            applied: true,
        })
        .collect()
}

/// Returns the versions and names in a table of applied migrations; none when the table does not exist.
pub(super) async fn applied_migrations(session: &mut Session, table: &str) -> Result<HashMap<i64, String>, StoreError> {
    if !has_table(session, table).await? {
        return Ok(HashMap::new());
    }
    let sql = AssertSqlSafe(format!("select version, description from {table}"));
    let applied: Vec<(i64, String)> = within(session.fetch(sql, &[])).await?;
    Ok(applied.into_iter().collect())
}

/// Whether the database has a table of this name, in the schema that the session looks in first.
pub(super) async fn has_table(session: &mut Session, name: &str) -> Result<bool, StoreError> {
    let sql = match session {
        Session::Postgres(_) => "select count(*) from pg_class where oid = to_regclass($1)",
        Session::Sqlite(_) => "select count(*) from sqlite_master where type = 'table' and name = $1",
    };
    Ok(within(session.count(sql, &args![name])).await? > 0)
}

/// Turns an error of sqlx's migrator into a [`StoreError`].
pub(super) fn store_error(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        MigrateError::Source(source) => match source.downcast::<StoreError>() {
            Ok(error) => *error,
            Err(source) => StoreError::Schema(source.to_string()),
        },
        other => StoreError::Schema(other.to_string()),
    }
}
