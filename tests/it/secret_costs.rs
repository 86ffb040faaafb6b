//! The cost of a secret: a MAC once it is remembered, a tag when it is made up, a hash otherwise, for all clients alike.

use axum::http::StatusCode;
use grantd::crypto::seal::SealingKey;
use grantd::crypto::secret::{ClientSecret, HashMemory, HashParams, SecretHash};
use grantd::model::client::Client;
use grantd::model::credential::SecretOrigin;
use grantd::model::time::UnixTime;
use grantd::store::tag_keys::SealedTagKey;

use crate::harness::{Db, Server, Setup, client, new_secret};

on_both!(
    a_known_secret_is_hashed_once_however_often_it_comes,
    the_cache_remembers_exactly_one_secret_of_one_client,
    a_cached_secret_ends_with_its_hash_its_secret_and_its_client,
    a_made_up_secret_costs_the_same_for_every_client,
    an_untagged_secret_makes_every_guess_that_names_a_row_cost_a_hash,
    a_lost_tag_key_costs_speed_and_no_access,
    no_client_is_locked_out_by_the_failures_of_others,
    a_deleted_secret_is_slowed_down_without_its_live_sibling,
    replicas_that_start_together_make_one_tag_key,
);

fn hashes(server: &Server) -> u64 {
    server.server.authenticator.lane.verifications.get()
}

/// How many hashes a refused attempt takes.
async fn cost(server: &Server, id: &str, secret: &str) -> u64 {
    let before = hashes(server);
    server.basic(id, secret, "").await.unauthorized();
    hashes(server) - before
}

const MADE_UP: &str = "gds_aaaaaaaaaaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAbbbbbbbbbbbb";

async fn a_known_secret_is_hashed_once_however_often_it_comes(db: Db) {
    let setup = Setup::new(db).await;
    let mut secrets = Vec::new();
    for number in 0..10 {
        let id = format!("c{number}");
        secrets.push((id.clone(), setup.client(client(&id)).await));
    }
    setup.imported(client("imported"), "chosen elsewhere, with %2B").await;
    secrets.push(("imported".into(), "chosen elsewhere, with %2B".into()));
    let server = setup.start().await;
    for _ in 0..20 {
        for (id, secret) in &secrets {
            server.basic(id, secret, "").await.ok();
        }
    }
    // The one that was chosen elsewhere is sent raw: its form-decoded reading is tried first, once.
    assert_eq!(hashes(&server), 10 + 2);
    server.verifiers_written().await;
    let queries = server.store.queries.get();
    for _ in 0..50 {
        server.basic("c0", &secrets[0].1, "").await.ok();
    }
    assert!(server.store.queries.get() - queries <= 4, "nothing but the poll asks the database");
}

async fn the_cache_remembers_exactly_one_secret_of_one_client(db: Db) {
    let setup = Setup::new(db).await;
    let long = "x".repeat(100);
    setup.imported(client(&long), "secret of the first, chosen elsewhere").await;
    setup.imported(client("y"), "secret of another, chosen elsewhere").await;
    let server = setup.start().await;
    server.basic(&long, "secret of the first, chosen elsewhere", "").await.ok();
    server.basic("y", "secret of another, chosen elsewhere", "").await.ok();
    for wrong in [
        "secret of the first, chosen elsewherE",
        "Secret of the first, chosen elsewhere",
        "secret of the first, chosen elsewher",
        "secret of the first, chosen elsewhere ",
        "secret of another, chosen elsewhere",
    ] {
        server.basic(&long, wrong, "").await.unauthorized();
    }
    server.basic(&long[..99], "xsecret of the first, chosen elsewhere", "").await.unauthorized();
    server.basic("y", "secret of the first, chosen elsewhere", "").await.unauthorized();
}

async fn a_cached_secret_ends_with_its_hash_its_secret_and_its_client(db: Db) {
    let setup = Setup::new(db).await;
    let rehashed = setup.client(client("rehashed")).await;
    let replaced = setup.client(client("replaced")).await;
    let disabled = setup.client(client("disabled")).await;
    let deleted = setup.client(client("deleted")).await;
    let touched = setup.client(client("touched")).await;
    let server = setup.start().await;
    for (id, secret) in [
        ("rehashed", &rehashed),
        ("replaced", &replaced),
        ("disabled", &disabled),
        ("deleted", &deleted),
        ("touched", &touched),
    ] {
        server.basic(id, secret, "").await.ok();
    }
    let hash = |secret: &str| SecretHash::new(secret, HashParams::default(), &mut HashMemory::default()).unwrap();
    let set =
        |id: &str, hash: SecretHash| format!("update client_secret set hash = '{hash}' where client_id = '{id}';");
    server.db.sql(&(set("rehashed", hash(&rehashed)) + &set("replaced", hash("another secret")))).await.unwrap();
    server.db.sql("update client set enabled = 0 where client_id = 'disabled'; delete from client where client_id = 'deleted'; update client set scope = 'api:read' where client_id = 'touched'").await.unwrap();
    server.refresh().await;
    let before = hashes(&server);
    server.basic("touched", &touched, "").await.ok();
    assert_eq!(hashes(&server), before, "the client has changed, its secret has not");
    server.basic("rehashed", &rehashed, "").await.ok();
    assert_eq!(hashes(&server), before + 1, "what matched was another hash");
    server.basic("replaced", &replaced, "").await.unauthorized();
    server.basic("disabled", &disabled, "").await.unauthorized();
    server.basic("deleted", &deleted, "").await.unauthorized();
}

