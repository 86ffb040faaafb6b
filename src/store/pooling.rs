//! Poolers between grantd and PostgreSQL.

/// Pooling mode of a pooler between grantd and the servers (`database.pooling`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Each connection has one session: no pooler, or a session pooler.
    #[default]
    Session,
    /// Each transaction may reach another session, as with `pool_mode = transaction` of PgBouncer. grantd then uses
    /// nothing that outlives a transaction: no named statements, no session settings, no LISTEN, no advisory locks.
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
