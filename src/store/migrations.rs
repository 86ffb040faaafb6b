//! Schema and seeds: each file once, in order, by one process at a time, whole or not at all.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sqlx::migrate::{Migrate as _, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::{DEADLINE, Database, Pool, Session, Store, StoreError, on, within};

/// How a database's schema stands to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Not there, or older: `grantd migrate` has work to do.
    Older {
        /// How many migrations are missing.
        pending: usize,
    },
    /// The one this program works on, or one that a newer program made from it; migrations only add.
    Usable,
}

/// Why migrating stopped. What was applied before it stays applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A seed file or its directory.
    #[error("{path}: {reason}")]
    Seed {
        /// Which.
        path: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A migration of the schema failed.
    #[error("schema migration {version} failed: {reason}")]
    Schema {
        /// Which.
        version: i64,
        /// What the database said.
        reason: String,
    },
}

/// One file and whether it has been applied.
#[derive(Debug, serde::Serialize)]
pub struct Applied {
    /// `schema` or `seed`.
    pub kind: &'static str,
    /// The number before the underscore.
    pub version: i64,
    /// The name behind it.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

impl Store {
    /// How the schema stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn schema(&self) -> Result<Schema, StoreError> {
        let applied = self.applied(SCHEMA_TABLE).await?;
        let pending = self.schema_migrations().iter().filter(|migration| !applied.contains(&migration.version)).count();
        Ok(if pending == 0 { Schema::Usable } else { Schema::Older { pending } })
    }

    /// Applies the schema, then the seeds of `directory`. Several processes may do it at once: one works, the others wait.
    ///
    /// # Errors
    /// [`MigrationError`], naming the file and what to do about it.
    pub async fn migrate(&self, database: &Database, directory: Option<&Path>) -> Result<(), MigrationError> {
        // sqlx locks PostgreSQL itself; its lock for SQLite does nothing, so processes meet at a file beside the database.
        let _one_at_a_time = lock_beside(database).await?;
        let mut schema = Migrator::with_migrations(self.schema_migrations());
        schema.set_ignore_missing(true);
        self.run(&schema).await.map_err(|error| match error {
            MigrateError::ExecuteMigration(error, version) => {
                MigrationError::Schema { version, reason: error.to_string() }
            }
            MigrateError::VersionMismatch(version) => MigrationError::Schema {
                version,
                reason: "it was applied in another form; restore the original".into(),
            },
            other => MigrationError::Store(store_error(other)),
        })?;
        let Some(directory) = directory else { return Ok(()) };
        let seeds = read_seeds(directory)?;
        let names: HashMap<i64, PathBuf> = seeds.iter().map(|seed| (seed.version, seed.path.clone())).collect();
        let mut seeds = Migrator::with_migrations(seeds.into_iter().map(Seed::into_migration).collect());
        seeds.dangerous_set_table_name(SEED_TABLE);
        // Seeds that were applied may be taken out of the directory.
        seeds.set_ignore_missing(true);
        let path = |version| names.get(&version).map_or_else(|| version.to_string(), |path| path.display().to_string());
        self.run(&seeds).await.map_err(|error| match error {
            MigrateError::ExecuteMigration(sqlx::Error::Database(error), version) => {
                let said = error.message().to_owned();
                let reason = match StoreError::from(sqlx::Error::Database(error)) {
                    StoreError::Refused(reason) => reason,
                    _ => said,
                };
                MigrationError::Seed { path: path(version), reason }
            }
            MigrateError::VersionMismatch(version) => MigrationError::Seed {
                path: path(version),
                reason: "it was applied and then edited; restore it, and write what has changed into a new seed".into(),
            },
            other => MigrationError::Store(store_error(other)),
        })
    }

