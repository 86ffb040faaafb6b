//! Administrators see which keys and certificates are still used, and retire secrets that are not.

use std::sync::Arc;

use grantd::crypto::certificate::Certificate;
use grantd::http::Caller;
use grantd::model::certificate::{PeerCertificate, RegisteredCertificate};
use grantd::model::credential::StoredCertificate;
use grantd::model::time::{Clock, Span, UnixTime};
use grantd::store::last_used::LastUsedTimes;
use serde_json::Value;

use crate::assertion::{Signer, ask};
use crate::harness::{Db, Setup, client, form, set_auth_methods};
use crate::mutual_tls::self_signed;
use crate::process::daemon::Grantd;

on_both!(
    uses_of_keys_are_recorded_and_the_latest_stays,
    a_secret_is_retired_when_it_is_unused,
    show_tells_when_each_credential_was_made_expires_and_was_used,
    an_expired_certificate_registration_authenticates_no_client,
);

async fn uses_of_keys_are_recorded_and_the_latest_stays(db: Db) {
    let setup = Setup::new(db).await;
    let signer = Signer::es256().named("k1");
    setup.store.create_client(&client("jwt-client"), None).await.unwrap();
    setup.store.add_client_keys("jwt-client", &[signer.stored(), Signer::es256().named("k2").stored()]).await.unwrap();
    let server = setup.start().await;
    ask(&server, &signer.fresh("jwt-client")).await.ok();
    let before = Clock::System.now();
    let uses = server.server.registry.uses.times();
    let [(client_id, kid, at)] = uses.keys.as_slice() else { panic!("{uses:?}") };
    assert_eq!((client_id.as_str(), &**kid), ("jwt-client", "k1"));
    assert!(at.0 >= before.0 - 2, "{at}");
    server.store.record_last_used(&uses).await.unwrap();
    let earlier = LastUsedTimes {
        keys: vec![("jwt-client".into(), "k1".into(), UnixTime(5)), ("gone".into(), "k1".into(), UnixTime(5))],
        ..LastUsedTimes::default()
    };
    server.store.record_last_used(&earlier).await.unwrap();
    let noted = server.store.keys_last_used(&["jwt-client", "gone"]).await.unwrap();
    assert_eq!(noted.into_iter().collect::<Vec<_>>(), [(("jwt-client".to_owned(), "k1".to_owned()), *at)]);

    // A change of the client forgets nothing.
    set_auth_methods(&server.store, "jwt-client", Some("private_key_jwt")).await.unwrap();
    server.refresh().await;
    assert_eq!(server.server.registry.uses.times().keys.len(), 1);
}

async fn a_secret_is_retired_when_it_is_unused(db: Db) {
    let grantd = Grantd::new(&db);
    let store = db.store().await;
    grantd.ok(&["client", "create", "basic-client", "--scope", "a", "--no-secret"]).await;
    let old = grantd.json(&["client", "secret", "add", "basic-client", "--json"]).await;
    let id = old["secret_id"].as_str().unwrap();
    let retire =
        async |span: &str| grantd.run(&["client", "secret", "retire", "basic-client", id, "--if-unused", span]).await;
    let refused = async |span: &str, why: &str| {
        let done = retire(span).await;
        assert!(!done.status.success() && done.stderr.contains(why), "{done:?}");
    };
    refused("30s", "at least 1m").await;
    refused("24h", "was made at").await;
    let made = format!("update client_secret set created_at = created_at - 172800 where secret_id = '{id}'");
    db.sql(&made).await.unwrap();
    let now = Clock::System.now();
    let used = |at| LastUsedTimes { secrets: vec![(id.into(), at)], ..LastUsedTimes::default() };
    store.record_last_used(&used(UnixTime(now.0 - 3600))).await.unwrap();
    refused("24h", "is in use, last at").await;
    let done = retire("30m").await;
    assert!(done.status.success() && done.stderr.contains("is revoked, within a second"), "{done:?}");
    assert!(store.secrets("basic-client").await.unwrap()[0].revoked_at.is_some());
    let again = retire("30m").await;
    assert!(again.status.success() && again.stderr.contains("is revoked since"), "{again:?}");
    let none = grantd.run(&["client", "secret", "retire", "basic-client", "nothere", "--if-unused", "24h"]).await;
    assert!(none.stderr.contains("client basic-client has no secret nothere"), "{none:?}");
    let nobody = grantd.run(&["client", "secret", "retire", "nobody", id, "--if-unused", "24h"]).await;
    assert!(nobody.stderr.contains("there is no client nobody"), "{nobody:?}");
}

