//! `grantd client cert`: what is known of clients' certificates, for mutual TLS (RFC 8705 section 2).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Shell;
use super::open::Purpose;
use super::registered::{each, one};
use super::secret::{found, or_never};
use crate::crypto::certificate::Certificate;
use crate::crypto::secret::new_secret_id;
use crate::model::certificate::RegisteredCertificate;
use crate::model::client_id::ClientId;
use crate::model::credential::StoredCertificate;
use crate::model::time::UnixTime;
use crate::store::StoreError;
use crate::telemetry::printable::one_line;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register the name in the client's certificates, or a self-signed certificate beside those the client has
    Add {
        /// The client id
        id: ClientId,
        #[command(flatten)]
        expected: Expected,
    },
    /// List the certificate registrations of a client, or of all clients
    List {
        /// The client id
        id: Option<ClientId>,
    },
    /// Remove a certificate registration
    Remove {
        /// The client id
        id: ClientId,
        /// The registration's id
        cert_id: String,
    },
}

/// RFC 8705 section 2.1.2: exactly one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Expected {
    /// The subject, as in "CN=billing,O=Example,C=DE" (RFC 4514)
    #[arg(long, value_name = "NAME")]
    subject_dn: Option<String>,
    /// A dNSName of the subject alternative names
    #[arg(long, value_name = "HOST")]
    san_dns: Option<String>,
    /// A URI of the subject alternative names, such as a SPIFFE id
    #[arg(long, value_name = "URI")]
    san_uri: Option<String>,
    /// An address of the subject alternative names
    #[arg(long, value_name = "ADDRESS")]
    san_ip: Option<String>,
    /// A mailbox of the subject alternative names
    #[arg(long, value_name = "MAILBOX")]
    san_email: Option<String>,
    /// File with the certificate itself, in PEM or DER; no CA has to vouch for it
    #[arg(long, value_name = "FILE")]
    self_signed: Option<PathBuf>,
}

impl Expected {
    /// What is expected, and when that ends.
    fn read(&self, shell: &Shell, header: bool) -> anyhow::Result<(RegisteredCertificate, Option<UnixTime>)> {
        if let Some(path) = &self.self_signed {
            let name = || format!("--self-signed {}", path.display());
            let certificate = Certificate::read(&std::fs::read(path).with_context(name)?).with_context(name)?;
            if let Some(fault) = certificate.handshake_fault() {
                // A proxy that ends TLS may take it.
                if !header {
                    bail!(
                        "--self-signed {}: no TLS handshake takes this certificate: {fault}; make one of X.509 version 3 with openssl req -x509",
                        path.display()
                    );
                }
                shell.say(&format!(
                    "warning: the listener of server.mtls takes no such certificate ({fault}), only a proxy may"
                ))?;
            }
            if !certificate.is_valid_at(shell.now().0) {
                shell.say(
                    "warning: this certificate is not valid now, and does not authenticate anybody outside its dates",
                )?;
            }
            // From that second on it is not valid (RFC 5280 section 4.1.2.5 counts the second itself in).
            let expires_at = UnixTime(certificate.not_after().saturating_add(1));
            return Ok((RegisteredCertificate::self_signed(&certificate), Some(expires_at)));
        }
        let names = [
            ("subject_dn", &self.subject_dn),
            ("san_dns", &self.san_dns),
            ("san_uri", &self.san_uri),
            ("san_ip", &self.san_ip),
            ("san_email", &self.san_email),
        ];
        match names.into_iter().find_map(|(kind, value)| Some((kind, value.as_ref()?))) {
            Some((kind, value)) => Ok((RegisteredCertificate::parse(kind, value)?, None)),
            None => bail!("name one of --subject-dn, --san-dns, --san-uri, --san-ip, --san-email, --self-signed"),
        }
    }
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List { .. } => Purpose::Look,
            Self::Add { .. } | Self::Remove { .. } => Purpose::Change,
        }
    }

    pub(super) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let (config, store) = shell.store(self.purpose()).await?;
        match self {
            Self::Add { id, expected } => {
                let clients = &config.client_certificates;
                let (registered, expires_at) = expected.read(shell, clients.header)?;
                if registered.needs_ca() && clients.files.ca.is_none() {
                    shell.say(
                        "warning: this configuration has no server.mtls.client_ca_file, so no CA vouches for names",
                    )?;
                }
                let stored = StoredCertificate {
                    cert_id: new_secret_id()?.into(),
                    registered,
                    created_at: shell.now(),
                    expires_at,
                    used: Arc::default(),
                };
                match store.add_client_certificate(id.as_str(), &stored).await {
                    Err(StoreError::Refused(reason)) if reason.contains("no such client") => found(false, &id)?,
                    done => done?,
                }
                let mut value = certificate_value(&stored, None);
                if let Value::Object(members) = &mut value {
                    members.insert("client_id".into(), id.as_str().into());
                }
                shell.print(&value, || certificate_line(&stored, None))
            }
            Self::List { id } => {
                let (clients, uses) = (each(shell, &store, id.as_ref()).await?, store.certificate_uses().await?);
                let last_used = |one: &StoredCertificate| uses.get(&*one.cert_id).copied();
                let rows = || {
                    clients
                        .iter()
                        .flat_map(|client| client.certificates.iter().map(move |one| (&client.client_id, one)))
                };
                let value: Vec<Value> = rows()
                    .map(|(id, one)| {
                        let mut value = certificate_value(one, last_used(one));
                        if let Value::Object(members) = &mut value {
                            members.insert("client_id".into(), id.as_str().into());
                        }
                        value
                    })
                    .collect();
                shell.print(&value, || {
                    rows().map(|(id, one)| format!("{id}  {}", certificate_line(one, last_used(one)))).collect()
                })
            }
            Self::Remove { id, cert_id } => {
                if !store.remove_client_certificate(id.as_str(), &cert_id).await? {
                    drop(one(&store, &id).await?);
                    let word = id.in_shell();
                    bail!("client {id} has no certificate {cert_id}; `grantd client cert list {word}` lists them");
                }
                shell.say(&format!("certificate {cert_id} of client {id} is removed, within a second on every replica"))
            }
        }
    }
}

/// A registration as JSON.
pub(super) fn certificate_value(stored: &StoredCertificate, last_used_at: Option<UnixTime>) -> Value {
    json!({
        "cert_id": stored.cert_id,
        "kind": stored.registered.kind(),
        "value": stored.registered.to_string(),
        "created_at": stored.created_at,
        "expires_at": stored.expires_at,
        "last_used_at": last_used_at,
    })
}

/// A registration as a line of text.
pub(super) fn certificate_line(stored: &StoredCertificate, last_used_at: Option<UnixTime>) -> String {
    format!(
        "cert {}  {} {}  made {}  expires {}  last used {}\n",
        stored.cert_id,
        stored.registered.kind(),
        one_line(&stored.registered.to_string()),
        stored.created_at,
        or_never(stored.expires_at),
        or_never(last_used_at)
    )
}