    /// Every migration and seed, and whether the database has it.
    ///
    /// # Errors
    /// [`MigrationError`].
    pub async fn migration_status(&self, directory: Option<&Path>) -> Result<Vec<Applied>, MigrationError> {
        let schema = self.applied(SCHEMA_TABLE).await?;
        let seeded = self.applied(SEED_TABLE).await?;
        let mut status: Vec<Applied> = self
            .schema_migrations()
            .into_iter()
            .map(|migration| Applied {
                kind: "schema",
                version: migration.version,
                applied: schema.contains(&migration.version),
                name: migration.description.into_owned(),
            })
            .collect();
        if let Some(directory) = directory {
            status.extend(read_seeds(directory)?.into_iter().map(|seed| Applied {
                kind: "seed",
                version: seed.version,
                applied: seeded.contains(&seed.version),
                name: seed.name,
            }));
        }
        Ok(status)
    }

    async fn run(&self, migrator: &Migrator) -> Result<(), MigrateError> {
        let session = self.session().await.map_err(|error| MigrateError::Source(error.into()))?;
        match session {
            Session::Postgres(mut connection) => migrator.run_direct(None, &mut connection, false).await,
            Session::Sqlite(mut connection) => migrator.run_direct(None, &mut connection, false).await,
        }
    }

    async fn applied(&self, table: &'static str) -> Result<HashSet<i64>, StoreError> {
        let mut session = self.session().await?;
        let there: Option<(i64,)> = match &mut session {
            Session::Postgres(connection) => {
                within(
                    sqlx::query_as("select 1::bigint where to_regclass($1) is not null")
                        .bind(table)
                        .fetch_optional(connection),
                )
                .await?
            }
            Session::Sqlite(connection) => {
                let sql = "select 1 from sqlite_master where type = 'table' and name = $1";
                within(sqlx::query_as(sql).bind(table).fetch_optional(connection)).await?
            }
        };
        if there.is_none() {
            session.close().await;
            return Ok(HashSet::new());
        }
        let list = async { on!(Session, &mut session, connection => connection.list_applied_migrations(table).await) };
        let applied =
            tokio::time::timeout(DEADLINE, list).await.map_err(|_| StoreError::Late(DEADLINE))?.map_err(store_error)?;
        session.close().await;
        Ok(applied.into_iter().map(|migration| migration.version).collect())
    }

    fn schema_migrations(&self) -> Vec<Migration> {
        macro_rules! migration {
            ($version:literal, $name:literal) => {{
                let sql = match self.pool {
                    Pool::Postgres(_) => {
                        include_str!(concat!("../../migrations/postgres/", $version, "_", $name, ".sql"))
                    }
                    Pool::Sqlite(_) => include_str!(concat!("../../migrations/sqlite/", $version, "_", $name, ".sql")),
                };
                Migration::new($version, $name.into(), MigrationType::Simple, sql.into_sql_str(), false)
            }};
        }
        vec![
            migration!(1, "registry"),
            migration!(2, "secret_tags"),
            migration!(3, "client_credentials"),
            migration!(4, "revocation"),
            migration!(5, "deleted_client"),
            migration!(6, "credential_use"),
            migration!(7, "client_registration"),
        ]
    }
}

struct Seed {
    version: i64,
    name: String,
    path: PathBuf,
    sql: String,
}

impl Seed {
    fn into_migration(self) -> Migration {
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
fn read_seeds(directory: &Path) -> Result<Vec<Seed>, MigrationError> {
    let fault = |path: &Path, reason: String| MigrationError::Seed { path: path.display().to_string(), reason };
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

async fn lock_beside(database: &Database) -> Result<Option<File>, MigrationError> {
    let Database::Sqlite(path) = database else { return Ok(None) };
    let path = path.with_extension("lock");
    let fault =
        |error: std::io::Error| MigrationError::Seed { path: path.display().to_string(), reason: error.to_string() };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fault)?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await.map_err(std::io::Error::other);
    locked.and_then(|locked| locked).map(Some).map_err(fault)
}

fn store_error(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        MigrateError::Source(source) => match source.downcast::<StoreError>() {
            Ok(error) => *error,
            Err(source) => StoreError::Schema(source.to_string()),
        },
        other => StoreError::Schema(other.to_string()),
    }
}

const SCHEMA_TABLE: &str = "_sqlx_migrations";
const SEED_TABLE: &str = "_grantd_seeds";
