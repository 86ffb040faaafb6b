//! Files and values of another kind than is wanted: each message says what it is and what to do.

use std::process::Command;

use sqlx::{AssertSqlSafe, Connection as _};

use crate::harness::Db;
use crate::process::daemon::{Done, Grantd};

/// A file that openssl writes, in the directory of the database.
fn openssl(db: &Db, arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).current_dir(db.directory.path()).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {done:?}");
}

fn says(done: &Done, code: i32, parts: &[&str]) {
    assert_eq!(done.status.code(), Some(code), "{done:?}");
    for part in parts {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
}

/// A client without a credential, and files of each kind.
async fn with_files() -> (Db, Grantd) {
    let db = Db::sqlite();
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "c", "--scope", "a", "--no-secret"]).await;
    openssl(&db, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem"]);
    openssl(&db, &["pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"]);
    openssl(&db, &["pkey", "-in", "key.pem", "-aes256", "-passout", "pass:x", "-out", "encrypted.pem"]);
    let subject = ["-subj", "/C=DE/O=Example/CN=c", "-days", "2", "-out", "cert.pem"];
    openssl(&db, &[&["req", "-x509", "-new", "-key", "key.pem"][..], &subject].concat());
    (db, grantd)
}

#[tokio::test]
async fn a_key_or_a_certificate_of_another_kind_is_named() {
    let (db, grantd) = with_files().await;
    let path = |name: &str| db.directory.path().join(name).display().to_string();
    let add = async |file: &str| grantd.run(&["client", "key", "add", "c", "--jwk", &path(file)]).await;
    says(&add("cert.pem").await, 1, &["this is a certificate", "openssl x509 -in FILE -pubkey", "client cert add"]);
    says(&add("encrypted.pem").await, 1, &["this is a private key"]);
    let import = async |file: &str| grantd.run(&["key", "import", &path(file)]).await;
    says(&import("encrypted.pem").await, 1, &["has a passphrase", "openssl pkey -in FILE -out FILE.pem"]);
    says(&import("cert.pem").await, 1, &["this is a certificate, and a private key is wanted"]);
    says(&import("public.pem").await, 1, &["this is a public key, and a private key is wanted"]);
    let cert = async |file: &str| grantd.run(&["client", "cert", "add", "c", "--self-signed", &path(file)]).await;
    says(&cert("key.pem").await, 1, &["this is a key, and a certificate is wanted"]);
    says(&cert("public.pem").await, 1, &["this is a key, and a certificate is wanted"]);
    // In the configuration of the server.
    let issuer = grantd.with("GRANTD__ISSUER", "https://as.test");
    let tls = issuer.with("GRANTD__SERVER__TLS__CERT_FILE", &path("key.pem"));
    let tls = tls.with("GRANTD__SERVER__TLS__KEY_FILE", &path("key.pem"));
    says(&tls.run(&["config", "check"]).await, 78, &["no such PEM section; it has a private key"]);
}

#[tokio::test]
async fn a_byte_order_mark_and_the_attributes_of_pkcs12_do_not_matter() {
    let (db, grantd) = with_files().await;
    let read = |name: &str| std::fs::read_to_string(db.directory.path().join(name)).unwrap();
    let public = db.file("a.pem", &format!("\u{feff}{}", read("public.pem")));
    grantd.ok(&["client", "key", "add", "c", "--jwk", public.to_str().unwrap()]).await;
    openssl(&db, &["genpkey", "-algorithm", "ed25519", "-out", "other.pem"]);
    openssl(&db, &["pkey", "-in", "other.pem", "-pubout", "-out", "other.pub"]);
    let bag =
        format!("Bag Attributes\n    friendlyName: other\nKey Attributes: <No Attributes>\n{}", read("other.pub"));
    let bag = db.file("b.pem", &bag);
    grantd.ok(&["client", "key", "add", "c", "--jwk", bag.to_str().unwrap()]).await;
    let private = db.file("c.pem", &format!("\u{feff}Bag Attributes\n    x: y\n{}", read("key.pem")));
    grantd.ok(&["key", "import", private.to_str().unwrap()]).await;
    let certificate = db.file("d.pem", &format!("\u{feff}{}", read("cert.pem")));
    grantd.ok(&["client", "cert", "add", "c", "--self-signed", certificate.to_str().unwrap()]).await;
    let imported =
        grantd.run_with_input(&["client", "secret", "import", "c"], "\u{feff}written by an editor\r\n").await;
    assert!(imported.status.success(), "{imported:?}");
    let hash = grantd.run_with_input(&["hash-secret"], "\u{feff}written by an editor\n").await;
    let hash: grantd::crypto::secret::SecretHash = hash.stdout.trim().parse().unwrap();
    assert!(hash.verify("written by an editor", &mut grantd::crypto::secret::HashMemory::default()));
}

