//! The page of the SQL tables, from a schema that was just applied.

use std::path::PathBuf;

use super::{code, row};
use crate::store::{Database, Store};

pub(super) async fn page() -> anyhow::Result<String> {
    let directory = TemporaryDirectory(std::env::temp_dir().join(format!("grantd-reference-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0)?;
    let file = directory.0.join("schema.db");
    std::fs::File::create(&file)?;
    let database = Database::Sqlite(file);
    let store = Store::open(&database, 1);
    store.migrate(&database, None).await?;
    let mut page = String::from(HEAD);
    for table in store.describe_tables().await? {
        page += &format!("\n## {}\n\n| column | type | required | default |\n|---|---|---|---|\n", table.name);
        for column in &table.columns {
            let default = column.default.as_deref().map(code).unwrap_or_default();
            page += &row(&[&code(&column.name), &column.kind, if column.required { "yes" } else { "" }, &default]);
        }
        if !table.refusals.is_empty() {
            page += "\nThe database refuses:\n\n";
        }
        for refusal in &table.refusals {
            page += &format!("- {}\n", code(refusal));
        }
    }
    store.close().await;
    Ok(page)
}

/// Temporary directory that is removed on drop.
struct TemporaryDirectory(PathBuf);

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // A leftover temporary directory does no harm.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

const HEAD: &str = "\
The same tables on PostgreSQL (`text`, `bigint`, `bytea`) and SQLite (`text`, `integer`, `blob`). Times are seconds since 1970 in UTC, flags are 0 or 1. Each rule below is the name of a constraint or the message of a trigger; the database quotes it when a statement breaks the rule, also one written by hand.
";
