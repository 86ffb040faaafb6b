//! Real clients: the `oauth2` crate as backend services use it, and a run with canary secrets whose output is searched.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http_body_util::BodyExt as _;
use oauth2::basic::BasicClient;
use oauth2::{AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, Scope, TokenResponse as _, TokenUrl};

use crate::harness::{Db, basic};
use crate::process::daemon::{Daemon, Grantd, Proxy};

on_both!(the_oauth2_crate_gets_a_token_by_basic_and_by_body, no_output_holds_a_secret);

async fn over_tcp(request: HttpRequest) -> Result<HttpResponse, std::io::Error> {
    let address = request.uri().authority().unwrap().to_string();
    let stream = tokio::net::TcpStream::connect(&address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    let mut request = request.map(axum::body::Body::from);
    request.headers_mut().insert("host", address.parse().unwrap());
    let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    Ok(HttpResponse::from_parts(parts, body.to_vec()))
}

async fn the_oauth2_crate_gets_a_token_by_basic_and_by_body(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "an.id-with_all~of", "--scope", "read:data write:data", "--no-secret"]).await;
    let secret = "p@ss:w0rd+with%20all /?&=";
    let imported = grantd.run_with_input(&["client", "secret", "import", "an.id-with_all~of"], secret).await;
    assert!(imported.status.success(), "{imported:?}");
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    for auth_type in [AuthType::BasicAuth, AuthType::RequestBody] {
        let client = BasicClient::new(ClientId::new("an.id-with_all~of".into()))
            .set_client_secret(ClientSecret::new(secret.into()))
            .set_token_uri(TokenUrl::new(format!("http://{}/token", daemon.public)).unwrap())
            .set_auth_type(auth_type);
        let ask = client
            .exchange_client_credentials()
            .add_scope(Scope::new("write:data".into()))
            .add_scope(Scope::new("read:data".into()));
        let token = ask.request_async(&over_tcp).await.unwrap();
        assert_eq!(token.expires_in(), Some(Duration::from_hours(1)));
        assert_eq!(token.scopes().unwrap().len(), 2);
        assert!(token.refresh_token().is_none() && token.access_token().secret().starts_with("eyJ"));
        // Its errors are read as what they are.
        let wrong = client.clone().set_client_secret(ClientSecret::new("wrong-but-long-enough".into()));
        let error = wrong.exchange_client_credentials().request_async(&over_tcp).await.unwrap_err();
        let oauth2::RequestTokenError::ServerResponse(error) = error else { panic!("{error:?}") };
        assert_eq!(error.error(), &oauth2::basic::BasicErrorResponseType::InvalidClient);
    }
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

/// The forms in which a secret could stand in an output.
fn forms(canary: &str) -> Vec<String> {
    let encoded: String = canary.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let unpadded = |text: String| text.trim_end_matches('=').to_owned();
    let inside = |before: &str| {
        // What stays the same of the base64 of a longer text that the canary is in.
        let all = BASE64_STANDARD.encode(format!("{before}{canary}"));
        all[before.len().div_ceil(3) * 4 + 4..].trim_end_matches('=').get(..16).unwrap_or_default().to_owned()
    };
    let mut forms = vec![
        canary.to_owned(),
        encoded.clone(),
        encoded.to_lowercase(),
        unpadded(BASE64_STANDARD.encode(canary)),
        BASE64_URL_SAFE_NO_PAD.encode(canary),
        canary.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
    ];
    forms.extend(["", "a", "ab"].map(inside));
    forms.push(canary[canary.len() - 12..].to_owned());
    forms.retain(|form| form.len() >= 12);
    forms
}

