//! Description of the tables, for the reference.

use super::{Store, StoreError};

/// Table of the schema.
#[derive(Debug)]
pub struct Table {
    /// The name.
    pub name: String,
    /// The columns, in their order.
    pub columns: Vec<Column>,
    /// Rules that the database enforces: names of constraints and messages of triggers.
    pub refusals: Vec<String>,
}

/// Column of a table.
#[derive(Debug)]
pub struct Column {
    /// The name.
    pub name: String,
    /// The type.
    pub kind: String,
    /// Whether the column is `not null` or a part of the primary key.
    pub required: bool,
    /// The default, as SQL.
    pub default: Option<String>,
}

impl Store {
    /// Returns the tables of an embedded database, without those of the migrations.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn describe_tables(&self) -> Result<Vec<Table>, StoreError> {
        let names: Vec<(String, String)> = self
            .fetch(
                "select name, sql || coalesce((select group_concat(sql, '') from sqlite_schema of where of.type = 'trigger' and of.tbl_name = t.name), '')
                 from sqlite_schema t where type = 'table' and name not like 'sqlite_%' and name not like '\\_%' escape '\\' order by name",
                &[],
            )
            .await?;
        let columns: Vec<(String, String, String, i64, Option<String>)> = self
            .fetch(
                "select t.name, c.name, lower(c.type), c.\"notnull\" or c.pk > 0, c.dflt_value
                 from sqlite_schema t join pragma_table_info(t.name) c where t.type = 'table' order by t.name, c.cid",
                &[],
            )
            .await?;
        let table = |(name, sql): (String, String)| {
            let columns = columns.iter().filter(|column| column.0 == name).cloned();
            let columns = columns.map(|(_, name, kind, required, default)| Column {
                name,
                kind,
                required: required != 0,
                default,
            });
            Table { columns: columns.collect(), refusals: refusals(&sql), name }
        };
        Ok(names.into_iter().map(table).collect())
    }
}

/// Finds the names in `constraint "…"` and the messages in `raise(abort, '…')`.
fn refusals(sql: &str) -> Vec<String> {
    // A quotation mark in a name is doubled.
    let sql = sql.replace("\"\"", "\u{1}");
    let quoted = |after: &str, quote: char| {
        let found = sql.split(after).skip(1).filter_map(|rest| Some(rest.split(quote).next()?.replace('\u{1}', "\"")));
        found.collect::<Vec<_>>()
    };
    let mut all = quoted("constraint \"", '"');
    all.extend(quoted("raise(abort, '", '\''));
    all.sort();
    all.dedup();
    all
}
