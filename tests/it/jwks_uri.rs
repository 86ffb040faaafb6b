//! Clients that publish their keys at a `jwks_uri`, and hostile hosts there.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::json;

use crate::assertion::{Signer, ask, claims_at};
use crate::harness::{Db, Setup, client, set_jwks_uri};
use crate::jwks_host::{Does, Host, ask_as, publishing, setup, with_jwks_uri_client};

on_both!(
    keys_are_fetched_when_they_are_needed_and_no_more,
    no_jwks_uri_leads_to_an_address_that_is_not_public,
    an_answer_that_is_no_key_set_replaces_no_keys,
    a_fetch_from_a_host_that_never_answers_ends,
    a_key_that_takes_the_place_of_another_is_found_too,
    no_header_makes_the_server_fetch,
    a_client_has_registered_keys_or_a_jwks_uri,
);

async fn keys_are_fetched_when_they_are_needed_and_no_more(db: Db) {
    let host = Host::start().await;
    let (first, second, thief) =
        (Signer::es256().named("k1"), Signer::ed25519().named("k2"), Signer::es256().named("k9"));
    host.publishes(&[&first]);
    let (server, hand) = with_jwks_uri_client(db, &host, &["localhost"]).await;
    assert_eq!(host.asked(), 0);
    for _ in 0..5 {
        ask_as(&server, &first, "jwks-uri-client").await.ok();
    }
    assert_eq!(host.asked(), 1);
    let request = host.last();
    assert!(
        request.starts_with("get /jwks?v=1 http/1.1\r\n")
            && request.contains(&format!("host: localhost:{}", host.port))
    );
    assert!(!request.contains("authorization") && !request.contains("cookie"), "{request}");

    // Ten thousand unknown ids would be as many as a hundred.
    for number in 0..100 {
        let header = json!({"alg": "ES256", "kid": format!("x{number}")}).to_string();
        let claims = claims_at("jwks-uri-client", hand.load(Ordering::Relaxed)).to_string();
        ask(&server, &thief.sign(&header, &claims)).await.unauthorized();
    }
    assert_eq!(host.asked(), 1);
    hand.fetch_add(30, Ordering::Relaxed);
    ask_as(&server, &thief, "jwks-uri-client").await.unauthorized();
    ask_as(&server, &first, "jwks-uri-client").await.ok();
    assert_eq!(host.asked(), 2);

    // A new key is found by its id, half a minute after the last fetch at the earliest.
    host.publishes(&[&first, &second]);
    ask_as(&server, &second, "jwks-uri-client").await.unauthorized();
    hand.fetch_add(30, Ordering::Relaxed);
    ask_as(&server, &second, "jwks-uri-client").await.ok();
    assert_eq!(host.asked(), 3);

    // A removed key works for five minutes at most.
    host.publishes(&[&second]);
    hand.fetch_add(200, Ordering::Relaxed);
    ask_as(&server, &first, "jwks-uri-client").await.ok();
    hand.fetch_add(100, Ordering::Relaxed);
    ask_as(&server, &first, "jwks-uri-client").await.unauthorized();
    ask_as(&server, &second, "jwks-uri-client").await.ok();
    assert_eq!(host.asked(), 4);

    // While the host is in trouble, what was fetched last is used, for an hour.
    host.answers("500 Internal Server Error", "", b"{}");
    for _ in 0..11 {
        hand.fetch_add(301, Ordering::Relaxed);
        ask_as(&server, &second, "jwks-uri-client").await.ok();
    }
    hand.fetch_add(301, Ordering::Relaxed);
    ask_as(&server, &second, "jwks-uri-client").await.unauthorized();
    host.publishes(&[&second]);
    hand.fetch_add(30, Ordering::Relaxed);
    ask_as(&server, &second, "jwks-uri-client").await.ok();

    // A client that may not authenticate causes no fetch.
    let asked = host.asked();
    server.store.set_client_enabled("jwks-uri-client", false).await.unwrap();
    server.refresh().await;
    hand.fetch_add(301, Ordering::Relaxed);
    ask_as(&server, &second, "jwks-uri-client").await.unauthorized();
    assert_eq!(host.asked(), asked);
}

