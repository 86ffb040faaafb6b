//! Expiry of certificates, keys and lists, as operators see it: metrics, warnings, `doctor`, files that are replaced.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use grantd::crypto::certificate::Certificate;
use grantd::model::time::{Clock, UnixTime};
use grantd::serve::certificates::{Certificates, Look};
use grantd::serve::clients::MutualTlsFiles;
use grantd::serve::expiry;
use grantd::transport::tls::clients::{ClientFiles, HeaderCertificateVerifier};
use grantd::transport::tls::{Files, Tls, TlsOptions};
use hyper::Request;
use rcgen::{CertificateParams, CustomExtension, KeyPair, PublicKeyData as _, date_time_ymd};
use serde_json::{Value, json};

use crate::harness::Db;
use crate::mutual_tls::{ca, ca_params, named, revocation_list};
use crate::process::daemon::{Daemon, Grantd, send};

on_both!(
    metrics_come_in_the_format_that_accept_asks_for,
    an_expired_certificate_is_reported_at_start_in_the_metric_and_by_doctor,
    a_certificate_that_no_handshake_takes_is_not_registered,
    a_key_whose_certificate_no_handshake_takes_works_and_is_told,
);

async fn metrics(daemon: &Daemon, accept: Option<&str>) -> (String, String) {
    let mut request = Request::get("/metrics");
    if let Some(accept) = accept {
        request = request.header("accept", accept);
    }
    let answer = send(daemon.admin, request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, 200);
    (answer.header("content-type").to_owned(), answer.body)
}

async fn metrics_come_in_the_format_that_accept_asks_for(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "c", "--scope", "a"]).await;
    grantd.ok(&["client", "secret", "add", "c", "--expires-in", "30d"]).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    for accept in [None, Some("*/*"), Some("text/plain")] {
        let (kind, text) = metrics(&daemon, accept).await;
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8", "{accept:?}");
        assert!(
            text.contains("# TYPE grantd_log_lines_dropped_total counter\ngrantd_log_lines_dropped_total 0\n"),
            "{text}"
        );
        assert!(text.contains(concat!("grantd_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"")), "{text}");
        assert!(!text.contains("# EOF") && !text.contains(" info\n"), "{text}");
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") > 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") > 0.0 && value("process_start_time_seconds") > 1.7e9);
        let expires = value("grantd_credential_expires_seconds{kind=\"client_secret\"}");
        assert!((30.0 * 86400.0 - 600.0..=30.0 * 86400.0).contains(&expires), "{expires}");
    }
    let (kind, text) = metrics(&daemon, Some("application/openmetrics-text; version=1.0.0, text/plain;q=0.5")).await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE grantd_log_lines_dropped counter\n"), "{text}");
    daemon.stop_cleanly(Duration::from_secs(20)).await;
}

/// A certificate of these years, with its key, in files.
fn write_pair(directory: &Path, name: &str, years: (i32, i32)) -> Files {
    let mut params = named(name);
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let key = KeyPair::generate().unwrap();
    let files = Files { cert: directory.join("cert.pem"), key: directory.join("key.pem") };
    std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

async fn an_expired_certificate_is_reported_at_start_in_the_metric_and_by_doctor(db: Db) {
    let directory = db.directory.path();
    let tls = write_pair(directory, "server", (2020, 2021));
    let mut params = ca_params("old CA");
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2022, 1, 1));
    let old = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let ours = ca("our CA");
    std::fs::write(directory.join("ca.pem"), old.pem() + &ours.pem).unwrap();
    std::fs::write(directory.join("crl.pem"), revocation_list(&ours, 2025, &[])).unwrap();
    let path = |name: &str| directory.join(name).display().to_string();
    let grantd = Grantd::new(&db)
        .with("GRANTD__SERVER__TLS__CERT_FILE", &tls.cert.display().to_string())
        .with("GRANTD__SERVER__TLS__KEY_FILE", &tls.key.display().to_string())
        .with("GRANTD__SERVER__MTLS__LISTEN", "127.0.0.1:0")
        .with("GRANTD__SERVER__MTLS__CLIENT_CA_FILE", &path("ca.pem"))
        .with("GRANTD__SERVER__MTLS__CLIENT_CRL_FILE", &path("crl.pem"));
    grantd.ok(&["migrate"]).await;
    let kinds = ["server_certificate", "mtls_certificate", "client_ca", "client_crl"];

    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    daemon.stdout_line(|line| line.contains("credential.expiring") && line.contains("client_crl")).await;
    let warned: Vec<Value> = daemon.events("credential.expiring");
    assert_eq!(warned.iter().map(|event| event["kind"].as_str().unwrap()).collect::<Vec<_>>(), kinds);
    assert!(warned.iter().all(|event| event["level"] == "WARN"), "{warned:?}");
    assert_eq!((&warned[0]["name"], &warned[0]["expires_at"]), (&json!("CN=server"), &json!("2021-01-01T00:00:01Z")));
    assert_eq!(warned[2]["name"], "CN=old CA", "the other CA has time");
    let (_, text) = metrics(&daemon, None).await;
    for kind in kinds {
        assert!(text.contains(&format!("grantd_credential_expires_seconds{{kind=\"{kind}\"}} -")), "{kind}\n{text}");
    }
    daemon.stop_cleanly(Duration::from_secs(20)).await;

    let doctor = grantd.run(&["doctor"]).await;
    assert_eq!(doctor.status.code(), Some(1), "{doctor:?}");
    for named in [
        "server.tls.cert_file: the certificate of CN=server ended at 2021",
        "server.mtls.client_ca_file: the certificate of CN=old CA ended at 2022",
        "server.mtls.client_crl_file: the revocation list of CN=our CA ended at 2025",
    ] {
        assert!(doctor.stdout.contains(named), "{named}\n{}", doctor.stdout);
    }
}