#[tokio::test]
async fn a_subject_in_the_order_of_openssl_is_noticed() {
    let (_db, grantd) = with_files().await;
    let add = async |subject: &str| grantd.run(&["client", "cert", "add", "c", "--subject-dn", subject]).await;
    let reversed = add("C=DE, O=Example, CN=c").await;
    says(&reversed, 0, &["warning: ", "register \"CN=c,O=Example,C=DE\" instead", "-nameopt RFC2253"]);
    for (id, good) in [("d", "CN=c,O=Example,C=DE"), ("e", "CN=alone"), ("f", "O=Example,C=DE")] {
        grantd.ok(&["client", "create", id, "--scope", "a", "--no-secret"]).await;
        let done = grantd.run(&["client", "cert", "add", id, "--subject-dn", good]).await;
        assert!(done.status.success() && !done.stderr.contains("RFC 4514"), "{good}: {done:?}");
    }
}

#[tokio::test]
async fn a_script_of_psql_is_no_seed() {
    let db = Db::sqlite();
    let seeds = db.directory.path().join("seeds");
    db.file("seeds/1_dump.sql", "-- PostgreSQL database dump\n\n\\restrict AbCd\n\nselect 1;\n");
    let grantd = Grantd::new(&db).with("GRANTD__DATABASE__SEEDS", seeds.to_str().unwrap());
    let refused = grantd.run(&["migrate"]).await;
    says(&refused, 1, &["1_dump.sql", "line 3 is `\\restrict`", "a command of psql", "--inserts"]);
    db.file("seeds/1_dump.sql", "\u{feff}insert into client (client_id, scope) values ('seeded', 'a');\n");
    grantd.ok(&["migrate"]).await;
    assert_eq!(grantd.json(&["client", "show", "seeded", "--json"]).await["client_id"], "seeded");
}

#[tokio::test]
async fn a_network_that_would_contain_no_address_is_refused() {
    let db = Db::sqlite();
    let grantd = Grantd::new(&db);
    for (key, value) in [
        ("GRANTD__SERVER__TRUSTED_PROXIES", "::ffff:10.0.0.1"),
        ("GRANTD__SERVER__TRUSTED_PROXIES", "::ffff:10.0.0.0/104"),
        ("GRANTD__CLIENTS__JWKS_URI_ALLOW", "::ffff:10.0.0.1"),
    ] {
        says(&grantd.with(key, value).run(&["config", "check"]).await, 78, &[value, "without ::ffff: before it"]);
    }
    grantd.with("GRANTD__SERVER__TRUSTED_PROXIES", "10.0.0.1,2001:db8::/32").ok(&["config", "check"]).await;
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_text_is_refused() {
    let db = Db::postgres().await;
    let name = format!("{}_latin1", db.url.split('?').next().unwrap().rsplit('/').next().unwrap());
    let mut admin = sqlx::PgConnection::connect(&db.url).await.unwrap();
    let create = format!("create database {name} encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0");
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
    let url = db.url.replacen(&db.url.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned(), &name, 1);
    let grantd = Grantd::new(&db).with("GRANTD__DATABASE__URL", &url);
    for command in [&["migrate"][..], &["serve"], &["client", "list"]] {
        let refused = grantd.run(command).await;
        assert!(!refused.status.success(), "{refused:?}");
        for part in ["has the encoding LATIN1", "encoding 'UTF8' template template0"] {
            assert!((refused.stderr.clone() + &refused.stdout).contains(part), "{command:?}: {part}: {refused:?}");
        }
    }
}
