//! Clients that sign a JWT for each request, and the attacks on them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::model::client::Client;
use grantd::model::time::{Clock, UnixTime};
use serde_json::{Value, json};

use crate::assertion::{Signer, TYPE, ask, ask_at, claims, claims_at};
use crate::harness::{Db, ISS, Server, Setup, basic, client, set_auth_methods};

on_both!(
    one_assertion_of_the_registered_type_is_required,
    iss_sub_and_client_id_are_the_same,
    aud_is_the_issuer_and_nothing_else,
    exp_nbf_and_iat_are_numbers_near_the_current_time,
    an_assertion_is_used_once_on_all_replicas_and_by_one_of_fifty_requests,
    a_jti_is_compared_exactly_and_belongs_to_its_client,
    a_spent_assertion_stays_refused_at_every_second,
    only_its_owner_spends_a_jti,
    jwts_of_other_kinds_are_refused_as_assertions,
    an_assertion_that_is_not_signed_by_the_clients_key_is_refused,
    each_algorithm_works_with_its_own_key,
    several_keys_overlap_and_each_expires_by_itself,
    an_unknown_client_looks_like_a_wrong_signature,
    assertions_are_checked_alike_at_every_endpoint,
    a_change_by_an_administrator_is_in_force_at_once,
    without_the_database_no_assertion_is_taken_and_a_secret_is,
    a_malformed_key_stops_its_own_client_alone,
    expired_ids_are_swept,
);

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims("jwt-client");
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims("jwt-client");
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// A server with the client `jwt-client`, and its key.
async fn with_jwt_client(db: Db) -> (Server, Signer) {
    let (setup, signer) = (Setup::new(db).await, Signer::es256());
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    (setup.start().await, signer)
}

async fn one_assertion_of_the_registered_type_is_required(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    let answer = ask(&server, &signer.fresh("jwt-client")).await;
    assert_eq!(
        (&answer.token().1["sub"], &answer.token().1["client_id"]),
        (&"jwt-client".into(), &"jwt-client".into())
    );
    let post = async |form: String| server.post(&[], format!("grant_type=client_credentials&{form}")).await;
    let assertion = || signer.fresh("jwt-client");
    post(format!("client_assertion={}", assertion())).await.unauthorized();
    post(format!("client_assertion_type={TYPE}")).await.unauthorized();
    post(format!("client_assertion_type={TYPE}&client_assertion=")).await.unauthorized();
    for other in ["jwt-bearer", &TYPE.to_uppercase(), "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"] {
        post(format!("client_assertion_type={other}&client_assertion={}", assertion())).await.unauthorized();
    }
    let twice = format!("client_assertion_type={TYPE}&client_assertion={0}&client_assertion={0}", assertion());
    post(twice).await.error("invalid_request");
    let types = format!("client_assertion_type={TYPE}&client_assertion_type={TYPE}&client_assertion={}", assertion());
    post(types).await.error("invalid_request");
    post(format!("client_id=jwt-client&client_secret=x&client_assertion_type={TYPE}&client_assertion={}", assertion()))
        .await
        .error("invalid_request");
    let form = format!("grant_type=client_credentials&client_assertion_type={TYPE}&client_assertion={}", assertion());
    server.post(&[("authorization", &basic("jwt-client", "x"))], form).await.error("invalid_request");
    let uri = format!("/token?client_assertion={}", assertion());
    server.post_to(&uri, &[], "grant_type=client_credentials").await.error("invalid_request");
}

