//! The database: seeds that are safe or fail, changes that are seen, rows that cannot be.

use grantd::crypto::jwk::Alg;
use grantd::crypto::seal::SealingKey;
use grantd::model::time::{Span, UnixTime};
use grantd::store::changes::Since;
use grantd::store::keys::new_key;
use grantd::store::migrations::{MigrationError, Schema};
use grantd::store::ranges::RangeReader;

use crate::harness::{Db, Setup, client};
use crate::process::schema_files;

on_both!(
    a_seed_that_would_be_unsafe_fails_in_the_database_and_says_what_to_do,
    a_federation_seed_that_would_be_unsafe_fails_in_the_database_and_says_what_to_do,
    a_right_seed_is_taken_with_its_defaults,
    seeds_are_applied_once_each_in_order_whole_or_not_at_all,
    every_change_by_hand_is_seen_and_only_what_changed_is_read,
    a_malformed_row_stops_its_own_client_alone,
    replicas_that_start_together_make_one_signing_key,
    a_resource_in_use_is_not_deleted,
    an_older_schema_is_noticed,
);

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$4PTs6i9jvSbk26IegYamZi+9v3lOmSCppfpnmuUDP68";

fn secret_with(hash: &str) -> String {
    format!(
        "insert into client (client_id, scope) values ('c', 'a'); insert into client_secret (client_id, hash) values ('c', '{hash}');"
    )
}

