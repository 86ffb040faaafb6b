//! Responses of the token endpoint, errors, and the contents of a token.

use std::collections::HashSet;
use std::sync::Arc;

use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::jwk::Alg;
use grantd::http::{Caller, ListenerUrl};
use grantd::model::client::Client;
use grantd::model::resource::Resource;
use grantd::model::time::Clock;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Frame};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode};

use crate::harness::{Db, ISS, Setup, client};

on_both!(
    a_token_response_has_the_form_of_rfc_6749,
    tokens_are_unguessable_and_distinct,
    hostile_input_is_never_echoed,
    random_requests_get_registered_error_codes_only,
    without_the_database_no_secret_is_called_wrong,
    an_access_token_has_the_form_of_rfc_9068,
    every_algorithm_works_per_resource,
    token_lifetimes_come_from_client_resource_and_server,
    registered_claims_reach_the_token,
);

async fn a_token_response_has_the_form_of_rfc_6749(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let authorization = crate::harness::basic("basic-client", &secret);
    for accept in [None, Some("text/html"), Some("*/*"), Some("application/json;q=0.1")] {
        let fields: Vec<(&str, &str)> =
            std::iter::once(("authorization", authorization.as_str())).chain(accept.map(|a| ("accept", a))).collect();
        let answer = server.post(&fields, "grant_type=client_credentials").await;
        let json = answer.ok();
        assert!(answer.body.starts_with('{') && answer.body.ends_with('}'), "no BOM, no trailing bytes");
        assert_eq!(answer.body.matches("\"access_token\"").count(), 1);
        let token = json["access_token"].as_str().unwrap();
        assert!(token.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "visible ASCII");
        let (_, claims) = answer.token();
        assert_eq!(
            json["expires_in"].as_i64().unwrap(),
            claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
            "expires_in is exp - iat"
        );
    }
    let shape = server.basic("basic-client", &secret, "").await.body;
    let token = server.basic("basic-client", &secret, "").await.ok()["access_token"].as_str().unwrap().len();
    let start = shape.find("eyJ").unwrap();
    // The other database asserts the same snapshot.
    insta::allow_duplicates! {
        insta::assert_snapshot!(format!("{}…{}", &shape[..start], &shape[start + token..]), @r#"{"access_token":"…","token_type":"Bearer","expires_in":3600,"scope":"api:read"}"#);
    }
}

async fn tokens_are_unguessable_and_distinct(db: Db) {
    let (server, _) = Setup::with_basic_client(db).await;
    let snapshot = server.server.registry.snapshot();
    let client = snapshot.client("basic-client").unwrap();
    let (asked, unbound) =
        (grantd::protocol::grant::RequestedAccess::default(), grantd::protocol::grant::Binding::default());
    let defaults = &server.server.defaults;
    let grant =
        grantd::protocol::grant::decide(server.server.profile, client, &snapshot, defaults, &asked, unbound).unwrap();
    let now = server.server.clock.now();
    let key = server.server.keyring.signing(Alg::Es256, now).unwrap();
    let mut seen = HashSet::new();
    for _ in 0..1000 {
        let token = grantd::protocol::access_token::mint(ISS, client, &grant, Arc::clone(&key), now).await.unwrap();
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(&token.jti).unwrap().len(), 16, "128 bits");
        assert!(seen.insert(token.jti) && seen.insert(token.token));
    }
}

/// No error text names an internal part.
async fn hostile_input_is_never_echoed(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    for hostile in ["%22%5C%C3%A9%0D%0A", "%3Cscript%3E", "'%3B+drop+table+client%3B--"] {
        for form in [format!("scope={hostile}"), format!("resource={hostile}")] {
            let answer = server.basic("basic-client", &secret, &form).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            for leak in ["<script", "drop", "sqlx", "src/", "panicked", "\\"] {
                assert!(!answer.body.contains(leak), "{}", answer.body);
            }
        }
        server.basic(hostile, hostile, "").await.unauthorized();
    }
    let marker = "evil-marker-4711";
    let stranger = server.basic(marker, marker, &format!("scope={marker}&resource={marker}")).await;
    stranger.unauthorized();
    assert!(!stranger.body.contains("4711"), "{}", stranger.body);
}

