//! An export of what administrators register, as SQL that both databases accept.

use super::session::Transaction;
use super::statement::Value;
use super::tables::{Table, Values};
use super::{Store, StoreError};

/// An export in progress, as of one moment.
#[derive(Debug)]
pub struct Export {
    reading: Transaction,
    /// The tables that are still to be read, the next one last.
    tables: Vec<Table>,
    last: Option<Values>,
}

impl Store {
    /// Begins an export.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn export(&self) -> Result<Export, StoreError> {
        let mut reading = Transaction::begin_reading(self.session().await?, self.queries.clone()).await?;
        let mut tables = Vec::new();
        for (name, without) in EXPORTED.into_iter().rev() {
            tables.push(Table::of(reading.session(), name, without).await?);
        }
        Ok(Export { reading, tables, last: None })
    }
}

impl Export {
    /// Returns the next statement; `None` at the end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next(&mut self) -> Result<Option<String>, StoreError> {
        while let Some(table) = self.tables.last() {
            let rows = table.page(self.reading.session(), self.last.as_ref()).await?;
            let statement = if table.name == "token_cutoff" { cutoff(&rows) } else { insert(table, &rows) };
            self.last = rows.into_iter().next_back();
            if self.last.is_none() {
                self.tables.pop();
            }
            if statement.is_some() {
                return Ok(statement);
            }
        }
        Ok(None)
    }
}

fn insert(table: &Table, rows: &[Values]) -> Option<String> {
    let line = |row: &Values| format!("({})", row.iter().map(literal).collect::<Vec<_>>().join(", "));
    let lines: Vec<String> = rows.iter().map(line).collect();
    let (name, columns) = (table.name, table.columns.join(", "));
    (!lines.is_empty()).then(|| format!("insert into {name} ({columns}) values\n{};\n", lines.join(",\n")))
}

/// A new database has the one row of `token_cutoff`.
fn cutoff(rows: &[Values]) -> Option<String> {
    let at = rows.iter().flatten().filter_map(|value| match value {
        Value::Integer(at) => *at,
        Value::Text(_) | Value::Bytes(_) => None,
    });
    let at = at.max().filter(|at| *at > 1)?;
    Some(format!("update token_cutoff set not_before = {at} where not_before < {at};\n"))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Text(Some(text)) => quoted(text),
        Value::Integer(Some(number)) => number.to_string(),
        // No exported column has bytes; the two databases write them differently.
        Value::Text(None) | Value::Integer(None) | Value::Bytes(_) => "null".to_owned(),
    }
}

/// Quotes a text as a string literal of standard SQL.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The tables that an export has, with the columns that it leaves out: the verifier of a secret depends on the sealing key
/// and is computed again, and numbers of revisions and epochs belong to one database. Tables with private keys are not here.
const EXPORTED: [(&str, &[&str]); 11] = [
    ("resource", &[]),
    ("client", &["status_index"]),
    ("client_resource", &[]),
    ("resource_introspector", &[]),
    ("client_secret", &["verifier"]),
    ("client_key", &[]),
    ("client_certificate", &[]),
    ("trusted_issuer", &[]),
    ("client_federation", &[]),
    ("revoked_token", &["revision", "batch"]),
    ("token_cutoff", &["status_list"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_claim_cannot_end_the_literal() {
        assert_eq!(quoted("it's'; drop table client; --"), "'it''s''; drop table client; --'");
    }
}
