//! Each method and each algorithm that the metadata lists works, and those that it does not list do not.

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use grantd::crypto::certificate::Certificate;
use grantd::http::Caller;
use serde_json::{Value, json};

use crate::assertion::{Signer, TYPE, claims, mac};
use crate::client_certificates::register;
use crate::harness::{Answer, Db, Server, Setup, basic, client, form};
use crate::mutual_tls::{Ca, Identity, ca, named, self_signed};

on_both!(
    the_metadata_keeps_its_promises_without_mutual_tls,
    the_metadata_keeps_its_promises_with_mutual_tls,
    the_metadata_keeps_its_promises_with_the_fapi2_profile,
);

/// All that any metadata could list, and what must be listed nowhere.
const METHODS: [&str; 7] = [
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "client_secret_jwt",
    "none",
];
const ALGS: [&str; 17] = [
    "ES256", "EdDSA", "Ed25519", "PS256", "RS256", "ES384", "ES512", "ES256K", "Ed448", "PS384", "PS512", "RS384",
    "RS512", "RS1", "HS256", "HS384", "none",
];

/// A server whose client `all` owns every credential there is.
struct World {
    server: Server,
    secret: String,
    ec: Signer,
    ec384: Signer,
    ed: Signer,
    rsa: Signer,
    /// Not registered, since it cannot be: it signs as its algorithm asks for.
    other: Signer,
    ours: Ca,
    own: Identity,
}

impl World {
    async fn new(db: Db, change: impl FnOnce(&mut Setup, &Ca)) -> Self {
        let mut setup = Setup::new(db).await;
        let (ours, own) = (ca("ours"), self_signed("own"));
        setup.settings.server.trusted_proxies = vec!["10.0.0.0/8".into()];
        change(&mut setup, &ours);
        let secret = setup.client(client("all")).await;
        let (ec, ed) = (Signer::es256().named("ec"), Signer::ed25519().named("ed"));
        let (ec384, rsa) = (Signer::es384().named("ec384"), Signer::any_rsa().named("rsa"));
        let keys = [&ec, &ec384, &ed, &rsa].map(Signer::stored);
        setup.store.add_client_keys("all", &keys).await.unwrap();
        let hash = Certificate::parse(&own.chain()[0]).unwrap().x5t_s256();
        for (kind, value) in [("subject_dn", "CN=svc"), ("self_signed", &hash)] {
            register(&setup.store, "all", kind, value).await.unwrap();
        }
        Self { server: setup.start().await, secret, ec, ec384, ed, rsa, other: Signer::es512(), ours, own }
    }

    /// Asks at an endpoint from behind the proxy, where certificates come in a header.
    async fn ask(&self, path: &str, fields: &[(&str, &str)], credential: &str) -> Answer {
        let caller = Caller { address: ([10, 1, 2, 3], 4711).into(), certificate: None };
        let body = format!("grant_type=client_credentials&token=x&{credential}");
        self.server.send_by(&caller, form(path, fields, body)).await
    }

    /// Authenticates by a method, all of it being right. At the token endpoint with a proof, as the profile asks for.
    async fn by_method(&self, path: &str, method: &str) -> Answer {
        let (authorization, proof) = (basic("all", &self.secret), self.ec.proof_by("ES256"));
        let shown = |identity: &Identity| format!(":{}:", BASE64_STANDARD.encode(&identity.chain()[0]));
        let certificate = match method {
            "tls_client_auth" => shown(&self.ours.issue(&named("svc"))),
            "self_signed_tls_client_auth" => shown(&self.own),
            _ => String::new(),
        };
        let credential = match method {
            "client_secret_basic" => String::new(),
            "client_secret_post" => format!("client_id=all&client_secret={}", self.secret),
            "private_key_jwt" => assertion(&self.ec.fresh("all")),
            "client_secret_jwt" => assertion(&mac("HS256", self.secret.as_bytes(), &claims("all"))),
            _ => "client_id=all".to_owned(),
        };
        let mut fields = Vec::new();
        if path == "/token" {
            fields.push(("dpop", &*proof));
        }
        if method == "client_secret_basic" {
            fields.push(("authorization", &*authorization));
        }
        if !certificate.is_empty() {
            fields.push(("client-cert", &*certificate));
        }
        self.ask(path, &fields, &credential).await
    }

    /// The signer whose key comes nearest to an algorithm.
    fn signer(&self, alg: &str) -> &Signer {
        match alg {
            "EdDSA" | "Ed25519" | "Ed448" => &self.ed,
            "ES384" => &self.ec384,
            "ES512" => &self.other,
            _ if alg.starts_with("PS") || alg.starts_with("RS") => &self.rsa,
            _ => &self.ec,
        }
    }