async fn no_output_holds_a_secret(db: Db) {
    let grantd = Grantd::new(&db);
    let mut canaries: Vec<String> =
        vec![std::fs::read_to_string(db.directory.path().join("sealing.key")).unwrap().trim().to_owned()];
    let mut output = String::new();
    let password = "canary-of-the-database-password";
    let mut with_password = grantd.clone();
    if db.is_postgres() {
        // A user whose password is in the URL. Through a proxy, so that errors of the connection are seen too.
        let name = db.url.rsplit('/').next().unwrap();
        db.sql(&format!("create role r_{name} login superuser password '{password}'")).await.unwrap();
        let at = db.url.find('@').unwrap();
        let proxy = Proxy::start(&format!("postgres://r_{name}:{password}{}", &db.url[at..])).await;
        with_password = grantd.with("GRANTD__DATABASE__URL", &proxy.url);
        canaries.push(password.into());
        std::mem::forget(proxy);
    }
    let grantd = with_password.with("RUST_LOG", "trace");
    let mut note = |done: &crate::process::daemon::Done, shows_secret: bool| {
        output += &done.stderr;
        if !shows_secret {
            output += &done.stdout;
        }
    };
    note(&grantd.ok(&["migrate"]).await, false);
    let created = grantd.ok(&["client", "create", "c", "--scope", "a", "--default-scope", "a", "--json"]).await;
    note(&created, true);
    let secret = serde_json::from_str::<serde_json::Value>(&created.stdout).unwrap()["client_secret"]
        .as_str()
        .unwrap()
        .to_owned();
    let imported = "canary of an imported secret + %";
    note(&grantd.run_with_input(&["client", "secret", "import", "c"], imported).await, false);
    let wrong = "canary-of-a-wrong-secret-0123456789";
    canaries.extend([secret.clone(), imported.to_owned(), wrong.to_owned()]);
    let pem = db.directory.path().join("key.pem");
    let made = std::process::Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]).output().unwrap();
    canaries.push(String::from_utf8(made.stdout.clone()).unwrap().lines().nth(1).unwrap().to_owned());
    std::fs::write(&pem, made.stdout).unwrap();
    note(&grantd.ok(&["key", "import", pem.to_str().unwrap(), "--alg", "EdDSA"]).await, false);

    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let form = "grant_type=client_credentials";
    let answer = daemon.token("c", &secret).await;
    let token = answer.ok()["access_token"].as_str().unwrap().to_owned();
    canaries.push(token.clone());
    let mut bodies = String::new();
    for attempt in [
        daemon.token("c", "canary+of+an+imported+secret+%2B+%25").await,
        daemon.post("/token", &[("authorization", &basic("c", imported))], form.into()).await,
        daemon.token("c", wrong).await,
        daemon.token(wrong, wrong).await,
        daemon.post("/token", &[("authorization", &basic("nobody", wrong))], form.into()).await,
        daemon.post("/token", &[("authorization", &format!("Bearer {token}"))], form.into()).await,
        daemon.post("/token", &[("authorization", &format!("Basic {wrong}"))], form.into()).await,
        daemon.post(&format!("/token?client_secret={wrong}&access_token={token}"), &[], form.into()).await,
        daemon
            .post("/token", &[], format!("{form}&client_id=c&client_assertion={token}&client_assertion_type=x"))
            .await,
        daemon.post("/token", &[], format!("{form}&client_id=c&client_secret={wrong}&client_secret={wrong}")).await,
        daemon.post("/token", &[("dpop", &token)], format!("{form}&client_id=c&client_secret={wrong}")).await,
        daemon
            .post("/token", &[("content-type", "application/json")], format!("{{\"client_secret\":\"{wrong}\"}}"))
            .await,
        daemon.get(&format!("/{wrong}")).await,
    ] {
        if attempt.status != 200 {
            bodies += &format!("{:?}{}", attempt.headers, attempt.body);
        }
    }
    let inspected = grantd.run_with_input(&["token", "inspect"], &token).await;
    note(&inspected, false);
    for arguments in [
        &["doctor"][..],
        &["config", "print"],
        &["client", "show", "c"],
        &["key", "list"],
        &["client", "secret", "list", "c"],
    ] {
        note(&grantd.run(arguments).await, false);
    }
    let metrics = daemon.admin_get("/metrics").await.body + &daemon.admin_get("/readyz").await.body;
    daemon.stop_cleanly(Duration::from_secs(5)).await;
    let logs = daemon.stdout.lock().unwrap().join("\n") + &daemon.stderr.lock().unwrap().join("\n");
    assert!(logs.contains("token.issued") && logs.matches("token.refused").count() > 8, "nothing was logged: {logs}");

    for canary in &canaries {
        for form in forms(canary) {
            for (place, text) in [("logs", &logs), ("commands", &output), ("bodies", &bodies), ("metrics", &metrics)] {
                // A wrong id and a wrong path are not secrets; they are logged as what they are.
                let excused = canary == wrong && place == "logs";
                let lines: Vec<&str> = text.lines().filter(|line| line.contains(&form)).collect();
                let guilty: Vec<&&str> = lines
                    .iter()
                    .filter(|line| {
                        !(excused && (line.contains("\"client_id\":\"canary") || line.contains("\"path\":\"/canary")))
                    })
                    .collect();
                assert!(guilty.is_empty(), "{form} of {canary} stands in the {place}: {guilty:#?}");
            }
        }
    }
}
