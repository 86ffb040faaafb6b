//! Cost of connections: a new one for each request, and TLS.

use std::fs;
use std::sync::Arc;

use grantd_kit::grantd::Grantd;
use grantd_kit::http::with_field;
use grantd_kit::report::Goal;
use rustls::client::{Resumption, WantsClientCert};
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio_rustls::TlsConnector;

use super::{Bench, REAL, load, requests};
use crate::contest::{Contender, compare, run as contest};
use crate::generator::Load;
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = bench.copy("connections", 1000).await?;
    let grantd = grantd.with("token.alg", "ES256");
    let kept = requests(clients, REAL);
    let closing: Arc<[Vec<u8>]> = kept.iter().map(|request| with_field(request, "Connection", "close")).collect();
    let certificate = Certificate::make(bench)?;
    let tls = certificate.client(|config| Ok(config.with_no_client_auth()))?;
    for (name, with_tls, reconnect) in [
        ("a new TCP connection for each request", false, true),
        ("TLS 1.3 on kept connections", true, false),
        ("a full TLS 1.3 handshake for each request", true, true),
    ] {
        let load = load(if reconnect { &closing } else { &kept });
        let load = Load { reconnect, tls: with_tls.then(|| tls.clone()), ..load };
        let (grantd, options) = if with_tls {
            (certificate.on(grantd.clone()), certificate.limit_options().to_vec())
        } else {
            (grantd.clone(), Vec::new())
        };
        let contenders =
            [Contender::limit("limit", "ES256", &options, load.clone()), Contender::grantd("grantd", grantd, load)];
        report.section(&format!("connections: {name}, ES256"));
        if let [limit, ours] = contest(bench.plan, &contenders, report).await?.as_slice() {
            compare(report, "grantd", ours, limit, Goal::None);
        }
    }
    Ok(())
}

/// The certificate of the servers of this run.
pub(super) struct Certificate {
    /// Path of its PEM file.
    pub(super) cert: String,
    /// Path of the PEM file of its key.
    pub(super) key: String,
    roots: RootCertStore,
}

/// A TLS client of such a server.
pub(super) type Client = (TlsConnector, ServerName<'static>);

impl Certificate {
    pub(super) fn make(bench: &Bench) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()])?;
        let (cert, key) = (bench.path("tls.pem"), bench.path("tls.key"));
        fs::write(&cert, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        Ok(Self { cert: cert.display().to_string(), key: key.display().to_string(), roots })
    }

    /// grantd with this certificate on its public listener.
    pub(super) fn on(&self, grantd: Grantd) -> Grantd {
        grantd.with("server.tls.cert_file", &self.cert).with("server.tls.key_file", &self.key)
    }

    /// Options of the limit server for this certificate.
    pub(super) fn limit_options(&self) -> [&str; 4] {
        ["--cert", &self.cert, "--key", &self.key]
    }

    /// A client that trusts the certificate and performs full handshakes; `finish` decides about a client certificate.
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
