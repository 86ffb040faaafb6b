//! Location of the database.

use std::fmt;
use std::path::PathBuf;

use super::servers::Servers;

/// Location of the data. The URL may contain a password, so `Debug` does not print it.
#[derive(Clone)]
pub enum Database {
    /// A PostgreSQL server, or another database that speaks its protocol.
    Postgres(Box<Servers>),
    /// The file of an embedded SQLite database.
    Sqlite(PathBuf),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(servers) => write!(f, "Postgres({})", servers.places()),
            Self::Sqlite(path) => write!(f, "Sqlite({})", path.display()),
        }
    }
}

impl fmt::Display for Database {
    /// Writes the location for messages, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(servers) => f.write_str(&servers.places()),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}
