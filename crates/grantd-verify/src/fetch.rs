//! The default fetch: HTTP/1.1 on hyper, TLS on rustls, one connection for each document.

use std::io;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CACHE_CONTROL, ETAG, HOST, HeaderName, IF_NONE_MATCH, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{Fetched, Fetching, Get};

/// Fetches over HTTPS, and trusts the CAs of the public web, and those of `ca_file` (PEM) as well. It also
/// fetches `http` URLs, which [`Verifier`](crate::Verifier) asks for only when the issuer itself is one.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub fn https(ca_file: Option<&Path>) -> io::Result<impl Fn(Get) -> Fetching + Send + Sync + use<>> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let certificates = CertificateDer::pem_slice_iter(&std::fs::read(path)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| invalid(error.to_string()))?;
        if certificates.is_empty() {
            return Err(invalid("no certificate in PEM".to_owned()));
        }
        for certificate in certificates {
            roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    Ok(move |get| Box::pin(fetch(tls.clone(), get)) as Fetching)
}

async fn fetch(tls: TlsConnector, get: Get) -> Result<Fetched, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", get.url);
    let uri: Uri = get.url.parse().map_err(|error| failed(&error))?;
    let host = uri.host().ok_or_else(|| failed(&"no host"))?.trim_matches(['[', ']']);
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(&error))?;
    if !is_tls {
        return exchange(stream, &uri, &get).await.map_err(|error| failed(&error));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
    let stream = tls.connect(name, stream).await.map_err(|error| failed(&error))?;
    exchange(stream, &uri, &get).await.map_err(|error| failed(&error))
}

async fn exchange<S>(stream: S, uri: &Uri, get: &Get) -> Result<Fetched, Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, which is dropped below.
    tokio::spawn(connection);
    let mut request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("grantd-verify/", env!("CARGO_PKG_VERSION")));
    if let Some(etag) = &get.if_none_match {
        request = request.header(IF_NONE_MATCH, etag);
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let field = |name: HeaderName| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
    let (status, etag, cache_control) = (answer.status().as_u16(), field(ETAG), field(CACHE_CONTROL));
    let body = Limited::new(answer.into_body(), SIZE_MAX).collect().await?.to_bytes().to_vec();
    Ok(Fetched { status, etag, cache_control, body })
}

const SIZE_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[tokio::test]
    async fn a_host_is_trusted_by_the_ca_of_the_file_and_by_no_other() {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let ca_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca_file.path(), made.cert.pem()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], made.signing_key.into())
            .unwrap();
        let (acceptor, socket) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = format!("https://{}/jwks?x", socket.local_addr().unwrap());
        let served = tokio::spawn(async move {
            loop {
                // A client that does not trust the certificate ends the handshake.
                let Ok(mut stream) = acceptor.accept(socket.accept().await.unwrap().0).await else { continue };
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                let answer =
                    "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nCache-Control: max-age=5\r\nContent-Length: 2\r\n\r\n{}";
                stream.write_all(answer.as_bytes()).await.unwrap();
                return String::from_utf8_lossy(&head[..length]).into_owned();
            }
        });
        let get = Get { url, if_none_match: Some("\"b\"".to_owned()) };
        let refused = https(None).unwrap()(get.clone()).await.unwrap_err();
        assert!(refused.contains("certificate"), "{refused}");
        let answer = https(Some(ca_file.path())).unwrap()(get).await.unwrap();
        let (etag, cache_control) = (Some("\"a\"".to_owned()), Some("max-age=5".to_owned()));
        assert_eq!(answer, Fetched { status: 200, etag, cache_control, body: b"{}".to_vec() });
        let head = served.await.unwrap();
        assert!(head.starts_with("GET /jwks?x HTTP/1.1\r\n") && head.contains("if-none-match: \"b\"\r\n"), "{head}");
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_an_error() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert!(https(Some(empty.path())).is_err() && https(Some(Path::new("/nowhere/ca.pem"))).is_err());
    }
}
