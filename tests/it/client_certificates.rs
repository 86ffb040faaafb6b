//! Clients that authenticate by the certificate of their connection, on our own listener and behind a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use grantd::crypto::certificate::Certificate;
use grantd::http::Caller;
use grantd::model::certificate::{PeerCertificate, RegisteredCertificate};
use grantd::model::client::Client;
use grantd::model::credential::StoredCertificate;
use grantd::model::resource::Resource;
use grantd::model::time::UnixTime;
use grantd::store::{Store, StoreError};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::assertion::{Signer, TYPE};
use crate::harness::{Answer, Db, Server, Setup, basic, client, form, set_auth_methods, verdict};
use crate::mutual_tls::{self, Ca, Identity, ca, named, self_signed};
use crate::process::daemon::{Daemon, Grantd, eventually};

on_both!(
    the_certificate_is_that_of_the_client_named_by_client_id,
    a_certificate_authenticates_at_introspect_and_revoke_too,
    a_name_counts_only_when_a_ca_vouches_for_it,
    a_self_signed_certificate_is_exactly_the_registered_one,
    a_client_has_one_certificate_name_and_rows_are_checked,
    a_certificate_may_accompany_another_credential,
    client_cert_is_believed_from_trusted_proxies_and_only_when_configured,
    the_mtls_listener_asks_for_certificates_and_the_metadata_names_it,
);

const FORM: &str = "grant_type=client_credentials";

fn peer(identity: &Identity, ca_verified: bool) -> PeerCertificate {
    PeerCertificate {
        intermediates: Arc::default(),
        certificate: Arc::new(Certificate::parse(&identity.chain()[0]).unwrap()),
        ca_verified: verdict(ca_verified),
    }
}

async fn ask_by(
    server: &Server,
    certificate: Option<&PeerCertificate>,
    fields: &[(&str, &str)],
    body: String,
) -> Answer {
    let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: certificate.cloned() };
    server.send_by(&caller, form("/token", fields, body)).await
}

async fn ask(server: &Server, certificate: &PeerCertificate, id: &str) -> Answer {
    ask_by(server, Some(certificate), &[], format!("{FORM}&client_id={id}")).await
}

pub async fn register(store: &Store, id: &str, kind: &str, value: &str) -> Result<(), StoreError> {
    let registered = RegisteredCertificate::parse(kind, value).unwrap();
    let cert_id = grantd::crypto::secret::new_secret_id().unwrap();
    let stored = StoredCertificate {
        cert_id: cert_id.into(),
        registered,
        created_at: UnixTime(1),
        expires_at: None,
        used: Arc::default(),
    };
    store.add_client_certificate(id, &stored).await
}

async fn with_client(setup: &Setup, id: &str, kind: &str, value: &str) {
    setup.store.create_client(&client(id), None).await.unwrap();
    register(&setup.store, id, kind, value).await.unwrap();
}

async fn the_certificate_is_that_of_the_client_named_by_client_id(db: Db) {
    let setup = Setup::new(db).await;
    with_client(&setup, "pki-client", "subject_dn", "CN=svc").await;
    with_client(&setup, "other", "subject_dn", "CN=other").await;
    setup.store.create_client(&client("bare"), None).await.unwrap();
    let server = setup.start().await;
    let ours = ca("ours");
    let certificate = peer(&ours.issue(&named("svc")), true);
    let answer = ask(&server, &certificate, "pki-client").await;
    assert_eq!(answer.token().1["cnf"], json!({"x5t#S256": certificate.certificate.x5t_s256()}), "MTL-07");
    let unnamed = ask_by(&server, Some(&certificate), &[], FORM.to_owned()).await;
    unnamed.unauthorized();
    for id in ["other", "bare", "nobody"] {
        let answer = ask(&server, &certificate, id).await;
        answer.unauthorized();
        assert_eq!(answer.face(), unnamed.face());
    }
    ask_by(&server, None, &[], format!("{FORM}&client_id=pki-client")).await.unauthorized();

    assert!(
        set_auth_methods(&server.store, "pki-client", Some("self_signed_tls_client_auth private_key_jwt"))
            .await
            .unwrap()
    );
    server.refresh().await;
    ask(&server, &certificate, "pki-client").await.unauthorized();
    assert!(set_auth_methods(&server.store, "pki-client", Some("tls_client_auth")).await.unwrap());
    server.refresh().await;
    ask(&server, &certificate, "pki-client").await.ok();
    server.store.set_client_enabled("pki-client", false).await.unwrap();
    server.refresh().await;
    ask(&server, &certificate, "pki-client").await.unauthorized();
}