    /// An assertion by an algorithm, as right as there can be one.
    fn asserted(&self, alg: &str) -> String {
        let signer = self.signer(alg);
        let header = json!({"alg": alg, "kid": signer.kid}).to_string();
        match alg {
            "HS256" | "HS384" => mac(alg, self.secret.as_bytes(), &claims("all")),
            "none" => {
                [header, claims("all").to_string()].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part) + ".").concat()
            }
            _ => signer.sign_by(alg, &header, &claims("all").to_string()),
        }
    }
}

fn assertion(jwt: &str) -> String {
    format!("client_assertion_type={TYPE}&client_assertion={jwt}")
}

/// The values that a member of the metadata lists, each of which these tests know.
fn listed<'a>(metadata: &'a Value, name: &str, known: &[&str]) -> Vec<&'a str> {
    let listed: Vec<&str> = metadata[name]
        .as_array()
        .unwrap_or_else(|| panic!("no {name}"))
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    assert!(listed.iter().all(|one| known.contains(one)), "{name} lists what nobody tests: {listed:?}");
    listed
}

#[track_caller]
fn is(answer: &Answer, works: bool, code: &str, what: &str) {
    if works {
        assert_eq!(answer.status, StatusCode::OK, "{what} is listed: {}", answer.body);
    } else {
        assert!(answer.status.is_client_error(), "{what} is not listed: {}", answer.status);
        assert_eq!(answer.json()["error"], code, "{what} is not listed: {}", answer.body);
    }
}

/// Tries everything, and returns how many methods and algorithms of the token endpoint and of proofs worked.
async fn keeps_its_promises(world: &World) -> [usize; 3] {
    let metadata = world.server.get("/.well-known/oauth-authorization-server").await.json();
    for (name, path) in [("token", "/token"), ("introspection", "/introspect"), ("revocation", "/revoke")] {
        let methods = listed(&metadata, &format!("{name}_endpoint_auth_methods_supported"), &METHODS);
        for method in METHODS {
            let answer = world.by_method(path, method).await;
            is(&answer, methods.contains(&method), "invalid_client", &format!("{method} at {path}"));
        }
        let algs = listed(&metadata, &format!("{name}_endpoint_auth_signing_alg_values_supported"), &ALGS);
        for alg in ALGS {
            let proof = world.ec.proof_by("ES256");
            let fields = [("dpop", &*proof)];
            let fields = if path == "/token" { &fields[..] } else { &[] };
            let answer = world.ask(path, fields, &assertion(&world.asserted(alg))).await;
            is(&answer, algs.contains(&alg), "invalid_client", &format!("an assertion by {alg} at {path}"));
        }
    }
    let of_proofs = listed(&metadata, "dpop_signing_alg_values_supported", &ALGS);
    for alg in ALGS {
        let proof = match alg {
            "none" => world.ec.proof_by("none").rsplit_once('.').unwrap().0.to_owned() + ".",
            _ => world.signer(alg).proof_by(alg),
        };
        let answer = world.ask("/token", &[("dpop", &proof)], &assertion(&world.ec.fresh("all"))).await;
        is(&answer, of_proofs.contains(&alg), "invalid_dpop_proof", &format!("a proof by {alg}"));
    }
    let of_tokens = |name: &str| metadata[format!("token_endpoint_auth_{name}_supported")].as_array().unwrap().len();
    [of_tokens("methods"), of_tokens("signing_alg_values"), of_proofs.len()]
}

async fn the_metadata_keeps_its_promises_without_mutual_tls(db: Db) {
    let world = World::new(db, |_, _| ()).await;
    assert_eq!(keeps_its_promises(&world).await, [3, 10, 10]);
}

fn with_mutual_tls(setup: &mut Setup, ours: &Ca) {
    setup.settings.server.mtls.client_ca_file = setup.db.file("ca.pem", &ours.pem);
    setup.settings.server.client_cert_header = true;
}

async fn the_metadata_keeps_its_promises_with_mutual_tls(db: Db) {
    let world = World::new(db, with_mutual_tls).await;
    assert_eq!(keeps_its_promises(&world).await, [5, 10, 10]);
}

async fn the_metadata_keeps_its_promises_with_the_fapi2_profile(db: Db) {
    let world = World::new(db, |setup, ours| {
        with_mutual_tls(setup, ours);
        setup.settings.profile = "fapi2".into();
        setup.settings.server.cleartext = "behind-proxy".into();
    })
    .await;
    assert_eq!(keeps_its_promises(&world).await, [3, 4, 4]);
}
