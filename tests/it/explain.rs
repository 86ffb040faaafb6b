//! `grantd explain` and `GET /v1/refusals`: the causes of refusals, as an operator reads them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use grantd::http::admin::{self, Admin};
use grantd::http::log::recent::RecentRefusals;
use grantd::http::refusals::ShownRefusals;
use grantd::model::time::Clock;
use serde_json::{Value, json};

use crate::assertion::{Signer, TYPE, claims};
use crate::harness::{Answer, Db, ISS, Setup, basic, form};
use crate::process::daemon::{Daemon, Grantd, eventually, send};

on_both!(
    twelve_causes_of_a_401_are_named_by_one_command,
    a_refused_scope_is_told_with_the_command_that_allows_it,
    refusals_are_filtered_grouped_and_found_by_their_request_id,
    an_authenticated_client_reads_which_scope_or_resource_is_refused
);

const IMPORTED: &str = "chosen elsewhere, with a ' in it";

/// A running server, and the commands beside it.
struct Site {
    grantd: Grantd,
    daemon: Daemon,
    url: String,
}

impl Site {
    async fn start(grantd: Grantd) -> Self {
        let daemon = Daemon::start(grantd.command(&["serve"]), false).await;
        let url = format!("http://{}", daemon.admin);
        Self { grantd, daemon, url }
    }

    async fn explain(&self, arguments: &[&str]) -> String {
        self.grantd.ok(&[&["explain", "--admin-url", &self.url], arguments].concat()).await.stdout
    }

    async fn document(&self, arguments: &[&str]) -> Value {
        self.grantd.json(&[&["explain", "--json", "--admin-url", &self.url], arguments].concat()).await
    }

    async fn ask(&self, fields: &[(&str, &str)], form: &str) -> Answer {
        self.daemon.post("/token", fields, format!("grant_type=client_credentials&{form}")).await
    }
}

async fn created(grantd: &Grantd, id: &str) -> String {
    let created = grantd.json(&["client", "create", id, "--scope", "a", "--default-scope", "a", "--json"]).await;
    created["client_secret"].as_str().unwrap().to_owned()
}

