//! Platforms whose workloads show an identity token: their tokens in the shapes of 2026, issuers and rules for them.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::crypto::random_id;
use grantd::http::log::TokenLabels;
use grantd::model::client::AuthMethod;
use grantd::model::federation::kind::IssuerKind;
use grantd::model::federation::rule::FederationRule;
use grantd::model::federation::trusted_issuer::{IssuerColumns, TrustedIssuer};
use grantd::model::time::UnixTime;
use grantd::store::Store;
use serde_json::{Value, json};

use crate::assertion::Signer;
use crate::harness::{Answer, ISS, Server, Setup, client};

pub const GITHUB: &str = "https://token.actions.githubusercontent.com";
pub const GITLAB: &str = "https://gitlab.example";
pub const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
pub const EKS: &str = "https://oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E";
pub const AKS: &str = "https://germanywestcentral.oic.prod-aks.azure.com/6babcaad-604b-40ac-a9d7-9fd97c0b779f/";
pub const GKE: &str = "https://container.googleapis.com/v1/projects/acme/locations/europe-west3/clusters/prod";
pub const OIDC: &str = "https://login.example/tenant";

/// The present second of servers with a fixed clock.
pub const NOW: i64 = 1_800_000_000;

pub fn jti() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random_id().unwrap())
}

/// Claims of a job on GitHub, with the `sub` that GitHub gives since July 2026.
pub fn github(now: i64) -> Value {
    json!({
        "iss": GITHUB, "aud": ISS, "sub": "repo:acme@4711/app@815:ref:refs/heads/main",
        "repository": "acme/app", "repository_id": "815", "repository_owner": "acme", "repository_owner_id": "4711",
        "ref": "refs/heads/main", "ref_protected": "true", "ref_type": "branch", "event_name": "push",
        "job_workflow_ref": "acme/app/.github/workflows/deploy.yml@refs/heads/main", "run_id": "1", "run_attempt": "1",
        "jti": jti(), "iat": now, "nbf": now - 300, "exp": now + 300,
    })
}

/// Claims of a job on GitLab.
pub fn gitlab(now: i64) -> Value {
    json!({
        "iss": GITLAB, "aud": ISS, "sub": "project_path:acme/app:ref_type:branch:ref:main",
        "project_id": "22", "namespace_id": "72", "project_path": "acme/app", "namespace_path": "acme", "ref": "main",
        "ref_type": "branch", "ref_protected": "true", "pipeline_source": "push", "environment": "prod",
        "jti": jti(), "iat": now, "nbf": now - 5, "exp": now + 3600,
    })
}

/// Claims of a projected service account token.
pub fn kubernetes(issuer: &str, now: i64) -> Value {
    json!({
        "iss": issuer, "aud": [ISS], "sub": "system:serviceaccount:pay:billing",
        "kubernetes.io": {
            "namespace": "pay",
            "node": {"name": "n1", "uid": "9c3e"},
            "pod": {"name": "billing-6d8", "uid": "5e8d"},
            "serviceaccount": {"name": "billing", "uid": "14ee"},
        },
        "iat": now, "nbf": now, "exp": now + 3600,
    })
}

/// Claims of an access token or ID token of an OpenID provider for a service.
pub fn oidc(now: i64) -> Value {
    json!({"iss": OIDC, "aud": ISS, "sub": "svc|9", "jti": jti(), "iat": now, "exp": now + 300, "azp": "x"})
}

/// Claims with some changed; null removes one.
pub fn with(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

/// An issuer whose keys are pinned.
pub fn pinned(issuer: &str, kind: IssuerKind, signers: &[&Signer]) -> TrustedIssuer {
    let key_use = if kind == IssuerKind::Spiffe { "jwt-svid" } else { "sig" };
    let keys: Vec<Value> = signers.iter().map(|signer| with(signer.jwk(), &json!({"use": key_use}))).collect();
    let jwks = json!({ "keys": keys }).to_string();
    columns(issuer, kind, |columns| IssuerColumns { jwks: Some(&jwks), ..columns })
}

pub fn columns<'a>(
    issuer: &'a str,
    kind: IssuerKind,
    change: impl FnOnce(IssuerColumns<'a>) -> IssuerColumns<'a>,
) -> TrustedIssuer {
    let plain =
        IssuerColumns { issuer, kind, jwks_uri: None, jwks: None, bundle_uri: None, audience: None, ca_pem: None };
    TrustedIssuer::new(change(plain), UnixTime(1)).unwrap()
}

pub fn rule(rule_id: &str, issuer: &str, subject: &str, claims: &Value) -> FederationRule {
    FederationRule {
        rule_id: rule_id.into(),
        issuer: issuer.into(),
        subject: subject.parse().unwrap(),
        claims: claims.to_string().parse().unwrap(),
        created_at: UnixTime(1),
        expires_at: None,
        used: std::sync::Arc::default(),
    }
}

/// Registers a client that may use both doors, with one rule.
pub async fn federated(store: &Store, id: &str, issuer: &str, subject: &str, claims: &Value) {
    let mut client = client(id);
    client.jwt_bearer = true;
    store.create_client(&client, None).await.unwrap();
    store.add_federation_rule(id, &rule(&format!("rule-of-{id}"), issuer, subject, claims), "").await.unwrap();
}

/// A server with one issuer of each platform, which `signer` signs for, and a client for each.
pub async fn platforms(setup: Setup, signer: &Signer) -> Server {
    let store = &setup.store;
    for (issuer, kind) in [
        (GITHUB, IssuerKind::Github),
        (GITLAB, IssuerKind::Gitlab),
        (CLUSTER, IssuerKind::Kubernetes),
        (AKS, IssuerKind::Kubernetes),
        (OIDC, IssuerKind::Oidc),
    ] {
        store.create_trusted_issuer(&pinned(issuer, kind, &[signer])).await.unwrap();
    }
    let of_github = json!({"repository_id": "815", "repository_owner_id": "4711"});
    federated(store, "github", GITHUB, "repo:acme@4711/app@815:*", &of_github).await;
    federated(store, "gitlab", GITLAB, "project_path:acme/app:*", &json!({"project_id": "22", "namespace_id": "72"}))
        .await;
    let in_pay = json!({"kubernetes.io": {"namespace": "pay"}});
    federated(store, "cluster", CLUSTER, "system:serviceaccount:pay:billing", &in_pay).await;
    federated(store, "aks", AKS, "system:serviceaccount:pay:billing", &json!({})).await;
    federated(store, "oidc", OIDC, "svc|9", &json!({})).await;
    setup.start().await
}

pub const SVID: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
pub const GRANT: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";

/// Asks by the grant `jwt-bearer`.
pub async fn ask_by_grant(server: &Server, assertion: &str, form: &str) -> Answer {
    server.post(&[], format!("{GRANT}&assertion={assertion}{form}")).await
}

/// The number of token requests that were refused for a reason.
pub fn refused(server: &Server, reason: &'static str) -> u64 {
    let methods = AuthMethod::ALL.map(AuthMethod::as_str);
    let labels = |method| TokenLabels { result: "refused", reason, method };
    let count = |method| server.counts.token_requests.get_or_create(&labels(method)).get();
    methods.into_iter().chain(["none"]).map(count).sum()
}
