//! Which migrations a database has, and which of them one run applied.

use std::collections::HashSet;

use sqlx::AssertSqlSafe;
use sqlx::migrate::{MigrateError, Migrator};

use super::session::{Session, within};
use super::statement::args;
use super::{StoreError, on};

/// One file and whether it has been applied.
#[derive(Debug, serde::Serialize)]
pub struct MigrationStatus {
    /// `schema` or `seed`.
    pub kind: &'static str,
    /// The number before the underscore.
    pub version: i64,
    /// The name behind it.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Runs what is pending of `migrator`, and returns the versions that this run applied. The caller holds the lock, so nobody
/// else applies anything meanwhile.
pub(super) async fn run(migrator: &Migrator, session: &mut Session) -> Result<HashSet<i64>, MigrateError> {
    let fault = |error: StoreError| MigrateError::Source(error.into());
    let before = applied_versions(session, &migrator.table_name).await.map_err(fault)?;
    on!(Session, session, connection => migrator.run_direct(None, connection, false).await)?;
    let after = applied_versions(session, &migrator.table_name).await.map_err(fault)?;
    Ok(after.difference(&before).copied().collect())
}

/// The migrations of `migrator` whose versions are among `applied`.
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

/// The versions that a table of applied migrations lists; none when it does not exist.
pub(super) async fn applied_versions(session: &mut Session, table: &str) -> Result<HashSet<i64>, StoreError> {
    if !has_table(session, table).await? {
        return Ok(HashSet::new());
    }
    let sql = AssertSqlSafe(format!("select version from {table}"));
    let applied: Vec<(i64,)> = within(session.fetch(sql, &[])).await?;
    Ok(applied.into_iter().map(|(version,)| version).collect())
}

/// Whether the database has a table of this name where the session looks first.
pub(super) async fn has_table(session: &mut Session, name: &str) -> Result<bool, StoreError> {
    let sql = match session {
        Session::Postgres(_) => "select count(*) from pg_class where oid = to_regclass($1)",
        Session::Sqlite(_) => "select count(*) from sqlite_master where type = 'table' and name = $1",
    };
    Ok(within(session.count(sql, &args![name])).await? > 0)
}

/// What a fault of migrating says about the database.
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