async fn twelve_causes_of_a_401_are_named_by_one_command(db: Db) {
    let grantd = Grantd::new(&db).with("GRANTD__ISSUER", ISS);
    grantd.ok(&["migrate"]).await;
    let mut secrets = std::collections::BTreeMap::new();
    for id in ["echoed", "payroll", "billing", "cut", "empty", "rotated", "lapsed", "paused", "poster"] {
        secrets.insert(id, created(&grantd, id).await);
    }
    grantd.ok(&["client", "create", "quoted", "--scope", "a", "--default-scope", "a", "--no-secret"]).await;
    assert!(grantd.run_with_input(&["client", "secret", "import", "quoted"], IMPORTED).await.status.success());
    let signer = Signer::es256().named("k1");
    let jwk = db.file("jwk.json", &signer.jwk().to_string());
    for id in ["addressed", "late"] {
        grantd.ok(&["client", "create", id, "--scope", "a", "--default-scope", "a", "--no-secret"]).await;
        grantd.ok(&["client", "key", "add", id, "--jwk", jwk.to_str().unwrap()]).await;
    }
    let rotated = secrets["rotated"].split('_').nth(1).unwrap();
    grantd.ok(&["client", "secret", "revoke", "rotated", rotated]).await;
    let lapsed = Clock::System.now().0 - 3 * 86400;
    db.sql(&format!("update client_secret set expires_at = {lapsed} where client_id = 'lapsed'")).await.unwrap();
    grantd.ok(&["client", "disable", "paused"]).await;
    grantd.ok(&["client", "set", "poster", "--auth-methods", "client_secret_basic"]).await;

    let site = Site::start(grantd).await;
    let encoded = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let in_body = |id: &str, secret: &str| format!("client_id={id}&client_secret={}", encoded(secret));
    let assertion = |id: &str, changes: Value| {
        let mut claims = claims(id);
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        format!("client_assertion_type={TYPE}&client_assertion={}", signer.assert(&claims))
    };
    let now = Clock::System.now().0;
    let causes: Vec<(&str, String, Vec<&str>)> = vec![
        (
            "echoed",
            in_body("echoed", &format!("{}\n", secrets["echoed"])),
            vec![
                "secret_whitespace",
                "The secret has a line end before or behind it; without it, it is one that grantd generated for this client.",
            ],
        ),
        (
            "quoted",
            in_body("quoted", &format!("\"{IMPORTED}\"")),
            vec!["secret_whitespace", "The secret begins or ends with a quotation mark"],
        ),
        (
            "payroll",
            in_body("payroll", &secrets["billing"]),
            vec!["secret_of_other_client", "The secret is one of the client billing."],
        ),
        ("cut", in_body("cut", &secrets["cut"][..40]), vec!["secret_truncated", "The secret lacks its end."]),
        ("empty", "client_id=empty&client_secret=".to_owned(), vec!["secret_empty", "The secret is empty."]),
        (
            "rotated",
            in_body("rotated", &secrets["rotated"]),
            vec!["secret_revoked", "was revoked", "A deployment at 127.0.0.1 still has it"],
        ),
        (
            "lapsed",
            in_body("lapsed", &secrets["lapsed"]),
            vec!["secret_expired", "expired 3 days before", "grantd client secret add lapsed"],
        ),
        ("Payroll", in_body("Payroll", &secrets["payroll"]), vec!["unknown_client", "there is payroll."]),
        ("paused", in_body("paused", &secrets["paused"]), vec!["client_disabled", "grantd client enable paused"]),
        (
            "poster",
            in_body("poster", &secrets["poster"]),
            vec![
                "auth_method_not_allowed",
                "It authenticated by client_secret_post and may use client_secret_basic.",
                "grantd client set poster --auth-methods \"client_secret_basic client_secret_post\"",
            ],
        ),
        (
            "addressed",
            assertion("addressed", json!({"aud": format!("{ISS}/token")})),
            vec![
                "assertion_audience",
                "Its aud is https://as.test/token, and has to be https://as.test.",
                "grantd client set addressed --assertion-audience token-endpoint",
            ],
        ),
        (
            "late",
            assertion("late", json!({"iat": now - 7000, "exp": now - 6900})),
            vec!["assertion_expired", "Its exp was 11", "compare the clocks"],
        ),
    ];
    for (id, form, words) in &causes {
        let answer = site.ask(&[], form).await;
        answer.unauthorized();
        let told = site.explain(&["--client", id]).await;
        println!("{told}");
        for word in words {
            assert!(told.contains(word), "{id}: {word}: {told}");
        }
        assert!(told.starts_with(&format!("{id} was refused once from 127.0.0.1: ")), "{told}");
    }
    // All of them at once, the newest first, and no secret in any of it.
    let all = site.explain(&[]).await;
    let at = |id: &str| all.find(&format!("{id} was refused once")).unwrap_or_else(|| panic!("{id}: {all}"));
    assert!(at("late") < at("paused") && at("paused") < at("echoed"), "{all}");
    let document = site.daemon.admin_get("/v1/refusals").await.body;
    for secret in secrets.values() {
        let random = &secret[21..];
        assert!(!document.contains(&random[..12]) && !all.contains(&random[..12]), "{document}");
    }
    assert!(!document.contains("chosen elsewhere"), "{document}");
}

async fn a_refused_scope_is_told_with_the_command_that_allows_it(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let created = grantd.json(&["client", "create", "payroll", "--scope", "invoices:read", "--json"]).await;
    let site = Site::start(grantd).await;
    let authorization = basic("payroll", created["client_secret"].as_str().unwrap());
    for _ in 0..3 {
        let refused = site.ask(&[("authorization", &authorization)], "scope=payroll:write").await;
        refused.error("invalid_scope");
    }
    let told = site.explain(&["--client", "payroll", "--since", "1h"]).await;
    println!("{told}");
    assert!(told.starts_with("payroll was refused 3 times"), "{told}");
    let rest = "from 127.0.0.1: scope_not_allowed. It asked for payroll:write and may have invoices:read. To allow it: grantd client set payroll --scope \"invoices:read payroll:write\"";
    assert!(told.lines().next().unwrap().ends_with(rest), "{told}");
    // The command works as it is printed.
    let command = told.lines().next().unwrap().split_once("To allow it: grantd ").unwrap().1;
    let words = command.replace('"', "|");
    let mut words: Vec<&str> = words.split('|').filter(|part| !part.trim().is_empty()).collect();
    let scope = words.pop().unwrap();
    let arguments: Vec<&str> = words[0].split_whitespace().chain([scope]).collect();
    site.grantd.ok(&arguments).await;
    let ask = async || site.ask(&[("authorization", &authorization)], "scope=payroll:write").await.status;
    eventually(ask, |status| *status == StatusCode::OK).await;
}

