//! Mutual TLS on sockets: the listeners that ask for certificates, those they take, and what a handler learns of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::response::IntoResponse as _;
use grantd::http::Caller;
use grantd::http::log::{Counts, RefusedLabels};
use grantd::model::certificate::PeerCertificate;
use grantd::transport::listener::{Deadlines, Listener};
use grantd::transport::tls::clients::{ClientFiles, HeaderCertificateVerifier};
use grantd::transport::tls::{Files, Tls, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SignatureScheme,
    SupportedProtocolVersion, version,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::der;
use crate::process::daemon::eventually;

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

const DEADLINES: Deadlines = Deadlines {
    first_byte: Duration::from_secs(5),
    head: Duration::from_secs(5),
    idle: Duration::from_secs(30),
    write: Duration::from_secs(5),
    drain: Duration::from_secs(1),
};

/// A listener that asks for certificates, and what its clients need to know.
struct Listening {
    address: SocketAddr,
    tls: Arc<Tls>,
    directory: TempDir,
    server: CertificateDer<'static>,
    counts: Counts,
    _stop: watch::Sender<bool>,
}

/// Starts one in `directory`, where `ca.pem` and, if they are to be used, `crl.pem` are.
async fn listen(directory: TempDir, terms: TlsOptions) -> Listening {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let files = Files { cert: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
    let tls = Arc::new(Tls::load_with(files, terms).unwrap());
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let told = |peer: Option<PeerCertificate>| match peer {
        None => "none".to_owned(),
        Some(peer) => format!("{} {}", peer.certificate.subject(), peer.ca_verified.is_ok()),
    };
    let answer = move |caller: Caller, _| std::future::ready(told(caller.certificate).into_response());
    let counts = Counts::default();
    let (draining, refusals) = (Arc::default(), crate::harness::refusals(&counts));
    let tls_of_it = Some(Arc::clone(&tls));
    let listener = Listener {
        socket,
        tls: tls_of_it,
        deadlines: DEADLINES,
        max_connections: 100,
        draining,
        refusals,
        pace: crate::harness::pace(),
    };
    tokio::spawn(listener.run(answer, stopped));
    Listening { address, tls, directory, server: made.cert.der().clone(), counts, _stop: stop }
}

fn trusting(directory: &TempDir, crl: bool) -> TlsOptions {
    let file = |name: &str| directory.path().join(name);
    TlsOptions {
        fapi: false,
        clients: Some(ClientFiles { ca: Some(file("ca.pem")), crl: crl.then(|| file("crl.pem")) }),
    }
}

async fn listen_trusting(ca: &Ca) -> Listening {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), &ca.pem).unwrap();
    let terms = trusting(&directory, false);
    listen(directory, terms).await
}

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pub pem: String,
}

