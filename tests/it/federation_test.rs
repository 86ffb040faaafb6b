//! `grantd federation test`: which rule matches a token, or which condition fails.

use grantd::model::time::Clock;
use serde_json::{Value, json};

use crate::assertion::Signer;
use crate::harness::Db;
use crate::issuer_host::{self, AUDIENCE, IssuerHost};
use crate::platforms::with;
use crate::process::daemon::{Done, Grantd};

on_both!(golden_tokens_find_their_rule, each_wrong_token_is_explained, a_test_needs_no_more_than_the_token,);

const GKE: &str = "https://container.googleapis.com/v1/projects/acme/locations/europe-west1/clusters/main";

/// A registry with a client for each platform, and what signs the tokens.
struct World {
    grantd: Grantd,
    platform: IssuerHost,
    signer: Signer,
}

impl World {
    async fn new(db: &Db) -> Self {
        let world = Self {
            grantd: issuer_host::grantd(db),
            platform: IssuerHost::start().await,
            signer: Signer::rsa("RS256").named("k1"),
        };
        world.grantd.ok(&["migrate"]).await;
        let bundle = json!({"keys": [world.svid_key()], "spiffe_sequence": 1});
        world.platform.serves("/bundle", &bundle);
        for (path, kind) in
            [("", "github"), ("/gitlab", "gitlab"), ("/eks", "kubernetes"), ("/aks/", "kubernetes"), ("/idp", "oidc")]
        {
            world.platform.publishes(path, &[&world.signer]);
            world.grantd.ok(&["trusted-issuer", "create", &world.platform.url(path), "--kind", kind]).await;
        }
        let set = db.file("keys.json", &json!({"keys": [world.signer.jwk()]}).to_string());
        let pinned = ["trusted-issuer", "create", GKE, "--kind", "kubernetes", "--jwks", set.to_str().unwrap()];
        world.grantd.ok(&pinned).await;
        let bundle = world.platform.url("/bundle");
        world
            .grantd
            .ok(&["trusted-issuer", "create", "spiffe://td.test", "--kind", "spiffe", "--bundle-uri", &bundle])
            .await;
        for id in [
            "deploy",
            "any-branch",
            "release",
            "ci",
            "billing",
            "reporting",
            "workload",
            "disabled",
            "past",
            "one",
            "two",
        ] {
            let scope = ["client", "create", id, "--scope", "a b", "--default-scope", "a", "--no-secret"];
            world.grantd.ok(&scope).await;
        }
        let pins = ["--claim", "repository_id=815", "--claim", "repository_owner_id=4711"];
        let main = "repo:acme/app:ref:refs/heads/main";
        let of_gitlab = ["--claim", "project_id=22", "--claim", "namespace_id=72", "--claim", "ref_protected=true"];
        let pod = [r#"--claim-json=kubernetes.io={"serviceaccount":{"uid":"14ee"}}"#];
        world.rule("deploy", "", main, &[&pins[..], &["--label", "branch main"]].concat()).await;
        world
            .rule("any-branch", "", "repo:acme@4711/*", &[&pins[..], &["--claim", "ref=refs/heads/main"]].concat())
            .await;
        world
            .rule(
                "release",
                "",
                "repo:acme/app:environment:production",
                &[&pins[..], &["--claim", "environment=production"]].concat(),
            )
            .await;
        world.rule("ci", "/gitlab", "project_path:acme/app:*", &of_gitlab).await;
        for path in ["/eks", "/aks/"] {
            world.rule("billing", path, "system:serviceaccount:pay:billing", &pod).await;
        }
        world.add("billing", GKE, "system:serviceaccount:pay:billing", &pod).await;
        world.rule("reporting", "/idp", "svc|9", &[]).await;
        world.rule("disabled", "/idp", "service-disabled", &[]).await;
        world.rule("past", "/idp", "service-past", &["--expires-in", "1s"]).await;
        world.rule("one", "/idp", "service-shared", &[]).await;
        world.rule("two", "/idp", "service-shared", &[]).await;
        world.add("workload", "spiffe://td.test", "spiffe://td.test/ns/pay/*", &[]).await;
        world.grantd.ok(&["client", "disable", "disabled"]).await;
        world
    }

    fn svid_key(&self) -> Value {
        let mut key = self.signer.jwk();
        key["use"] = "jwt-svid".into();
        key
    }

    async fn rule(&self, client: &str, path: &str, subject: &str, more: &[&str]) {
        self.add(client, &self.platform.url(path), subject, more).await;
    }

    async fn add(&self, client: &str, issuer: &str, subject: &str, more: &[&str]) {
        let base = ["client", "federation", "add", client, "--issuer", issuer, "--subject", subject];
        self.grantd.ok(&[&base[..], more].concat()).await;
    }

    fn sign(&self, claims: &Value) -> String {
        self.signer.sign(&self.signer.header().to_string(), &claims.to_string())
    }

    async fn test(&self, token: &str, more: &[&str]) -> Done {
        let arguments = [&["federation", "test"], more].concat();
        self.grantd.run_with_input(&arguments, &format!("{token}\n")).await
    }

    /// Asserts that a token is of a client.
    async fn matches(&self, claims: &Value, client: &str) {
        let done = self.test(&self.sign(claims), &["--json"]).await;
        assert_eq!(done.status.code(), Some(0), "{claims}: {done:?}");
        let found: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(
            (&found["accepted"], &found["client_id"], &found["scope"]),
            (&true.into(), &client.into(), &"a".into())
        );
    }
}

fn but(claims: &Value, changes: &Value) -> Value {
    with(claims.clone(), changes)
}

async fn golden_tokens_find_their_rule(db: Db) {
    let world = World::new(&db).await;
    let url = |path: &str| world.platform.url(path);
    let github = |sub: &str| issuer_host::github(&url(""), sub);
    world.matches(&github("repo:acme/app:ref:refs/heads/main"), "deploy").await;
    world.matches(&github("repo:acme@4711/app@815:ref:refs/heads/main"), "any-branch").await;
    let environment = but(&github("repo:acme/app:environment:production"), &json!({"environment": "production"}));
    world.matches(&environment, "release").await;
    world.matches(&issuer_host::gitlab(&url("/gitlab")), "ci").await;
    for issuer in [url("/eks"), url("/aks/"), GKE.to_owned()] {
        world.matches(&issuer_host::service_account(&issuer), "billing").await;
    }
    world.matches(&issuer_host::oidc(&url("/idp")), "reporting").await;
    world.matches(&issuer_host::jwt_svid("spiffe://td.test/ns/pay/billing"), "workload").await;
    // No iat is required of an SVID, and no use is made of an iss.
    let bare =
        but(&issuer_host::jwt_svid("spiffe://td.test/ns/pay/billing"), &json!({"iat": null, "iss": "https://x.test"}));
    world.matches(&bare, "workload").await;
    // A token that was meant for one client by its client_id.
    let shared = but(&issuer_host::oidc(&url("/idp")), &json!({"sub": "service-shared"}));
    let done = world.test(&world.sign(&shared), &["--client", "two"]).await;
    assert!(done.status.success() && done.stdout.contains("client   two"), "{done:?}");
}

async fn each_wrong_token_is_explained(db: Db) {
    let world = World::new(&db).await;
    let url = |path: &str| world.platform.url(path);
    let now = Clock::System.now().0;
    let good = issuer_host::github(&url(""), "repo:acme/app:ref:refs/heads/main");
    let (idp, gitlab, pod) = (
        issuer_host::oidc(&url("/idp")),
        issuer_host::gitlab(&url("/gitlab")),
        issuer_host::service_account(&url("/eks")),
    );
    let svid = issuer_host::jwt_svid("spiffe://td.test/ns/pay/billing");
    let signed = |claims: &Value, changes: Value| world.sign(&but(claims, &changes));
    let headed = |header: Value| world.signer.sign(&header.to_string(), &good.to_string());
    let stranger = Signer::rsa("RS256").named("k1");
    let forged = stranger.sign(&stranger.header().to_string(), &good.to_string());
    let altered = {
        let (mine, other) = (world.sign(&good), world.sign(&but(&good, &json!({"repository_id": "75"}))));
        let parts: Vec<&str> = mine.split('.').collect();
        format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2])
    };
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let wrong: Vec<(&str, String, &str, Vec<String>)> = vec![
        ("no JWT", "x.y".into(), "jws_malformed", vec!["compact".into()]),
        ("alg none", headed(json!({"alg": "none"})), "jws_alg", vec!["alg is not one of".into()]),
        (
            "access token",
            headed(json!({"alg": "RS256", "kid": "k1", "typ": "at+jwt"})),
            "jws_typ",
            vec!["typ names another kind".into()],
        ),
        ("another typ", headed(json!({"alg": "RS256", "kid": "k1", "typ": "x+jwt"})), "jws_typ", vec!["typ".into()]),
        (
            "unknown issuer",
            signed(&good, json!({"iss": "https://evil.test"})),
            "federation_issuer",
            vec!["https://evil.test".into()],
        ),
        ("a slash more", signed(&good, json!({"iss": url("/")})), "federation_issuer", vec![url("/")]),
        (
            "unknown kid",
            headed(json!({"alg": "RS256", "kid": "k9"})),
            "jws_key",
            vec!["kid is k9".into(), "are k1".into()],
        ),
        ("signed by another", forged, "jws_signature", vec!["kid is k1".into(), "does not verify".into()]),
        ("altered", altered, "jws_signature", vec!["does not verify".into()]),
        (
            "aud of another",
            signed(&good, json!({"aud": "https://other.test"})),
            "federation_audience",
            vec!["https://other.test".into(), AUDIENCE.into()],
        ),
        (
            "two values of aud",
            signed(&good, json!({"aud": [AUDIENCE, AUDIENCE]})),
            "federation_audience",
            vec!["alone".into()],
        ),
        ("no aud", signed(&good, json!({"aud": null})), "federation_audience", vec!["missing".into()]),
        (
            "expired",
            signed(&good, json!({"exp": now - 60, "iat": now - 600})),
            "assertion_expired",
            vec!["exp is 2".into(), "it is 2".into()],
        ),
        ("no exp", signed(&good, json!({"exp": null})), "assertion_incomplete", vec!["exp".into()]),
        (
            "from the future",
            signed(&good, json!({"iat": now + 300, "exp": now + 600})),
            "assertion_early",
            vec!["iat is 2".into()],
        ),
        ("lives too long", signed(&good, json!({"exp": now + 7_200})), "federation_lifetime", vec!["3600".into()]),
        ("no jti", signed(&good, json!({"jti": null})), "assertion_incomplete", vec!["jti".into()]),
        ("no sub", signed(&good, json!({"sub": null})), "assertion_incomplete", vec!["sub".into()]),
        (
            "another branch",
            signed(&good, json!({"sub": "repo:acme/app:ref:refs/heads/x"})),
            "federation_subject",
            vec!["wants repo:acme/app:ref:refs/heads/main, the token has repo:acme/app:ref:refs/heads/x".into()],
        ),
        (
            "a name that begins alike",
            signed(&good, json!({"sub": "repo:acme@4711-evil/app:ref:refs/heads/main"})),
            "federation_subject",
            vec!["wants repo:acme@4711/*".into()],
        ),
        (
            "another repository of the name",
            signed(&good, json!({"repository_id": "75"})),
            "federation_claims",
            vec![r#"claim repository_id: the rule wants "815", the token has "75""#.into()],
        ),
        (
            "a number for a string",
            signed(&good, json!({"repository_id": 815})),
            "federation_claims",
            vec![r#"wants "815", the token has 815"#.into()],
        ),
        (
            "no environment",
            signed(&good, json!({"sub": "repo:acme/app:environment:production"})),
            "federation_claims",
            vec![r#"wants "production", the token has none"#.into()],
        ),
        (
            "pull_request_target",
            signed(&good, json!({"event_name": "pull_request_target"})),
            "federation_claims",
            vec!["event_name".into(), "pull_request_target".into()],
        ),
        (
            "merge request of a fork",
            world.sign(&issuer_host::gitlab_fork(&url("/gitlab"))),
            "federation_subject",
            vec!["mallory".into()],
        ),
        (
            "unprotected branch",
            signed(&gitlab, json!({"ref_protected": "false"})),
            "federation_claims",
            vec![r#"wants "true", the token has "false""#.into()],
        ),
        (
            "service account made again",
            signed(&pod, json!({"kubernetes.io": {"serviceaccount": {"uid": "1a2b"}}})),
            "federation_claims",
            vec![r#"claim kubernetes.io.serviceaccount.uid: the rule wants "14ee", the token has "1a2b""#.into()],
        ),
        (
            "rule that is over",
            signed(&idp, json!({"sub": "service-past"})),
            "federation_rule_expired",
            vec!["expired at".into()],
        ),
        (
            "two clients",
            signed(&idp, json!({"sub": "service-shared"})),
            "federation_ambiguous",
            vec!["one, two".into()],
        ),
        (
            "disabled client",
            signed(&idp, json!({"sub": "service-disabled"})),
            "client_disabled",
            vec!["client disabled".into(), "of client disabled".into()],
        ),
        ("a client id as sub", signed(&idp, json!({"sub": "deploy"})), "federation_subject", vec!["deploy".into()]),
        (
            "another trust domain",
            signed(&svid, json!({"sub": "spiffe://evil.test/ns/pay/billing"})),
            "federation_issuer",
            vec!["spiffe://evil.test".into()],
        ),
        (
            "a path that begins alike",
            signed(&svid, json!({"sub": "spiffe://td.test/ns/payroll"})),
            "federation_subject",
            vec!["wants spiffe://td.test/ns/pay/*, the token has spiffe://td.test/ns/payroll".into()],
        ),
        (
            "no SPIFFE ID",
            signed(&svid, json!({"sub": "spiffe://td.test/../x"})),
            "federation_subject",
            vec!["spiffe://td.test/../x".into()],
        ),
    ];
    for (what, token, reason, parts) in wrong {
        let done = world.test(&token, &[]).await;
        assert_eq!(done.status.code(), Some(1), "{what}: {done:?}");
        assert!(done.stdout.contains(&format!("reason   {reason}\n")), "{what}: {reason}: {done:?}");
        assert!(done.stderr.contains(reason), "{what}: {done:?}");
        for part in parts {
            assert!(done.stdout.contains(&part), "{what}: {part}: {}", done.stdout);
        }
        let json: Value = serde_json::from_str(&world.test(&token, &["--json"]).await.stdout).unwrap();
        assert_eq!((&json["accepted"], &json["reason"]), (&false.into(), &reason.into()), "{what}");
    }

    // An issuer that is disabled, whose host is away, or whose kind makes the rule unsafe.
    let token = world.sign(&good);
    world.grantd.ok(&["trusted-issuer", "disable", &url("")]).await;
    let done = world.test(&token, &[]).await;
    assert!(done.stdout.contains("it is disabled") && done.stdout.contains("reason   federation_issuer"), "{done:?}");
    world.grantd.ok(&["trusted-issuer", "enable", &url("")]).await;
    world.platform.serves("/keys", &json!({"keys": []}));
    let done = world.test(&token, &[]).await;
    assert!(done.stdout.contains("reason   federation_keys_unavailable"), "{done:?}");
    world.platform.publishes("", &[&world.signer]);
    db.sql(&format!("update trusted_issuer set kind = 'kubernetes' where issuer = '{}'", url(""))).await.unwrap();
    let done = world.test(&token, &[]).await;
    assert!(done.stdout.contains("reason   federation_pin"), "{done:?}");
}

async fn a_test_needs_no_more_than_the_token(db: Db) {
    let world = World::new(&db).await;
    let token = world.sign(&issuer_host::oidc(&world.platform.url("/idp")));
    // Testing spends nothing, and needs no right to write.
    for _ in 0..2 {
        assert!(world.test(&token, &[]).await.status.success());
    }
    // At another time.
    let now = Clock::System.now().0;
    for at in [format!("{}", now + 3_600), grantd::model::time::UnixTime(now + 3_600).to_string()] {
        let done = world.test(&token, &["--at", &at]).await;
        assert!(done.stdout.contains("reason   assertion_expired"), "{done:?}");
    }
    assert_eq!(world.test(&token, &["--at", "tomorrow"]).await.status.code(), Some(2));
    let done = world.test(&token, &["--client", "deploy"]).await;
    assert!(done.stdout.contains("reason   federation_subject"), "{done:?}");
    let done = world.test(&token, &["--client", "nobody"]).await;
    assert!(done.stderr.contains("there is no client nobody"), "{done:?}");
    // What the client itself may not do.
    world.grantd.ok(&["client", "set", "reporting", "--auth-methods", "client_secret_basic"]).await;
    let done = world.test(&token, &[]).await;
    assert!(done.stdout.contains("reason   auth_method_not_allowed"), "{done:?}");
    world.grantd.ok(&["client", "set", "reporting", "--any-auth-method", "--grant-types", ""]).await;
    let done = world.test(&token, &[]).await;
    assert!(done.stdout.contains("reason   grant_not_allowed"), "{done:?}");
    // A token for the token endpoint is one for the grant.
    world
        .grantd
        .ok(&["client", "set", "reporting", "--grant-types", "urn:ietf:params:oauth:grant-type:jwt-bearer"])
        .await;
    let for_endpoint =
        but(&issuer_host::oidc(&world.platform.url("/idp")), &json!({"aud": format!("{AUDIENCE}/token")}));
    let done = world.test(&world.sign(&for_endpoint), &[]).await;
    assert!(done.status.success() && done.stdout.contains("the grant jwt-bearer alone"), "{done:?}");
    let fapi = world.grantd.with("GRANTD__PROFILE", "fapi2").with("GRANTD__ISSUER", "https://as.test");
    let fapi = fapi.with("GRANTD__SERVER__CLEARTEXT", "behind-proxy");
    let done = fapi.run_with_input(&["federation", "test"], &token).await;
    assert!(done.stdout.contains("the profile does not permit"), "{done:?}");
}
