//! Settings of the sealing key: its file or its command, and the file of the key before it.

use std::path::{Path, PathBuf};

use super::{ConfigError, SettingRef, Settings, Sources};

/// Sources of the sealing key and of the one before it.
#[derive(Debug, Clone)]
pub struct SealingSettings {
    /// Source of the key that seals.
    pub source: SealingKeySource,
    /// `keys.sealing_key_previous_file`: file of another key under which rows open, while the sealing key is changed.
    pub previous_file: Option<PathBuf>,
}

/// Source of a sealing key.
#[derive(Debug, Clone)]
pub enum SealingKeySource {
    /// `keys.sealing_key_file`: the key in base64.
    File {
        /// Location of the file.
        path: PathBuf,
        /// Whether a missing file may be made: only beside an embedded database, and when no setting names the file.
        may_be_made: bool,
    },
    /// `keys.sealing_key_command`: a program that prints the key in base64.
    Command {
        /// Name or path of the program.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

impl SealingSettings {
    pub(super) fn parse(settings: &Settings, sources: &Sources, embedded: bool) -> Result<Self, ConfigError> {
        let at = |key: &'static str| SettingRef { key, sources };
        let keys = &settings.keys;
        let file = Some(&keys.sealing_key_file).filter(|file| !file.as_os_str().is_empty());
        let source = match (keys.sealing_key_command.split_first(), file) {
            (Some(_), Some(_)) => {
                return Err(at("keys.sealing_key_command").wrong("set this or keys.sealing_key_file, not both"));
            }
            (Some((program, _)), None) if program.is_empty() => {
                return Err(at("keys.sealing_key_command").wrong("its first entry names no program"));
            }
            (Some((program, arguments)), None) => {
                SealingKeySource::Command { program: program.clone(), arguments: arguments.to_vec() }
            }
            // A named file may be on a missing mount. A key made there would be lost.
            (None, Some(file)) => SealingKeySource::File { path: file.clone(), may_be_made: false },
            (None, None) if embedded => {
                SealingKeySource::File { path: settings.data_dir.join("sealing.key"), may_be_made: true }
            }
            (None, None) => {
                return Err(at("keys.sealing_key_file").wrong(
                    "this or keys.sealing_key_command is required with PostgreSQL, with the same key on every replica; make one with `head -c 32 /dev/urandom | base64 > sealing.key`",
                ));
            }
        };
        let previous_file = Some(keys.sealing_key_previous_file.clone()).filter(|file| !file.as_os_str().is_empty());
        Ok(Self { source, previous_file })
    }

    /// Returns the same settings, by which no missing key is made.
    #[must_use]
    pub fn of_existing(mut self) -> Self {
        if let SealingKeySource::File { may_be_made, .. } = &mut self.source {
            *may_be_made = false;
        }
        self
    }

    /// `keys.sealing_key_file`, or its default. `None` when a command prints the key.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.source {
            SealingKeySource::File { path, .. } => Some(path),
            SealingKeySource::Command { .. } => None,
        }
    }
}
