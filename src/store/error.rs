//! Faults of the database, sorted by what an operator has to do about them.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use super::refusal::Refusal;

/// A fault of the database. None of them says anything about a credential.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or the connection broke.
    #[error("database unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The database did not answer within the deadline.
    #[error("database unavailable: no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The database only reads: a standby, or a primary that was demoted.
    #[error("database is read-only: it is a standby, or default_transaction_read_only is on")]
    ReadOnly,
    /// The file of an embedded database is not there, and it was.
    #[error("there is no database file at {}: it was moved or deleted; put it back, or restore a backup there", .0.display())]
    Missing(PathBuf),
    /// The database refuses our user, password or database name, or a privilege is missing.
    #[error("database access denied: {0}")]
    Denied(String),
    /// Another session holds a lock that the statement needs. [`Store::lock_holders`](super::Store::lock_holders) names it.
    #[error("a lock in the database is held by another session: {0}")]
    Locked(String),
    /// The database asked for another try because of concurrent changes, and went on asking.
    #[error("the database refused because of concurrent changes; try again: {0}")]
    Conflict(String),
    /// The file is not a database, or is damaged.
    #[error("the database is damaged: {0}; restore a backup, or move the file away to begin with an empty one")]
    Corrupt(String),
    /// The database answered with an error that is no outage.
    #[error("database error {code}: {message}")]
    Failed {
        /// SQLSTATE, or SQLite's extended result code.
        code: String,
        /// The database's words.
        message: String,
    },
    /// The write breaks a rule of the database.
    #[error("{0}")]
    Refused(Refusal),
    /// There is a row of this id already.
    #[error("{}", exists(.kind, .id))]
    Taken {
        /// `client`, `resource`, `client key`, …
        kind: String,
        /// Its id; empty where the database does not say, as SQLite never does.
        id: String,
    },
    /// A row that cannot be understood.
    #[error("{kind} {id}: {reason}")]
    Malformed {
        /// `client`, `resource` or `key`.
        kind: &'static str,
        /// Its id.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The schema is not the one that this program works on.
    #[error("{0}")]
    Schema(String),
}

impl StoreError {
    /// Whether the database is away: trying again later may help, and nothing else is wrong.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Late(_) | Self::ReadOnly | Self::Missing(_))
    }

    /// Whether the operator has to mend configuration, privileges or the file before any retry.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Corrupt(_))
    }

    /// Whether the connection behind the error can be used again. Any other may lead to a demoted primary.
    pub(super) fn spares_the_connection(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Taken { .. } | Self::Conflict(_) | Self::Locked(_))
    }

    /// Whether the database gives no further connection (SQLSTATE 53300).
    pub(super) fn is_out_of_connections(&self) -> bool {
        let Self::Unavailable(error) = self else { return false };
        error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "53300")
    }

    /// The same error, with the id of the row that was to be added when a row of its kind is taken.
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
            _ if code.starts_with("23") => Self::Refused(database.constraint().map_or(message, str::to_owned).into()),
            // Raised by our own triggers.
            "P0001" => Self::Refused(message.into()),
            // Connection exceptions, insufficient resources, operator intervention, system errors; what a deadline of the
            // server's cancelled.
            _ if ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => Self::Unavailable(error),
            _ => Self::Failed { code, message },
        }
    }
}

/// SQLite's result codes: the lowest byte is the primary one.
fn from_sqlite(code: u32, message: String, constraint: Option<&str>) -> StoreError {
    match (code & 0xff, code) {
        (8, _) => StoreError::ReadOnly,
        (5 | 6, _) => StoreError::Locked(message),
        (11 | 26, _) => StoreError::Corrupt(message),
        (19, 1555 | 2067) => {
            let column = message.rsplit(": ").next().unwrap_or_default();
            taken(column.split('.').next().unwrap_or_default(), String::new())
        }
        (19, _) => {
            let failed = || message.strip_prefix("CHECK constraint failed: ").unwrap_or(&message).to_owned();
            StoreError::Refused(constraint.map_or_else(failed, str::to_owned).into())
        }
        (1, _) if message.starts_with("no such table") => StoreError::Schema(OLD_SCHEMA.to_owned()),
        // IOERR, FULL, CANTOPEN, PROTOCOL: the disk, or the way to it.
        (10 | 13 | 14 | 15, _) => StoreError::Unavailable(sqlx::Error::Io(std::io::Error::other(message))),
        _ => StoreError::Failed { code: code.to_string(), message },
    }
}

fn taken(table: &str, id: String) -> StoreError {
    StoreError::Taken { kind: table.replace('_', " "), id }
}

/// The id in PostgreSQL's words `Key (client_id)=(billing) already exists.`
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
