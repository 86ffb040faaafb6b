//! Refusals before a handler sees a request: framing, other protocols, handshakes. Each is counted and logged.

use std::sync::Arc;
use std::time::Duration;

use grantd::http::log::RefusedLabels;
use grantd::transport::tls::Tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::Db;
use crate::process::daemon::{Daemon, Grantd, eventually};
use crate::transport::{Listening, certificate, connector, listen, listen_with, one_answer, rest};

/// A `ClientHello` of TLS 1.2, cut short after its header.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03";

/// Waits until so many have been counted.
async fn counted(listening: &Listening, reason: &'static str, wanted: u64) {
    let counts = &listening.server.counts.connections_refused;
    eventually(async || counts.get_or_create(&RefusedLabels { reason }).get(), |count| *count == wanted).await;
}

#[tokio::test]
async fn bytes_that_are_no_request_are_counted_by_their_likely_protocol() {
    let listening = listen().await;
    let large = format!("GET /jwks HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    for (bytes, reason, status) in [
        (&b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /jwks HTTP/1.1\r\nhost: a\r\n\r\n"[..], "proxy_protocol", "400"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "proxy_protocol", "400"),
        (CLIENT_HELLO, "tls_on_cleartext", "400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2", ""),
        (large.as_bytes(), "fields_too_large", "431"),
        (b"GET /jwks HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n", "malformed", "400"),
    ] {
        let before = listening.server.counts.connections_refused.get_or_create(&RefusedLabels { reason }).get();
        let answer = listening.send(bytes).await;
        counted(&listening, reason, before + 1).await;
        if status.is_empty() {
            assert_eq!(answer, "");
        } else {
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{reason}: {answer}");
            assert!(answer.contains("\r\nx-request-id: ") && answer.contains("\r\ndate: "), "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n") && answer.contains("error_description"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_handshake_that_fails_is_counted_by_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let (files, trusted) = certificate(directory.path());
    let listening = listen_with(Some(Arc::new(Tls::load(files).unwrap())), 100).await;

    let answer = listening.send(b"GET /jwks HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("use https"), "{answer}");
    assert!(answer.contains("x-request-id") && answer.contains("connection: close"), "{answer}");
    counted(&listening, "cleartext_on_tls", 1).await;
    listening.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\x16\x03\x01").await;
    counted(&listening, "proxy_protocol", 1).await;
    listening.send(CLIENT_HELLO).await;
    counted(&listening, "tls_handshake", 1).await;

    let name = ServerName::try_from("localhost").unwrap();
    let strange = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let distrusts = connector(strange.cert.der(), &[&rustls::version::TLS13]);
    assert!(distrusts.connect(name.clone(), listening.connect().await).await.is_err());
    counted(&listening, "tls_alert", 1).await;

    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // The server's key is ECDSA.
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"));
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let config = |provider, alpn: &[&[u8]]| {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    };
    assert!(config(provider, &[]).connect(name.clone(), listening.connect().await).await.is_err());
    counted(&listening, "tls_cipher", 1).await;
    let only_h2 = config(rustls::crypto::aws_lc_rs::default_provider(), &[b"h2"]);
    assert!(only_h2.connect(name, listening.connect().await).await.is_err());
    counted(&listening, "tls_alpn", 1).await;
}

#[tokio::test]
async fn a_refusal_leaves_a_line_once_a_second_and_its_id_is_in_the_answer() {
    let db = Db::sqlite();
    let mut daemon = Daemon::start(Grantd::new(&db).command(&["serve"]), false).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(daemon.public).await.unwrap();
        stream.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").await.unwrap();
        answers.push(rest(&mut stream).await);
    }
    let events = eventually(async || daemon.events("connection.refused"), |events| !events.is_empty()).await;
    assert!(events.len() < 20, "not a line for each: {events:?}");
    let event = &events[0];
    assert_eq!((&event["reason"], &event["remote_addr"]), (&"proxy_protocol".into(), &"127.0.0.1".into()));
    assert!(event["detail"].as_str().unwrap().contains("send-proxy"), "{event}");
    let id = event["request_id"].as_str().unwrap();
    assert!(answers.iter().any(|answer| answer.contains(&format!("\r\nx-request-id: {id}\r\n"))), "{id}: {answers:?}");
    let metrics = daemon.admin_get("/metrics").await.body;
    assert!(metrics.contains("grantd_connections_refused_total{reason=\"proxy_protocol\"} 20"), "{metrics}");
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_request_has_one_valid_host_on_every_listener() {
    let db = Db::sqlite();
    let mut daemon = Daemon::start(Grantd::new(&db).command(&["serve"]), false).await;
    for (address, path) in [(daemon.public, "/jwks"), (daemon.admin, "/livez")] {
        for (version, hosts, status) in [
            ("1.1", &["a"][..], "200"),
            ("1.1", &["[::1]:8080"], "200"),
            ("1.1", &[], "400"),
            ("1.1", &["a", "a"], "400"),
            ("1.1", &["a b"], "400"),
            ("1.1", &["user@a"], "400"),
            ("1.1", &["a/b"], "400"),
            ("1.1", &["a:80x"], "400"),
            ("1.0", &[], "200"),
            ("1.0", &["a", "b"], "400"),
            ("1.0", &["a b"], "400"),
        ] {
            let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("GET {path} HTTP/{version}\r\n{hosts}\r\n").as_bytes()).await.unwrap();
            let answer = one_answer(&mut stream).await;
            assert_eq!(&answer[9..12], status, "HTTP/{version} {hosts:?} {path}: {answer}");
        }
    }
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_framing_that_is_not_understood_is_refused_and_the_connection_closed() {
    let listening = listen().await;
    let body = format!("grant_type=client_credentials&client_id=basic-client&client_secret={}", listening.secret);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    for (fields, status) in [
        ("transfer-encoding: chunked\r\n", "200"),
        ("transfer-encoding: gzip, chunked\r\n", "501"),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", "501"),
        ("transfer-encoding: chunked, chunked\r\n", "400"),
        ("transfer-encoding: chunked, gzip\r\n", "400"),
        ("transfer-encoding: gzip\r\n", "400"),
        ("transfer-encoding: identity\r\n", "400"),
        ("content-length: 5, 5\r\n", "400"),
        ("content-length: -1\r\n", "400"),
        ("content-length: 1 1\r\n", "400"),
        ("content-length: 18446744073709551617\r\n", "400"),
    ] {
        let mut stream = listening.connect().await;
        let request = format!("POST /token HTTP/1.1\r\nhost: a\r\n{form}{fields}\r\n{chunked}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut start)).await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&start[9..]).unwrap(), status, "{fields}");
        let answer = if status == "200" { one_answer(&mut stream).await } else { rest(&mut stream).await };
        assert_eq!(answer.contains("\r\nconnection: close\r\n"), status != "200", "{fields}: {answer}");
    }
    let old = format!("POST /token HTTP/1.0\r\n{form}transfer-encoding: chunked\r\n\r\n{chunked}");
    let answer = listening.send(old.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "RFC 9112 section 6.1: HTTP/1.0 has no transfer codings");
}
