//! `grantd migrate`: applies the schema, then the seeds, and lists what was applied or is pending.

use super::look::Tone;
use super::progress::Progress;
use super::table::{Cell, Column};
use super::{Shell, open};
use crate::model::time::Span;
use crate::store::Store;
use crate::store::migrations::{MigrationOptions, MigrationStatus};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// List every migration and seed and whether it is applied; change nothing
    #[arg(long)]
    status: bool,
    /// Put the schema into a database that holds tables of other programs
    #[arg(long)]
    into_shared_database: bool,
    /// Time to wait for a lock that another session holds
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    lock_timeout: Span,
}

impl Arguments {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let config = shell.config()?;
        let (store, seeds) = (Store::open(&config.database, 2), config.seeds.as_deref());
        if self.status {
            let missing = open::missing(&config.database);
            if let Some(path) = missing {
                shell.info(&format!("note: there is no database at {} yet", open::absolute(path)))?;
            }
            return report(shell, &store.migration_status(seeds, missing.is_none()).await?);
        }
        shell.make_database(&config)?;
        shell.info(&format!("migrating {}", config.database))?;
        let terms = MigrationOptions {
            into_shared_database: self.into_shared_database,
            lock_timeout: self.lock_timeout.duration(),
        };
        let progress = Progress::begin("migrating");
        let applied = store.migrate_with(&config.database, seeds, terms).await?;
        drop(progress);
        if applied.is_empty() {
            shell.info("nothing to do: every migration is already applied; `grantd migrate --status` lists them")?;
        }
        report(shell, &applied)
    }
}

/// Prints migrations. None are no news here: the message on stderr says why.
fn report(shell: &Shell, migrations: &[MigrationStatus]) -> anyhow::Result<()> {
    if migrations.is_empty() && !shell.json {
        return Ok(());
    }
    let mut list = shell.list(COLUMNS);
    for one in migrations {
        let state =
            || if one.applied { Cell::toned("applied", Tone::Good) } else { Cell::toned("PENDING", Tone::Warning) };
        let row = || vec![state(), Cell::new(one.kind), Cell::new(one.version.to_string()), Cell::new(&one.name)];
        list.item(|| one, row)?;
    }
    list.end()
}

const COLUMNS: &[Column] =
    &[Column::whole("STATE"), Column::whole("KIND"), Column::whole("VERSION"), Column::whole("NAME")];
