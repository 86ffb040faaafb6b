//! Statements: SQL text that both databases accept, and the values bound to it.

use sqlx::query::{Query, QueryAs};
use sqlx::{Arguments as _, AssertSqlSafe, Database, Encode, Error, FromRow, IntoArguments, SqlSafeStr, SqlStr, Type};

use crate::model::time::{Span, UnixTime};

/// Value of a statement or row: text, an integer or bytes; text and integers may be null.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
    Bytes(Vec<u8>),
}

/// Makes the values of a statement, in order: `args![client_id, now]`.
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        [$($crate::store::statement::Value::from($value)),*]
    };
}
pub(crate) use args;

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(Some(number))
    }
}

impl From<bool> for Value {
    /// Flags are 0 or 1.
    fn from(flag: bool) -> Self {
        i64::from(flag).into()
    }
}

impl From<UnixTime> for Value {
    fn from(time: UnixTime) -> Self {
        time.0.into()
    }
}

impl From<Option<UnixTime>> for Value {
    fn from(time: Option<UnixTime>) -> Self {
        Self::Integer(time.map(|time| time.0))
    }
}

impl From<Option<Span>> for Value {
    fn from(span: Option<Span>) -> Self {
        Self::Integer(span.map(Span::seconds))
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

/// Encodes values for the database `DB`.
fn arguments<DB: Database>(values: &[Value]) -> Result<DB::Arguments, Error>
where
    for<'v> Option<String>: Encode<'v, DB> + Type<DB>,
    for<'v> Option<i64>: Encode<'v, DB> + Type<DB>,
    for<'v> Vec<u8>: Encode<'v, DB> + Type<DB>,
{
    let mut arguments = DB::Arguments::default();
    for value in values {
        match value.clone() {
            Value::Text(text) => arguments.add(text),
            Value::Integer(number) => arguments.add(number),
            Value::Bytes(bytes) => arguments.add(bytes),
        }
        .map_err(Error::Encode)?;
    }
    Ok(arguments)
}

/// Makes a statement from text and values.
pub(super) fn query<DB: Database>(
    sql: impl SqlSafeStr,
    values: &[Value],
) -> Result<Query<'static, DB, DB::Arguments>, Error>
where
    DB::Arguments: IntoArguments<DB>,
    for<'v> Option<String>: Encode<'v, DB> + Type<DB>,
    for<'v> Option<i64>: Encode<'v, DB> + Type<DB>,
    for<'v> Vec<u8>: Encode<'v, DB> + Type<DB>,
{
    Ok(sqlx::query_with(sql, arguments::<DB>(values)?))
}

/// Makes a query from text and values.
pub(super) fn query_as<DB: Database, R>(
    sql: impl SqlSafeStr,
    values: &[Value],
) -> Result<QueryAs<'static, DB, R, DB::Arguments>, Error>
where
    DB::Arguments: IntoArguments<DB>,
    R: for<'r> FromRow<'r, DB::Row>,
    for<'v> Option<String>: Encode<'v, DB> + Type<DB>,
    for<'v> Option<i64>: Encode<'v, DB> + Type<DB>,
    for<'v> Vec<u8>: Encode<'v, DB> + Type<DB>,
{
    Ok(sqlx::query_as_with(sql, arguments::<DB>(values)?))
}

/// Returns placeholders for `rows` rows of `columns` values: `($1, $2), ($3, $4)`.
pub(super) fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let numbers: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", numbers.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// Column with its value. Names of columns are constants of this program.
pub(super) type Column = (&'static str, Value);

/// Returns the statement that inserts a row, with its values.
pub(super) fn insert(table: &'static str, columns: Vec<Column>) -> (SqlStr, Vec<Value>) {
    let (names, values): (Vec<&str>, Vec<Value>) = columns.into_iter().unzip();
    let placeholders = placeholders(1, values.len());
    let sql = format!("insert into {table} ({}) values {placeholders}", names.join(", "));
    (AssertSqlSafe(sql).into_sql_str(), values)
}

/// Returns the statement that updates the columns of a row whose values differ, with its values; `None` when all are
/// equal. `key` is the column that identifies the row; `before` and `after` have the same columns in the same order.
pub(super) fn update(
    table: &'static str,
    key: Column,
    before: &[Column],
    after: &[Column],
) -> Option<(SqlStr, Vec<Value>)> {
    let changed: Vec<&Column> =
        after.iter().zip(before).filter(|(after, before)| after != before).map(|(after, _)| after).collect();
    if changed.is_empty() {
        return None;
    }
    let set: Vec<String> = (2..).zip(&changed).map(|(at, (name, _))| format!("{name} = ${at}")).collect();
    let sql = format!("update {table} set {} where {} = $1", set.join(", "), key.0);
    let values = [key.1].into_iter().chain(changed.into_iter().map(|(_, value)| value.clone())).collect();
    Some((AssertSqlSafe(sql).into_sql_str(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_names_the_columns_that_differ() {
        let columns = |scope: &str, ttl: Option<i64>| [("scope", scope.into()), ("token_ttl", Value::Integer(ttl))];
        let key = || ("client_id", Value::from("c"));
        assert!(update("client", key(), &columns("a", None), &columns("a", None)).is_none());
        let (sql, values) = update("client", key(), &columns("a", None), &columns("a", Some(60))).unwrap();
        assert_eq!(sql.as_str(), "update client set token_ttl = $2 where client_id = $1");
        assert_eq!(values, args!["c", 60]);
        let (sql, _) = update("client", key(), &columns("a", None), &columns("b", Some(60))).unwrap();
        assert_eq!(sql.as_str(), "update client set scope = $2, token_ttl = $3 where client_id = $1");
    }

    #[test]
    fn placeholders_are_numbered_row_by_row() {
        assert_eq!(placeholders(1, 1), "($1)");
        assert_eq!(placeholders(2, 3), "($1, $2, $3), ($4, $5, $6)");
    }
}
