//! What stands between grantd and PostgreSQL.

/// How connections are shared by a pooler between grantd and the servers (`database.pooling`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooling {
    /// A session belongs to one connection: there is no pooler, or one that pools sessions.
    #[default]
    Session,
    /// Each transaction may reach another session, as with `pool_mode = transaction` of PgBouncer. Nothing that outlives a
    /// transaction is used: no named statements, no settings of the session, no LISTEN, no advisory locks.
    Transaction,
}

impl Pooling {
    /// The value of `database.pooling`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
        }
    }
}
