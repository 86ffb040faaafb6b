//! Errors of the database, grouped by the operator's remedy.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use super::refusal::{FROZEN, Refusal};

/// Error of the database. No variant says anything about a credential.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or the connection broke.
    #[error("database unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The database did not answer within the deadline.
    #[error("database unavailable: no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The database is read-only: a standby, or a demoted primary.
    #[error("database is read-only: it is a standby, or default_transaction_read_only is on")]
    ReadOnly,
    /// The database was copied to another place and takes no more writes.
    #[error(
        "database is frozen: `grantd database copy` has copied it, so it takes no writes; use the copy, or run `grantd database unfreeze`"
    )]
    Frozen,
    /// The file of the embedded database has disappeared.
    #[error("there is no database file at {}: it was moved or deleted; put it back, or restore a backup there", .0.display())]
    Missing(PathBuf),
    /// The database refuses the user, the password or the database name, or a privilege is missing.
    #[error("database access denied: {0}")]
    Denied(String),
    /// Another session holds a lock that the statement needs. [`Store::lock_holders`](super::Store::lock_holders) names
    /// the session.
    #[error("a lock in the database is held by another session: {0}")]
    Locked(String),
    /// The database kept refusing the transaction because of concurrent changes.
    #[error("the database refused the change because of concurrent ones; try again: {0}")]
    Conflict(String),
    /// The file is not a database, or is damaged.
    #[error("the database is damaged: {0}; restore a backup, or move the file away to begin with an empty one")]
    Corrupt(String),
    /// Any other error of the database.
    #[error("database error {code}: {message}")]
    Failed {
        /// SQLSTATE, or SQLite's extended result code.
        code: String,
        /// The database's message.
        message: String,
    },
    /// The write violates a constraint, or a rule of the store.
    #[error("{0}")]
    Refused(Refusal),
    /// A row with this id already exists.
    #[error("{}", exists(.kind, .id))]
    Taken {
        /// `client`, `resource`, `client key`, …
        kind: String,
        /// The id; empty where the database does not report it, as SQLite never does.
        id: String,
    },
    /// A row that cannot be read.
    #[error("{kind} {id}: {reason}")]
    Malformed {
        /// `client`, `resource` or `key`.
        kind: &'static str,
        /// The id of the row.
        id: String,
        /// The fault.
        reason: String,
    },
    /// The schema is not one that this version works on.
    #[error("{0}")]
    Schema(String),
}

impl StoreError {
    /// Whether the database is unavailable, so that a later retry may succeed.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Late(_) | Self::ReadOnly | Self::Frozen | Self::Missing(_))
    }

    /// Whether the operator has to change configuration, privileges or the file before a retry can succeed.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Corrupt(_))
    }

    /// Whether the connection can be used again. After other errors it may lead to a demoted primary.
    pub(super) fn spares_the_connection(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Taken { .. } | Self::Conflict(_) | Self::Locked(_))
    }

    /// Whether the database refuses further connections (SQLSTATE 53300).
    pub(super) fn is_out_of_connections(&self) -> bool {
        let Self::Unavailable(error) = self else { return false };
        error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "53300")
    }

    /// Returns the error with the id of the row that was to be added, when a row of its kind exists.
    pub(super) fn naming(self, kind: &str, id: &str) -> Self {
        match self {
            Self::Taken { kind: taken, .. } if taken == kind => Self::Taken { kind: taken, id: id.to_owned() },
            other => other,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::ColumnDecode { index, source } = &error {
            return Self::Malformed { kind: "row", id: format!("column {index}"), reason: source.to_string() };
        }
        let Some(database) = error.as_database_error() else { return Self::Unavailable(error) };
        let (code, message) = (database.code().unwrap_or_default().into_owned(), database.message().to_owned());
        if let Ok(number) = code.parse::<u32>()
            && code.len() != 5
        {
            return from_sqlite(number, message, database.constraint());
        }
        match code.as_str() {
            "25006" => Self::ReadOnly,
            "28000" | "28P01" | "3D000" | "42501" => Self::Denied(message),
            "42P01" | "3F000" => Self::Schema(OLD_SCHEMA.to_owned()),
            "55P03" => Self::Locked(message),
            "40001" | "40P01" => Self::Conflict(message),
            "23505" => taken(database.table().unwrap_or_default(), taken_id(database).unwrap_or_default()),
            "23514" if message == FROZEN => Self::Frozen,
            _ if code.starts_with("23") => Self::Refused(database.constraint().map_or(message, str::to_owned).into()),
            // Raised by grantd's triggers.
            "P0001" => Self::Refused(message.into()),
            // Connection exceptions, insufficient resources, operator intervention and system errors.
            _ if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Self::Unavailable(error),
            _ => Self::Failed { code, message },
        }
    }
}

/// Classifies an SQLite result code. The lowest byte is the primary code.
fn from_sqlite(code: u32, message: String, constraint: Option<&str>) -> StoreError {
    match (code & 0xff, code) {
        (8, _) => StoreError::ReadOnly,
        (5 | 6, _) => StoreError::Locked(message),
        (11 | 26, _) => StoreError::Corrupt(message),
        (19, 1555 | 2067) => {
            let column = message.rsplit(": ").next().unwrap_or_default();
            taken(column.split('.').next().unwrap_or_default(), String::new())
        }
        (19, _) if message == FROZEN => StoreError::Frozen,
        (19, _) => {
            let failed = || message.strip_prefix("CHECK constraint failed: ").unwrap_or(&message).to_owned();
            StoreError::Refused(constraint.map_or_else(failed, str::to_owned).into())
        }
        (1, _) if message.starts_with("no such table") => StoreError::Schema(OLD_SCHEMA.to_owned()),
        // IOERR, FULL, CANTOPEN, PROTOCOL: faults of the disk or of access to it.
        (10 | 13 | 14 | 15, _) => StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(message))),
        _ => StoreError::Failed { code: code.to_string(), message },
    }
}

fn taken(table: &str, id: String) -> StoreError {
    StoreError::Taken { kind: table.replace('_', " "), id }
}

/// Reads the id from PostgreSQL's detail `Key (client_id)=(billing) already exists.`
fn taken_id(error: &dyn DatabaseError) -> Option<String> {
    let (_, id) = error.try_downcast_ref::<PgDatabaseError>()?.detail()?.split_once(")=(")?;
    Some(id.rsplit_once(')')?.0.to_owned())
}

/// `client "billing" already exists`.
fn exists(kind: &str, id: &str) -> String {
    if id.is_empty() {
        format!("a {kind} with this id already exists")
    } else {
        format!("{kind} \"{id}\" already exists")
    }
}

const OLD_SCHEMA: &str = "the database has no grantd schema yet: run `grantd migrate`";
