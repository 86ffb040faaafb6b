//! Tables as they are: rows of any table as values, read page after page, for a copy or an export of the database.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use sqlx::AssertSqlSafe;

use super::session::Session;
use super::statement::{Value, args, placeholders, query};
use super::{StoreError, on};

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Bytes,
}

/// Table with its columns and its primary key, as the database describes them.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: Vec<String>,
    kinds: Vec<Kind>,
    /// Positions of the columns of the primary key.
    key: Vec<usize>,
}

/// Row of a table: the values of its columns.
pub(super) type Values = Vec<Value>;

/// Number of rows and a hash of them that does not depend on their order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) rows: u64,
    sum: u64,
}

impl Contents {
    pub(super) fn add(&mut self, row: &[Value]) {
        let mut hasher = DefaultHasher::new();
        row.hash(&mut hasher);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

impl Table {
    /// Describes a table, without some of its columns.
    pub(super) async fn of(session: &mut Session, name: &'static str, without: &[&str]) -> Result<Self, StoreError> {
        // The last column is the position in the primary key, or below 0.
        let sql = match session {
            Session::Postgres(_) => {
                "select a.attname::text, format_type(a.atttypid, null), coalesce(array_position(i.indkey::int2[], a.attnum), -1)::bigint
                 from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
                 where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped order by a.attnum"
            }
            Session::Sqlite(_) => "select name, lower(type), pk - 1 from pragma_table_info($1) order by cid",
        };
        let described: Vec<(String, String, i64)> = session.fetch(sql, &args![name]).await?;
        let mut table = Self { name, columns: Vec::new(), kinds: Vec::new(), key: Vec::new() };
        let mut key = Vec::new();
        for (column, kind, position) in described.into_iter().filter(|(column, ..)| !without.contains(&column.as_str()))
        {
            if position >= 0 {
                key.push((position, table.columns.len()));
            }
            table.kinds.push(match kind.as_str() {
                "text" => Kind::Text,
                "bigint" | "integer" => Kind::Integer,
                "bytea" | "blob" => Kind::Bytes,
                other => return Err(StoreError::Schema(format!("{name}.{column} is of type {other}"))),
            });
            table.columns.push(column);
        }
        key.sort_unstable();
        table.key = key.into_iter().map(|(_, at)| at).collect();
        if table.key.is_empty() {
            return Err(StoreError::Schema(format!("the table {name} is missing, or has no primary key")));
        }
        Ok(table)
    }

    /// Reads the rows that follow a row, in the order of the primary key; the first ones without such a row.
    pub(super) async fn page(&self, session: &mut Session, after: Option<&Values>) -> Result<Vec<Values>, StoreError> {
        let key: Vec<&str> = self.key.iter().filter_map(|at| Some(self.columns.get(*at)?.as_str())).collect();
        let (key, columns) = (key.join(", "), self.columns.join(", "));
        let place: Values =
            after.map(|row| self.key.iter().filter_map(|at| row.get(*at).cloned()).collect()).unwrap_or_default();
        let behind =
            if place.is_empty() { String::new() } else { format!("where ({key}) > {}", placeholders(1, place.len())) };
        let sql = format!("select {columns} from {} {behind} order by {key} limit {PAGE}", self.name);
        on!(Session, session, connection => {
            let query = query(AssertSqlSafe(sql), &place)?.persistent(false);
            let rows = query.fetch_all(connection).await?;
            Ok(rows.iter().map(|row| self.values(row)).collect::<Result<_, sqlx::Error>>()?)
        })
    }

    fn values<'r, R: sqlx::Row>(&self, row: &'r R) -> Result<Values, sqlx::Error>
    where
        usize: sqlx::ColumnIndex<R>,
        Option<String>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
        Option<i64>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
        Vec<u8>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    {
        let value = |(at, kind): (usize, &Kind)| {
            Ok(match kind {
                Kind::Text => Value::Text(row.try_get(at)?),
                Kind::Integer => Value::Integer(row.try_get(at)?),
                Kind::Bytes => Value::Bytes(row.try_get(at)?),
            })
        };
        self.kinds.iter().enumerate().map(value).collect()
    }

    /// Reads the number of rows, and their hash.
    pub(super) async fn contents(&self, session: &mut Session) -> Result<Contents, StoreError> {
        let (mut contents, mut last) = (Contents::default(), None);
        loop {
            let page = self.page(session, last.as_ref()).await?;
            for row in &page {
                contents.add(row);
            }
            match page.into_iter().next_back() {
                Some(row) => last = Some(row),
                None => return Ok(contents),
            }
        }
    }

    /// Inserts rows, in as many statements as their number of values takes.
    pub(super) async fn insert(&self, session: &mut Session, rows: &[Values]) -> Result<(), StoreError> {
        let width = self.columns.len();
        let most = if matches!(session, Session::Sqlite(_)) { SQLITE_VALUES } else { POSTGRES_VALUES };
        for rows in rows.chunks((most / width.max(1)).max(1)) {
            let values: Values = rows.iter().flatten().cloned().collect();
            let placeholders = placeholders(rows.len(), width);
            let sql = format!("insert into {} ({}) values {placeholders}", self.name, self.columns.join(", "));
            session.execute(AssertSqlSafe(sql), &values).await?;
        }
        Ok(())
    }
}

/// Rows that are read at once.
const PAGE: usize = 1000;
/// Values in one statement. SQLite looks each placeholder up by its name, so the time of a statement grows with the square of
/// their number.
const SQLITE_VALUES: usize = 800;
/// Values in one statement, of which PostgreSQL takes 65,535.
const POSTGRES_VALUES: usize = 16_000;
