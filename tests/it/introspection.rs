//! Answers of introspection to resource servers.

use std::sync::Arc;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::certificate::Certificate;
use grantd::crypto::jwk::Alg;
use grantd::http::Caller;
use grantd::model::certificate::PeerCertificate;
use grantd::model::client::Client;
use grantd::model::resource::Resource;
use grantd::model::time::{Clock, Span};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde_json::{Value, json};

use crate::assertion::{Signer, TYPE};
use crate::dpop::Prover;
use crate::harness::{Answer, Db, ISS, Server, Setup, basic, client, form};
use crate::mutual_tls::self_signed;

on_both!(
    only_resource_servers_are_told_anything,
    token_is_required_once_and_a_hint_decides_nothing,
    an_active_token_is_described_by_its_own_claims,
    every_inactive_token_gets_the_same_answer,
    only_resource_servers_of_its_audience_may_introspect_a_token,
    the_default_audience_has_introspectors_once_it_is_a_resource,
    a_deleted_or_disabled_client_has_no_active_tokens,
    introspection_tells_the_bindings,
    an_inactive_answer_is_the_same_in_every_accepted_format,
    tokens_of_a_retiring_key_are_active_and_of_a_removed_one_inactive,
    without_the_database_nobody_is_told_that_a_token_is_inactive,
    the_signed_form_is_sent_when_accept_names_it,
    a_resource_server_chooses_the_signing_algorithm_among_known_ones,
    an_accept_that_does_not_name_the_signed_form_gets_the_same_bytes,
    the_signed_form_is_refused_as_an_access_token,
    the_metadata_names_the_endpoints,
);

const API1: &str = "https://api1.test";

pub fn resource(identifier: &str, introspectors: &[&str]) -> Resource {
    Resource {
        identifier: identifier.parse().unwrap(),
        scope: "api:read api:write".parse().unwrap(),
        alg: None,
        token_ttl: None,
        token_typ: grantd::model::resource::TokenTyp::default(),
        status_list: false,
        introspectors: introspectors.iter().map(|id| id.parse().unwrap()).collect(),
    }
}

/// The client `basic-client` for api1 and api2; `rs1` and `rs2`, which may introspect their tokens.
struct World {
    server: Server,
    basic_client: String,
    rs1: String,
    rs2: String,
}

impl World {
    async fn with(mut setup: Setup, change: impl FnOnce(&mut Setup)) -> Self {
        change(&mut setup);
        let rs1 = setup.client(client("rs1")).await;
        let rs2 = setup.client(client("rs2")).await;
        setup.save(resource(API1, &["rs1"])).await;
        setup.save(resource("https://api2.test", &["rs2"])).await;
        let resources = [API1.parse().unwrap(), "https://api2.test".parse().unwrap()].into();
        let basic_client = setup.client(Client { resources, ..client("basic-client") }).await;
        Self { server: setup.start().await, basic_client, rs1, rs2 }
    }

    async fn new(db: Db) -> Self {
        Self::with(Setup::new(db).await, |_| ()).await
    }

    async fn token(&self) -> String {
        self.server.basic("basic-client", &self.basic_client, &format!("resource={API1}")).await.access_token()
    }

    async fn by_rs1(&self, token: &str) -> Answer {
        self.server.introspect("rs1", &self.rs1, token).await
    }
}

