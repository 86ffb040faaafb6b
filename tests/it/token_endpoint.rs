//! The form, grant and scope of requests to the token endpoint.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use grantd::model::client::Client;

use crate::harness::{Db, Setup, basic, client, scopes};

const GRANT: &str = "grant_type=client_credentials";
const FORM: &str = "application/x-www-form-urlencoded";

on_both!(
    only_post_obtains_tokens,
    the_body_is_a_form,
    an_empty_parameter_is_absent_and_a_missing_one_is_named,
    unknown_parameters_are_ignored_even_when_repeated,
    a_known_parameter_that_is_repeated_is_refused,
    a_request_with_its_scope_in_any_encoding_is_answered,
    malformed_encoding_and_nul_are_refused,
    names_and_values_are_case_sensitive_and_semicolons_do_not_separate,
    credentials_in_the_query_are_refused_and_nothing_is_read_from_it,
    oversized_input_is_refused,
    there_are_no_cors_headers,
    client_credentials_is_the_only_grant_and_brings_no_refresh_token,
    a_client_that_is_disabled_or_without_the_grant_gets_no_token,
    a_client_that_requires_binding_gets_no_bearer_token,
    scopes_are_granted_exactly_or_refused,
    scopes_are_a_set_and_the_answer_lists_those_granted,
    an_omitted_scope_means_the_default_and_never_more,
    a_withdrawn_scope_is_refused_on_the_next_request,
);

