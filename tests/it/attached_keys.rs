//! Signing keys in a PKCS #11 module, on a server that has none: published, and followed by no key in memory. Modules
//! themselves are tried by `tests/interop/hardware_keys.py`.

use std::sync::Arc;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::jwk::Alg;
use grantd::crypto::jws::SigningKey;
use grantd::crypto::seal::SealingKey;
use grantd::model::resource::{Resource, TokenTyp};
use grantd::model::time::{Span, UnixTime};
use grantd::state::keyring::Keyring;
use grantd::state::rotation::Rotation;
use grantd::store::keys::{SealedKey, new_key};
use serde_json::json;

use crate::harness::{Db, Setup, client};

on_both!(
    a_key_in_a_module_is_published_and_no_other_key_signs_instead,
    no_key_in_memory_follows_one_in_a_module_by_itself,
    a_row_that_names_another_key_of_the_module_does_not_open,
    a_key_that_moves_into_a_module_signs_in_memory_no_more,
    a_change_reaches_the_status_list_although_its_first_signature_failed,
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
    let resources = ["https://memory.test".parse().unwrap()].into();
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
    // Sealed for its row by somebody with the sealing key, and about another key.
    let (key, _) = SigningKey::generate(Alg::Es256).unwrap();
    let (stranger, _) = SigningKey::generate(Alg::Es256).unwrap();
    let document = json!({"pkcs11": "pkcs11:token=grantd;object=signing", "jwk": stranger.verifying().jwk()});
    let row = SealedKey::seal(&key, document.to_string().as_bytes(), &under, UnixTime(0), UnixTime(0)).unwrap();
    assert!(row.open(&under).unwrap_err().to_string().contains("another thumbprint"));
}

/// The key was imported into a module, and is attached under the id that it had in memory.
async fn a_key_that_moves_into_a_module_signs_in_memory_no_more(db: Db) {
    let setup = Setup::new(db).await;
    let under = SealingKey::from_base64(&setup.sealing_key).unwrap();
    let (key, pkcs8) = SigningKey::generate(Alg::Es256).unwrap();
    let memory = SealedKey::seal(&key, &pkcs8, &under, UnixTime(0), UnixTime(0)).unwrap();
    let uri = "pkcs11:token=grantd;object=signing".parse().unwrap();
    let module = SealedKey::seal_reference(&key, &uri, &under, UnixTime(0), UnixTime(0)).unwrap();
    let keyring = Keyring::default();
    let place = |row: &SealedKey| {
        assert!(keyring.load(std::slice::from_ref(row), &under).is_empty());
        keyring.signing(Alg::Es256, UnixTime(1)).unwrap().module().map(|key| key.uri().to_string())
    };
    assert_eq!([place(&memory), place(&module)], [None, Some(uri.to_string())]);
    // An opened key stays in use while its row is sealed anew, also by another sealing key.
    let before = keyring.signing(Alg::Es256, UnixTime(1)).unwrap();
    let other = SealingKey::from_base64(&SealingKey::generate_base64().unwrap()).unwrap();
    for under in [&under, &other] {
        let again = SealedKey::seal_reference(&key, &uri, under, UnixTime(0), UnixTime(0)).unwrap();
        assert_eq!(place(&again), Some(uri.to_string()));
        assert!(Arc::ptr_eq(&before, &keyring.signing(Alg::Es256, UnixTime(1)).unwrap()));
    }
}

/// A key without a module signs nothing; then one in memory signs.
async fn a_change_reaches_the_status_list_although_its_first_signature_failed(db: Db) {
    let setup = Setup::new(db).await;
    let row = attached(&setup, UnixTime(0)).await;
    let server = setup.start().await;
    let lists = server.server.clone();
    assert!(!lists.build_status_lists(true), "it cannot be signed");
    server
        .db
        .sql(
            "insert into revoked_token (jti, client_id, expires_at) values ('revokedrevokedrevokedA', 'c', 4000000000)",
        )
        .await
        .unwrap();
    server.refresh().await;
    let under = SealingKey::from_base64(&server.sealing_key).unwrap();
    let memory = new_key(Alg::Es256, &under, UnixTime(1), Span::from_secs(0)).unwrap();
    server.store.add_key(&memory).await.unwrap();
    server.store.remove_key(&row.kid, None).await.unwrap();
    server.refresh().await;
    // The next look, as if nothing had changed since.
    lists.build_status_lists(false);
    let list = server.get("/token-status/1").await.body;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(list.split('.').nth(1).unwrap()).unwrap();
    assert!(String::from_utf8_lossy(&claims).contains("revokedrevokedrevokedA"));
}
