//! `grantd health`: requests /readyz of the admin listener, for container health checks.

use std::path::Path;

use anyhow::bail;

use super::admin_listener::{AdminListener, fetch};
use crate::config::{ConfigError, Sources};

/// Requests `url`, or else /readyz of the admin listener of this configuration. Other faults of the configuration do
/// not matter: the running server has started with it.
pub(super) async fn run(
    url: Option<&str>,
    named: Option<&Path>,
    sources: Result<Sources, ConfigError>,
) -> anyhow::Result<()> {
    let (status, body) = match url {
        Some(url) => fetch(url).await?,
        None => AdminListener::find(None, named, sources)?.get("/readyz").await?,
    };
    if status.is_success() { Ok(()) } else { bail!("not ready ({status}): {body}") }
}
