//! The sealing key of a server or a command: read from its file, printed by its command, or made.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::prepare::{config_error, directory_of, is_absent, make_directory, unwritable};
use super::sealing_command::{self, CommandError};
use crate::config::{ConfigError, SealingKeySource, SealingSettings, read_secret, user};
use crate::crypto::random;
use crate::crypto::seal::SealingKey;
use crate::model::event::Event;
use crate::state::keyring::live;
use crate::store::keys::SealedKey;
use crate::store::tag_keys::SealedTagKey;
use crate::store::{Store, StoreError};

/// Errors of reading the sealing key.
#[derive(Debug, thiserror::Error)]
pub enum SealingKeyError {
    /// A setting, the file that it names, or what its command prints is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The command failed or was too slow. It may succeed later.
    #[error("{COMMAND}: {0}")]
    Command(String),
}

/// Reads the sealing key, and the one before it where that is configured. Beside an embedded database that has none, makes
/// one and says so.
///
/// # Errors
/// When a key cannot be read, or made.
pub fn read(settings: &SealingSettings) -> Result<SealingKey, SealingKeyError> {
    let current = match &settings.source {
        SealingKeySource::File { path, may_be_made } => from_file("keys.sealing_key_file", path, *may_be_made)?,
        SealingKeySource::Command { program, arguments } => from_command(program, arguments)?,
    };
    let Some(path) = &settings.previous_file else { return Ok(current) };
    let previous = from_file(PREVIOUS, path, false)?;
    if previous.fingerprint() == current.fingerprint() {
        let remedy = format!("{}: it holds the sealing key itself; name the file of the other key", path.display());
        return Err(config_error(PREVIOUS, &remedy).into());
    }
    Ok(current.with_previous(previous))
}

/// Sealed rows that a server starts on.
#[derive(Debug, Default)]
pub(super) struct RowsInUse {
    /// Signing keys that are not gone.
    pub(super) keys: Vec<SealedKey>,
    tag_keys: Vec<SealedTagKey>,
}

impl RowsInUse {
    /// Reads the rows. None when the database cannot be reached: they are looked at when they are loaded.
    pub(super) async fn read(store: &Store) -> Result<Self, StoreError> {
        let read = async {
            let (now, keys, tag_keys) = (store.now().await?, store.keys().await?, store.tag_keys().await?);
            Ok(Self { keys: live(&keys, now).cloned().collect(), tag_keys })
        };
        read.await.or_else(|error: StoreError| if error.is_outage() { Ok(Self::default()) } else { Err(error) })
    }
}

/// Refuses to start on rows that were sealed under a key that is not configured: this server would sign with other keys than
/// its replicas, or publish fewer. A row that is damaged is reported when it is loaded, and left out.
///
/// # Errors
/// [`ConfigError`], which names the rows.
pub(super) fn refuse_foreign_rows(rows: &RowsInUse, under: &SealingKey) -> Result<(), ConfigError> {
    let keys = rows.keys.iter().filter(|key| under.is_foreign(&key.sealed)).map(|key| key.kid.clone());
    let tag_keys = rows.tag_keys.iter().filter(|key| under.is_foreign(&key.sealed)).map(|key| key.kid.clone());
    let [keys, tag_keys] = [keys.collect::<Vec<_>>(), tag_keys.collect()];
    let named = |what: &str, kids: &[String]| (!kids.is_empty()).then(|| format!("{what} {}", kids.join(", ")));
    let rows: Vec<String> = [named("signing key", &keys), named("tag key", &tag_keys)].into_iter().flatten().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let remedy = format!(
        "{} {} sealed under another sealing key than {under:?}; name that key in {PREVIOUS}, restore it, or remove the rows with `grantd key remove KID --now` and `grantd key tag remove KID`",
        rows.join(" and "),
        if keys.len() + tag_keys.len() == 1 { "is" } else { "are" },
    );
    Err(config_error("keys.sealing_key_file", &remedy))
}

fn from_file(setting: &str, path: &Path, may_be_made: bool) -> Result<SealingKey, ConfigError> {
    if may_be_made && is_absent(path) {
        make(path).map_err(|error| unwritable("data_dir", path, &error))?;
    }
    let wrong = |error: &dyn std::fmt::Display| config_error(setting, &format!("{}: {error}", path.display()));
    let text = Zeroizing::new(read_secret(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => wrong(&"there is no such file, and one that is named is never made; is a mount missing? Restore it, or for a new deployment make one with `head -c 32 /dev/urandom | base64`"),
        ErrorKind::NotADirectory if may_be_made => unwritable("data_dir", path, &error),
        _ => wrong(&format!("cannot be read by {}: {error}", user())),
    })?);
    if text.trim().is_empty() {
        return Err(wrong(&"the file is empty; restore the key that belongs into it"));
    }
    SealingKey::from_base64(&text).map_err(|error| wrong(&error))
}

fn from_command(program: &str, arguments: &[String]) -> Result<SealingKey, SealingKeyError> {
    let printed = sealing_command::run(program, arguments).map_err(|error| match error {
        CommandError::NotStarted(error) => {
            SealingKeyError::Config(config_error(COMMAND, &format!("`{program}` cannot be started: {error}")))
        }
        CommandError::Failed(reason) => SealingKeyError::Command(format!("`{program}` {reason}")),
    })?;
    // The text of the error quotes nothing of what was printed.
    let key = str::from_utf8(&printed).ok().and_then(|text| SealingKey::from_base64(text).ok());
    let remedy = || format!("`{program}` has to print 32 bytes in base64 and nothing else, and printed something else");
    key.ok_or_else(|| config_error(COMMAND, &remedy()).into())
}

fn make(path: &Path) -> io::Result<()> {
    make_directory(directory_of(path))?;
    let text = SealingKey::generate_base64().map_err(io::Error::other)?;
    // Written whole under another name, then linked: a process that starts beside us reads all of it or finds nothing.
    // The name is random, so that what a crash left behind is in nobody's way.
    let suffix = u64::from_ne_bytes(random().map_err(io::Error::other)?);
    let unfinished = path.with_extension(format!("{suffix:016x}.new"));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let made = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let made = made.and_then(|()| fs::hard_link(&unfinished, path));
    let removed = fs::remove_file(&unfinished);
    match made {
        Ok(()) => {
            tracing::warn!(event = Event::KeySealingKeyMade.as_str(), path = %path.display(), "made a sealing key; back it up, the signing keys are lost without it");
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    removed
}

const COMMAND: &str = "keys.sealing_key_command";
const PREVIOUS: &str = "keys.sealing_key_previous_file";
