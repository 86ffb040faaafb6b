//! The commands for clients' keys and certificates, against a server that runs.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::daemon::{Daemon, Grantd, eventually};
use crate::assertion::{Signer, TYPE, claims};
use crate::harness::{Answer, Db};

on_both!(
    keys_are_added_listed_and_removed,
    certificates_are_added_listed_and_removed,
    credentials_of_another_client_are_not_found,
    unusable_keys_are_refused
);

async fn migrated(db: &Db) -> Grantd {
    let grantd = Grantd::new(db).with("GRANTD__ISSUER", crate::harness::ISS);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "jwt-client", "--scope", "a", "--default-scope", "a", "--no-secret"]).await;
    grantd
}

async fn keys_are_added_listed_and_removed(db: Db) {
    let grantd = migrated(&db).await;
    let (first, second, third) = (Signer::es256(), Signer::ed25519().named("k2"), Signer::rsa("PS256").named("k3"));
    let file = db.file("first.json", &first.jwk().to_string());
    let added = grantd.json(&["client", "key", "add", "jwt-client", "--jwk", file.to_str().unwrap(), "--json"]).await;
    assert_eq!((&added["client_id"], &added["keys"][0]["alg"]), (&"jwt-client".into(), &"ES256".into()));
    assert_eq!(added["keys"][0]["kid"], added["keys"][0]["thumbprint"], "without a kid it goes by its thumbprint");
    let set = json!({"keys": [second.jwk(), third.jwk()]}).to_string();
    let done =
        grantd.run_with_input(&["client", "key", "add", "jwt-client", "--jwk", "-", "--expires-in", "30d"], &set).await;
    assert!(
        done.status.success() && done.stdout.contains("\nk2   EdDSA") && done.stdout.contains("\nk3   PS256"),
        "{done:?}"
    );
    let listed = grantd.json(&["client", "key", "list", "jwt-client", "--json"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert!(listed.as_array().unwrap().iter().filter(|key| key["expires_at"].is_i64()).count() == 2, "{listed}");
    assert_eq!(grantd.json(&["client", "key", "list", "--json"]).await, listed);
    let shown = grantd.json(&["client", "show", "jwt-client", "--json"]).await;
    assert_eq!(shown["keys"].as_array().unwrap().len(), 3);

    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let ask = async |signer: &Signer| -> Answer {
        let assertion = signer.assert(&claims("jwt-client"));
        let form = format!("grant_type=client_credentials&client_assertion_type={TYPE}&client_assertion={assertion}");
        daemon.post("/token", &[], form).await
    };
    for signer in [&first, &second, &third] {
        ask(signer).await.ok();
    }
    grantd.ok(&["client", "key", "remove", "jwt-client", "k2"]).await;
    eventually(async || ask(&second).await.status.as_u16(), |status| *status == 401).await;
    ask(&third).await.ok();
    // What it has written is still being read.
    let issued = eventually(async || daemon.events("token.issued"), |issued| issued.len() > 1).await;
    assert_eq!((&issued[1]["auth_method"], &issued[1]["credential_id"]), (&"private_key_jwt".into(), &"k2".into()));
    let refused = eventually(async || daemon.events("token.refused"), |refused| !refused.is_empty()).await;
    assert_eq!(refused[0]["reason"], "jws_alg", "the key without a kid is another's algorithm");
    // One id in sixty-four begins like an option.
    for kid in ["-hV", "-Ak", "--kid"] {
        let done = grantd.run(&["client", "key", "remove", "jwt-client", kid]).await;
        assert!(done.status.code() == Some(1) && done.stderr.contains("has no key"), "{done:?}");
    }
    let done = grantd.run(&["client", "key", "remove", "jwt-client", "k2"]).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("client key list jwt-client"), "{done:?}");
    let done = grantd.run(&["client", "set", "jwt-client", "--jwks-uri", "https://c.test/jwks"]).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("not both"), "{done:?}");
    for key in grantd.json(&["client", "key", "list", "jwt-client", "--json"]).await.as_array().unwrap() {
        grantd.ok(&["client", "key", "remove", "jwt-client", key["kid"].as_str().unwrap()]).await;
    }
    grantd
        .ok(&["client", "set", "jwt-client", "--jwks-uri", "https://c.test/jwks", "--auth-methods", "private_key_jwt"])
        .await;
    let shown = grantd.json(&["client", "show", "jwt-client", "--json"]).await;
    assert_eq!(
        (&shown["jwks_uri"], &shown["auth_methods"]),
        (&"https://c.test/jwks".into(), &"private_key_jwt".into())
    );
    grantd.ok(&["client", "set", "jwt-client", "--no-jwks-uri", "--any-auth-method"]).await;
    let shown = grantd.json(&["client", "show", "jwt-client", "--json"]).await;
    assert!(shown["jwks_uri"].is_null() && shown["auth_methods"].is_null(), "{shown}");
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

async fn unusable_keys_are_refused(db: Db) {
    let grantd = migrated(&db).await;
    let add =
        async |text: &str| grantd.run_with_input(&["client", "key", "add", "jwt-client", "--jwk", "-"], text).await;
    let rsa = |n: Vec<u8>, e: &str| json!({"kty": "RSA", "n": BASE64_URL_SAFE_NO_PAD.encode(n), "e": e}).to_string();
    let good = Signer::es256().named("k").jwk();
    let with = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[name] = value;
        jwk
    };
    for (text, part) in [
        (String::new(), "not JSON"),
        ("[]".into(), "not a JSON object"),
        ("{\"keys\":[]}".into(), "no keys"),
        (with("d", "AA".into()).to_string(), "private or secret member d"),
        (json!({"kty": "oct", "k": "AA"}).to_string(), "private or secret member k"),
        (rsa(vec![0xff; 128], "AQAB"), "2048 to 4096 bits"),
        (rsa(vec![0xff; 256], "AQ"), "exponent 65537"),
        (with("crv", "P-521".into()).to_string(), "crv is P-256 or P-384"),
        (with("use", "enc".into()).to_string(), "use is another than sig"),
        (with("y", good["x"].clone()).to_string(), "no point of the curve"),
        (with("alg", "RS256".into()).to_string(), "alg is ES256"),
        (
            json!({"keys": [good, with("use", "enc".into())]}).to_string().replacen("\"k\"", "\"k0\"", 1),
            "key 2 of the set",
        ),
        (with("kid", "é".into()).to_string(), "ASCII characters"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".into(), "this is a private key"),
        (" ".repeat(70_000), "more than 65536 bytes"),
    ] {
        let done = add(&text).await;
        assert!(done.status.code() == Some(1) && done.stderr.contains(part), "wanted `{part}`: {done:?}");
    }
    assert!(add(&good.to_string()).await.status.success());
    let done = add(&good.to_string()).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("already"), "{done:?}");
    let done = grantd.run_with_input(&["client", "key", "add", "nobody", "--jwk", "-"], &good.to_string()).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("there is no client nobody"), "{done:?}");
    grantd.ok(&["key", "generate"]).await;
    grantd.ok(&["doctor"]).await;
    db.sql("update client_key set expires_at = 1").await.unwrap();
    let done = grantd.run(&["doctor"]).await;
    assert!(done.status.code() == Some(1) && done.stdout.contains("all of its keys have expired"), "{done:?}");
}