async fn random_requests_get_registered_error_codes_only(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let names =
        ["grant_type", "scope", "client_id", "client_secret", "resource", "audience", "client_assertion", "x", ""];
    let values = [
        "client_credentials",
        "api:read",
        "basic-client",
        "%",
        "",
        "%00",
        "a b",
        "https://x",
        "password",
        "é",
        "\u{7f}",
        "&",
        "=",
        &secret,
    ];
    let mut random = grantd::crypto::random::<32>().unwrap();
    println!("seed {random:?}");
    let mut next = move |below: usize| {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &random);
        random.copy_from_slice(hash.as_ref());
        usize::from(random[0]) % below
    };
    for _ in 0..1000 {
        let pairs: Vec<String> =
            (0..next(6)).map(|_| format!("{}={}", names[next(names.len())], values[next(values.len())])).collect();
        let fields: &[(&str, &str)] =
            [&[][..], &[("authorization", "Basic x")], &[("content-type", "text/plain")]][next(3)];
        let answer = server.post(fields, pairs.join("&")).await;
        let code = answer.json()["error"].as_str().unwrap_or("none").to_owned();
        match answer.status.as_u16() {
            200 => assert_eq!(code, "none"),
            400 => assert!(
                ["invalid_request", "unsupported_grant_type", "invalid_scope", "invalid_target"]
                    .contains(&code.as_str()),
                "{code}"
            ),
            401 => assert_eq!(code, "invalid_client"),
            429 => assert_eq!(code, "temporarily_unavailable"),
            other => panic!("{other} for {pairs:?}"),
        }
    }
}

async fn without_the_database_no_secret_is_called_wrong(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    // What stands for a database that is away: nothing confirms the snapshot any more.
    server.db.sql("drop table registry_revision").await.unwrap();
    let started = std::time::Instant::now();
    while server.server.registry.freshness() == grantd::state::registry::Freshness::Current {
        assert!(started.elapsed().as_secs() < 6, "the registry still believes in itself");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    server.basic("basic-client", &secret, "").await.ok();
    for (id, secret) in [("basic-client", "wrong"), ("nobody", "wrong"), ("nobody", secret.as_str())] {
        let answer = server.basic(id, secret, "").await;
        answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), "5");
    }
}

async fn an_access_token_has_the_form_of_rfc_9068(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.clock = Clock::fixed(1_800_000_000).0;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let (header, claims) = server.basic("basic-client", &secret, "").await.token();
    assert_eq!((&header["typ"], &header["alg"]), (&"at+jwt".into(), &"ES256".into()), "the header of RFC 9068");
    assert_eq!(header.as_object().unwrap().len(), 3);
    assert_eq!(header["kid"], server.get("/jwks").await.json()["keys"][0]["kid"]);
    let members: Vec<&String> = claims.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        ["aud", "client_id", "exp", "iat", "iss", "jti", "scope", "sub"],
        "these and no others, no cnf, no nbf"
    );
    assert_eq!(claims["scope"], "api:read", "a string");
    assert_eq!((&claims["iss"], &claims["aud"]), (&ISS.into(), &ISS.into()), "the configured default");
    assert_eq!(
        (&claims["sub"], &claims["client_id"]),
        (&"basic-client".into(), &"basic-client".into()),
        "the client is the subject"
    );
    assert_eq!(
        (claims["iat"].as_i64(), claims["exp"].as_i64()),
        (Some(1_800_000_000), Some(1_800_003_600)),
        "whole seconds"
    );
}

