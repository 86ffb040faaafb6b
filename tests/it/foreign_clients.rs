//! Requests and key sets of libraries, partners and directories that were written against other servers.

use serde_json::{Value, json};

use crate::assertion::{Signer, ask, claims};
use crate::client_certificates::register;
use crate::dpop::Prover;
use crate::harness::{Answer, Db, ISS, Server, Setup, basic, client, form};
use crate::jwks_host::{Host, ask_as, publishing, setup as published_at, with_jwks_uri_client};
use crate::mutual_tls::self_signed;
use crate::process::daemon::Grantd;
use grantd::crypto::certificate::Certificate;
use grantd::crypto::jose::{Kind, Unverified};
use grantd::crypto::jwk::Alg;
use grantd::crypto::jws::SigningKey;
use grantd::crypto::verifying_key::VerifyingKey;
use grantd::http::Caller;
use grantd::model::certificate::PeerCertificate;
use grantd::model::client::{AssertionAudience, Client};
use grantd::model::resource::{Resource, TokenTyp};
use grantd::model::time::UnixTime;

on_both!(
    every_algorithm_signs_assertions_and_proofs,
    an_rsa_key_that_names_no_algorithm_is_used_with_the_one_of_the_header,
    unusable_keys_of_a_published_set_are_skipped_and_the_rest_works,
    doctor_says_what_of_a_published_set_is_skipped_and_what_cannot_be_fetched,
    a_proof_binds_alone_unless_the_client_must_be_bound_to_its_certificate,
    a_revocation_is_answered_with_json,
    the_text_of_a_refusal_depends_on_the_clients_method_alone,
    ed25519_goes_by_the_name_that_is_configured,
    a_signing_key_is_shown_in_pem_and_as_a_jwk,
    assertions_as_libraries_make_them_are_accepted_for_one_client,
    a_resource_may_have_tokens_of_typ_jwt_and_they_are_nothing_else,
    any_printable_ascii_names_a_client,
    a_seed_and_the_commands_that_are_proposed_quote_a_client_id,
);

async fn with_key(setup: &Setup, id: &str, signer: &Signer) {
    setup.store.create_client(&client(id), None).await.unwrap();
    setup.store.add_client_keys(id, &[signer.stored()]).await.unwrap();
}

/// An assertion by `alg`, whatever the key would choose.
fn by(signer: &Signer, alg: &str, id: &str) -> String {
    signer.sign_by(alg, &json!({"alg": alg}).to_string(), &claims(id).to_string())
}

async fn every_algorithm_signs_assertions_and_proofs(db: Db) {
    let setup = Setup::new(db).await;
    let rsa = ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"].map(Signer::rsa);
    let signers: Vec<Signer> = [Signer::es256(), Signer::es384(), Signer::ed25519()].into_iter().chain(rsa).collect();
    for signer in &signers {
        with_key(&setup, &signer.alg().to_lowercase(), signer).await;
    }
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    for signer in &signers {
        let id = signer.alg().to_lowercase();
        ask(&server, &signer.fresh(&id)).await.ok();
        // Another algorithm of the same key is none of its own.
        for other in ["PS256", "RS512"].into_iter().filter(|other| *other != signer.alg()) {
            ask(&server, &by(signer, other, &id)).await.unauthorized();
        }
        let fields = [("authorization", &*basic("basic-client", &secret)), ("dpop", &*signer.proof_by(signer.alg()))];
        server.post(&fields, "grant_type=client_credentials").await.ok_of_type("DPoP");
    }
}

async fn an_rsa_key_that_names_no_algorithm_is_used_with_the_one_of_the_header(db: Db) {
    let setup = Setup::new(db).await;
    let signer = Signer::any_rsa();
    with_key(&setup, "directory", &signer).await;
    let server = setup.start().await;
    for alg in ["RS256", "PS256", "RS384", "PS384", "RS512", "PS512"] {
        ask(&server, &by(&signer, alg, "directory")).await.ok();
    }
    for alg in ["ES256", "HS256", "none"] {
        ask(&server, &by(&signer, alg, "directory")).await.unauthorized();
    }
    // A replica reads it from the database as it was registered.
    ask(&server.replica().await, &by(&signer, "RS256", "directory")).await.ok();
}