async fn certificates_are_added_listed_and_removed(db: Db) {
    let grantd = migrated(&db).await;
    let added = grantd.json(&["client", "cert", "add", "jwt-client", "--san-dns", "SVC.example", "--json"]).await;
    assert_eq!((&added["kind"], &added["value"]), (&"san_dns".into(), &"svc.example".into()));
    let second = grantd.run(&["client", "cert", "add", "jwt-client", "--subject-dn", "CN=svc"]).await;
    assert!(second.status.code() == Some(1) && second.stderr.contains("exactly one name"), "{second:?}");
    for wrong in [
        vec!["client", "cert", "add", "jwt-client"],
        vec!["client", "cert", "add", "jwt-client", "--san-dns", "a.test", "--subject-dn", "CN=a"],
    ] {
        assert_eq!(grantd.run(&wrong).await.status.code(), Some(2), "{wrong:?}");
    }
    for (option, value, part) in [
        ("--subject-dn", "svc", "RFC 4514"),
        ("--san-dns", "*.example", "without wildcard"),
        ("--san-ip", "localhost", "IPv4 or IPv6"),
        ("--self-signed", "/nowhere.pem", "/nowhere.pem"),
    ] {
        let done = grantd.run(&["client", "cert", "add", "jwt-client", option, value]).await;
        assert!(done.status.code() == Some(1) && done.stderr.contains(part), "wanted `{part}`: {done:?}");
    }
    let made = rcgen::generate_simple_self_signed(["own.test".to_owned()]).unwrap();
    let file = db.file("own.pem", &made.cert.pem());
    let own =
        grantd.json(&["client", "cert", "add", "jwt-client", "--self-signed", file.to_str().unwrap(), "--json"]).await;
    let listed = grantd.json(&["client", "cert", "list", "jwt-client", "--json"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(
        grantd.json(&["client", "show", "jwt-client", "--json"]).await["certificates"].as_array().unwrap().len(),
        2
    );
    grantd.ok(&["key", "generate"]).await;
    let done = grantd.run(&["doctor"]).await;
    assert!(
        done.stdout.contains("server.mtls.client_ca_file") && done.stdout.contains("server.mtls.listen"),
        "{done:?}"
    );
    for cert in [&added, &own] {
        grantd.ok(&["client", "cert", "remove", "jwt-client", cert["cert_id"].as_str().unwrap()]).await;
    }
    grantd.ok(&["doctor"]).await;
    let done = grantd.run(&["client", "cert", "remove", "jwt-client", "none"]).await;
    assert!(done.status.code() == Some(1) && done.stderr.contains("client cert list jwt-client"), "{done:?}");
}

async fn credentials_of_another_client_are_not_found(db: Db) {
    let grantd = migrated(&db).await;
    let created = grantd.json(&["client", "create", "other", "--scope", "a", "--json"]).await;
    assert_eq!(created["client_id"], "other");
    let file = db.file("k.json", &Signer::es256().named("of-another").jwk().to_string());
    grantd.ok(&["client", "key", "add", "other", "--jwk", file.to_str().unwrap()]).await;
    grantd.ok(&["client", "cert", "add", "other", "--san-dns", "svc.example"]).await;
    // `jwt-client` has one of each, too, so that it is not for want of any.
    let own = db.file("own.json", &Signer::es256().named("k2").jwk().to_string());
    grantd.ok(&["client", "key", "add", "jwt-client", "--jwk", own.to_str().unwrap()]).await;
    grantd.ok(&["client", "cert", "add", "jwt-client", "--san-dns", "own.example"]).await;
    grantd.ok(&["client", "secret", "add", "jwt-client"]).await;
    let list = async |what: &str, of: &str| grantd.json(&["client", what, "list", of, "--json"]).await;
    for (what, done, id) in [("secret", "revoke", "secret_id"), ("key", "remove", "kid"), ("cert", "remove", "cert_id")]
    {
        let before = [list(what, "other").await, list(what, "jwt-client").await];
        let theirs = before[0][0][id].as_str().unwrap();
        let missing = theirs.chars().rev().collect::<String>();
        let mut told = Vec::new();
        for id in [theirs, &*missing] {
            let refused = grantd.run(&["client", what, done, "jwt-client", id]).await;
            assert_eq!((refused.status.code(), refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
            assert!(refused.stderr.contains("client jwt-client has no"), "{refused:?}");
            told.push(refused.stderr.replace(id, "ID"));
        }
        assert_eq!(told[0], told[1], "{what}");
        assert_eq!([list(what, "other").await, list(what, "jwt-client").await], before, "{what}: nothing has changed");
        grantd.ok(&["client", what, done, "other", theirs]).await;
    }
}
