//! Migrations of the schema, and seeds. Each file is applied once, in order, by one process at a time, as a whole or
//! not at all.

use crate::model::event::Event;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection as _, SqlSafeStr as _};
use tokio::task::JoinHandle;

use super::locks::lock_beside;
use super::migration_status::{applied_migrations, has_table, run, statuses, store_error};
use super::pooling::Pooling;
use super::seeds::{Seed, SeedFault, read_seeds};
use super::server_requirements::refuse_unusable_server;
use super::session::{self, Session, Transaction, within};
use super::{Database, Pool, Store, StoreError, on};

pub use super::migration_status::MigrationStatus;

/// State of a database's schema, compared with this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Missing or older: `grantd migrate` has work to do.
    Older {
        /// Number of missing migrations.
        pending: usize,
    },
    /// The schema of this version.
    Usable,
    /// The schema of a newer version. Migrations only add, so this version works on it too.
    Newer {
        /// Number of migrations that this version does not know.
        by: usize,
    },
}

/// Options of `grantd migrate`.
#[derive(Debug, Clone, Copy)]
pub struct MigrationOptions {
    /// Whether the schema may be put into a database that has tables of other programs.
    pub into_shared_database: bool,
    /// Time for which a statement waits for a lock of another session.
    pub lock_timeout: Duration,
}

impl Default for MigrationOptions {
    fn default() -> Self {
        Self { into_shared_database: false, lock_timeout: Duration::from_mins(1) }
    }
}

/// Errors of migrating. Migrations that were applied before the error stay applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// An error of the database.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A seed file, or the directory of seeds, cannot be used.
    #[error("{path}: {reason}")]
    Seed {
        /// The file or the version.
        path: String,
        /// The fault and the remedy.
        reason: String,
    },
    /// The database has tables, and none of grantd's.
    #[error(
        "{target} holds tables that are not grantd's ({tables}): name another database in database.url, or a schema of its own there (options=-csearch_path%3Dgrantd), or use --into-shared-database"
    )]
    Shared {
        /// The location of the database, without the password.
        target: String,
        /// Names of the first few tables.
        tables: String,
    },
    /// The schema is an unfinished one of a development version.
    #[error(
        "{target} was made by a development version of grantd and lacks later parts of the schema: create a new database, run `grantd migrate` there and register the clients again, or first run `grantd migrate` of the last version that had migration 11_client_ids"
    )]
    Development {
        /// The database, without a password.
        target: String,
    },
    /// A migration of the schema failed.
    #[error("schema migration {version} failed: {reason}")]
    Schema {
        /// The file or the version.
        version: i64,
        /// The database's message.
        reason: String,
    },
}

impl From<SeedFault> for MigrationError {
    fn from(SeedFault { path, reason }: SeedFault) -> Self {
        Self::Seed { path, reason }
    }
}

