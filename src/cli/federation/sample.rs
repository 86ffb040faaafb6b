//! `grantd client federation add --like`: the rule for a sample token of a workload.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use super::keys;
use crate::admin::Admin;
use crate::admin::federation_rules::{ProposedRule, proposed_rule};
use crate::admin::federation_test::WorkloadToken;
use crate::cli::Shell;
use crate::cli::client::key;
use crate::model::client_id::{ClientId, in_shell};

/// Reads a token from a file, checks its signature, and prints the command that adds the rule for it. Stores nothing.
pub(in crate::cli) async fn propose(shell: &Shell, admin: &Admin, id: &ClientId, file: &Path) -> anyhow::Result<()> {
    let name = || format!("--like {}", file.display());
    admin.client(id).await?;
    let text = String::from_utf8(key::read(file)?).with_context(name)?;
    let token = WorkloadToken::parse(text.trim()).with_context(name)?;
    let issuer = admin.trusted_issuer(token.issuer()).await?.issuer;
    let found = keys::fetch(&shell.config()?, &issuer).await?;
    let claims =
        token.verified(&issuer, &found.keys).map_err(|fault| anyhow!("{}", fault.condition)).with_context(name)?;
    let ProposedRule { subject, claims: pinned } = proposed_rule(&issuer, claims.members()).with_context(name)?;
    let expired_at = token.expiry().filter(|at| *at <= admin.now());
    if let Some(at) = expired_at {
        shell.info(&format!("note: the token expired at {at}; it shows what to pin all the same"))?;
    }
    let id_text = id.to_string();
    let mut words = ["grantd", "client", "federation", "add", &id_text].map(str::to_owned).to_vec();
    words.extend(["--issuer".to_owned(), issuer.issuer.to_string(), "--subject".to_owned(), subject.to_string()]);
    for (name, value) in &pinned {
        let (option, value) = match value {
            Value::String(text) => ("--claim", text.clone()),
            other => ("--claim-json", other.to_string()),
        };
        words.extend([option.to_owned(), format!("{name}={value}")]);
    }
    let command = words.iter().map(|word| in_shell(word)).collect::<Vec<_>>().join(" ");
    let value = json!({
        "client_id": id,
        "issuer": issuer.issuer,
        "subject": subject.as_str(),
        "claims": pinned,
        "expired_at": expired_at,
        "command": command,
    });
    shell.print(&value, || command.clone())
}