pub fn named(cn: &str) -> CertificateParams {
    let mut params = CertificateParams::new(["svc.example".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, cn);
    params
}

pub fn ca_params(cn: &str) -> CertificateParams {
    let mut params = named(cn);
    params.subject_alt_names.clear();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub fn ca(cn: &str) -> Ca {
    let (params, key) = (ca_params(cn), KeyPair::generate().unwrap());
    let made = params.self_signed(&key).unwrap();
    Ca { der: made.der().clone(), pem: made.pem(), issuer: Issuer::new(params, key) }
}

impl Ca {
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub fn intermediate(&self, cn: &str) -> Self {
        let (params, key) = (ca_params(cn), KeyPair::generate().unwrap());
        let made = params.signed_by(&key, &self.issuer).unwrap();
        Self { der: made.der().clone(), pem: made.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        Identity::new(vec![made.der().clone()], &key)
    }
}

pub fn self_signed(cn: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity::new(vec![named(cn).self_signed(&key).unwrap().der().clone()], &key)
}

/// A certificate chain and a key, which need not go together, and how often they were asked for.
#[derive(Debug)]
pub struct Identity {
    key: Arc<CertifiedKey>,
    asked: AtomicUsize,
}

impl Identity {
    /// The certificates, the client's own first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Self { key: Arc::new(CertifiedKey::new(chain, key)), asked: AtomicUsize::new(0) }
    }

    fn with_chain(&self, more: &[&Ca]) -> Self {
        let mut key = (*self.key).clone();
        key.cert.extend(more.iter().map(|ca| ca.der.clone()));
        Self { key: Arc::new(key), asked: AtomicUsize::new(0) }
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        assert!(hints.is_empty(), "a list of CAs keeps clients from sending another certificate");
        self.asked.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

pub fn client(
    trusted: &[&CertificateDer<'static>],
    version: &'static SupportedProtocolVersion,
    identity: Option<Arc<Identity>>,
    suites: &[CipherSuite],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).unwrap();
    }
    let mut provider = aws_lc_rs::default_provider();
    if !suites.is_empty() {
        provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    })
}

impl Listening {
    async fn connect(&self, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// Waits until so many certificates have been refused and counted.
    async fn refused(&self, wanted: u64) {
        let labels = RefusedLabels { reason: "client_certificate" };
        let count = async || self.counts.connections_refused.get_or_create(&labels).get();
        eventually(count, |count| *count == wanted).await;
    }

    /// The client as a handler is told of it; `None` when the handshake fails.
    async fn told(&self, version: &'static SupportedProtocolVersion, identity: Option<Identity>) -> Option<String> {
        let config = client(&[&self.server], version, identity.map(Arc::new), &[]);
        ask(&mut self.connect(config).await.ok()?).await
    }
}

async fn ask(stream: &mut TlsStream<TcpStream>) -> Option<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.ok()?;
    let mut part = [0; 4096];
    let read = stream.read(&mut part).await.ok()?;
    let (_, body) = std::str::from_utf8(&part[..read]).unwrap().split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

#[tokio::test]
async fn any_certificate_is_accepted_and_a_ca_vouches_for_its_own() {
    let (ours, theirs) = (ca("ours"), ca("theirs"));
    let listening = listen_trusting(&ours).await;
    let middle = ours.intermediate("middle");
    let (mut expired, mut early) = (named("svc"), named("svc"));
    expired.not_after = date_time_ymd(2021, 1, 1);
    early.not_before = date_time_ymd(4000, 1, 1);
    let (mut server_only, mut client_too) = (named("svc"), named("svc"));
    server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    client_too.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for version in BOTH {
        let of_middle = middle.issue(&named("svc"));
        for (why, identity, expected) in [
            ("none", None, "none"),
            ("of our CA", Some(ours.issue(&named("svc"))), "CN=svc true"),
            ("self-signed", Some(self_signed("svc")), "CN=svc false"),
            ("of another CA", Some(theirs.issue(&named("svc"))), "CN=svc false"),
            ("of another CA, ours sent along", Some(theirs.issue(&named("svc")).with_chain(&[&ours])), "CN=svc false"),
            ("with its intermediate", Some(of_middle.with_chain(&[&middle])), "CN=svc true"),
            ("without it", Some(of_middle), "CN=svc false"),
            ("expired", Some(ours.issue(&expired)), "CN=svc false"),
            ("not yet valid", Some(ours.issue(&early)), "CN=svc false"),
            ("for servers", Some(ours.issue(&server_only)), "CN=svc false"),
            ("for servers and clients", Some(ours.issue(&client_too)), "CN=svc true"),
            ("a CA's", Some(ours.issue(&ca_params("svc"))), "CN=svc false"),
        ] {
            assert_eq!(listening.told(version, identity).await.as_deref(), Some(expected), "{why}, {version:?}");
        }
    }
}

#[tokio::test]
async fn a_key_that_does_not_fit_the_certificate_fails_the_handshake() {
    let ours = ca("ours");
    let listening = listen_trusting(&ours).await;
    for version in BOTH {
        for victim in [ours.issue(&named("svc")), self_signed("svc")] {
            let thief = Identity::new(victim.key.cert.clone(), &KeyPair::generate().unwrap());
            assert_eq!(listening.told(version, Some(thief)).await, None, "{version:?}");
        }
    }
    listening.refused(4).await;
}

#[tokio::test]
async fn certificates_out_of_bounds_fail_the_handshake() {
    let ours = ca("ours");
    let listening = listen_trusting(&ours).await;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let p521 = Identity::new(vec![named("svc").self_signed(&key).unwrap().der().clone()], &key);
    let mut large = named("svc");
    large.subject_alt_names = (0..500)
        .map(|n| rcgen::SanType::DnsName(format!("{n}.{}.example", "x".repeat(40)).try_into().unwrap()))
        .collect();
    // Thirty that sign each other's names, none of ours.
    let crossed: Vec<Ca> = (0..30).map(|_| ca("crossed").intermediate("crossed")).collect();
    let crossed = crossed[0].issue(&named("svc")).with_chain(&crossed.iter().collect::<Vec<_>>());
    for (why, identity) in [("P-521", p521), ("large", ours.issue(&large)), ("a long chain", crossed)] {
        let started = Instant::now();
        assert_eq!(listening.told(&version::TLS13, Some(identity)).await, None, "{why}");
        assert!(started.elapsed() < Duration::from_secs(2), "{why}: {:?}", started.elapsed());
    }
    listening.refused(3).await;
    let crossed: Vec<Ca> = (0..8).map(|_| ca("crossed").intermediate("crossed")).collect();
    let crossed = crossed[0].issue(&named("svc")).with_chain(&crossed.iter().collect::<Vec<_>>());
    assert_eq!(listening.told(&version::TLS13, Some(crossed)).await.unwrap(), "CN=svc false");
    for key in [
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap(),
    ] {
        let chain = vec![named("svc").signed_by(&key, &ours.issuer).unwrap().der().clone()];
        for version in BOTH {
            let identity = Identity::new(chain.clone(), &key);
            assert_eq!(listening.told(version, Some(identity)).await.unwrap(), "CN=svc true", "{version:?}");
        }
    }
}

#[test]
fn thirty_certificates_that_sign_each_other_are_judged_soon() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, ca("ours").pem).unwrap();
    let vouching = HeaderCertificateVerifier::load(ClientFiles { ca: Some(file), crl: None }).unwrap();
    // All of one name and one key: each is an issuer of each, and every path of them is one that could lead to a CA.
    let (params, key) = (ca_params("crossed"), KeyPair::generate().unwrap());
    let issuer = Issuer::new(params.clone(), KeyPair::from_pem(&key.serialize_pem()).unwrap());
    let leaf = named("svc").signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let crossed = (0..30_u64).map(|serial| {
        let mut numbered = params.clone();
        numbered.serial_number = Some(SerialNumber::from(serial + 1));
        numbered.signed_by(&key, &issuer).unwrap().der().to_vec()
    });
    let chain: Vec<Vec<u8>> = std::iter::once(leaf.der().to_vec()).chain(crossed).collect();
    // The best of a few, since the machine does other things as well.
    let best = (0..5).map(|_| {
        let started = Instant::now();
        assert!(vouching.verify_chain(&chain).is_err());
        started.elapsed()
    });
    let best = best.min().unwrap();
    assert!(best < Duration::from_millis(100), "{best:?}");
}

#[tokio::test]
async fn no_tls_session_is_resumed_on_this_listener() {
    let ours = ca("ours");
    let listening = listen_trusting(&ours).await;
    let plain = listen(tempfile::tempdir().unwrap(), TlsOptions::default()).await;
    for version in BOTH {
        let identity = Arc::new(ours.issue(&named("svc")));
        let config = client(&[&listening.server, &plain.server], version, Some(Arc::clone(&identity)), &[]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = plain.connect(Arc::clone(&config)).await.unwrap();
            assert_eq!(ask(&mut stream).await.unwrap(), "none");
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
        }
        assert_eq!(identity.asked.load(Ordering::Relaxed), 0, "nobody is asked for a certificate there");
        for round in 1..=3 {
            let mut stream = listening.connect(Arc::clone(&config)).await.unwrap();
            assert_eq!(ask(&mut stream).await.unwrap(), "CN=svc true");
            let connection = stream.get_ref().1;
            assert_ne!(connection.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
            assert_eq!(connection.tls13_tickets_received(), 0);
            assert_eq!(identity.asked.load(Ordering::Relaxed), round);
        }
    }
}

#[tokio::test]
async fn a_reload_of_cas_is_all_or_nothing_and_reaches_open_connections() {
    let (ours, next) = (ca("ours"), ca("next"));
    let listening = listen_trusting(&ours).await;
    let config = client(&[&listening.server], &version::TLS13, Some(Arc::new(ours.issue(&named("svc")))), &[]);
    let mut open = listening.connect(config).await.unwrap();
    assert_eq!(ask(&mut open).await.unwrap(), "CN=svc true");

    let write = |name: &str, text: &str| std::fs::write(listening.directory.path().join(name), text).unwrap();
    let leaf = rcgen::generate_simple_self_signed(["leaf".to_owned()]).unwrap();
    for (why, text) in [
        ("nothing", String::new()),
        ("no PEM", "not a certificate".to_owned()),
        ("a leaf", leaf.cert.pem()),
        ("a leaf among CAs", ours.pem.clone() + &leaf.cert.pem()),
        ("no DER", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
    ] {
        write("ca.pem", &text);
        let error = listening.tls.reload().unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{why}: {error}");
        assert_eq!(ask(&mut open).await.unwrap(), "CN=svc true", "{why}");
    }

    // With another CA comes another certificate of ours, and both are used from the same moment.
    let renewed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write("cert.pem", &renewed.cert.pem());
    write("key.pem", &renewed.signing_key.serialize_pem());
    write("ca.pem", &next.pem);
    listening.tls.reload().unwrap();
    assert_eq!(ask(&mut open).await.unwrap(), "CN=svc false", "the connection is as old as it was");
    let config = client(&[renewed.cert.der()], &version::TLS13, Some(Arc::new(next.issue(&named("svc")))), &[]);
    assert_eq!(ask(&mut listening.connect(config).await.unwrap()).await.unwrap(), "CN=svc true");
}

pub fn revocation_list(ca: &Ca, next_update: i32, revoked: &[u64]) -> String {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(next_update, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&ca.issuer).unwrap().pem().unwrap()
}

#[tokio::test]
async fn no_ca_vouches_for_revoked_certificates_or_with_an_outdated_list() {
    let (ours, other) = (ca("ours"), ca("other"));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), &ours.pem).unwrap();
    std::fs::write(directory.path().join("crl.pem"), revocation_list(&ours, 4000, &[7])).unwrap();
    let terms = trusting(&directory, true);
    let listening = listen(directory, terms).await;
    let numbered = |serial: u64| {
        let mut params = named("svc");
        params.serial_number = Some(SerialNumber::from(serial));
        Some(ours.issue(&params))
    };
    assert_eq!(listening.told(&version::TLS13, numbered(8)).await.unwrap(), "CN=svc true");
    assert_eq!(listening.told(&version::TLS13, numbered(7)).await.unwrap(), "CN=svc false", "revoked");

    let crl = listening.directory.path().join("crl.pem");
    for (why, text) in
        [("out of date", revocation_list(&ours, 2025, &[])), ("another CA's", revocation_list(&other, 4000, &[]))]
    {
        std::fs::write(&crl, text).unwrap();
        listening.tls.reload().unwrap();
        assert_eq!(listening.told(&version::TLS13, numbered(8)).await.unwrap(), "CN=svc false", "{why}");
    }
    // RUSTSEC-2026-0104: a list with an empty onlySomeReasons must be refused, and not end the process.
    std::fs::write(&crl, odd_revocation_list()).unwrap();
    let error = listening.tls.reload().unwrap_err().to_string();
    assert!(error.contains("crl.pem"), "{error}");
    assert_eq!(listening.told(&version::TLS13, numbered(8)).await.unwrap(), "CN=svc false", "the last good one stays");
}

/// A list whose issuing distribution point names an empty set of reasons.
fn odd_revocation_list() -> String {
    use base64::Engine as _;
    let algorithm = der(0x30, &[&der(6, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])]);
    let extension = |arc: u8, value: &[u8]| der(0x30, &[&der(6, &[&[0x55, 0x1d, arc]]), &der(4, &[value])]);
    let distribution_point = extension(28, &der(0x30, &[&der(0x83, &[])]));
    let extensions = der(0xa0, &[&der(0x30, &[&extension(20, &[2, 1, 1]), &distribution_point])]);
    let cn = der(0x30, &[&der(6, &[&[0x55, 4, 3]]), &der(0x0c, &[b"ours"])]);
    let issuer = der(0x30, &[&der(0x31, &[&cn])]);
    let (this, next) = (der(0x17, &[b"240101000000Z"]), der(0x17, &[b"400101000000Z"]));
    let list = der(0x30, &[&[2, 1, 1], &algorithm, &issuer, &this, &next, &extensions]);
    let signed = der(0x30, &[&list, &algorithm, &der(3, &[&[0, 0x30, 0]])]);
    let text = base64::prelude::BASE64_STANDARD.encode(signed);
    format!("-----BEGIN X509 CRL-----\n{text}\n-----END X509 CRL-----\n")
}