#[test]
fn files_that_are_replaced_are_read_again_and_unusable_ones_are_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let files = write_pair(directory.path(), "first", (2020, 2050));
    let file = |name: &str| directory.path().join(name);
    std::fs::write(file("ca.pem"), ca("first CA").pem).unwrap();
    let clients = ClientFiles { ca: Some(file("ca.pem")), crl: None };
    let public = Arc::new(Tls::load_with(files.clone(), TlsOptions::default()).unwrap());
    let listener = Tls::load_with(files.clone(), TlsOptions { fapi: false, clients: Some(clients) }).unwrap();
    let mutual_tls = MutualTlsFiles { listener: Some(Arc::new(listener)), header: None };
    let certificates = Certificates::new(Some(public), mutual_tls, Vec::new(), Clock::System);
    let names = || {
        let endings = certificates.endings();
        endings.iter().map(|ending| format!("{} {}", ending.kind, ending.validity.name)).collect::<Vec<_>>()
    };
    let first = ["server_certificate CN=first", "mtls_certificate CN=first", "client_ca CN=first CA"];
    assert_eq!((certificates.look(), names()), (Look::Same, first.map(str::to_owned).to_vec()));

    write_pair(directory.path(), "second", (2020, 2050));
    assert_eq!(certificates.look(), Look::Settling, "it may be half written");
    assert_eq!((certificates.look(), certificates.look()), (Look::Read, Look::Same));
    let second = ["server_certificate CN=second", "mtls_certificate CN=second", "client_ca CN=first CA"];
    assert_eq!(names(), second);

    // A change that cannot be used is read once, and what is in use stays.
    std::fs::write(file("ca.pem"), "nothing").unwrap();
    assert_eq!([(); 4].map(|()| certificates.look()), [Look::Settling, Look::Read, Look::Same, Look::Same]);
    std::fs::remove_file(&files.key).unwrap();
    assert_eq!([(); 4].map(|()| certificates.look()), [Look::Settling, Look::Read, Look::Same, Look::Same]);
    assert_eq!(names(), second);

    write_pair(directory.path(), "third", (2020, 2050));
    std::fs::write(file("ca.pem"), ca("third CA").pem).unwrap();
    assert_eq!((certificates.look(), certificates.look()), (Look::Settling, Look::Read));
    assert_eq!(names(), ["server_certificate CN=third", "mtls_certificate CN=third", "client_ca CN=third CA"]);
    assert!(expiry::faults(&certificates.endings(), Clock::System.now()).is_empty());
    assert_eq!(expiry::faults(&certificates.endings(), UnixTime(4_102_444_800)).len(), 2, "in 2100, but for the CA");
}

