//! Tokens that are bound to a key or a certificate.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use grantd::crypto::certificate::Certificate;
use grantd::crypto::jwk::Alg;
use grantd::crypto::random_id;
use grantd::crypto::seal::SealingKey;
use grantd::crypto::verifying_key::VerifyingKey;
use grantd::http::{Caller, ListenerUrl};
use grantd::model::certificate::PeerCertificate;
use grantd::model::client::Client;
use grantd::model::time::{Clock, Span, UnixTime};
use grantd::store::keys::new_key;
use serde_json::{Value, json};

use crate::assertion::{Signer, TYPE, claims};
use crate::harness::{Answer, Db, ISS, Server, Setup, basic, client, form};
use crate::process::daemon::eventually;

on_both!(
    a_proof_binds_the_token_to_its_key,
    a_bad_proof_is_refused_and_no_token_is_issued,
    a_proof_is_used_once_on_all_replicas_and_by_one_of_fifty_requests,
    a_spent_proof_stays_refused_at_every_second_of_every_clock,
    a_proof_stays_spent_after_a_key_rotation,
    one_jti_counts_separately_under_each_key,
    a_jti_is_compared_exactly_and_spent_by_admitted_requests_alone,
    an_old_nonce_is_still_accepted_and_brings_a_new_one,
    a_demand_for_a_nonce_leaves_the_assertion_unspent,
    a_nonce_is_demanded_and_accepted_by_every_replica,
    a_client_that_must_use_dpop_never_gets_a_bearer_token,
    no_header_changes_the_url_that_a_proof_must_name,
    without_the_database_a_proof_is_not_taken_and_a_secret_is,
    a_token_is_bound_to_the_certificate_of_its_request,
    one_token_may_carry_both_bindings,
    the_metadata_lists_the_bindings_on_offer,
    a_proof_must_name_the_url_of_the_listener_it_arrived_at,
);

const START: i64 = 1_800_000_000;

/// A key, and the DPoP proofs that it signs.
pub struct Prover {
    pair: EcdsaKeyPair,
    jwk: Value,
}

impl Prover {
    pub fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| BASE64_URL_SAFE_NO_PAD.encode(half));
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        Self { pair, jwk }
    }

    pub fn jkt(&self) -> String {
        VerifyingKey::from_text(self.jwk.to_string().as_bytes(), None).unwrap().jkt().to_owned()
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk})
    }

    fn claims() -> Value {
        let jti = BASE64_URL_SAFE_NO_PAD.encode(random_id().unwrap());
        json!({"htm": "POST", "htu": format!("{ISS}/token"), "jti": jti, "iat": Clock::System.now().0})
    }

    /// A proof for the token endpoint that was never used before.
    pub fn proof(&self) -> String {
        self.sign(&self.header(), &Self::claims())
    }

    /// A proof for a request to an API with `token`, as RFC 9449 section 7 has it, but for `changes`.
    pub fn proof_at_api(&self, (htm, htu): (&str, &str), token: &str, changes: &Value) -> String {
        let ath = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()));
        let mut claims = Self::claims();
        for (name, value) in [("htm", htm), ("htu", htu), ("ath", &*ath)] {
            claims[name] = value.into();
        }
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.sign(&self.header(), &claims)
    }

    /// Another such proof, with a claim of this value.
    pub fn proof_with(&self, name: &str, value: impl Into<Value>) -> String {
        let mut claims = Self::claims();
        claims[name] = value.into();
        self.sign(&self.header(), &claims)
    }
}

async fn ask(server: &Server, id: &str, secret: &str, proof: &str) -> Answer {
    server.post(&[("authorization", &basic(id, secret)), ("dpop", proof)], "grant_type=client_credentials").await
}