async fn only_resource_servers_are_told_anything(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    let get = world.server.get(&format!("/introspect?token={token}")).await;
    assert_eq!((get.status, get.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    world.server.post_to("/introspect", &[], format!("token={token}")).await.unauthorized();
    world.server.introspect("rs1", "wrong", &token).await.unauthorized();
    world
        .server
        .post_to("/introspect", &[("authorization", &format!("Bearer {token}"))], format!("token={token}"))
        .await
        .unauthorized();
    // Its own client is no resource server.
    world.server.introspect("basic-client", &world.basic_client, &token).await.inactive();
    assert_eq!(world.by_rs1(&token).await.json()["active"], true);
    // A secret in the body is as good.
    let form = format!("client_id=rs1&client_secret={}&token={token}", world.rs1);
    assert_eq!(world.server.post_to("/introspect", &[], form).await.json()["active"], true);
}

async fn token_is_required_once_and_a_hint_decides_nothing(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    let authorization = basic("rs1", &world.rs1);
    let ask = async |path: &str, form: &str| {
        world.server.post_to(path, &[("authorization", &authorization)], form.to_owned()).await
    };
    for form in ["", "token=", &format!("token={token}&token={token}"), "token=%ZZ"] {
        ask("/introspect", form).await.error("invalid_request");
    }
    ask(&format!("/introspect?token={token}"), "").await.error("invalid_request");
    let mut answers = Vec::new();
    for hint in ["", "&token_type_hint=access_token", "&token_type_hint=refresh_token", "&token_type_hint=foo"] {
        answers.push(ask("/introspect", &format!("token={token}{hint}")).await.json());
    }
    assert!(answers.iter().all(|answer| answer["active"] == true && *answer == answers[0]), "{answers:?}");
    let twice = format!("token={token}&token_type_hint=a&token_type_hint=b");
    assert_eq!(ask("/introspect", &twice).await.json()["active"], true, "nothing is read from it");
}

async fn an_active_token_is_described_by_its_own_claims(db: Db) {
    let setup = Setup::new(db).await;
    let rs1 = setup.client(client("rs1")).await;
    setup.save(resource(API1, &["rs1"])).await;
    let claims = json!({"team": "finance", "active": false, "username": "root", "token_type": "x"});
    let claims = claims.to_string().parse().unwrap();
    let basic_client =
        setup.client(Client { claims, resources: [API1.parse().unwrap()].into(), ..client("basic-client") }).await;
    let server = setup.start().await;
    let answer = server.basic("basic-client", &basic_client, "scope=api:read+api:write").await;
    let (_, issued) = answer.token();
    let told = server.introspect("rs1", &rs1, &answer.access_token()).await;
    assert_eq!((told.status, told.header("content-type")), (StatusCode::OK, "application/json"));
    assert_eq!((told.header("cache-control"), told.header("vary")), ("no-store", "accept"));
    let told = told.json();
    for name in ["scope", "client_id", "exp", "iat", "sub", "aud", "iss", "jti", "team"] {
        assert_eq!(told[name], issued[name], "{name}");
        assert!(!told[name].is_null(), "{name}");
    }
    assert_eq!((&told["active"], &told["token_type"]), (&json!(true), &json!("Bearer")));
    assert!(told.get("username").is_none() && told.get("cnf").is_none());
}

async fn every_inactive_token_gets_the_same_answer(db: Db) {
    let (clock, hand) = Clock::fixed(1_700_000_000);
    let world = World::with(Setup::new(db).await, |setup| setup.clock = clock).await;
    let token = world.token().await;
    let parts: Vec<&str> = token.split('.').collect();
    let altered = |at: usize, by: &dyn Fn(&mut Value)| {
        let mut part: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[at]).unwrap()).unwrap();
        by(&mut part);
        let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        parts[at] = BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        parts.join(".")
    };
    let now = world.server.server.clock.now();
    let key = world.server.server.keyring.signing(Alg::Es256, now).unwrap();
    let signed = |change: &dyn Fn(&mut Value)| {
        let mut claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        change(&mut claims);
        key.sign(claims.to_string().as_bytes()).unwrap()
    };
    let as_kind = |typ: &str| key.sign_as(typ, &BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    assert_eq!(world.by_rs1(&signed(&|_| ())).await.json()["active"], true);
    let prover = Prover::new();
    let mut wrong = vec![
        "garbage".to_owned(),
        "a.b.c".into(),
        "a.b.c.d.e".into(),
        "x".repeat(15_000),
        format!("{token}."),
        format!("{token}="),
        format!("%20{token}"),
        token.to_lowercase(),
        altered(1, &|claims| claims["scope"] = "api:admin".into()),
        altered(0, &|header| header["alg"] = "none".into()),
        altered(0, &|header| header["alg"] = "HS256".into()),
        altered(0, &|header| header["kid"] = "x".into()),
        altered(0, &|header| drop(header.as_object_mut().unwrap().remove("kid"))),
        format!("{}.{}.{}", parts[0], parts[1], prover.proof().rsplit('.').next().unwrap()),
        signed(&|claims| claims["iss"] = "https://evil.test".into()),
        signed(&|claims| claims["exp"] = now.0.into()),
        signed(&|claims| claims["iat"] = (now.0 + 3600).into()),
        signed(&|claims| claims["aud"] = json!([API1, "https://api2.test"])),
        signed(&|claims| claims["aud"] = "https://unknown.test".into()),
        signed(&|claims| claims["client_id"] = "nobody".into()),
        signed(&|claims| claims["jti"] = "short".into()),
        as_kind("dpop+jwt"),
        as_kind("token-introspection+jwt"),
        as_kind("client-authentication+jwt"),
        prover.proof(),
    ];
    // Cut short at any place.
    wrong.extend((1..40).map(|cut| token[..token.len() - cut].to_owned()));
    for token in &wrong {
        world.by_rs1(token).await.inactive();
    }
    let face = world.by_rs1("garbage").await.face();
    assert_eq!(world.server.introspect("rs2", &world.rs2, &token).await.face(), face, "one answer");
    hand.store(now.0 + 3599, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(world.by_rs1(&token).await.json()["active"], true);
    hand.store(now.0 + 3600, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(world.by_rs1(&token).await.face(), face, "expired");
}

async fn only_resource_servers_of_its_audience_may_introspect_a_token(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    for _ in 0..2 {
        assert_eq!(world.by_rs1(&token).await.json()["aud"], API1);
        world.server.introspect("rs2", &world.rs2, &token).await.inactive();
    }
    let other =
        world.server.basic("basic-client", &world.basic_client, "resource=https://api2.test").await.access_token();
    world.by_rs1(&other).await.inactive();
    // Within a second of the change.
    let by_rs2 = |resource: &mut Resource| resource.introspectors = vec!["rs2".parse().unwrap()];
    assert_eq!(world.server.store.update_resource(API1, by_rs2).await.unwrap(), Some(true));
    world.server.refresh().await;
    world.by_rs1(&token).await.inactive();
    assert_eq!(world.server.introspect("rs2", &world.rs2, &token).await.json()["active"], true);
}

async fn the_default_audience_has_introspectors_once_it_is_a_resource(db: Db) {
    let setup = Setup::new(db).await;
    let (rs1, basic_client) = (setup.client(client("rs1")).await, setup.client(client("basic-client")).await);
    let server = setup.start().await;
    let token = server.basic("basic-client", &basic_client, "").await.access_token();
    server.introspect("rs1", &rs1, &token).await.inactive();
    server.store.create_resource(&resource(ISS, &["rs1"]), server.server.clock.now()).await.unwrap();
    server.refresh().await;
    assert_eq!(server.introspect("rs1", &rs1, &token).await.json()["aud"], ISS);
    server.introspect("basic-client", &basic_client, &token).await.inactive();
    server.basic("basic-client", &basic_client, "").await.ok();
}

async fn a_deleted_or_disabled_client_has_no_active_tokens(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    for (enabled, active) in [(false, false), (true, true)] {
        assert!(world.server.store.set_client_enabled("basic-client", enabled).await.unwrap());
        world.server.refresh().await;
        assert_eq!(world.by_rs1(&token).await.json()["active"], active);
    }
    // A disabled caller is told nothing.
    world.server.store.set_client_enabled("rs1", false).await.unwrap();
    world.server.refresh().await;
    world.by_rs1(&token).await.unauthorized();
    world.server.store.set_client_enabled("rs1", true).await.unwrap();
    world.server.store.delete_client("basic-client").await.unwrap();
    world.server.refresh().await;
    world.by_rs1(&token).await.inactive();
}

async fn introspection_tells_the_bindings(db: Db) {
    let world = World::new(db).await;
    let prover = Prover::new();
    let fields = [("authorization", &*basic("basic-client", &world.basic_client)), ("dpop", &*prover.proof())];
    let body = format!("grant_type=client_credentials&resource={API1}");
    let token = world.server.post(&fields, body).await.access_token();
    let told = world.by_rs1(&token).await.json();
    assert_eq!((&told["token_type"], &told["cnf"]), (&json!("DPoP"), &json!({"jkt": prover.jkt()})));

    // A certificate binds without a type of its own (RFC 8705 section 3).
    let bound =
        Client { require_mtls_binding: true, resources: [API1.parse().unwrap()].into(), ..client("mtls-bound-client") };
    world.server.store.create_client(&bound, None).await.unwrap();
    let signer = Signer::es256();
    world.server.store.add_client_keys("mtls-bound-client", &[signer.stored()]).await.unwrap();
    world.server.refresh().await;
    let certificate = Arc::new(Certificate::parse(&self_signed("svc").chain()[0]).unwrap());
    let peer = PeerCertificate {
        intermediates: Arc::default(),
        certificate: Arc::clone(&certificate),
        ca_verified: Err("no CA".into()),
    };
    let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: Some(peer) };
    let assertion = format!("client_assertion_type={TYPE}&client_assertion={}", signer.fresh("mtls-bound-client"));
    let asked = form("/token", &[], format!("grant_type=client_credentials&{assertion}"));
    let token = world.server.send_by(&caller, asked).await.access_token();
    let told = world.by_rs1(&token).await.json();
    let cnf = json!({"x5t#S256": certificate.x5t_s256()});
    assert_eq!((&told["active"], &told["token_type"], &told["cnf"]), (&json!(true), &json!("Bearer"), &cnf));
}

async fn an_inactive_answer_is_the_same_in_every_accepted_format(db: Db) {
    let (clock, hand) = Clock::fixed(1_700_000_000);
    let world = World::with(Setup::new(db).await, |setup| setup.clock = clock).await;
    let expired = world.token().await;
    hand.store(1_700_003_600, std::sync::atomic::Ordering::Relaxed);
    let (revoked, not_mine) = (world.token().await, world.token().await);
    assert_eq!(world.server.revoke("basic-client", &world.basic_client, &revoked).await.status, StatusCode::OK);
    assert_eq!(world.by_rs1(&not_mine).await.json()["active"], true);
    let both = format!("application/json;q=0.1, {SIGNED}");
    for accept in ["application/json", "*/*", "", SIGNED, &both] {
        let mut first: Option<(String, String)> = None;
        for token in [&not_mine, &expired, &revoked, "garbage", "a.b.c", &not_mine[1..]] {
            let answer = ask_signed(&world, "rs2", &world.rs2, token, accept).await;
            // ECDSA is never the same twice; what is signed is, by a clock that stands.
            let parts = answer.body.rsplit_once('.').map_or(answer.body.clone(), |(signed, _)| signed.to_owned());
            let length = answer.header("content-length").to_owned();
            let seen = (answer.face().replace(&answer.body, ""), format!("{length} {parts}"));
            let first = first.get_or_insert_with(|| seen.clone());
            assert_eq!(seen, *first, "{accept} {token}");
        }
        let (_, body) = first.unwrap();
        assert_eq!(body.contains("active"), accept != SIGNED && accept != both, "{body}");
    }
}

async fn tokens_of_a_retiring_key_are_active_and_of_a_removed_one_inactive(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    let now = world.server.server.clock.now();
    let under = grantd::crypto::seal::SealingKey::from_base64(&world.server.sealing_key).unwrap();
    let first = world.server.store.keys().await.unwrap().remove(0);
    let next = grantd::store::keys::new_key(Alg::Es256, &under, now, Span::from_secs(0)).unwrap();
    world.server.store.add_key(&next).await.unwrap();
    world.server.refresh().await;
    assert_eq!(world.by_rs1(&token).await.json()["active"], true);
    world.server.store.remove_key(&first.kid, None).await.unwrap();
    world.server.refresh().await;
    world.by_rs1(&token).await.inactive();
}

async fn without_the_database_nobody_is_told_that_a_token_is_inactive(db: Db) {
    let setup = Setup::new(db).await;
    let world = World::with(setup, |setup| setup.settings.registry.max_stale = "4s".into()).await;
    let token = world.token().await;
    assert_eq!(world.by_rs1(&token).await.json()["active"], true);
    world.server.db.sql("drop table registry_revision").await.unwrap();
    let until = async |wanted: fn(grantd::state::registry::Freshness) -> bool| {
        let started = std::time::Instant::now();
        while !wanted(world.server.server.registry.freshness()) {
            assert!(started.elapsed().as_secs() < 10);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    until(|freshness| matches!(freshness, grantd::state::registry::Freshness::Stale(_))).await;
    // What is known is told; what may be new is not called wrong; what can never be right is.
    assert_eq!(world.by_rs1(&token).await.json()["active"], true);
    world
        .server
        .introspect("rs2", &world.rs2, &token)
        .await
        .refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    world.by_rs1("garbage").await.inactive();
    until(|freshness| freshness == grantd::state::registry::Freshness::Unusable).await;
    for token in [&*token, "garbage"] {
        let answer = world.by_rs1(token).await;
        answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        assert!(!answer.header("retry-after").is_empty());
    }
}

async fn ask_signed(world: &World, id: &str, secret: &str, token: &str, accept: &str) -> Answer {
    let fields = [("authorization", &*basic(id, secret)), ("accept", accept)];
    world.server.post_to("/introspect", &fields, format!("token={token}")).await
}

const SIGNED: &str = "application/token-introspection+jwt";

async fn the_signed_form_is_sent_when_accept_names_it(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    let keys: JwkSet = serde_json::from_str(&world.server.get("/jwks").await.body).unwrap();
    let read = |answer: &Answer| {
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, SIGNED), "{}", answer.body);
        assert_eq!((answer.header("cache-control"), answer.header("vary")), ("no-store", "accept"));
        let header = jsonwebtoken::decode_header(&answer.body).unwrap();
        assert_eq!(header.typ.as_deref(), Some("token-introspection+jwt"));
        let key = keys.find(header.kid.as_deref().unwrap()).unwrap();
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        decode::<Value>(&answer.body, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap().claims
    };
    let claims = read(&ask_signed(&world, "rs1", &world.rs1, &token, SIGNED).await);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(ISS), &json!("rs1")), "for the caller");
    assert!((claims["iat"].as_i64().unwrap() - Clock::System.now().0).abs() < 5);
    let mut members: Vec<&str> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["aud", "iat", "iss", "token_introspection"], "no top-level sub or exp");
    assert_eq!(claims["token_introspection"], world.by_rs1(&token).await.json());
    for (id, secret, token) in [("rs2", &world.rs2, &*token), ("rs1", &world.rs1, "garbage")] {
        let claims = read(&ask_signed(&world, id, secret, token, SIGNED).await);
        assert_eq!(claims["token_introspection"], json!({"active": false}));
        assert_eq!(claims["aud"], id);
    }
    for json in ["*/*", "application/json", "text/html"] {
        let answer = ask_signed(&world, "rs1", &world.rs1, &token, json).await;
        assert_eq!((answer.header("content-type"), answer.header("vary")), ("application/json", "accept"));
    }
    read(&ask_signed(&world, "rs1", &world.rs1, &token, &format!("application/json;q=0.5, {SIGNED}")).await);
    ask_signed(&world, "rs1", "wrong", &token, SIGNED).await.unauthorized();
}

