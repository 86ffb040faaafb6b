//! The statement that reads what changed after a revision: the position, the notes of the change feed, and the rows of
//! changed clients and new revocations, as columns of text.
//!
//! One statement reads one moment without a transaction, and costs the database a fifth of nine.

use std::sync::LazyLock;

use sqlx::FromRow;

use super::client_certs::CertificateRow;
use super::client_keys::KeyRow;
use super::client_rows::{ClientRow, ClientRows, ResourceLink, SecretRow};
use super::rows::{TextRow, row, value};

/// Position of the database.
pub(super) struct PositionRow {
    pub(super) revision: i64,
    pub(super) history: String,
    /// The id that the asked revision had.
    pub(super) asked_history: Option<String>,
}

/// Note of a change.
pub(super) struct NoteRow {
    pub(super) kind: String,
    pub(super) id: String,
}

row!(
    /// Revocation of a token.
    RevocationRow of "revoked_token", also as text, by "" { jti: String, expires_at: i64 }
);

/// Row of the statement: its table, and the columns as text.
pub(super) struct DeltaRow {
    table: i64,
    texts: Vec<Option<String>>,
}

impl<'r, R: sqlx::Row> FromRow<'r, R> for DeltaRow
where
    usize: sqlx::ColumnIndex<R>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    Option<String>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let texts = (1..row.columns().len()).map(|column| row.try_get(column)).collect::<Result<_, _>>()?;
        Ok(Self { table: row.try_get(0)?, texts })
    }
}

/// Rows that the statement returned, by table.
#[derive(Default)]
pub(super) struct Delta {
    pub(super) position: Option<PositionRow>,
    pub(super) notes: Vec<NoteRow>,
    pub(super) clients: ClientRows,
    pub(super) revoked: Vec<RevocationRow>,
}

impl Delta {
    /// Sorts the rows of the statement by table.
    pub(super) fn of(rows: Vec<DeltaRow>) -> Result<Self, sqlx::Error> {
        let mut delta = Self::default();
        for DeltaRow { table, texts } in rows {
            let mut texts = texts.into_iter();
            match table {
                0 => {
                    delta.position = Some(PositionRow {
                        revision: value("revision", &mut texts)?,
                        history: value("history", &mut texts)?,
                        asked_history: value("history", &mut texts)?,
                    });
                }
                1 => {
                    delta.notes.push(NoteRow { kind: value("kind", &mut texts)?, id: value("id", &mut texts)? });
                }
                2 => delta.clients.clients.push(ClientRow::from_texts(texts)?),
                3 => delta.clients.resources.push(ResourceLink::from_texts(texts)?),
                4 => delta.clients.secrets.push(SecretRow::from_texts(texts)?),
                5 => delta.clients.keys.push(KeyRow::from_texts(texts)?),
                6 => delta.clients.certificates.push(CertificateRow::from_texts(texts)?),
                _ => delta.revoked.push(RevocationRow::from_texts(texts)?),
            }
        }
        Ok(delta)
    }
}

/// The statement. `$1` is the revision after which to read. Above [`NOTES_MAX`] notes it returns some of them only.
pub(super) static SQL: LazyLock<String> = LazyLock::new(|| {
    let most = NOTES_MAX + 1;
    let parts = [
        columns(0, &["v.revision", "v.history", "h.history"])
            + " from registry_revision v left join registry_history h on h.revision = $1",
        columns(1, &["r.kind", "r.id"]) + " from noted r",
        of_client::<ClientRow>(2),
        of_client::<ResourceLink>(3),
        of_client::<SecretRow>(4),
        of_client::<KeyRow>(5),
        of_client::<CertificateRow>(6),
        columns(7, &["c.jti", "c.expires_at"])
            + " from noted r join revoked_token c on c.batch = cast(r.id as bigint) where r.kind = 'revoked'",
    ];
    format!(
        "with noted as (select kind, id from registry_change where revision > $1 order by revision limit {most}) {}",
        parts.join(" union all ")
    )
});

