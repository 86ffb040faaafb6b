//! `grantd doctor`: checks configuration, database, keys, clocks and every row, and prints one line per fault.

mod database;
mod faults;
mod federation;
mod modules;
mod published;
mod rotation;

use anyhow::bail;
use serde_json::json;

use super::open::{absolute, administration};
use super::progress::Progress;
use super::{Shell, phrases};
use crate::admin::Admin;
use crate::admin::checkup::FaultKind;
use crate::admin::lifecycle::Advice;
use crate::config::Config;
use crate::model::client::Client;
use crate::model::profile::Profile;
use crate::model::resource::{Resource, TokenTyp};
use crate::model::time::Clock;
use crate::serve::expiry;
use crate::serve::prepare::exposed;
use crate::serve::sealing_key;
use crate::state::keyring::{KeyState, timelines};
use crate::store::keys::OpenedKey;
use crate::store::migrations::Schema;
use crate::store::{Database, Store};
use crate::telemetry::printable::one_line;
use faults::Faults;

pub(super) async fn run(shell: &Shell) -> anyhow::Result<()> {
    let config = shell.config()?;
    let config = Config { sealing: config.sealing.clone().of_existing(), ..config };
    let store = Store::open(&config.database, 2);
    let Findings { faults, count, advice } = examine(shell, &config, &store).await?;
    shell.print(&json!({"healthy": faults.is_empty(), "faults": faults, "advice": advice}), || {
        if faults.is_empty() { format!("{}: no faults", store.engine()) } else { lines_of(&faults) }
    })?;
    // Stdout has a line for each fault, and nothing else.
    for line in advice.iter().filter(|_| !shell.json) {
        shell.info(&format!("advice: {line}"))?;
    }
    if faults.is_empty() { Ok(()) } else { bail!("{count} fault{}", if count == 1 { "" } else { "s" }) }
}

/// Findings as lines. Advice is about clients that work, so it does not fail the command.
#[derive(Default)]
struct Findings {
    faults: Vec<String>,
    /// Number of faults, also of those that have no line.
    count: u64,
    advice: Vec<String>,
}

impl From<String> for Findings {
    /// Makes the findings of a fault that prevents every other check.
    fn from(fault: String) -> Self {
        Self { faults: vec![fault], count: 1, advice: Vec::new() }
    }
}

/// Writes one fault per line; names and values in it are escaped.
fn lines_of(faults: &[String]) -> String {
    faults.iter().map(|fault| one_line(fault)).collect::<Vec<_>>().join("\n")
}

