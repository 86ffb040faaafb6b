//! `grantd doctor`: checks configuration, database, keys, clocks and every row, and prints one line per fault.

mod database;
mod published;

use anyhow::bail;
use serde_json::json;

use super::open::{absolute, administration};
use super::{Shell, phrases};
use crate::config::Config;
use crate::model::client::Client;
use crate::model::profile::Profile;
use crate::model::resource::{Resource, TokenTyp};
use crate::model::time::Clock;
use crate::serve::expiry;
use crate::serve::prepare::{exposed, sealing_key};
use crate::store::migrations::Schema;
use crate::store::{Database, Store};
use crate::telemetry::printable::one_line;

pub(super) async fn run(shell: &Shell) -> anyhow::Result<()> {
    let config = Config { make_sealing_key: false, ..shell.config()? };
    let store = Store::open(&config.database, 2);
    let faults = examine(shell, &config, &store).await?;
    shell.print(&json!({"healthy": faults.is_empty(), "faults": faults}), || {
        if faults.is_empty() { format!("{}: no faults", store.engine()) } else { lines_of(&faults) }
    })?;
    if faults.is_empty() { Ok(()) } else { bail!("{} fault{}", faults.len(), if faults.len() == 1 { "" } else { "s" }) }
}

/// Writes one fault per line; names and values in it are escaped.
fn lines_of(faults: &[String]) -> String {
    faults.iter().map(|fault| one_line(fault)).collect::<Vec<_>>().join("\n")
}

async fn examine(shell: &Shell, config: &Config, store: &Store) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    if let Database::Sqlite(path) = &config.database
        && !path.exists()
    {
        return Ok(vec![format!("database: there is no {}: run `grantd migrate`", absolute(path))]);
    }
    match store.schema().await? {
        Schema::Older { pending } => {
            return Ok(vec![format!("schema: lacks {pending} migrations: run `grantd migrate`")]);
        }
        Schema::Newer { by } => {
            shell.info(&format!(
                "note: a newer grantd has applied {by} migrations that this version does not know; it works on them too"
            ))?;
        }
        Schema::Usable => {}
    }
    let machine = Clock::System.now();
    let admin = administration(config, store.clone()).await?;
    let ours = admin.now();
    if (ours.0 - machine.0).abs() > 5 {
        faults.push(format!(
            "clock: the database says {ours}, this machine {machine}; set both by NTP, tokens carry these times"
        ));
    }
    faults.extend(database::examine(store).await?);
    match expiry::of_config(config) {
        Ok(endings) => faults.extend(expiry::faults(&endings, ours)),
        Err(error) => faults.push(format!("{error:#}")),
    }
    let everything = admin.everything().await?;
    // A missing sealing key is a fault only once something was sealed under it; the first signing key makes it.
    let sealed = everything.keys.as_ref().is_some_and(|keys| !keys.is_empty())
        || everything.tag_keys.as_ref().is_some_and(|keys| !keys.is_empty());
    let sealing_key = match sealing_key(config) {
        Ok(key) => Some(key),
        Err(_) if !sealed && matches!(config.database, Database::Sqlite(_)) => None,
        Err(error) => {
            faults.push(format!("{error:#}"));
            None
        }
    };
    faults.extend(exposed(&config.sealing_key_file).map(|fault| format!("keys.sealing_key_file: {fault}")));
    // An algorithm without a key is no fault: the server generates its first one.
    let keys = everything.keys.iter().flatten();
    faults.extend(keys.filter_map(|key| key.open(sealing_key.as_ref()?).err()).map(|fault| fault.to_string()));
    let tag_keys = everything.tag_keys.iter().flatten();
    faults.extend(tag_keys.filter_map(|key| key.open(sealing_key.as_ref()?).err()).map(|fault| fault.to_string()));
    // Resources that cannot be read are reported in the loop below, and clients likewise.
    let resources: Vec<&Resource> = everything.resources.iter().flatten().filter_map(|one| one.as_ref().ok()).collect();
    for resource in everything.resources.iter().flatten() {
        match resource {
            Err(fault) => faults.push(fault.to_string()),
            Ok(resource) => {
                let uri = &resource.identifier;
                let of_resource = admin.resource_faults(resource).into_iter();
                faults.extend(
                    of_resource.map(|fault| format!("resource {uri}: {}", phrases::fault(&fault, uri.as_str()))),
                );
                if resource.token_typ == TokenTyp::Jwt && config.profile == Profile::Default {
                    shell.info(&format!(
                        "note: tokens for {uri} have typ JWT, so its API has to distinguish them from other JWTs by iss and aud"
                    ))?;
                }
            }
        }
    }

    let mut clients: Vec<_> = everything.clients.into_iter().collect();
    clients.sort_by(|a, b| a.0.cmp(&b.0));
    // A client whose row cannot be read is a fault of its own, below.
    let readable: Vec<&Client> = clients.iter().filter_map(|(_, client)| client.as_ref()?.as_deref().ok()).collect();
    for published::PublishedSet { client_id, found } in published::examine(config, &readable, ours).await? {
        match found {
            Ok(None) => {}
            Ok(Some(skipped)) => shell.info(&format!("note: client {client_id}: {skipped}"))?,
            Err(fault) => faults.push(format!("client {client_id}: {fault}")),
        }
    }
    for (id, client) in clients {
        match client {
            None => {}
            Some(Err(fault)) => faults.push(fault.to_string()),
            Some(Ok(client)) => {
                let (word, of_client) = (client.client_id.in_shell(), admin.client_faults(&client).into_iter());
                faults.extend(of_client.map(|fault| format!("client {id}: {}", phrases::fault(&fault, &word))));
                faults.extend(admin.large_tokens(&client, &resources).map(|warning| warning.to_string()));
            }
        }
    }
    Ok(faults)
}
