//! Registrations as SQL migrations that both databases accept.

use super::clients::NewClient;
use super::{Admin, AdminError};
use crate::model::credential::SecretOrigin;
use crate::model::time::{Expiry, Span};
use crate::store::export::{Export, quoted};
use crate::store::secrets::NewSecret;

/// Returns the statements that create a client.
pub fn client(NewClient { client, annotations }: &NewClient, secret: Option<&NewSecret>) -> String {
    let id = quoted(client.client_id.as_str());
    let mut sql = format!(
        "-- Client {}. Its secret is not here, only the hash.\ninsert into client (client_id, scope, default_scope, token_ttl, claims, require_dpop, require_mtls_binding, assertion_audience, assertion_lifetime, description, owner, expires_at)\nvalues ({id}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {});\n",
        client.client_id,
        quoted(client.scopes.allowed().as_str()),
        quoted(client.scopes.default_scope().as_str()),
        seconds(client.token_ttl.map(Span::from)),
        quoted(&client.claims.to_ascii()),
        u8::from(client.require_dpop),
        u8::from(client.require_mtls_binding),
        quoted(client.assertion_audience.as_str()),
        seconds(client.assertion_lifetime.map(Span::from)),
        quoted(&annotations.description),
        quoted(&annotations.owner),
        client.expires_at.map(Expiry::at).map_or_else(|| "null".to_owned(), |at| at.0.to_string()),
    );
    for resource in &client.resources {
        sql += &format!(
            "insert into client_resource (client_id, identifier) values ({id}, {});\n",
            quoted(resource.as_str())
        );
    }
    if let Some(secret) = secret {
        if secret.origin == SecretOrigin::Untagged {
            sql += "-- Printed without the server's database and sealing key, so the secret carries no tag: a guess at it costs a hash.\n";
        }
        sql += &format!(
            "insert into client_secret (secret_id, client_id, hash, label, imported, tag_key, verifier, expires_at)\nvalues ({}, {id}, {}, {}, {}, {}, {}, {});\n",
            quoted(&secret.secret_id),
            quoted(&secret.hash.to_string()),
            quoted(&secret.label),
            secret.imported(),
            secret.tag_key().map_or_else(|| "null".to_owned(), |kid| quoted(&kid)),
            secret.verifier.as_ref().map_or_else(|| "null".to_owned(), |verifier| quoted(&verifier.to_string())),
            secret.expires_at.map_or_else(|| "null".to_owned(), |at| at.0.to_string()),
        );
    }
    sql
}

fn seconds(span: Option<Span>) -> String {
    span.map_or_else(|| "null".to_owned(), |span| span.seconds().to_string())
}

impl Admin {
    /// Begins an export of everything that administrators register, as statements of a seed.
    pub async fn export(&self) -> Result<Export, AdminError> {
        Ok(self.store.export().await?)
    }
}