async fn refusals_are_filtered_grouped_and_found_by_their_request_id(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    created(&grantd, "one").await;
    created(&grantd, "two").await;
    let mut site = Site::start(grantd).await;
    assert!(site.explain(&[]).await.contains("Nothing was refused in the last hour"));
    let wrong = async |id: &str| site.ask(&[("authorization", &basic(id, "wrong, and long enough"))], "").await;
    let first = wrong("one").await;
    for number in 0..6 {
        wrong(&format!("guess-{number}")).await.unauthorized();
    }
    for _ in 0..15 {
        wrong("two").await;
    }
    let id = first.header("x-request-id").to_owned();
    let one = site.document(&["--client", "one"]).await;
    assert_eq!(one["refusals"].as_array().unwrap().len(), 1, "{one}");
    let refusal = &one["refusals"][0];
    assert_eq!((&refusal["request_id"], &refusal["reason"]), (&id.as_str().into(), &"wrong_secret".into()));
    assert_eq!(
        (&refusal["remote_addr"], &refusal["compared"]["auth_method"]),
        (&"127.0.0.1".into(), &"client_secret_basic".into())
    );
    assert!(
        refusal["at"].is_i64() && refusal["remedy"].as_str().unwrap().contains("grantd client secret add"),
        "{refusal}"
    );
    let members: Vec<&String> = refusal.as_object().unwrap().keys().collect();
    assert_eq!(members, ["at", "client_id", "compared", "detail", "reason", "remedy", "remote_addr", "request_id"]);
    assert!(one["replica"].as_str().unwrap().ends_with(&format!(":{}", site.daemon.admin.port())), "{one}");

    let whole = site.explain(&[&id]).await;
    assert!(whole.contains("It does not match the client's one live secret."), "{whole}");
    assert!(whole.contains(&id) && whole.contains("wrong_secret"), "{whole}");
    let throttled = site.document(&["--reason", "throttled"]).await;
    assert_eq!(throttled["refusals"][0]["compared"]["last_reason"], "wrong_secret", "{throttled}");
    let told = site.explain(&["--client", "two", "--reason", "throttled"]).await;
    assert!(told.contains("the reason of its last failure is wrong_secret"), "{told}");
    let all = site.explain(&["--reason", "unknown_client"]).await;
    assert!(all.contains("6 ids that no client has were refused 6 times"), "guesses are one cause: {all}");
    assert!(site.explain(&["--client", "nobody"]).await.contains("No refusal of nobody"));

    let done = site.grantd.run(&["explain", "--admin-url", &site.url, "AAAAAAAAAAAAAAAA"]).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("other replicas keep their own"), "{done:?}");
    // Offline, and with a hint where there is no such code.
    let page = site.grantd.ok(&["explain", "secret_whitespace"]).await.stdout;
    assert!(page.contains("401 `invalid_client`") && page.contains("printf %s"), "{page}");
    let page = site.grantd.json(&["explain", "--json", "wrong_secret"]).await;
    assert_eq!(page["reason"], "wrong_secret");
    let done = site.grantd.run(&["explain", "expired_secret"]).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("secret_expired"), "{done:?}");
    let done = site.grantd.run(&["explain", "--reason", "wrong"]).await;
    assert!(done.status.code() == Some(2) && done.stderr.contains("wrong_secret"), "{done:?}");
    site.daemon.stop_cleanly(Duration::from_secs(10)).await;
    let done = site.grantd.run(&["explain", "--admin-url", &site.url]).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("is the server running there?"), "{done:?}");
}

