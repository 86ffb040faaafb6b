//! The examples, included as they are: alone, against each other, and against the real program.

mod api;
mod bound;
mod client;
mod hostile;
mod issuer;
mod signer;
mod statuses;

#[path = "../../examples/caching_client/main.rs"]
#[expect(dead_code, reason = "main is not called here")]
mod caching_client;

#[path = "../../examples/protected_api/main.rs"]
#[expect(dead_code, reason = "main is not called here")]
mod protected_api;

#[path = "../../examples/protected_api_by_hand/main.rs"]
#[expect(dead_code, clippy::duplicate_mod, reason = "main is not called here; both examples end TLS alike")]
mod protected_api_by_hand;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser as _;
use reqwest::{Method, Response};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::Db;
use crate::process::daemon::{Daemon, Grantd, eventually};
use caching_client::Service;

fn now() -> i64 {
    grantd::model::time::Clock::System.now().0
}

/// The example APIs, which behave alike.
#[derive(Debug, Clone, Copy)]
enum Api {
    /// On `grantd-verify`.
    Library,
    /// With all checks in it.
    ByHand,
}

impl Api {
    const BOTH: [Self; 2] = [Self::Library, Self::ByHand];
}

/// Makes of each function, which tests one API, a test for each.
macro_rules! on_both_apis {
    ($($name:ident),* $(,)?) => {
        mod library {
            $(#[tokio::test] async fn $name() { super::$name(crate::examples::Api::Library).await })*
        }
        mod by_hand {
            $(#[tokio::test] async fn $name() { super::$name(crate::examples::Api::ByHand).await })*
        }
    };
}
use on_both_apis;

/// The example API with these arguments, on a socket of its own.
async fn start_api(api: Api, arguments: &[&str], clock: fn() -> i64) -> SocketAddr {
    macro_rules! start {
        ($example:ident) => {{
            let options = $example::Options::parse_from([&["protected_api"][..], arguments].concat());
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let app = $example::app(&options, address, clock).unwrap();
            match (&options.tls_cert, &options.tls_key) {
                (Some(cert), Some(key)) => {
                    let tls = $example::tls::config(cert, key).unwrap();
                    let listener = $example::tls::TlsListener::start(socket, tls).unwrap();
                    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
                }
                _ => drop(tokio::spawn(async move { axum::serve(socket, app).await.unwrap() })),
            }
            address
        }};
    }
    match api {
        Api::Library => start!(protected_api),
        Api::ByHand => start!(protected_api_by_hand),
    }
}

/// The example client with these arguments.
fn service(arguments: &[&str]) -> Service {
    let options = caching_client::Options::parse_from([&["caching_client"][..], arguments].concat());
    Service::new(&options).unwrap()
}

/// Calls as the example client does, and again when the issuer was too busy.
async fn call(service: &Service, method: Method, url: &str) -> Result<Response, caching_client::Failed> {
    let busy = |answer: &Result<Response, caching_client::Failed>| {
        answer.as_ref().is_err_and(|error| error.to_string() == "the token endpoint is busy: 503")
    };
    eventually(async || service.call(method.clone(), url).await, |answer| !busy(answer)).await
}

/// Status, challenges and body, each on a line.
async fn face(answer: Response) -> String {
    let mut lines = vec![answer.status().as_u16().to_string()];
    let challenges = answer.headers().get_all("www-authenticate");
    lines.extend(challenges.iter().map(|value| value.to_str().unwrap().to_owned()));
    lines.push(answer.text().await.unwrap());
    lines.join("\n")
}

on_both_apis!(the_example_client_calls_the_api_with_a_token_of_the_program);

async fn the_example_client_calls_the_api_with_a_token_of_the_program(api: Api) {
    let db = Db::sqlite();
    let mut daemon = Daemon::start(Grantd::new(&db).command(&["dev", "--json"]), true).await;
    let line: Value = serde_json::from_str(&daemon.stdout_line(|line| line.starts_with('{')).await).unwrap();
    let issuer = line["issuer"].as_str().unwrap();
    let secret = db.file("demo.secret", &format!("{}\n", line["client_secret"].as_str().unwrap()));
    let credential = ["--issuer", issuer, "--secret-file", secret.to_str().unwrap()];

    let for_issuer = ["--issuer", issuer, "--resource", issuer];
    let data = format!("http://{}/data", start_api(api, &for_issuer, now).await);
    let reader = service(&credential);
    assert_eq!(face(call(&reader, Method::GET, &data).await.unwrap()).await, "200\n{\"read_by\":\"demo\"}");
    let refused = face(call(&reader, Method::POST, &data).await.unwrap()).await;
    assert!(refused.starts_with("403\nBearer ") && refused.contains("error=\"insufficient_scope\""), "{refused}");
    assert!(refused.contains("scope=\"write:data\""), "{refused}");
    let writer = service(&[&credential[..], &["--scope", "write:data read:data"]].concat());
    assert_eq!(face(call(&writer, Method::POST, &data).await.unwrap()).await, "200\n{\"written_by\":\"demo\"}");

    // At another time, and at another API.
    let later = format!("http://{}/data", start_api(api, &for_issuer, || now() + 3_632).await);
    let refused = face(reader.call(Method::GET, &later).await.unwrap()).await;
    assert!(refused.starts_with("401\nBearer ") && refused.contains("the token has expired"), "{refused}");
    let elsewhere = ["--issuer", issuer, "--resource", "https://elsewhere.test"];
    let elsewhere = format!("http://{}/data", start_api(api, &elsewhere, now).await);
    let refused = face(reader.call(Method::GET, &elsewhere).await.unwrap()).await;
    assert!(refused.starts_with("401\nBearer ") && refused.contains("for another audience"), "{refused}");

    // One token did for all of that, and goes on without the issuer.
    daemon.stop_cleanly(Duration::from_secs(5)).await;
    let log = daemon.stderr.lock().unwrap().join("\n");
    assert_eq!(log.matches("token.issued").count(), 2, "{log}");
    for service in [&reader, &writer] {
        assert_eq!(service.call(Method::GET, &data).await.unwrap().status(), 200);
    }
}
