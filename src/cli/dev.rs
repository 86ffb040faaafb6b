//! `grantd dev`: a server to try out, on loopback, with a client whose secret is new at each start.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::bail;
use serde_json::json;

use super::{Shell, tag_key};
use crate::config::Config;
use crate::model::client::Client;
use crate::model::client_id::ClientId;
use crate::protocol::metadata::Issuer;
use crate::serve::signals::Signals;
use crate::store::{Store, StoreError};
use crate::telemetry::Logging;
use crate::{serve, telemetry};

pub(super) async fn run(shell: Shell, mut signals: Signals) -> anyhow::Result<()> {
    let Prepared { config, store, logging, announce } = tokio::select! {
        prepared = prepare(shell) => prepared?,
        () = signals.stop() => return Ok(()),
    };
    serve::run(config, store, &logging, Some(announce), signals).await
}

struct Prepared {
    config: Config,
    store: Store,
    logging: Logging,
    announce: serve::Announce,
}

async fn prepare(mut shell: Shell) -> anyhow::Result<Prepared> {
    const CLIENT: &str = "demo";
    const SCOPE: &str = "read:data write:data";
    const LABEL: &str = "grantd dev";
    // Whatever database is configured, this is no place for a demo client.
    let file = shell.settings.data_dir.join("grantd.db");
    shell.settings.database.url = Some(format!("sqlite:{}", file.display()).into());
    shell.settings.database.url_file = PathBuf::new();
    shell.settings.database.auto_migrate = Some(true);
    shell.settings.keys.sealing_key_file = PathBuf::new();
    // A demo client has a secret, in cleartext on loopback.
    "default".clone_into(&mut shell.settings.profile);
    let mut config = shell.config()?;
    if !config.listen.ip().is_loopback() || !config.admin_listen.ip().is_loopback() {
        bail!("`grantd dev` listens on loopback only; use `grantd serve` for anything else");
    }
    config.drain_delay = std::time::Duration::ZERO;

    let logging = telemetry::start(config.log_format, false, telemetry::Filter::from_environment("info")?)?;
    let store = Store::open(&config.database, config.database_max_connections);
    serve::prepare::prepare_database(&config, &store).await?;
    let client_id: ClientId = CLIENT.parse()?;
    shell.set_clock(&store).await?;
    let tag_keys = tag_key::usable(&shell, &config, &store).await?;
    let (secret, stored) = shell.new_secret(&config, &client_id, &tag_keys, LABEL.to_owned(), None)?;
    let demo = Client::new(client_id, SCOPE.parse()?, "read:data".parse()?, shell.now());
    match store.create_client(&demo, None).await {
        Ok(()) | Err(StoreError::Taken { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // Only hashes are kept, so each start has a secret of its own.
    store.delete_secrets_labelled(CLIENT, LABEL).await?;
    store.add_secret(CLIENT, &stored).await?;

    let json = shell.json;
    let announce = move |issuer: &Issuer| {
        let (endpoint, secret) = (issuer.endpoint("/token"), secret.expose());
        let text = if json {
            json!({"issuer": issuer.as_str(), "token_endpoint": endpoint, "client_id": CLIENT, "client_secret": secret, "scope": SCOPE}).to_string()
        } else {
            format!(
                "\n  issuer         {issuer}\n  client_id      {CLIENT}\n  client_secret  {secret}\n\nGet a token:\n\n  curl -s {endpoint} -d grant_type=client_credentials -d client_id={CLIENT} -d client_secret={secret} -d 'scope={SCOPE}'\n\nStop with Ctrl-C. This is for trying out: read the README before anything else depends on it.\n"
            )
        };
        // Without a reader the server still serves.
        drop(writeln!(io::stdout(), "{text}"));
    };
    Ok(Prepared { config, store, logging, announce: Box::new(announce) })
}
