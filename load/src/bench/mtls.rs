//! `tls_client_auth` on kept connections, against the limit behind the same TLS, and beside secrets over TLS.

use std::fs;

use anyhow::{Context as _, bail};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::connections::Certificate;
use super::{Bench, REAL, load, quiet, requests};
use crate::contest::{Contender, compare, ratio, run as contest};
use crate::generator::{Load, Requests};
use crate::process::free_address;
use crate::registrations::post_form;
use crate::report::{Goal, Report};
use crate::site::Site;

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, clients) = bench.copy("mtls", 1000)?;
    register(&site)?;
    let by_secret = requests(clients, REAL);
    let by_certificate = post_form(&[], &format!("grant_type=client_credentials&client_id={CLIENT}"));
    let by_certificate = Requests::InTurn([by_certificate].into());
    let server = Certificate::make(bench)?;
    let (ca, chain, key) = certificates(bench)?;
    let certified = server.client(|config| Ok(config.with_client_auth_cert(chain, key)?))?;
    let bare = server.client(|config| Ok(config.with_no_client_auth()))?;
    let files = [("cert_file", &server.cert), ("key_file", &server.key)];
    let contenders = [
        Contender::new("limit", || {
            let server = super::limit("ES256", &["--cert", &server.cert, "--key", &server.key, "--client-ca", &ca])?;
            let load = load(&server, &[].into());
            Ok((server, Load { requests: by_certificate.clone(), tls: Some(certified.clone()), ..load }))
        }),
        Contender::new("grantd", || {
            let address = free_address()?;
            let mut serve = quiet("ES256");
            serve.settings.extend([("server.mtls.listen", address.to_string())]);
            serve.settings.extend([("server.mtls.client_ca_file", ca.clone())]);
            let [cert, key] = files.map(|(_, file)| file.clone());
            serve.settings.extend([("server.mtls.cert_file", cert), ("server.mtls.key_file", key)]);
            let server = site.serve(&serve)?;
            let load = load(&server, &[].into());
            let tls = Some(certified.clone());
            Ok((server, Load { address, requests: by_certificate.clone(), tls, ..load }))
        }),
        Contender::new("grantd, secrets", || {
            let mut serve = quiet("ES256");
            let [cert, key] = files.map(|(_, file)| file.clone());
            serve.settings.extend([("server.tls.cert_file", cert), ("server.tls.key_file", key)]);
            let server = site.serve(&serve)?;
            let load = load(&server, &by_secret);
            Ok((server, Load { tls: Some(bare.clone()), ..load }))
        }),
    ];
    report.section("mtls: tls_client_auth and known secrets on 64 kept TLS 1.3 connections, ES256");
    if let [limit, grantd, secrets] = contest(bench.plan, &contenders, report)?.as_slice() {
        compare(report, "certificates", grantd, limit, Goal::None);
        report.figure("p99 ÷ limit's", &ratio(grantd, limit, |round| round.p99), "", Goal::None);
        let (rate, cpu) = (ratio(grantd, secrets, |round| round.rate), ratio(secrets, grantd, |round| round.cpu));
        report.figure("certificates: requests/s ÷ secrets'", &rate, "", Goal::None);
        report.figure("certificates: secrets' CPU ÷ their own", &cpu, "", Goal::None);
    }
    Ok(())
}

/// One client that is known by a name in its certificates.
fn register(site: &Site) -> anyhow::Result<()> {
    let scopes = ["--scope", "api:read", "--default-scope", "api:read", "--no-secret"];
    let create = [&["client", "create", CLIENT][..], &scopes].concat();
    for arguments in [&create[..], &["client", "cert", "add", CLIENT, "--san-dns", NAME]] {
        let done = site.command(arguments).output().context("grantd")?;
        if !done.status.success() {
            bail!("grantd {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr));
        }
    }
    Ok(())
}

/// A CA, as a file, and a client's certificate of it with its key.
fn certificates(bench: &Bench) -> anyhow::Result<(String, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate()?;
    let file = bench.room.path("client-ca.pem");
    fs::write(&file, params.self_signed(&ca_key)?.pem())?;
    let (issuer, key) = (Issuer::new(params, ca_key), KeyPair::generate()?);
    let made = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok((file.display().to_string(), vec![made.der().clone()], key))
}

const CLIENT: &str = "certified";
const NAME: &str = "certified.example.com";