async fn iss_sub_and_client_id_are_the_same(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    let other = Signer::es256();
    server.store.create_client(&client("other"), None).await.unwrap();
    server.store.add_client_keys("other", &[other.stored()]).await.unwrap();
    server.refresh().await;
    for (why, claims) in [
        ("no iss", without("iss")),
        ("no sub", without("sub")),
        ("another iss", with("iss", "other")),
        ("another sub", with("sub", "other")),
        ("iss in upper case", with("iss", "PK")),
        ("iss is our issuer", with("iss", ISS)),
        ("an array", with("sub", json!(["jwt-client"]))),
        ("a number", with("sub", 1)),
        ("null", with("iss", Value::Null)),
        ("empty", with("sub", "")),
        ("long", with("sub", "p".repeat(129))),
    ] {
        let answer = ask(&server, &signer.assert(&claims)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{why}: {}", answer.body);
        answer.unauthorized();
    }
    ask(&server, &signer.fresh("other")).await.unauthorized();
    ask(&server, &other.fresh("jwt-client")).await.unauthorized();
    ask_at(&server, "/token", "grant_type=client_credentials&client_id=jwt-client", &signer.fresh("jwt-client"))
        .await
        .ok();
    ask_at(&server, "/token", "grant_type=client_credentials&client_id=other", &signer.fresh("jwt-client"))
        .await
        .unauthorized();
}

async fn aud_is_the_issuer_and_nothing_else(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    ask(&server, &signer.assert(&with("aud", ISS))).await.ok();
    // Libraries put the one audience into an array; nothing can stand beside it.
    ask(&server, &signer.assert(&with("aud", json!([ISS])))).await.ok();
    for aud in [
        json!([ISS, "https://evil.test"]),
        json!(["https://evil.test", ISS]),
        json!([ISS, ISS]),
        json!([]),
        json!(format!("{ISS}/token")),
        json!(format!("{ISS}/introspect")),
        json!(format!("{ISS}/")),
        json!("https://AS.test"),
        json!("https://as.test:443"),
        json!("https://u@as.test"),
        json!("https://other.test"),
        json!(""),
        json!(null),
        json!(1),
        json!({"a": ISS}),
    ] {
        let answer = ask(&server, &signer.assert(&with("aud", aud.clone()))).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{aud}");
    }
    ask(&server, &signer.assert(&without("aud"))).await.unauthorized();
}

async fn exp_nbf_and_iat_are_numbers_near_the_current_time(db: Db) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(1_800_000_000);
    setup.clock = clock;
    let signer = Signer::es256();
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    let now = hand.load(Ordering::Relaxed);
    let asked = async |name: &str, value: Value| {
        let mut claims = claims_at("jwt-client", now);
        claims[name] = value;
        ask(&server, &signer.assert(&claims)).await.status == StatusCode::OK
    };
    for (name, seconds, taken) in [
        ("exp", 300, true),
        ("exp", 330, true),
        ("exp", 331, false),
        ("exp", 3600, false),
        ("exp", 31_536_000, false),
        ("exp", 1, true),
        ("exp", 0, true),
        ("exp", -9, true),
        ("exp", -11, false),
        ("exp", -300, false),
        ("nbf", -3600, true),
        ("nbf", 0, true),
        ("nbf", 8, true),
        ("nbf", 30, true),
        ("nbf", 31, false),
        ("nbf", 61, false),
        ("nbf", 3600, false),
        // Of 3660 seconds, and of 330, from iat to exp.
        ("iat", -3600, false),
        ("iat", -271, false),
        ("iat", -270, true),
        ("iat", -61, true),
        ("iat", 8, true),
        ("iat", 61, false),
        ("iat", 3600, false),
        ("iat", -31_536_000, false),
    ] {
        assert_eq!(asked(name, json!(now + seconds)).await, taken, "{name} {seconds}");
    }
    assert!(asked("exp", serde_json::from_str(&format!("{now}.5e0")).unwrap()).await, "a fraction is a number");
    for name in ["exp", "nbf", "iat"] {
        for value in [
            json!(now.to_string()),
            json!("never"),
            json!(null),
            json!(true),
            json!([now]),
            json!({}),
            json!(-1),
            json!(1e20),
            json!(1e300),
            json!(u64::MAX),
        ] {
            assert!(!asked(name, value.clone()).await, "{name} {value}");
        }
    }
    for name in ["nbf", "iat"] {
        let mut claims = claims_at("jwt-client", now);
        claims.as_object_mut().unwrap().remove(name);
        ask(&server, &signer.assert(&claims)).await.ok();
    }
    let mut claims = claims_at("jwt-client", now);
    claims.as_object_mut().unwrap().remove("exp");
    ask(&server, &signer.assert(&claims)).await.unauthorized();
}

