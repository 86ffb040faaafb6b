//! The key exchange of TLS, in both directions: the hybrid of X25519 and ML-KEM-768 comes first.

use std::sync::Arc;

use grantd::state::key_sets::source::Fetch;
use grantd::transport::fetch::{AllowedTarget, Fetcher};
use grantd::transport::tls::Tls;
use rustls::crypto::{SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;

use crate::jwks_host::{acceptor, authority, ca_pem};
use crate::transport::{certificate, listen_with};

use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};

#[tokio::test]
async fn a_client_that_knows_the_hybrid_gets_it_and_others_get_a_curve() {
    let directory = tempfile::tempdir().unwrap();
    let (files, trusted) = certificate(directory.path());
    let listening = listen_with(Some(Arc::new(Tls::load(files).unwrap())), 100).await;
    let negotiated = async |groups: &[&'static dyn SupportedKxGroup], version| {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = groups.to_vec();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, listening.connect().await).await.unwrap();
        stream.get_ref().1.negotiated_key_exchange_group().unwrap().name()
    };
    let (new, old) = (&rustls::version::TLS13, &rustls::version::TLS12);
    assert_eq!(negotiated(&[X25519MLKEM768, X25519], new).await, NamedGroup::X25519MLKEM768);
    assert_eq!(negotiated(&[X25519], new).await, NamedGroup::X25519);
    assert_eq!(negotiated(&[SECP256R1], new).await, NamedGroup::secp256r1);
    assert_eq!(negotiated(&[X25519MLKEM768, X25519], old).await, NamedGroup::X25519);
}

#[tokio::test]
async fn a_host_of_keys_that_knows_the_hybrid_is_asked_by_it() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://localhost:{}/jwks", socket.local_addr().unwrap().port());
    let acceptor = acceptor(&["localhost"], authority());
    let cas = CertificateDer::pem_slice_iter(ca_pem().as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let (fetches, queue) = mpsc::channel(1);
    tokio::spawn(Fetcher::new(cas, vec![AllowedTarget::parse("localhost").unwrap()]).unwrap().run(queue));
    let (reply, _answer) = oneshot::channel();
    fetches.send(Fetch { uri: uri.parse().unwrap(), ca_pem: None, reply }).await.unwrap();
    let (stream, _) = socket.accept().await.unwrap();
    let stream = acceptor.accept(stream).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}