async fn a_certificate_authenticates_at_introspect_and_revoke_too(db: Db) {
    let setup = Setup::new(db).await;
    let own = self_signed("own");
    with_client(&setup, "pki-client", "subject_dn", "CN=svc").await;
    with_client(&setup, "self-signed-client", "self_signed", &peer(&own, false).certificate.x5t_s256()).await;
    let mut resource = Resource {
        identifier: "https://api1.test".parse().unwrap(),
        scope: "api:read api:write".parse().unwrap(),
        alg: None,
        token_ttl: None,
        token_typ: grantd::model::resource::TokenTyp::default(),
        status_list: false,
        introspectors: vec!["pki-client".parse().unwrap(), "self-signed-client".parse().unwrap()],
    };
    setup.save(resource.clone()).await;
    resource.identifier = "https://as.test".parse().unwrap();
    setup.save(resource).await;
    let server = setup.start().await;
    let ours = ca("ours");
    let (svc, own) = (peer(&ours.issue(&named("svc")), true), peer(&own, false));
    let at = async |path: &str, certificate: Option<&PeerCertificate>, id: &str, token: &str| {
        let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: certificate.cloned() };
        server.send_by(&caller, form(path, &[], format!("token={token}&client_id={id}"))).await
    };
    for (id, right, wrong) in [("pki-client", &svc, &own), ("self-signed-client", &own, &svc)] {
        let token = ask(&server, right, id).await.access_token();
        for path in ["/introspect", "/revoke"] {
            for nobodys in [Some(wrong), Some(&peer(&ours.issue(&named("other")), true)), None] {
                at(path, nobodys, id, &token).await.unauthorized();
            }
            at(path, Some(right), "nobody", &token).await.unauthorized();
        }
        assert_eq!(at("/introspect", Some(right), id, &token).await.json()["active"], true);
        assert_eq!(at("/revoke", Some(right), id, &token).await.status, StatusCode::OK);
        at("/introspect", Some(right), id, &token).await.inactive();
    }
}

async fn a_name_counts_only_when_a_ca_vouches_for_it(db: Db) {
    let setup = Setup::new(db).await;
    for (kind, value) in [
        ("subject_dn", "cn = svc , o=Example"),
        ("san_dns", "SVC.example"),
        ("san_uri", "spiffe://example/svc"),
        ("san_ip", "192.0.2.7"),
        ("san_email", "svc@Example.com"),
    ] {
        with_client(&setup, &kind.replace('_', "-"), kind, value).await;
    }
    let server = setup.start().await;
    let ours = ca("ours");
    let mut params = named("svc");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example");
    params.distinguished_name.push(rcgen::DnType::CommonName, "svc");
    params.subject_alt_names = vec![
        rcgen::SanType::DnsName("svc.example".try_into().unwrap()),
        rcgen::SanType::URI("spiffe://example/svc".try_into().unwrap()),
        rcgen::SanType::IpAddress([192, 0, 2, 7].into()),
        rcgen::SanType::Rfc822Name("svc@example.com".try_into().unwrap()),
    ];
    let right = ours.issue(&params);
    let mut wrong = named("a,O=Example");
    wrong.subject_alt_names = vec![
        rcgen::SanType::DnsName("*.example".try_into().unwrap()),
        rcgen::SanType::DnsName("svc.example.evil.test".try_into().unwrap()),
        rcgen::SanType::URI("https://svc.example".try_into().unwrap()),
        rcgen::SanType::Rfc822Name("spiffe@svc.example".try_into().unwrap()),
    ];
    let wrong = ours.issue(&wrong);
    let mut server_only = params.clone();
    server_only.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let mut expired = params.clone();
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    for id in ["subject-dn", "san-dns", "san-uri", "san-ip", "san-email"] {
        ask(&server, &peer(&right, true), id).await.ok();
        ask(&server, &peer(&right, false), id).await.unauthorized();
        ask(&server, &peer(&wrong, true), id).await.unauthorized();
        ask(&server, &peer(&ours.issue(&server_only), true), id).await.unauthorized();
        ask(&server, &peer(&ours.issue(&expired), true), id).await.unauthorized();
    }
}