async fn no_jwks_uri_leads_to_an_address_that_is_not_public(db: Db) {
    let host = Host::start().await;
    let signer = Signer::es256();
    host.publishes(&[&signer]);
    let (setup, _) = setup(db, &["10.0.0.0/8", "other.test", "127.0.0.2"]).await;
    publishing(&setup, "jwks-uri-client", &host.uri()).await;
    publishing(&setup, "allowed", &host.uri_at("127.0.0.2")).await;
    let literals = ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "0.0.0.0", "[::ffff:127.0.0.1]", "169.254.169.254"]
        .map(|literal| (format!("at-{}", literal.replace(|c: char| !c.is_alphanumeric(), "-")), host.uri_at(literal)));
    for (id, uri) in &literals {
        publishing(&setup, id, uri).await;
    }
    let server = setup.start().await;
    ask_as(&server, &signer, "jwks-uri-client").await.unauthorized();
    for (id, _) in &literals {
        let started = Instant::now();
        ask_as(&server, &signer, id).await.unauthorized();
        assert!(started.elapsed() < Duration::from_secs(2), "{id}: {:?}", started.elapsed());
    }
    assert_eq!(host.reached(), 0, "not even a connection");
    ask_as(&server, &signer, "allowed").await.ok();
    for uri in ["http://c.test/jwks", "file:///etc/passwd", "https://c.test/jwks#x", "gopher://c.test/"] {
        let sql = format!("update client set jwks_uri = '{uri}' where client_id = 'jwks-uri-client'");
        let refused = server.db.sql(&sql).await.unwrap_err().to_string();
        assert!(refused.contains("jwks_uri: an https URL"), "{uri}: {refused}");
    }
}

