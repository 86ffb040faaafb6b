//! The check of status lists in the example API: against lists that are not as they should be, and against the program.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use grantd::protocol::status_list::compress;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::protected_api::status_list::StatusLists;
use super::signer::Signer;
use super::{Api, face, now, start_api};
use crate::harness::Db;
use crate::process::daemon::{Daemon, Grantd, eventually};

/// A stand-in for an issuer, which serves any text as its list.
struct Lists {
    url: String,
    key: Signer,
    list: Mutex<Option<String>>,
    fetches: AtomicUsize,
}

impl Lists {
    async fn start() -> Arc<Self> {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let lists = Self { url, key: Signer::generate(), list: Mutex::default(), fetches: AtomicUsize::new(0) };
        let lists = Arc::new(lists);
        let jwks = async |State(lists): State<Arc<Self>>| json!({"keys": [lists.key.published("k1")]}).to_string();
        let list = async |State(lists): State<Arc<Self>>| {
            lists.fetches.fetch_add(1, Ordering::SeqCst);
            lists.list.lock().unwrap().clone().ok_or(StatusCode::SERVICE_UNAVAILABLE)
        };
        let app = Router::new().route("/jwks", get(jwks)).route("/token-status/1", get(list));
        let app = app.with_state(Arc::clone(&lists));
        tokio::spawn(async move { axum::serve(socket, app).await.unwrap() });
        lists
    }

    /// Serves a list in which these members of header and claims are otherwise.
    fn serve(&self, header: &Value, claims: &Value) {
        let mut all = [
            json!({"typ": "statuslist+jwt", "alg": "ES256", "kid": "k1"}),
            json!({"iss": self.url, "sub": format!("{}/token-status/1", self.url), "iat": now(), "exp": now() + 300,
                "ttl": 30, "status_list": {"bits": 1, "lst": compress(&[0b10])}, "revoked_jti": ["dead"]}),
        ];
        for (members, other) in all.iter_mut().zip([header, claims]) {
            for (name, value) in other.as_object().unwrap() {
                members[name] = value.clone();
            }
        }
        *self.list.lock().unwrap() = Some(self.key.sign(&all[0], &all[1]));
    }

    fn verifier(&self, fail_open: bool) -> StatusLists {
        let http = reqwest::Client::new();
        StatusLists { issuer: self.url.clone(), http, fail_open, kept: tokio::sync::Mutex::default() }
    }

    fn status(&self, idx: u64) -> Value {
        json!({"status_list": {"idx": idx, "uri": format!("{}/token-status/1", self.url)}})
    }
}

#[tokio::test]
async fn a_list_is_obeyed_and_fetched_once_in_its_ttl() {
    let lists = Lists::start().await;
    lists.serve(&json!({}), &json!({}));
    let (verifier, at) = (lists.verifier(false), now());
    let ask = async |idx, jti: &str, after| verifier.is_revoked(Some(&lists.status(idx)), jti, at + after).await;
    assert_eq!(verifier.is_revoked(None, "a", at).await, Some(false), "no reference, no list");
    assert_eq!(lists.fetches.load(Ordering::SeqCst), 0);
    assert_eq!(ask(0, "a", 0).await, Some(false));
    assert_eq!(ask(1, "a", 0).await, Some(true), "its bit");
    assert_eq!(ask(0, "dead", 29).await, Some(true), "its jti");
    for outside in [8, 1 << 20, u64::MAX] {
        assert_eq!(ask(outside, "a", 29).await, Some(true), "out of range");
    }
    assert_eq!(lists.fetches.load(Ordering::SeqCst), 1);
    lists.serve(&json!({}), &json!({"status_list": {"bits": 1, "lst": compress(&[0b01])}}));
    assert_eq!(ask(0, "a", 29).await, Some(false));
    assert_eq!(ask(0, "a", 30).await, Some(true), "fetched again");
    // Another replica, whose list is older, takes nothing back.
    lists.serve(&json!({}), &json!({"exp": now() + 200}));
    assert_eq!(ask(0, "a", 60).await, Some(true));
    assert_eq!(lists.fetches.load(Ordering::SeqCst), 3);
    // The last good list serves until its `exp`, and no longer.
    *lists.list.lock().unwrap() = None;
    assert_eq!((ask(0, "a", 290).await, ask(2, "a", 290).await), (Some(true), Some(false)));
    assert_eq!(ask(2, "a", 310).await, None);
    let open = lists.verifier(true);
    assert_eq!(open.is_revoked(Some(&lists.status(1)), "a", at).await, Some(false), "as it is configured");
}