async fn a_self_signed_certificate_is_exactly_the_registered_one(db: Db) {
    let setup = Setup::new(db).await;
    let (first, second, twin) = (self_signed("svc"), self_signed("svc"), self_signed("svc"));
    let hash = |identity: &Identity| peer(identity, false).certificate.x5t_s256();
    with_client(&setup, "self-signed-client", "self_signed", &hash(&first)).await;
    // They overlap while they are replaced.
    register(&setup.store, "self-signed-client", "self_signed", &hash(&second)).await.unwrap();
    let server = setup.start().await;
    for identity in [&first, &second] {
        let answer = ask(&server, &peer(identity, false), "self-signed-client").await;
        assert_eq!(answer.token().1["cnf"], json!({"x5t#S256": hash(identity)}));
    }
    ask(&server, &peer(&twin, false), "self-signed-client").await.unauthorized();
    ask(&server, &peer(&twin, true), "self-signed-client").await.unauthorized();
    let snapshot = server.server.registry.snapshot().clone();
    let gone = &snapshot.client("self-signed-client").unwrap().certificates[0].cert_id;
    assert!(server.store.remove_client_certificate("self-signed-client", gone).await.unwrap());
    assert!(!server.store.remove_client_certificate("self-signed-client", gone).await.unwrap());
    server.refresh().await;
    let mut left = 0;
    for identity in [&first, &second] {
        left += usize::from(ask(&server, &peer(identity, false), "self-signed-client").await.status == StatusCode::OK);
    }
    assert_eq!(left, 1);
}

async fn a_client_has_one_certificate_name_and_rows_are_checked(db: Db) {
    let setup = Setup::new(db).await;
    with_client(&setup, "pki-client", "subject_dn", "CN=svc").await;
    let refused = register(&setup.store, "pki-client", "san_dns", "svc.example").await.unwrap_err().to_string();
    assert!(refused.contains("exactly one name"), "{refused}");
    let refused = register(&setup.store, "nobody", "san_dns", "svc.example").await.unwrap_err().to_string();
    assert!(refused.contains("no such client"), "{refused}");
    let insert = |kind: &str, value: &str| {
        format!("insert into client_certificate (client_id, kind, value) values ('pki-client', '{kind}', '{value}')")
    };
    assert!(setup.db.sql(&insert("san_dns", "svc.example")).await.is_err(), "the database says so too");
    let error = setup.db.sql(&insert("cn", "svc")).await.unwrap_err().to_string();
    assert!(error.contains("kind: subject_dn, san_dns"), "{error}");
    let server = setup.start().await;
    let certificate = peer(&ca("ours").issue(&named("svc")), true);
    ask(&server, &certificate, "pki-client").await.ok();
    server.db.sql(&insert("self_signed", "not a hash")).await.unwrap();
    server.refresh().await;
    ask(&server, &certificate, "pki-client").await.unauthorized();
    assert!(
        server.server.registry.snapshot().malformed()["client pki-client"].contains("client_certificate"),
        "the malformed row is reported"
    );
}

async fn a_certificate_may_accompany_another_credential(db: Db) {
    let setup = Setup::new(db).await;
    let signer = Signer::es256();
    let secret = setup.client(Client { require_mtls_binding: true, ..client("mtls-bound-client") }).await;
    setup.store.add_client_keys("mtls-bound-client", &[signer.stored()]).await.unwrap();
    register(&setup.store, "mtls-bound-client", "subject_dn", "CN=svc").await.unwrap();
    let server = setup.start().await;
    let any = peer(&self_signed("anybody"), false);
    let bound = |answer: &Answer| answer.token().1["cnf"]["x5t#S256"] == any.certificate.x5t_s256();
    let by_secret =
        ask_by(&server, Some(&any), &[("authorization", &basic("mtls-bound-client", &secret))], FORM.to_owned()).await;
    assert!(bound(&by_secret));
    let assertion =
        format!("{FORM}&client_assertion_type={TYPE}&client_assertion={}", signer.fresh("mtls-bound-client"));
    assert!(bound(&ask_by(&server, Some(&any), &[], assertion).await));
    // With a wrong secret the right certificate helps nobody.
    let right = peer(&ca("ours").issue(&named("svc")), true);
    ask_by(&server, Some(&right), &[("authorization", &basic("mtls-bound-client", "wrong"))], FORM.to_owned())
        .await
        .unauthorized();
    ask(&server, &right, "mtls-bound-client").await.ok();
    ask(&server, &any, "mtls-bound-client").await.unauthorized();
}

fn field(der: &[u8]) -> String {
    format!(":{}:", BASE64_STANDARD.encode(der))
}