async fn an_assertion_is_used_once_on_all_replicas_and_by_one_of_fifty_requests(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    let replica = server.replica().await;
    let assertion = signer.fresh("jwt-client");
    ask(&server, &assertion).await.ok();
    ask(&server, &assertion).await.unauthorized();
    ask(&replica, &assertion).await.unauthorized();
    // A replica that was started again knows as much.
    ask(&server.replica().await, &assertion).await.unauthorized();

    let (server, replica, assertion) = (Arc::new(server), Arc::new(replica), Arc::new(signer.fresh("jwt-client")));
    let mut asking = Vec::new();
    for number in 0..50 {
        let server = Arc::clone(if number % 2 == 0 { &server } else { &replica });
        let assertion = Arc::clone(&assertion);
        asking.push(tokio::spawn(async move { ask(&server, &assertion).await.status }));
    }
    let mut issued = 0;
    for answer in asking {
        match answer.await.unwrap() {
            StatusCode::OK => issued += 1,
            StatusCode::UNAUTHORIZED => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(issued, 1);
}

async fn a_jti_is_compared_exactly_and_belongs_to_its_client(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    let other = Signer::es256();
    server.store.create_client(&client("other"), None).await.unwrap();
    server.store.add_client_keys("other", &[other.stored()]).await.unwrap();
    server.refresh().await;
    for jti in
        [json!(""), json!(null), json!(1), json!(["a"]), json!({}), json!("x".repeat(257)), json!("x".repeat(4096))]
    {
        ask(&server, &signer.assert(&with("jti", jti))).await.unauthorized();
    }
    ask(&server, &signer.assert(&without("jti"))).await.unauthorized();
    let long = "x".repeat(256);
    for jti in ["a", "A", "a ", " a", "a\0", "é", "e\u{301}", &long] {
        ask(&server, &signer.assert(&with("jti", jti))).await.ok();
        ask(&server, &signer.assert(&with("jti", jti))).await.unauthorized();
    }
    // Another spelling of the same bytes.
    let escaped = with("jti", "b").to_string().replace("\"b\"", "\"\\u0062\"");
    assert!(escaped.contains("\\u0062"));
    ask(&server, &signer.assert(&with("jti", "b"))).await.ok();
    ask(&server, &signer.sign(&signer.header().to_string(), &escaped)).await.unauthorized();
    // The same jti is new when another client uses it.
    let mut theirs = claims("other");
    theirs["jti"] = "a".into();
    ask(&server, &other.assert(&theirs)).await.ok();
}

async fn a_spent_assertion_stays_refused_at_every_second(db: Db) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(1_800_000_000);
    setup.clock = clock;
    let signer = Signer::es256();
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    let start = hand.load(Ordering::Relaxed);
    let mut claims = claims_at("jwt-client", start);
    claims["iat"] = (start + 25).into();
    claims["exp"] = (start + 20).into();
    let assertion = signer.assert(&claims);
    ask(&server, &assertion).await.ok();
    for second in 1..120 {
        let now = start + second;
        hand.store(now, Ordering::Relaxed);
        server.store.sweep_spent(UnixTime(now)).await.unwrap();
        ask(&server, &assertion).await.unauthorized();
    }
}

async fn only_its_owner_spends_a_jti(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    let claims = claims("jwt-client");
    ask(&server, &Signer::es256().assert(&claims)).await.unauthorized();
    let mut stale = claims.clone();
    stale["exp"] = 1.into();
    ask(&server, &signer.assert(&stale)).await.unauthorized();
    ask_at(&server, "/token", "grant_type=password", &signer.assert(&claims)).await.error("unsupported_grant_type");
    ask(&server, &signer.assert(&claims)).await.ok();
    // Once a client has authenticated, its assertion is spent, whatever it asked for.
    let assertion = signer.fresh("jwt-client");
    ask_at(&server, "/token", "grant_type=client_credentials&scope=none", &assertion).await.error("invalid_scope");
    ask(&server, &assertion).await.unauthorized();
}

async fn jwts_of_other_kinds_are_refused_as_assertions(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    let typed = |typ: Value| {
        let mut header = signer.header();
        header["typ"] = typ;
        signer.sign(&header.to_string(), &claims("jwt-client").to_string())
    };
    for typ in ["JWT", "jwt", "client-authentication+jwt", "application/client-authentication+jwt", "x+jwt"] {
        ask(&server, &typed(typ.into())).await.ok();
    }
    for typ in [
        "at+jwt",
        "application/at+jwt",
        "AT+JWT",
        "dpop+jwt",
        "oauth-authz-req+jwt",
        "token-introspection+jwt",
        "secevent+jwt",
        "logout+jwt",
        "entity-statement+jwt",
        "oauth-client-attestation+jwt",
        "oauth-client-attestation-pop+jwt",
        "",
    ] {
        ask(&server, &typed(typ.into())).await.unauthorized();
    }
    for typ in [json!(1), json!(null), json!(["JWT"])] {
        ask(&server, &typed(typ)).await.unauthorized();
    }
    let token = ask(&server, &signer.fresh("jwt-client")).await.access_token();
    ask(&server, &token).await.unauthorized();
    let proof = json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": signer.jwk()}).to_string();
    ask(&server, &signer.sign(&proof, &claims("jwt-client").to_string())).await.unauthorized();
}

async fn an_assertion_that_is_not_signed_by_the_clients_key_is_refused(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    let (thief, claims) = (Signer::es256().named("k1"), || claims("jwt-client").to_string());
    let mut forged = Vec::new();
    let text = |part: &str| BASE64_URL_SAFE_NO_PAD.encode(part);
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "ES384", "PS256", "RS256", "EdDSA"] {
        let header = json!({"alg": alg}).to_string();
        forged.push(format!("{}.{}.", text(&header), text(&claims())));
        forged.push(format!("{}.{}.{}", text(&header), text(&claims()), text("junk")));
        forged.push(signer.sign(&header, &claims()));
    }
    for header in [json!({}), json!({"alg": null}), json!({"alg": 0})] {
        forged.push(signer.sign(&header.to_string(), &claims()));
    }
    // A key that the header brings or names.
    for (member, value) in [
        ("jwk", thief.jwk()),
        ("crit", json!(["x"])),
        ("crit", json!([])),
        ("crit", json!("x")),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
    ] {
        let mut header = json!({"alg": "ES256"});
        header[member] = value;
        forged.push(thief.sign(&header.to_string(), &claims()));
        forged.push(signer.sign(&header.to_string(), &claims()));
    }
    // What points to a key is ignored: the thief's is not fetched, and the client's own goes on.
    for (member, value) in
        [("jku", json!("https://127.0.0.1:1/jwks")), ("x5u", json!("file:///etc/passwd")), ("x5c", json!(["AAAA"]))]
    {
        let mut header = json!({"alg": "ES256"});
        header[member] = value;
        forged.push(thief.sign(&header.to_string(), &claims()));
        ask(&server, &signer.sign(&header.to_string(), &claims())).await.ok();
    }
    // Hostile values of kid.
    for kid in [
        json!("../../../../dev/null"),
        json!("' OR 1=1--"),
        json!("\0"),
        json!("a\r\nb"),
        json!("x".repeat(9000)),
        json!(1),
        json!(null),
    ] {
        forged.push(thief.sign(&json!({"alg": "ES256", "kid": kid}).to_string(), &claims()));
    }
    // Duplicate members of the header and the claims.
    forged.push(signer.sign(r#"{"alg":"ES256","alg":"ES256"}"#, &claims()));
    forged.push(signer.sign(r#"{"alg":"ES256"}"#, &claims().replacen('{', r#"{"jti":"twice","#, 1)));
    // JWE, JSON serialization, non-canonical base64url, and bombs.
    let good = signer.fresh("jwt-client");
    forged.extend([
        format!("{good}.a.b"),
        format!("{good}="),
        format!("{good}%0A"),
        format!("+{good}"),
        ".".repeat(8000),
        "{\"payload\":\"\"}".to_owned(),
        "a".repeat(8193),
        good[..good.len() - 1].to_owned(),
        good.replacen('.', "", 1),
    ]);
    for forgery in forged {
        let answer = ask(&server, &forgery).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{forgery}");
        answer.unauthorized();
    }
    ask(&server, &good).await.ok();
}

async fn each_algorithm_works_with_its_own_key(db: Db) {
    let setup = Setup::new(db).await;
    let signers = [Signer::es256(), Signer::ed25519(), Signer::rsa("PS256"), Signer::rsa("RS256")];
    for signer in &signers {
        setup.store.create_client(&client(signer.alg()), None).await.unwrap();
        setup.store.add_client_keys(signer.alg(), &[signer.stored()]).await.unwrap();
    }
    let server = setup.start().await;
    let metadata = server.get("/.well-known/oauth-authorization-server").await.json();
    let listed = metadata["token_endpoint_auth_signing_alg_values_supported"].as_array().unwrap().clone();
    let every = ["ES256", "ES384", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];
    assert_eq!(listed, every, "the metadata lists every algorithm");
    for signer in &signers {
        ask(&server, &signer.fresh(signer.alg())).await.ok();
        for alg in ["ES256", "EdDSA", "PS256", "RS256", "ES384", "Ed448"].into_iter().filter(|alg| *alg != signer.alg())
        {
            let header = json!({"alg": alg}).to_string();
            ask(&server, &signer.sign(&header, &claims(signer.alg()).to_string())).await.unauthorized();
        }
    }
    let named = signers[1].sign(r#"{"alg":"Ed25519"}"#, &claims("EdDSA").to_string());
    ask(&server, &named).await.ok();
}

async fn several_keys_overlap_and_each_expires_by_itself(db: Db) {
    let (server, first) = with_jwt_client(db).await;
    let (second, third) = (Signer::ed25519().named("k2"), Signer::es256().named("k3"));
    server.store.add_client_keys("jwt-client", &[second.stored(), third.stored()]).await.unwrap();
    server.refresh().await;
    for signer in [&first, &second, &third] {
        ask(&server, &signer.fresh("jwt-client")).await.ok();
    }
    let unnamed = third.sign(r#"{"alg":"ES256"}"#, &claims("jwt-client").to_string());
    ask(&server, &unnamed).await.ok();
    let misnamed = third.sign(r#"{"alg":"ES256","kid":"k2"}"#, &claims("jwt-client").to_string());
    ask(&server, &misnamed).await.unauthorized();
    let thumbprint = first.stored().key.jkt().to_owned();
    let by_thumbprint = json!({"alg": "ES256", "kid": thumbprint}).to_string();
    ask(&server, &first.sign(&by_thumbprint, &claims("jwt-client").to_string())).await.ok();

    assert!(server.store.remove_client_key("jwt-client", "k2").await.unwrap());
    assert!(!server.store.remove_client_key("jwt-client", "k2").await.unwrap());
    server.db.sql("update client_key set expires_at = 5 where kid = 'k3'").await.unwrap();
    server.refresh().await;
    ask(&server, &second.fresh("jwt-client")).await.unauthorized();
    ask(&server, &third.fresh("jwt-client")).await.unauthorized();
    ask(&server, &first.fresh("jwt-client")).await.ok();
    let again = server.store.add_client_keys("jwt-client", &[first.stored()]).await.unwrap_err().to_string();
    assert!(again.contains("already"), "{again}");
    let nobody = server.store.add_client_keys("nobody", &[first.stored()]).await.unwrap_err().to_string();
    assert!(nobody.contains("no such client"), "{nobody}");
}

async fn an_unknown_client_looks_like_a_wrong_signature(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    server.store.create_client(&client("bare"), None).await.unwrap();
    server.refresh().await;
    let thief = Signer::es256();
    let wrong = ask(&server, &thief.fresh("jwt-client")).await;
    wrong.unauthorized();
    for other in [
        ask(&server, &thief.fresh("nobody")).await,
        ask(&server, &thief.fresh("bare")).await,
        ask(&server, &signer.assert(&with("exp", 1))).await,
        ask(&server, "a.b.c").await,
    ] {
        assert_eq!(other.face(), wrong.face());
    }
}

async fn assertions_are_checked_alike_at_every_endpoint(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    let disabled = Signer::es256();
    server.store.create_client(&Client { enabled: false, ..client("disabled") }, None).await.unwrap();
    server.store.add_client_keys("disabled", &[disabled.stored()]).await.unwrap();
    server.refresh().await;
    let now = Clock::System.now().0;
    let token = ask(&server, &signer.fresh("jwt-client")).await.access_token();
    let endpoints = [
        ("/token", "grant_type=client_credentials".to_owned()),
        ("/introspect", format!("token={token}")),
        ("/revoke", format!("token={token}")),
    ];
    for (path, form) in &endpoints {
        for bad in [
            signer.assert(&with("aud", format!("{ISS}{path}"))),
            signer.assert(&with("aud", json!([ISS, ISS]))),
            signer.assert(&without("jti")),
            signer.assert(&with("exp", 1)),
            signer.assert(&with("exp", now + 3600)),
            signer.assert(&with("nbf", now + 62)),
            signer.assert(&with("iat", now + 62)),
            signer.assert(&with("sub", "other")),
            signer.sign(r#"{"alg":"ES256","typ":"at+jwt"}"#, &claims("jwt-client").to_string()),
            Signer::es256().fresh("jwt-client"),
            disabled.fresh("disabled"),
            token.clone(),
        ] {
            ask_at(&server, path, form, &bad).await.unauthorized();
        }
        ask_at(&server, path, &format!("{form}&client_id=other"), &signer.fresh("jwt-client")).await.unauthorized();
        for other in ["urn:ietf:params:oauth:client-assertion-type:saml2-bearer", "jwt-bearer"] {
            let form = format!("{form}&client_assertion_type={other}&client_assertion={}", signer.fresh("jwt-client"));
            server.post_to(path, &[], form).await.unauthorized();
        }
        let assertion = signer.fresh("jwt-client");
        assert_eq!(ask_at(&server, path, form, &assertion).await.status, StatusCode::OK, "{path}");
        for (path, form) in &endpoints {
            ask_at(&server, path, form, &assertion).await.unauthorized();
        }
    }
}

async fn a_change_by_an_administrator_is_in_force_at_once(db: Db) {
    let setup = Setup::new(db).await;
    let (signer, only_key) =
        (Signer::es256(), Client { auth_methods: Some("private_key_jwt".into()), ..client("jwt-client") });
    let secret = setup.client(only_key).await;
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    server.basic("jwt-client", &secret, "").await.unauthorized();
    server.in_body("jwt-client", &secret, "").await.unauthorized();
    ask(&server, &signer.fresh("jwt-client")).await.ok();
    assert!(set_auth_methods(&server.store, "jwt-client", Some("client_secret_basic")).await.unwrap());
    server.refresh().await;
    ask(&server, &signer.fresh("jwt-client")).await.unauthorized();
    server.basic("jwt-client", &secret, "").await.ok();
    let wrong = set_auth_methods(&server.store, "jwt-client", Some("password")).await.unwrap_err().to_string();
    assert!(wrong.contains("auth_methods: null for any"), "{wrong}");
    set_auth_methods(&server.store, "jwt-client", None).await.unwrap();
    server.store.set_client_enabled("jwt-client", false).await.unwrap();
    server.refresh().await;
    ask(&server, &signer.fresh("jwt-client")).await.unauthorized();
}

async fn without_the_database_no_assertion_is_taken_and_a_secret_is(db: Db) {
    let setup = Setup::new(db).await;
    let signer = Signer::es256();
    let secret = setup.client(client("jwt-client")).await;
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let server = setup.start().await;
    server.basic("jwt-client", &secret, "").await.ok();
    server.db.sql("drop table spent_jti").await.unwrap();
    let answer = ask(&server, &signer.fresh("jwt-client")).await;
    answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    assert!(!answer.header("retry-after").is_empty());
    ask(&server, &Signer::es256().fresh("jwt-client")).await.unauthorized();
    server.basic("jwt-client", &secret, "").await.ok();
}

async fn a_malformed_key_stops_its_own_client_alone(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    server.store.create_client(&client("bad"), None).await.unwrap();
    let off_the_curve = r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#;
    server
        .db
        .sql(&format!("insert into client_key (client_id, kid, jwk) values ('bad', 'k', '{off_the_curve}')"))
        .await
        .unwrap();
    server.refresh().await;
    ask(&server, &signer.fresh("bad")).await.unauthorized();
    ask(&server, &signer.fresh("jwt-client")).await.ok();
    let snapshot = server.server.registry.snapshot();
    let reason = &snapshot.malformed()["client bad"];
    assert!(reason.contains("client_key k"), "{reason}");
    for (jwk, message) in [
        ("[]", "jwk: a JSON object with kty"),
        ("{\"kty\":\"EC\",\"d\":\"x\"}", "jwk: public keys only"),
        ("{\"kty\":\"oct\",\"k\":\"x\"}", "jwk: public keys only"),
        ("{\"kty\":\"é\"}", "jwk: at most 4096 ASCII characters"),
    ] {
        let sql = format!("insert into client_key (client_id, kid, jwk) values ('jwt-client', 'k', '{jwk}')");
        let error = server.db.sql(&sql).await.unwrap_err().to_string();
        assert!(error.contains(message), "{jwk}: {error}");
    }
    let both = "update client set jwks_uri = 'https://c.test/jwks' where client_id = 'jwt-client'";
    server.db.sql(both).await.unwrap();
    server.refresh().await;
    ask(&server, &signer.fresh("jwt-client")).await.unauthorized();
}

async fn expired_ids_are_swept(db: Db) {
    let (server, signer) = with_jwt_client(db).await;
    for _ in 0..3 {
        ask(&server, &signer.fresh("jwt-client")).await.ok();
    }
    let now = Clock::System.now();
    assert_eq!(server.store.sweep_spent(now).await.unwrap(), 0);
    let filler = if server.db.is_postgres() {
        "insert into spent_jti select 'assertion', 'x', decode(md5(n::text), 'hex'), 5 from generate_series(1, 2500) n"
    } else {
        "with recursive n(n) as (select 1 union all select n + 1 from n where n < 2500)
         insert into spent_jti select 'assertion', 'x', randomblob(16), 5 from n"
    };
    server.db.sql(filler).await.unwrap();
    let started = Instant::now();
    assert_eq!(server.store.sweep_spent(now).await.unwrap(), 2500);
    assert!(started.elapsed() >= Duration::from_millis(250), "each of five batches is followed by a rest");
    assert_eq!(server.store.sweep_spent(UnixTime(now.0 + 200)).await.unwrap(), 3);
}
