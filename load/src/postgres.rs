//! The throwaway PostgreSQL that script/postgres.sh starts, driven through `psql`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// A server whose user may do everything.
pub struct Postgres {
    url: String,
    psql: PathBuf,
}

impl Postgres {
    /// The one that `PG_URL` names; `psql` is looked for in `PG_BIN`, else on the path.
    ///
    /// # Errors
    /// When `PG_URL` is not set.
    pub fn from_environment() -> anyhow::Result<Self> {
        let url = std::env::var("PG_URL").context("PG_URL names no PostgreSQL; run script/bench, which starts one")?;
        let psql = std::env::var_os("PG_BIN").map(|bin| PathBuf::from(bin).join("psql")).filter(|psql| psql.exists());
        Ok(Self { url, psql: psql.unwrap_or_else(|| "psql".into()) })
    }

    /// The URL of a database, for a role of its own when one is named.
    #[must_use]
    pub fn url(&self, database: &str, role: Option<&str>) -> String {
        let base = self.url.rsplit_once('/').map_or(self.url.as_str(), |(base, _)| base);
        match (role, base.split_once("://"), base.rsplit_once('@')) {
            (Some(role), Some((scheme, _)), Some((_, host))) => format!("{scheme}://{role}@{host}/{database}"),
            _ => format!("{base}/{database}"),
        }
    }

    /// Runs SQL and returns its rows, fields separated by `|`.
    ///
    /// # Errors
    /// With what `psql` says.
    pub fn sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(&self.psql)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database, None)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("psql")?;
        psql.stdin.take().context("psql")?.write_all(sql.as_bytes())?;
        let done = psql.wait_with_output()?;
        if !done.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(String::from_utf8(done.stdout)?)
    }

    /// Makes a database, empty or as a copy.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self, database: &str, copy_of: Option<&str>) -> anyhow::Result<()> {
        let template = copy_of.unwrap_or("template1");
        let sql = format!("create database {database} template {template}");
        // Connections of a server that was killed last until PostgreSQL has noticed.
        let mut tries = 0;
        while let Err(error) = self.sql("postgres", &sql) {
            tries += 1;
            if tries == 20 || !error.to_string().contains("being accessed") {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }
}
