//! Exit codes of commands: the closed list, and the code of an error.

use crate::config::ConfigError;
use crate::serve::sealing_key::SealingKeyError;
use crate::store::StoreError;
use crate::store::migrations::MigrationError;

/// Exit code of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done,
    Failed,
    WrongUsage,
    Unavailable,
    BadConfiguration,
    Interrupted,
    Terminated,
}

impl Exit {
    /// Every code, in the order of the reference.
    pub(super) const ALL: [Self; 7] = [
        Self::Done,
        Self::Failed,
        Self::WrongUsage,
        Self::Unavailable,
        Self::BadConfiguration,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The code of an error.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        let of_store = |is: fn(&StoreError) -> bool| {
            error.chain().any(|cause| match cause.downcast_ref::<MigrationError>() {
                Some(MigrationError::Store(error)) => is(error),
                _ => cause.downcast_ref::<StoreError>().is_some_and(is),
            })
        };
        let shared = error.chain().any(|cause| {
            matches!(
                cause.downcast_ref::<MigrationError>(),
                Some(MigrationError::Shared { .. } | MigrationError::Development { .. })
            )
        });
        let configuration = error.chain().any(<dyn std::error::Error>::is::<ConfigError>);
        if configuration || shared || of_store(StoreError::is_configuration) {
            Self::BadConfiguration
        } else if of_store(StoreError::is_outage)
            || of_store(|error| matches!(error, StoreError::Locked(_)))
            || error.chain().any(|cause| matches!(cause.downcast_ref(), Some(SealingKeyError::Command(_))))
        {
            Self::Unavailable
        } else {
            Self::Failed
        }
    }

    /// The code that the process ends with.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::WrongUsage => 2,
            Self::Unavailable => 69,
            Self::BadConfiguration => 78,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// The cases in which a process ends with it.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "Done. Also a server that was told to stop, and has stopped.",
            Self::Failed => {
                "Failed; the message on stderr says what to do. Also where the output cannot be written (a full disk): a change that was made before stays, except that a new secret that could not be printed is revoked. A reader that closes the pipe early (`| head -1`) ends a command with this code and without a message. `health`: not ready. `doctor`: faults. `token inspect`: not valid. `token get`: no token."
            }
            Self::WrongUsage => "Wrong usage: an unknown command or option, or a malformed argument. Nothing was done.",
            Self::Unavailable => {
                "The database is unavailable, a session that the message names holds a lock, or `keys.sealing_key_command` failed or was too slow. The same command may succeed later."
            }
            Self::BadConfiguration => {
                "Bad configuration: the message names the key, where it is set, and what to write instead. Also a database that does not exist, denies access, is damaged or belongs to another program, and a directory that cannot be written."
            }
            Self::Interrupted => {
                "Ended by SIGINT (Ctrl-C), without a half change: each change is one transaction. `serve` and `dev` stop with 0."
            }
            Self::Terminated => "Ended by SIGTERM, as by SIGINT.",
        }
    }
}