async fn every_algorithm_works_per_resource(db: Db) {
    let setup = Setup::new(db).await;
    let mut resources = Vec::new();
    for alg in Alg::ALL {
        let identifier = format!("https://{}.test", alg.as_str().to_lowercase());
        let resource = Resource {
            identifier: identifier.parse().unwrap(),
            scope: "api:read".parse().unwrap(),
            alg: Some(alg),
            token_ttl: None,
            token_typ: grantd::model::resource::TokenTyp::default(),
            status_list: false,
            introspectors: Vec::new(),
        };
        resources.push(resource.identifier.clone());
        setup.save(resource).await;
    }
    let secret = setup.client(Client { resources: resources.into(), ..client("basic-client") }).await;
    let server = setup.start().await;
    let jwks: JwkSet = serde_json::from_value(server.get("/jwks").await.json()).unwrap();
    assert_eq!(jwks.keys.len(), 4, "one key, one alg");
    for (alg, library) in Alg::ALL.into_iter().zip(["ES256", "EdDSA", "PS256", "RS256"]) {
        let identifier = format!("https://{}.test", alg.as_str().to_lowercase());
        let answer = server.basic("basic-client", &secret, &format!("resource={identifier}")).await;
        let (header, claims) = answer.token();
        assert_eq!((header["alg"].as_str(), claims["aud"].as_str()), (Some(library), Some(identifier.as_str())));
        let key = jwks.find(header["kid"].as_str().unwrap()).unwrap();
        let mut validation = Validation::new(library.parse().unwrap());
        validation.set_audience(&[&identifier]);
        validation.set_issuer(&[ISS]);
        let token = answer.ok()["access_token"].as_str().unwrap().to_owned();
        decode::<serde_json::Value>(&token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap();
    }
}

async fn token_lifetimes_come_from_client_resource_and_server(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.token.ttl = "15m".into();
    let scope = || "api:read".parse().unwrap();
    setup
        .save(Resource {
            identifier: "https://api1.test".parse().unwrap(),
            scope: scope(),
            alg: None,
            token_ttl: Some("10m".parse().unwrap()),
            token_typ: grantd::model::resource::TokenTyp::default(),
            status_list: false,
            introspectors: vec![],
        })
        .await;
    let plain = setup.client(client("plain")).await;
    let short = setup.client(Client { token_ttl: Some("60s".parse().unwrap()), ..client("short") }).await;
    let bound = Client { resources: ["https://api1.test".parse().unwrap()].into(), ..client("bound") };
    let both = Client { token_ttl: Some("1h".parse().unwrap()), client_id: "both".parse().unwrap(), ..bound.clone() };
    let (bound, both) = (setup.client(bound).await, setup.client(both).await);
    let server = setup.start().await;
    for (id, secret, expected) in
        [("plain", plain, 900), ("short", short, 60), ("bound", bound, 600), ("both", both, 600)]
    {
        assert_eq!(server.basic(id, &secret, "").await.ok()["expires_in"], expected, "{id}");
    }
}

async fn registered_claims_reach_the_token(db: Db) {
    let setup = Setup::new(db).await;
    let claims = r#"{"tenant":"acme","level":3}"#.parse().unwrap();
    let secret = setup.client(Client { claims, ..client("basic-client") }).await;
    let server = setup.start().await;
    let (_, claims) = server.basic("basic-client", &secret, "").await.token();
    assert_eq!((&claims["tenant"], &claims["level"]), (&"acme".into(), &3.into()));
}

#[tokio::test]
async fn a_panic_is_a_500_in_json_and_the_process_lives() {
    let (server, secret) = Setup::with_basic_client(Db::sqlite()).await;
    let caller = Caller { address: ([192, 0, 2, 1], 1).into(), certificate: None };
    for _ in 0..2 {
        let request = Request::post("/token").header("host", "as.test");
        let body = Full::new(Bytes::from("x")).map_frame(|_| -> Frame<Bytes> { panic!("secret detail") });
        let response = server.app.answer(ListenerUrl::Issuer, &caller, request.body(body).unwrap()).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], br#"{"error":"server_error","error_description":"the server failed"}"#);
        server.basic("basic-client", &secret, "").await.ok();
    }
}