async fn examine(shell: &Shell, config: &Config, store: &Store) -> anyhow::Result<Findings> {
    let mut faults = Faults::default();
    if let Database::Sqlite(path) = &config.database
        && !path.exists()
    {
        return Ok(format!("database: there is no {}: run `grantd migrate`", absolute(path)).into());
    }
    match store.schema().await? {
        Schema::Older { pending } => {
            return Ok(format!("schema: lacks {pending} migrations: run `grantd migrate`").into());
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
    database::examine(store).await?.into_iter().for_each(|fault| faults.push(fault));
    match expiry::of_config(config) {
        Ok(endings) => expiry::faults(&endings, ours).into_iter().for_each(|fault| faults.push(fault)),
        Err(error) => faults.push(format!("{error:#}")),
    }
    let of_sealing = examine_keys(config, store, &admin, &mut faults).await?;
    let resources = examine_resources(shell, config, &admin, store, &mut faults).await?;
    let [published, of_clients, of_advice] = examine_clients(shell, config, &admin, &resources).await?;
    federation::examine(store, &mut faults).await?;
    let mut advice = of_advice.into_lines();
    advice.extend(of_sealing);
    advice.extend(federation::advice(shell, config, &admin, store).await?);
    advice.extend(rotation::advice(shell, config, &admin).await?);
    advice.extend(database::advice(store, ours).await?);
    let count = faults.count() + published.count() + of_clients.count();
    let faults = [faults, published, of_clients].into_iter().flat_map(Faults::into_lines).collect();
    Ok(Findings { faults, count, advice })
}

/// Checks that the sealing key opens signing keys and tag keys. While the sealing key is changed, returns the numbers of
/// rows under each.
async fn examine_keys(
    config: &Config,
    store: &Store,
    admin: &Admin,
    faults: &mut Faults,
) -> anyhow::Result<Option<String>> {
    let (keys, tag_keys) = (store.keys().await?, store.tag_keys().await?);
    // A missing sealing key is a fault only once something was sealed under it; the first signing key makes it.
    let sealed = !keys.is_empty() || !tag_keys.is_empty();
    let sealing_key = match sealing_key::read(&config.sealing) {
        Ok(key) => Some(key),
        Err(_) if !sealed && matches!(config.database, Database::Sqlite(_)) => None,
        Err(error) => {
            faults.push(error.to_string());
            None
        }
    };
    let files = [("file", config.sealing.file()), ("previous_file", config.sealing.previous_file.as_deref())];
    for (name, fault) in files.into_iter().filter_map(|(name, path)| Some((name, exposed(path?)?))) {
        faults.push(format!("keys.sealing_key_{name}: {fault}"));
    }
    // An algorithm without a key is no fault: the server generates its first one.
    let Some(under) = sealing_key else { return Ok(None) };
    let mut attached = Vec::new();
    for (key, state) in timelines(&keys).values().flat_map(|timeline| timeline.states(admin.now())) {
        match key.open(&under) {
            // One that signs no more may have been destroyed.
            Ok(OpenedKey { key, module: Some(module) }) if matches!(state, KeyState::Active | KeyState::Next) => {
                attached.push((key, module));
            }
            Ok(_) => {}
            Err(fault) => faults.push(fault.to_string()),
        }
    }
    modules::examine(config, attached).await?.into_iter().for_each(|fault| faults.push(fault));
    tag_keys.iter().filter_map(|key| key.open(&under).err()).for_each(|fault| faults.push(fault.to_string()));
    Ok(admin.sealing_change(&under).await?.map(|change| change.to_string()))
}

/// Checks the resources, and returns those that can be read.
async fn examine_resources(
    shell: &Shell,
    config: &Config,
    admin: &Admin,
    store: &Store,
    faults: &mut Faults,
) -> anyhow::Result<Vec<Resource>> {
    let mut readable = Vec::new();
    for resource in store.resources().await? {
        match resource {
            Err(fault) => faults.add(FaultKind::MalformedResource, &fault.to_string(), || fault.to_string()),
            Ok(resource) => {
                let uri = &resource.identifier;
                for fault in admin.resource_faults(&resource) {
                    faults.add(fault.kind(), uri.as_str(), || {
                        format!("resource {uri}: {}", phrases::fault(&fault, uri.as_str()))
                    });
                }
                if resource.token_typ == TokenTyp::Jwt && config.profile == Profile::Default {
                    shell.info(&format!(
                        "note: tokens for {uri} have typ JWT, so its API has to distinguish them from other JWTs by iss and aud"
                    ))?;
                }
                readable.push(resource);
            }
        }
    }
    Ok(readable)
}

/// Checks the clients, range after range. Returns the faults of the JWK Sets that they publish, all others, and advice.
async fn examine_clients(
    shell: &Shell,
    config: &Config,
    admin: &Admin,
    resources: &[Resource],
) -> anyhow::Result<[Faults; 3]> {
    let (mut of_sets, mut faults, mut advice) = (Faults::default(), Faults::default(), Faults::default());
    let resources: Vec<&Resource> = resources.iter().collect();
    let (fetches, mut clients) = (published::fetches(config)?, admin.clients(None).await?);
    let progress = Progress::begin("checking clients");
    while let Some(range) = clients.next().await? {
        // A client whose rows cannot be read is a fault of its own, below.
        let readable: Vec<&Client> = range.iter().filter_map(|(_, client)| client.as_deref().ok()).collect();
        for published::PublishedSet { client_id, found } in published::examine(&fetches, &readable, admin.now()).await?
        {
            match found {
                Ok(None) => {}
                Ok(Some(skipped)) => shell.info(&format!("note: client {client_id}: {skipped}"))?,
                Err(fault) => {
                    of_sets.add(FaultKind::PublishedKeys, &client_id, || format!("client {client_id}: {fault}"));
                }
            }
        }
        for (id, about) in admin.client_advice(&range).await? {
            let kind = match about {
                Advice::Ownerless => FaultKind::Ownerless,
                Advice::Unused(_) => FaultKind::Unused,
                Advice::LongLivedSecret { .. } => FaultKind::LongLivedSecret,
            };
            advice.add(kind, id.as_str(), || format!("client {id}: {}", phrases::advice(&about, &id.in_shell())));
        }
        progress.add(range.len());
        for (id, client) in &range {
            match client {
                Err(fault) => faults.add(FaultKind::MalformedClient, id, || fault.to_string()),
                Ok(client) => {
                    for fault in admin.client_faults(client) {
                        faults.add(fault.kind(), id, || {
                            format!("client {id}: {}", phrases::fault(&fault, &client.client_id.in_shell()))
                        });
                    }
                    if let Some(warning) = admin.large_tokens(client, &resources) {
                        faults.add(FaultKind::LargeTokens, id, || warning.to_string());
                    }
                }
            }
        }
    }
    Ok([of_sets, faults, advice])
}