async fn an_answer_that_is_no_key_set_replaces_no_keys(db: Db) {
    let (host, elsewhere) = (Host::start().await, Host::start().await);
    let signer = Signer::es256();
    host.publishes(&[&signer]);
    let (server, hand) = with_jwks_uri_client(db, &host, &["127.0.0.0/8"]).await;
    ask_as(&server, &signer, "jwks-uri-client").await.ok();
    // Wherever a good set of another key is taken from, the old key stops working.
    let other = Signer::es256();
    elsewhere.publishes(&[&other]);
    let redirect = format!("location: {}\r\n", elsewhere.uri());
    let set = json!({"keys": [other.jwk()]}).to_string();
    let private = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA"}]}).to_string();
    let padded = |length: usize| [set.as_bytes(), &vec![b' '; length - set.len()]].concat();
    for (why, status, fields, body) in [
        ("redirect", "302 Found", redirect.as_str(), set.as_bytes()),
        ("permanent redirect", "308 Permanent Redirect", redirect.as_str(), set.as_bytes()),
        ("not found", "404 Not Found", "", set.as_bytes()),
        ("gzip", "200 OK", "content-encoding: gzip\r\n", set.as_bytes()),
        ("no set", "200 OK", "", b"{}"),
        ("empty set", "200 OK", "", b"{\"keys\":[]}"),
        ("html", "200 OK", "", b"<html></html>"),
        ("truncated", "200 OK", "", &set.as_bytes()[..20]),
        ("private", "200 OK", "", private.as_bytes()),
        ("a byte too many", "200 OK", "", &padded(64 * 1024 + 1)),
        ("ten megabytes", "200 OK", "", &padded(10 * 1024 * 1024)),
    ] {
        host.answers(status, fields, body);
        hand.fetch_add(301, Ordering::Relaxed);
        let asked = host.asked();
        let answer = ask_as(&server, &signer, "jwks-uri-client").await;
        assert_eq!(answer.status, StatusCode::OK, "{why}");
        // After trouble nobody waits for the answer, so that it has to be given time.
        while host.asked() == asked {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = ask_as(&server, &signer, "jwks-uri-client").await;
        assert_eq!(answer.status, StatusCode::OK, "{why}");
        ask_as(&server, &other, "jwks-uri-client").await.unauthorized();
        assert_eq!((host.asked(), elsewhere.reached()), (asked + 1, 0), "{why}");
    }
    host.publishes(&[&signer]);
    hand.fetch_add(301, Ordering::Relaxed);
    ask_as(&server, &signer, "jwks-uri-client").await.ok();
    tokio::time::sleep(Duration::from_millis(100)).await;
    host.answers("200 OK", "", &padded(64 * 1024));
    hand.fetch_add(301, Ordering::Relaxed);
    ask_as(&server, &signer, "jwks-uri-client").await.unauthorized();
    ask_as(&server, &other, "jwks-uri-client").await.ok();
}

async fn a_fetch_from_a_host_that_never_answers_ends(db: Db) {
    let host = Host::start().await;
    let signer = Signer::es256();
    let (server, hand) = with_jwks_uri_client(db, &host, &["localhost"]).await;
    server.store.create_client(&client("jwt-client"), None).await.unwrap();
    server.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    server.refresh().await;
    for does in [Does::Hangs, Does::Trickles] {
        host.does(does);
        hand.fetch_add(30, Ordering::Relaxed);
        let started = Instant::now();
        let (slow, (other, took)) = tokio::join!(ask_as(&server, &signer, "jwks-uri-client"), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let started = Instant::now();
            (ask_as(&server, &signer, "jwt-client").await, started.elapsed())
        });
        slow.unauthorized();
        other.ok();
        assert!((2900..5000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        assert!(took < Duration::from_secs(2), "others do not wait: {took:?}");
    }
    assert_eq!(host.asked(), 2);
}

async fn a_key_that_takes_the_place_of_another_is_found_too(db: Db) {
    let host = Host::start().await;
    let signers = [Signer::es256(), Signer::es256(), Signer::es256().named("k1"), Signer::es256().named("k1")];
    host.publishes(&[&signers[0]]);
    let (server, hand) = with_jwks_uri_client(db, &host, &["localhost"]).await;
    ask_as(&server, &signers[0], "jwks-uri-client").await.ok();
    // Without a kid, then from none to one, then under the same one.
    for (number, next) in signers.iter().enumerate().skip(1) {
        host.publishes(&[next]);
        ask_as(&server, next, "jwks-uri-client").await.unauthorized();
        assert_eq!(host.asked(), number, "once in half a minute");
        hand.fetch_add(30, Ordering::Relaxed);
        ask_as(&server, next, "jwks-uri-client").await.ok();
        assert_eq!(host.asked(), number + 1);
        ask_as(&server, &signers[number - 1], "jwks-uri-client").await.unauthorized();
    }
    // Nor does forging make us ask more often.
    let thief = Signer::es256().named("k1");
    let asked = host.asked();
    for _ in 0..90 {
        hand.fetch_add(1, Ordering::Relaxed);
        ask_as(&server, &thief, "jwks-uri-client").await.unauthorized();
    }
    assert_eq!(host.asked(), asked + 3);
    ask_as(&server, &signers[3], "jwks-uri-client").await.ok();
}

async fn no_header_makes_the_server_fetch(db: Db) {
    let (host, evil) = (Host::start().await, Host::start().await);
    let (signer, thief) = (Signer::es256(), Signer::es256());
    host.publishes(&[&signer]);
    evil.publishes(&[&thief]);
    let (server, _) = with_jwks_uri_client(db, &host, &["localhost", "127.0.0.0/8"]).await;
    server.store.create_client(&client("jwt-client"), None).await.unwrap();
    server.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    server.refresh().await;
    for id in ["jwks-uri-client", "jwt-client", "nobody"] {
        for (member, value) in [
            ("jku", json!(evil.uri())),
            ("x5u", json!(evil.uri())),
            ("kid", json!(evil.uri())),
            ("jku", json!([evil.uri()])),
            ("jwk", json!({"jku": evil.uri()})),
            ("jwk", thief.jwk()),
        ] {
            let mut header = thief.header();
            header[member] = value;
            let claims = claims_at(id, server.server.clock.now().0).to_string();
            ask(&server, &thief.sign(&header.to_string(), &claims)).await.unauthorized();
        }
    }
    ask_as(&server, &signer, "jwks-uri-client").await.ok();
    ask_as(&server, &signer, "jwt-client").await.ok();
    assert_eq!(evil.reached(), 0);
}

async fn a_client_has_registered_keys_or_a_jwks_uri(db: Db) {
    let setup = Setup::new(db).await;
    let signer = Signer::es256();
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored()]).await.unwrap();
    let refused = set_jwks_uri(&setup.store, "jwt-client", Some("https://c.test/jwks")).await.unwrap_err().to_string();
    assert!(refused.contains("not both"), "{refused}");
    assert!(set_jwks_uri(&setup.store, "jwt-client", None).await.unwrap());
    assert!(!set_jwks_uri(&setup.store, "nobody", Some("https://c.test/jwks")).await.unwrap());
    setup.store.create_client(&client("jwks-uri-client"), None).await.unwrap();
    assert!(set_jwks_uri(&setup.store, "jwks-uri-client", Some("https://c.test/jwks")).await.unwrap());
    let refused = setup.store.add_client_keys("jwks-uri-client", &[signer.stored()]).await.unwrap_err().to_string();
    assert!(refused.contains("not both"), "{refused}");
    let server = setup.start().await;
    assert_eq!(ask_as(&server, &signer, "jwt-client").await.status, StatusCode::OK);
}
