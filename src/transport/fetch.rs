//! Fetches JWK Sets from hosts of clients and of trusted issuers: over https, from a checked address, one response within
//! bounds.
//!
//! The registration of a client or an issuer decides which host grantd connects to, so this is where server-side request forgery is
//! prevented.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use hyper::{Request, StatusCode, header};
use ipnet::IpNet;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::exchange::{Identity, exchange};
use crate::model::jwks_uri::JwksUri;
use crate::model::time::Span;
use crate::state::key_sets::source::{Fetch, FetchedDocument};

/// Host or network outside the public internet that may be connected to (`clients.jwks_uri_allow`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedTarget {
    /// A host by its name, at any address.
    Host(Box<str>),
    /// Addresses, whatever the name of the host.
    Net(IpNet),
}

impl AllowedTarget {
    /// Reads an address, a network or a host name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let net = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let is_name =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        match net {
            Some(net) if is_ipv4_mapped(&net) => None,
            Some(net) => Some(Self::Net(net)),
            None if is_name(text) => Some(Self::Host(text.to_ascii_lowercase().into())),
            None => None,
        }
    }
}

/// Whether a network is one of IPv4 addresses within IPv6. Addresses are compared as IPv4, so it would contain none.
pub(crate) fn is_ipv4_mapped(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some())
}

/// Fetches JWK Sets concurrently.
#[derive(Clone)]
pub struct Fetcher {
    tls: Arc<ArcSwap<ClientConfig>>,
    allowed: Arc<[AllowedTarget]>,
}

impl Fetcher {
    /// Makes a fetcher that trusts the CAs of the public web and the `further` ones.
    ///
    /// # Errors
    /// When one of the certificates cannot be used.
    pub fn new(further: Vec<CertificateDer<'static>>, allowed: Vec<AllowedTarget>) -> Result<Self, rustls::Error> {
        Ok(Self { tls: Arc::new(ArcSwap::from_pointee(trusting(further, None)?)), allowed: allowed.into() })
    }

    /// Replaces the further CAs.
    ///
    /// # Errors
    /// When one of the certificates cannot be used; then nothing changes.
    pub fn trust(&self, further: Vec<CertificateDer<'static>>) -> Result<(), rustls::Error> {
        self.tls.store(Arc::new(trusting(further, None)?));
        Ok(())
    }

    /// Runs the fetches of the queue until it is closed. The sender limits the number of concurrent ones.
    pub async fn run(self, mut queue: mpsc::Receiver<Fetch>) {
        while let Some(Fetch { uri, ca_pem, reply }) = queue.recv().await {
            let fetcher = self.clone();
            tokio::spawn(async move {
                let document = tokio::time::timeout(DEADLINE, fetcher.fetch(&uri, ca_pem.as_deref())).await;
                let late = || Err(format!("no answer within {} s", DEADLINE.as_secs()));
                // The requests that waited may have been abandoned.
                drop(reply.send(document.unwrap_or_else(|_| late())));
            });
        }
    }

    async fn fetch(&self, uri: &JwksUri, ca_pem: Option<&str>) -> Result<FetchedDocument, String> {
        let config = match ca_pem {
            None => self.tls.load_full(),
            Some(pem) => Arc::new(trusting_only(pem)?),
        };
        let stream = self.connect(uri).await?;
        let name = ServerName::try_from(uri.host().to_owned())
            .map_err(|_| "the host is not a name or an address".to_owned())?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        let request = Request::get(uri.target())
            .header(header::HOST, uri.authority())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, "grantd")
            .body(Body::empty())
            .map_err(|error| format!("HTTP: {error}"))?;
        let answer = exchange(stream, request, MAX_BODY).await?;
        // A redirect would lead to an unchecked address (CVE-2026-4366), so it is refused like any other status.
        if answer.status() != StatusCode::OK {
            return Err(format!("status {}", answer.status().as_u16()));
        }
        let max_age = max_age(answer.headers());
        Ok(FetchedDocument { document: answer.into_body().to_vec(), max_age })
    }

    /// Connects to one of the checked addresses. The host is not resolved a second time, since the result could be
    /// another address (DNS rebinding).
    async fn connect(&self, uri: &JwksUri) -> Result<TcpStream, String> {
        let addresses: Vec<SocketAddr> = lookup_host((uri.host(), uri.port()))
            .await
            .map_err(|error| format!("resolving the host: {error}"))?
            .collect();
        let mut fault = "the host has no address".to_owned();
        for address in addresses {
            if !self.may_connect(uri.host(), address.ip()) {
                fault = format!("{} is not a public address; clients.jwks_uri_allow can allow it", address.ip());
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => fault = format!("connecting to {address}: {error}"),
            }
        }
        Err(fault)
    }

    fn may_connect(&self, host: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address)
            || self.allowed.iter().any(|allowed| match allowed {
                AllowedTarget::Host(name) => name.eq_ignore_ascii_case(host),
                AllowedTarget::Net(net) => net.contains(&address),
            })
    }
}

