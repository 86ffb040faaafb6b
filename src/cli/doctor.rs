//! `grantd doctor`: everything that can be checked, one line per fault.

mod database;
mod published;

use anyhow::bail;
use serde_json::json;

use super::open::absolute;
use super::registered::everything;
use super::{Shell, token_size};
use crate::config::Config;
use crate::crypto::certificate::Certificate;
use crate::model::client::Client;
use crate::model::credential::{Origin, StoredKey, StoredSecret};
use crate::model::profile::Profile;
use crate::model::resource::TokenTyp;
use crate::model::time::UnixTime;
use crate::serve::expiry;
use crate::serve::prepare::{exposed, sealing_key};
use crate::store::migrations::Schema;
use crate::store::secrets::MAX_IMPORTED;
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

/// One fault a line, whatever names and values are quoted in it.
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
            shell.say(&format!(
                "note: a newer grantd has applied {by} migrations that this version does not know; it works on them too"
            ))?;
        }
        Schema::Usable => {}
    }
    let machine = shell.now();
    shell.set_clock(store).await?;
    let ours = shell.now();
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
    let everything = everything(store).await?;
    // A sealing key that nothing was sealed under yet is made with the first signing key.
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
    // An algorithm without any key is no fault: the server makes its first.
    let keys = everything.keys.iter().flatten();
    faults.extend(keys.filter_map(|key| key.open(sealing_key.as_ref()?).err()).map(|fault| fault.to_string()));
    let tag_keys = everything.tag_keys.iter().flatten();
    faults.extend(tag_keys.filter_map(|key| key.open(sealing_key.as_ref()?).err()).map(|fault| fault.to_string()));
    let resources = token_size::readable(everything.resources.as_ref());
    for resource in everything.resources.iter().flatten() {
        match resource {
            Err(fault) => faults.push(fault.to_string()),
            Ok(resource) => {
                if let Some(alg) = resource.alg.filter(|alg| !config.profile.permits_alg(*alg)) {
                    faults.push(format!("resource {0}: the fapi2 profile does not sign with {alg}; `grantd resource set {0} --alg ES256`", resource.identifier));
                }
                let uri = &resource.identifier;
                match (resource.token_typ, config.profile) {
                    (TokenTyp::AtJwt, _) => {}
                    (TokenTyp::Jwt, Profile::Default) => shell.say(&format!(
                        "note: tokens for {uri} have typ JWT, so its API has to tell them from other JWTs by iss and aud"
                    ))?,
                    (TokenTyp::Jwt, Profile::Fapi2) => faults.push(format!(
                        "resource {uri}: under the fapi2 profile its tokens have typ at+jwt all the same; `grantd resource set {uri} --token-typ at+jwt`"
                    )),
                }
            }
        }
    }

    let mut clients: Vec<_> = everything.clients.into_iter().collect();
    clients.sort_by(|a, b| a.0.cmp(&b.0));
    let readable: Vec<&Client> = clients.iter().filter_map(|(_, client)| client.as_ref()?.as_deref().ok()).collect();
    for published::Published { client_id, found } in published::examine(config, &readable, ours).await? {
        match found {
            Ok(None) => {}
            Ok(Some(skipped)) => shell.say(&format!("note: client {client_id}: {skipped}"))?,
            Err(fault) => faults.push(format!("client {client_id}: {fault}")),
        }
    }
    for (id, client) in clients {
        match client {
            None => {}
            Some(Err(fault)) => faults.push(fault.to_string()),
            Some(Ok(client)) => {
                let of_client = of_client(&client, config, ours)
                    .into_iter()
                    .chain(outside_profile(&client, config))
                    .chain(token_size::fault(config, &client, &resources));
                faults.extend(of_client.map(|fault| format!("client {id}: {fault}")));
            }
        }
    }
    Ok(faults)
}

/// What is wrong with a client whose row can be read.
fn of_client(client: &Client, config: &Config, now: UnixTime) -> Vec<String> {
    let (mut faults, word) = (Vec::new(), client.client_id.in_shell());
    let certificates = &config.client_certificates;
    if client.certificates.iter().any(|one| one.registered.needs_ca()) && certificates.files.ca.is_none() {
        faults.push(
            "it is known by a name in its certificate, and without server.mtls.client_ca_file no CA vouches for one"
                .to_owned(),
        );
    }
    if !client.certificates.is_empty() && certificates.mtls.is_none() && !certificates.header {
        faults.push("it has a certificate, and none comes here: set server.mtls.listen, or server.client_cert_header behind a proxy".to_owned());
    }
    if !client.keys.is_empty() && client.keys.iter().all(|key| key.expires_at.is_some_and(|at| at <= now)) {
        faults.push(format!("all of its keys have expired; `grantd client key add {word}` adds one"));
    }
    for one in client.certificates.iter().filter(|one| one.expires_at.is_some_and(|at| at <= now)) {
        faults.push(format!("its certificate {} has expired; `grantd client cert add {word}` adds the next, `grantd client cert remove {word} {}` removes it", one.cert_id, one.cert_id));
    }
    if !certificates.header {
        for key in &client.keys {
            if let Some(fault) = key.key.x5c().and_then(Certificate::handshake_fault) {
                let kid = &key.kid;
                faults.push(format!("no TLS handshake takes the certificate in x5c of its key {kid}: {fault}; `grantd client key remove {word} {kid}`, then add the key without x5c or with another certificate"));
            }
        }
    }
    let works = |secret: &&StoredSecret| secret.origin == Origin::Imported && secret.revoked_at.is_none();
    let imported = client.secrets.iter().filter(works).count();
    if imported > usize::try_from(MAX_IMPORTED).unwrap_or(2) {
        faults.push(format!("{imported} imported secrets, of which the newest {MAX_IMPORTED} work; revoke the others"));
    }
    faults
}

/// What the profile keeps a client from.
fn outside_profile(client: &Client, config: &Config) -> Option<String> {
    if let Some(alg) = client.introspection_signed_response_alg.filter(|alg| !config.profile.permits_alg(*alg)) {
        let word = client.client_id.in_shell();
        return Some(format!(
            "the fapi2 profile does not sign with {alg}; `grantd client set {word} --introspection-signed-response-alg ES256`"
        ));
    }
    let usable = |key: &StoredKey| key.key.algs().any(|alg| config.profile.permits_signature(alg));
    let proves = client.keys.iter().any(usable) || client.jwks_uri.is_some() || !client.certificates.is_empty();
    let refused = match (proves, client.keys.first(), client.secrets.first()) {
        (false, Some(key), _) => format!("keys for {}", key.key.alg_text()),
        (false, None, Some(_)) => "secrets".to_owned(),
        _ => return None,
    };
    let word = client.client_id.in_shell();
    (config.profile == Profile::Fapi2).then(|| {
        format!("the fapi2 profile takes no {refused}; `grantd client key add {word}` or `grantd client cert add {word}` gives it what it takes")
    })
}
