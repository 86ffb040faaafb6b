//! `grantd export`: the registry as a seed on stdout.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use serde_json::json;

use super::Shell;
use super::list::written;
use super::open::Purpose;
use crate::telemetry::printable;

pub(super) async fn run(shell: &Shell) -> anyhow::Result<()> {
    let admin = shell.admin(Purpose::Read).await?;
    let mut export = admin.export().await?;
    if shell.json {
        let mut sql = HEAD.to_owned();
        while let Some(statement) = export.next().await? {
            sql += &statement;
        }
        return shell.print(&json!({"sql": sql}), String::new);
    }
    // A file gets every byte as it is; a terminal must not obey what stands in a label.
    let (mut out, escape) = (BufWriter::new(io::stdout()), io::stdout().is_terminal());
    written(out.write_all(HEAD.as_bytes()))?;
    while let Some(statement) = export.next().await? {
        let statement = if escape { printable::lines(&statement) } else { statement.into() };
        written(out.write_all(statement.as_bytes()))?;
    }
    written(out.flush())
}

/// The comment at the beginning.
const HEAD: &str = "-- The registry of a grantd: a seed for an empty database, PostgreSQL or SQLite. Secrets are here as hashes, and private
-- keys are not: a server on another database makes signing keys of its own.
";
