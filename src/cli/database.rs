//! `grantd database`: copies everything into another database, and takes the freeze of a source back.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Shell;
use super::open::{absolute, administration, missing};
use super::progress::Progress;
use crate::admin::Admin;
use crate::config::{Config, ConfigError, database_at, read_secret};
use crate::store::migrations::Schema;
use crate::store::{Database, Store};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copy everything into an empty database; the source takes no writes from then on
    Copy(Copy),
    /// Permit writes to a database that was copied
    Unfreeze(Unfreeze),
}

/// Databases by their URLs. A URL with a password goes into a file, since others can read arguments.
#[derive(Debug, Args)]
pub(super) struct Copy {
    /// The source, such as `sqlite:/var/lib/grantd/grantd.db`
    #[arg(long, value_name = "URL", required_unless_present = "from_file", conflicts_with = "from_file")]
    from: Option<String>,
    /// File with the URL of the source
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// The target, such as `postgres://grantd@db.example.com/grantd?sslmode=verify-full`
    #[arg(long, value_name = "URL", required_unless_present = "to_file", conflicts_with = "to_file")]
    to: Option<String>,
    /// File with the URL of the target
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Unfreeze {
    /// The database
    #[arg(long, value_name = "URL", required_unless_present = "url_file", conflicts_with = "url_file")]
    url: Option<String>,
    /// File with the URL of the database
    #[arg(long, value_name = "FILE")]
    url_file: Option<PathBuf>,
}

impl Command {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        match self {
            Self::Copy(copy) => copy.run(shell).await,
            Self::Unfreeze(Unfreeze { url, url_file }) => {
                let source = database(shell, ("--url", url), url_file.as_deref())?;
                let admin = open(shell, source.clone()).await?;
                if admin.unfreeze().await? {
                    shell.info(&format!("{source} takes writes again"))
                } else {
                    shell.info(&format!("nothing changed: {source} is not frozen"))
                }
            }
        }
    }
}

impl Copy {
    async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let from = database(shell, ("--from", self.from), self.from_file.as_deref())?;
        let to = database(shell, ("--to", self.to), self.to_file.as_deref())?;
        if from.to_string() == to.to_string() {
            bail!("--from and --to name the same database, {from}");
        }
        let admin = open(shell, from.clone()).await?;
        let config = Config { database: to.clone(), database_by_default: false, ..shell.config()? };
        shell.make_database(&config)?;
        let target = Store::open(&to, 2);
        target.migrate(&to, None).await.with_context(|| format!("--to {to}"))?;
        if admin.has_server().await? {
            shell.info(&format!(
                "note: a server runs on {from}, which takes no writes from now on: the server issues tokens to known clients, and refuses assertions, proofs and revocations until it is restarted on {to}"
            ))?;
        }
        let progress = Progress::begin("copying rows");
        let report = admin.copy_into(&target, &mut |rows| progress.add(rows)).await?;
        drop(progress);
        let value = json!({
            "from": from.to_string(), "to": to.to_string(), "was_complete": report.was_complete,
            "tables": report.tables, "verified_keys": report.keys,
        });
        shell.print(&value, || {
            let line = |table: &crate::store::copying::CopiedTable| format!("{:<24} {:>10}\n", table.table, table.rows);
            report.tables.iter().map(line).collect()
        })?;
        let keys = match report.keys.len() {
            0 => "there is no signing key yet".to_owned(),
            1 => "a token of its signing key verifies with the target's".to_owned(),
            keys => format!("tokens of its {keys} signing keys verify with the target's"),
        };
        let done = if report.was_complete { "nothing to do: the target held the same already" } else { "copied" };
        shell.info(&format!(
            "{done}; every table has the same rows in both, and {keys}. {from} takes no more writes: start servers on {to} with the same sealing key, or go back with `grantd database unfreeze`"
        ))
    }
}

/// Reads the URL of a database from an argument or a file.
fn database(shell: &Shell, (option, url): (&str, Option<String>), file: Option<&Path>) -> anyhow::Result<Database> {
    let url = match (url, file) {
        (Some(url), _) if has_password(&url) => {
            bail!(
                "{option}: others can read arguments, so the password must not stand there; write the URL into a file and name it with {option}-file"
            )
        }
        (Some(url), _) => url,
        (None, Some(file)) => {
            let url = read_secret(file).with_context(|| format!("{option}-file {}", file.display()))?;
            url.trim().to_owned()
        }
        (None, None) => String::new(),
    };
    let wrong = |error: ConfigError| ConfigError { key: option.to_owned(), origin: "command line".to_owned(), ..error };
    Ok(database_at(&url, &shell.settings, &shell.sources).map_err(wrong)?)
}

/// Whether a URL has a password, in front of the host or as a parameter.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let user = rest.split(['/', '?']).next().and_then(|authority| authority.rsplit_once('@'));
    user.is_some_and(|(user, _)| user.contains(':')) || rest.contains("password=")
}

/// Opens an existing database of this version's schema, with the sealing key of the configuration.
async fn open(shell: &Shell, database: Database) -> anyhow::Result<Admin> {
    if let Some(path) = missing(&database) {
        bail!("there is no database at {}", absolute(path));
    }
    let config = shell.config()?;
    let config = Config { sealing: config.sealing.clone().of_existing(), ..config };
    let store = Store::open(&database, 2);
    match store.schema().await? {
        Schema::Usable => {}
        Schema::Older { pending } => {
            bail!("{database} lacks {pending} schema migrations: run `grantd migrate` on it first")
        }
        Schema::Newer { by } => bail!("{database} has {by} migrations of a newer grantd: copy it with that version"),
    }
    Ok(administration(&config, store).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_noticed_wherever_it_stands() {
        for with in
            ["postgres://u:p@h/d", "postgres://u:@h", "postgres://h/d?password=p", "postgres://u@h/d?a=b&password=p"]
        {
            assert!(has_password(with), "{with}");
        }
        for without in ["sqlite:/a:b@c/d", "postgres://h:5432/d", "postgres://u@h:5432/d?host=/tmp:x", "sqlite:x"] {
            assert!(!has_password(without), "{without}");
        }
    }
}