async fn a_proof_binds_the_token_to_its_key(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let prover = Prover::new();
    for name in ["DPoP", "dpop", "DPOP"] {
        let fields = [("authorization", &*basic("basic-client", &secret)), (name, &*prover.proof())];
        let answer = server.post(&fields, "grant_type=client_credentials&dpop_jkt=x").await;
        answer.ok_of_type("DPoP");
        let (_, claims) = answer.token();
        assert_eq!(claims["cnf"], json!({"jkt": prover.jkt()}));
        assert!(!answer.headers.contains_key("dpop-nonce"), "none is demanded");
    }
    let (_, claims) = server.basic("basic-client", &secret, "").await.token();
    assert!(claims.get("cnf").is_none(), "unbound");
}

async fn a_bad_proof_is_refused_and_no_token_is_issued(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let (prover, other) = (Prover::new(), Prover::new());
    let now = Clock::System.now().0;
    let header = |name: &str, value: Value| {
        let mut header = prover.header();
        header[name] = value;
        prover.sign(&header, &Prover::claims())
    };
    let without = |name: &str| {
        let (mut header, mut claims) = (prover.header(), Prover::claims());
        header.as_object_mut().unwrap().remove(name);
        claims.as_object_mut().unwrap().remove(name);
        prover.sign(&header, &claims)
    };
    let mut private = prover.jwk.clone();
    private["d"] = "AA".into();
    let good = prover.proof();
    let mut bad = vec![
        "x".to_owned(),
        String::new(),
        "a.b".into(),
        format!("{good},{good}"),
        good.rsplit_once('.').unwrap().0.to_owned() + ".AAAA",
        header("typ", "JWT".into()),
        header("typ", "dpop+jwt+wrong".into()),
        header("alg", "none".into()),
        header("alg", "HS256".into()),
        header("alg", "PS256".into()),
        header("jwk", other.jwk.clone()),
        header("jwk", private),
        header("jwk", json!({"kty": "oct", "k": "AAAA"})),
        header("crit", json!(["x"])),
        prover.proof_with("htm", "GET"),
        prover.proof_with("htm", "post"),
        prover.proof_with("htu", format!("{ISS}/introspect")),
        prover.proof_with("htu", "https://evil.test/token"),
        prover.proof_with("iat", now - 3600),
        prover.proof_with("iat", now + 3600),
        prover.proof_with("iat", now.to_string()),
        prover.proof_with("jti", "x".repeat(257)),
        prover.proof_with("exp", now - 300),
    ];
    bad.extend(["typ", "alg", "jwk", "jti", "htm", "htu", "iat"].map(without));
    for proof in &bad {
        ask(&server, "basic-client", &secret, proof).await.error("invalid_dpop_proof");
    }
    let fields = [("authorization", &*basic("basic-client", &secret)), ("dpop", &*good), ("dpop", &*prover.proof())];
    server.post(&fields, "grant_type=client_credentials").await.error("invalid_dpop_proof");
    // Standards §0.1: a proof is looked at before the secret, and after the grant type.
    ask(&server, "basic-client", "wrong", "x").await.error("invalid_dpop_proof");
    server.post(&[("dpop", "x")], "grant_type=password").await.error("unsupported_grant_type");
    // A secret that is wrong spends nothing.
    ask(&server, "basic-client", "wrong", &good).await.unauthorized();
    ask(&server, "basic-client", &secret, &good).await.ok_of_type("DPoP");
    for fine in
        [("iat", json!(now - 10)), ("iat", json!(now + 10)), ("htu", json!("HTTPS://AS.TEST:443/./%74oken?a=b#c"))]
    {
        ask(&server, "basic-client", &secret, &prover.proof_with(fine.0, fine.1)).await.ok_of_type("DPoP");
    }
}

