//! The id that was probably meant, added to the error about one that does not exist.

use super::Shell;
use super::open::Purpose;
use crate::admin::AdminError;

/// Error about an id that does not exist, with the nearest that does.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct Mistyped {
    /// The nearest id.
    pub nearest: String,
    #[source]
    error: AdminError,
}

impl Shell {
    /// Adds the nearest id to an error about one that does not exist. The error stands as it is when none is near, and
    /// when the database cannot be asked.
    pub(super) async fn with_nearest_id(&self, error: anyhow::Error) -> anyhow::Error {
        let error = match error.downcast::<AdminError>() {
            Ok(error) if error.is_about_an_id() => error,
            Ok(error) => return error.into(),
            Err(other) => return other,
        };
        let Ok(admin) = self.admin(Purpose::Read).await else { return error.into() };
        match admin.nearest(&error).await {
            Ok(Some(nearest)) => Mistyped { nearest, error }.into(),
            Ok(None) | Err(_) => error.into(),
        }
    }
}
