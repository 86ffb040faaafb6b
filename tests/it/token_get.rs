//! `grantd token get` and `grantd token inspect --issuer`: clients of an issuer on any machine, without its database.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::assertion::Signer;
use crate::harness::Db;
use crate::mutual_tls::named;
use crate::process::daemon::{Daemon, Done, Grantd, eventually};

on_both!(
    a_token_is_got_by_each_credential_over_tls_and_inspected_by_published_keys,
    a_refusal_is_told_with_the_request_id_of_the_server,
);

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The program on a machine that has neither configuration nor database.
fn elsewhere(db: &Db) -> Grantd {
    let settings = ["DATA_DIR", "DATABASE__URL", "KEYS__SEALING_KEY_FILE", "SERVER__LISTEN", "ADMIN__LISTEN"];
    settings.iter().fold(Grantd::new(db), |grantd, name| grantd.with(&format!("GRANTD__{name}"), ""))
}

/// Runs `token get`, again while the server does not know what was just registered.
async fn got(grantd: &Grantd, arguments: &[&str]) -> Done {
    let arguments = [&["token", "get"], arguments].concat();
    eventually(async || grantd.run(&arguments).await, |done| !done.stderr.contains("invalid_client")).await
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

async fn a_token_is_got_by_each_credential_over_tls_and_inspected_by_published_keys(db: Db) {
    let address = free_address();
    let issuer = format!("https://localhost:{}/t1", address.port());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| db.directory.path().join(name).display().to_string();
    db.file("tls.pem", &made.cert.pem());
    db.file("tls.key", &made.signing_key.serialize_pem());
    let server = Grantd::new(&db)
        .with("GRANTD__ISSUER", &issuer)
        .with("GRANTD__SERVER__LISTEN", &address.to_string())
        .with("GRANTD__SERVER__TLS__CERT_FILE", &path("tls.pem"))
        .with("GRANTD__SERVER__TLS__KEY_FILE", &path("tls.key"))
        .with("GRANTD__SERVER__MTLS__LISTEN", "127.0.0.1:0")
        .with("GRANTD__DPOP__REQUIRE_NONCE", "true");
    server.ok(&["migrate"]).await;
    for uri in ["https://a.test", "https://b.test"] {
        server.ok(&["resource", "create", uri, "--scope", "read write"]).await;
    }
    let id = "it's a client:1";
    let create =
        ["client", "create", id, "--scope", "read write", "--default-scope", "read", "--secret-file", &path("secret")];
    server.ok(&[&create[..], &["--resource", "https://a.test", "--resource", "https://b.test"]].concat()).await;
    let pair = rcgen::KeyPair::generate().unwrap();
    db.file("client.key", &pair.serialize_pem());
    db.file("client.pub", &pair.public_key_pem());
    db.file("client.pem", &named("c").self_signed(&pair).unwrap().pem());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "mine"});
    db.file("private.jwk", &jwk.to_string());
    let mut public = jwk;
    public.as_object_mut().unwrap().remove("d");
    db.file("public.jwk", &public.to_string());
    for file in ["client.pub", "public.jwk"] {
        server.ok(&["client", "key", "add", id, "--jwk", &path(file)]).await;
    }
    server.ok(&["client", "cert", "add", id, "--self-signed", &path("client.pem")]).await;
    let mut daemon = Daemon::start(server.command(&["serve"]), false).await;

    let machine = elsewhere(&db);
    let common = ["--client", id, "--issuer", &issuer, "--ca-file", &path("tls.pem"), "--resource", "https://b.test"];
    let certificate = ["--cert", &path("client.pem"), "--cert-key", &path("client.key")];
    let (by_secret, by_key) = (["--secret-file", &path("secret")], ["--key", &path("client.key")]);
    for (credential, method, is_bound) in [
        (&by_secret[..], "client_secret_basic", false),
        (&by_key, "private_key_jwt", false),
        (&["--key", &path("private.jwk")], "private_key_jwt", false),
        (&certificate, "self_signed_tls_client_auth", true),
        // Beside another credential it is none, and binds the tokens of clients that are registered so.
        (&[&by_key[..], &certificate].concat(), "private_key_jwt", false),
    ] {
        let done = got(&machine, &[&common[..], credential, &["--scope", "write"]].concat()).await;
        assert!(done.status.success() && done.stderr.is_empty(), "{credential:?}: {done:?}");
        assert!(done.stdout.ends_with('\n') && done.stdout.matches('\n').count() == 1, "{done:?}");
        let claims = claims(done.stdout.trim());
        assert_eq!((&claims["aud"], &claims["scope"]), (&"https://b.test".into(), &"write".into()));
        assert_eq!(
            (&claims["iss"], claims["cnf"]["x5t#S256"].is_string()),
            (&issuer.as_str().into(), is_bound),
            "{claims}"
        );
        let jti = &claims["jti"];
        let logged = async || daemon.events("token.issued").into_iter().find(|event| event["jti"] == *jti);
        assert_eq!(eventually(logged, Option::is_some).await.unwrap()["auth_method"], method);
        let inspect = ["token", "inspect", "--issuer", &issuer, "--ca-file", &path("tls.pem")];
        let inspected = machine.run_with_input(&inspect, &format!("Bearer {}", done.stdout)).await;
        assert!(inspected.status.success() && inspected.stdout.starts_with("valid\n"), "{inspected:?}");
        assert!(inspected.stderr.contains("published keys do not tell whether the token was revoked"), "{inspected:?}");
    }
    // An assertion made elsewhere names the client by itself.
    let now = grantd::model::time::Clock::System.now().0;
    let assertion = json!({"iss": id, "sub": id, "aud": issuer, "jti": "once", "iat": now, "exp": now + 60});
    let assertion = db.file("assertion", &format!("{}\n", Signer::of(&pair).assert(&assertion))).display().to_string();
    let by_file = ["token", "get", "--issuer", &issuer, "--ca-file", &path("tls.pem"), "--assertion-file", &assertion];
    let done = machine.run(&[&by_file[..], &["--resource", "https://a.test"]].concat()).await;
    assert!(done.status.success() && claims(done.stdout.trim())["client_id"] == id, "{done:?}");
    let again = machine.run(&by_file).await;
    assert!(again.status.code() == Some(1) && again.stderr.contains("401 invalid_client"), "{again:?}");

    // The server demands a nonce, which comes with the first refusal.
    let whole = got(&machine, &[&common[..], &by_secret, &["--dpop", "--json"]].concat()).await;
    let answer: Value = serde_json::from_str(&whole.stdout).unwrap();
    let members: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(members, ["access_token", "expires_in", "scope", "token_type"]);
    assert_eq!((&answer["token_type"], &answer["scope"]), (&"DPoP".into(), &"read".into()));
    assert!(claims(answer["access_token"].as_str().unwrap())["cnf"]["jkt"].is_string());
    assert!(whole.stderr.contains("DPoP key that ends with this command"), "{whole:?}");

    // An answer is inspected as it is, and a token that was altered is told.
    let inspect = ["token", "inspect", "--issuer", &issuer, "--ca-file", &path("tls.pem"), "--json"];
    let inspected = machine.run_with_input(&inspect, &whole.stdout).await;
    assert_eq!(serde_json::from_str::<Value>(&inspected.stdout).unwrap()["valid"], true, "{inspected:?}");
    let token = answer["access_token"].as_str().unwrap();
    let (signed, _) = token.rsplit_once('.').unwrap();
    let other = BASE64_URL_SAFE_NO_PAD.encode([7; 64]);
    let inspected = machine.run_with_input(&inspect, &format!("{signed}.{other}")).await;
    assert!(inspected.status.code() == Some(1) && inspected.stderr.contains("the token was altered"), "{inspected:?}");
    let foreign = Signer::es256().named("k");
    let foreign =
        foreign.sign(&foreign.header().to_string(), &json!({"iss": "https://other.test", "exp": 1}).to_string());
    let inspected = machine.run_with_input(&inspect, &foreign).await;
    for part in ["no key of this server has the kid `k`", "iss is `https://other.test`", "expired at"] {
        assert!(inspected.status.code() == Some(1) && inspected.stderr.contains(part), "{inspected:?}");
    }
    let refused = machine.run_with_input(&inspect, r#"{"error":"invalid_client"}"#).await;
    assert!(refused.stderr.contains("the refusal of a token request: invalid_client"), "{refused:?}");
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}