impl Store {
    /// Compares the schema with this version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn schema(&self) -> Result<Schema, StoreError> {
        let applied = self.applied(SCHEMA_TABLE).await?;
        let ours = self.schema_migrations();
        let pending = ours.iter().filter(|migration| !is_among(migration, &applied)).count();
        let newest = ours.last().map_or(0, |migration| migration.version);
        let by = applied.keys().filter(|version| **version > newest).count();
        Ok(match (pending, by) {
            (0, 0) => Schema::Usable,
            (0, by) => Schema::Newer { by },
            (pending, _) => Schema::Older { pending },
        })
    }

    /// Applies the schema, then the seeds of `directory`, with the default options. Returns the migrations and seeds
    /// that this call applied.
    ///
    /// # Errors
    /// [`MigrationError`], naming the file and what to do about it.
    pub async fn migrate(
        &self,
        database: &Database,
        directory: Option<&Path>,
    ) -> Result<Vec<MigrationStatus>, MigrationError> {
        self.migrate_with(database, directory, MigrationOptions::default()).await
    }

    /// Applies the schema, then the seeds of `directory`. Returns the migrations and seeds that this call applied. When
    /// several processes migrate at once, one works and the others wait.
    ///
    /// # Errors
    /// [`MigrationError`], naming the file and what to do about it.
    pub async fn migrate_with(
        &self,
        database: &Database,
        directory: Option<&Path>,
        options: MigrationOptions,
    ) -> Result<Vec<MigrationStatus>, MigrationError> {
        if self.pooling() == Pooling::Transaction {
            return Err(StoreError::Schema(format!(
                "{database} is behind a transaction pooler, and migrations need one session; name the server itself: `grantd migrate --set database.pooling=session --set database.url=postgres://…`"
            ))
            .into());
        }
        // sqlx locks PostgreSQL itself. Its lock for SQLite does nothing, so processes lock a file beside the database.
        let _one_at_a_time = lock_beside(database).await?;
        let mut session = self.session().await?;
        refuse_unusable_server(&mut session).await?;
        let waiting = self.report_waiting(&mut session, options).await?;
        let migrated = self.migrate_in(&mut session, database, directory, options).await;
        waiting.abort();
        // Closing the session releases the lock.
        session.close().await;
        migrated
    }

    async fn migrate_in(
        &self,
        session: &mut Session,
        database: &Database,
        directory: Option<&Path>,
        options: MigrationOptions,
    ) -> Result<Vec<MigrationStatus>, MigrationError> {
        on!(Session, session, connection => connection.lock().await).map_err(store_error)?;
        self.adopt_development_schema(session, database).await?;
        if !options.into_shared_database && applied_migrations(session, SCHEMA_TABLE).await?.is_empty() {
            refuse_others_database(session, database).await?;
        }
        let mut schema = Migrator::with_migrations(self.schema_migrations());
        schema.set_ignore_missing(true).set_locking(false).dangerous_set_table_name(SCHEMA_TABLE);
        let applied = run(&schema, session).await.map_err(|error| match error {
            MigrateError::ExecuteMigration(error, version) => {
                let reason = error.to_string();
                match StoreError::from(error) {
                    error @ (StoreError::Locked(_) | StoreError::Unavailable(_)) => MigrationError::Store(error),
                    _ => MigrationError::Schema { version, reason },
                }
            }
            MigrateError::VersionMismatch(version) => MigrationError::Schema {
                version,
                reason: "it was changed after it was applied; restore the original".into(),
            },
            other => MigrationError::Store(store_error(other)),
        })?;
        let mut done = statuses("schema", &schema, &applied);
        let Some(directory) = directory else { return Ok(done) };
        let seeds = read_seeds(directory)?;
        let names: HashMap<i64, PathBuf> = seeds.iter().map(|seed| (seed.version, seed.path.clone())).collect();
        let mut seeds = Migrator::with_migrations(seeds.into_iter().map(Seed::into_migration).collect());
        // Applied seeds may be removed from the directory.
        seeds.set_ignore_missing(true).set_locking(false).dangerous_set_table_name(SEED_TABLE);
        let path = |version| names.get(&version).map_or_else(|| version.to_string(), |path| path.display().to_string());
        let applied = run(&seeds, session).await.map_err(|error| match error {
            MigrateError::ExecuteMigration(sqlx::Error::Database(error), version) => {
                let said = error.message().to_owned();
                let reason = match StoreError::from(sqlx::Error::Database(error)) {
                    refused @ (StoreError::Refused(_) | StoreError::Taken { .. }) => refused.to_string(),
                    _ => said,
                };
                MigrationError::Seed { path: path(version), reason }
            }
            MigrateError::VersionMismatch(version) => MigrationError::Seed {
                path: path(version),
                reason: "it was edited after it was applied; restore it, and write the changes into a new seed".into(),
            },
            other => MigrationError::Store(store_error(other)),
        })?;
        done.extend(statuses("seed", &seeds, &applied));
        Ok(done)
    }

    /// Records the schema as applied in a database that has all eleven migrations of the development versions. They
    /// made the same schema as `1_schema.sql`.
    async fn adopt_development_schema(&self, session: &mut Session, target: &Database) -> Result<(), MigrationError> {
        let applied = applied_migrations(session, SCHEMA_TABLE).await?;
        let migrations = self.schema_migrations();
        let Some(schema) = migrations.first() else { return Ok(()) };
        if is_among(schema, &applied) || !has_table(session, "registry_revision").await? {
            return Ok(());
        }
        if applied.len() != 11 || applied.get(&11).is_none_or(|name| name != "client_ids") {
            return Err(MigrationError::Development { target: target.to_string() });
        }
        let adopted = on!(Session, session, connection => async {
            let mut transaction = connection.begin().await?;
            sqlx::raw_sql("delete from _grantd_migrations").execute(&mut *transaction).await?;
            transaction.skip(SCHEMA_TABLE, schema).await?;
            Ok(transaction.commit().await?)
        }.await);
        adopted.map_err(|error| MigrationError::Store(store_error(error)))
    }

    /// Returns every migration and seed, and whether it is applied. `exists` is false for an embedded database without
    /// a file; none is created.
    ///
    /// # Errors
    /// [`MigrationError`].
    pub async fn migration_status(
        &self,
        directory: Option<&Path>,
        exists: bool,
    ) -> Result<Vec<MigrationStatus>, MigrationError> {
        let (schema, seeded) = if exists {
            (self.applied(SCHEMA_TABLE).await?, self.applied(SEED_TABLE).await?)
        } else {
            Default::default()
        };
        let mut status: Vec<MigrationStatus> = self
            .schema_migrations()
            .into_iter()
            .map(|migration| MigrationStatus {
                kind: "schema",
                version: migration.version,
                applied: is_among(&migration, &schema),
                name: migration.description.into_owned(),
            })
            .collect();
        if let Some(directory) = directory {
            status.extend(read_seeds(directory)?.into_iter().map(|seed| MigrationStatus {
                kind: "seed",
                version: seed.version,
                applied: seeded.contains_key(&seed.version),
                name: seed.name,
            }));
        }
        Ok(status)
    }

    async fn applied(&self, table: &'static str) -> Result<HashMap<i64, String>, StoreError> {
        let session = self.session().await?;
        within(async {
            // One transaction, so that a transaction pooler keeps one session.
            let mut transaction = Transaction::begin_reading(session, self.queries.clone()).await?;
            let session = transaction.session();
            refuse_unusable_server(session).await?;
            let applied = applied_migrations(session, table).await?;
            self.spare.put(transaction.rollback().await?).await;
            Ok::<_, StoreError>(applied)
        })
        .await
    }

    /// Sets the lock timeout of a session, and starts a task that logs the sessions it waits for.
    async fn report_waiting(
        &self,
        session: &mut Session,
        options: MigrationOptions,
    ) -> Result<JoinHandle<()>, StoreError> {
        let mut pid = None;
        if let Session::Postgres(connection) = session {
            session::set_lock_timeout(connection, options.lock_timeout).await?;
            let (own,): (i64,) = sqlx::query_as("select pg_backend_pid()::bigint").fetch_one(connection).await?;
            pid = Some(own);
        }
        let store = self.clone();
        Ok(tokio::spawn(async move {
            let Some(pid) = pid else { return };
            loop {
                tokio::time::sleep(REPORT_WAITING).await;
                match store.blockers_of(pid).await {
                    Ok(holders) if !holders.is_empty() => {
                        let holders = holders.join("; ");
                        tracing::warn!(event = Event::MigrateWaiting.as_str(), holders, "migrating waits for a lock");
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(event = Event::MigrateWaiting.as_str(), reason = %error),
                }
            }
        }))
    }

    fn schema_migrations(&self) -> Vec<Migration> {
        let migration = |(version, name, sql): &(i64, &'static str, &'static str)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        self.schema_files().iter().map(migration).collect()
    }

    /// The SQL of the schema, in order.
    pub(super) fn schema_sql(&self) -> Vec<&'static str> {
        self.schema_files().iter().map(|(_, _, sql)| *sql).collect()
    }

    /// Version, name and SQL of each migration.
    fn schema_files(&self) -> [(i64, &'static str, &'static str); 6] {
        macro_rules! file {
            ($version:literal, $name:literal) => {{
                let sql = match self.pool {
                    Pool::Postgres(..) => {
                        include_str!(concat!("../../migrations/postgres/", $version, "_", $name, ".sql"))
                    }
                    Pool::Sqlite(..) => include_str!(concat!("../../migrations/sqlite/", $version, "_", $name, ".sql")),
                };
                ($version, $name, sql)
            }};
        }
        [
            file!(1, "schema"),
            file!(2, "scale"),
            file!(3, "lifecycle"),
            file!(4, "federation"),
            file!(5, "status_list"),
            file!(6, "key_rotation"),
        ]
    }
}

