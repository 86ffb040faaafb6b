//! `grantd client cert`: registrations of client certificates, for mutual TLS (RFC 8705 section 2).

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::admin::client_certs::{ClientCertificate, NewCertificate};
use crate::cli::open::Purpose;
use crate::cli::table::{Cell, Column, Times, columns_of_client};
use crate::cli::{Shell, states};
use crate::crypto::certificate::Certificate;
use crate::model::certificate::RegisteredCertificate;
use crate::model::client_id::ClientId;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Register the name in the client's certificates, or a self-signed certificate beside those the client has
    Add {
        /// The client id
        id: ClientId,
        #[command(flatten)]
        expected: RegistrationOptions,
    },
    /// List the certificate registrations of a client, or of all clients
    #[command(visible_alias = "ls")]
    List {
        /// The client id
        id: Option<ClientId>,
    },
    /// Remove a certificate registration
    #[command(visible_alias = "rm")]
    Remove {
        /// The client id
        id: ClientId,
        /// The registration's id
        cert_id: String,
    },
}

/// Options that name a certificate. RFC 8705 section 2.1.2 requires exactly one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct RegistrationOptions {
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
    /// File with the certificate itself, in PEM or DER; no CA has to verify it
    #[arg(long, value_name = "FILE")]
    self_signed: Option<PathBuf>,
}

impl RegistrationOptions {
    fn read(&self) -> anyhow::Result<NewCertificate> {
        if let Some(path) = &self.self_signed {
            let name = || format!("--self-signed {}", path.display());
            let certificate = Certificate::read(&std::fs::read(path).with_context(name)?).with_context(name)?;
            return Ok(NewCertificate::SelfSigned(certificate));
        }
        let names = [
            ("subject_dn", &self.subject_dn),
            ("san_dns", &self.san_dns),
            ("san_uri", &self.san_uri),
            ("san_ip", &self.san_ip),
            ("san_email", &self.san_email),
        ];
        match names.into_iter().find_map(|(kind, value)| Some((kind, value.as_ref()?))) {
            Some((kind, value)) => Ok(NewCertificate::Name(RegisteredCertificate::parse(kind, value)?)),
            None => bail!("name one of --subject-dn, --san-dns, --san-uri, --san-ip, --san-email, --self-signed"),
        }
    }
}

impl Command {
    fn purpose(&self) -> Purpose {
        match self {
            Self::List { .. } => Purpose::Read,
            Self::Add { .. } | Self::Remove { .. } => Purpose::Change,
        }
    }

    pub(in crate::cli) async fn run(self, shell: &Shell) -> anyhow::Result<()> {
        let admin = shell.admin(self.purpose()).await?;
        match self {
            Self::Add { id, expected } => {
                let added = shell.after_warnings(admin.add_client_certificate(&id, expected.read()?).await?);
                let times = shell.times(&admin);
                shell.print_sheet(&added.document_of_client(), |sheet| sheet.table(OF_CLIENT, [row(&added, times)]))
            }
            Self::List { id } => {
                let mut clients = admin.clients(id.as_ref()).await?;
                let (mut list, times) = (shell.list(OF_ALL), shell.times(&admin));
                while let Some(range) = clients.next().await? {
                    for one in shell.after_warnings(admin.client_certificates(range).await?) {
                        let row = || [vec![Cell::new(one.client_id.as_str())], row(&one, times)].concat();
                        list.item(|| one.document_of_client(), row)?;
                    }
                }
                list.end()
            }
            Self::Remove { id, cert_id } => {
                admin.remove_client_certificate(&id, &cert_id).await?;
                shell
                    .info(&format!("certificate {cert_id} of client {id} is removed, within a second on every replica"))
            }
        }
    }
}

/// Returns a registration as a row, without its client.
pub(super) fn row(ClientCertificate { stored, last_used_at, .. }: &ClientCertificate, times: Times) -> Vec<Cell<'_>> {
    vec![
        Cell::new(&*stored.cert_id),
        Cell::new(stored.registered.kind()),
        Cell::new(stored.registered.to_string()),
        times.cell(stored.created_at),
        times.or_never(stored.expires_at),
        times.or_never(*last_used_at),
        states::of_credential(stored.created_at, stored.expires_at, *last_used_at, times),
    ]
}

/// Columns of certificate registrations.
const OF_ALL: &[Column] = &[
    Column::whole("CLIENT"),
    Column::whole("CERT"),
    Column::whole("KIND"),
    Column::shrinking("VALUE"),
    Column::whole("MADE"),
    Column::whole("EXPIRES"),
    Column::whole("LAST USED"),
    Column::whole("STATE"),
];
/// Columns of the registrations of one client.
pub(super) const OF_CLIENT: &[Column] = columns_of_client(OF_ALL);