async fn an_authenticated_client_reads_which_scope_or_resource_is_refused(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let ask = async |form: &str| {
        let answer = server.basic("basic-client", &secret, form).await;
        answer.json()["error_description"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask("scope=api:read+admin+root").await, "a scope is not allowed for this client: admin root");
    assert_eq!(
        ask("resource=https://other.test").await,
        "this resource is not allowed for this client: https://other.test"
    );
    let long = ask(&format!("scope={}", "x".repeat(3000))).await;
    assert!(long.len() < 200 && long.ends_with("xxx..."), "{long}");
    // RFC 6749 section 5.2 has no place for a quotation mark, a backslash or a letter beyond ASCII.
    for resource in ["https://other.test/%22", "https://other.test/%5c", "https://other.test/%c3%a9"] {
        let answer = server.basic("basic-client", &secret, &format!("resource={resource}")).await;
        answer.error("invalid_target");
        assert!(!answer.body.contains("other.test"), "{resource}: {}", answer.body);
    }
    // A client that has not authenticated reads nothing of it.
    let stranger = server.basic("basic-client", "wrong, and long enough", "scope=api:read+admin").await;
    stranger.unauthorized();
    assert!(!stranger.body.contains("admin"), "{}", stranger.body);
}

#[tokio::test]
async fn refusals_are_shown_on_the_machine_itself_by_a_loopback_name() {
    let (server, _) = Setup::with_basic_client(Db::sqlite()).await;
    let recent = Arc::new(RecentRefusals::default());
    let router = admin::router(Admin {
        server: Arc::clone(&server.server),
        draining: Arc::new(AtomicBool::new(false)),
        metrics: Arc::new(String::new),
        refusals: ShownRefusals { server: Arc::clone(&server.server), recent, replica: "r".into() },
    });
    let ask = async |peer: &str, host: &str, path: &str| {
        let request = Request::get(path).header(header::HOST, host).body(Body::empty()).unwrap();
        admin::answer(&router, peer.parse::<SocketAddr>().unwrap(), request).await.status()
    };
    for (peer, host, status) in [
        ("127.0.0.1:1", "127.0.0.1:9090", StatusCode::OK),
        ("[::1]:1", "[::1]:9090", StatusCode::OK),
        ("[::ffff:127.0.0.1]:1", "localhost", StatusCode::OK),
        ("192.0.2.1:1", "127.0.0.1:9090", StatusCode::FORBIDDEN),
        ("[2001:db8::1]:1", "localhost", StatusCode::FORBIDDEN),
        ("127.0.0.1:1", "attacker.test:9090", StatusCode::FORBIDDEN),
        ("127.0.0.1:1", "10.0.0.5:9090", StatusCode::FORBIDDEN),
    ] {
        assert_eq!(ask(peer, host, "/v1/refusals").await, status, "{peer} {host}");
        assert_eq!(ask(peer, host, "/livez").await, StatusCode::OK, "all else is for everybody: {peer} {host}");
    }
}

#[tokio::test]
async fn a_page_whose_name_was_rebound_to_this_machine_reads_no_refusals() {
    let db = Db::sqlite();
    let mut daemon = Daemon::start(Grantd::new(&db).command(&["serve"]), false).await;
    daemon.token("nobody", "wrong, and long enough").await.unauthorized();
    let answer = daemon.admin_get("/v1/refusals").await;
    assert_eq!(
        (answer.status, answer.json()["refusals"][0]["reason"].as_str()),
        (StatusCode::OK, Some("unknown_client"))
    );
    let mut stream = tokio::net::TcpStream::connect(daemon.admin).await.unwrap();
    let request = format!(
        "GET /v1/refusals HTTP/1.1\r\nhost: attacker.test:{}\r\nconnection: close\r\n\r\n",
        daemon.admin.port()
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut refused = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut refused).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 403") && !refused.contains("unknown_client"), "{refused}");
    let posted = send(daemon.admin, form("/v1/refusals", &[], "")).await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}
