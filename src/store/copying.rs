//! A copy of everything from one database into another, and the freeze that keeps the source as it was copied.
//!
//! The rows come in one transaction: the target holds nothing or everything, whatever kills the copy.

use sqlx::migrate::Migrate as _;

use super::migration_status::{has_table, store_error};
use super::migrations::SEED_TABLE;
use super::refusal::FROZEN;
use super::session::{Session, Transaction};
use super::statement::args;
use super::tables::{Contents, Table};
use super::{Pool, Pooling, Store, StoreError, on, transaction};

/// A table that was copied.
#[derive(Debug, serde::Serialize)]
pub struct CopiedTable {
    /// The table.
    pub table: String,
    /// Number of its rows in both databases.
    pub rows: u64,
}

/// Outcome of a copy.
#[derive(Debug)]
pub struct Copied {
    /// The tables, in the order of the schema.
    pub tables: Vec<CopiedTable>,
    /// Whether the target held the same rows already.
    pub was_complete: bool,
}

/// Errors of a copy, which then left the target as it was.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// An error of the source.
    #[error("the source: {0}")]
    Source(#[source] StoreError),
    /// An error of the target.
    #[error("the target: {0}")]
    Target(#[source] StoreError),
    /// The target holds rows that are not the source's.
    #[error(
        "the target holds something else: its table {table} has {rows} rows; name an empty database, and start no server on it before the copy is complete"
    )]
    NotEmpty {
        /// The table.
        table: String,
        /// Number of its rows.
        rows: u64,
    },
    /// The target does not hold what was copied.
    #[error("the table {0} differs after the copy, which is taken back")]
    Differs(String),
}

impl Store {
    /// Copies all rows of this database into `target`, which has the same schema and holds nothing, or the same rows.
    /// Nothing may write to this database meanwhile: see [`freeze`](Self::freeze). `progress` is told the
    /// number of rows that were copied since it was told last.
    ///
    /// # Errors
    /// [`CopyError`].
    pub async fn copy_into(
        &self,
        target: &Self,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Copied, CopyError> {
        let source = self.session().await.map_err(CopyError::Source)?;
        let reading = Transaction::begin_reading(source, self.queries.clone()).await;
        let mut reading = reading.map_err(CopyError::Source)?;
        let has_seeds = has_table(reading.session(), SEED_TABLE).await.map_err(CopyError::Source)?;
        let mut writing = target.session().await.map_err(CopyError::Target)?;
        if has_seeds {
            let made = on!(Session, &mut writing, connection => connection.ensure_migrations_table(SEED_TABLE).await);
            made.map_err(|error| CopyError::Target(store_error(error)))?;
        }
        let writing = Transaction::begin(writing, target.pooling(), target.queries.clone()).await;
        let mut writing = writing.map_err(CopyError::Target)?;
        let copied = self.copy_rows(&mut reading, &mut writing, has_seeds, progress).await;
        match &copied {
            Ok(_) => writing.commit().await.map_err(CopyError::Target)?.close().await,
            Err(_) => drop(writing),
        }
        drop(reading);
        copied
    }

    async fn copy_rows(
        &self,
        reading: &mut Transaction,
        writing: &mut Transaction,
        has_seeds: bool,
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Copied, CopyError> {
        unhurried(reading).await.map_err(CopyError::Source)?;
        unhurried(writing).await.map_err(CopyError::Target)?;
        // Keeps servers and commands out until the copy is complete.
        writing.take_turn().await.map_err(CopyError::Target)?;
        let (mut tables, mut held) = (Vec::new(), Vec::new());
        for name in self.tables().filter(|name| !OWN.contains(name)) {
            let table = Table::of(reading.session(), name, own_columns(name)).await.map_err(CopyError::Source)?;
            held.push(table.contents(writing.session()).await.map_err(CopyError::Target)?);
            tables.push(table);
        }
        let mut copied = Vec::with_capacity(tables.len());
        let found = tables.iter().zip(&held).find(|(table, held)| !is_new(table.name, **held));
        if let Some((other, held_rows)) = found.map(|(table, held)| (table.name, held.rows)) {
            // The copy may be complete: then it was told to nobody.
            for (table, held) in tables.iter().zip(&held) {
                let contents = table.contents(reading.session()).await.map_err(CopyError::Source)?;
                if contents != *held {
                    return Err(CopyError::NotEmpty { table: other.to_owned(), rows: held_rows });
                }
                copied.push(CopiedTable { table: table.name.to_owned(), rows: contents.rows });
            }
            return Ok(Copied { tables: copied, was_complete: true });
        }
        for table in &tables {
            if table.name == CUTOFF {
                writing.execute("delete from token_cutoff", &[]).await.map_err(CopyError::Target)?;
            }
            let (mut contents, mut last) = (Contents::default(), None);
            loop {
                let page = table.page(reading.session(), last.as_ref()).await.map_err(CopyError::Source)?;
                for row in &page {
                    contents.add(row);
                }
                table.insert(writing.session(), &page).await.map_err(CopyError::Target)?;
                progress(page.len());
                match page.into_iter().next_back() {
                    Some(row) => last = Some(row),
                    None => break,
                }
            }
            let arrived = table.contents(writing.session()).await.map_err(CopyError::Target)?;
            if arrived != contents {
                return Err(CopyError::Differs(table.name.to_owned()));
            }
            copied.push(CopiedTable { table: table.name.to_owned(), rows: contents.rows });
        }
        if has_seeds {
            copied.push(copy_seeds(reading, writing).await?);
        }
        Ok(Copied { tables: copied, was_complete: false })
    }

    /// Makes every further write to the database fail, by triggers. Reading goes on, so a server that runs on it serves
    /// known clients; whatever it would have to write down is refused instead of lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn freeze(&self) -> Result<(), StoreError> {
        let statements: Vec<String> = self.tables().flat_map(|table| self.freezing(table, true)).collect();
        self.run_all(statements).await
    }

    /// Whether the database is frozen.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_frozen(&self) -> Result<bool, StoreError> {
        let sql = match self.pool {
            Pool::Postgres(..) => {
                "select count(*) from pg_trigger where tgname = 'grantd_frozen' and tgrelid = to_regclass('client')"
            }
            Pool::Sqlite(..) => {
                "select count(*) from sqlite_master where type = 'trigger' and name = 'grantd_frozen_client_insert'"
            }
        };
        let counts: Vec<(i64,)> = self.fetch(sql, &[]).await?;
        Ok(counts.first().is_some_and(|(count,)| *count > 0))
    }

