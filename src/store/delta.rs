//! The statement that reads what changed after a revision: the position, the notes of the change feed, and the rows of
//! changed clients, new revocations and ended epochs, each as a JSON array of its columns.
//!
//! One statement reads one moment without a transaction, in one exchange. Its parts have different columns, and each is one
//! array, since PostgreSQL prepares each column of each part before it reads anything.

use std::cmp::Reverse;
use std::sync::LazyLock;

use serde_json::Value;
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
    /// 1 when the transaction of the statement refuses writes.
    pub(super) read_only: i64,
    /// 1 on a standby.
    pub(super) standby: i64,
    /// Milliseconds since 1970 by the database's clock.
    pub(super) now: i64,
}

/// Row of the statement: its table, and the columns as texts.
pub(super) struct DeltaRow {
    table: usize,
    texts: Vec<Option<String>>,
}

impl<'r, R: sqlx::Row> FromRow<'r, R> for DeltaRow
where
    usize: sqlx::ColumnIndex<R>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    &'r str: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        let (table, columns): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
        let columns: Vec<Value> = serde_json::from_str(columns).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let text = |column| match column {
            Value::Null => None,
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        Ok(Self { table: usize::try_from(table).unwrap_or_default(), texts: columns.into_iter().map(text).collect() })
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
                read_only: value("read_only", &mut texts)?,
                standby: value("standby", &mut texts)?,
                now: value("now", &mut texts)?,
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

/// The statement for PostgreSQL. `$1` is the revision after which to read. Above [`NOTES_MAX`] notes it returns some of them
/// only.
pub(super) static POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let server = [
        "case when current_setting('transaction_read_only') = 'on' then 1 else 0 end",
        "case when coalesce(current_setting('in_hot_standby', true), 'off') = 'on' then 1 else 0 end",
        "cast(floor(extract(epoch from clock_timestamp()) * 1000) as bigint)",
    ];
    statement(server, |columns| format!("cast(json_build_array({columns}) as text)"), "join")
});

/// The same for SQLite. Its `cross join` reads the notes first, whatever the statistics of the tables say.
pub(super) static SQLITE: LazyLock<String> = LazyLock::new(|| {
    let server = ["0", "0", "cast(unixepoch('subsec') * 1000 as integer)"];
    statement(server, |columns| format!("json_array({columns})"), "cross join")
});

/// The statement with what is read of the server: whether it refuses writes, whether it is a standby, and its time.
fn statement(server: [&str; 3], array: impl Fn(&str) -> String, join: &str) -> String {
    let most = NOTES_MAX + 1;
    let [read_only, standby, now] = server;
    let select = |table: i64, columns: &str| format!("select cast({table} as bigint), {}", array(columns));
    let of_client = |table: i64, columns: &str, name: &str| {
        select(table, columns) + &format!(" from noted r {join} {name} c on c.client_id = r.id where r.kind = 'client'")
    };
    let of_batch = |table: i64, columns: &str, name: &str, kind: &str| {
        let batch = format!(" from noted r {join} {name} c on c.batch = cast(r.id as bigint) where r.kind = '{kind}'");
        select(table, columns) + &batch
    };
    let oldest = "(select min(revision) from registry_history)";
    let parts = [
        select(0, &format!("v.revision, v.history, h.history, {oldest}, {read_only}, {standby}, {now}"))
            + " from registry_revision v left join registry_history h on h.revision = $1",
        select(1, "r.kind, r.id") + " from noted r",
        of_client(2, &ClientRow::columns(), ClientRow::TABLE),
        of_client(3, &ResourceLink::columns(), ResourceLink::TABLE),
        of_client(4, &SecretRow::columns(), SecretRow::TABLE),
        of_client(5, &KeyRow::columns(), KeyRow::TABLE),
        of_client(6, &CertificateRow::columns(), CertificateRow::TABLE),
        of_client(7, &RuleRow::columns(), RuleRow::TABLE),
        of_batch(8, "c.jti, c.expires_at", "revoked_token", "revoked"),
        of_batch(9, "c.first_index, c.last_index, c.ended_at", "ended_status", "ended"),
    ];
    format!(
        "with noted as (select kind, id from registry_change where revision > $1 order by revision limit {most}) {}",
        parts.join(" union all ")
    )
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
         insert into client (client_id) select 'app-' || n from numbers;
         insert into client_certificate (client_id, kind, value)
             select client_id, 'san_dns', client_id || '.test' from client where client_id like 'app-1%'",
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
        for analysed in [false, true] {
            if analysed {
                sqlx::raw_sql("analyze").execute(&mut connection).await.unwrap();
            }
            let plan = sqlx::query(AssertSqlSafe(format!("explain query plan {}", *SQLITE))).bind(1_i64);
            let plan: Vec<String> =
                plan.fetch_all(&mut connection).await.unwrap().iter().map(|row| row.get("detail")).collect();
            let whole: Vec<_> = plan.iter().filter(|step| step.starts_with("SCAN")).collect();
            // The one row of the revision, the notes that were read by their index, and rows without a table.
            let small = ["SCAN v", "SCAN r", "SCAN noted", "SCAN CONSTANT ROW"];
            assert!(whole.iter().all(|step| small.contains(&step.as_str())), "{plan:#?}");
            assert!(plan.iter().any(|step| step.contains("USING INDEX registry_change_revision")), "{plan:#?}");
        }
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
            let prepare =
                format!("{BY_INDEX}; prepare delta as {}; set plan_cache_mode = force_generic_plan", *POSTGRES);
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