#[test]
fn the_reason_why_no_ca_vouches_for_a_certificate_is_the_verifiers() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let ours = ca("our CA");
    std::fs::write(file("ca.pem"), &ours.pem).unwrap();
    let files = |crl| ClientFiles { ca: Some(file("ca.pem")), crl };
    let without = HeaderCertificateVerifier::load(files(None)).unwrap();
    let listed = |ends, revoked: &[u64]| {
        std::fs::write(file("crl.pem"), revocation_list(&ours, ends, revoked)).unwrap();
        HeaderCertificateVerifier::load(files(Some(file("crl.pem")))).unwrap()
    };
    let dated = |years: (i32, i32)| {
        let mut params = named("svc");
        params.serial_number = Some(7_u64.into());
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        params
    };
    let reason = |vouching: &HeaderCertificateVerifier, ca: &crate::mutual_tls::Ca, params: &CertificateParams| {
        let chain: Vec<Vec<u8>> = ca.issue(params).chain().iter().map(|der| der.to_vec()).collect();
        vouching.verify_chain(&chain).err().map_or_else(String::new, |reason| reason.to_string())
    };
    let good = dated((2020, 2050));
    assert_eq!(reason(&without, &ours, &good), "");
    for (found, expected) in [
        (reason(&without, &ours, &dated((2020, 2021))), "certificate expired"),
        (reason(&without, &ours, &dated((2049, 2050))), "certificate not valid yet"),
        (reason(&without, &ca("another CA"), &good), "unknown issuer"),
        (reason(&listed(2050, &[7]), &ours, &good), "revoked"),
        (reason(&listed(2025, &[]), &ours, &good), "certificate revocation list expired"),
        (
            reason(&HeaderCertificateVerifier::load(ClientFiles::default()).unwrap(), &ours, &good),
            "client_ca_file is not set",
        ),
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn an_error_about_a_bundle_says_which_item_it_means() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let (ours, other) = (ca("our CA"), ca("other CA"));
    let leaf = named("a leaf").self_signed(&KeyPair::generate().unwrap()).unwrap();
    std::fs::write(file("ca.pem"), [ours.pem.as_str(), &other.pem, &leaf.pem()].concat()).unwrap();
    let load =
        |crl| HeaderCertificateVerifier::load(ClientFiles { ca: Some(file("ca.pem")), crl }).unwrap_err().to_string();
    let error = load(None);
    assert!(error.contains("certificate 3 (CN=a leaf): not a CA certificate"), "{error}");
    std::fs::write(file("ca.pem"), &ours.pem).unwrap();
    // A list of a version that nobody reads.
    let pem = revocation_list(&ours, 2050, &[]);
    let mut der =
        BASE64_STANDARD.decode(pem.lines().filter(|line| !line.starts_with("---")).collect::<String>()).unwrap();
    let version = der.windows(3).position(|part| part == [2, 1, 1]).unwrap() + 2;
    der[version] = 2;
    let odd = format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", BASE64_STANDARD.encode(&der));
    std::fs::write(file("crl.pem"), pem + &odd).unwrap();
    let error = load(Some(file("crl.pem")));
    assert!(error.contains("crl.pem: list 2 ("), "{error}");
}

/// A certificate with a critical extension that nobody knows.
fn unusable(key: &KeyPair) -> rcgen::Certificate {
    let mut params = named("odd");
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
    params.self_signed(key).unwrap()
}

/// A public key with a certificate beside it.
fn jwk(key: &KeyPair, certificate: &rcgen::Certificate) -> Value {
    let point = key.der_bytes();
    let [x, y] = [&point[1..33], &point[33..65]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": x, "y": y, "x5c": [BASE64_STANDARD.encode(certificate.der())]})
}

async fn a_certificate_that_no_handshake_takes_is_not_registered(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "c", "--scope", "a", "--no-secret"]).await;
    let key = KeyPair::generate().unwrap();
    let (odd, good) = (unusable(&key), named("good").self_signed(&key).unwrap());
    assert_eq!(Certificate::parse(good.der()).unwrap().handshake_fault(), None);
    let file = db.file("odd.pem", &odd.pem()).display().to_string();
    let set = db.file("odd.jwk", &jwk(&key, &odd).to_string()).display().to_string();
    let proxied =
        grantd.with("GRANTD__SERVER__CLIENT_CERT_HEADER", "true").with("GRANTD__SERVER__TRUSTED_PROXIES", "127.0.0.1");
    for arguments in
        [["client", "cert", "add", "c", "--self-signed", &file], ["client", "key", "add", "c", "--jwk", &set]]
    {
        let done = grantd.run(&arguments).await;
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert!(
            done.stderr.contains("no TLS handshake accepts") && done.stderr.contains("unsupported critical extension"),
            "{}",
            done.stderr
        );
        // A proxy that ends TLS decides by itself.
        let done = proxied.ok(&arguments).await;
        assert!(done.stderr.contains("warning: "), "{}", done.stderr);
    }
    let good = db.file("good.pem", &good.pem()).display().to_string();
    grantd.ok(&["client", "cert", "add", "c", "--self-signed", &good]).await;
}

async fn a_key_whose_certificate_no_handshake_takes_works_and_is_told(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "c", "--scope", "a", "--no-secret"]).await;
    let key = KeyPair::generate().unwrap();
    let jwk = jwk(&key, &unusable(&key));
    db.sql(&format!("insert into client_key (client_id, kid, jwk, created_at) values ('c', 'k', '{jwk}', 1)"))
        .await
        .unwrap();
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let events = daemon.events("client.certificate_unusable");
    assert_eq!((&events[0]["client_id"], &events[0]["credential_id"]), (&json!("c"), &json!("k")));
    assert!(daemon.events("client.malformed").is_empty());
    daemon.stop_cleanly(Duration::from_secs(20)).await;
    let doctor = grantd.run(&["doctor"]).await;
    assert!(
        doctor.stdout.contains("client c: no TLS handshake accepts the certificate in x5c of its key k"),
        "{doctor:?}"
    );
}
