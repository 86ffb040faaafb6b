//! Verifiers of generated secrets: a replica that has just started accepts a secret by its verifier, and argon2id has the
//! last word.

use std::time::{Duration, Instant};

use grantd::crypto::seal::SealingKey;
use grantd::crypto::secret::{ClientSecret, SecretHash, new_secret_id};
use grantd::crypto::secret_verifier::{Verifier, VerifierKey};
use grantd::model::client::Client;
use grantd::model::credential::{SecretOrigin, StoredSecret};
use grantd::store::{Database, Store, StoreError};
use sqlx::postgres::PgConnectOptions;

use crate::harness::{Db, Server, Setup, client, new_secret};
use crate::process::daemon::Grantd;

on_both!(
    a_fresh_replica_accepts_a_secret_by_its_verifier_and_confirms_the_hash_later,
    a_wrong_hash_beside_a_right_verifier_ends_in_refusal_and_an_alarm,
    a_verifier_under_another_sealing_key_is_ignored_and_replaced,
    a_hash_that_was_replaced_by_sql_ends_the_verifier_too,
    a_missing_verifier_is_written_after_the_hash_has_matched,
    a_right_verifier_does_not_make_a_secret_usable,
    commands_write_verifiers_where_the_sealing_key_can_be_read,
);

fn key(sealing_key: &str) -> VerifierKey {
    VerifierKey::new(&SealingKey::from_base64(sealing_key).unwrap())
}

/// Registers a client whose secret has a verifier under `key`. Its hash is that of `hashed`, or of the secret itself.
async fn with_verifier(setup: &Setup, client: Client, key: &VerifierKey, hashed: Option<&str>) -> String {
    let (client_id, id) = (client.client_id.as_str(), new_secret_id().unwrap());
    let secret = ClientSecret::generate(client_id, &id, Some(&setup.tag_key)).unwrap();
    let origin = SecretOrigin::Tagged(setup.tag_key.kid());
    let mut stored = new_secret(&id, hashed.unwrap_or(secret.expose()), origin);
    stored.verifier = Some(key.verifier(client_id, &secret, &stored.hash));
    setup.store.create_client(&client, Some(&stored)).await.unwrap();
    secret.expose().to_owned()
}

fn hashes(server: &Server) -> u64 {
    server.server.authenticator.lane.verifications.get()
}

fn stored(server: &Server, id: &str) -> StoredSecret {
    server.server.registry.snapshot().client(id).unwrap().secrets[0].clone()
}