async fn a_proof_is_used_once_on_all_replicas_and_by_one_of_fifty_requests(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let (replica, prover) = (server.replica().await, Prover::new());
    let proof = prover.proof();
    ask(&server, "basic-client", &secret, &proof).await.ok_of_type("DPoP");
    ask(&server, "basic-client", &secret, &proof).await.error("invalid_dpop_proof");
    ask(&replica, "basic-client", &secret, &proof).await.error("invalid_dpop_proof");

    let (server, replica, proof) = (Arc::new(server), Arc::new(replica), Arc::new(prover.proof()));
    let mut asking = Vec::new();
    for number in 0..50 {
        let server = Arc::clone(if number % 2 == 0 { &server } else { &replica });
        let (secret, proof) = (secret.clone(), Arc::clone(&proof));
        asking.push(tokio::spawn(async move { ask(&server, "basic-client", &secret, &proof).await.status }));
    }
    let mut issued = 0;
    for answer in asking {
        match answer.await.unwrap() {
            StatusCode::OK => issued += 1,
            StatusCode::BAD_REQUEST => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(issued, 1);
}

async fn a_spent_proof_stays_refused_at_every_second_of_every_clock(db: Db) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(START);
    setup.clock = clock;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let prover = Prover::new();
    // As old as a proof may become, and as far ahead of us as it may be.
    for iat in [START, START + 30] {
        hand.store(START, Ordering::Relaxed);
        let proof = prover.proof_with("iat", iat);
        ask(&server, "basic-client", &secret, &proof).await.ok_of_type("DPoP");
        for second in 1..100 {
            let now = START + second;
            hand.store(now, Ordering::Relaxed);
            // A replica whose clock is a minute ahead sweeps what it takes for expired.
            server.store.sweep_spent(UnixTime(now + 60)).await.unwrap();
            ask(&server, "basic-client", &secret, &proof).await.error("invalid_dpop_proof");
        }
    }
}

async fn a_proof_stays_spent_after_a_key_rotation(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let (replica, prover) = (server.replica().await, Prover::new());
    let proof = prover.proof();
    // Elsewhere a proof is nothing, and nothing becomes of it.
    for path in ["/introspect", "/revoke"] {
        let fields = [("authorization", &*basic("basic-client", &secret)), ("dpop", &*proof)];
        assert_eq!(server.post_to(path, &fields, "token=x").await.status, StatusCode::OK, "{path}");
    }
    let before = ask(&server, "basic-client", &secret, &proof).await;
    let under = SealingKey::from_base64(&server.sealing_key).unwrap();
    let next = new_key(Alg::Es256, &under, server.server.clock.now(), Span::from_secs(1)).unwrap();
    server.store.add_key(&next).await.unwrap();
    for server in [&server, &replica] {
        let signs = async || ask(server, "basic-client", &secret, &prover.proof()).await.token().0["kid"].clone();
        let signer = eventually(signs, |kid| *kid == *next.kid).await;
        assert_ne!(signer, before.token().0["kid"], "the key is another");
        ask(server, "basic-client", &secret, &proof).await.error("invalid_dpop_proof");
    }
}

async fn one_jti_counts_separately_under_each_key(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    for prover in [Prover::new(), Prover::new()] {
        ask(&server, "basic-client", &secret, &prover.proof_with("jti", "X")).await.ok_of_type("DPoP");
        ask(&server, "basic-client", &secret, &prover.proof_with("jti", "X")).await.error("invalid_dpop_proof");
        // Other bytes are another id; another spelling of the same bytes is not.
        for other in ["x", "X ", "X\0", "é", "e\u{301}"] {
            ask(&server, "basic-client", &secret, &prover.proof_with("jti", other)).await.ok_of_type("DPoP");
        }
    }
}

async fn a_jti_is_compared_exactly_and_spent_by_admitted_requests_alone(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(client("basic-client")).await;
    let without = setup.client(Client { client_credentials: false, ..client("no-grant") }).await;
    let server = setup.start().await;
    let prover = Prover::new();
    let with_scope = async |proof: &str, scope: &str| {
        let fields = [("authorization", &*basic("basic-client", &secret)), ("dpop", proof)];
        server.post(&fields, format!("grant_type=client_credentials&scope={scope}")).await
    };
    // Who is not admitted spends nothing; who asks for too much has spent.
    let proof = prover.proof();
    ask(&server, "no-grant", &without, &proof).await.error("unauthorized_client");
    with_scope(&proof, "api:admin").await.error("invalid_scope");
    with_scope(&proof, "api:read").await.error("invalid_dpop_proof");
}

async fn a_nonce_is_demanded_and_accepted_by_every_replica(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.dpop.require_nonce = true;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let (replica, prover) = (server.replica().await, Prover::new());
    let nonce_of = |answer: &Answer| {
        assert_eq!(answer.headers.get_all("dpop-nonce").iter().count(), 1, "exactly one");
        assert_eq!(answer.header("cache-control"), "no-store", "a nonce is not to be cached");
        answer.header("dpop-nonce").to_owned()
    };
    let proof = prover.proof();
    let answer = ask(&server, "basic-client", &secret, &proof).await;
    answer.error("use_dpop_nonce");
    let nonce = nonce_of(&answer);
    for wrong in ["x", "", &nonce.to_lowercase()] {
        let answer = ask(&server, "basic-client", &secret, &prover.proof_with("nonce", wrong)).await;
        answer.error("use_dpop_nonce");
        nonce_of(&answer);
    }
    // Whoever is not authenticated is asked for one, too: the demand comes before the secret.
    ask(&server, "basic-client", "wrong", &proof).await.error("use_dpop_nonce");
    for server in [&server, &replica, &server] {
        ask(server, "basic-client", &secret, &prover.proof_with("nonce", nonce.clone())).await.ok_of_type("DPoP");
    }
    ask(&server, "basic-client", &secret, &proof).await.error("use_dpop_nonce");
    // Without a proof there is nothing to carry a nonce.
    server.basic("basic-client", &secret, "").await.ok();
}

async fn an_old_nonce_is_still_accepted_and_brings_a_new_one(db: Db) {
    // Windows begin at multiples of a minute.
    const WINDOW: i64 = 60;
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(START);
    setup.clock = clock;
    setup.settings.dpop.require_nonce = true;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let prover = Prover::new();
    let with = |nonce: &str| {
        let mut claims = Prover::claims();
        (claims["iat"], claims["nonce"]) = (hand.load(Ordering::Relaxed).into(), nonce.into());
        prover.sign(&prover.header(), &claims)
    };
    let first = ask(&server, "basic-client", &secret, &with("none")).await.header("dpop-nonce").to_owned();
    let young = ask(&server, "basic-client", &secret, &with(&first)).await;
    young.ok_of_type("DPoP");
    assert!(!young.headers.contains_key("dpop-nonce"), "nothing is due");

    hand.store(START + WINDOW, Ordering::Relaxed);
    let old = ask(&server, "basic-client", &secret, &with(&first)).await;
    old.ok_of_type("DPoP");
    assert_eq!(old.headers.get_all("dpop-nonce").iter().count(), 1);
    assert_eq!(old.header("cache-control"), "no-store");
    let second = old.header("dpop-nonce").to_owned();
    assert_ne!(second, first);
    let fresh = ask(&server, "basic-client", &secret, &with(&second)).await;
    fresh.ok_of_type("DPoP");
    assert!(!fresh.headers.contains_key("dpop-nonce"));

    hand.store(START + 2 * WINDOW, Ordering::Relaxed);
    ask(&server, "basic-client", &secret, &with(&first)).await.error("use_dpop_nonce");
    ask(&server, "basic-client", &secret, &with(&second)).await.ok_of_type("DPoP");
}

async fn a_demand_for_a_nonce_leaves_the_assertion_unspent(db: Db) {
    let (mut setup, signer, prover) = (Setup::new(db).await, Signer::es256(), Prover::new());
    setup.settings.dpop.require_nonce = true;
    setup.store.create_client(&Client { require_dpop: true, ..client("jwt-client") }, None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    let ask = async |assertion: &str, proof: &str| {
        let form = format!("grant_type=client_credentials&client_assertion_type={TYPE}&client_assertion={assertion}");
        server.post(&[("dpop", proof)], form).await
    };
    let proof = |jti: &str, nonce: &str| {
        let mut claims = Prover::claims();
        (claims["jti"], claims["nonce"]) = (jti.into(), nonce.into());
        prover.sign(&prover.header(), &claims)
    };
    let mut asserted = claims("jwt-client");
    // The same id in an assertion and in a proof.
    asserted["jti"] = "X".into();
    let assertion = signer.assert(&asserted);
    let demand = ask(&assertion, &prover.proof()).await;
    demand.error("use_dpop_nonce");
    let nonce = demand.header("dpop-nonce").to_owned();
    ask(&assertion, "x").await.error("invalid_dpop_proof");
    ask(&assertion, &proof("X", &nonce)).await.ok_of_type("DPoP");
    ask(&assertion, &proof("Y", &nonce)).await.unauthorized();
    ask(&signer.fresh("jwt-client"), &proof("X", &nonce)).await.error("invalid_dpop_proof");
    ask(&signer.fresh("jwt-client"), &proof("Z", &nonce)).await.ok_of_type("DPoP");
    // Neither passes for the other.
    ask(&proof("W", &nonce), &proof("V", &nonce)).await.unauthorized();
    ask(&signer.fresh("jwt-client"), &signer.fresh("jwt-client")).await.error("invalid_dpop_proof");
}

async fn a_client_that_must_use_dpop_never_gets_a_bearer_token(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(Client { require_dpop: true, ..client("dpop-client") }).await;
    let server = setup.start().await;
    let prover = Prover::new();
    server.basic("dpop-client", &secret, "").await.error("invalid_dpop_proof");
    server
        .basic("dpop-client", &secret, &format!("DPoP={0}&dpop={0}", prover.proof()))
        .await
        .error("invalid_dpop_proof");
    ask(&server, "dpop-client", &secret, "x").await.error("invalid_dpop_proof");
    ask(&server, "dpop-client", "wrong", &prover.proof()).await.unauthorized();
    let answer = ask(&server, "dpop-client", &secret, &prover.proof()).await;
    answer.ok_of_type("DPoP");
    assert_eq!(answer.token().1["cnf"]["jkt"], prover.jkt());
}

async fn no_header_changes_the_url_that_a_proof_must_name(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let prover = Prover::new();
    let lies = [
        ("host", "evil.test"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "host=evil.test;proto=http"),
    ];
    for lie in lies {
        for htu in ["https://evil.test/token", "http://evil.test/token", "http://as.test/token"] {
            let fields =
                [("authorization", &*basic("basic-client", &secret)), ("dpop", &*prover.proof_with("htu", htu)), lie];
            server.post(&fields, "grant_type=client_credentials").await.error("invalid_dpop_proof");
        }
        let fields = [("authorization", &*basic("basic-client", &secret)), ("dpop", &*prover.proof()), lie];
        server.post(&fields, "grant_type=client_credentials").await.ok_of_type("DPoP");
    }
}

async fn without_the_database_a_proof_is_not_taken_and_a_secret_is(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let prover = Prover::new();
    server.basic("basic-client", &secret, "").await.ok();
    server.db.sql("drop table spent_jti").await.unwrap();
    let proof = prover.proof();
    let answer = ask(&server, "basic-client", &secret, &proof).await;
    answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    assert!(!answer.header("retry-after").is_empty());
    server.basic("basic-client", &secret, "").await.ok();
}

fn certificate(der: &[u8]) -> PeerCertificate {
    PeerCertificate {
        intermediates: Arc::default(),
        certificate: Arc::new(Certificate::parse(der).unwrap()),
        ca_verified: Err("no CA".into()),
    }
}

fn self_signed(name: &str) -> PeerCertificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    certificate(made.der())
}

async fn ask_over(
    server: &Server,
    certificate: Option<&PeerCertificate>,
    id: &str,
    secret: &str,
    proof: Option<&str>,
) -> Answer {
    let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: certificate.cloned() };
    let authorization = basic(id, secret);
    let fields: Vec<(&str, &str)> =
        std::iter::once(("authorization", &*authorization)).chain(proof.map(|proof| ("dpop", proof))).collect();
    server.send_by(&caller, form("/token", &fields, "grant_type=client_credentials")).await
}

