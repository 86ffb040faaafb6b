//! The statement that reads what changed after a revision: the position, the notes of the change feed, and the rows of
//! changed clients, new revocations and ended epochs, as columns of text.
//!
//! One statement reads one moment without a transaction, in one exchange.

use std::cmp::Reverse;
use std::sync::LazyLock;

use sqlx::FromRow;

use super::client_certs::CertificateRow;
use super::client_keys::KeyRow;
use super::client_rows::{ClientAssembler, ClientRow, ReadClient, ResourceLink, SecretRow, SharedTexts};
use super::federation::RuleRow;
use super::rows::{BorrowedRow, value};
use crate::model::status::{EndedEpochs, StatusIndex};
use crate::model::time::UnixTime;

/// Position of the database.
pub(super) struct PositionRow {
    pub(super) revision: i64,
    pub(super) history: String,
    /// The id that the asked revision had.
    pub(super) asked_history: Option<String>,
    /// The oldest revision whose id is kept.
    pub(super) oldest: Option<i64>,
}

/// Row of the statement: its table, and the columns as text.
pub(super) struct DeltaRow {
    table: usize,
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
        let table: i64 = row.try_get(0)?;
        Ok(Self { table: usize::try_from(table).unwrap_or_default(), texts })
    }
}

/// Rows that the statement returned, by table.
#[derive(Default)]
pub(super) struct Delta {
    /// Position, notes, clients, resources, secrets, keys, certificates, rules, revocations, ended epochs.
    tables: [Vec<Vec<Option<String>>>; 10],
}

impl Delta {
    /// Sorts the rows of the statement by table.
    pub(super) fn of(rows: Vec<DeltaRow>) -> Self {
        let mut delta = Self::default();
        for DeltaRow { table, texts } in rows {
            if let Some(rows) = delta.tables.get_mut(table) {
                rows.push(texts);
            }
        }
        delta
    }

    /// The position of the database.
    pub(super) fn position(&self) -> Result<Option<PositionRow>, sqlx::Error> {
        let [positions, ..] = &self.tables;
        let position = |texts: &Vec<Option<String>>| {
            let mut texts = texts.iter().map(Option::as_deref);
            Ok(PositionRow {
                revision: value("revision", &mut texts)?,
                history: value::<&str>("history", &mut texts)?.to_owned(),
                asked_history: value::<Option<&str>>("history", &mut texts)?.map(str::to_owned),
                oldest: value("oldest", &mut texts)?,
            })
        };
        positions.first().map(position).transpose()
    }

    /// The notes: kind and id.
    pub(super) fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        let [_, notes, ..] = &self.tables;
        notes.iter().filter_map(|texts| match texts.as_slice() {
            [Some(kind), Some(id), ..] => Some((kind.as_str(), id.as_str())),
            _ => None,
        })
    }

    /// The revoked tokens, with their expiry.
    pub(super) fn revoked(&self) -> Result<Vec<(String, UnixTime)>, sqlx::Error> {
        let [.., revocations, _] = &self.tables;
        let revocation = |texts: &Vec<Option<String>>| {
            let mut texts = texts.iter().map(Option::as_deref);
            let jti: &str = value("jti", &mut texts)?;
            Ok((jti.to_owned(), UnixTime(value("expires_at", &mut texts)?)))
        };
        revocations.iter().map(revocation).collect()
    }

    /// The status indices whose epoch has ended.
    pub(super) fn ended(&self) -> Result<Vec<EndedEpochs>, sqlx::Error> {
        let [.., ended] = &self.tables;
        let epochs = |texts: &Vec<Option<String>>| {
            let mut texts = texts.iter().map(Option::as_deref);
            Ok(EndedEpochs {
                first: StatusIndex(value("first_index", &mut texts)?),
                last: StatusIndex(value("last_index", &mut texts)?),
                ended_at: UnixTime(value("ended_at", &mut texts)?),
            })
        };
        ended.iter().map(epochs).collect()
    }

    /// Assembles the changed clients that exist, in the order of their ids.
    pub(super) fn clients(&self, shared: &mut SharedTexts) -> Result<Vec<(String, ReadClient)>, sqlx::Error> {
        let [_, _, clients, resources, secrets, keys, certificates, rules, ..] = &self.tables;
        let mut assembler = ClientAssembler::new(shared);
        // In the order of `BorrowedRow::ORDER`, which the statement cannot give to parts of a union.
        macro_rules! each {
            ($rows:ident, $row:ident, $add:ident, $place:expr) => {
                let mut rows =
                    $rows.iter().map(|texts| $row::from_texts(texts)).collect::<Result<Vec<_>, sqlx::Error>>()?;
                rows.sort_by_key($place);
                for row in &rows {
                    assembler.$add(row);
                }
            };
        }
        each!(clients, ClientRow, add_client, |row| row.client_id);
        each!(resources, ResourceLink, add_resource, |row| (row.client_id, row.identifier));
        each!(secrets, SecretRow, add_secret, |row| (row.client_id, Reverse(row.created_at), row.secret_id));
        each!(keys, KeyRow, add_key, |row| (row.client_id, Reverse(row.created_at), row.kid));
        each!(certificates, CertificateRow, add_certificate, |row| (
            row.client_id,
            Reverse(row.created_at),
            row.cert_id
        ));
        each!(rules, RuleRow, add_rule, |row| (row.client_id, row.rule_id));
        Ok(assembler.finish())
    }
}

/// The statement. `$1` is the revision after which to read. Above [`NOTES_MAX`] notes it returns some of them only.
pub(super) static SQL: LazyLock<String> = LazyLock::new(|| {
    let most = NOTES_MAX + 1;
    let parts = [
        columns(0, &["v.revision", "v.history", "h.history", "(select min(revision) from registry_history)"])
            + " from registry_revision v left join registry_history h on h.revision = $1",
        columns(1, &["r.kind", "r.id"]) + " from noted r",
        of_client::<ClientRow>(2),
        of_client::<ResourceLink>(3),
        of_client::<SecretRow>(4),
        of_client::<KeyRow>(5),
        of_client::<CertificateRow>(6),
        of_client::<RuleRow>(7),
        columns(8, &["c.jti", "c.expires_at"])
            + " from noted r join revoked_token c on c.batch = cast(r.id as bigint) where r.kind = 'revoked'",
        columns(9, &["c.first_index", "c.last_index", "c.ended_at"])
            + " from noted r join ended_status c on c.batch = cast(r.id as bigint) where r.kind = 'ended'",
    ];
    format!(
        "with noted as (select kind, id from registry_change where revision > $1 order by revision limit {most}) {}",
        parts.join(" union all ")
    )
});

/// The rows of a table for the clients that changed.
fn of_client<'r, R: BorrowedRow<'r>>(table: i64) -> String {
    let (columns, name) = (columns(table, R::COLUMNS), R::TABLE);
    format!("{columns} from noted r join {name} c on c.client_id = r.id where r.kind = 'client'")
}

/// `select`, with the columns as text, as many for each table. A column without a table is one of `c`.
fn columns(table: i64, columns: &[&str]) -> String {
    let text = |column: &&str| {
        let of = if column.contains(['.', '(']) { "" } else { "c." };
        format!("cast({of}{column} as text)")
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
            assert!(
                plan.iter().any(|step| step.contains("Scan") && step.contains("registry_change_revision")),
                "{plan:#?}"
            );
        }
        connection.close().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("drop database {name}"))).execute(&mut admin).await.unwrap();
    }
}