/// The rows of a table for the clients that changed.
fn of_client<R: TextRow>(table: i64) -> String {
    let (columns, name) = (columns(table, R::COLUMNS), R::TABLE);
    format!("{columns} from noted r join {name} c on c.client_id = r.id where r.kind = 'client'")
}

/// `select`, with the columns as text, as many for each table. A column without a table is one of `c`.
fn columns(table: i64, columns: &[&str]) -> String {
    let text = |column: &&str| match column.contains('.') {
        true => format!("cast({column} as text)"),
        false => format!("cast(c.{column} as text)"),
    };
    let mut texts: Vec<String> = columns.iter().map(text).collect();
    texts.resize(ClientRow::COLUMNS.len(), "null".to_owned());
    format!("select cast({table} as bigint), {}", texts.join(", "))
}

/// Maximum number of changes that are read by their ids. With more, everything is read, range by range.
pub(super) const NOTES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};

    use super::*;
    use crate::store::link::BY_INDEX;
    use crate::store::{Database, Store};

    /// SQL of a registry whose notes and clients are many, without statistics, as after a restore.
    const MANY: [&str; 2] = [
        "insert into client (client_id) select 'app-' || n from generate_series(1, 3000) as n",
        "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < 3000)
         insert into client (client_id) select 'app-' || n from numbers",
    ];

    #[tokio::test]
    async fn sqlite_reads_changes_by_indexes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plans.db");
        std::fs::write(&path, "").unwrap();
        let database = Database::Sqlite(path.clone());
        Store::open(&database, 1).migrate(&database, None).await.unwrap();
        let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
        sqlx::raw_sql(MANY[1]).execute(&mut connection).await.unwrap();
        let plan = sqlx::query(AssertSqlSafe(format!("explain query plan {}", *SQL))).bind(1_i64);
        let plan: Vec<String> =
            plan.fetch_all(&mut connection).await.unwrap().iter().map(|row| row.get("detail")).collect();
        let whole: Vec<_> = plan.iter().filter(|step| step.starts_with("SCAN")).collect();
        // The one row of the revision, the notes that were read by their index, and rows without a table.
        let small = ["SCAN v", "SCAN r", "SCAN noted", "SCAN CONSTANT ROW"];
        assert!(whole.iter().all(|step| small.contains(&step.as_str())), "{plan:#?}");
        assert!(plan.iter().any(|step| step.contains("USING INDEX registry_change_revision")), "{plan:#?}");
    }

    #[tokio::test]
    async fn postgresql_reads_changes_by_indexes() {
        // Set by the test script, which fails where PostgreSQL is not tested.
        let Ok(url) = std::env::var("GRANTD_TEST_POSTGRES") else { return };
        let mut admin = PgConnection::connect(&url).await.unwrap();
        let name = format!("plans_{}", std::process::id());
        sqlx::raw_sql(AssertSqlSafe(format!("create database {name}"))).execute(&mut admin).await.unwrap();
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        let database = Database::Postgres(Box::new(options.clone().database(&name).into()));
        let store = Store::open(&database, 1);
        store.migrate(&database, None).await.unwrap();
        store.close().await;
        let mut connection = PgConnection::connect_with(&options.database(&name)).await.unwrap();
        sqlx::raw_sql(MANY[0]).execute(&mut connection).await.unwrap();
        for analysed in [false, true] {
            if analysed {
                sqlx::raw_sql("analyze").execute(&mut connection).await.unwrap();
            }
            let prepare = format!("{BY_INDEX}; prepare delta as {}; set plan_cache_mode = force_generic_plan", *SQL);
            sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut connection).await.unwrap();
            let rows = sqlx::raw_sql("explain execute delta(1)").fetch_all(&mut connection).await.unwrap();
            sqlx::raw_sql("deallocate delta").execute(&mut connection).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            let whole: Vec<_> = plan.iter().filter(|step| step.contains("Seq Scan")).collect();
            assert!(whole.iter().all(|step| step.contains("registry_revision")), "{plan:#?}");
            assert!(plan.iter().any(|step| step.contains("Index Scan using registry_change_revision")), "{plan:#?}");
        }
        connection.close().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("drop database {name}"))).execute(&mut admin).await.unwrap();
    }
}
