//! Where a measured grantd lives: its program, its database, its sealing key, and the settings that all runs share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::limit::ISSUER;
use crate::process::{Room, Server, free_address, get, pinned};

/// A database, and grantd configured for it.
#[derive(Debug, Clone)]
pub struct Site {
    grantd: PathBuf,
    database: String,
    sealing_key: PathBuf,
}

/// What one run of the server has of its own.
#[derive(Debug, Clone)]
pub struct Serve<'a> {
    /// The processors.
    pub cores: &'a str,
    /// Settings by their keys.
    pub settings: Vec<(&'a str, String)>,
    /// `RUST_LOG`; unset, the level is grantd's own.
    pub level: Option<&'a str>,
    /// Where the log goes; nowhere, when not given.
    pub log: Option<PathBuf>,
}

impl Default for Serve<'_> {
    fn default() -> Self {
        Self { cores: SERVER_CORE, settings: Vec::new(), level: Some("warn"), log: None }
    }
}

impl Site {
    /// A site in `room`, which gets a sealing key when it has none. The database has to be there.
    ///
    /// # Errors
    /// When the program is not beside this one, or the key cannot be written.
    pub fn new(room: &Room, database: String) -> anyhow::Result<Self> {
        let sealing_key = room.path("sealing.key");
        if !sealing_key.exists() {
            let mut key = [0; 32];
            aws_lc_rs::rand::fill(&mut key).map_err(|_| anyhow::anyhow!("no randomness"))?;
            fs::write(&sealing_key, BASE64_STANDARD.encode(key))?;
        }
        Ok(Self { grantd: beside_us("grantd")?, database, sealing_key })
    }

    /// The same with another database.
    #[must_use]
    pub fn elsewhere(&self, database: String) -> Self {
        Self { database, ..self.clone() }
    }

    /// `grantd` with arguments and the site's settings.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.grantd);
        command.args(arguments);
        self.configure(&mut command);
        command
    }

    /// Applies the schema, and the seeds of a directory.
    ///
    /// # Errors
    /// With what the command says.
    pub fn migrate(&self, seeds: Option<&Path>) -> anyhow::Result<()> {
        let mut command = self.command(&["migrate"]);
        if let Some(seeds) = seeds {
            command.env("GRANTD__DATABASE__SEEDS", seeds);
        }
        let done = command.output()?;
        if !done.status.success() {
            bail!("grantd migrate: {}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(())
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn serve(&self, serve: &Serve<'_>) -> anyhow::Result<Server> {
        let (command, address, admin) = self.serving(serve)?;
        let mut server = Server::start(command, address, Some(admin))?;
        server.until(Duration::from_mins(1), |_| get(admin, "/readyz").is_ok_and(|(status, _)| status == 200))?;
        Ok(server)
    }

    /// The command that serves, and the two addresses it will listen on.
    ///
    /// # Errors
    /// When there is no free address, or the log cannot be opened.
    pub fn serving(&self, serve: &Serve<'_>) -> anyhow::Result<(Command, std::net::SocketAddr, std::net::SocketAddr)> {
        let (address, admin) = (free_address()?, free_address()?);
        let mut command = pinned(serve.cores, &self.grantd);
        command.arg("serve");
        self.configure(&mut command);
        command
            .env("GRANTD__SERVER__LISTEN", address.to_string())
            .env("GRANTD__ADMIN__LISTEN", admin.to_string())
            .env("GRANTD__LOG__FORMAT", "json");
        for (key, value) in &serve.settings {
            command.env(format!("GRANTD__{}", key.to_uppercase().replace('.', "__")), value);
        }
        if let Some(level) = serve.level {
            command.env("RUST_LOG", level);
        }
        match &serve.log {
            Some(path) => command.stdout(File::options().append(true).create(true).open(path)?),
            None => command.stdout(Stdio::null()),
        };
        Ok((command, address, admin))
    }

    fn configure(&self, command: &mut Command) {
        for (name, _) in std::env::vars() {
            if name.starts_with("GRANTD") || matches!(name.as_str(), "RUST_LOG" | "DATABASE_URL") {
                command.env_remove(name);
            }
        }
        command
            .env("GRANTD__ISSUER", ISSUER)
            .env("GRANTD__DATABASE__URL", &self.database)
            .env("GRANTD__KEYS__SEALING_KEY_FILE", &self.sealing_key);
    }
}

/// A program that was built together with this one.
///
/// # Errors
/// When it is not there.
pub fn beside_us(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing: build it first, as script/bench does", path.display());
    }
    path.canonicalize().context("the way to our own program")
}

/// Where servers run.
pub const SERVER_CORE: &str = "0";
/// Where the generator runs.
pub const GENERATOR_CORE: &str = "1";
