//! Administration of trusted issuers and of rules, by the command line.

use std::time::Duration;

use serde_json::{Value, json};

use crate::assertion::{Signer, TYPE};
use crate::harness::Db;
use crate::issuer_host::{self, IssuerHost, ca_pem};
use crate::process::daemon::{Daemon, Done, Grantd, eventually};

on_both!(
    an_issuer_is_registered_once_its_documents_were_read,
    an_issuer_is_changed_disabled_and_deleted,
    rules_pin_what_their_kind_demands,
    a_sample_token_becomes_a_command,
    doctor_gives_advice_about_rules,
    doctor_names_issuers_whose_keys_the_running_server_lacks,
    the_log_names_each_issuer_that_changes,
);

const GITHUB: &str = "https://token.actions.githubusercontent.com";

async fn refused(grantd: &Grantd, arguments: &[&str], code: i32, part: &str) -> Done {
    let done = grantd.run(arguments).await;
    assert_eq!(done.status.code(), Some(code), "{arguments:?}: {done:?}");
    assert!(done.stderr.contains(part) && done.stdout.is_empty(), "{arguments:?}: {done:?}");
    done
}

async fn issuers(grantd: &Grantd) -> Vec<Value> {
    grantd.json(&["trusted-issuer", "list", "--json"]).await.as_array().unwrap().clone()
}

