//! Metadata, the key set, and resource indicators.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::jwk::Alg;
use grantd::crypto::seal::SealingKey;
use grantd::model::client::Client;
use grantd::model::time::{Clock, Span, UnixTime};
use grantd::state::keyring::PUBLISH_AHEAD;
use grantd::store::keys::new_key;
use serde_json::Value;

use crate::assertion::{Signer, ask};
use crate::harness::{Db, ISS, Setup, client, scopes};

on_both!(
    the_metadata_is_exact,
    an_issuer_with_a_path_moves_every_endpoint_below_it,
    the_metadata_lists_exactly_the_methods_and_grants_that_work,
    the_openid_alias_can_be_turned_off,
    the_issuer_says_in_a_browser_what_it_is,
    the_key_set_is_public_and_typed,
    metadata_and_key_set_are_cacheable,
    a_rotated_key_is_published_before_it_signs_and_until_its_tokens_expire,
    no_url_comes_from_a_header,
    a_requested_resource_is_exactly_one_that_the_client_may_ask_for,
    a_token_has_one_audience,
    scope_and_resource_belong_together,
    a_resource_without_scopes_gives_tokens_without_one,
    resource_identifiers_are_kept_to_the_letter,
);

const METADATA: &str = "/.well-known/oauth-authorization-server";