async fn show_tells_when_each_credential_was_made_expires_and_was_used(db: Db) {
    let grantd = Grantd::new(&db);
    let store = db.store().await;
    grantd.ok(&["client", "create", "mixed", "--scope", "a"]).await;
    let jwk = db.file("jwk.json", &Signer::es256().named("k1").jwk().to_string());
    let (jwk, der) = (jwk.to_str().unwrap().to_owned(), db.directory.path().join("own.der"));
    std::fs::write(&der, &self_signed("own").chain()[0]).unwrap();
    grantd.ok(&["client", "key", "add", "mixed", "--jwk", &jwk, "--expires-in", "90d"]).await;
    let cert = grantd.json(&["client", "cert", "add", "mixed", "--self-signed", der.to_str().unwrap(), "--json"]).await;
    let at = UnixTime(1_700_000_000);
    let uses = LastUsedTimes {
        keys: vec![("mixed".into(), "k1".into(), at)],
        certificates: vec![(cert["cert_id"].as_str().unwrap().into(), at)],
        ..LastUsedTimes::default()
    };
    store.record_last_used(&uses).await.unwrap();
    let shown = grantd.json(&["client", "show", "mixed", "--json"]).await;
    for (list, at) in [("secrets", Value::Null), ("keys", at.0.into()), ("certificates", at.0.into())] {
        let one = &shown[list][0];
        assert!(one["created_at"].is_i64(), "{list}: {one}");
        assert_eq!(one["last_used_at"], at, "{list}: {one}");
        assert_eq!(one["expires_at"].is_i64(), list != "secrets", "{list}: {one}");
    }
    let text = grantd.ok(&["client", "show", "mixed", "--utc"]).await.stdout;
    assert_eq!(text.matches("  2023-11-14T22:13:20Z").count(), 2, "{text}");
}

async fn an_expired_certificate_registration_authenticates_no_client(db: Db) {
    let setup = Setup::new(db).await;
    let certificate = Arc::new(Certificate::parse(&self_signed("own").chain()[0]).unwrap());
    let registered = |id: &str, expires_at: UnixTime| StoredCertificate {
        cert_id: id.into(),
        registered: RegisteredCertificate::self_signed(&certificate),
        created_at: UnixTime(1),
        expires_at: Some(expires_at),
        used: Arc::default(),
    };
    let now = Clock::System.now();
    setup.store.create_client(&client("self-signed-client"), None).await.unwrap();
    setup.store.add_client_certificate("self-signed-client", &registered("over", now)).await.unwrap();
    let server = setup.start().await;
    let shown = PeerCertificate {
        intermediates: Arc::default(),
        certificate: Arc::clone(&certificate),
        ca_verified: Err("no CA".into()),
    };
    let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: Some(shown) };
    let ask = async || {
        server.send_by(&caller, form("/token", &[], "grant_type=client_credentials&client_id=self-signed-client")).await
    };
    ask().await.unauthorized();
    let later = registered("later", now.plus(Span::from_secs(600)));
    server.store.add_client_certificate("self-signed-client", &later).await.unwrap();
    server.refresh().await;
    ask().await.ok();
    let uses = server.server.registry.uses.times();
    assert_eq!(
        uses.certificates.iter().map(|(id, _)| &**id).collect::<Vec<_>>(),
        ["later"],
        "only the certificate that was used"
    );
}