async fn client_cert_is_believed_from_trusted_proxies_and_only_when_configured(db: Db) {
    let mut setup = Setup::new(db).await;
    let ours = ca("ours");
    setup.settings.server.mtls.client_ca_file = setup.db.file("ca.pem", &ours.pem);
    setup.settings.server.trusted_proxies = vec!["10.0.0.0/8".into()];
    setup.settings.server.client_cert_header = true;
    with_client(&setup, "pki-client", "subject_dn", "CN=svc").await;
    let own = self_signed("own");
    with_client(&setup, "self-signed-client", "self_signed", &peer(&own, false).certificate.x5t_s256()).await;
    let server = setup.start().await;
    let (middle, strange) = (ours.intermediate("middle"), ca("strange").issue(&named("svc")));
    let (right, below) = (ours.issue(&named("svc")), middle.issue(&named("svc")));
    let from = |address: [u8; 4]| Caller { address: (address, 4711).into(), certificate: None };
    let (proxy, stranger) = (from([10, 1, 2, 3]), from([192, 0, 2, 1]));
    let send = async |caller: &Caller, fields: &[(&str, &str)], id: &str| {
        server.send_by(caller, form("/token", fields, format!("{FORM}&client_id={id}"))).await
    };
    let shown = field(&right.chain()[0]);
    let answer = send(&proxy, &[("client-cert", &shown)], "pki-client").await;
    assert_eq!(answer.token().1["cnf"]["x5t#S256"], peer(&right, true).certificate.x5t_s256());
    send(&proxy, &[("client-cert", &field(&own.chain()[0]))], "self-signed-client").await.ok();
    send(&stranger, &[("client-cert", &shown)], "pki-client").await.unauthorized();
    send(&proxy, &[], "pki-client").await.unauthorized();
    send(&proxy, &[("client-cert", &field(&strange.chain()[0]))], "pki-client").await.unauthorized();
    let chain = [("client-cert", &*field(&below.chain()[0])), ("client-cert-chain", &*field(middle.der()))];
    send(&proxy, &chain, "pki-client").await.ok();
    send(&proxy, &chain[..1], "pki-client").await.unauthorized();
    // An empty field is an empty list.
    send(&proxy, &[("client-cert", &*shown), ("client-cert-chain", " ")], "pki-client").await.ok();
    let many = vec![field(middle.der()); 9].join(", ");
    send(&proxy, &[("client-cert", &*shown), ("client-cert-chain", &*many)], "pki-client")
        .await
        .error("invalid_request");
    // The proxy's own certificate is not its client's.
    let with_own = Caller { certificate: Some(peer(&right, true)), ..proxy.clone() };
    send(&with_own, &[], "pki-client").await.unauthorized();
    send(&proxy, &[("client-cert", &shown), ("client-cert", &shown)], "pki-client").await.unauthorized();
    for malformed in ["", "::", ":AA:", "AAAA", &shown[1..], &format!("{shown}, {shown}"), &format!("{shown};a=1")] {
        send(&proxy, &[("client-cert", malformed)], "pki-client").await.error("invalid_request");
    }
    for name in ["x-forwarded-client-cert", "ssl-client-cert", "x-ssl-client-cert", "x-ssl-cert", "client_cert"] {
        send(&proxy, &[(name, &shown)], "pki-client").await.unauthorized();
    }
    let metadata = server.get("/.well-known/oauth-authorization-server").await.json();
    let methods = metadata["token_endpoint_auth_methods_supported"].as_array().unwrap();
    assert!(methods.contains(&"tls_client_auth".into()) && methods.contains(&"self_signed_tls_client_auth".into()));
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    assert!(metadata.get("mtls_endpoint_aliases").is_none());

    // Nobody said that the field is to be read.
    let mut setup = Setup::new(Db::sqlite()).await;
    setup.settings.server.trusted_proxies = vec!["10.0.0.0/8".into()];
    with_client(&setup, "pki-client", "subject_dn", "CN=svc").await;
    let server = setup.start().await;
    let body = format!("{FORM}&client_id=pki-client");
    server.send_by(&proxy, form("/token", &[("client-cert", &shown)], body)).await.unauthorized();
    let metadata = server.get("/.well-known/oauth-authorization-server").await.body;
    assert!(!metadata.contains("tls_client"), "{metadata}");
}