async fn the_metadata_is_exact(db: Db) {
    let setup = Setup::new(db).await;
    setup.resource("https://api1.test", "api1:read api1:write").await;
    setup.resource("https://api2.test", "api2:read").await;
    let server = setup.start().await;
    let answer = server.get(METADATA).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    // The other database asserts the same snapshot.
    insta::allow_duplicates! {
        insta::assert_snapshot!(answer.body, @r#"{"dpop_signing_alg_values_supported":["ES256","ES384","EdDSA","Ed25519","PS256","PS384","PS512","RS256","RS384","RS512"],"grant_types_supported":["client_credentials"],"introspection_endpoint":"https://as.test/introspect","introspection_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","private_key_jwt"],"introspection_endpoint_auth_signing_alg_values_supported":["ES256","ES384","EdDSA","Ed25519","PS256","PS384","PS512","RS256","RS384","RS512"],"introspection_signing_alg_values_supported":["ES256","EdDSA","PS256","RS256"],"issuer":"https://as.test","jwks_uri":"https://as.test/jwks","protected_resources":["https://api1.test","https://api2.test"],"revocation_endpoint":"https://as.test/revoke","revocation_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","private_key_jwt"],"revocation_endpoint_auth_signing_alg_values_supported":["ES256","ES384","EdDSA","Ed25519","PS256","PS384","PS512","RS256","RS384","RS512"],"scopes_supported":["api1:read","api1:write","api2:read"],"status_list_aggregation_endpoint":"https://as.test/token-status","token_endpoint":"https://as.test/token","token_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","private_key_jwt"],"token_endpoint_auth_signing_alg_values_supported":["ES256","ES384","EdDSA","Ed25519","PS256","PS384","PS512","RS256","RS384","RS512"]}"#);
    }
    assert!(!answer.body.contains("[]"), "no empty array");
    assert!(answer.header("server").is_empty(), "no version");
    // The alias serves clients that look nowhere else, with the members without which their libraries do not start.
    let (mut openid, exact) = (server.get("/.well-known/openid-configuration").await.json(), answer.json());
    let more = openid.as_object_mut().unwrap();
    assert_eq!(more.remove("subject_types_supported"), Some(serde_json::json!(["public"])));
    assert_eq!(
        more.remove("id_token_signing_alg_values_supported").as_ref(),
        Some(&exact["introspection_signing_alg_values_supported"])
    );
    assert_eq!(openid, exact);
    let empty = Setup::new(Db::sqlite()).await.start().await.get(METADATA).await;
    assert!(
        !empty.body.contains("scopes_supported") && !empty.body.contains("protected_resources"),
        "empty members are left out"
    );
}

async fn an_issuer_with_a_path_moves_every_endpoint_below_it(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.issuer = "https://as.test/t1".into();
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let metadata = server.get("/.well-known/oauth-authorization-server/t1").await.json();
    assert_eq!(metadata["issuer"], "https://as.test/t1");
    assert_eq!(metadata["token_endpoint"], "https://as.test/t1/token");
    for path in [
        "/.well-known/openid-configuration/t1",
        "/t1/.well-known/openid-configuration",
        "/t1/jwks",
        "/t1/.well-known/jwks.json",
    ] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
    for path in [METADATA, "/jwks", "/.well-known/openid-configuration"] {
        assert_eq!(server.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let request = Request::post("/t1/token").header("content-type", "application/x-www-form-urlencoded");
    let body = format!("grant_type=client_credentials&client_id=basic-client&client_secret={secret}");
    let answer = server.send(request.body(body.into()).unwrap()).await;
    assert_eq!(answer.token().1["iss"], "https://as.test/t1", "the configured issuer");
}

async fn the_metadata_lists_exactly_the_methods_and_grants_that_work(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let metadata = server.get(METADATA).await.json();
    assert!(metadata.get("authorization_endpoint").is_none(), "no grant uses it");
    assert_eq!(
        metadata["grant_types_supported"],
        serde_json::json!(["client_credentials"]),
        "the default would claim others"
    );
    for (name, value) in metadata.as_object().unwrap() {
        assert!(!name.ends_with("_endpoint") || !value.as_str().unwrap().contains('#'), "no fragment");
        let unoffered = ["tls_client", "mtls", "signed_metadata"];
        assert!(unoffered.iter().all(|what| !name.contains(what)), "{name} is not there");
    }
    for method in metadata["token_endpoint_auth_methods_supported"].as_array().unwrap() {
        match method.as_str().unwrap() {
            "client_secret_basic" => drop(server.basic("basic-client", &secret, "").await.ok()),
            "client_secret_post" => drop(server.in_body("basic-client", &secret, "").await.ok()),
            "private_key_jwt" => {
                let signer = Signer::es256();
                server.store.add_client_keys("basic-client", &[signer.stored()]).await.unwrap();
                server.refresh().await;
                ask(&server, &signer.fresh("basic-client")).await.ok();
            }
            other => panic!("{other} is listed and not tested"),
        }
    }
    let unlisted = "client_id=basic-client&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion=a.b.c";
    server.post(&[], format!("grant_type=client_credentials&{unlisted}")).await.unauthorized();
    for path in ["/authorize", "/userinfo", "/register"] {
        assert_eq!(server.get(path).await.status, StatusCode::NOT_FOUND, "{path} is not listed");
    }
}

async fn the_openid_alias_can_be_turned_off(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.openid_configuration = false;
    let server = setup.start().await;
    assert_eq!(server.get("/.well-known/openid-configuration").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get(METADATA).await.status, StatusCode::OK);
}

async fn the_issuer_says_in_a_browser_what_it_is(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.issuer = "https://as.test/t1".into();
    let server = setup.start().await;
    for path in ["/t1", "/t1/"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
        insta::allow_duplicates! {
            insta::assert_snapshot!(answer.body, @r"
        grantd, an OAuth 2.0 authorization server for machines.
        Metadata (RFC 8414): https://as.test/.well-known/oauth-authorization-server/t1
        ");
        }
    }
    assert_eq!(server.get("/").await.status, StatusCode::NOT_FOUND, "above the issuer");
}

async fn the_key_set_is_public_and_typed(db: Db) {
    let server = Setup::new(db).await.start().await;
    let answer = server.get("/jwks").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/jwk-set+json"));
    assert_eq!(server.get("/.well-known/jwks.json").await.body, answer.body);
    let json = answer.json();
    let keys = json["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    for key in keys {
        let members: Vec<&String> = key.as_object().unwrap().keys().collect();
        assert_eq!(
            members,
            ["alg", "crv", "kid", "kty", "use", "x", "y"],
            "none of d p q dp dq qi oth k, and no key_ops"
        );
        assert_eq!(key["use"], "sig");
    }
}

async fn metadata_and_key_set_are_cacheable(db: Db) {
    let server = Setup::new(db).await.start().await;
    for path in ["/jwks", METADATA] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("cache-control"), "public, max-age=300");
        let etag = answer.header("etag").to_owned();
        for known in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".into()] {
            let again =
                server.send(Request::get(path).header("if-none-match", &known).body(Body::empty()).unwrap()).await;
            assert_eq!(
                (again.status, again.body.as_str(), again.header("etag")),
                (StatusCode::NOT_MODIFIED, "", etag.as_str())
            );
        }
        let changed =
            server.send(Request::get(path).header("if-none-match", "\"x\"").body(Body::empty()).unwrap()).await;
        assert_eq!(changed.status, StatusCode::OK);
        let head = server.send(Request::head(path).body(Body::empty()).unwrap()).await;
        assert_eq!((head.status, head.body.as_str(), head.header("etag")), (StatusCode::OK, "", etag.as_str()));
        assert_eq!(head.header("content-length"), answer.body.len().to_string());
    }
}

async fn no_url_comes_from_a_header(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let forged = [
        ("host", "evil.test"),
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "host=evil.test;proto=http"),
    ];
    let mut request = Request::get(METADATA);
    for (name, value) in forged {
        request = request.header(name, value);
    }
    let answer = server.send(request.body(Body::empty()).unwrap()).await;
    assert!(!answer.body.contains("evil") && !answer.body.contains("http://"), "{}", answer.body);
    let authorization = crate::harness::basic("basic-client", &secret);
    let fields: Vec<(&str, &str)> = forged.into_iter().chain([("authorization", authorization.as_str())]).collect();
    assert_eq!(server.post(&fields, "grant_type=client_credentials").await.token().1["iss"], ISS);
}