async fn a_token_is_bound_to_the_certificate_of_its_request(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(Client { require_mtls_binding: true, ..client("mtls-bound-client") }).await;
    let free = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    // Certificates of no known CA bind as well.
    let (a, b, example) = (
        self_signed("a.test"),
        self_signed("b.test"),
        certificate(&BASE64_STANDARD.decode(RFC_8705_CERTIFICATE).unwrap()),
    );
    assert_eq!(example.certificate.x5t_s256(), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    for certificate in [&a, &b, &example] {
        let answer = ask_over(&server, Some(certificate), "mtls-bound-client", &secret, None).await;
        answer.ok_of_type("Bearer");
        assert_eq!(answer.token().1["cnf"], json!({"x5t#S256": certificate.certificate.x5t_s256()}));
    }
    ask_over(&server, None, "mtls-bound-client", &secret, None).await.error("invalid_request");
    ask_over(&server, Some(&a), "mtls-bound-client", "wrong", None).await.unauthorized();
    let (_, claims) = ask_over(&server, Some(&a), "basic-client", &free, None).await.token();
    assert!(claims.get("cnf").is_none(), "a client that is not registered for it authenticates as it likes");
}

async fn one_token_may_carry_both_bindings(db: Db) {
    let setup = Setup::new(db).await;
    let both = Client { require_dpop: true, require_mtls_binding: true, ..client("both") };
    let secret = setup.client(both).await;
    let server = setup.start().await;
    let (prover, certificate) = (Prover::new(), self_signed("a.test"));
    let proof = prover.proof();
    ask_over(&server, Some(&certificate), "both", &secret, None).await.error("invalid_dpop_proof");
    ask_over(&server, None, "both", &secret, Some(&proof)).await.error("invalid_request");
    let answer = ask_over(&server, Some(&certificate), "both", &secret, Some(&proof)).await;
    answer.ok_of_type("DPoP");
    let bound = json!({"jkt": prover.jkt(), "x5t#S256": certificate.certificate.x5t_s256()});
    assert_eq!(answer.token().1["cnf"], bound);
}

async fn the_metadata_lists_the_bindings_on_offer(db: Db) {
    let (server, _) = Setup::with_basic_client(db).await;
    let metadata = server.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(
        metadata["dpop_signing_alg_values_supported"],
        json!(["ES256", "ES384", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"])
    );
    assert!(metadata.get("tls_client_certificate_bound_access_tokens").is_none(), "no listener asks for certificates");
}

/// RFC 8705 appendix A.
const RFC_8705_CERTIFICATE: &str = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAww\
                  EbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ/Au08/coZwxS7LfA4vOLS9WuneIXhb\
                  GGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOVbUlJSGQgjwD5v\
                  aUaKlLR50Q2DmFfQj1L+SY=";

async fn a_proof_must_name_the_url_of_the_listener_it_arrived_at(db: Db) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut setup = Setup::new(db).await;
    let mtls = &mut setup.settings.server.mtls;
    mtls.listen = "127.0.0.1:0".into();
    mtls.public_url = "https://mtls.as.test".into();
    mtls.cert_file = setup.db.file("tls.pem", &made.cert.pem());
    mtls.key_file = setup.db.file("tls.key", &made.signing_key.serialize_pem());
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let prover = Prover::new();
    let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: None };
    for (door, htu, good) in [
        (ListenerUrl::Issuer, "https://as.test/token", true),
        (ListenerUrl::Issuer, "https://mtls.as.test/token", false),
        (ListenerUrl::MtlsAlias, "https://mtls.as.test/token", true),
        (ListenerUrl::MtlsAlias, "https://as.test/token", false),
    ] {
        let proof = prover.proof_with("htu", htu);
        let fields = [("authorization", &*basic("basic-client", &secret)), ("dpop", &*proof), ("host", "as.test")];
        let request = form("/token", &fields, "grant_type=client_credentials");
        let response = server.app.answer(door, &caller, request).await;
        let expected = if good { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        assert_eq!(response.status(), expected, "{door:?} {htu}");
    }
}