/// POSTs a form over mutual TLS. `None` when the connection breaks.
pub async fn post_over(
    address: SocketAddr,
    server: &CertificateDer<'static>,
    identity: Option<&Arc<Identity>>,
    body: &str,
) -> Option<(u16, Value)> {
    let config = mutual_tls::client(&[server], &version::TLS13, identity.cloned(), &[]);
    let stream = TcpStream::connect(address).await.ok()?;
    let mut stream =
        TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await.ok()?;
    let request = format!(
        "POST /token HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    // The far end may leave without a goodbye.
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
}

async fn the_mtls_listener_asks_for_certificates_and_the_metadata_names_it(db: Db) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (ours, next): (Ca, Ca) = (ca("ours"), ca("next"));
    let (cert, key) = (db.file("tls.pem", &made.cert.pem()), db.file("tls.key", &made.signing_key.serialize_pem()));
    let trusted = db.file("clients.pem", &ours.pem);
    let grantd = Grantd::new(&db)
        .with("GRANTD__DATABASE__AUTO_MIGRATE", "true")
        .with("GRANTD__ISSUER", "https://localhost")
        .with("GRANTD__SERVER__MTLS__LISTEN", "127.0.0.1:0")
        .with("GRANTD__SERVER__MTLS__CERT_FILE", cert.to_str().unwrap())
        .with("GRANTD__SERVER__MTLS__KEY_FILE", key.to_str().unwrap())
        .with("GRANTD__SERVER__MTLS__CLIENT_CA_FILE", trusted.to_str().unwrap());
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let listening = daemon.events("listening");
    let mtls = listening.iter().find(|event| event["listener"] == "mtls").unwrap();
    let address: SocketAddr = mtls["address"].as_str().unwrap().parse().unwrap();
    let metadata = daemon.get("/.well-known/oauth-authorization-server").await.json();
    let alias = format!("https://localhost:{}", address.port());
    assert_eq!(
        metadata["mtls_endpoint_aliases"],
        json!({"token_endpoint": format!("{alias}/token"), "introspection_endpoint": format!("{alias}/introspect"), "revocation_endpoint": format!("{alias}/revoke")})
    );
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    let methods = metadata["token_endpoint_auth_methods_supported"].as_array().unwrap();
    assert_eq!(methods.len(), 5, "{methods:?}");

    for id in ["pki-client", "self-signed-client", "mtls-bound-client"] {
        grantd.ok(&["client", "create", id, "--scope", "a", "--default-scope", "a", "--no-secret"]).await;
    }
    grantd.ok(&["client", "cert", "add", "pki-client", "--subject-dn", "CN=svc"]).await;
    let (svc, own) = (Arc::new(ours.issue(&named("svc"))), self_signed("own"));
    let file = db.directory.path().join("own.der");
    std::fs::write(&file, &own.chain()[0]).unwrap();
    let own = Arc::new(own);
    let added = grantd
        .json(&["client", "cert", "add", "self-signed-client", "--self-signed", file.to_str().unwrap(), "--json"])
        .await;
    assert_eq!(added["value"], Certificate::parse(&own.chain()[0]).unwrap().x5t_s256());
    let server = made.cert.der();
    let post = async |identity: Option<&Arc<Identity>>, id: &str| {
        post_over(address, server, identity, &format!("{FORM}&client_id={id}")).await
    };
    let status = async |identity: Option<&Arc<Identity>>, id: &str| post(identity, id).await.map(|(status, _)| status);
    eventually(async || status(Some(&svc), "pki-client").await, |status| *status == Some(200)).await;
    eventually(async || status(Some(&own), "self-signed-client").await, |status| *status == Some(200)).await;
    let (_, answer) = post(Some(&svc), "pki-client").await.unwrap();
    let claims = answer["access_token"].as_str().unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let x5t = Certificate::parse(&svc.chain()[0]).unwrap().x5t_s256();
    assert_eq!(claims["cnf"]["x5t#S256"], x5t);
    let strange = Arc::new(next.issue(&named("svc")));
    for (identity, id) in [
        (None, "pki-client"),
        (Some(&own), "pki-client"),
        (Some(&svc), "self-signed-client"),
        (Some(&svc), "mtls-bound-client"),
        (Some(&strange), "pki-client"),
    ] {
        assert_eq!(status(identity, id).await, Some(401), "{id}");
    }
    daemon.token("pki-client", "x").await.unauthorized();

    // Another CA, on SIGHUP.
    std::fs::write(&trusted, &next.pem).unwrap();
    daemon.reload();
    eventually(async || status(Some(&strange), "pki-client").await, |status| *status == Some(200)).await;
    assert_eq!(status(Some(&svc), "pki-client").await, Some(401));

    let cert_id = added["cert_id"].as_str().unwrap();
    grantd.ok(&["client", "cert", "remove", "self-signed-client", cert_id]).await;
    eventually(async || status(Some(&own), "self-signed-client").await, |status| *status == Some(401)).await;
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}
