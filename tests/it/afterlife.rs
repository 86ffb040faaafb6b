//! Tokens of deleted clients, and tokens of which this replica does not know enough yet.

use std::time::Duration;

use axum::http::StatusCode;
use grantd::crypto::jwk::Alg;
use grantd::crypto::seal::SealingKey;
use grantd::model::client::Client;
use grantd::model::resource::Resource;
use grantd::model::time::{Clock, Span};
use grantd::store::keys::new_key;

use crate::harness::{Answer, Db, Server, Setup, client};

on_both!(
    creating_a_deleted_client_again_does_not_revive_its_tokens,
    a_client_deleted_by_hand_does_not_come_back_with_its_tokens,
    a_revocation_that_the_database_lost_is_written_again,
    a_token_of_a_replica_whose_clock_is_ahead_can_be_revoked,
    a_token_whose_key_has_not_arrived_yet_gets_503,
    rows_of_deleted_clients_end_with_their_tokens,
);

const API1: &str = "https://api1.test";

fn of_api1(id: &str) -> Client {
    Client { resources: [API1.parse().unwrap()].into(), ..client(id) }
}

/// The client `basic-client`, and `rs1`, which introspects.
struct World {
    server: Server,
    basic_client: String,
    rs1: String,
}

impl World {
    async fn new(db: Db) -> Self {
        let setup = Setup::new(db).await;
        let rs1 = setup.client(client("rs1")).await;
        setup
            .save(Resource {
                identifier: API1.parse().unwrap(),
                scope: "api:read api:write".parse().unwrap(),
                alg: None,
                token_ttl: None,
                token_typ: grantd::model::resource::TokenTyp::default(),
                status_list: false,
                introspectors: vec!["rs1".parse().unwrap()],
            })
            .await;
        let basic_client = setup.client(of_api1("basic-client")).await;
        Self { server: setup.start().await, basic_client, rs1 }
    }

    async fn token(&self) -> String {
        self.server.basic("basic-client", &self.basic_client, "").await.access_token()
    }

    async fn about(&self, token: &str) -> Answer {
        self.server.introspect("rs1", &self.rs1, token).await
    }

    async fn is_active(&self, token: &str) -> bool {
        self.about(token).await.json()["active"] == true
    }

    /// Registers a client that can authenticate by the secret of the first one.
    async fn make_again(&self) {
        self.server.store.create_client(&of_api1("basic-client"), None).await.unwrap();
        self.server.refresh().await;
    }
}

async fn creating_a_deleted_client_again_does_not_revive_its_tokens(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    assert!(world.is_active(&token).await);
    assert!(world.server.store.delete_client("basic-client").await.unwrap());
    world.make_again().await;
    assert!(!world.is_active(&token).await, "the token was issued to another client");

    // Neither does what was revoked with others come back.
    let cut_off = world.server.server.registry.snapshot().client("basic-client").unwrap().not_before;
    assert!(cut_off.0 > 0);
    assert!(world.server.store.delete_client("basic-client").await.unwrap());
    world.make_again().await;
    assert!(world.server.server.registry.snapshot().client("basic-client").unwrap().not_before >= cut_off);

    // What the new one is issued counts, from the next second on.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let id = grantd::crypto::secret::new_secret_id().unwrap();
    let secret =
        crate::harness::new_secret(&id, "a secret of the new one", grantd::model::credential::SecretOrigin::Imported);
    world.server.store.add_secret("basic-client", &secret).await.unwrap();
    world.server.refresh().await;
    let token = world.server.basic("basic-client", "a secret of the new one", "").await.access_token();
    assert!(world.is_active(&token).await);
}

async fn a_client_deleted_by_hand_does_not_come_back_with_its_tokens(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    world.server.db.sql("delete from client where client_id = 'basic-client'").await.unwrap();
    world
        .server
        .db
        .sql(
            "insert into client (client_id, scope) values ('basic-client', 'api:read');
         insert into client_resource (client_id, identifier) values ('basic-client', 'https://api1.test')",
        )
        .await
        .unwrap();
    world.server.refresh().await;
    assert!(!world.is_active(&token).await);
    if world.server.db.is_postgres() {
        world.server.db.sql("truncate client cascade").await.unwrap();
        world.server.db.sql("insert into client (client_id, not_before) values ('basic-client', 5)").await.unwrap();
        world.server.refresh().await;
        assert!(world.server.server.registry.snapshot().client("basic-client").unwrap().not_before.0 > 5);
    }
}

async fn a_revocation_that_the_database_lost_is_written_again(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    let revoke = async || world.server.revoke("basic-client", &world.basic_client, &token).await.status;
    assert_eq!(revoke().await, StatusCode::OK);
    // As after a restore, or a failover to a standby that had not got that far.
    world.server.db.sql("delete from revoked_token").await.unwrap();
    assert_eq!(revoke().await, StatusCode::OK);
    let replica = world.server.replica().await;
    replica.introspect("rs1", &world.rs1, &token).await.inactive();
}

async fn a_token_of_a_replica_whose_clock_is_ahead_can_be_revoked(db: Db) {
    let world = World::new(db).await;
    let (ahead, _) = Clock::fixed(Clock::System.now().0 + 90);
    let token =
        world.server.replica_at(ahead).await.basic("basic-client", &world.basic_client, "").await.access_token();
    world.about(&token).await.inactive();
    assert_eq!(world.server.revoke("basic-client", &world.basic_client, &token).await.status, StatusCode::OK);
    let (later, _) = Clock::fixed(Clock::System.now().0 + 120);
    world.server.replica_at(later).await.introspect("rs1", &world.rs1, &token).await.inactive();
}

async fn a_token_whose_key_has_not_arrived_yet_gets_503(db: Db) {
    let world = World::new(db).await;
    // A key that the server cannot open is as unknown to it as one of the last quarter of a second.
    let other = SealingKey::from_base64(&SealingKey::generate_base64().unwrap()).unwrap();
    let key = new_key(Alg::Es256, &other, Clock::System.now(), Span::from_secs(0)).unwrap();
    let signed = key.open(&other).unwrap();
    world.server.store.add_key(&key).await.unwrap();
    world.server.refresh().await;
    let token = signed.key.sign(br#"{"iss":"https://as.test"}"#).unwrap();
    for answer in [world.about(&token).await, world.server.revoke("basic-client", &world.basic_client, &token).await] {
        answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        assert!(!answer.header("retry-after").is_empty());
    }
    // Of a key that is nowhere, all is known.
    assert!(world.server.store.remove_key(signed.key.kid(), None).await.unwrap());
    world.about(&token).await.inactive();
    assert_eq!(world.server.revoke("basic-client", &world.basic_client, &token).await.status, StatusCode::OK);
}

async fn rows_of_deleted_clients_end_with_their_tokens(db: Db) {
    let world = World::new(db).await;
    assert!(world.server.store.delete_client("basic-client").await.unwrap());
    let now = Clock::System.now();
    assert_eq!(world.server.store.sweep_revoked_tokens(now).await.unwrap(), 0);
    assert_eq!(world.server.store.sweep_revoked_tokens(now.plus(Span::from_secs(86401))).await.unwrap(), 1);
}
