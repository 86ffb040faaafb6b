//! Sockets: deadlines, limits, framing, TLS and stopping, against the real listener.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use axum::http::Request;
use axum::response::Response;
use grantd::http::{Caller, ListenerUrl};
use grantd::transport::listener::{Deadlines, Listener};
use grantd::transport::tls::{Files, Tls};
use hyper::body::Incoming;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::harness::{Db, Setup, pace};

/// For tests of the deadlines themselves.
const SHORT: Deadlines = Deadlines {
    first_byte: Duration::from_millis(600),
    head: Duration::from_millis(600),
    idle: Duration::from_secs(3),
    write: Duration::from_millis(600),
    drain: Duration::from_secs(3),
};

/// For all other tests: a machine that is busy for seconds ends no connection.
const LONG: Deadlines = Deadlines {
    first_byte: Duration::from_mins(1),
    head: Duration::from_mins(1),
    idle: Duration::from_mins(1),
    write: Duration::from_mins(1),
    drain: Duration::from_mins(1),
};

/// The latest that a test sees the end of something that takes about a second, far below [`LONG`].
const SOON: Duration = Duration::from_secs(20);

pub struct Listening {
    pub address: SocketAddr,
    pub draining: Arc<AtomicBool>,
    pub stop: watch::Sender<bool>,
    pub task: JoinHandle<()>,
    pub secret: String,
    pub server: crate::harness::Server,
}

pub async fn listen_with(tls: Option<Arc<Tls>>, max_connections: u32) -> Listening {
    listen_for(LONG, tls, max_connections).await
}

async fn listen_for(deadlines: Deadlines, tls: Option<Arc<Tls>>, max_connections: u32) -> Listening {
    let (server, secret) = Setup::with_basic_client(Db::sqlite()).await;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let draining = Arc::new(AtomicBool::new(false));
    let (flag, refusals) = (Arc::clone(&draining), server.refusals());
    let listener = Listener { socket, tls, deadlines, max_connections, draining: flag, refusals, pace: pace() };
    let task = tokio::spawn(listener.run(answering(&server), stopped));
    Listening { address, draining, stop, task, secret, server }
}

/// How the daemon hands requests to its surface.
fn answering(
    server: &crate::harness::Server,
) -> impl Fn(Caller, Request<Incoming>) -> Pin<Box<dyn Future<Output = Response> + Send>> + Send + Sync + use<> {
    let app = Arc::clone(&server.app);
    move |caller, request| {
        let app = Arc::clone(&app);
        Box::pin(async move { app.answer(ListenerUrl::Issuer, &caller, request).await })
    }
}

pub async fn listen() -> Listening {
    listen_with(None, 1000).await
}

async fn listen_impatiently() -> Listening {
    listen_for(SHORT, None, 1000).await
}

