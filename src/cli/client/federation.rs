//! `grantd client federation`: rules that say which tokens of a trusted issuer are which client.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::admin::federation_rules::NewRule;
use crate::cli::claims::{json_claim, merged};
use crate::cli::federation::sample;
use crate::cli::open::Purpose;
use crate::cli::table::{Cell, Column, Times};
use crate::cli::{Shell, key_value, states};
use crate::model::client_id::ClientId;
use crate::model::federation::subject::SubjectPattern;
use crate::model::lifetime::ExpiresIn;
use crate::store::federation::StoredRule;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Add a rule beside those that the client has, or propose one for a sample token
    Add {
        /// The client id
        id: ClientId,
        #[command(flatten)]
        rule: RuleOptions,
    },
    /// List the rules of a client
    #[command(visible_alias = "ls")]
    List {
        /// The client id
        id: ClientId,
    },
    /// Remove a rule
    #[command(visible_alias = "rm")]
    Remove {
        /// The client id
        id: ClientId,
        /// The rule's id
        rule_id: String,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RuleOptions {
    /// The exact `iss` of the tokens; for SPIFFE the trust domain
    #[arg(long, required_unless_present = "like")]
    issuer: Option<String>,
    /// The `sub` of the tokens; github and gitlab permit `/*` and `:*` at its end, spiffe `/*`
    #[arg(long, required_unless_present = "like")]
    subject: Option<SubjectPattern>,
    /// Claim that the tokens have to have, a string (repeatable)
    #[arg(long, value_name = "NAME=TEXT", value_parser = key_value)]
    claim: Vec<(String, String)>,
    /// Claim that the tokens have to have, any JSON value (repeatable)
    #[arg(long, value_name = "NAME=JSON", value_parser = json_claim)]
    claim_json: Vec<(String, Value)>,
    /// Text to tell the rule from others
    #[arg(long, default_value = "")]
    label: String,
    /// Time until the rule expires [default: never]
    #[arg(long, value_name = "SPAN")]
    expires_in: Option<ExpiresIn>,
    /// Add nothing: read a token of the workload from this file (`-` is stdin), check its signature, and print the
    /// command that pins what its kind has to pin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["issuer", "subject", "claim", "claim_json", "label", "expires_in"])]
    like: Option<PathBuf>,
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List { .. } | Self::Add { rule: RuleOptions { like: Some(_), .. }, .. } => Purpose::Read,
            Self::Add { .. } | Self::Remove { .. } => Purpose::Change,
        }
    }

    pub(in crate::cli) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let admin = shell.admin(self.purpose()).await?;
        match self {
            Self::Add { id, rule: RuleOptions { like: Some(file), .. } } => {
                sample::propose(shell, &admin, &id, &file).await
            }
            Self::Add { id, rule } => {
                let claims = merged(shell, rule.claim, rule.claim_json)?;
                // clap requires both without --like.
                let (Some(issuer), Some(subject)) = (rule.issuer, rule.subject) else { return Ok(()) };
                let new = NewRule { issuer, subject, claims, label: rule.label, expires_in: rule.expires_in };
                let added = shell.after_warnings(admin.add_federation_rule(&id, new).await?);
                let times = shell.times(&admin);
                shell.print_sheet(&added.document_of_client(&id), |sheet| sheet.table(OF_CLIENT, [row(&added, times)]))
            }
            Self::List { id } => {
                let (mut list, times) = (shell.list(OF_CLIENT), shell.times(&admin));
                for rule in admin.federation_rules(&id).await? {
                    list.item(|| rule.document_of_client(&id), || row(&rule, times))?;
                }
                list.end()
            }
            Self::Remove { id, rule_id } => {
                admin.remove_federation_rule(&id, &rule_id).await?;
                shell.info(&format!("rule {rule_id} of client {id} is removed, within a second on every replica"))
            }
        }
    }
}

/// Returns a rule as a row.
pub(in crate::cli) fn row(StoredRule { rule, label, last_used_at, .. }: &StoredRule, times: Times) -> Vec<Cell<'_>> {
    let claims = if rule.claims.is_empty() { String::new() } else { json!(rule.claims.members()).to_string() };
    vec![
        Cell::new(&*rule.rule_id),
        Cell::new(&*rule.issuer),
        Cell::new(rule.subject.as_str()),
        Cell::new(claims),
        Cell::new(&**label),
        times.cell(rule.created_at),
        times.or_never(rule.expires_at),
        times.or_never(*last_used_at),
        states::of_credential(rule.created_at, rule.expires_at, *last_used_at, times),
    ]
}

/// Columns of the rules of one client.
pub(super) const OF_CLIENT: &[Column] = &[
    Column::whole("RULE"),
    Column::shrinking("ISSUER"),
    Column::shrinking("SUBJECT"),
    Column::shrinking("CLAIMS"),
    Column::shrinking("LABEL"),
    Column::whole("MADE"),
    Column::whole("EXPIRES"),
    Column::whole("LAST USED"),
    Column::whole("STATE"),
];
