//! X.509-SVIDs: certificates of SPIFFE workloads, validated to the bundle of their trust domain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use grantd::crypto::certificate::Certificate;
use grantd::http::Caller;
use grantd::model::certificate::PeerCertificate;
use grantd::model::client::Client;
use grantd::model::federation::kind::IssuerKind;
use grantd::model::federation::rule::FederationRule;
use grantd::model::federation::trusted_issuer::{IssuerColumns, TrustedIssuer};
use grantd::model::time::{Clock, UnixTime};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use crate::client_certificates::{post_over, register};
use crate::harness::{Answer, Db, Server, Setup, client, form, set_auth_methods};
use crate::issuer_host::{IssuerHost, ca_pem};
use crate::mutual_tls::Identity;
use crate::process::daemon::{Daemon, Grantd, eventually};

on_both!(
    an_svid_of_the_bundle_is_the_client_whose_rule_matches,
    a_certificate_that_is_no_svid_of_its_domain_is_refused,
    the_client_is_named_by_its_id_by_the_spiffe_id_or_not_at_all,
    a_bundle_is_followed_and_an_empty_one_revokes_all,
    a_token_is_bound_to_an_svid_only_where_it_has_to_be,
    a_trusted_proxy_passes_svids_on,
    the_listener_takes_svids,
);

/// A CA of SVIDs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "SPIRE");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    fn new() -> Self {
        let (params, key) = (ca_params(), KeyPair::generate().unwrap());
        Self { der: params.self_signed(&key).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
    }

    fn intermediate(&self) -> Self {
        let (params, key) = (ca_params(), KeyPair::generate().unwrap());
        Self { der: params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, params: &CertificateParams) -> Vec<u8> {
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().to_vec()
    }

    fn svid(&self, id: &str) -> PeerCertificate {
        peer(&self.issue(&svid(&[id])), &[])
    }

    /// As an entry of a bundle.
    fn entry(&self) -> Value {
        json!({"kty": "EC", "use": "x509-svid", "x5c": [BASE64_STANDARD.encode(&self.der)]})
    }
}

fn bundle(authorities: &[&Authority]) -> Value {
    json!({"keys": authorities.iter().map(|one| one.entry()).collect::<Vec<_>>(), "spiffe_refresh_hint": 60})
}

/// The certificate that SPIRE makes for a workload, with other URIs.
fn svid(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// The certificate of a connection. The CAs of `server.mtls.client_ca_file` vouch for it, which decides nothing here.
fn peer(leaf: &[u8], chain: &[&[u8]]) -> PeerCertificate {
    let certificate = Arc::new(Certificate::parse(leaf).unwrap());
    PeerCertificate { certificate, intermediates: chain.iter().map(|der| der.to_vec()).collect(), ca_verified: Ok(()) }
}

const TD: &str = "spiffe://td.test";
const ID: &str = "spiffe://td.test/ns/pay/billing";

async fn trust(setup: &Setup, domain: &str, jwks: Option<&Value>, bundle_uri: Option<&str>) {
    let jwks = jwks.map(Value::to_string);
    let columns = IssuerColumns {
        issuer: domain,
        kind: IssuerKind::Spiffe,
        jwks_uri: None,
        jwks: jwks.as_deref(),
        bundle_uri,
        audience: None,
        ca_pem: None,
    };
    setup.store.create_trusted_issuer(&TrustedIssuer::new(columns, UnixTime(1)).unwrap()).await.unwrap();
}

async fn rule(setup: &Setup, client_id: &str, issuer: &str, subject: &str) {
    let rule = FederationRule {
        rule_id: format!("rule-of-{client_id}").into(),
        issuer: issuer.into(),
        subject: subject.parse().unwrap(),
        claims: "{}".parse().unwrap(),
        created_at: UnixTime(1),
        expires_at: None,
        used: Arc::default(),
    };
    setup.store.add_federation_rule(client_id, &rule, "").await.unwrap();
}

/// A server to be, with the clients `billing` and `other`, of which the first has a rule for [`ID`].
async fn setup(db: Db) -> (Setup, Arc<AtomicI64>) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(1_800_000_000);
    setup.clock = clock;
    for id in ["billing", "other"] {
        setup.store.create_client(&client(id), None).await.unwrap();
    }
    rule(&setup, "billing", TD, ID).await;
    (setup, hand)
}

