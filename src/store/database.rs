//! Where the data is.

use std::fmt;
use std::path::PathBuf;

use super::servers::Servers;

/// Where the data is. The URL may hold a password, so `Debug` shows neither.
#[derive(Clone)]
pub enum Database {
    /// A PostgreSQL server, or one that speaks its protocol.
    Postgres(Box<Servers>),
    /// A file of the embedded database.
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
    /// Where the data is, as operators know it: no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(servers) => f.write_str(&servers.places()),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}