async fn a_made_up_secret_costs_the_same_for_every_client(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(client("tagged")).await;
    let id = secret.split('_').nth(1).unwrap().to_owned();
    setup.client(client("warm")).await;
    let server = setup.start().await;
    let naming = MADE_UP.replace("aaaaaaaaaaaaaaaa", &id);
    for id in ["tagged", "nobody", "warm"] {
        for wrong in [MADE_UP, &naming, "anything else that is long enough", &secret[..secret.len() - 12]] {
            assert_eq!(cost(&server, id, wrong).await, 0, "{id} {wrong}");
        }
    }
    assert_eq!(cost(&server, "warm", &secret).await, 0, "a tag is for one client");
    // From the first secret that was chosen elsewhere on, a guess that could be one costs a hash, for all alike.
    let chosen = new_secret("chosen", "chosen elsewhere", SecretOrigin::Imported);
    server.store.create_client(&client("imported"), Some(&chosen)).await.unwrap();
    server.refresh().await;
    for id in ["tagged", "nobody", "imported"] {
        assert_eq!(cost(&server, id, "anything else that is long enough").await, 1, "{id}");
        assert_eq!(cost(&server, id, MADE_UP).await, 0, "{id}");
    }
}

async fn an_untagged_secret_makes_every_guess_that_names_a_row_cost_a_hash(db: Db) {
    let setup = Setup::new(db).await;
    setup.client(client("tagged")).await;
    let secret = ClientSecret::generate("untagged", "row", None).unwrap();
    let stored = new_secret("row", secret.expose(), SecretOrigin::Untagged);
    setup.store.create_client(&client("untagged"), Some(&stored)).await.unwrap();
    let server = setup.start().await;
    server.basic("untagged", secret.expose(), "").await.ok();
    for id in ["tagged", "untagged", "nobody"] {
        assert_eq!(cost(&server, id, MADE_UP).await, 1, "{id}");
        assert_eq!(cost(&server, id, "anything else that is long enough").await, 0, "{id}");
    }
    server.store.delete_client("untagged").await.unwrap();
    server.refresh().await;
    assert_eq!(cost(&server, "tagged", MADE_UP).await, 0);
}

async fn a_lost_tag_key_costs_speed_and_no_access(db: Db) {
    let setup = Setup::new(db).await;
    let under = SealingKey::from_base64(&setup.sealing_key).unwrap();
    let secret = setup.client(client("old")).await;
    let next = SealedTagKey::generate(&under, UnixTime(2)).unwrap();
    assert!(setup.store.add_tag_key(&next, false).await.unwrap(), "rotated");
    let server = setup.start().await;
    assert_eq!(server.server.registry.snapshot().tag_keys().len(), 2);
    assert_eq!(cost(&server, "old", MADE_UP).await, 0, "the former key still tells");
    let kid = server.server.registry.snapshot().tag_keys()[1].kid();
    assert!(server.store.remove_tag_key(&kid.to_string()).await.unwrap());
    server.refresh().await;
    server.basic("old", &secret, "").await.ok();
    assert_eq!(cost(&server, "old", MADE_UP).await, 1);
    assert_eq!(cost(&server, "nobody", MADE_UP).await, 1);
    // One that does not open is as good as none, and no reason to make another in its place.
    server.db.sql("update secret_tag_key set sealed = kid").await.ok();
    server.refresh().await;
    server.basic("old", &secret, "").await.ok();
}

async fn no_client_is_locked_out_by_the_failures_of_others(db: Db) {
    let setup = Setup::new(db).await;
    let tagged = setup.client(client("tagged")).await;
    setup.imported(client("warm"), "chosen elsewhere").await;
    let server = setup.start().await;
    server.basic("warm", "chosen elsewhere", "").await.ok();
    for id in ["tagged", "warm"] {
        while server.basic(id, "a guess that is long enough", "").await.status != StatusCode::TOO_MANY_REQUESTS {}
        let before = hashes(&server);
        server
            .basic(id, "a guess that is long enough", "")
            .await
            .refusal(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable");
        assert_eq!(hashes(&server), before, "before any hash");
    }
    // From the very address that the guesses came from.
    server.basic("warm", "chosen elsewhere", "").await.ok();
    server.basic("tagged", &tagged, "").await.ok();
}

async fn a_deleted_secret_is_slowed_down_without_its_live_sibling(db: Db) {
    let setup = Setup::new(db).await;
    let live = setup.client(client("c")).await;
    let dead = ClientSecret::generate("c", "dead", Some(&setup.tag_key)).unwrap();
    let server = setup.start().await;
    let before = hashes(&server);
    let mut statuses: Vec<StatusCode> = Vec::new();
    for _ in 0..14 {
        statuses.push(server.basic("c", dead.expose(), "").await.status);
    }
    assert_eq!((statuses[0], statuses[13]), (StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS));
    assert!(hashes(&server) - before <= 11);
    server.basic("c", &live, "").await.ok();
}

async fn replicas_that_start_together_make_one_tag_key(db: Db) {
    let setup = Setup::new(db).await;
    setup.db.sql("delete from secret_tag_key").await.unwrap();
    let under = SealingKey::from_base64(&setup.sealing_key).unwrap();
    let mut made = 0;
    for _ in 0..3 {
        let key = SealedTagKey::generate(&under, UnixTime(1)).unwrap();
        made += usize::from(setup.store.add_tag_key(&key, true).await.unwrap());
    }
    assert_eq!(made, 1);
    let enabled = Client { enabled: true, ..client("c") };
    setup.store.create_client(&enabled, None).await.unwrap();
    assert_eq!(setup.start().await.server.registry.snapshot().tag_keys().len(), 1);
}