async fn ask_at(server: &Server, path: &str, certificate: &PeerCertificate, body: &str) -> Answer {
    let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: Some(certificate.clone()) };
    server.send_by(&caller, form(path, &[], body.to_owned())).await
}

async fn ask(server: &Server, certificate: &PeerCertificate, more: &str) -> Answer {
    ask_at(server, "/token", certificate, &format!("grant_type=client_credentials{more}")).await
}

async fn an_svid_of_the_bundle_is_the_client_whose_rule_matches(db: Db) {
    let (setup, _) = setup(db).await;
    let (root, old) = (Authority::new(), Authority::new());
    let middle = root.intermediate();
    trust(&setup, TD, Some(&bundle(&[&root, &old])), None).await;
    setup.store.create_client(&client("team"), None).await.unwrap();
    rule(&setup, "team", TD, "spiffe://td.test/ns/team/*").await;
    let server = setup.start().await;
    let token = ask(&server, &root.svid(ID), "").await;
    assert_eq!(token.token().1["sub"], "billing");
    ask(&server, &old.svid(ID), "").await.ok();
    let below = middle.issue(&svid(&[ID]));
    ask(&server, &peer(&below, &[&middle.der]), "").await.ok();
    ask(&server, &peer(&below, &[]), "").await.unauthorized();
    // Whole segments of the path.
    assert_eq!(ask(&server, &root.svid("spiffe://td.test/ns/team/a/b"), "").await.token().1["sub"], "team");
    for id in ["spiffe://td.test/ns/teams", "spiffe://td.test/ns/team", "spiffe://td.test/ns/pay/billing2"] {
        ask(&server, &root.svid(id), "").await.unauthorized();
    }
    // At the other endpoints too.
    let about = format!("token={}", token.access_token());
    assert_eq!(ask_at(&server, "/introspect", &root.svid(ID), &about).await.status, StatusCode::OK);
    ask_at(&server, "/introspect", &Authority::new().svid(ID), &about).await.unauthorized();
    assert_eq!(ask_at(&server, "/revoke", &root.svid(ID), &about).await.status, StatusCode::OK);
    // What an administrator decides.
    set_auth_methods(&server.store, "billing", Some("tls_client_auth")).await.unwrap();
    server.refresh().await;
    ask(&server, &root.svid(ID), "").await.unauthorized();
    set_auth_methods(&server.store, "billing", Some("spiffe_x509")).await.unwrap();
    server.refresh().await;
    ask(&server, &root.svid(ID), "").await.ok();
    server.store.set_client_enabled("billing", false).await.unwrap();
    server.refresh().await;
    ask(&server, &root.svid(ID), "").await.unauthorized();
    server.store.set_client_enabled("billing", true).await.unwrap();
    server.db.sql("update trusted_issuer set enabled = 0").await.unwrap();
    server.refresh().await;
    ask(&server, &root.svid(ID), "").await.unauthorized();
}

