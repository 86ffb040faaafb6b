//! Confirmation of deletions, asked on a terminal. A script has no terminal and is not asked.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::bail;

use crate::admin::clients::ClientDetails;
use crate::admin::{Admin, AdminError};
use crate::model::client_id::ClientId;
use crate::model::resource::ResourceId;
use crate::store::StoreError;
use crate::telemetry::printable::one_line;

/// Whether a person can be asked: stdin and stderr are terminals.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks whether to delete a client, and says what goes with it.
pub(super) async fn deletion_of_client(admin: &Admin, id: &ClientId) -> anyhow::Result<()> {
    let credentials = match admin.client_details(id).await {
        Ok(details) => credentials(&details),
        // A client whose rows cannot be read can be deleted, too.
        Err(AdminError::Store(StoreError::Malformed { .. })) => "its credentials".to_owned(),
        Err(error) => return Err(error.into()),
    };
    ask(&format!("delete client {id} with {credentials}, and revoke its tokens?"))
}

/// Asks whether to delete a resource.
pub(super) async fn deletion_of_resource(admin: &Admin, uri: &ResourceId) -> anyhow::Result<()> {
    admin.resource(uri).await?;
    ask(&format!("delete resource {uri}?"))
}

/// Asks whether to delete a trusted issuer, and says how many rules go with it.
pub(super) async fn deletion_of_issuer(admin: &Admin, issuer: &str, with_rules: bool) -> anyhow::Result<()> {
    let rules = admin.trusted_issuer(issuer).await?.rules;
    let rules = if with_rules { format!(" with its rules ({rules})") } else { String::new() };
    ask(&format!("delete issuer {issuer}{rules}?"))
}

fn credentials(details: &ClientDetails) -> String {
    let counts = [
        (details.secrets.len(), "secret"),
        (details.keys.len(), "key"),
        (details.certificates.len(), "certificate"),
        (details.rules.len(), "rule"),
    ];
    let some = counts.iter().filter(|(count, _)| *count > 0);
    let some: Vec<String> =
        some.map(|(count, name)| format!("{count} {name}{}", if *count == 1 { "" } else { "s" })).collect();
    if some.is_empty() { "no credentials".to_owned() } else { some.join(", ") }
}

/// Asks on stderr and reads the answer from stdin. Every answer but `y` and `yes` is a no.
fn ask(question: &str) -> anyhow::Result<()> {
    write!(io::stderr(), "{} [y/N] ", one_line(question))?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if !["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        bail!("nothing is deleted");
    }
    Ok(())
}
