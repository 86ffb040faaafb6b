//! A PostgreSQL that was started for the run, reached through `psql`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::time::sleep;

use crate::program::run_ok_within;

/// A PostgreSQL server, as a user who may do everything.
#[derive(Debug, Clone)]
pub struct Postgres {
    psql: PathBuf,
    /// Its URL up to the name of the database, and from there on.
    url: (String, String),
}

impl Postgres {
    /// The server at `prefix` + database + `suffix`; `bin` holds its programs.
    #[must_use]
    pub fn new(bin: Option<&Path>, prefix: &str, suffix: &str) -> Self {
        let psql = bin.map(|bin| bin.join("psql")).filter(|psql| psql.exists());
        Self { psql: psql.unwrap_or_else(|| "psql".into()), url: (prefix.to_owned(), suffix.to_owned()) }
    }

    /// The server that script/postgres.sh started: `PG_URL` is its URL, `PG_BIN` the directory of its programs.
    pub fn from_environment() -> anyhow::Result<Self> {
        let url = std::env::var("PG_URL").context("PG_URL names no PostgreSQL; run script/bench, which starts one")?;
        let (prefix, _) = url.rsplit_once('/').context("PG_URL names no database")?;
        Ok(Self::new(std::env::var_os("PG_BIN").map(PathBuf::from).as_deref(), &format!("{prefix}/"), ""))
    }

    /// The URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("{}{database}{}", self.url.0, self.url.1)
    }

    /// `psql` on a database. It prints rows with fields separated by `|`, and ends at the first error.
    #[must_use]
    pub fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(&self.psql);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database)]);
        command
    }

    /// Runs SQL and returns its rows, fields separated by `|`.
    pub async fn sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        // The benches insert a million rows.
        let ended = run_ok_within(&mut self.psql(database), sql, Duration::from_mins(10)).await?;
        Ok(ended.stdout.trim().to_owned())
    }

    /// Drops a database, if it is there, and whatever is connected to it.
    pub async fn remove(&self, database: &str) -> anyhow::Result<()> {
        self.sql("postgres", &format!("drop database if exists {database} with (force)")).await.map(drop)
    }

    /// Creates a database, empty or as a copy of another one.
    pub async fn create(&self, database: &str, copy_of: Option<&str>) -> anyhow::Result<()> {
        let sql = format!("create database {database} template {}", copy_of.unwrap_or("template1"));
        // PostgreSQL notices late that the connections of a killed server are gone.
        let mut tries = 0;
        while let Err(error) = self.sql("postgres", &sql).await {
            tries += 1;
            if tries == 20 || !error.to_string().contains("being accessed") {
                return Err(error);
            }
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }
}