async fn a_certificate_that_is_no_svid_of_its_domain_is_refused(db: Db) {
    let (setup, hand) = setup(db).await;
    let (root, elsewhere) = (Authority::new(), Authority::new());
    trust(&setup, TD, Some(&bundle(&[&root])), None).await;
    trust(&setup, "spiffe://other.test", Some(&bundle(&[&elsewhere])), None).await;
    rule(&setup, "other", "spiffe://other.test", "spiffe://other.test/*").await;
    let server = setup.start().await;
    ask(&server, &root.svid(ID), "").await.ok();
    let now = hand.load(Ordering::Relaxed);
    let changed = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = svid(&[ID]);
        change(&mut params);
        peer(&root.issue(&params), &[])
    };
    let year = |year| rcgen::date_time_ymd(year, 1, 1);
    let wrong = [
        ("another CA", Authority::new().svid(ID)),
        // Each domain has a bundle of its own: one does not vouch for names of another.
        ("the CA of another domain", elsewhere.svid(ID)),
        ("a name of another domain", root.svid("spiffe://other.test/app")),
        ("an unknown domain", root.svid("spiffe://unknown.test/app")),
        ("two URIs", peer(&root.issue(&svid(&[ID, "spiffe://td.test/x"])), &[])),
        ("two equal URIs", peer(&root.issue(&svid(&[ID, ID])), &[])),
        ("another URI beside", peer(&root.issue(&svid(&[ID, "https://x.test"])), &[])),
        ("no URI", peer(&root.issue(&svid(&[])), &[])),
        ("no path", root.svid(TD)),
        ("a dot segment", root.svid("spiffe://td.test/ns/../ns/pay/billing")),
        ("a query", root.svid(&format!("{ID}?x"))),
        ("upper case", root.svid("spiffe://TD.test/ns/pay/billing")),
        ("a CA", changed(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("no key usage", changed(&|params| params.key_usages.clear())),
        ("another key usage", changed(&|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement])),
        ("signs certificates", changed(&|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        ("a server's alone", changed(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
        ("over", changed(&|params| params.not_after = year(2027))),
        ("not yet", changed(&|params| params.not_before = year(2028))),
        ("the authority itself", peer(&root.der, &[])),
    ];
    assert!(now > 1_798_761_600 && now < 1_830_297_600, "between both years");
    let mut faces = Vec::new();
    for (what, certificate) in wrong {
        for more in ["", "&client_id=billing", "&client_id=spiffe://td.test/ns/pay/billing"] {
            let answer = ask(&server, &certificate, more).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}{more}: {}", answer.body);
            faces.push(answer.face());
        }
    }
    faces.dedup();
    assert!(faces.len() <= 2, "{faces:#?}");
}

async fn the_client_is_named_by_its_id_by_the_spiffe_id_or_not_at_all(db: Db) {
    let (setup, _) = setup(db).await;
    let root = Authority::new();
    trust(&setup, TD, Some(&bundle(&[&root])), None).await;
    // The SPIFFE ID of a workload is never looked up as a client id.
    let namesake = "spiffe://td.test/ns/pay/namesake";
    setup.store.create_client(&client(namesake), None).await.unwrap();
    setup.store.create_client(&client("twin"), None).await.unwrap();
    rule(&setup, "twin", TD, "spiffe://td.test/ns/pay/shared").await;
    let second = FederationRule {
        rule_id: "second".into(),
        issuer: TD.into(),
        subject: "spiffe://td.test/ns/pay/shared".parse().unwrap(),
        claims: "{}".parse().unwrap(),
        created_at: UnixTime(1),
        expires_at: None,
        used: Arc::default(),
    };
    setup.store.add_federation_rule("other", &second, "").await.unwrap();
    // A client of RFC 8705 with the same kind of name keeps its way.
    setup.store.create_client(&client("registered"), None).await.unwrap();
    register(&setup.store, "registered", "san_uri", "spiffe://elsewhere.test/app").await.unwrap();
    let server = setup.start().await;
    let own = root.svid(ID);
    for more in [
        "",
        "&client_id=billing",
        "&client_id=spiffe://td.test/ns/pay/billing",
        "&client_id=spiffe%3A%2F%2Ftd.test%2Fns%2Fpay%2Fbilling",
    ] {
        assert_eq!(ask(&server, &own, more).await.token().1["client_id"], "billing", "{more}");
    }
    for more in ["&client_id=other", "&client_id=nobody", "&client_id=spiffe://td.test/ns/pay/other"] {
        ask(&server, &own, more).await.unauthorized();
    }
    ask(&server, &root.svid(namesake), "").await.unauthorized();
    ask(&server, &root.svid(namesake), &format!("&client_id={namesake}")).await.unauthorized();
    let shared = root.svid("spiffe://td.test/ns/pay/shared");
    ask(&server, &shared, "").await.unauthorized();
    assert_eq!(ask(&server, &shared, "&client_id=twin").await.token().1["client_id"], "twin");
    let registered = Authority::new().svid("spiffe://elsewhere.test/app");
    ask(&server, &registered, "&client_id=registered").await.ok();
    ask(&server, &registered, "").await.unauthorized();
}

async fn a_bundle_is_followed_and_an_empty_one_revokes_all(db: Db) {
    let platform = IssuerHost::start().await;
    let (mut setup, hand) = setup(db).await;
    setup.settings.clients.jwks_uri_ca_file = setup.db.file("platforms.pem", ca_pem());
    setup.settings.clients.jwks_uri_allow = vec!["localhost".to_owned()];
    let (first, second) = (Authority::new(), Authority::new());
    trust(&setup, TD, None, Some(&platform.url("/bundle"))).await;
    let server = setup.start().await;
    // Never had.
    ask(&server, &first.svid(ID), "").await.unauthorized();
    platform.serves("/bundle", &bundle(&[&first]));
    hand.fetch_add(30, Ordering::Relaxed);
    ask(&server, &first.svid(ID), "").await.ok();
    let asked = platform.asked();
    ask(&server, &first.svid(ID), "").await.ok();
    // An unknown CA asks earlier, and not more than once in half a minute.
    platform.serves("/bundle", &bundle(&[&first, &second]));
    ask(&server, &second.svid(ID), "").await.unauthorized();
    assert_eq!(platform.asked(), asked);
    hand.fetch_add(30, Ordering::Relaxed);
    ask(&server, &second.svid(ID), "").await.ok();
    ask(&server, &first.svid(ID), "").await.ok();
    for _ in 0..20 {
        ask(&server, &Authority::new().svid(ID), "").await.unauthorized();
    }
    assert_eq!(platform.asked(), asked + 1);
    // A CA that has left the bundle ends with the hint to refresh it.
    platform.serves("/bundle", &bundle(&[&second]));
    hand.fetch_add(61, Ordering::Relaxed);
    ask(&server, &first.svid(ID), "").await.unauthorized();
    ask(&server, &second.svid(ID), "").await.ok();
    // What is no bundle replaces none; an empty one is one.
    platform.serves("/bundle", &json!({"keys": "none"}));
    hand.fetch_add(61, Ordering::Relaxed);
    ask(&server, &second.svid(ID), "").await.ok();
    platform.serves("/bundle", &json!({"keys": []}));
    hand.fetch_add(61, Ordering::Relaxed);
    // After a fetch that failed, requests do not wait for the next one.
    eventually(async || ask(&server, &second.svid(ID), "").await.status, |status| *status == StatusCode::UNAUTHORIZED)
        .await;
}

async fn a_token_is_bound_to_an_svid_only_where_it_has_to_be(db: Db) {
    let (mut setup, hand) = setup(db).await;
    let root = Authority::new();
    trust(&setup, TD, Some(&bundle(&[&root])), None).await;
    let bound = Client { require_mtls_binding: true, ..client("bound") };
    setup.store.create_client(&bound, None).await.unwrap();
    rule(&setup, "bound", TD, "spiffe://td.test/bound").await;
    setup.settings.profile = "default".into();
    let server = setup.start().await;
    let (_, claims) = ask(&server, &root.svid(ID), "").await.token();
    assert!(claims.get("cnf").is_none(), "{claims}");
    // Half an hour before the certificate ends.
    let mut params = svid(&["spiffe://td.test/bound"]);
    params.not_after = rcgen::date_time_ymd(2027, 1, 16);
    hand.store(1_800_057_600 - 1_800, Ordering::Relaxed);
    let certificate = peer(&root.issue(&params), &[]);
    let answer = ask(&server, &certificate, "").await;
    assert_eq!(answer.ok()["expires_in"], 1_800);
    let (_, claims) = answer.token();
    assert_eq!(claims["cnf"]["x5t#S256"], certificate.certificate.x5t_s256().as_str());
    assert_eq!(claims["exp"].as_i64().unwrap(), 1_800_057_600);
}

async fn a_trusted_proxy_passes_svids_on(db: Db) {
    let (mut setup, _) = setup(db).await;
    let root = Authority::new();
    let middle = root.intermediate();
    trust(&setup, TD, Some(&bundle(&[&root])), None).await;
    setup.settings.server.trusted_proxies = vec!["192.0.2.0/24".to_owned()];
    setup.settings.server.client_cert_header = true;
    let server = setup.start().await;
    let methods = server.get("/.well-known/oauth-authorization-server").await.json();
    let methods = methods["token_endpoint_auth_methods_supported"].to_string();
    assert!(methods.contains("spiffe_x509") && methods.contains("spiffe_jwt"), "{methods}");
    let sequence = |der: &[u8]| format!(":{}:", BASE64_STANDARD.encode(der));
    let (leaf, chain) = (sequence(&middle.issue(&svid(&[ID]))), sequence(&middle.der));
    let asked = "grant_type=client_credentials";
    let fields = [("client-cert", leaf.as_str()), ("client-cert-chain", chain.as_str())];
    assert_eq!(server.post(&fields, asked).await.token().1["sub"], "billing");
    server.post(&fields[..1], asked).await.unauthorized();
    // Nobody but the proxy is believed.
    server.send_from(([198, 51, 100, 1], 4711), form("/token", &fields, asked)).await.unauthorized();
}

async fn the_listener_takes_svids(db: Db) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (db.file("tls.pem", &made.cert.pem()), db.file("tls.key", &made.signing_key.serialize_pem()));
    let grantd = Grantd::new(&db)
        .with("GRANTD__DATABASE__AUTO_MIGRATE", "true")
        .with("GRANTD__ISSUER", "https://localhost")
        .with("GRANTD__SERVER__MTLS__LISTEN", "127.0.0.1:0")
        .with("GRANTD__SERVER__MTLS__CERT_FILE", cert.to_str().unwrap())
        .with("GRANTD__SERVER__MTLS__KEY_FILE", key.to_str().unwrap());
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let listening = daemon.events("listening");
    let mtls = listening.iter().find(|event| event["listener"] == "mtls").unwrap();
    let address: SocketAddr = mtls["address"].as_str().unwrap().parse().unwrap();
    let root = Authority::new();
    let middle = root.intermediate();
    let file = db.file("bundle.json", &bundle(&[&root]).to_string());
    grantd.ok(&["trusted-issuer", "create", TD, "--kind", "spiffe", "--jwks", file.to_str().unwrap()]).await;
    grantd.ok(&["client", "create", "billing", "--scope", "a", "--default-scope", "a", "--no-secret"]).await;
    grantd.ok(&["client", "federation", "add", "billing", "--issuer", TD, "--subject", ID]).await;
    let identity = |authority: &Authority, chain: &[&Authority]| {
        let key = KeyPair::generate().unwrap();
        let leaf = svid(&[ID]).signed_by(&key, &authority.issuer).unwrap().der().clone();
        let chain = chain.iter().map(|one| one.der.clone().into());
        Arc::new(Identity::new(std::iter::once(leaf).chain(chain).collect(), &key))
    };
    let (own, bare, strange) =
        (identity(&middle, &[&middle]), identity(&middle, &[]), identity(&Authority::new(), &[]));
    let status = async |identity: &Arc<Identity>, more: &str| {
        let body = format!("grant_type=client_credentials{more}");
        post_over(address, made.cert.der(), Some(identity), &body).await.map(|(status, _)| status)
    };
    for more in ["", "&client_id=billing", "&client_id=spiffe://td.test/ns/pay/billing"] {
        eventually(async || status(&own, more).await, |status| *status == Some(200)).await;
    }
    assert_eq!(status(&own, "&client_id=other").await, Some(401));
    assert_eq!(status(&bare, "").await, Some(401), "without the intermediate");
    assert_eq!(status(&strange, "").await, Some(401));
    let issued = daemon.events("token.issued");
    let line = issued.last().unwrap();
    assert_eq!((&line["auth_method"], &line["client_id"]), (&"spiffe_x509".into(), &"billing".into()), "{line}");
    assert_eq!((&line["federated_issuer"], &line["federated_subject"]), (&TD.into(), &ID.into()), "{line}");
    let reasons = daemon.events("token.refused").into_iter().map(|line| line["reason"].clone()).collect::<Vec<_>>();
    assert!(reasons.contains(&"certificate_untrusted".into()), "{reasons:?}");
    daemon.stop_cleanly(std::time::Duration::from_secs(5)).await;
}