    /// Takes a freeze back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unfreeze(&self) -> Result<(), StoreError> {
        let statements: Vec<String> = self.tables().flat_map(|table| self.freezing(table, false)).collect();
        self.run_all(statements).await
    }

    async fn run_all(&self, statements: Vec<String>) -> Result<(), StoreError> {
        if self.pooling() == Pooling::Transaction {
            return Err(StoreError::Schema(
                "this needs one session: name the server itself, and not its pooler".into(),
            ));
        }
        transaction!(self, |tx| {
            for sql in &statements {
                tx.execute(sqlx::AssertSqlSafe(sql.clone()), &[]).await?;
            }
            Ok(())
        })
    }

    /// The statements that freeze a table, or take that back.
    fn freezing(&self, table: &str, freeze: bool) -> Vec<String> {
        match self.pool {
            Pool::Postgres(..) => {
                let create = format!(
                    "create trigger grantd_frozen before insert or update or delete or truncate on {table}
                     for each statement execute function grantd_refuse('{FROZEN}')"
                );
                let drop = format!("drop trigger if exists grantd_frozen on {table}");
                std::iter::once(drop).chain(freeze.then_some(create)).collect()
            }
            Pool::Sqlite(..) => ["insert", "update", "delete"]
                .map(|action| {
                    let name = format!("grantd_frozen_{table}_{action}");
                    if freeze {
                        format!(
                            "create trigger if not exists {name} before {action} on {table} begin select raise(abort, '{FROZEN}'); end"
                        )
                    } else {
                        format!("drop trigger if exists {name}")
                    }
                })
                .into(),
        }
    }
}

/// Lets a transaction rest while the other database works, for as long as that takes.
async fn unhurried(transaction: &mut Transaction) -> Result<(), StoreError> {
    if let Session::Postgres(_) = transaction.session() {
        for sql in ["set local idle_in_transaction_session_timeout = 0", "set local statement_timeout = 0"] {
            transaction.execute(sql, &[]).await?;
        }
    }
    Ok(())
}

/// Copies the list of seeds that were applied, without the times at which they were.
async fn copy_seeds(reading: &mut Transaction, writing: &mut Transaction) -> Result<CopiedTable, CopyError> {
    type Seed = (i64, String, Vec<u8>, i64);
    let sql = "select version, description, checksum, execution_time from _grantd_seeds order by version";
    let seeds: Vec<Seed> = reading.fetch(sql, &[]).await.map_err(CopyError::Source)?;
    let rows = u64::try_from(seeds.len()).unwrap_or(u64::MAX);
    for (version, description, checksum, execution_time) in seeds {
        let sql = "insert into _grantd_seeds (version, description, success, checksum, execution_time)
                   values ($1, $2, true, $3, $4)";
        let values = args![version, description, checksum.as_slice(), execution_time];
        writing.execute(sql, &values).await.map_err(CopyError::Target)?;
    }
    Ok(CopiedTable { table: SEED_TABLE.to_owned(), rows })
}

/// Whether a table holds what a new database does.
fn is_new(table: &str, held: Contents) -> bool {
    held.rows == 0 || (table == CUTOFF && held == initial_cutoff())
}

/// The contents of `token_cutoff` in a new database.
fn initial_cutoff() -> Contents {
    let mut contents = Contents::default();
    contents.add(&args![1, 0, 0]);
    contents
}

/// Columns that belong to the change feed of their own database.
fn own_columns(table: &str) -> &'static [&'static str] {
    match table {
        "revoked_token" => &["revision", "batch"],
        "ended_status" => &["batch"],
        _ => &[],
    }
}

/// Tables of the change feed, and of work that one replica does for all. Each database has its own.
const OWN: [&str; 4] = ["registry_revision", "registry_change", "registry_history", "lease"];
/// The table with one row from the beginning.
const CUTOFF: &str = "token_cutoff";