async fn unusable_keys_of_a_published_set_are_skipped_and_the_rest_works(db: Db) {
    let host = Host::start().await;
    let (own, other) = (Signer::es256().named("k"), Signer::es256().named("k"));
    let with = |jwk: &Value, name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    };
    let harmless = with(&with(&own.jwk(), "use", Value::Null), "key_ops", json!([]));
    host.publishes_keys(&[
        with(&Signer::es256().named("k").jwk(), "use", json!("enc")),
        with(&Signer::es256().named("k").jwk(), "use", json!("enc")),
        json!({"kty": "oct", "kid": "s", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
        other.jwk(),
        harmless,
    ]);
    let (server, _) = with_jwks_uri_client(db, &host, &["localhost", "127.0.0.0/8"]).await;
    for signer in [&own, &other] {
        ask_as(&server, signer, "jwks-uri-client").await.ok();
    }
    ask_as(&server, &Signer::es256().named("k"), "jwks-uri-client").await.unauthorized();
}

async fn doctor_says_what_of_a_published_set_is_skipped_and_what_cannot_be_fetched(db: Db) {
    let host = Host::start().await;
    let oct = json!({"kty": "oct", "kid": "s", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T"});
    host.publishes_keys(&[Signer::es256().jwk(), oct]);
    let (setup, _) = published_at(db, &["127.0.0.0/8"]).await;
    publishing(&setup, "jwks-uri-client", &host.uri()).await;
    let grantd = Grantd::new(&setup.db)
        .with("GRANTD__CLIENTS__JWKS_URI_CA_FILE", setup.settings.clients.jwks_uri_ca_file.to_str().unwrap())
        .with("GRANTD__CLIENTS__JWKS_URI_ALLOW", "127.0.0.0/8");
    let told = grantd.run(&["doctor"]).await;
    let note = format!("note: client jwks-uri-client: of its key set at {} is skipped: key 2: ", host.uri());
    assert!(told.stderr.contains(&note) && !told.stdout.contains("client jwks-uri-client"), "{told:?}");
    host.answers("404 Not Found", "", b"");
    publishing(&setup, "off", "https://192.0.2.1/jwks").await;
    setup.db.sql("update client set enabled = 0 where client_id = 'off'").await.unwrap();
    let told = grantd.run(&["doctor"]).await;
    let fault = format!("client jwks-uri-client: its key set at {}: status 404", host.uri());
    assert!(told.status.code() == Some(1) && told.stdout.contains(&fault), "{told:?}");
    assert!(!told.stdout.contains("client off"), "{told:?}");
}

async fn ask_with(server: &Server, id: &str, certificate: Option<&PeerCertificate>, proof: Option<&str>) -> Answer {
    let caller = Caller { address: ([192, 0, 2, 1], 4711).into(), certificate: certificate.cloned() };
    let fields: Vec<(&str, &str)> = proof.map(|proof| ("dpop", proof)).into_iter().collect();
    let body = format!("grant_type=client_credentials&client_id={id}");
    server.send_by(&caller, form("/token", &fields, body)).await
}

async fn a_proof_binds_alone_unless_the_client_must_be_bound_to_its_certificate(db: Db) {
    let setup = Setup::new(db).await;
    let certificate = Certificate::parse(&self_signed("svc").chain()[0]).unwrap();
    let x5t = certificate.x5t_s256();
    let shown =
        PeerCertificate { intermediates: [].into(), certificate: certificate.into(), ca_verified: Err("no CA".into()) };
    for (id, bound) in [("free", false), ("bound", true)] {
        let registered = Client { require_mtls_binding: bound, ..client(id) };
        setup.store.create_client(&registered, None).await.unwrap();
        register(&setup.store, id, "self_signed", &x5t).await.unwrap();
    }
    let server = setup.start().await;
    let prover = Prover::new();
    for (id, with_proof) in
        [("free", json!({"jkt": prover.jkt()})), ("bound", json!({"jkt": prover.jkt(), "x5t#S256": x5t}))]
    {
        let answer = ask_with(&server, id, Some(&shown), Some(&prover.proof())).await;
        assert_eq!(answer.token().1["cnf"], with_proof, "{id}");
        let without = ask_with(&server, id, Some(&shown), None).await;
        assert_eq!(without.token().1["cnf"], json!({"x5t#S256": x5t}), "{id}");
    }
}

async fn a_revocation_is_answered_with_json(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let token = server.basic("basic-client", &secret, "").await.access_token();
    for token in [&*token, "unknown"] {
        let answer = server.revoke("basic-client", &secret, token).await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, "{}"));
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

/// An assertion to `aud` that lives for so many seconds.
fn addressed(signer: &Signer, id: &str, aud: Value, lives: i64) -> String {
    let mut claims = claims(id);
    claims["aud"] = aud;
    claims["exp"] = (claims["iat"].as_i64().unwrap() + lives).into();
    signer.assert(&claims)
}

async fn assertions_as_libraries_make_them_are_accepted_for_one_client(db: Db) {
    for profile in ["default", "fapi2"] {
        let db = if db.is_postgres() { Db::postgres().await } else { Db::sqlite() };
        let mut setup = Setup::new(db).await;
        setup.settings.profile = profile.into();
        setup.settings.server.cleartext = "behind-proxy".into();
        let signer = Signer::es256();
        with_key(&setup, "exact", &signer).await;
        let loose = Client {
            assertion_lifetime: Some("1h".parse().unwrap()),
            assertion_audience: AssertionAudience::TokenEndpoint,
            ..client("loose")
        };
        setup.store.create_client(&loose, None).await.unwrap();
        setup.store.add_client_keys("loose", &[signer.stored()]).await.unwrap();
        let server = setup.start().await;
        let prover = Prover::new();
        let endpoint = format!("{ISS}/token");
        for (aud, lives, for_exact, for_loose) in [
            (json!(ISS), 300, true, true),
            (json!(endpoint), 300, false, true),
            (json!([ISS]), 300, true, true),
            (json!([endpoint]), 300, false, true),
            (json!(ISS), 3600, false, true),
            (json!(ISS), 3700, false, false),
            (json!([ISS, endpoint]), 300, false, false),
            (json!([]), 300, false, false),
            (json!(format!("{ISS}/token/")), 300, false, false),
            (json!(format!("{ISS}/introspect")), 300, false, false),
        ] {
            for (id, accepted) in [("exact", for_exact), ("loose", for_loose)] {
                // The profile permits no exception: a string, the issuer, five minutes.
                let accepted = accepted && (profile == "default" || aud == ISS && lives == 300);
                let assertion = addressed(&signer, id, aud.clone(), lives);
                let form = format!(
                    "grant_type=client_credentials&client_assertion_type={}&client_assertion={assertion}",
                    crate::assertion::TYPE
                );
                let answer = server.post(&[("dpop", &prover.proof())], form).await;
                assert_eq!(answer.status == 200, accepted, "{profile} {id} {aud} {lives}: {}", answer.body);
            }
        }
        // What lives longer is remembered for longer.
        if profile == "default" {
            let once = addressed(&signer, "loose", json!(ISS), 3600);
            ask(&server, &once).await.ok();
            server.store.sweep_spent(UnixTime(claims("x")["iat"].as_i64().unwrap() + 1800)).await.unwrap();
            ask(&server, &once).await.unauthorized();
        }
    }
    // The database refuses what would be remembered for too long.
    assert!(db.store().await.migrate(&db.database, None).await.is_ok());
    db.sql("insert into client (client_id) values ('c')").await.unwrap();
    for wrong in ["assertion_lifetime = 59", "assertion_lifetime = 3601", "assertion_audience = 'any'"] {
        let refused = db.sql(&format!("update client set {wrong}")).await.unwrap_err().to_string();
        assert!(refused.contains("assertion_"), "{refused}");
    }
}

async fn a_resource_may_have_tokens_of_typ_jwt_and_they_are_nothing_else(db: Db) {
    let mut setup = Setup::new(db).await;
    let api = setup.client(client("api")).await;
    for (identifier, token_typ) in [("https://plain.test", TokenTyp::Jwt), ("https://exact.test", TokenTyp::AtJwt)] {
        setup
            .save(Resource {
                identifier: identifier.parse().unwrap(),
                scope: "api:read".parse().unwrap(),
                alg: None,
                token_ttl: None,
                token_typ,
                status_list: false,
                introspectors: vec!["api".parse().unwrap()],
            })
            .await;
    }
    let mut caller = client("basic-client");
    caller.resources = ["https://plain.test".parse().unwrap(), "https://exact.test".parse().unwrap()].into();
    let secret = setup.client(caller).await;
    setup.settings.dpop.require_nonce = false;
    let server = setup.start().await;
    for (resource, typ) in [("https://plain.test", "JWT"), ("https://exact.test", "at+jwt")] {
        let token = server.basic("basic-client", &secret, &format!("resource={resource}")).await;
        assert_eq!(token.token().0["typ"], typ);
        let token = token.access_token();
        assert_eq!(server.introspect("api", &api, &token).await.json()["active"], true, "{typ}");
        // Neither authenticates a client nor proves a key, whatever its typ.
        ask(&server, &token).await.unauthorized();
        let fields = [("authorization", &*basic("basic-client", &secret)), ("dpop", &*token)];
        server.post(&fields, "grant_type=client_credentials").await.error("invalid_dpop_proof");
        assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 200);
        assert_eq!(server.introspect("api", &api, &token).await.json()["active"], false, "{typ}");
    }
}

async fn the_text_of_a_refusal_depends_on_the_clients_method_alone(db: Db) {
    let setup = Setup::new(db).await;
    let signer = Signer::es256();
    with_key(&setup, "jwt-client", &signer).await;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let read = async |fields: &[(&str, &str)], body: String| {
        let answer = server.post(fields, format!("grant_type=client_credentials{body}")).await;
        answer.unauthorized();
        answer.json()["error_description"].as_str().unwrap().to_owned()
    };
    let assertion = |jwt: &str| format!("&client_assertion_type={}&client_assertion={jwt}", crate::assertion::TYPE);
    let forged = Signer::es256();
    let mut by_assertion = Vec::new();
    for jwt in [
        forged.fresh("jwt-client"),
        forged.fresh("nobody"),
        addressed(&signer, "jwt-client", json!("https://other.test"), 60),
        addressed(&signer, "jwt-client", json!(ISS), 7200),
        "x".to_owned(),
    ] {
        by_assertion.push(read(&[], assertion(&jwt)).await);
    }
    let first = by_assertion[0].clone();
    assert!(by_assertion.iter().all(|told| *told == first), "{by_assertion:?}");
    for part in ["aud 'https://as.test'", "iss and sub the client_id", "five minutes", "jti that is used once"] {
        assert!(first.contains(part), "{first}");
    }
    let mut by_basic = Vec::new();
    for (id, secret) in [("basic-client", "wrong"), ("nobody", &*secret), ("jwt-client", &*secret)] {
        by_basic.push(read(&[("authorization", &basic(id, secret))], String::new()).await);
    }
    assert!(by_basic.iter().all(|told| told.contains("form-urlencoded first") && *told == by_basic[0]), "{by_basic:?}");
    let by_post = read(&[], "&client_id=basic-client&client_secret=wrong".to_owned()).await;
    assert_eq!(by_post, read(&[], "&client_id=nobody&client_secret=wrong".to_owned()).await);
    assert!(by_post.contains("client_secret"), "{by_post}");
    let none = read(&[], String::new()).await;
    assert!(none.contains("/.well-known/oauth-authorization-server"), "{none}");
}

async fn a_signing_key_is_shown_in_pem_and_as_a_jwk(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    for alg in ["ES256", "EdDSA", "PS256"] {
        grantd.ok(&["key", "generate", "--alg", alg]).await;
    }
    let listed: Value = serde_json::from_str(&grantd.ok(&["key", "list", "--json"]).await.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    for key in listed.as_array().unwrap() {
        let kid = key["kid"].as_str().unwrap();
        let jwk: Value = serde_json::from_str(&grantd.ok(&["key", "show", kid, "--jwk"]).await.stdout).unwrap();
        assert_eq!((&jwk, &jwk["kid"], jwk.get("d")), (&key["jwk"], &key["kid"], None));
        let pem = grantd.ok(&["key", "show", kid, "--pem"]).await.stdout;
        let read = VerifyingKey::from_pem(pem.as_bytes(), None).expect(&pem);
        assert_eq!(read.jkt(), kid, "{pem}");
    }
    let unknown = grantd.run(&["key", "show", "x"]).await;
    assert!(unknown.stderr.contains("grantd key list"), "{unknown:?}");
}

async fn ed25519_goes_by_the_name_that_is_configured(db: Db) {
    let mut setup = Setup::new(db).await;
    let secret = setup.client(client("basic-client")).await;
    setup.settings.token.alg = "Ed25519".into();
    let server = setup.start().await;
    let answer = server.basic("basic-client", &secret, "").await;
    assert_eq!(answer.token().0["alg"], "Ed25519");
    let token = answer.access_token();
    let keys = server.get("/jwks").await.json();
    assert_eq!((&keys["keys"][0]["alg"], &keys["keys"][0]["crv"]), (&json!("Ed25519"), &json!("Ed25519")));
    let key = VerifyingKey::from_text(keys["keys"][0].to_string().as_bytes(), None).unwrap();
    let read = Unverified::parse(&token, Kind::AccessToken, 8192).unwrap();
    assert!(read.verify(&key).is_ok());
    let metadata = server.get("/.well-known/oauth-authorization-server").await.json();
    let listed = metadata["introspection_signing_alg_values_supported"].as_array().unwrap().clone();
    assert!(listed.contains(&json!("Ed25519")) && !listed.contains(&json!("EdDSA")), "{listed:?}");
    // The keys are the same under either name: what was signed under one verifies under the other.
    assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 200);
    let (signing, _) = SigningKey::generate(Alg::EdDsa).unwrap();
    let plain = signing.sign(b"{}").unwrap();
    assert!(signing.fully_specified().verifies(&plain));
}

/// Ids of clients that come from another server.
const FOREIGN_IDS: [&str; 6] = [
    "https://ci.example/job?a=b+c",
    "spiffe://prod.example/ns/pay/sa/api",
    "it's \"the\" {payroll}\\n",
    "a  b",
    "50%25",
    "~",
];

async fn any_printable_ascii_names_a_client(db: Db) {
    let setup = Setup::new(db).await;
    let (signer, longest) = (Signer::es256(), "x".repeat(255));
    let ids: Vec<&str> = FOREIGN_IDS.into_iter().chain([&*longest]).collect();
    setup.resource("https://api.test", "api:read").await;
    let mut secrets = Vec::new();
    for id in &ids {
        let resources = ["https://api.test".parse().unwrap()].into();
        secrets.push(setup.client(Client { resources, ..client(id) }).await);
        let quoted = id.replace('\'', "''");
        let introspects = format!("insert into resource_introspector values ('https://api.test', '{quoted}')");
        setup.db.sql(&introspects).await.unwrap();
        setup.store.add_client_keys(id, &[signer.stored()]).await.unwrap();
    }
    let server = setup.start().await;
    for (id, secret) in ids.iter().zip(&secrets) {
        let encoded = id.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let encoded_basic = server.basic(&encoded, secret, "").await;
        for answer in [
            // Raw, as many libraries send it.
            server.basic(id, secret, "").await,
            server.basic(&encoded, secret, &format!("&client_id={encoded}")).await,
            server.in_body(&encoded, secret, "").await,
            ask(&server, &signer.fresh(id)).await,
        ] {
            let claims = answer.token().1;
            assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(id), &json!(id)));
        }
        server.basic(id, "wrong-secret-of-this-client", "").await.unauthorized();
        let token = encoded_basic.access_token();
        let introspected = server.introspect(&encoded, secret, &token).await.json();
        assert_eq!((&introspected["active"], &introspected["client_id"]), (&json!(true), &json!(id)));
        server.revoke(&encoded, secret, &token).await;
        server.introspect(id, secret, &token).await.inactive();
    }
}

async fn a_seed_and_the_commands_that_are_proposed_quote_a_client_id(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    for id in FOREIGN_IDS {
        let seed = grantd.ok(&["client", "create", id, "--sql"]).await;
        db.sql(&seed.stdout).await.unwrap_or_else(|error| panic!("{error}: {}", seed.stdout));
        let shown: Value = serde_json::from_str(&grantd.ok(&["client", "show", id, "--json"]).await.stdout).unwrap();
        assert_eq!(shown["client_id"], id);
        let refused = grantd.run(&["client", "key", "remove", id, "k"]).await.stderr;
        let proposed = refused.split('`').nth(1).unwrap_or_else(|| panic!("{refused}"));
        let words = shell_words(proposed);
        assert_eq!(words, ["grantd", "client", "key", "list", id]);
    }
    for id in ["", " a", "a ", "é", "a\tb"] {
        let refused = grantd.run(&["client", "create", id]).await;
        assert!(refused.stderr.contains("1 to 255 printable ASCII"), "{refused:?}");
    }
}

/// The words of a command, as a shell reads them.
fn shell_words(command: &str) -> Vec<String> {
    let script = format!("printf '%s\\0' {command}");
    let printed = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(printed.stdout).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}