async fn eventually(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_fresh_replica_accepts_a_secret_by_its_verifier_and_confirms_the_hash_later(db: Db) {
    let setup = Setup::new(db).await;
    let secret = with_verifier(&setup, client("c"), &key(&setup.sealing_key), None).await;
    let server = setup.start().await;
    // All of these come before the one confirmation, or find the secret in the cache.
    for _ in 0..5 {
        server.basic("c", &secret, "").await.ok();
    }
    assert!(hashes(&server) <= 1, "{}", hashes(&server));
    eventually("the hash is confirmed", || stored(&server, "c").cache.verified_mac().is_some()).await;
    for _ in 0..5 {
        server.basic("c", &secret, "").await.ok();
    }
    assert_eq!(hashes(&server), 1, "once, and on no request's path");
    assert_eq!(server.server.authenticator.verifier_mismatches.get(), 0);
}

async fn a_wrong_hash_beside_a_right_verifier_ends_in_refusal_and_an_alarm(db: Db) {
    let setup = Setup::new(db).await;
    let secret = with_verifier(&setup, client("c"), &key(&setup.sealing_key), Some("another secret")).await;
    let server = setup.start().await;
    // That this passes shows that no hash stands on the path.
    server.basic("c", &secret, "").await.ok();
    let mismatches = &server.server.authenticator.verifier_mismatches;
    eventually("the alarm", || mismatches.get() == 1).await;
    for _ in 0..3 {
        server.basic("c", &secret, "").await.unauthorized();
    }
    assert_eq!(mismatches.get(), 1, "it was not accepted again");
    assert!(stored(&server, "c").cache.verified_mac().is_none());
}

async fn a_verifier_under_another_sealing_key_is_ignored_and_replaced(db: Db) {
    let setup = Setup::new(db).await;
    let elsewhere = key(&SealingKey::generate_base64().unwrap());
    let right = with_verifier(&setup, client("right"), &elsewhere, None).await;
    let wrong = with_verifier(&setup, client("wrong"), &elsewhere, Some("another secret")).await;
    let server = setup.start().await;
    server.basic("wrong", &wrong, "").await.unauthorized();
    server.basic("right", &right, "").await.ok();
    assert_eq!(hashes(&server), 2, "the hash decides");
    eventually("a verifier of this deployment is written", || has_verifier(&server, "right", &right)).await;
    assert!(!has_verifier(&server, "wrong", &wrong));
}

/// Whether the row of a client's first secret has the verifier of this deployment.
fn has_verifier(server: &Server, id: &str, secret: &str) -> bool {
    let stored = stored(server, id);
    let wanted = key(&server.sealing_key).verifier(id, &ClientSecret::new(secret.to_owned()), &stored.hash);
    stored.verifier.is_some_and(|verifier| wanted.equals(&verifier))
}

async fn a_hash_that_was_replaced_by_sql_ends_the_verifier_too(db: Db) {
    let setup = Setup::new(db).await;
    let old = with_verifier(&setup, client("c"), &key(&setup.sealing_key), None).await;
    let next = ClientSecret::generate("c", old.split('_').nth(1).unwrap(), Some(&setup.tag_key)).unwrap();
    let hash = new_secret("unused", next.expose(), SecretOrigin::Untagged).hash;
    setup.db.sql(&format!("update client_secret set hash = '{hash}'")).await.unwrap();
    let server = setup.start().await;
    server.basic("c", &old, "").await.unauthorized();
    server.basic("c", next.expose(), "").await.ok();
    assert_eq!(server.server.authenticator.verifier_mismatches.get(), 0, "an administrator may do so");
    eventually("the verifier follows the hash", || has_verifier(&server, "c", next.expose())).await;
}

async fn a_missing_verifier_is_written_after_the_hash_has_matched(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.secrets.argon2 = "m=19456,t=3,p=1".into();
    let tagged = setup.client(client("tagged")).await;
    setup.imported(client("imported"), "chosen elsewhere").await;
    let server = setup.start().await;
    server.basic("imported", "chosen elsewhere", "").await.ok();
    server.basic("tagged", &tagged, "").await.ok();
    // The hash is raised in the same turn; the verifier is that of the new one.
    eventually("the verifier is written", || has_verifier(&server, "tagged", &tagged)).await;
    assert_eq!(stored(&server, "tagged").hash.params().t, 3);
    assert!(stored(&server, "imported").verifier.is_none(), "an imported secret is guessed at its hash alone");
    let replica = server.replica().await;
    replica.basic("tagged", &tagged, "").await.ok();
    eventually("confirmed there", || stored(&replica, "tagged").cache.verified_mac().is_some()).await;
    let revision = replica.server.registry.snapshot().revision;
    replica.basic("tagged", &tagged, "").await.ok();
    replica.refresh().await;
    assert_eq!(replica.server.registry.snapshot().revision, revision, "nothing is written twice");
}

async fn a_right_verifier_does_not_make_a_secret_usable(db: Db) {
    let setup = Setup::new(db).await;
    let key = key(&setup.sealing_key);
    let mut secrets = Vec::new();
    for id in ["revoked", "expired"] {
        secrets.push((id, with_verifier(&setup, client(id), &key, None).await));
    }
    secrets
        .push(("disabled", with_verifier(&setup, Client { enabled: false, ..client("disabled") }, &key, None).await));
    let narrow = Client { auth_methods: Some("private_key_jwt".into()), ..client("narrow") };
    secrets.push(("narrow", with_verifier(&setup, narrow, &key, None).await));
    let sql = "update client_secret set revoked_at = 1 where client_id = 'revoked';
               update client_secret set expires_at = 1 where client_id = 'expired'";
    setup.db.sql(sql).await.unwrap();
    let server = setup.start().await;
    for (id, secret) in &secrets {
        server.basic(id, secret, "").await.unauthorized();
        server.basic("disabled", secret, "").await.unauthorized();
        assert!(stored(&server, id).cache.used().at().is_none(), "{id}");
    }
    assert_eq!(hashes(&server), 0, "each is known, and known to be over");
}

async fn commands_write_verifiers_where_the_sealing_key_can_be_read(db: Db) {
    let grantd = Grantd::new(&db);
    let store = db.store().await;
    let sealing_key = std::fs::read_to_string(db.directory.path().join("sealing.key")).unwrap();
    let key = key(&sealing_key);
    let made = grantd.json(&["--json", "client", "create", "c"]).await;
    let added = grantd.json(&["--json", "client", "secret", "add", "c"]).await;
    let elsewhere = ClientSecret::generate("c", "elsewhere", None).unwrap();
    let import = ["client", "secret", "import", "c"];
    assert!(grantd.run_with_input(&import, elsewhere.expose()).await.status.success());
    assert!(grantd.run_with_input(&import, "a secret chosen elsewhere").await.status.success());
    let text = |value: &serde_json::Value| value["client_secret"].as_str().unwrap().to_owned();
    let shown = [text(&made), text(&added), elsewhere.expose().to_owned()].map(ClientSecret::new);
    let secrets = store.client("c").await.unwrap().unwrap().secrets;
    assert_eq!(secrets.len(), 4);
    for secret in &secrets {
        let shown = shown.iter().find(|shown| shown.secret_id() == Some(&*secret.secret_id));
        let wanted = shown.map(|shown| key.verifier("c", shown, &secret.hash));
        match (wanted, &secret.verifier) {
            (Some(wanted), Some(verifier)) => assert!(wanted.equals(verifier)),
            (None, None) => assert_eq!(secret.origin, SecretOrigin::Imported),
            other => panic!("{}: {other:?}", secret.secret_id),
        }
    }
    let seed = grantd.ok(&["client", "create", "seed", "--sql"]).await;
    let (_, quoted) = seed.stdout.trim().trim_end_matches("', null);").rsplit_once('\'').unwrap();
    let hash: SecretHash = seed.stdout.split('\'').find_map(|part| part.parse().ok()).unwrap();
    let secret = ClientSecret::new(seed.stderr.trim().to_owned());
    assert!(key.verifier("seed", &secret, &hash).equals(&quoted.parse::<Verifier>().unwrap().stored()));
    let away = grantd.with("GRANTD__KEYS__SEALING_KEY_FILE", "/nonexistent/sealing.key");
    let seed = away.ok(&["client", "create", "seed", "--sql"]).await.stdout;
    assert!(seed.trim().ends_with("null, null, null);"), "{seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_write_verifiers_is_no_trouble_with_writes() {
    let db = Db::postgres().await;
    let setup = Setup::new(db).await;
    setup.client(client("c")).await;
    let role = format!("r_{}", setup.db.url.rsplit('/').next().unwrap());
    let grants = format!(
        "create role {role} login; grant usage on schema public to {role};
         grant select on all tables in schema public to {role}; grant update (hash) on client_secret to {role};"
    );
    setup.db.sql(&grants).await.unwrap();
    let url = setup.db.url.replacen("postgres@", &format!("{role}@"), 1);
    let store = Store::open(&Database::Postgres(Box::new(url.parse::<PgConnectOptions>().unwrap().into())), 2);
    let secret = store.client("c").await.unwrap().unwrap().secrets[0].clone();
    let shown = ClientSecret::new("gds".to_owned());
    let verifier = key(&setup.sealing_key).verifier("c", &shown, &secret.hash);
    let denied = store.write_verifier(&secret.secret_id, &secret.hash, &verifier).await;
    assert!(matches!(denied, Err(StoreError::Denied(_))), "{denied:?}");
    assert_eq!((store.health.trouble(), store.health.write_failures.get()), (None, 0));
    setup.store.write_verifier(&secret.secret_id, &secret.hash, &verifier).await.unwrap();
    store.close().await;
    setup.db.sql(&format!("drop owned by {role}; drop role {role}")).await.unwrap();
}