/// Whether a migration of this version and name was applied.
fn is_among(migration: &Migration, applied: &HashMap<i64, String>) -> bool {
    applied.get(&migration.version).is_some_and(|name| *name == migration.description)
}

/// Refuses a database with tables of another program, which `DATABASE_URL` often names. Tables of extensions do not
/// count.
async fn refuse_others_database(session: &mut Session, database: &Database) -> Result<(), MigrationError> {
    let sql = match session {
        Session::Postgres(_) => {
            "select c.relname::text from pg_class c where c.relnamespace = current_schema()::regnamespace
             and c.relkind in ('r', 'p', 'f') and left(c.relname, 8) <> '_grantd_' and not exists
                 (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
             order by 1 limit 4"
        }
        Session::Sqlite(_) => {
            "select name from sqlite_master where type = 'table' and substr(name, 1, 7) <> 'sqlite_'
             and substr(name, 1, 8) <> '_grantd_' order by 1 limit 4"
        }
    };
    let tables: Vec<(String,)> = within(session.fetch(sql, &[])).await?;
    if tables.is_empty() {
        return Ok(());
    }
    let tables: Vec<String> = tables.into_iter().map(|(name,)| name).collect();
    Err(MigrationError::Shared { target: database.to_string(), tables: tables.join(", ") })
}

const SCHEMA_TABLE: &str = "_grantd_migrations";
/// Time from the start of a wait to its first report, and from one report to the next.
const REPORT_WAITING: Duration = Duration::from_secs(2);
pub(super) const SEED_TABLE: &str = "_grantd_seeds";
