//! The requirements on a PostgreSQL server and its database, checked before anything is read or migrated.

use super::StoreError;
use super::session::Session;

/// Refuses a server before PostgreSQL 13, which the schema and the statements need, and a database that does not hold every
/// text.
pub(super) async fn refuse_unusable_server(session: &mut Session) -> Result<(), StoreError> {
    if matches!(session, Session::Sqlite(_)) {
        return Ok(());
    }
    let sql = "select current_setting('server_version_num')::bigint, current_setting('server_version'),
        current_setting('server_encoding')";
    let settings: Vec<(i64, String, String)> = session.fetch(sql, &[]).await?;
    let Some((number, name, encoding)) = settings.first() else { return Ok(()) };
    if encoding != "UTF8" {
        return Err(StoreError::Schema(format!(
            "the database has the encoding {encoding}, and grantd needs UTF8: create another one with `create database NAME encoding 'UTF8' template template0`"
        )));
    }
    old_server(*number, name)
}

fn old_server(number: i64, name: &str) -> Result<(), StoreError> {
    if number >= OLDEST_POSTGRES {
        return Ok(());
    }
    Err(StoreError::Schema(format!("PostgreSQL {name} is too old: grantd needs {} or later", OLDEST_POSTGRES / 10_000)))
}

/// `server_version_num` of the oldest supported PostgreSQL.
const OLDEST_POSTGRES: i64 = 130_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_postgresql_that_is_too_old_is_named_with_the_version_that_is_needed() {
        assert!(old_server(130_000, "13.0").is_ok() && old_server(180_001, "18.1").is_ok());
        let refused = old_server(120_022, "12.22").unwrap_err().to_string();
        assert_eq!(refused, "PostgreSQL 12.22 is too old: grantd needs 13 or later");
    }
}