#[tokio::test]
async fn a_document_that_is_no_list_of_the_issuer_counts_for_nothing() {
    let lists = Lists::start().await;
    let other = Signer::generate();
    for (header, claims) in [
        (json!({"typ": "at+jwt"}), json!({})),
        (json!({"typ": "JWT"}), json!({})),
        (json!({"kid": "k2"}), json!({})),
        (json!({}), json!({"sub": format!("{}/token-status/2", lists.url)})),
        (json!({}), json!({"iss": "https://other.test"})),
        (json!({}), json!({"exp": now() - 100})),
        (json!({}), json!({"status_list": {"bits": 1, "lst": "AAAA"}})),
        (json!({}), json!({"status_list": {"bits": 1, "lst": compress(&vec![0; (1 << 20) + 1])}})),
    ] {
        lists.serve(&header, &claims);
        let answer = lists.verifier(false).is_revoked(Some(&lists.status(0)), "a", now()).await;
        assert_eq!(answer, None, "{header} {claims}");
    }
    lists.serve(&json!({}), &json!({}));
    let list = lists.list.lock().unwrap().clone().unwrap();
    let (signed, _) = list.rsplit_once('.').unwrap();
    let forged = other.sign_text("{}", "{}");
    *lists.list.lock().unwrap() = Some(format!("{signed}.{}", forged.rsplit('.').next().unwrap()));
    assert_eq!(lists.verifier(false).is_revoked(Some(&lists.status(0)), "a", now()).await, None);
    for malformed in [json!({"idx": -1}), json!({"idx": 0}), json!({"uri": "x"}), json!({"idx": 0, "uri": "x"})] {
        let status = json!({ "status_list": malformed });
        assert_eq!(lists.verifier(false).is_revoked(Some(&status), "a", now()).await, None, "{status}");
    }
}

/// Three replicas behind one issuer, and an API that verifies tokens by itself: the time from `client disable` to the last
/// request that passes. The figure stands in docs/reliability.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_refuses_the_tokens_of_a_disabled_client_within_seconds() {
    const API: &str = "https://api.test";
    let db = Db::postgres().await;
    let grantd = Grantd::new(&db).with("GRANTD__TOKEN__STATUS_TTL", "2s");
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["resource", "create", API, "--scope", "read:data write:data", "--status-list"]).await;
    let create = [
        "client",
        "create",
        "app",
        "--scope",
        "read:data",
        "--default-scope",
        "read:data",
        "--resource",
        API,
        "--json",
    ];
    let secret = grantd.json(&create).await["client_secret"].as_str().unwrap().to_owned();
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let issuer = format!("http://{address}");
    let grantd = grantd.with("GRANTD__ISSUER", &issuer);
    let first = grantd.with("GRANTD__SERVER__LISTEN", &address.to_string());
    let first = Daemon::start(first.command(&["serve"]), false).await;
    let others = [
        Daemon::start(grantd.command(&["serve"]), false).await,
        Daemon::start(grantd.command(&["serve"]), false).await,
    ];
    let mut figures = Vec::new();
    for round in 0..ROUNDS {
        let api = start_api(Api::Library, &["--issuer", &issuer, "--resource", API], now).await;
        // The token comes from another replica than the list.
        let token = eventually(async || others[round % 2].token("app", &secret).await, |answer| answer.status == 200);
        let token = token.await.access_token();
        let http = reqwest::Client::new();
        let ask = async || {
            let request = http.get(format!("http://{api}/data")).bearer_auth(&token);
            face(request.send().await.unwrap()).await
        };
        eventually(&ask, |answer| answer.starts_with("200")).await;
        // Anywhere within the ttl of the list that the API holds.
        tokio::time::sleep(Duration::from_millis(u64::try_from(round).unwrap() * 400 % 2000)).await;
        grantd.ok(&["client", "disable", "app"]).await;
        let disabled = Instant::now();
        let mut last = Duration::ZERO;
        loop {
            let answer = ask().await;
            if answer.starts_with("200") {
                last = disabled.elapsed();
                assert!(last <= Duration::from_secs(4), "{last:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            } else {
                assert!(answer.starts_with("401\nBearer") && answer.contains("the token is revoked"), "{answer}");
                break;
            }
        }
        figures.push(last);
        grantd.ok(&["client", "enable", "app"]).await;
        assert!(ask().await.starts_with("401"), "the token stays revoked");
    }
    figures.sort();
    println!("from `client disable` to the last request that passed, {ROUNDS} rounds, ttl 2s: {figures:?}");
    drop((first, others));
}

const ROUNDS: usize = 5;
