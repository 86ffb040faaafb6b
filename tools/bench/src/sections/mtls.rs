//! `tls_client_auth` on kept connections, against the limit behind the same TLS, and beside secrets over TLS.

use std::fs;

use grantd_kit::clients::SCOPES;
use grantd_kit::grantd::{Grantd, free_address};
use grantd_kit::http::post_form;
use grantd_kit::report::Goal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::connections::Certificate;
use super::{Bench, REAL, load, requests};
use crate::contest::{Contender, compare, ratio, run as contest};
use crate::generator::Load;
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = bench.copy("mtls", 1000).await?;
    let grantd = grantd.with("token.alg", "ES256");
    register(&grantd).await?;
    let form = format!("grant_type=client_credentials&client_id={CLIENT}");
    let server = Certificate::make(bench)?;
    let (ca, chain, key) = certificates(bench)?;
    let certified = Load {
        tls: Some(server.client(|config| Ok(config.with_client_auth_cert(chain, key)?))?),
        ..load(&[post_form("/token", &[], &form)].into())
    };
    let tls = Some(server.client(|config| Ok(config.with_no_client_auth()))?);
    let by_secret = Load { tls, ..load(&requests(clients, REAL)) };
    let options = [&server.limit_options()[..], &["--client-ca", &ca]].concat();
    let address = free_address()?;
    let with_mtls = grantd
        .clone()
        .with("server.mtls.listen", address.to_string())
        .with("server.mtls.client_ca_file", &ca)
        .with("server.mtls.cert_file", &server.cert)
        .with("server.mtls.key_file", &server.key);
    let contenders = [
        Contender::limit("limit", "ES256", &options, certified.clone()),
        Contender { address: Some(address), ..Contender::grantd("grantd", with_mtls, certified) },
        Contender::grantd("grantd, secrets", server.on(grantd), by_secret),
    ];
    report.section("mtls: tls_client_auth and known secrets on 64 kept TLS 1.3 connections, ES256");
    if let [limit, grantd, secrets] = contest(bench.plan, &contenders, report).await?.as_slice() {
        compare(report, "certificates", grantd, limit, Goal::None);
        report.figure("p99 ÷ limit's", &ratio(grantd, limit, |round| round.p99), "", Goal::None);
        let (rate, cpu) = (ratio(grantd, secrets, |round| round.rate), ratio(secrets, grantd, |round| round.cpu));
        report.figure("certificates: requests/s ÷ secrets'", &rate, "", Goal::None);
        report.figure("certificates: secrets' CPU ÷ their own", &cpu, "", Goal::None);
    }
    Ok(())
}

/// Registers a client that is known by a name in its certificates.
async fn register(grantd: &Grantd) -> anyhow::Result<()> {
    grantd.run_ok(&[&["client", "create", CLIENT, "--no-secret"][..], &SCOPES].concat(), "").await?;
    grantd.run_ok(&["client", "cert", "add", CLIENT, "--san-dns", NAME], "").await.map(drop)
}

/// The file of a CA, and a client certificate of that CA with its key.
fn certificates(bench: &Bench) -> anyhow::Result<(String, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate()?;
    let file = bench.path("client-ca.pem");
    fs::write(&file, params.self_signed(&ca_key)?.pem())?;
    let (issuer, key) = (Issuer::new(params, ca_key), KeyPair::generate()?);
    let made = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    Ok((file.display().to_string(), vec![made.der().clone()], key))
}

const CLIENT: &str = "certified";
const NAME: &str = "certified.example.com";
