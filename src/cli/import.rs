//! `grantd import`: registers the clients of another authorization server, or prints the plan.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::Shell;
use super::open::{Purpose, missing, without_database};
use super::progress::Progress;
use crate::admin::import::{Action, ForeignServer, ImportMode, ImportPlan, PlannedClient};
use crate::telemetry::printable::one_line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register the clients that Ory Hydra lists: an array of clients, or `{"items":[…]}`
    Hydra(File),
    /// Register the clients of a Keycloak realm export that have a service account
    Keycloak(File),
}

#[derive(Debug, Args)]
pub(super) struct File {
    /// The file, in JSON
    file: PathBuf,
    /// Print the plan and register nothing
    #[arg(long)]
    dry_run: bool,
}

impl Command {
    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (server, File { file, dry_run }) = match self {
            Self::Hydra(file) => (ForeignServer::Hydra, file),
            Self::Keycloak(file) => (ForeignServer::Keycloak, file),
        };
        let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let config = shell.config()?;
        let (admin, mode) = match (dry_run, missing(&config.database)) {
            (true, Some(_)) => (without_database(&config), ImportMode::PlanForNewDatabase),
            (true, None) => (shell.admin(Purpose::Read).await?, ImportMode::Plan),
            (false, _) => (shell.admin(Purpose::Create).await?, ImportMode::Register),
        };
        let clients = server.read(&text, admin.now()).with_context(|| file.display().to_string())?;
        let progress = Progress::begin("registering clients");
        let plan = admin.import_clients(clients, mode, &mut || progress.add(1)).await?;
        drop(progress);
        let value = json!({"dry_run": dry_run, "clients": plan.clients, "resources": plan.resources});
        shell.print(&value, || lines(&plan))?;
        let count = |action| plan.clients.iter().filter(|client| client.action == action).count();
        let [created, exist, skipped, failed] = [Action::Create, Action::Exists, Action::Skip, Action::Fail].map(count);
        let verb = if dry_run { "to be registered" } else { "registered" };
        let needy = |client: &&PlannedClient| client.credentials.as_ref().is_some_and(|text| text.starts_with("needs"));
        let needy = plan.clients.iter().filter(needy).count();
        shell.info(&format!(
            "{verb}: {created}, left as they are: {exist}, skipped: {skipped}, failed: {failed}; new secrets needed: {needy}"
        ))?;
        if failed > 0 {
            let clients = if failed == 1 { "client" } else { "clients" };
            bail!("{failed} {clients} cannot be registered; `fail` and a reason stand beside each")
        }
        Ok(())
    }
}

fn lines(plan: &ImportPlan) -> String {
    let mut text = String::new();
    for resource in plan.resources.iter().filter(|resource| resource.is_new) {
        text += &format!("create  resource {}  {}\n", resource.identifier, resource.scope);
    }
    for PlannedClient { client_id, action, reason, credentials, scope, notes } in &plan.clients {
        let action = match action {
            Action::Create => "create",
            Action::Exists => "exists",
            Action::Skip => "skip",
            Action::Fail => "fail",
        };
        let mut parts = vec![format!("{action:<7} client {}", one_line(client_id))];
        parts.extend((!scope.is_empty()).then(|| scope.clone()));
        parts.extend(reason.iter().chain(credentials).chain(notes).map(|part| one_line(part).into_owned()));
        text += &(parts.join("; ") + "\n");
    }
    text
}
