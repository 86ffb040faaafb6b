//! Listeners and issuer: refuses cleartext over a network and incomplete mutual TLS.

use std::net::SocketAddr;
use std::path::Path;

use super::{ConfigError, SettingRef, Settings, Sources};
use crate::model::issuer::{Issuer, IssuerError};
use crate::model::profile::Profile;
use crate::transport::tls::Files;
use crate::transport::tls::clients::ClientFiles;

/// The public listener.
pub(super) struct PublicListener {
    pub(super) listen: SocketAddr,
    pub(super) tls: Option<Files>,
    pub(super) issuer: Option<Issuer>,
}

/// The listener that asks for client certificates.
#[derive(Debug, Clone)]
pub struct Mtls {
    /// The address.
    pub listen: SocketAddr,
    /// The listener's own certificate and key.
    pub files: Files,
    /// The URL by which clients reach it; `None` for the issuer's host and path on its port.
    pub public_url: Option<Issuer>,
}

/// Ways in which client certificates arrive.
#[derive(Debug, Clone, Default)]
pub struct ClientCertificates {
    /// The listener that asks for certificates.
    pub mtls: Option<Mtls>,
    /// Whether a trusted proxy passes certificates on in a header field.
    pub header: bool,
    /// The client CAs and revocation lists.
    pub files: ClientFiles,
}

pub(super) fn public(settings: &Settings, sources: &Sources, profile: Profile) -> Result<PublicListener, ConfigError> {
    let at = |key: &'static str| SettingRef { key, sources };
    let server = &settings.server;
    let tls = pair(&server.tls.cert_file, &server.tls.key_file)
        .map_err(|()| at("server.tls").wrong("set both server.tls.cert_file and server.tls.key_file, or neither"))?;
    let listen: SocketAddr =
        at("server.listen").parse(&server.listen, "an address and a port, such as 127.0.0.1:8080")?;
    let behind_proxy =
        at("server.cleartext").one_of(&server.cleartext, &[("loopback", false), ("behind-proxy", true)])?;
    // RFC 6749 section 3.2: the server "MUST require the use of TLS … when sending requests to the token endpoint".
    if tls.is_none() && !listen.ip().is_loopback() && !behind_proxy {
        return Err(at("server.listen").wrong(&format!(
            "{listen} would serve secrets in cleartext; set server.tls.cert_file and server.tls.key_file or, when a proxy in front terminates TLS, server.cleartext = \"behind-proxy\""
        )));
    }
    // FAPI 2.0 section 5.2.1 asks for TLS on every connection; its loopback is a proxy's.
    if profile == Profile::Fapi2 && tls.is_none() && !behind_proxy {
        return Err(at("profile").wrong(
            "fapi2 needs TLS; set server.tls.cert_file and server.tls.key_file or, when a proxy in front terminates TLS, server.cleartext = \"behind-proxy\"",
        ));
    }
    let issuer: Option<Issuer> = match settings.issuer.as_str() {
        "" => None,
        issuer => Some(issuer.parse().map_err(|error: IssuerError| at("issuer").wrong(&error.to_string()))?),
    };
    if issuer.is_none() && !listen.ip().is_loopback() {
        return Err(at("issuer")
            .wrong("set it to the https URL by which clients reach this server, such as https://auth.example.com"));
    }
    if profile == Profile::Fapi2 && !issuer.as_ref().is_some_and(Issuer::is_https) {
        return Err(at("issuer").wrong("fapi2 needs an https URL, such as https://auth.example.com"));
    }
    Ok(PublicListener { listen, tls, issuer })
}

pub(super) fn client_certificates(settings: &Settings, sources: &Sources) -> Result<ClientCertificates, ConfigError> {
    let at = |key: &'static str| SettingRef { key, sources };
    let (server, mtls) = (&settings.server, &settings.server.mtls);
    let named = |path: &Path| Some(path.to_owned()).filter(|path| !path.as_os_str().is_empty());
    let files = ClientFiles { ca: named(&mtls.client_ca_file), crl: named(&mtls.client_crl_file) };
    if files.crl.is_some() && files.ca.is_none() {
        return Err(at("server.mtls.client_crl_file")
            .wrong("set server.mtls.client_ca_file too: a revocation list counts only with its CA"));
    }
    // Any client can write the field, so it counts only where a trusted proxy replaces it.
    if server.client_cert_header && server.trusted_proxies.is_empty() {
        return Err(at("server.client_cert_header")
            .wrong("set server.trusted_proxies to the proxies that replace the Client-Cert field of clients; the field of other peers is ignored"));
    }
    let own = pair(&mtls.cert_file, &mtls.key_file).map_err(|()| {
        at("server.mtls")
            .wrong("set both server.mtls.cert_file and server.mtls.key_file, or neither to use those of server.tls")
    })?;
    if mtls.listen.is_empty() {
        let unused = own.is_some() || !mtls.public_url.is_empty() || files.ca.is_some() && !server.client_cert_header;
        return if unused {
            Err(at("server.mtls.listen").wrong("set it to the address of the listener that asks for certificates, such as 0.0.0.0:8443; the other keys of server.mtls do nothing without it"))
        } else {
            Ok(ClientCertificates { mtls: None, header: server.client_cert_header, files })
        };
    }
    let listen = at("server.mtls.listen").parse(&mtls.listen, "an address and a port, such as 0.0.0.0:8443")?;
    let server_tls = pair(&server.tls.cert_file, &server.tls.key_file).unwrap_or_default();
    let tls = own.or(server_tls).ok_or_else(|| {
        at("server.mtls.listen").wrong("mutual TLS needs a certificate of this process: set server.mtls.cert_file and server.mtls.key_file, or those of server.tls")
    })?;
    let public_url = match mtls.public_url.as_str() {
        "" => None,
        url => match url.parse::<Issuer>() {
            Ok(url) if url.is_https() => Some(url),
            _ => {
                return Err(at("server.mtls.public_url")
                    .wrong("an https URL without query, such as https://mtls.auth.example.com"));
            }
        },
    };
    let mtls = Mtls { listen, files: tls, public_url };
    Ok(ClientCertificates { mtls: Some(mtls), header: server.client_cert_header, files })
}

/// Refuses two listeners on the same address.
pub(super) fn apart(
    listen: SocketAddr,
    admin: SocketAddr,
    mtls: Option<&Mtls>,
    sources: &Sources,
) -> Result<(), ConfigError> {
    let mut taken = vec![("server.listen", listen)];
    for (key, address) in [("admin.listen", Some(admin)), ("server.mtls.listen", mtls.map(|mtls| mtls.listen))] {
        let Some(address) = address else { continue };
        if let Some((other, theirs)) = taken.iter().find(|(_, theirs)| collide(address, *theirs)) {
            return Err(SettingRef { key, sources }
                .wrong(&format!("{address} is taken by {other} ({theirs}); give each listener a port of its own")));
        }
        taken.push((key, address));
    }
    Ok(())
}

/// Whether two addresses cannot be bound at the same time. `[::]` covers IPv4 too.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let all = |one: SocketAddr, other: SocketAddr| one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    // Port 0 is a different port each time.
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || all(a, b) || all(b, a))
}

/// Returns certificate and key, or `None` when neither is set.
fn pair(cert: &Path, key: &Path) -> Result<Option<Files>, ()> {
    match (cert.as_os_str().is_empty(), key.as_os_str().is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(Files { cert: cert.to_owned(), key: key.to_owned() })),
        _ => Err(()),
    }
}