/// Returns the TLS of outbound requests: it trusts the CAs of the public web and the `further` ones, and has a client
/// certificate where one is given.
pub(super) fn trusting(
    further: Vec<CertificateDer<'static>>,
    identity: Option<Identity>,
) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in further {
        roots.add(certificate)?;
    }
    by_roots(roots, identity)
}

/// Trusts the CAs of one issuer, instead of those of the public web and of the configuration.
fn trusting_only(ca_pem: &str) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("ca_pem: {error}"))?;
        roots.add(certificate).map_err(|error| format!("ca_pem: {error}"))?;
    }
    by_roots(roots, None).map_err(|error| format!("TLS: {error}"))
}

/// RFC 9111 section 5.2.2.1. Of several, the first.
fn max_age(headers: &header::HeaderMap) -> Option<Span> {
    // A field that is not ASCII has no directive.
    let directives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    directives.flat_map(|value| value.split(',')).find_map(|directive| {
        let (name, seconds) = directive.trim().split_once('=')?;
        let seconds = Some(seconds.trim_matches('"')).filter(|_| name.eq_ignore_ascii_case("max-age"))?;
        // A number that no 64 bits hold is a long time.
        let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Span::from_secs(seconds.parse().unwrap_or(u64::from(u32::MAX))))
    })
}

fn by_roots(roots: RootCertStore, identity: Option<Identity>) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    // No session of an earlier request, so the host learns nothing that it could use.
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Whether an address is on the public internet, by the registries of special-purpose addresses (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !matches!(
                (a, b, c),
                (0 | 10 | 127 | 224..=255, _, _)
                    | (100, 64..=127, _)
                    | (169, 254, _)
                    | (172, 16..=31, _)
                    | (192, 0, 0 | 2)
                    | (192, 88, 99)
                    | (192, 168, _)
                    | (198, 18..=19, _)
                    | (198, 51, 100)
                    | (203, 0, 113)
            )
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            // Of 2000::/3, all but addresses of special purposes: 2001::/23, 2001:db8::/32, 2002::/16, 3fff::/20.
            (0x2000..=0x3fff).contains(&a)
                && !(a == 0x2001 && (b < 0x200 || b == 0xdb8))
                && a != 0x2002
                && !(a == 0x3fff && b < 0x1000)
        }
    }
}

/// Deadline of a fetch.
const DEADLINE: Duration = Duration::from_secs(3);
/// Maximum size of a JWK Set.
const MAX_BODY: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_public_addresses_are_recognised() {
        let public = |text: &str| is_public(text.parse::<IpAddr>().unwrap().to_canonical());
        for address in ["1.1.1.1", "8.8.8.8", "192.0.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"] {
            assert!(public(address), "{address}");
        }
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "127.255.255.254",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.7",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[test]
    fn an_allowed_host_is_a_name_an_address_or_a_network() {
        assert_eq!(AllowedTarget::parse("Keys.Internal"), Some(AllowedTarget::Host("keys.internal".into())));
        assert_eq!(AllowedTarget::parse("10.0.0.0/8"), Some(AllowedTarget::Net("10.0.0.0/8".parse().unwrap())));
        assert_eq!(AllowedTarget::parse("127.0.0.1"), Some(AllowedTarget::Net("127.0.0.1/32".parse().unwrap())));
        assert_eq!(AllowedTarget::parse("::1"), Some(AllowedTarget::Net("::1/128".parse().unwrap())));
        for wrong in ["", "https://keys.internal", "10.0.0.0/33", "a b", "*"] {
            assert_eq!(AllowedTarget::parse(wrong), None, "{wrong}");
        }
        let fetcher = Fetcher::new(Vec::new(), vec![AllowedTarget::parse("10.0.0.0/8").unwrap()]).unwrap();
        assert!(fetcher.may_connect("c.test", "::ffff:10.1.1.1".parse().unwrap()));
        assert!(!fetcher.may_connect("c.test", "127.0.0.1".parse().unwrap()));
        let fetcher = Fetcher::new(Vec::new(), vec![AllowedTarget::parse("localhost").unwrap()]).unwrap();
        assert!(fetcher.may_connect("localhost", "127.0.0.1".parse().unwrap()));
        assert!(!fetcher.may_connect("localhost.evil.test", "127.0.0.1".parse().unwrap()));
    }
}