async fn a_refusal_is_told_with_the_request_id_of_the_server(db: Db) {
    let address = free_address();
    let issuer = format!("http://{address}");
    // The issuer that is configured is the default; a fault elsewhere in the configuration does not matter.
    let server = Grantd::new(&db).with("GRANTD__ISSUER", &issuer).with("GRANTD__SERVER__LISTEN", &address.to_string());
    server.ok(&["migrate"]).await;
    let file = |name: &str| db.directory.path().join(name).display().to_string();
    server.ok(&["client", "create", "c", "--scope", "a", "--secret-file", &file("secret")]).await;
    let mut daemon = Daemon::start(server.command(&["serve"]), false).await;
    let faulty = server.with("GRANTD__SECRETS__ARGON2", "m=1");
    got(&faulty, &["--client", "c", "--secret-file", &file("secret")]).await;
    let secret = std::fs::read_to_string(file("secret")).unwrap();
    let wrong = db.file("wrong", &format!("{} \n", secret.trim())).display().to_string();

    let refused = server.run(&["token", "get", "--client", "c", "--secret-file", &wrong]).await;
    assert!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{refused:?}");
    assert!(refused.stderr.starts_with("warning: the secret begins or ends with white space"), "{refused:?}");
    let (_, id) = refused.stderr.split_once("401 invalid_client: ").unwrap().1.split_once("; x-request-id: ").unwrap();
    let (id, rest) = id.split_once(';').unwrap();
    assert!(rest.starts_with(&format!(" `grantd explain {id}` on the server's machine")), "{refused:?}");
    let logged = async || daemon.events("token.refused").into_iter().find(|event| event["request_id"] == id);
    eventually(logged, Option::is_some).await;
    let scope = server.run(&["token", "get", "--client", "c", "--secret-file", &file("secret"), "--scope", "b"]).await;
    assert!(scope.status.code() == Some(1) && scope.stderr.contains("400 invalid_scope: "), "{scope:?}");

    let by_name = issuer.replace("127.0.0.1", "localhost");
    let machine = elsewhere(&db);
    let get = ["token", "get", "--client", "c", "--secret-file", &file("secret"), "--issuer"];
    for (named, part) in [
        (by_name.as_str(), "of the issuer http://127.0.0.1"),
        (&format!("{issuer}/t1"), "answered 404, where an issuer has its metadata"),
        ("http://127.0.0.1:1", "is the server running"),
        ("https://127.0.0.1:1", "is the server running"),
    ] {
        let done = machine.run(&[&get[..], &[named]].concat()).await;
        assert!(done.status.code() == Some(1) && done.stdout.is_empty() && done.stderr.contains(part), "{done:?}");
    }
    // Without a configuration it is the issuer of a server on its default address.
    let default = machine.run(&get[..6]).await;
    assert!(default.stderr.contains("http://127.0.0.1:8080/.well-known/"), "{default:?}");
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}