async fn only_post_obtains_tokens(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let ask = |method: &str, uri: String| {
        Request::builder()
            .method(method)
            .uri(uri)
            .header("authorization", basic("basic-client", &secret))
            .body(Body::empty())
            .unwrap()
    };
    let answer = server.send(ask("GET", format!("/token?{GRANT}"))).await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    for method in ["PUT", "PATCH", "DELETE", "TRACE", "HEAD", "OPTIONS"] {
        let answer = server.send(ask(method, "/token".into())).await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"), "{method}");
        assert!(!answer.body.contains(&secret), "{method} echoes");
        for path in ["/jwks", "/.well-known/oauth-authorization-server"] {
            // Documents are for pages of any origin too, so they answer preflight requests.
            if !["HEAD", "OPTIONS"].contains(&method) {
                let answer = server.send(ask(method, path.into())).await;
                assert_eq!(
                    (answer.status, answer.header("allow")),
                    (StatusCode::METHOD_NOT_ALLOWED, "GET,HEAD,OPTIONS"),
                    "{method} {path}"
                );
            }
        }
    }
    assert_eq!(server.get("/admin").await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/metrics").await.status, StatusCode::NOT_FOUND);
}

/// A wrong media type is refused in JSON.
async fn the_body_is_a_form(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let authorization = basic("basic-client", &secret);
    let ask = |media_type: Option<&str>, coding: Option<&str>, body: &str| {
        let mut request = Request::post("/token").header("authorization", &authorization);
        for (name, value) in [("content-type", media_type), ("content-encoding", coding)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        server.send(request.body(Body::from(body.to_owned())).unwrap())
    };
    for media_type in
        [FORM, "application/x-www-form-urlencoded; charset=UTF-8", "Application/X-WWW-Form-URLencoded;charset=utf-8"]
    {
        ask(Some(media_type), None, GRANT).await.ok();
    }
    ask(Some(FORM), Some("identity"), GRANT).await.ok();
    ask(Some("application/json"), None, r#"{"grant_type":"client_credentials"}"#).await.error("invalid_request");
    ask(Some("multipart/form-data; boundary=x"), None, "--x--").await.error("invalid_request");
    ask(Some("text/plain"), None, GRANT).await.error("invalid_request");
    ask(None, None, GRANT).await.error("invalid_request");
    for coding in ["gzip", "br", "deflate", "identity, gzip"] {
        ask(Some(FORM), Some(coding), GRANT).await.error("invalid_request");
    }
}

async fn an_empty_parameter_is_absent_and_a_missing_one_is_named(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let authorization = basic("basic-client", &secret);
    let fields = [("authorization", authorization.as_str())];
    assert_eq!(server.post(&fields, format!("{GRANT}&scope=")).await.ok()["scope"], "api:read");
    assert_eq!(server.post(&fields, format!("{GRANT}&resource=")).await.token().1["aud"], "https://as.test");
    server.post(&fields, "grant_type=").await.error("invalid_request");
    server.post(&fields, "").await.error("invalid_request");
    server.post(&fields, "&&").await.error("invalid_request");
    server.post(&[], format!("{GRANT}&client_id=basic-client&client_secret=")).await.unauthorized();
}

async fn unknown_parameters_are_ignored_even_when_repeated(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    server
        .basic(
            "basic-client",
            &secret,
            "foo=bar&audience_hint=x&code=1&redirect_uri=y&username=u&dpop_jkt=x&callback=f",
        )
        .await
        .ok();
    server.basic("basic-client", &secret, "foo=1&foo=2").await.ok();
}

async fn a_known_parameter_that_is_repeated_is_refused(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    for repeated in [
        "scope=api:read&scope=api:write",
        "scope=&scope=",
        "client_id=basic-client&client_id=basic-client",
        "client_id=basic-client&client_id=x",
        GRANT,
    ] {
        server.basic("basic-client", &secret, repeated).await.error("invalid_request");
    }
    let in_body = format!("{GRANT}&client_id=basic-client&client_secret={secret}");
    for repeated in [format!("client_secret={secret}"), "client_id=other".into(), "client_id=basic-client".into()] {
        server.post(&[], format!("{in_body}&{repeated}")).await.error("invalid_request");
    }
    for name in ["client_assertion", "client_assertion_type"] {
        server.post(&[], format!("{GRANT}&{name}=x&{name}=x")).await.error("invalid_request");
    }
    assert_eq!(server.server.authenticator.lane.verifications.get(), 0, "nothing is hashed for a malformed request");
}

async fn a_request_with_its_scope_in_any_encoding_is_answered(db: Db) {
    let setup = Setup::new(db).await;
    let mission = Client { scopes: scopes("read:data write:data", ""), ..client("your_client_id") };
    setup.imported(mission, "your_client_secret").await;
    let secret = "your_client_secret";
    let server = setup.start().await;
    for space in [" ", "+", "%20"] {
        let form = format!("{GRANT}&client_id=your_client_id&client_secret={secret}&scope=read:data{space}write:data");
        let json = server.post(&[], form).await.ok();
        assert_eq!((&json["expires_in"], &json["scope"]), (&3600.into(), &"read:data write:data".into()), "{space:?}");
    }
    server.in_body("your_client_id", secret, "scope=read%3adata+write%3Adata").await.ok();
}

/// NUL never reaches the database.
async fn malformed_encoding_and_nul_are_refused(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let authorization = basic("basic-client", &secret);
    for scope in [&b"%ZZ"[..], b"%", b"%FF%FE", b"\x80", b"%00", b"a%00b"] {
        let body = [GRANT.as_bytes(), b"&scope=", scope].concat();
        server.post(&[("authorization", &authorization)], body).await.error("invalid_request");
    }
    for form in [
        "client_id=%00&client_secret=x",
        "client_id=basic-client&client_secret=%00",
        "client_id=c%00b&client_secret=x",
        "resource=%00",
    ] {
        server.post(&[], format!("{GRANT}&{form}")).await.error("invalid_request");
    }
    for (id, secret) in [("c%00b", "x"), ("basic-client", "%00"), ("c\0b", "x"), ("basic-client", "x\0")] {
        server.basic(id, secret, "").await.unauthorized();
    }
}

async fn names_and_values_are_case_sensitive_and_semicolons_do_not_separate(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let authorization = basic("basic-client", &secret);
    let fields = [("authorization", authorization.as_str())];
    server.post(&fields, "Grant_Type=client_credentials").await.error("invalid_request");
    server.post(&fields, "grant_type=CLIENT_CREDENTIALS").await.error("unsupported_grant_type");
    server.post(&fields, "grant_type=client_credentials;scope=api:read").await.error("unsupported_grant_type");
    server.basic("CB", &secret, "").await.unauthorized();
}

async fn credentials_in_the_query_are_refused_and_nothing_is_read_from_it(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let authorization = basic("basic-client", &secret);
    let ask = |query: &str, with: bool, body: &str| {
        let mut request = Request::post(format!("/token?{query}")).header("content-type", FORM);
        if with {
            request = request.header("authorization", &authorization);
        }
        server.send(request.body(Body::from(body.to_owned())).unwrap())
    };
    ask(&format!("client_id=basic-client&client_secret={secret}"), false, GRANT).await.error("invalid_request");
    ask("client_id=basic-client", true, GRANT).await.error("invalid_request");
    ask("client_assertion=x", true, GRANT).await.error("invalid_request");
    ask("x=1", true, GRANT).await.ok();
    ask("x=%zz", true, GRANT).await.ok();
    ask(GRANT, true, "").await.error("invalid_request");
    assert_eq!(ask("scope=api:write", true, GRANT).await.ok()["scope"], "api:read", "ASVS 15.3.7");
}

async fn oversized_input_is_refused(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let authorization = basic("basic-client", &secret);
    let fields = [("authorization", authorization.as_str())];
    let answer = server.post(&fields, format!("{GRANT}&x={}", "y".repeat(1 << 20))).await;
    answer.refusal(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request");
    assert_eq!(answer.header("connection"), "close");
    server.post(&fields, format!("{GRANT}&{}", "a=1&".repeat(3000))).await.error("invalid_request");
    server.post(&[], format!("{GRANT}&client_secret=x&client_id={}", "c".repeat(8192))).await.unauthorized();
    server.post(&[], format!("{GRANT}&client_id=basic-client&client_secret={}", "s".repeat(8192))).await.unauthorized();
}

async fn there_are_no_cors_headers(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let preflight = Request::options("/token")
        .header("origin", "https://evil.test")
        .header("access-control-request-method", "POST");
    let answer = server.send(preflight.body(Body::empty()).unwrap()).await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let authorization = basic("basic-client", &secret);
    let answer = server.post(&[("authorization", &authorization), ("origin", "https://evil.test")], GRANT).await;
    answer.ok();
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}

async fn client_credentials_is_the_only_grant_and_brings_no_refresh_token(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let json = server.basic("basic-client", &secret, "").await.ok();
    assert!(json.get("refresh_token").is_none() && json.get("id_token").is_none());
    let authorization = basic("basic-client", &secret);
    for grant_type in [
        "password",
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "foo",
    ] {
        let answer = server.post(&[("authorization", &authorization)], format!("grant_type={grant_type}")).await;
        answer.error("unsupported_grant_type");
    }
}

async fn a_client_that_is_disabled_or_without_the_grant_gets_no_token(db: Db) {
    let setup = Setup::new(db).await;
    let without = setup.client(Client { client_credentials: false, ..client("no-grant") }).await;
    let disabled = setup.client(Client { enabled: false, ..client("disabled") }).await;
    let server = setup.start().await;
    server.basic("no-grant", &without, "").await.error("unauthorized_client");
    server.basic("disabled", &disabled, "").await.unauthorized();
}

async fn a_client_that_requires_binding_gets_no_bearer_token(db: Db) {
    let setup = Setup::new(db).await;
    let dpop = setup.client(Client { require_dpop: true, ..client("dpop-client") }).await;
    let mtls = setup.client(Client { require_mtls_binding: true, ..client("mtls-bound-client") }).await;
    let server = setup.start().await;
    server.basic("dpop-client", &dpop, "").await.error("invalid_dpop_proof");
    let authorization = basic("dpop-client", &dpop);
    server.post(&[("authorization", &authorization), ("dpop", "x.y.z")], GRANT).await.error("invalid_dpop_proof");
    server.basic("mtls-bound-client", &mtls, "").await.error("invalid_request");
}

async fn scopes_are_granted_exactly_or_refused(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let long = "a".repeat(4097);
    let many = (0..200).map(|n| format!("s{n}")).collect::<Vec<_>>().join("+");
    for scope in [
        "api:read++api:write",
        "+api:read",
        "api:read+",
        "api:read%09api:write",
        "api:read%0D%0A",
        "%22",
        "%5C",
        "%7F",
        "%C3%A9",
        "api:read%C2%A0",
        "API:READ",
        "api:read+api:admin",
        "api:read,api:write",
        "*",
        "api:rea",
        "api:read2",
        &long,
        &many,
    ] {
        server.basic("basic-client", &secret, &format!("scope={scope}")).await.error("invalid_scope");
    }
}

async fn scopes_are_a_set_and_the_answer_lists_those_granted(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    for scope in ["api:write+api:read", "api:read+api:read+api:write+api:read"] {
        let answer = server.basic("basic-client", &secret, &format!("scope={scope}")).await;
        let (_, claims) = answer.token();
        assert_eq!(answer.ok()["scope"], claims["scope"]);
        let mut tokens: Vec<&str> = claims["scope"].as_str().unwrap().split(' ').collect();
        tokens.sort_unstable();
        assert_eq!(tokens, ["api:read", "api:write"]);
    }
    assert_eq!(server.basic("basic-client", &secret, "scope=api:write").await.token().1["scope"], "api:write");
}

async fn an_omitted_scope_means_the_default_and_never_more(db: Db) {
    let setup = Setup::new(db).await;
    let with = setup.client(client("with")).await;
    let without = setup.client(Client { scopes: scopes("api:read api:write", ""), ..client("without") }).await;
    let none = setup.client(Client { scopes: scopes("", ""), ..client("none") }).await;
    let server = setup.start().await;
    assert_eq!(server.basic("with", &with, "").await.ok()["scope"], "api:read");
    server.basic("without", &without, "").await.error("invalid_scope");
    for form in ["", "scope=api:read", "scope=x"] {
        server.basic("none", &none, form).await.error("invalid_scope");
    }
}

async fn a_withdrawn_scope_is_refused_on_the_next_request(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    server.basic("basic-client", &secret, "scope=api:write").await.ok();
    server.db.sql("update client set scope = 'api:read' where client_id = 'basic-client'").await.unwrap();
    server.refresh().await;
    server.basic("basic-client", &secret, "scope=api:write").await.error("invalid_scope");
    server.db.sql("update client set grant_types = '' where client_id = 'basic-client'").await.unwrap();
    server.refresh().await;
    server.basic("basic-client", &secret, "").await.error("unauthorized_client");
}