#[tokio::test]
async fn the_profile_has_four_cipher_suites_with_tls_1_2() {
    let clients = Some(ClientFiles::default());
    let profile = listen(tempfile::tempdir().unwrap(), TlsOptions { fapi: true, clients: clients.clone() }).await;
    let usual = listen(tempfile::tempdir().unwrap(), TlsOptions { fapi: false, clients }).await;
    let chacha = CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
    for (listening, version, suite, taken) in [
        (&usual, &version::TLS12, chacha, true),
        (&profile, &version::TLS12, chacha, false),
        (&profile, &version::TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, true),
        (&profile, &version::TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, true),
        (&profile, &version::TLS13, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, true),
    ] {
        let config = client(&[&listening.server], version, Some(Arc::new(self_signed("svc"))), &[suite]);
        let stream = listening.connect(config).await;
        assert_eq!(stream.is_ok(), taken, "{suite:?}");
        if let Ok(mut stream) = stream {
            assert_eq!(ask(&mut stream).await.unwrap(), "CN=svc false", "without CAs nobody is vouched for");
        }
    }
}

#[tokio::test]
async fn a_client_hello_in_fragments_of_one_byte_is_answered() {
    let listening = listen_trusting(&ca("ours")).await;
    let config = client(&[&listening.server], &version::TLS13, None, &[]);
    let mut hello = Vec::new();
    ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap().write_tls(&mut hello).unwrap();
    let (header, message) = hello.split_at(5);
    let mut stream = TcpStream::connect(listening.address).await.unwrap();
    let records: Vec<u8> = message.iter().flat_map(|byte| [header[0], header[1], header[2], 0, 1, *byte]).collect();
    stream.write_all(&records).await.unwrap();
    // RFC 8446 section 5.1: messages "MAY … be fragmented across several records". So it is answered: a handshake record
    // with a ServerHello in it.
    let mut part = [0; 6];
    stream.read_exact(&mut part).await.unwrap();
    assert_eq!((part[0], part[5]), (22, 2), "{part:?}");
    assert_eq!(listening.told(&version::TLS13, None).await.unwrap(), "none", "and the next one is served");
}