/// An issuer that answers as it is told, below the path `/{answer}`.
async fn stand_in() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", socket.local_addr().unwrap());
    let mut routes = Router::new();
    for name in ["page", "redirect", "downgrade", "control", "busy", "foreign"] {
        let issuer = format!("{origin}/{name}");
        let metadata = json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token")});
        routes = routes.route(&format!("/.well-known/oauth-authorization-server/{name}"), get(async || Json(metadata)));
        let token = |kind: &str, token: &str| Json(json!({"access_token": token, "token_type": kind}));
        let answer = async move || match name {
            "redirect" => Redirect::temporary("http://127.0.0.1:1/token").into_response(),
            "downgrade" => token("Bearer", "a.b.c").into_response(),
            "control" => token("DPoP", "a\u{1b}[2J").into_response(),
            "busy" => (
                StatusCode::SERVICE_UNAVAILABLE,
                [("retry-after", "7")],
                Json(json!({"error": "temporarily_unavailable"})),
            )
                .into_response(),
            "foreign" => (StatusCode::BAD_REQUEST, [("x-request-id", "a b;`x`")], Json(json!({"error": "e\u{1b}[2J"})))
                .into_response(),
            _ => (StatusCode::BAD_GATEWAY, "<html>").into_response(),
        };
        routes = routes.route(&format!("/{name}/token"), post(answer));
    }
    tokio::spawn(async move { axum::serve(socket, routes).await.unwrap() });
    origin
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_described_and_nothing_is_printed() {
    let (db, origin) = (Db::sqlite(), stand_in().await);
    let file = db.file("secret", "a secret chosen elsewhere\n").display().to_string();
    for (name, part) in [
        ("page", "502, which is no OAuth answer"),
        ("redirect", "307, which is no OAuth answer"),
        ("downgrade", "of type Bearer, where a DPoP token was asked for"),
        ("control", "an access_token that is missing or malformed"),
        ("busy", "503 temporarily_unavailable; try again in 7 s"),
        ("foreign", "400 e\\u{1b}[2J; x-request-id: a b;`x`"),
    ] {
        let issuer = format!("{origin}/{name}");
        let get = ["token", "get", "--client", "c", "--secret-file", &file, "--dpop", "--issuer", &issuer];
        let done = elsewhere(&db).run(&get).await;
        assert!(done.status.code() == Some(1) && done.stdout.is_empty(), "{done:?}");
        assert!(done.stderr.contains(part) && !done.stderr.contains("grantd explain"), "{name}: {done:?}");
    }
}

#[tokio::test]
async fn exactly_one_credential_is_asked_for_and_its_file_is_named() {
    let db = Db::sqlite();
    let machine = elsewhere(&db);
    let empty = db.file("empty", "\n").display().to_string();
    for (arguments, code, part) in [
        (&["--client", "c"][..], 2, "--secret-file"),
        (&["--secret-file", "f"], 2, "--client"),
        (&["--client", "c", "--secret-file", "f", "--key", "k"], 2, "cannot be used with"),
        (&["--client", "c", "--cert", "f"], 2, "--cert-key"),
        (&["--client", "c", "--cert-key", "f"], 2, "--cert"),
        (&["--client", "c", "--secret-file", "f", "--alg", "RS256"], 2, "cannot be used with"),
        (&["--client", "c", "--secret-file", "/nonexistent/f"], 1, "--secret-file /nonexistent/f"),
        (&["--client", "c", "--secret-file", &empty], 1, "holds no secret"),
        (&["--client", "c", "--key", &empty], 1, "expected PEM"),
        (&["--client", "c", "--cert", &empty, "--cert-key", &empty], 1, "--cert: "),
        (&["--assertion-file", "/nonexistent/f"], 1, "--assertion-file /nonexistent/f"),
    ] {
        let done = machine.run(&[&["token", "get", "--issuer", "http://127.0.0.1:1"], arguments].concat()).await;
        assert!(done.status.code() == Some(code) && done.stderr.contains(part), "{arguments:?}: {done:?}");
    }
}
