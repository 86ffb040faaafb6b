//! Signing keys in a PKCS #11 module, on a server that has none: published, and followed by no key in memory. Modules
//! themselves are tried by `tests/interop/hardware_keys.py`.

use std::sync::Arc;

use axum::http::StatusCode;
use grantd::crypto::jwk::Alg;
use grantd::crypto::jws::SigningKey;
use grantd::crypto::seal::SealingKey;
use grantd::model::resource::{Resource, TokenTyp};
use grantd::model::time::{Span, UnixTime};
use grantd::state::rotation::Rotation;
use grantd::store::keys::{SealedKey, new_key};

use crate::harness::{Db, Setup, client};

on_both!(
    a_key_in_a_module_is_published_and_no_other_key_signs_instead,
    no_key_in_memory_follows_one_in_a_module_by_itself,
    a_row_that_names_another_key_of_the_module_does_not_open,
);

/// Attaches a key as if a module had it.
async fn attached(setup: &Setup, active_at: UnixTime) -> SealedKey {
    let (key, _) = SigningKey::generate(Alg::Es256).unwrap();
    let under = SealingKey::from_base64(&setup.sealing_key).unwrap();
    let uri = "pkcs11:token=grantd;object=signing".parse().unwrap();
    let row = SealedKey::seal_reference(&key, &uri, &under, active_at, active_at).unwrap();
    setup.store.add_key(&row).await.unwrap();
    row
}

async fn a_key_in_a_module_is_published_and_no_other_key_signs_instead(db: Db) {
    let setup = Setup::new(db).await;
    let row = attached(&setup, UnixTime(0)).await;
    setup
        .save(Resource {
            identifier: "https://memory.test".parse().unwrap(),
            scope: "api:read".parse().unwrap(),
            alg: Some(Alg::EdDsa),
            token_ttl: None,
            token_typ: TokenTyp::default(),
            status_list: false,
            introspectors: Vec::new(),
        })
        .await;
    let resources = vec!["https://memory.test".parse().unwrap()];
    let other = setup.client(grantd::model::client::Client { resources, ..client("other") }).await;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    for _ in 0..3 {
        let refused = server.basic("basic-client", &secret, "").await;
        refused.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        assert_eq!(refused.header("retry-after"), "5");
    }
    assert!(server.get("/jwks").await.body.contains(&row.kid), "tokens of servers with the module verify");
    server.basic("other", &other, "").await.ok();
    let keys = server.store.keys().await.unwrap();
    let of_alg: Vec<&str> = keys.iter().filter(|key| key.alg == row.alg).map(|key| key.kid.as_str()).collect();
    assert_eq!(of_alg, [row.kid.as_str()], "no key in memory is made");
    let (kid, reason) = server.server.keyring.module_trouble(server.server.database_time()).unwrap();
    assert_eq!((kid, reason.contains("keys.pkcs11_module")), (row.kid, true), "{reason}");
}

async fn no_key_in_memory_follows_one_in_a_module_by_itself(db: Db) {
    let setup = Setup::new(db).await;
    let row = attached(&setup, UnixTime(1000)).await;
    let rotation = Rotation {
        sealing_key: Arc::new(SealingKey::from_base64(&setup.sealing_key).unwrap()),
        alg: Alg::Es256,
        every: Span::from_secs(3600),
        max_ttl: Span::from_secs(900),
    };
    let long_after = || UnixTime(1_000_000);
    assert!(rotation.clone().make_next(&setup.store, long_after).await.unwrap().is_none());
    // An administrator may go back to keys in memory; these rotate.
    let key = new_key(Alg::Es256, &rotation.sealing_key, UnixTime(2000), Span::from_secs(0)).unwrap();
    setup.store.add_key(&key).await.unwrap();
    setup.store.remove_key(&row.kid, None).await.unwrap();
    assert!(rotation.make_next(&setup.store, long_after).await.unwrap().is_some());
}

async fn a_row_that_names_another_key_of_the_module_does_not_open(db: Db) {
    let setup = Setup::new(db).await;
    let under = SealingKey::from_base64(&setup.sealing_key).unwrap();
    let (one, other) = (attached(&setup, UnixTime(0)).await, attached(&setup, UnixTime(1)).await);
    assert_eq!(one.open(&under).unwrap().module.unwrap().to_string(), "pkcs11:token=grantd;object=signing");
    let exchanged = SealedKey { sealed: other.sealed, ..one };
    assert!(exchanged.open(&under).is_err(), "the bytes are bound to their row");
}
