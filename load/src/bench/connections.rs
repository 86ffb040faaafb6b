//! What connections cost: a new one for each request, and TLS.

use std::fs;
use std::sync::Arc;

use rustls::client::{Resumption, WantsClientCert};
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio_rustls::TlsConnector;

use super::{Bench, REAL, load, quiet, requests};
use crate::contest::{Contender, compare, run as contest};
use crate::generator::Load;
use crate::registrations::closing;
use crate::report::{Goal, Report};
use crate::site::Serve;

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, clients) = bench.copy("connections", 1000)?;
    let asked = requests(clients, REAL);
    let certificate = Certificate::make(bench)?;
    let tls = certificate.client(|config| Ok(config.with_no_client_auth()))?;
    let (cert, key) = (&certificate.cert, &certificate.key);
    for (name, with_tls, reconnect) in [
        ("a new TCP connection for each request", false, true),
        ("TLS 1.3 on kept connections", true, false),
        ("a full TLS 1.3 handshake for each request", true, true),
    ] {
        let asked = if reconnect { closing(&asked) } else { Arc::clone(&asked) };
        let shaped = |load: Load| Load { reconnect, tls: with_tls.then(|| tls.clone()), ..load };
        let mut serve: Serve<'_> = quiet("ES256");
        let mut options: Vec<&str> = Vec::new();
        if with_tls {
            serve.settings.extend([("server.tls.cert_file", cert.clone()), ("server.tls.key_file", key.clone())]);
            options.extend(["--cert", cert, "--key", key]);
        }
        let contenders = [
            Contender::new("limit", || {
                let server = super::limit("ES256", &options)?;
                let load = shaped(load(&server, &asked));
                Ok((server, load))
            }),
            Contender::new("grantd", || {
                let server = site.serve(&serve)?;
                let load = shaped(load(&server, &asked));
                Ok((server, load))
            }),
        ];
        report.section(&format!("connections: {name}, ES256"));
        if let [limit, ours] = contest(bench.plan, &contenders, report)?.as_slice() {
            compare(report, "grantd", ours, limit, Goal::None);
        }
    }
    Ok(())
}

/// A certificate of servers for this run.
pub(super) struct Certificate {
    /// Its file.
    pub(super) cert: String,
    /// The file of its key.
    pub(super) key: String,
    roots: RootCertStore,
}

/// A client of such a server.
pub(super) type Client = (TlsConnector, ServerName<'static>);

impl Certificate {
    pub(super) fn make(bench: &Bench) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()])?;
        let (cert, key) = (bench.room.path("tls.pem"), bench.room.path("tls.key"));
        fs::write(&cert, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        Ok(Self { cert: cert.display().to_string(), key: key.display().to_string(), roots })
    }

    /// One that trusts it and shakes hands in full each time; `finish` says whether it has a certificate itself.
    pub(super) fn client(
        &self,
        finish: impl FnOnce(ConfigBuilder<ClientConfig, WantsClientCert>) -> anyhow::Result<ClientConfig>,
    ) -> anyhow::Result<Client> {
        let builder = ClientConfig::builder_with_protocol_versions(&[&TLS13]);
        let mut config = finish(builder.with_root_certificates(self.roots.clone()))?;
        config.resumption = Resumption::disabled();
        Ok((TlsConnector::from(Arc::new(config)), ServerName::try_from(HOST)?))
    }
}

const HOST: &str = "localhost";