async fn an_issuer_is_registered_once_its_documents_were_read(db: Db) {
    let grantd = issuer_host::grantd(&db);
    grantd.ok(&["migrate"]).await;
    let (platform, signer) = (IssuerHost::start().await, Signer::es256().named("k1"));
    let create = |issuer: &str| ["trusted-issuer", "create", issuer, "--kind", "oidc"].map(str::to_owned);
    let url = platform.url("");
    let arguments = create(&url);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();

    refused(&grantd, &arguments, 1, "/.well-known/openid-configuration: status 404").await;
    platform.publishes("", &[]);
    refused(&grantd, &arguments, 1, "/keys: no usable key").await;
    platform.publishes("", &[&signer]);
    let discovery = json!({"issuer": format!("{url}/"), "jwks_uri": platform.url("/keys")});
    platform.serves("/.well-known/openid-configuration", &discovery);
    refused(&grantd, &arguments, 1, "its issuer is").await;
    assert_eq!(issuers(&grantd).await, [] as [Value; 0], "nothing is stored");

    platform.publishes("", &[&signer]);
    let created = grantd.ok(&arguments).await;
    assert!(created.stdout.contains("1 key: k1 (ES256)"), "{}", created.stdout);
    let [listed] = issuers(&grantd).await.try_into().unwrap();
    assert!(listed["created_at"].as_i64() > Some(1_700_000_000));
    let expected = json!({
        "issuer": url, "kind": "oidc", "enabled": true, "created_at": listed["created_at"], "jwks_uri": null,
        "jwks": null, "bundle_uri": null, "audience": null, "max_lifetime": null, "ca_pem": null, "rules": 0,
    });
    assert_eq!(listed, expected);
    assert_eq!(grantd.json(&["trusted-issuer", "show", &url, "--json"]).await, expected);
    refused(&grantd, &arguments, 1, "already exists").await;

    // The final slash of an AKS issuer counts in the name, and not in the URL of its document.
    let slashed = platform.url("/tenant/cluster/");
    platform.publishes("/tenant/cluster/", &[&signer]);
    let with_options = [
        "trusted-issuer",
        "create",
        &slashed,
        "--kind",
        "kubernetes",
        "--audience",
        "grantd",
        "--max-lifetime",
        "24h",
        "--json",
    ];
    let created = grantd.json(&with_options).await;
    assert_eq!((&created["audience"], &created["max_lifetime"]), (&"grantd".into(), &86_400.into()));
    assert_eq!(created["found"]["keys"], json!([{"kid": "k1", "algs": ["ES256"]}]));

    // Nothing is fetched from there.
    let asked = platform.asked();
    grantd.ok(&["trusted-issuer", "create", GITHUB, "--kind", "github", "--offline"]).await;
    let set = db.file("keys.json", &json!({"keys": [signer.jwk()]}).to_string());
    let pinned = ["trusted-issuer", "create", "https://cluster.internal", "--kind", "kubernetes", "--jwks"];
    let pinned = grantd.json(&[&pinned[..], &[set.to_str().unwrap(), "--json"]].concat()).await;
    assert_eq!(pinned["jwks"]["keys"][0]["kid"], "k1");
    assert_eq!(platform.asked(), asked);

    let private = db.file("private.json", r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AA"}]}"#);
    let key = db.file("key.pem", &format!("{}-----BEGIN PRIVATE KEY-----\n", ca_pem()));
    let plain = [("http://i.test", "https URL"), ("https://i.test?x=1", "https URL"), ("i.test", "https URL")];
    for (issuer, part) in plain {
        refused(&grantd, &["trusted-issuer", "create", issuer, "--kind", "oidc", "--offline"], 1, part).await;
    }
    let own = grantd.with("GRANTD__ISSUER", "https://as.test");
    for issuer in ["https://as.test", "https://as.test/"] {
        let arguments = ["trusted-issuer", "create", issuer, "--kind", "oidc", "--offline"];
        refused(&own, &arguments, 1, "the issuer of this server").await;
    }
    let base = |kind| ["trusted-issuer", "create", "https://i.test", "--offline", "--kind", kind];
    for (kind, more, code, part) in [
        ("azure", &[][..], 2, "github, gitlab, kubernetes, spiffe, oidc"),
        ("oidc", &["--jwks", private.to_str().unwrap()], 1, "private"),
        ("oidc", &["--ca-file", key.to_str().unwrap()], 1, "private key"),
        ("oidc", &["--ca-file", set.to_str().unwrap()], 1, "no certificate in PEM"),
        ("oidc", &["--max-lifetime", "25h"], 2, "from 1m to 24h"),
        ("oidc", &["--jwks-uri", "https://i.test/k", "--jwks", "x"], 2, "cannot be used with"),
        ("oidc", &["--bundle-uri", "https://i.test/b"], 1, "bundle_uri"),
        ("spiffe", &[], 1, "trust domain"),
    ] {
        refused(&grantd, &[&base(kind)[..], more].concat(), code, part).await;
    }
    assert_eq!(issuers(&grantd).await.len(), 4);
}

async fn an_issuer_is_changed_disabled_and_deleted(db: Db) {
    let grantd = issuer_host::grantd(&db);
    grantd.ok(&["migrate"]).await;
    let (platform, signer) = (IssuerHost::start().await, Signer::es256().named("k1"));
    platform.publishes("", &[&signer]);
    let url = platform.url("");
    let run = async |arguments: &[&str]| grantd.ok(&[&["trusted-issuer"], arguments].concat()).await.stderr;
    run(&["create", &url, "--kind", "oidc"]).await;
    let show = async || grantd.json(&["trusted-issuer", "show", &url, "--json"]).await;

    assert!(run(&["set", &url, "--audience", "api", "--max-lifetime", "10m"]).await.contains("is changed"));
    assert!(run(&["set", &url, "--audience", "api"]).await.contains("nothing changed"));
    assert_eq!((&show().await["audience"], &show().await["max_lifetime"]), (&"api".into(), &600.into()));
    run(&["set", &url, "--default-audience", "--default-max-lifetime"]).await;
    assert_eq!((&show().await["audience"], &show().await["max_lifetime"]), (&Value::Null, &Value::Null));
    let keys = platform.url("/keys");
    assert!(run(&["set", &url, "--jwks-uri", &keys]).await.contains("k1 (ES256)"));
    assert_eq!(show().await["jwks_uri"], keys.as_str());
    let gone = platform.url("/gone");
    refused(&grantd, &["trusted-issuer", "set", &url, "--jwks-uri", &gone], 1, "status 404").await;
    assert_eq!(show().await["jwks_uri"], keys.as_str(), "nothing is stored");
    let ca = db.file("ca.pem", ca_pem());
    run(&["set", &url, "--discovery", "--ca-file", ca.to_str().unwrap()]).await;
    assert_eq!((&show().await["jwks_uri"], &show().await["ca_pem"]), (&Value::Null, &ca_pem().into()));
    run(&["set", &url, "--public-cas", "--offline"]).await;
    assert_eq!(show().await["ca_pem"], Value::Null);
    refused(&grantd, &["trusted-issuer", "set", &url], 2, "required").await;

    assert!(run(&["disable", &url]).await.contains("is disabled"));
    assert!(run(&["disable", &url]).await.contains("nothing changed"));
    assert_eq!(show().await["enabled"], false);
    assert!(run(&["enable", &url]).await.contains("is enabled"));

    grantd.ok(&["client", "create", "reporting", "--no-secret"]).await;
    let add = ["client", "federation", "add", "reporting", "--issuer", &url, "--subject", "service-reporting"];
    grantd.ok(&add).await;
    grantd.ok(&add).await;
    assert_eq!(show().await["rules"], 2);
    refused(&grantd, &["trusted-issuer", "delete", &url], 1, "named by rules of reporting").await;
    assert!(run(&["delete", &url, "--with-rules"]).await.contains("deleted with 2 rules"));
    assert_eq!(grantd.json(&["client", "federation", "list", "reporting", "--json"]).await, json!([]));
    for action in ["show", "enable", "disable", "delete"] {
        refused(&grantd, &["trusted-issuer", action, &url], 1, "`grantd trusted-issuer list` lists them").await;
    }
}

async fn rules_pin_what_their_kind_demands(db: Db) {
    let grantd = issuer_host::grantd(&db);
    grantd.ok(&["migrate"]).await;
    let cluster = "https://cluster.test";
    let set = db.file("keys.json", &json!({"keys": [Signer::es256().jwk()]}).to_string());
    let create = async |issuer: &str, kind: &str| {
        let arguments = ["trusted-issuer", "create", issuer, "--kind", kind, "--jwks", set.to_str().unwrap()];
        grantd.ok(&arguments).await;
    };
    create(GITHUB, "github").await;
    create("https://gitlab.com", "gitlab").await;
    create(cluster, "kubernetes").await;
    create("https://idp.test", "oidc").await;
    create("spiffe://td.test", "spiffe").await;
    grantd.ok(&["client", "create", "deploy", "--no-secret"]).await;
    let add = |issuer: &'static str, subject: &'static str| {
        ["client", "federation", "add", "deploy", "--issuer", issuer, "--subject", subject]
    };
    let pins = ["--claim", "repository_id=815", "--claim", "repository_owner_id=4711"];
    for (arguments, code, part) in [
        (&add(GITHUB, "repo:acme/app:ref:refs/heads/main")[..], 1, "repository_id"),
        (&[&add(GITHUB, "repo:acme/app:*")[..], &pins[..2]].concat(), 1, "repository_owner_id"),
        (&[&add(GITHUB, "repo:*")[..], &pins].concat(), 1, "at least 2 parts"),
        (&[&add(GITHUB, "*")[..], &pins].concat(), 2, "never * alone"),
        (&[&add(GITHUB, "")[..], &pins].concat(), 2, "1 to 1024"),
        (
            &[&add(GITHUB, "repo:acme/*")[..], &pins, &["--claim", "event_name=pull_request_target"]].concat(),
            1,
            "strangers",
        ),
        (&[&add(GITHUB, "repo:acme/*")[..], &pins, &["--claim", "aud=x"]].concat(), 1, "rules of its own"),
        (&[&add(GITHUB, "repo:acme/*")[..], &pins, &["--claim", "repository_id=1"]].concat(), 1, "given twice"),
        (&add("https://gitlab.com", "project_path:acme/app:*"), 1, "project_id"),
        (&add(cluster, "billing"), 1, "system:serviceaccount:NAMESPACE:NAME"),
        (&add(cluster, "system:serviceaccount:pay:*"), 1, "system:serviceaccount:NAMESPACE:NAME"),
        (&add("https://idp.test", "tenant/*"), 1, "oidc"),
        (&add("spiffe://td.test", "spiffe://other.test/a"), 1, "spiffe"),
        (&["client", "federation", "add", "deploy", "--subject", "x"], 2, "--issuer"),
        (
            &["client", "federation", "add", "nobody", "--issuer", "https://idp.test", "--subject", "x"],
            1,
            "client list",
        ),
        (&["client", "federation", "list", "nobody"], 1, "client list"),
        (&["client", "federation", "remove", "deploy", "r"], 1, "client federation list deploy"),
    ] {
        refused(&grantd, arguments, code, part).await;
    }
    let typed = [
        "--claim",
        "ref=refs/heads/main",
        "--claim-json",
        "run=5",
        "--claim-json",
        r#"nested={"a":[true]}"#,
        "--label",
        "main",
        "--expires-in",
        "90d",
        "--json",
    ];
    let added = grantd.json(&[&add(GITHUB, "repo:acme/app:*")[..], &pins, &typed].concat()).await;
    let claims = json!({
        "repository_id": "815", "repository_owner_id": "4711", "ref": "refs/heads/main", "run": 5, "nested": {"a": [true]},
    });
    let (created_at, rule_id) = (added["created_at"].as_i64().unwrap(), added["rule_id"].as_str().unwrap());
    let expected = json!({
        "client_id": "deploy", "rule_id": rule_id, "issuer": GITHUB, "subject": "repo:acme/app:*", "claims": claims,
        "label": "main", "created_at": created_at, "expires_at": created_at + 90 * 86_400, "last_used_at": null,
    });
    assert_eq!(added, expected);
    assert_eq!(grantd.json(&["client", "federation", "list", "deploy", "--json"]).await, json!([expected]));
    let shown = grantd.ok(&["client", "show", "deploy"]).await.stdout;
    let has_rule = |line: &str| [rule_id, GITHUB, "repo:acme/app:*"].iter().all(|cell| line.contains(cell));
    assert!(shown.lines().any(has_rule) && shown.contains("state                 enabled"), "{shown}");

    // What works and is wide, and what works later, is said.
    let wide = grantd.ok(&[&add(GITHUB, "repo:acme/app:*")[..], &pins].concat()).await;
    assert!(wide.stderr.contains("pins none of ref, environment, job_workflow_ref"), "{wide:?}");
    let default = grantd.ok(&add(cluster, "system:serviceaccount:pay:default")).await;
    assert!(default.stderr.contains("service account `default`"), "{default:?}");
    let early = grantd.ok(&add("https://later.test", "anything/*")).await;
    assert!(early.stderr.contains("grantd trusted-issuer create https://later.test"), "{early:?}");
    let later = ["trusted-issuer", "create", "https://later.test", "--kind", "oidc", "--offline"];
    let later = grantd.ok(&later).await;
    assert!(later.stderr.contains("of client deploy matches nothing"), "{later:?}");
    grantd.ok(&["trusted-issuer", "disable", cluster]).await;
    let disabled = grantd.ok(&add(cluster, "system:serviceaccount:pay:billing")).await;
    assert!(disabled.stderr.contains("trusted-issuer enable https://cluster.test"), "{disabled:?}");

    grantd.ok(&["client", "federation", "remove", "deploy", rule_id]).await;
    assert_eq!(grantd.json(&["client", "federation", "list", "deploy", "--json"]).await.as_array().unwrap().len(), 4);

    // The grants of a client.
    let both = "client_credentials urn:ietf:params:oauth:grant-type:jwt-bearer";
    let permitted = async || grantd.json(&["client", "show", "deploy", "--json"]).await["grant_types"].clone();
    for names in [both, "", "urn:ietf:params:oauth:grant-type:jwt-bearer", "client_credentials"] {
        grantd.ok(&["client", "set", "deploy", "--grant-types", names]).await;
        assert_eq!(permitted().await, names);
    }
    refused(&grantd, &["client", "set", "deploy", "--grant-types", "password"], 2, "or neither").await;
}

async fn a_sample_token_becomes_a_command(db: Db) {
    let grantd = issuer_host::grantd(&db);
    grantd.ok(&["migrate"]).await;
    let (platform, signer) = (IssuerHost::start().await, Signer::rsa("RS256").named("k1"));
    let url = platform.url("");
    platform.publishes("", &[&signer]);
    grantd.ok(&["client", "create", "my deploy", "--no-secret"]).await;
    grantd.ok(&["trusted-issuer", "create", &url, "--kind", "github"]).await;
    let mut claims = issuer_host::github(&url, "repo:acme@4711/app@815:ref:refs/heads/main");
    let like = async |claims: &Value| {
        let token = db.file("token", &format!("{}\n", signer.sign(&signer.header().to_string(), &claims.to_string())));
        let arguments = ["client", "federation", "add", "my deploy", "--like", token.to_str().unwrap()];
        grantd.run(&arguments).await
    };
    let printed = like(&claims).await;
    let expected = format!(
        "grantd client federation add 'my deploy' --issuer {url} --subject repo:acme@4711/app@815:ref:refs/heads/main --claim repository_id=815 --claim repository_owner_id=4711\n"
    );
    assert_eq!(printed.stdout, expected);
    assert_eq!(
        grantd.json(&["client", "federation", "list", "my deploy", "--json"]).await,
        json!([]),
        "nothing is stored"
    );
    // The printed command works as printed.
    let mut command = grantd.command(&["x"]);
    let script = format!(
        "PATH={}:$PATH; {}",
        std::path::Path::new(env!("CARGO_BIN_EXE_grantd")).parent().unwrap().display(),
        printed.stdout
    );
    let environment: Vec<_> =
        command.as_std_mut().get_envs().map(|(name, value)| (name.to_owned(), value.unwrap().to_owned())).collect();
    let ran = tokio::process::Command::new("sh").args(["-c", &script]).envs(environment).output().await.unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(
        grantd.json(&["client", "federation", "list", "my deploy", "--json"]).await.as_array().unwrap().len(),
        1
    );

    claims["exp"] = 1_700_000_000.into();
    let expired = like(&claims).await;
    assert!(expired.status.success() && expired.stderr.contains("expired at"), "{expired:?}");
    claims["event_name"] = "pull_request_target".into();
    assert!(like(&claims).await.stderr.contains("strangers"));
    claims["event_name"] = "push".into();
    claims.as_object_mut().unwrap().remove("repository_id");
    assert!(like(&claims).await.stderr.contains("no claim repository_id"));
    claims["iss"] = "https://other.test".into();
    assert!(like(&claims).await.stderr.contains("there is no trusted issuer https://other.test"));
    let forged = Signer::rsa("RS256").named("k1");
    let forged = forged.sign(&forged.header().to_string(), &issuer_host::github(&url, "repo:acme/app:x").to_string());
    let forged = db.file("forged", &forged);
    let arguments = ["client", "federation", "add", "my deploy", "--like", forged.to_str().unwrap()];
    refused(&grantd, &arguments, 1, "signature does not verify").await;
    for text in ["", "x.y", "not a token"] {
        let file = db.file("wrong", text);
        let arguments = ["client", "federation", "add", "my deploy", "--like", file.to_str().unwrap()];
        refused(&grantd, &arguments, 1, "--like").await;
    }
}

async fn doctor_gives_advice_about_rules(db: Db) {
    let grantd = issuer_host::grantd(&db);
    grantd.ok(&["migrate"]).await;
    let advice = async || {
        let report = grantd.json(&["doctor", "--json"]).await;
        assert_eq!((&report["healthy"], &report["faults"]), (&true.into(), &json!([])), "{report}");
        let lines = report["advice"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
        lines.filter(|line| line.contains("rule") || line.contains("issuer")).collect::<Vec<_>>()
    };
    assert_eq!(advice().await, [""; 0]);
    let set = db.file("keys.json", &json!({"keys": [Signer::es256().jwk()]}).to_string());
    for (issuer, kind) in [(GITHUB, "github"), ("https://cluster.test", "kubernetes"), ("https://idp.test", "oidc")] {
        grantd.ok(&["trusted-issuer", "create", issuer, "--kind", kind, "--jwks", set.to_str().unwrap()]).await;
    }
    let away = IssuerHost::start().await.url("/away");
    grantd.ok(&["trusted-issuer", "create", &away, "--kind", "oidc", "--offline"]).await;
    grantd.ok(&["client", "create", "deploy", "--no-secret"]).await;
    let add = async |issuer: &str, subject: &str, more: &[&str]| {
        let base = ["client", "federation", "add", "deploy", "--issuer", issuer, "--subject", subject, "--json"];
        grantd.json(&[&base[..], more].concat()).await["rule_id"].as_str().unwrap().to_owned()
    };
    let pins = ["--claim", "repository_id=1", "--claim", "repository_owner_id=2"];
    let right = add(GITHUB, "repo:acme/app:ref:refs/heads/main", &pins).await;
    let wide = add(GITHUB, "repo:acme/app:*", &pins).await;
    let default = add("https://cluster.test", "system:serviceaccount:pay:default", &[]).await;
    let gone = add("https://gone.test", "x", &[]).await;
    let (old, used) = (add("https://idp.test", "old", &[]).await, add("https://idp.test", "used", &[]).await);
    let long_ago = "update client_federation set created_at = 1700000000 where subject in ('old', 'used')";
    db.sql(long_ago).await.unwrap();
    let now = grantd::model::time::Clock::System.now().0;
    db.sql(&format!("insert into client_federation_use (rule_id, last_used_at) values ('{used}', {now})"))
        .await
        .unwrap();
    let found = advice().await;
    for (rule, part) in [
        (&wide, "pins none of ref"),
        (&default, "service account `default`"),
        (&gone, "`grantd trusted-issuer create https://gone.test` registers it"),
        (&old, "it was never used, and was made at 2023"),
    ] {
        let line =
            found.iter().find(|line| line.contains(rule.as_str())).unwrap_or_else(|| panic!("{rule}: {found:#?}"));
        assert!(line.starts_with("client deploy: rule ") && line.contains(part), "{line}");
    }
    assert!(found.iter().any(|line| line.contains(&away) && line.contains("cannot be fetched now")), "{found:#?}");
    assert!(!found.iter().any(|line| line.contains(&right) || line.contains(&used)), "{found:#?}");
    assert_eq!(found.len(), 5, "{found:#?}");
    db.sql(&format!("update client_federation_use set last_used_at = {}", now - 91 * 86_400)).await.unwrap();
    grantd.ok(&["trusted-issuer", "disable", "https://cluster.test"]).await;
    let found = advice().await;
    assert!(found.iter().any(|line| line.contains(&used) && line.contains("it was last used at")), "{found:#?}");
    assert!(found.iter().any(|line| line.contains(&default) && line.contains("is disabled")), "{found:#?}");
}

async fn doctor_names_issuers_whose_keys_the_running_server_lacks(db: Db) {
    let grantd = issuer_host::grantd(&db);
    grantd.ok(&["migrate"]).await;
    let platform = IssuerHost::start().await;
    let (url, signer) = (platform.url(""), Signer::es256().named("k1"));
    grantd.ok(&["trusted-issuer", "create", &url, "--kind", "oidc", "--offline"]).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let grantd = grantd.with("GRANTD__ADMIN__LISTEN", &daemon.admin.to_string());
    let about_server = async || {
        let advice = grantd.json(&["doctor", "--json"]).await["advice"].as_array().unwrap().clone();
        advice.into_iter().filter(|line| line.as_str().unwrap().contains("the running server")).collect::<Vec<_>>()
    };
    assert_eq!(about_server().await, [] as [Value; 0], "no token has come, so no keys were needed");
    let form = format!(
        "grant_type=client_credentials&client_assertion_type={TYPE}&client_assertion={}",
        signer.assert(&issuer_host::oidc(&url))
    );
    assert_eq!(daemon.post("/token", &[], form).await.status, 401);
    let stale = json!([{"issuer": url, "fetched_at": null}]);
    assert_eq!(daemon.admin_get("/readyz").await.json()["stale_issuer_keys"], stale);
    let [line] = about_server().await.try_into().unwrap();
    let expected = format!(
        "trusted issuer {url}: the running server has never fetched its keys, so it refuses the issuer's tokens; its event issuer.keys_trouble says why"
    );
    assert_eq!(line, expected);
    grantd.ok(&["trusted-issuer", "disable", &url]).await;
    eventually(
        async || daemon.admin_get("/readyz").await.json()["stale_issuer_keys"].clone(),
        |keys| *keys == json!([]),
    )
    .await;
    assert_eq!(about_server().await, [] as [Value; 0]);
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}

async fn the_log_names_each_issuer_that_changes(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let set = db.file("keys.json", &json!({"keys": [Signer::es256().jwk()]}).to_string());
    let set = set.to_str().unwrap();
    let create = async |issuer: &str| {
        grantd.ok(&["trusted-issuer", "create", issuer, "--kind", "oidc", "--jwks", set]).await;
    };
    create("https://known.test").await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let changes = || -> Vec<(String, String)> {
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let events = daemon.events("issuer.changed");
        events.iter().map(|event| (text(event, "issuer"), text(event, "what"))).collect()
    };
    let mut expected = Vec::new();
    let mut logged = async |issuer: &str, what: &str| {
        expected.push((issuer.to_owned(), what.to_owned()));
        let found = eventually(async || changes(), |found| found.len() >= expected.len()).await;
        assert_eq!(found, expected);
    };
    create("https://idp.test").await;
    logged("https://idp.test", "created").await;
    grantd.ok(&["trusted-issuer", "set", "https://idp.test", "--max-lifetime", "5m"]).await;
    logged("https://idp.test", "changed").await;
    db.sql("update trusted_issuer set enabled = 0 where issuer = 'https://idp.test'").await.unwrap();
    logged("https://idp.test", "disabled").await;
    grantd.ok(&["trusted-issuer", "enable", "https://idp.test"]).await;
    logged("https://idp.test", "enabled").await;
    grantd.ok(&["trusted-issuer", "delete", "https://idp.test"]).await;
    logged("https://idp.test", "gone").await;
    // A rule is a part of its client.
    grantd.ok(&["client", "create", "reporting", "--no-secret"]).await;
    let known =
        async |count| eventually(async || daemon.events("client.changed"), |events| events.len() >= count).await;
    known(1).await;
    let rule = ["client", "federation", "add", "reporting", "--issuer", "https://known.test", "--subject", "agent"];
    grantd.ok(&rule).await;
    assert_eq!(known(2).await[1]["client_id"], "reporting");
    daemon.stop_cleanly(Duration::from_secs(10)).await;
}
