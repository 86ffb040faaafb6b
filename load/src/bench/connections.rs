//! What connections cost: a new one for each request, and TLS.

use std::fs;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
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
    let (cert, key, tls) = certificate(bench)?;
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
            options.extend(["--cert", &cert, "--key", &key]);
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

/// A certificate for this run: its files, and a client that trusts it and shakes hands in full each time.
fn certificate(bench: &Bench) -> anyhow::Result<(String, String, (TlsConnector, ServerName<'static>))> {
    let name = "localhost";
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])?;
    let (cert, key) = (bench.room.path("tls.pem"), bench.room.path("tls.key"));
    fs::write(&cert, made.cert.pem())?;
    fs::write(&key, made.signing_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let mut config =
        ClientConfig::builder_with_protocol_versions(&[&TLS13]).with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    let tls = (TlsConnector::from(Arc::new(config)), ServerName::try_from(name)?);
    Ok((cert.display().to_string(), key.display().to_string(), tls))
}
