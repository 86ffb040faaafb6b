//! Administration at the store: one client is read as it is among all, and refusals have types.

use grantd::model::client::Client;
use grantd::model::credential::SecretOrigin;
use grantd::store::ranges::RangeReader;
use grantd::store::{Refusal, StoreError};

use crate::assertion::Signer;
use crate::client_certificates::register;
use crate::harness::{Db, Setup, client, new_secret};

on_both!(reading_one_client_gives_the_same_as_reading_all, a_refusal_is_typed_on_both_databases);

async fn reading_one_client_gives_the_same_as_reading_all(db: Db) {
    let setup = Setup::new(db).await;
    for uri in ["https://b.test", "https://a.test"] {
        setup.resource(uri, "api:read").await;
    }
    let resources = vec!["https://b.test".parse().unwrap(), "https://a.test".parse().unwrap()];
    let claims = r#"{"team":"Zo\u00eb"}"#.parse().unwrap();
    let token_ttl = Some("10m".parse().unwrap());
    setup.client(Client { resources, claims, token_ttl, ..client("all") }).await;
    setup.imported(client("bare"), "a secret from elsewhere").await;
    let store = &setup.store;
    for (id, chosen) in [("s1", "another from elsewhere"), ("s2", "a third from elsewhere")] {
        store.add_secret("all", &new_secret(id, chosen, SecretOrigin::Imported)).await.unwrap();
    }
    store
        .add_client_keys("all", &[Signer::es256().named("k2").stored(), Signer::es256().named("k1").stored()])
        .await
        .unwrap();
    register(store, "all", "subject_dn", "CN=all").await.unwrap();
    store.set_client_enabled("bare", false).await.unwrap();
    let mut reader = store.reader().await.unwrap();
    let everything = RangeReader::default().next(&mut reader).await.unwrap().clients;
    reader.close().await;
    assert_eq!(everything.len(), 2);
    for (id, whole) in everything {
        let (whole, one) = (whole.unwrap(), store.client(&id).await.unwrap().unwrap());
        // A hash of all rows, in their order.
        assert_eq!((one.fingerprint, one.enabled), (whole.fingerprint, whole.enabled), "{id}");
        assert_eq!(one.secrets.len() + one.keys.len() + one.certificates.len(), if id == "all" { 6 } else { 1 });
    }
    assert!(store.client("nobody").await.unwrap().is_none());
}

async fn a_refusal_is_typed_on_both_databases(db: Db) {
    let setup = Setup::new(db).await;
    setup.resource("https://a.test", "api:read").await;
    let (store, signer) = (&setup.store, Signer::es256());
    let nowhere = Client { resources: vec!["https://none.test".parse().unwrap()], ..client("c") };
    let of_a = Client { resources: vec!["https://a.test".parse().unwrap()], ..client("c") };
    let secret = |id: &str| new_secret(id, "a secret from elsewhere", SecretOrigin::Imported);
    let refusal = |done: Result<(), StoreError>| match done {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(store.add_secret("c", &secret("s1")).await), Refusal::NoSuchClient);
    assert_eq!(refusal(store.add_client_keys("c", &[signer.stored()]).await), Refusal::NoSuchClient);
    assert_eq!(refusal(register(store, "c", "san_dns", "c.test").await), Refusal::NoSuchClient);
    assert_eq!(refusal(store.create_client(&nowhere, None).await), Refusal::NoSuchResource);
    store.create_client(&of_a, None).await.unwrap();
    let (identifier, clients) = ("https://a.test".to_owned(), vec!["c".to_owned()]);
    let in_use = store.delete_resource("https://a.test").await.map(drop);
    assert_eq!(refusal(in_use), Refusal::ResourceInUse { identifier, clients });
    for id in ["s1", "s2"] {
        store.add_secret("c", &secret(id)).await.unwrap();
    }
    assert_eq!(refusal(store.add_secret("c", &secret("s3")).await), Refusal::TooManyImported("c".to_owned()));
    store.add_client_keys("c", &[signer.stored()]).await.unwrap();
    let uri = store.set_jwks_uri("c", Some("https://c.test/jwks")).await.map(drop);
    assert_eq!(refusal(uri), Refusal::KeysOrJwksUri);
    register(store, "c", "san_dns", "c.test").await.unwrap();
    assert_eq!(refusal(register(store, "c", "san_dns", "d.test").await), Refusal::SecondCertificateName);
    let other = store.set_auth_methods("c", Some("password")).await.map(drop);
    assert!(matches!(refusal(other), Refusal::Constraint(name) if name.starts_with("auth_methods: ")));
}