async fn a_seed_that_would_be_unsafe_fails_in_the_database_and_says_what_to_do(db: Db) {
    db.store().await;
    let tail = "$MDEyMzQ1Njc4OWFiY2RlZg$4PTs6i9jvSbk26IegYamZi+9v3lOmSCppfpnmuUDP68";
    let not_argon2id = "hash: not argon2id; insert what `grantd hash-secret` prints";
    let weak = "hash: too weak, want m=19456,t=2; use `grantd hash-secret`";
    let costly = "hash: too costly to verify, at most m=65536,t=10,p=16";
    let scope = "scope: tokens with single spaces between; no \" \\ or control";
    let client_id = "client_id: 1 to 255 printable ASCII, no space at either end";
    let with_client = |columns: &str, values: &str| {
        format!("insert into client (client_id, scope, {columns}) values ('c', 'a b', {values})")
    };
    let named = |id: &str| format!("insert into client (client_id) values ('{id}')");
    let scoped = |scope: &str| format!("insert into client (client_id, scope) values ('c', '{scope}')");
    let resource = |identifier: &str| format!("insert into resource (identifier, scope) values ('{identifier}', 'a')");
    let mut cases: Vec<(String, &str)> = vec![
        (secret_with("hunter2-in-clear-text"), not_argon2id),
        (secret_with(""), not_argon2id),
        (secret_with("$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"), not_argon2id),
        (secret_with(&HASH.replace("argon2id", "argon2i")), not_argon2id),
        (secret_with(&HASH.replace("argon2id", "argon2d")), not_argon2id),
        (secret_with(&HASH.replace("v=19", "v=16")), not_argon2id),
        (secret_with(&HASH[..HASH.len() - 1]), not_argon2id),
        (secret_with(&format!("{HASH}$x")), not_argon2id),
        (secret_with(&format!("$argon2id$v=19$m=19455,t=2,p=1{tail}")), weak),
        (secret_with(&format!("$argon2id$v=19$m=19456,t=1,p=1{tail}")), weak),
        (secret_with(&format!("$argon2id$v=19$m=8,t=9,p=1{tail}")), weak),
        (secret_with(&format!("$argon2id$v=19$m=4194304,t=2,p=1{tail}")), costly),
        (secret_with(&format!("$argon2id$v=19$m=19456,t=1000000,p=1{tail}")), costly),
        (secret_with(&format!("$argon2id$v=19$m=19456,t=2,p=255{tail}")), costly),
        (with_client("default_scope", "'c'"), "default_scope: must be a part of scope"),
        (with_client("default_scope", "'a  b'"), "default_scope: must be a part of scope"),
        (with_client("token_ttl", "0"), "token_ttl: seconds, from 1 to 86400"),
        (with_client("token_ttl", "86401"), "token_ttl: seconds, from 1 to 86400"),
        (with_client("grant_types", "'password'"), "grant_types: names separated by spaces, or empty for none"),
        (with_client("auth_methods", "'none'"), "auth_methods: null for any, else names as in the metadata"),
        (with_client("claims", "'[]'"), "claims: a JSON object"),
        (with_client("claims", &format!("'{{\"a\":\"{}\"}}'", "x".repeat(4089))), "claims: at most 4096 characters"),
        (with_client("claims", "'{\"a\":\"é\"}'"), "claims: ASCII; write other characters as \\u00e9"),
        ("insert into signing_key (kid, alg, sealed, active_at) values ('short', 'ES256', BYTES, 1)".into(), "kid: an RFC 7638 thumbprint"),
        (with_client("claims", "'{\"aud\":\"x\"}'"), "claims: iss sub aud exp iat jti scope … are set by grantd"),
        (with_client("enabled", "2"), "require_dpop, require_mtls_binding, enabled: 0 or 1"),
        ("insert into client (client_id) values ('c'); insert into client_resource values ('c', 'https://none.test')".into(),
         "identifier: no such resource; insert into resource first"),
        (format!("insert into client_secret (client_id, hash) values ('nobody', '{HASH}')"), "client_id: no such client; insert into client first"),
        ("insert into resource (identifier, scope, alg) values ('https://a.test', 'a', 'HS256')".into(), "alg: one of ES256 EdDSA PS256 RS256"),
        (format!("{}; insert into resource_introspector values ('https://a.test', 'nobody')", resource("https://a.test")),
         "client_id: no such client; insert into client first"),
    ];
    cases.extend(["", " ", " a", "a ", "é", "a\nb", "a\u{7f}", &"x".repeat(256)].map(|id| (named(id), client_id)));
    cases
        .extend([" a", "a ", "a  b", "a\tb", "a\"b", "a\\b", "é", &"x".repeat(4097)].map(|text| (scoped(text), scope)));
    let uri = "identifier: absolute URI without fragment (RFC 8707), max 2048";
    cases.extend(
        ["", "api1", "//api1.test", "https://a.test#x", "https://a b", "https:", "https://a\"b"]
            .map(|text| (resource(text), uri)),
    );
    let bytes = if db.is_postgres() { "'\\x00'" } else { "x'00'" };
    for (sql, message) in cases {
        let sql = sql.replace("BYTES", bytes);
        let error = db.sql(&sql).await.expect_err(&sql).to_string();
        assert!(error.contains(message), "{sql}\nwanted: {message}\ngot:    {error}");
        db.sql("delete from client; delete from resource").await.unwrap();
    }
}

