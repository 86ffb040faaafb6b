//! The next step after `create`, printed on stderr as a command that works when it is pasted into a shell.

use std::path::Path;

use super::Shell;
use crate::model::client::Client;
use crate::model::client_id::{ClientId, in_shell};
use crate::model::resource::{Resource, ResourceId};

/// Place of a new client's secret.
#[derive(Debug, Clone, Copy)]
pub(super) enum SecretIn<'a> {
    /// The secret was printed.
    Output,
    /// The secret is in a file.
    File(&'a Path),
    /// The client has no secret.
    None,
}

/// Tells how the new client gets a token, or a credential if it has none.
pub(super) fn after_client(shell: &Shell, client: &Client, secret: SecretIn<'_>) -> anyhow::Result<()> {
    let id = &client.client_id;
    let Some(plain) = plain(id) else {
        return print(shell, "show the client", &show(id));
    };
    let user = match secret {
        SecretIn::None => {
            let make = format!(
                "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {plain}.pem && openssl pkey -in {plain}.pem -pubout | {} client key add {plain} --jwk -",
                program()
            );
            return print(shell, "make a key and register its public half", &make);
        }
        _ if client.require_dpop || client.require_mtls_binding => {
            return print(shell, "show the client", &show(id));
        }
        // curl asks for the password of a user without one.
        SecretIn::Output => plain.to_owned(),
        SecretIn::File(path) => format!("\"{plain}:$(cat {})\"", in_shell(&path.display().to_string())),
    };
    let mut command = format!("curl -s -u {user} -d grant_type=client_credentials");
    // Without a default scope, or with several resources, the request has to name one.
    if client.scopes.default_scope().as_str().is_empty() && !client.scopes.allowed().as_str().is_empty() {
        command += &format!(" --data-urlencode {}", in_shell(&format!("scope={}", client.scopes.allowed())));
    }
    if let Some(resource) = client.resources.first() {
        command += &format!(" --data-urlencode {}", in_shell(&format!("resource={}", resource.as_str())));
    }
    let issuer = shell.config()?.issuer.unwrap_or_default();
    command += &format!(" {}", in_shell(&issuer.endpoint("/token")));
    let asks = if matches!(secret, SecretIn::Output) { " (curl asks for the secret)" } else { "" };
    print(shell, &format!("get a token from the running server{asks}"), &command)
}

/// Tells how a client gets tokens for the new resource.
pub(super) fn after_resource(shell: &Shell, resource: &Resource) -> anyhow::Result<()> {
    let Resource { identifier, scope, .. } = resource;
    let (uri, scope) = (in_shell(ResourceId::as_str(identifier)), in_shell(scope.as_str()));
    print(
        shell,
        "create a client that may ask for it",
        &format!("{} client create my-client --scope {scope} --resource {uri}", program()),
    )
}

/// Returns the command that shows a client. An id that begins with a hyphen is no option behind `--`.
fn show(id: &ClientId) -> String {
    let end = if id.as_str().starts_with('-') { "-- " } else { "" };
    format!("{} client show {end}{}", program(), id.in_shell())
}

/// Prints nothing with `--json`, which programs read.
fn print(shell: &Shell, what: &str, command: &str) -> anyhow::Result<()> {
    if shell.json {
        return Ok(());
    }
    shell.info(&format!("next: {what}:"))?;
    shell.info(&format!("  {command}"))
}

/// Returns an id that is the same in a shell, in a form and in HTTP Basic.
fn plain(id: &ClientId) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    Some(id.as_str()).filter(|id| id.bytes().all(is_plain) && !id.starts_with('-'))
}

/// Returns the program as the caller named it, as a word of a shell: a name on the path, or a path from the present
/// directory, as under `cargo run`.
pub(super) fn program() -> String {
    let called = std::env::args_os().next().and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty());
    in_shell(called.as_deref().unwrap_or("grantd")).into_owned()
}
