//! Guessing at secrets: what a guesser gets out of it, and what it costs the client whose secret is guessed at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use grantd::crypto::secret::ClientSecret;
use grantd::model::credential::SecretOrigin;

use crate::harness::{Db, Server, Setup, client, new_secret};

on_both!(
    the_right_secret_gets_in_while_a_guesser_at_its_address_keeps_guessing,
    the_share_for_repeated_values_gives_a_guesser_no_more_hashes,
    a_refused_value_costs_no_second_hash_until_the_clients_secrets_change,
    a_guess_looks_the_same_whether_or_not_the_client_exists,
);

fn hashes(server: &Server) -> u64 {
    server.server.authenticator.lane.verifications.get()
}

/// Another wrong secret every 20 ms, from the address of everybody else, until told to stop. Returns how many there were.
fn guess(server: &Arc<Server>, id: &'static str, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (server, stop) = (Arc::clone(server), Arc::clone(stop));
    tokio::spawn(async move {
        let number = AtomicU64::new(0);
        while !stop.load(Ordering::Relaxed) {
            let guess = format!("a guess, number {}, long enough", number.fetch_add(1, Ordering::Relaxed));
            let status = server.basic(id, &guess, "").await.status;
            assert!(matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS), "{status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        number.into_inner()
    })
}

async fn until_slowed_down(server: &Server, id: &str) {
    let mut number = 0;
    while server.basic(id, &format!("a first guess, number {number}"), "").await.status != StatusCode::TOO_MANY_REQUESTS
    {
        number += 1;
        assert!(number < 30, "{id} is never slowed down");
    }
}

async fn the_right_secret_gets_in_while_a_guesser_at_its_address_keeps_guessing(db: Db) {
    let setup = Setup::new(db).await;
    setup.imported(client("imported"), "chosen elsewhere, long enough").await;
    let untagged = ClientSecret::generate("named", "row", None).unwrap();
    let stored = new_secret("row", untagged.expose(), SecretOrigin::Untagged);
    setup.store.create_client(&client("named"), Some(&stored)).await.unwrap();
    let server = Arc::new(setup.start().await);
    for (id, secret) in [("imported", "chosen elsewhere, long enough"), ("named", untagged.expose())] {
        until_slowed_down(&server, "imported").await;
        let stop = Arc::default();
        let guesser = guess(&server, "imported", &stop);
        let started = Instant::now();
        let mut refused = 0;
        loop {
            let answer = server.basic(id, secret, "").await;
            if answer.status == StatusCode::OK {
                break;
            }
            answer.refusal(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable");
            refused += 1;
            assert!(started.elapsed() < Duration::from_secs(20), "{id}: {refused} times refused");
            tokio::time::sleep(Duration::from_secs(answer.header("retry-after").parse().unwrap())).await;
        }
        assert!(refused <= 3, "{id}: {refused} times refused");
        for _ in 0..30 {
            server.basic(id, secret, "").await.ok();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(guesser.await.unwrap() > 0);
    }
}

async fn the_share_for_repeated_values_gives_a_guesser_no_more_hashes(db: Db) {
    let setup = Setup::new(db).await;
    setup.imported(client("c"), "chosen elsewhere, long enough").await;
    let server = Arc::new(setup.start().await);
    let started = Instant::now();
    let stop = Arc::default();
    let guesser = guess(&server, "c", &stop);
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let sent = guesser.await.unwrap();
    // Ten failures in a row, and one more in each three seconds.
    let most = 11 + started.elapsed().as_secs() / 3;
    assert!(hashes(&server) <= most, "{} hashes for {sent} guesses", hashes(&server));
}

async fn a_refused_value_costs_no_second_hash_until_the_clients_secrets_change(db: Db) {
    let setup = Setup::new(db).await;
    setup.imported(client("c"), "chosen elsewhere, long enough").await;
    let server = setup.start().await;
    let early = "the next one, chosen elsewhere";
    for _ in 0..5 {
        server.basic("c", early, "").await.unauthorized();
    }
    assert_eq!(hashes(&server), 1);
    // It may be one that its client was given too early.
    server.store.add_secret("c", &new_secret("next", early, SecretOrigin::Imported)).await.unwrap();
    server.refresh().await;
    server.basic("c", early, "").await.ok();
}

async fn a_guess_looks_the_same_whether_or_not_the_client_exists(db: Db) {
    let setup = Setup::new(db).await;
    setup.imported(client("imported"), "chosen elsewhere, long enough").await;
    setup.client(client("tagged")).await;
    let server = setup.start().await;
    let mut faces = Vec::new();
    for id in ["imported", "tagged", "nobody"] {
        let before = hashes(&server);
        let mut seen = Vec::new();
        for number in 0..14 {
            let guess = format!("a guess, number {}, long enough", number / 2);
            seen.push(server.basic(id, &guess, "").await.face());
        }
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // Should three seconds have passed, this takes the one try that they bring.
            server.basic(id, "a guess, number 0, long enough", "").await;
            seen.push(server.basic(id, "a guess that is presented again", "").await.face());
        }
        faces.push((seen, hashes(&server) - before));
    }
    let (seen, hashes) = &faces[0];
    assert!(seen[12].starts_with("429") && seen[15].starts_with("401"), "{}\n\n{}", seen[12], seen[15]);
    assert_eq!(*hashes, 6, "each value once, as long as the client is not slowed down, and the one that came again");
    assert_eq!(faces[1], faces[0], "the client exists, and has no imported secret");
    assert_eq!(faces[2], faces[0], "nobody has that name");
}
