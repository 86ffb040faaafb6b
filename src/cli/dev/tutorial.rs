//! Texts of `grantd dev`: the demo client with a command that gets a token, and the next steps.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::Shell;
use crate::cli::next_step::program;
use crate::cli::open::absolute;
use crate::crypto::secret::ClientSecret;
use crate::model::client_id::{ClientId, in_shell};
use crate::model::issuer::Issuer;
use crate::model::resource::ResourceId;

/// The demo client, as it is shown.
pub(super) struct Demo {
    pub(super) client_id: ClientId,
    pub(super) secret: ClientSecret,
    pub(super) secret_file: Option<PathBuf>,
    pub(super) scope: String,
    /// The resource that a request has to name: the first, where the client has several.
    pub(super) resource: Option<ResourceId>,
}

/// Settings that other commands need, so that they open the database of this server: assignments for a shell.
pub(super) struct Place(String);

impl Place {
    /// The place of a shell whose settings are as configured. Nothing is needed in the directory of the server when no
    /// setting names a database.
    pub(super) fn of(shell: &Shell) -> Self {
        let settings = &shell.settings;
        let data = absolute(&settings.data_dir);
        let names_database = settings.database.url.is_some()
            || !settings.database.url_file.as_os_str().is_empty()
            || std::env::var_os("DATABASE_URL").is_some();
        let mut text = String::new();
        if settings.data_dir.as_os_str() != "grantd-data" {
            text += &format!("GRANTD__DATA_DIR={} ", in_shell(&data));
        }
        if names_database {
            text += &format!("GRANTD__DATABASE__URL={} ", in_shell(&format!("sqlite:{data}/grantd.db")));
        }
        Self(text)
    }
}

impl Demo {
    /// The line of `--json`.
    pub(super) fn document(&self, issuer: &Issuer) -> Value {
        json!({
            "issuer": issuer.as_str(), "token_endpoint": issuer.endpoint("/token"), "client_id": self.client_id.as_str(),
            "client_secret": self.secret.expose(), "scope": self.scope,
        })
    }

    pub(super) fn welcome(&self, issuer: &Issuer) -> String {
        let shown = match &self.secret_file {
            Some(file) => format!("(in {})", file.display()),
            None => self.secret.expose().to_owned(),
        };
        format!(
            "\n  issuer         {issuer}\n  client_id      {}\n  client_secret  {shown}\n\nGet a token:\n\n  {}\n\nStop with Ctrl-C. This server is for trying out: read the README before you depend on it.\n",
            self.client_id,
            self.curl(issuer)
        )
    }

    pub(super) fn next_steps(&self, issuer: &Issuer, Place(place): &Place) -> String {
        let program = program();
        let own = if self.client_id.as_str() == "billing" { "billing-2" } else { "billing" };
        format!(
            "\nThat was the first token. Two next steps, in another terminal in this directory:\n\n  See what is in a token, and whether it is valid:\n\n    {} | {program} token inspect --issuer {issuer}\n\n  Register a client of your own, and get its token:\n\n    {place}{program} client create {own} --scope invoices:read --default-scope invoices:read --secret-file {own}.secret\n    {program} token get --issuer {issuer} --client {own} --secret-file {own}.secret\n",
            self.curl(issuer)
        )
    }

    /// The command that gets a token.
    fn curl(&self, issuer: &Issuer) -> String {
        let field = |name: &str, value: &str| {
            // These bytes stand for themselves in a form.
            let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/@ ".contains(&byte));
            format!(" {} {}", if plain { "-d" } else { "--data-urlencode" }, in_shell(&format!("{name}={value}")))
        };
        let secret = match &self.secret_file {
            Some(file) => {
                format!(" --data-urlencode \"client_secret=$(cat {})\"", in_shell(&file.display().to_string()))
            }
            None => field("client_secret", self.secret.expose()),
        };
        let resource = self.resource.as_ref().map(|uri| field("resource", uri.as_str())).unwrap_or_default();
        format!(
            "curl -s {} -d grant_type=client_credentials{}{secret}{}{resource}",
            in_shell(&issuer.endpoint("/token")),
            field("client_id", self.client_id.as_str()),
            field("scope", &self.scope),
        )
    }
}
