//! `grantd dev`: a server to try out, on loopback, with a demo client whose secret is new at each start.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use super::Shell;
use super::open::administration;
use crate::admin::clients::ClientPatch;
use crate::admin::secrets::SecretOptions;
use crate::admin::{AdminError, Change};
use crate::config::Config;
use crate::model::issuer::Issuer;
use crate::serve::signals::Signals;
use crate::store::{Store, StoreError};
use crate::telemetry::Logging;
use crate::{serve, telemetry};

pub(super) async fn run(shell: Shell, mut signals: Signals) -> anyhow::Result<()> {
    let DevServer { config, store, logging, announce } = tokio::select! {
        prepared = prepare(shell) => prepared?,
        () = signals.stop() => return Ok(()),
    };
    serve::run(config, store, &logging, Some(announce), signals).await
}

struct DevServer {
    config: Config,
    store: Store,
    logging: Logging,
    announce: serve::Announce,
}

async fn prepare(mut shell: Shell) -> anyhow::Result<DevServer> {
    const CLIENT: &str = "demo";
    const SCOPE: &str = "read:data write:data";
    const LABEL: &str = "grantd dev";
    // Always the embedded database: a configured one is no place for a demo client.
    let file = shell.settings.data_dir.join("grantd.db");
    shell.settings.database.url = Some(format!("sqlite:{}", file.display()).into());
    shell.settings.database.url_file = PathBuf::new();
    shell.settings.database.auto_migrate = Some(true);
    shell.settings.keys.sealing_key_file = PathBuf::new();
    // The demo client authenticates by a secret over cleartext on loopback, which fapi2 refuses.
    "default".clone_into(&mut shell.settings.profile);
    let mut config = shell.config()?;
    if !config.listen.ip().is_loopback() || !config.admin_listen.ip().is_loopback() {
        bail!("`grantd dev` listens on loopback only; use `grantd serve` for anything else");
    }
    config.drain_delay = std::time::Duration::ZERO;

    let logging = telemetry::start(config.log_format, false, telemetry::Filter::from_environment("info")?)?;
    let store = Store::open(&config.database, config.database_max_connections);
    serve::prepare::prepare_database(&config, &store).await?;
    let admin = administration(&config, store.clone()).await?;
    let scope = Change::To(SCOPE.parse()?);
    let demo = ClientPatch { scope, default_scope: Change::To("read:data".parse()?), ..ClientPatch::default() };
    let demo = demo.new_client(CLIENT.parse()?, admin.now())?;
    let client_id = demo.client.client_id.clone();
    match admin.create_client(demo, None).await {
        Ok(_) | Err(AdminError::Store(StoreError::Taken { .. })) => {}
        Err(error) => return Err(error.into()),
    }
    // Only hashes are stored, so each start generates a new secret.
    let options = SecretOptions { label: LABEL.to_owned(), expires_in: None };
    let secret = shell.after_warnings(admin.replace_secret(&client_id, options).await?).secret;

    let json = shell.json;
    let announce = move |issuer: &Issuer| {
        let (endpoint, secret) = (issuer.endpoint("/token"), secret.expose());
        let text = if json {
            json!({"issuer": issuer.as_str(), "token_endpoint": endpoint, "client_id": CLIENT, "client_secret": secret, "scope": SCOPE}).to_string()
        } else {
            format!(
                "\n  issuer         {issuer}\n  client_id      {CLIENT}\n  client_secret  {secret}\n\nGet a token:\n\n  curl -s {endpoint} -d grant_type=client_credentials -d client_id={CLIENT} -d client_secret={secret} -d 'scope={SCOPE}'\n\nStop with Ctrl-C. This server is for trying out: read the README before you depend on it.\n"
            )
        };
        // A failed write is ignored: the server serves all the same.
        drop(writeln!(io::stdout(), "{text}"));
    };
    Ok(DevServer { config, store, logging, announce: Box::new(announce) })
}