async fn a_rotated_key_is_published_before_it_signs_and_until_its_tokens_expire(db: Db) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(1_800_000_000);
    setup.clock = clock;
    setup.settings.registry.poll = "50ms".into();
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let (server, secret) = (&server, &secret);
    let look = async |moment: i64| {
        hand.store(moment, std::sync::atomic::Ordering::Relaxed);
        // The key set follows the clock with the feed, which asks every 200 ms.
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        let keys = server.get("/jwks").await.json()["keys"].as_array().unwrap().clone();
        let kids: Vec<String> = keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
        let signer = server.basic("basic-client", secret, "").await.token().0["kid"].as_str().unwrap().to_owned();
        assert!(kids.contains(&signer), "every live token's key is published");
        (kids.len(), signer)
    };
    let (_, old) = look(1_800_000_000).await;
    // A key that this server cannot open is left out and disturbs nobody.
    let sealing_key = SealingKey::from_base64(&server.sealing_key).unwrap();
    let other = SealingKey::from_base64(&SealingKey::generate_base64().unwrap()).unwrap();
    let foreign = new_key(Alg::Es256, &other, UnixTime(1_800_000_000), Span::from_secs(0)).unwrap();
    server.store.add_key(&foreign).await.unwrap();
    let next = new_key(Alg::Es256, &sealing_key, UnixTime(1_800_000_000), PUBLISH_AHEAD).unwrap();
    server.store.add_key(&next).await.unwrap();
    server.refresh().await;
    let ahead = PUBLISH_AHEAD.seconds();
    assert_eq!(look(1_800_000_000 + ahead - 1).await, (2, old), "published, not yet signing");
    assert_eq!(look(1_800_000_000 + ahead).await, (2, next.kid.clone()), "signing, its predecessor still published");
    assert_eq!(look(1_800_000_000 + ahead + 3600 + 59).await, (2, next.kid.clone()));
    assert_eq!(
        look(1_800_000_000 + ahead + 3600 + 60).await,
        (1, next.kid.clone()),
        "the last token of its predecessor has expired"
    );
    assert!(server.store.remove_key(&next.kid, None).await.unwrap());
    server.refresh().await;
    assert_ne!(look(1_800_099_000).await.1, next.kid, "a removed key signs nothing more");
}

async fn a_requested_resource_is_exactly_one_that_the_client_may_ask_for(db: Db) {
    let setup = Setup::new(db).await;
    setup.resource("https://api1.test", "api:read api:write").await;
    setup.resource("https://api2.test", "api:read").await;
    let secret = setup
        .client(Client { resources: ["https://api1.test".parse().unwrap()].into(), ..client("basic-client") })
        .await;
    let server = setup.start().await;
    for name in ["resource", "audience"] {
        assert_eq!(
            server.basic("basic-client", &secret, &format!("{name}=https%3A%2F%2Fapi1.test")).await.token().1["aud"],
            "https://api1.test"
        );
    }
    assert_eq!(
        server.basic("basic-client", &secret, "").await.token().1["aud"],
        "https://api1.test",
        "its only one is its default"
    );
    for wrong in [
        "api1",
        "//api1.test",
        "https://api1.test%23x",
        "https://api1.test/%25ZZ",
        "https://api+1.test",
        "https://evil.test",
        "https://api2.test",
        "https://API1.test",
        "https://api1.test/",
        "https://api1.test:443",
        "https://as.test",
        "%22",
    ] {
        server.basic("basic-client", &secret, &format!("resource={wrong}")).await.error("invalid_target");
    }
}