async fn a_resource_server_chooses_the_signing_algorithm_among_known_ones(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    let alg = async || {
        let answer = ask_signed(&world, "rs1", &world.rs1, &token, SIGNED).await;
        let header = BASE64_URL_SAFE_NO_PAD.decode(answer.body.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        let published = world.server.get("/jwks").await.json();
        let keys = published["keys"].as_array().unwrap();
        assert!(
            keys.iter().any(|key| key["kid"] == header["kid"] && key["alg"] == header["alg"]),
            "signed by a published key"
        );
        header["alg"].as_str().unwrap().to_owned()
    };
    assert_eq!(alg().await, "ES256");
    let sql = "update client set introspection_signed_response_alg = 'EdDSA' where client_id = 'rs1'";
    world.server.db.sql(sql).await.unwrap();
    world.server.refresh().await;
    // The first key of the algorithm is made now, and published before anything is signed by it.
    let started = std::time::Instant::now();
    while world.server.get("/jwks").await.json()["keys"].as_array().unwrap().len() < 2 {
        assert!(started.elapsed() < std::time::Duration::from_secs(3));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(alg().await, "EdDSA");
    for unknown in ["none", "HS256", "RS512", ""] {
        let sql = format!("update client set introspection_signed_response_alg = '{unknown}' where client_id = 'rs1'");
        let refused = world.server.db.sql(&sql).await.unwrap_err().to_string();
        assert!(refused.contains("introspection_signed_response_alg: ES256 EdDSA PS256 or RS256"), "{refused}");
    }
}

async fn an_accept_that_does_not_name_the_signed_form_gets_the_same_bytes(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    let plain = world.by_rs1(&token).await;
    assert_eq!(plain.json()["active"], true);
    for accept in [
        "application/json",
        "*/*",
        "application/*",
        "text/html",
        "",
        "application/token-introspection",
        &format!("application/json, {SIGNED};q=0.9"),
        &format!("{SIGNED};q=0"),
        &format!("*/*, {SIGNED};q=0.0"),
    ] {
        let answer = ask_signed(&world, "rs1", &world.rs1, &token, accept).await;
        assert_eq!(answer.face(), plain.face(), "{accept}");
    }
    for accept in [SIGNED, &SIGNED.to_uppercase(), &format!("{SIGNED};q=0.5, */*;q=0.1")] {
        let answer = ask_signed(&world, "rs1", &world.rs1, &token, accept).await;
        assert_eq!(answer.header("content-type"), SIGNED, "{accept}");
        let claims = answer.body.split('.').nth(1).unwrap();
        let claims = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert!(claims.contains(&plain.body), "the same bytes, signed: {claims}");
    }
}

async fn the_signed_form_is_refused_as_an_access_token(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    let jwt = ask_signed(&world, "rs1", &world.rs1, &token, SIGNED).await.body;
    world.by_rs1(&jwt).await.inactive();
    let assertion = "grant_type=client_credentials&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion=";
    for other in [&jwt, &token] {
        world.server.post(&[], format!("{assertion}{other}")).await.unauthorized();
        let fields = [("authorization", &*basic("basic-client", &world.basic_client)), ("dpop", &**other)];
        world.server.post(&fields, "grant_type=client_credentials").await.error("invalid_dpop_proof");
    }
}

async fn the_metadata_names_the_endpoints(db: Db) {
    let world = World::new(db).await;
    let metadata = world.server.get("/.well-known/oauth-authorization-server").await.json();
    for (name, path) in [("introspection", "/introspect"), ("revocation", "/revoke")] {
        assert_eq!(metadata[format!("{name}_endpoint")], format!("{ISS}{path}"));
        let methods = &metadata[format!("{name}_endpoint_auth_methods_supported")];
        assert_eq!(*methods, metadata["token_endpoint_auth_methods_supported"]);
    }
    assert_eq!(metadata["introspection_signing_alg_values_supported"], json!(["ES256", "EdDSA", "PS256", "RS256"]));
}