async fn a_federation_seed_that_would_be_unsafe_fails_in_the_database_and_says_what_to_do(db: Db) {
    db.store().await;
    let issuers = "insert into client (client_id) values ('c');
        insert into trusted_issuer (issuer, kind) values ('https://gh.test', 'github'), ('https://gl.test/', 'gitlab'),
            ('https://k.test', 'kubernetes'), ('https://o.test', 'oidc');
        insert into trusted_issuer (issuer, kind, jwks) values ('spiffe://td.test', 'spiffe', '{\"keys\":[]}');
        insert into own_issuer values ('https://as.test')";
    db.sql(issuers).await.unwrap();
    let issuer =
        |columns: &str, values: &str| format!("insert into trusted_issuer (issuer, {columns}) values ({values})");
    let rule = |issuer: &str, subject: &str, claims: &str| {
        format!(
            "insert into client_federation (client_id, issuer, subject, claims) values ('c', '{issuer}', '{subject}', '{claims}')"
        )
    };
    let github = r#"{"repository_id":"1","repository_owner_id":"2"}"#;
    let target = github.replace('}', r#","event_name":"pull_request_target"}"#);
    let (text, everything) = (
        "subject: 1 to 1024 printable ASCII; write the whole sub",
        "subject: not * alone; write the sub up to a / and then *",
    );
    let (keys, public) =
        ("jwks: a JWK Set, a JSON object with the array keys", "jwks: public keys only; no d p q dp dq qi oth k");
    let bundle = "bundle_uri: spiffe needs it or jwks, no other kind has it";
    let account = "subject: write system:serviceaccount:NAMESPACE:NAME";
    let workload = "subject: spiffe://TRUST-DOMAIN/PATH, in the domain of issuer";
    let prefix = "subject: two parts before *, such as repo:acme/*";
    let mut cases: Vec<(String, &str)> = vec![
        (issuer("kind", "'https://x.test', 'saml'"), "kind: one of github gitlab kubernetes spiffe oidc"),
        (issuer("kind", "'http://x.test', 'oidc'"), "issuer: the exact iss, an https URL without ? and #"),
        (issuer("kind", "'https://x.test?y', 'oidc'"), "issuer: the exact iss, an https URL without ? and #"),
        (
            issuer("kind, jwks", "'https://x.test', 'spiffe', '{\"keys\":[]}'"),
            "issuer: for spiffe the trust domain, spiffe://example.org",
        ),
        (issuer("kind", "'spiffe://x.test', 'spiffe'"), bundle),
        (issuer("kind, bundle_uri", "'https://x.test', 'oidc', 'https://x.test/b'"), bundle),
        (
            issuer("kind, jwks_uri, jwks", "'https://x.test', 'oidc', 'https://x.test/b', '{\"keys\":[]}'"),
            "jwks_uri, jwks, bundle_uri: at most one of them",
        ),
        (
            issuer("kind, jwks_uri", "'https://x.test', 'oidc', 'http://x.test/b'"),
            "jwks_uri: an https URL without fragment, at most 2048 long",
        ),
        (issuer("kind, jwks", "'https://x.test', 'oidc', '{}'"), keys),
        (issuer("kind, jwks", "'https://x.test', 'oidc', '{\"keys\":{}}'"), keys),
        (issuer("kind, jwks", "'https://x.test', 'oidc', '{\"keys\":[{\"kty\":\"EC\",\"d\":\"x\"}]}'"), public),
        (issuer("kind, jwks", "'https://x.test', 'oidc', '{\"keys\":[{\"kty\":\"oct\",\"k\":\"x\"}]}'"), public),
        (
            issuer("kind, audience", "'https://x.test', 'oidc', ''"),
            "audience: null for our issuer, else 1 to 1024 ASCII",
        ),
        (
            issuer("kind, max_lifetime", "'https://x.test', 'oidc', 86401"),
            "max_lifetime: seconds, from 60 to 86400; null for 3600",
        ),
        (issuer("kind, ca_pem", "'https://x.test', 'oidc', 'x'"), "ca_pem: certificates in PEM, at most 65536 ASCII"),
        (
            issuer(
                "kind, ca_pem",
                "'https://x.test', 'oidc', '-----BEGIN CERTIFICATE----- -----BEGIN PRIVATE KEY-----'",
            ),
            "ca_pem: certificates only, no private key",
        ),
        (issuer("kind, enabled", "'https://x.test', 'oidc', 2"), "enabled: 0 or 1"),
        (issuer("kind", "'https://as.test', 'oidc'"), "issuer: that is this server; its own tokens prove nothing"),
        (
            "insert into client_federation (client_id, issuer, subject) values ('nobody', 'https://o.test', 'a')"
                .into(),
            "client_id: no such client; insert into client first",
        ),
        (rule("http://o.test", "a", "{}"), "issuer: the iss as in trusted_issuer, https or spiffe"),
        (rule("https://o.test", "a", "[]"), "claims: a JSON object"),
        (rule("https://o.test", "a", r#"{"a":"é"}"#), "claims: ASCII; write other characters as \\u00e9"),
        (
            rule("https://gh.test", "repo:acme/*", r#"{"repository_id":"1"}"#),
            "claims: github needs repository_id and repository_owner_id",
        ),
        (rule("https://gh.test", "repo:acme/*", &target), "claims: no pull_request_target; strangers start such runs"),
        (rule("https://gh.test", "repo:*", github), prefix),
        (rule("https://gh.test", "repo:/*", github), prefix),
        (
            rule("https://gl.test/", "project_path:acme/app:*", github),
            "claims: gitlab needs project_id and namespace_id",
        ),
        (rule("https://o.test", "tenant/*", "{}"), "subject: oidc has whole subjects; no /* or :* at the end"),
    ];
    cases.extend(["", "é", "a\nb"].map(|subject| (rule("https://none.test", subject, "{}"), text)));
    cases.extend(["*", "/*", ":*"].map(|subject| (rule("https://none.test", subject, "{}"), everything)));
    cases.extend(["iss", "sub", "aud", "exp", "iat", "nbf", "jti"].map(|name| {
        let claims = format!(r#"{{"{name}":"x"}}"#);
        (rule("https://none.test", "a", &claims), "claims: iss sub aud exp iat nbf jti have rules of their own")
    }));
    cases.extend(
        [
            "billing",
            "system:serviceaccount:pay:*",
            "system:serviceaccount:pay",
            "system:serviceaccount:p.y:b",
            "system:serviceaccount::b",
        ]
        .map(|subject| (rule("https://k.test", subject, "{}"), account)),
    );
    cases.extend(
        [
            "a",
            "spiffe://td.test",
            "spiffe://td.test/",
            "spiffe://td.test//a",
            "spiffe://td.test/a*",
            "spiffe://td.test.evil/a",
            "spiffe://other.test/a",
            "spiffe://td.test/*/a",
        ]
        .map(|subject| (rule("spiffe://td.test", subject, "{}"), workload)),
    );
    for (sql, message) in cases {
        let error = db.sql(&sql).await.expect_err(&sql).to_string();
        assert!(error.contains(message), "{sql}\nwanted: {message}\ngot:    {error}");
    }
    // Rules that are right, and one that stands before its issuer.
    for sql in [
        rule("https://gh.test", "repo:acme/*", github),
        rule("https://gl.test/", "project_path:acme/app:*", r#"{"project_id":"1","namespace_id":2}"#),
        rule("https://k.test", "system:serviceaccount:pay:billing.v2", r#"{"kubernetes.io":{"namespace":"pay"}}"#),
        rule("https://o.test", "any|thing*", "{}"),
        rule("spiffe://td.test", "spiffe://td.test/ns/*", "{}"),
        rule("https://none.test", "repo:*", "{}"),
    ] {
        db.sql(&sql).await.expect(&sql);
    }
    // Deleting a client deletes its rules; deleting an issuer leaves them.
    let store = db.store().await;
    assert_eq!(store.federation_rules().await.unwrap().len(), 6);
    let refused = store.delete_trusted_issuer("https://gh.test", false).await.unwrap_err().to_string();
    assert_eq!(refused, "trusted issuer https://gh.test is named by rules of c");
    assert_eq!(store.delete_trusted_issuer("https://gh.test", true).await.unwrap(), Some(1));
    assert_eq!(store.delete_trusted_issuer("https://gh.test", true).await.unwrap(), None);
    assert!(store.delete_client("c").await.unwrap());
    assert_eq!(store.federation_rules().await.unwrap().len(), 0);
}

async fn a_right_seed_is_taken_with_its_defaults(db: Db) {
    let setup = Setup::new(db).await;
    let seed = format!(
        "insert into resource (identifier, scope) values ('https://api1.test', 'api:read api:write');
         insert into client (client_id, scope, default_scope) values ('billing', 'api:read api:write', 'api:read');
         insert into client_resource (client_id, identifier) values ('billing', 'https://api1.test');
         insert into client_secret (client_id, hash) values ('billing', '{HASH}');
         insert into client (client_id) values ('it.has-no_scope~');"
    );
    setup.db.sql(&seed).await.unwrap();
    let server = setup.start().await;
    let answer = server.basic("billing", "some+secure+%26+non-standard+secret", "").await;
    assert_eq!(answer.token().1["aud"], "https://api1.test");
    let secrets = server.store.secrets("billing").await.unwrap();
    assert!(secrets[0].imported && secrets[0].created_at > UnixTime(1_700_000_000) && secrets[0].secret_id.len() == 32);
}

async fn seeds_are_applied_once_each_in_order_whole_or_not_at_all(db: Db) {
    let store = db.store().await;
    let seeds = db.directory.path().join("seeds");
    let migrate = async || store.migrate(&db.database, Some(&seeds)).await;
    let fault = async |part: &str, file: &str| match migrate().await {
        Err(MigrationError::Seed { path, reason }) => {
            assert!(reason.contains(part) && path.contains(file), "{path}: {reason}");
        }
        other => panic!("wanted `{part}`, got {other:?}"),
    };
    fault("cannot be read", "seeds").await;
    // 10 comes after 9, and refers to it.
    db.file("seeds/10_link.sql", "insert into client_resource values ('a', 'https://a.test');");
    db.file("seeds/9_base.sql", "insert into client (client_id) values ('a'); insert into resource (identifier, scope) values ('https://a.test', 'x');");
    db.file("seeds/.swp", "not a seed");
    migrate().await.unwrap();
    migrate().await.unwrap();

    let bad = db.file(
        "seeds/11_bad.sql",
        "insert into client (client_id) values ('b'); insert into client (client_id) values ('b ');",
    );
    fault("client_id: 1 to 255", "11_bad.sql").await;
    db.sql("insert into client (client_id) values ('b')").await.expect("the failed seed left nothing behind");
    std::fs::remove_file(bad).unwrap();
    let wrong = db.file("seeds/12_wrong.sql", "insert into clients values (1);");
    fault("clients", "12_wrong.sql").await;
    std::fs::remove_file(wrong).unwrap();

    for (name, part) in [
        ("readme.txt", "<number>_<name>.sql"),
        ("x_y.sql", "<number>_<name>.sql"),
        ("13.sql", "<number>_<name>.sql"),
        ("9_again.sql", "same number"),
    ] {
        let path = db.file(&format!("seeds/{name}"), "");
        fault(part, if name == "9_again.sql" { "9_" } else { name }).await;
        std::fs::remove_file(path).unwrap();
    }
    db.file("seeds/9_base.sql", "-- edited");
    fault("was edited after it was applied", "9_base.sql").await;
    std::fs::remove_file(seeds.join("9_base.sql")).unwrap();
    migrate().await.expect("an applied seed may be taken out of the directory");
    let status = store.migration_status(Some(&seeds), true).await.unwrap();
    assert!(status.iter().all(|one| one.applied) && status.len() == schema_files() + 1);
}

async fn every_change_by_hand_is_seen_and_only_what_changed_is_read(db: Db) {
    let store = db.store().await;
    let mut feed = store.change_reader().await.unwrap();
    let mut known = feed.poll().await.unwrap().position;
    let insert = "insert into client (client_id, scope) values ('a', 'x'), ('b', 'x'), ('c', 'x')";
    let secret = format!("insert into client_secret (secret_id, client_id, hash) values ('s1', 'a', '{HASH}')");
    let cases: [(&str, &[&str], bool, bool); 13] = [
        (insert, &["a", "b", "c"], false, false),
        (&secret, &["a"], false, false),
        ("update client_secret set revoked_at = 1 where secret_id = 's1'", &["a"], false, false),
        ("insert into client_secret_use values ('s1', 5)", &[], false, false),
        ("update client set scope = 'y' where client_id <> 'c'", &["a", "b"], false, false),
        ("update client set scope = 'y' where client_id = 'nobody'", &[], false, false),
        ("insert into resource (identifier, scope) values ('https://a.test', 'y')", &[], true, false),
        ("insert into client_resource values ('b', 'https://a.test')", &["b"], false, false),
        ("insert into resource_introspector values ('https://a.test', 'c')", &[], true, false),
        ("delete from client_resource", &["b"], false, false),
        ("update client set client_id = 'd' where client_id = 'b'", &["b", "d"], false, false),
        ("delete from client where client_id = 'a'", &["a"], false, false),
        (
            "insert into signing_key (kid, alg, sealed, active_at) values ('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ', 'ES256', 'x', 1)",
            &[],
            false,
            true,
        ),
    ];
    for (sql, clients, resources, keys) in cases {
        let sql = if db.is_postgres() {
            sql.replace("'ES256', 'x'", "'ES256', '\\x00'")
        } else {
            sql.replace("'ES256', 'x'", "'ES256', x'00'")
        };
        db.sql(&sql).await.unwrap();
        let position = feed.poll().await.unwrap().position;
        let Since::Changes(changes) = feed.since(&known).await.unwrap() else { panic!("{sql}") };
        let ids: Vec<&str> = changes.clients.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, clients, "{sql}");
        assert_eq!((changes.resources.is_some(), changes.keys.is_some()), (resources, keys), "{sql}");
        let (poll, Since::Changes(same)) = feed.poll_since(&known).await.unwrap() else { panic!("{sql}") };
        assert_eq!((&poll.position, poll.read_only, poll.standby), (&position, false, false));
        assert_eq!(same.clients.len(), clients.len(), "{sql}");
        assert_eq!(position.revision > known.revision, !clients.is_empty() || resources || keys, "{sql}");
        known = position;
    }
    let all = feed.all_but_clients().await.unwrap();
    let range = RangeReader::default().next(&mut feed).await.unwrap();
    assert!(range.clients.len() == 2 && range.through.is_none() && all.keys.unwrap().len() == 1);
    db.sql("begin; insert into client (client_id) values ('e'); rollback").await.unwrap();
    assert_eq!(feed.poll().await.unwrap().position, known, "what was rolled back never happened");
    if db.is_postgres() {
        db.sql("truncate client cascade").await.unwrap();
        let since = feed.since(&known).await.unwrap();
        assert!(matches!(since, Since::Everything(_)), "truncate tells no rows, so everything is read: {since:?}");
    }
}

/// Takes away what keeps unsafe rows out, as a database of unknown history might lack it.
fn unguarded(db: &Db, sql: &str) -> String {
    if db.is_postgres() {
        let drop_checks = "do $$ declare c record; begin
            for c in select conname, conrelid::regclass as t from pg_constraint where contype = 'c' and conrelid::regclass::text in ('client', 'client_secret', 'resource')
            loop execute format('alter table %s drop constraint %I', c.t, c.conname); end loop; end $$;";
        format!("{drop_checks} {sql}")
    } else {
        format!("drop trigger client_default_scope_on_insert; pragma ignore_check_constraints = on; {sql}")
    }
}

async fn a_malformed_row_stops_its_own_client_alone(db: Db) {
    let setup = Setup::new(db).await;
    let good = setup.client(client("good")).await;
    let hostile = HASH.replace("m=19456", "m=4194304");
    let rows = [
        ("heavy", "", format!("insert into client_secret (client_id, hash) values ('heavy', '{hostile}')")),
        ("plain", "", "insert into client_secret (client_id, hash) values ('plain', 'clear text')".to_owned()),
        ("badscope", "update client set scope = 'a  b' where client_id = 'badscope'", String::new()),
        ("default", "update client set default_scope = 'zzz' where client_id = 'default'", String::new()),
        ("ttl", "update client set token_ttl = -1 where client_id = 'ttl'", String::new()),
        ("claims", "update client set claims = '{\"iss\":\"evil\"}' where client_id = 'claims'", String::new()),
        ("many", "MANY", String::new()),
        ("deep", "DEEP", String::new()),
        ("flag", "update client set enabled = 7 where client_id = 'flag'", String::new()),
    ];
    let mut sql = String::from("insert into client (client_id) values ('ok-but-bare');");
    for (id, update, more) in &rows {
        sql += &format!("insert into client (client_id, scope) values ('{id}', 'a'); {update}; {more};")
            .replace("; ;", ";")
            .replace(";;", ";");
    }
    // What no introspection could read again: too many claims, and claims that are nested too deeply.
    let many: Vec<String> = (0..65).map(|n| format!("\"a{n}\":1")).collect();
    let (many, deep) = (format!("{{{}}}", many.join(",")), format!("{{\"a\":{}{}}}", "[".repeat(16), "]".repeat(16)));
    for (name, id, claims) in [("MANY", "many", many), ("DEEP", "deep", deep)] {
        sql = sql.replace(name, &format!("update client set claims = '{claims}' where client_id = '{id}'"));
    }
    sql += "insert into client (client_id, scope) values (' led by a space', 'a');";
    sql += "insert into resource (identifier, scope) values ('not a uri', 'a');";
    let update_trigger = if setup.db.is_postgres() { "" } else { "drop trigger client_default_scope_on_update;" };
    setup.db.sql(&unguarded(&setup.db, &format!("{update_trigger}{sql}"))).await.unwrap();
    let server = setup.start().await;
    server.basic("good", &good, "").await.ok();
    for id in ["heavy", "plain", "badscope", "default", "ttl", "claims", "many", "deep", "flag"] {
        server.basic(id, "clear text", "").await.unauthorized();
        let labels = grantd::http::log::TokenLabels {
            result: "refused",
            reason: "client_malformed",
            method: "client_secret_basic",
        };
        assert!(
            server.counts.token_requests.get_or_create(&labels).get() > 0,
            "{id} is told from an unknown client in the log"
        );
    }
    assert_eq!(
        server.server.registry.snapshot().malformed().len(),
        11,
        "{:?}",
        server.server.registry.snapshot().malformed()
    );
    // Mended by hand, it works without a restart.
    server.db.sql(&format!("update client_secret set hash = '{HASH}' where client_id = 'heavy'; update client set scope = 'a', default_scope = 'a' where client_id = 'heavy'")).await.unwrap();
    server.refresh().await;
    server.basic("heavy", "some+secure+%26+non-standard+secret", "").await.ok();
}

#[tokio::test]
async fn a_column_of_another_type_is_not_misread() {
    let db = Db::postgres().await;
    let store = db.store().await;
    for id in ["a", "b"] {
        db.sql(&secret_with(HASH).replace("'c'", &format!("'{id}'"))).await.unwrap();
    }
    // The first row has no value there. Eight bytes of text would be read as a number.
    let sql = "alter table client_secret alter column revoked_at type text;
        update client_secret set revoked_at = '17000000' where client_id = 'b'";
    db.sql(&unguarded(&db, sql)).await.unwrap();
    let mut reader = store.change_reader().await.unwrap();
    let read = RangeReader::default().next(&mut reader).await;
    assert!(read.as_ref().is_err_and(|error| error.to_string().contains("mismatched types")), "{read:?}");
}

async fn replicas_that_start_together_make_one_signing_key(db: Db) {
    let store = db.store().await;
    let sealing_key = SealingKey::from_base64(&SealingKey::generate_base64().unwrap()).unwrap();
    let made: Vec<_> =
        (0..5).map(|_| new_key(Alg::Es256, &sealing_key, UnixTime(1), Span::from_secs(0)).unwrap()).collect();
    let tasks: Vec<_> = made
        .into_iter()
        .map(|key| {
            let store = store.clone();
            tokio::spawn(async move { store.add_first_key(&key).await })
        })
        .collect();
    let mut added = 0;
    for task in tasks {
        added += u32::from(task.await.unwrap().unwrap());
    }
    assert_eq!((added, store.keys().await.unwrap().len()), (1, 1));
    let key = &store.keys().await.unwrap()[0];
    key.open(&sealing_key).unwrap();
    let pkcs8 = sealing_key.open(&format!("signing_key/ES256/{}", key.kid), &key.sealed).unwrap();
    assert!(
        !key.sealed.windows(16).any(|window| pkcs8.windows(16).any(|plain| plain == window)),
        "nothing of the key stands in the database"
    );
}

async fn a_resource_in_use_is_not_deleted(db: Db) {
    let setup = Setup::new(db).await;
    setup.resource("https://api1.test", "api:read").await;
    setup
        .store
        .create_client(
            &grantd::model::client::Client {
                resources: ["https://api1.test".parse().unwrap()].into(),
                ..client("basic-client")
            },
            None,
        )
        .await
        .unwrap();
    let error = setup.store.delete_resource("https://api1.test").await.unwrap_err().to_string();
    assert!(error.contains("used by basic-client"), "{error}");
    assert!(setup.store.delete_client("basic-client").await.unwrap());
    assert!(setup.store.delete_resource("https://api1.test").await.unwrap());
    assert!(!setup.store.delete_resource("https://api1.test").await.unwrap());
}

async fn an_older_schema_is_noticed(db: Db) {
    let store = grantd::store::Store::open(&db.database, 2);
    assert_eq!(store.schema().await.unwrap(), Schema::Older { pending: schema_files() });
    store.migrate(&db.database, None).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), Schema::Usable);
    // A newer program has been here: migrations only add, so this one goes on.
    db.sql("insert into _grantd_migrations (version, description, success, checksum, execution_time) values (99, 'later', true, 'x', 0)".replace("'x'", if db.is_postgres() { "'\\x00'" } else { "x'00'" }).as_str()).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), Schema::Newer { by: 1 });
    store.migrate(&db.database, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lags_brings_no_revoked_credential_back() {
    let setup = Setup::new(Db::postgres().await).await;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    assert!(server.store.set_client_enabled("basic-client", false).await.unwrap());
    server.refresh().await;
    server.basic("basic-client", &secret, "").await.unauthorized();
    // The same server, read-only and some revisions behind, as a standby would be.
    let name = server.db.url.rsplit('/').next().unwrap().to_owned();
    let end_sessions = format!(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
    );
    let behind = "update client set enabled = 1; update registry_revision set revision = revision - 3; delete from registry_change";
    server
        .db
        .sql(&format!(
            "begin; {behind}; alter database {name} set default_transaction_read_only = on; commit; {end_sessions}"
        ))
        .await
        .unwrap();
    for _ in 0..20 {
        let answer = server.basic("basic-client", &secret, "").await;
        assert_ne!(answer.status, 200, "a revoked credential is back");
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    assert_eq!(server.basic("basic-client", &secret, "").await.status, 503);
    // A database with another past that takes writes is the truth, whatever its revision.
    server
        .db
        .sql(&format!(
            "set transaction read write; alter database {name} reset default_transaction_read_only; {end_sessions}"
        ))
        .await
        .unwrap();
    let started = std::time::Instant::now();
    while server.basic("basic-client", &secret, "").await.status != 200 {
        assert!(started.elapsed().as_secs() < 10);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
