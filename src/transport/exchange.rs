//! One HTTP/1.1 exchange on a connection: a request, and its response, read whole within bounds.

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};

/// Client certificate: the chain, leaf first, and its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Sends a request and reads its response, whose body has at most `most` bytes. Redirects are returned, not followed.
///
/// # Errors
/// The fault of the connection or of the response, in words.
pub(super) async fn exchange<S>(stream: S, request: Request<Body>, most: usize) -> Result<Response<Bytes>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("HTTP: {error}"))?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let (head, body) = sender.send_request(request).await.map_err(|error| format!("HTTP: {error}"))?.into_parts();
    let is_coded = |value: &header::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if head.headers.get_all(header::CONTENT_ENCODING).iter().any(is_coded) {
        return Err("the response has a content coding, which was not requested".to_owned());
    }
    let body = Limited::new(body, most).collect().await;
    drop(connection);
    let body = body.map_err(|error| format!("the body: {error}"))?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// Task that is aborted when this is dropped.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const MAX_HEAD: usize = 16 * 1024;
