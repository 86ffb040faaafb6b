//! Disclosure of new secrets, once, on stdout or in a new file. A secret that could not be shown is revoked.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::Shell;
use crate::admin::Admin;
use crate::crypto::secret::ClientSecret;
use crate::model::client_id::ClientId;

/// Text below a printed secret.
pub(super) const SHOWN_ONCE: &str = "The secret is not stored and will not be shown again.";

/// File with a new secret under a temporary name, until the secret works. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct SecretFile {
    path: PathBuf,
    unfinished: PathBuf,
    keep: bool,
}

impl SecretFile {
    /// Writes `secret` to a temporary file beside `path`, synced to disk and readable by its owner alone.
    pub(super) fn write(path: &Path, secret: &ClientSecret) -> anyhow::Result<Self> {
        let fault = || format!("--secret-file {} (it must not exist yet)", path.display());
        if path.symlink_metadata().is_ok() {
            bail!("{}: it exists", fault());
        }
        let mut name = path.file_name().with_context(fault)?.to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let unfinished = path.with_file_name(name);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).with_context(fault)?;
        let written = Self { path: path.to_owned(), unfinished, keep: false };
        writeln!(file, "{}", secret.expose()).and_then(|()| file.sync_all()).with_context(fault)?;
        Ok(written)
    }

    /// Gives the file its final name. The secret works by now, so the file is never removed from here on.
    pub(super) fn publish(mut self) -> anyhow::Result<()> {
        self.keep = true;
        let fault = || format!("the secret works and is in {}; rename that file", self.unfinished.display());
        match fs::hard_link(&self.unfinished, &self.path) {
            Ok(()) => fs::remove_file(&self.unfinished).with_context(|| self.unfinished.display().to_string())?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error).with_context(fault),
            // The file system has no hard links; two commands that write the same file at once cannot be told apart.
            Err(_) => fs::rename(&self.unfinished, &self.path).with_context(fault)?,
        }
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .with_context(|| directory.display().to_string())
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_file(&self.unfinished)
        {
            tracing::warn!(path = %self.unfinished.display(), %error, "this file contains a secret that does not work; remove it");
        }
    }
}

/// Prints a secret that was just stored. When printing fails, nobody can know the secret, so it is revoked.
pub(super) async fn show_once(
    shell: &Shell,
    admin: &Admin,
    (id, secret_id): (&ClientId, &str),
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let Err(error) = shell.print(value, text) else { return Ok(()) };
    let word = id.in_shell();
    let lost = format!("secret {secret_id} of client {id} could not be shown and is lost");
    Err(match admin.revoke_secret(id, secret_id).await {
        Ok(_) => error.context(format!("{lost}; it is revoked, and `grantd client secret add {word}` makes another")),
        Err(fault) => error.context(format!(
            "{lost}; it could not be revoked ({fault}), so run `grantd client secret revoke {word} {secret_id}`"
        )),
    })
}