impl Listening {
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub fn token_request(&self) -> String {
        let body = format!("grant_type=client_credentials&client_id=basic-client&client_secret={}", self.secret);
        format!(
            "POST /token HTTP/1.1\r\nhost: as.test\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Sends bytes on a new connection and returns all that comes until the server closes.
    pub async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may close before it has read everything.
        drop(stream.write_all(bytes).await);
        rest(&mut stream).await
    }
}

/// Reads until the server closes the connection, which it does within [`SOON`].
pub async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read @ 1..) =
        tokio::time::timeout(SOON, stream.read(&mut part)).await.expect("the server closes the connection")
    {
        answer.extend_from_slice(&part[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn one_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = tokio::time::timeout(SOON, stream.read(&mut part)).await.unwrap().unwrap();
        answer.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        assert!(read > 0, "closed in the middle of {text:?}");
    }
}

#[tokio::test]
async fn silent_and_half_sent_connections_are_closed() {
    for (bytes, what) in [
        (&b""[..], "silent"),
        (b"POST /tok", "half a request line"),
        (b"POST /token HTTP/1.1\r\nhost: as.test\r\nx: ", "half a head"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "the preface of HTTP/2"),
    ] {
        let listening = listen_impatiently().await;
        assert_eq!(listening.send(bytes).await, "", "{what}");
    }
}

#[tokio::test]
async fn a_connection_with_a_trickling_head_is_closed_and_others_are_served() {
    let listening = listen_impatiently().await;
    let mut slow = listening.connect().await;
    let trickle = async {
        for byte in b"POST /token HTTP/1.1\r\nhost: as.test\r\nx-slow: yes, very slow indeed\r\n" {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("open after more than three seconds");
    };
    let served = async {
        let mut stream = listening.connect().await;
        stream.write_all(listening.token_request().as_bytes()).await.unwrap();
        assert!(one_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    };
    tokio::join!(trickle, served);
}

#[tokio::test]
async fn a_request_whose_body_does_not_arrive_is_refused_and_closed() {
    let mut setup = Setup::new(Db::sqlite()).await;
    setup.settings.server.deadlines.body = "1s".into();
    let server = setup.start().await;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let (draining, refusals) = (Arc::default(), server.refusals());
    let listener =
        Listener { socket, tls: None, deadlines: SHORT, max_connections: 10, draining, refusals, pace: pace() };
    tokio::spawn(listener.run(answering(&server), stopped));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 20\r\n\r\ngrant").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("connection: close") && answer.contains("did not arrive"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_kept_connection_lives_through_pauses_and_closes_when_idle() {
    let listening = listen_impatiently().await;
    let mut stream = listening.connect().await;
    for _ in 0..3 {
        stream.write_all(listening.token_request().as_bytes()).await.unwrap();
        let answer = one_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("\r\ndate: ") && answer.contains(" GMT\r\n"), "{answer}");
        // Longer than a head may take, shorter than a pause may.
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn ambiguous_framing_never_reaches_a_handler_twice() {
    let listening = listen().await;
    let body = format!("grant_type=client_credentials&client_id=basic-client&client_secret={}", listening.secret);
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let refused = [
        format!("POST /token HTTP/1.1\r\nhost: a\r\n{form}content-length: 5\r\ncontent-length: 6\r\n\r\n{body}"),
        // The length of these two is clear, so only their client closes the connection.
        format!("POST /token HTTP/1.1\r\nconnection: close\r\n{form}content-length: {}\r\n\r\n{body}", body.len()),
        format!(
            "POST /token HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n{form}content-length: {}\r\n\r\n{body}",
            body.len()
        ),
        format!(
            "POST /token HTTP/1.1\r\nhost: a\r\nx: y\r\n folded\r\n{form}content-length: {}\r\n\r\n{body}",
            body.len()
        ),
        format!("POST /token HTTP/1.1\r\nhost: a\r\ncontent-length : {}\r\n{form}\r\n{body}", body.len()),
        format!("POST /token HTTP/1.1\r\nhost: a\r\n{form}content-length: +{}\r\n\r\n{body}", body.len()),
        format!("POST /token HTTP/1.1\r\nhost: a\r\n{form}content-length: 0x{:x}\r\n\r\n{body}", body.len()),
        format!("POST /token HTTP/1.1\r\nhost: a\r\n{form}transfer-encoding: xchunked\r\n\r\n{body}"),
        "GET /jwks HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n".to_owned(),
    ];
    for request in refused {
        let answer = listening.send(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{request}\n{answer}");
        assert_eq!(answer.matches("\r\ndate: ").count().max(1), 1, "{request}\n{answer}");
    }
    // Both framings: the chunked one is read, and the connection closed, so that nothing can hide behind it.
    let both = format!(
        "POST /token HTTP/1.1\r\nhost: a\r\n{form}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\nGET /jwks HTTP/1.1\r\nhost: a\r\n\r\n",
        body.len()
    );
    let answer = listening.send(both.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(answer.matches("\r\ndate: ").count(), 1, "the smuggled request was answered: {answer}");
}

#[tokio::test]
async fn expect_100_continue_is_answered() {
    let listening = listen().await;
    let mut stream = listening.connect().await;
    let request = listening.token_request().replacen("\r\nhost", "\r\nexpect: 100-continue\r\nhost", 1);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
    let mut part = [0; 64];
    let read = stream.read(&mut part).await.unwrap();
    assert!(part[..read].starts_with(b"HTTP/1.1 100 Continue"));
    stream.write_all(body.as_bytes()).await.unwrap();
    assert!(one_answer(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn oversized_heads_and_bodies_are_cut_short() {
    let listening = listen().await;
    for head in [
        format!("GET /jwks HTTP/1.1\r\nhost: a\r\nauthorization: Basic {}\r\n\r\n", "x".repeat(64 << 10)),
        format!("GET /jwks HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200)),
    ] {
        let answer = listening.send(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let answer = listening.send(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(80 << 10)).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // An endless body in chunks is answered after 16 KiB.
    let mut stream = listening.connect().await;
    let head = "POST /token HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    let mut sent = 0;
    while sent < 100 << 20 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
        sent += chunk.len();
    }
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    let refusal = listening.send(format!("{head}{}", chunk.repeat(6)).as_bytes()).await;
    assert!(refusal.starts_with("HTTP/1.1 413") && refusal.contains("connection: close"), "{refusal}");
}

#[tokio::test]
async fn a_stop_finishes_requests_in_flight_and_waits_for_no_other_connection() {
    let listening = listen().await;
    let mut idle = listening.connect().await;
    idle.write_all(b"GET /jwks HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    one_answer(&mut idle).await;
    let silent: Vec<TcpStream> = futures(&listening, 50).await;
    let mut half = listening.connect().await;
    half.write_all(b"POST /token HT").await.unwrap();
    let request = listening.token_request();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut in_flight = listening.connect().await;
    in_flight.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let started = Instant::now();
    listening.stop.send(true).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(TcpStream::connect(listening.address).await.is_err(), "new connections are refused");
    in_flight.write_all(body.as_bytes()).await.unwrap();
    let answer = rest(&mut in_flight).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(rest(&mut idle).await, "");
    listening.task.await.unwrap();
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    drop((silent, half));
}

async fn futures(listening: &Listening, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(listening.connect().await);
    }
    streams
}

#[tokio::test]
async fn connections_above_the_cap_wait_for_a_place() {
    let listening = listen_for(SHORT, None, 3).await;
    let _held = futures(&listening, 3).await;
    let mut fourth = listening.connect().await;
    let started = Instant::now();
    fourth.write_all(b"GET /jwks HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(one_answer(&mut fourth).await.starts_with("HTTP/1.1 200"), "a place is free once a silent one is closed");
    assert!(started.elapsed() > Duration::from_millis(300));
}

#[tokio::test]
async fn a_silent_tls_connection_does_not_hold_up_a_stop() {
    let directory = tempfile::tempdir().unwrap();
    let (files, _) = certificate(directory.path());
    let listening = listen_with(Some(Arc::new(Tls::load(files).unwrap())), 100).await;
    let silent = listening.connect().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    listening.stop.send(true).unwrap();
    listening.task.await.unwrap();
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    drop(silent);
}

/// A certificate for localhost in files of its own.
pub fn certificate(directory: &std::path::Path) -> (Files, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: String| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files =
        Files { cert: write("cert.pem", made.cert.pem()), key: write("key.pem", made.signing_key.serialize_pem()) };
    (files, made.cert.der().clone())
}

pub fn connector(
    trusted: &CertificateDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_early_data = true;
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn tls_is_1_2_or_1_3_without_early_data_and_its_certificate_reloads() {
    let directory = tempfile::tempdir().unwrap();
    let (files, trusted) = certificate(directory.path());
    let tls = Arc::new(Tls::load(files).unwrap());
    let listening = listen_with(Some(Arc::clone(&tls)), 100).await;
    let name = ServerName::try_from("localhost").unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let connector = connector(&trusted, &[version]);
        for resumed in [false, true] {
            let stream = listening.connect().await;
            // A client may send early data when the ticket of an earlier connection allows it.
            let refused = |connection: &mut rustls::ClientConnection| {
                assert!(connection.early_data().is_none(), "resumed: {resumed}");
            };
            let mut stream = connector.connect_with(name.clone(), stream, refused).await.unwrap();
            stream.write_all(listening.token_request().as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await.unwrap();
            assert!(part[..read].starts_with(b"HTTP/1.1 200"), "{version:?}");
            let kind = stream.get_ref().1.handshake_kind().unwrap();
            assert_eq!(kind == rustls::HandshakeKind::Resumed, resumed, "{kind:?}");
        }
    }
    let cleartext = listening.send(listening.token_request().as_bytes()).await;
    assert!(cleartext.starts_with("HTTP/1.1 400") && cleartext.contains("use https"), "no redirect: {cleartext}");
    let impatient = listen_for(SHORT, Some(Arc::clone(&tls)), 100).await;
    assert_eq!(impatient.send(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await, "", "half a ClientHello is closed");

    let (_, renewed) = certificate(directory.path());
    tls.reload().unwrap();
    connector(&renewed, &[&rustls::version::TLS13]).connect(name.clone(), listening.connect().await).await.unwrap();
    std::fs::write(directory.path().join("key.pem"), "not a key").unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("key.pem"));
    connector(&renewed, &[&rustls::version::TLS13])
        .connect(name, listening.connect().await)
        .await
        .expect("the old one stays in use");
}