async fn a_token_has_one_audience(db: Db) {
    let setup = Setup::new(db).await;
    setup.resource("https://api1.test", "api:read api:write").await;
    setup.resource("https://api2.test", "api:read").await;
    let resources = ["https://api1.test".parse().unwrap(), "https://api2.test".parse().unwrap()].into();
    let secret = setup.client(Client { resources, ..client("basic-client") }).await;
    let server = setup.start().await;
    let (one, two) = ("resource=https://api1.test", "resource=https://api2.test");
    let (_, claims) =
        server.basic("basic-client", &secret, &format!("{one}&{one}&audience=https://api1.test")).await.token();
    assert_eq!(claims["aud"], "https://api1.test", "a string, not an array");
    server.basic("basic-client", &secret, &format!("{one}&{two}")).await.error("invalid_target");
    server.basic("basic-client", &secret, &format!("{one}&audience=https://api2.test")).await.error("invalid_target");
    server.basic("basic-client", &secret, &[one; 60].join("&")).await.ok();
    let many: Vec<String> = (0..60).map(|number| format!("resource=https://api{number}.test")).collect();
    server.basic("basic-client", &secret, &many.join("&")).await.error("invalid_target");
    // Both understand api:read, and nobody said which.
    server.basic("basic-client", &secret, "scope=api:read").await.error("invalid_target");
    assert_eq!(
        server.basic("basic-client", &secret, "scope=api:write").await.token().1["aud"],
        "https://api1.test",
        "only one understands api:write"
    );
}

async fn scope_and_resource_belong_together(db: Db) {
    let setup = Setup::new(db).await;
    setup.resource("https://api1.test", "api1:x").await;
    setup.resource("https://api2.test", "api2:y").await;
    let secret = setup
        .client(Client {
            scopes: scopes("api1:x api2:y", "api1:x api2:y"),
            resources: ["https://api1.test".parse().unwrap(), "https://api2.test".parse().unwrap()].into(),
            ..client("basic-client")
        })
        .await;
    let server = setup.start().await;
    server.basic("basic-client", &secret, "resource=https://api1.test&scope=api2:y").await.error("invalid_scope");
    // The requested scope is checked against the resource's own scopes.
    server.basic("basic-client", &secret, "scope=api1:x+api2:y").await.error("invalid_scope");
    server.basic("basic-client", &secret, "").await.error("invalid_scope");
    assert_eq!(server.basic("basic-client", &secret, "scope=api2:y").await.token().1["aud"], "https://api2.test");
    let (_, claims) = server.basic("basic-client", &secret, "resource=https://api1.test").await.token();
    assert_eq!(claims["scope"], "api1:x", "the default, as far as the resource understands it");
}

async fn a_resource_without_scopes_gives_tokens_without_one(db: Db) {
    let setup = Setup::new(db).await;
    setup.resource("https://sts.test", "").await;
    setup.resource("https://api.test", "api:read").await;
    let resources = |identifiers: &[&str]| identifiers.iter().map(|one| one.parse().unwrap()).collect();
    let unscoped = Client { scopes: scopes("", ""), resources: resources(&["https://sts.test"]), ..client("unscoped") };
    let both = Client { resources: resources(&["https://sts.test", "https://api.test"]), ..client("both") };
    let other =
        Client { scopes: scopes("api:read", ""), resources: resources(&["https://api.test"]), ..client("other") };
    let (unscoped, both, other) = (setup.client(unscoped).await, setup.client(both).await, setup.client(other).await);
    let server = setup.start().await;
    for (id, secret, form) in [
        ("unscoped", &unscoped, ""),
        ("unscoped", &unscoped, "resource=https://sts.test"),
        ("both", &both, "resource=https://sts.test"),
    ] {
        let answer = server.basic(id, secret, form).await;
        assert!(!answer.body.contains("scope"), "{}", answer.body);
        let claims = grantd::crypto::json::object(&decoded(&answer.access_token())).unwrap();
        assert_eq!((&claims["aud"], claims.get("scope")), (&Value::from("https://sts.test"), None), "{id} {form}");
        let told = server.introspect(id, secret, &answer.access_token()).await;
        assert_eq!(told.status, StatusCode::OK, "{}", told.body);
    }
    // A scope is never dropped, and a resource that has scopes gives no token without one.
    server.basic("both", &both, "resource=https://sts.test&scope=api:read").await.error("invalid_scope");
    server.basic("unscoped", &unscoped, "scope=api:read").await.error("invalid_scope");
    server.basic("other", &other, "").await.error("invalid_scope");
    server.basic("other", &other, "resource=https://api.test").await.error("invalid_scope");
}

async fn resource_identifiers_are_kept_to_the_letter(db: Db) {
    let setup = Setup::new(db).await;
    let identifier = "https://API.test/v1?tenant=a&x=%7e";
    setup.resource(identifier, "api:read").await;
    let secret =
        setup.client(Client { resources: [identifier.parse().unwrap()].into(), ..client("basic-client") }).await;
    let server = setup.start().await;
    let asked = identifier.replace('%', "%25").replace('&', "%26");
    assert_eq!(server.basic("basic-client", &secret, &format!("resource={asked}")).await.token().1["aud"], identifier);
    assert_eq!(server.get(METADATA).await.json()["protected_resources"], serde_json::json!([identifier]));
}

/// The claims of a token, as JSON.
fn decoded(token: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()
}
