//! Configuration: every key documented, every refusal says what to write instead.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use grantd::config::{Config, ConfigError, Sources};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn with(toml: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("grantd.toml");
    std::fs::write(&file, toml).unwrap();
    let own =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    let sources = Sources::find(Some(&file), own(flags), own(environment).into_iter().collect::<HashMap<_, _>>())?;
    Config::parse(&sources.read()?, &sources)
}

#[track_caller]
pub(crate) fn refused(toml: &str, environment: &[(&str, &str)], parts: &[&str]) {
    let message = with(toml, environment, &[]).expect_err(toml).to_string();
    for part in parts {
        assert!(message.contains(part), "wanted `{part}` in: {message}");
    }
}

/// The sample with each line `# key = value` and `# [section]` made real.
fn uncommented(sample: &str) -> String {
    let real = |line: &str| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_setting = bare.starts_with('[')
            || bare.split_once(" = ").is_some_and(|(key, _)| {
                key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            });
        (is_setting && !line.starts_with("##")).then(|| bare.to_owned())
    };
    sample.lines().filter_map(real).collect::<Vec<_>>().join("\n")
}

/// The keys of the sample, those without a default (`#~ key = example`) among them.
pub(crate) fn sampled_keys() -> BTreeSet<String> {
    let sample = std::fs::read_to_string(root().join("config/grantd.toml")).unwrap();
    let (mut section, mut named) = (String::new(), BTreeSet::new());
    for line in uncommented(&sample.replace("\n#~ ", "\n# ")).lines() {
        match line.strip_prefix('[') {
            Some(name) => name.trim_end_matches(']').clone_into(&mut section),
            None => {
                let key = format!("{section}.{}", line.split(' ').next().unwrap());
                named.insert(key.trim_start_matches('.').to_owned());
            }
        }
    }
    named
}

#[test]
fn the_sample_lists_every_key_at_its_default() {
    let sample = std::fs::read_to_string(root().join("config/grantd.toml")).unwrap();
    let real = uncommented(&sample);
    let parsed = |toml: &str| Config { file: None, ..with(toml, &[], &[]).unwrap() };
    let (sampled, default) = (parsed(&real), parsed(""));
    assert_eq!(format!("{sampled:?}"), format!("{default:?}"), "a key of the sample is not at its default");

    let settings = std::fs::read_to_string(root().join("src/config/settings.rs")).unwrap();
    let named = sampled_keys();
    let sections = [
        ("Server {", "server"),
        ("TlsSettings {", "server.tls"),
        ("Mtls {", "server.mtls"),
        ("DeadlineSettings {", "server.deadlines"),
        ("Admin {", "admin"),
        ("DatabaseSettings {", "database"),
        ("RegistrySettings {", "registry"),
        ("Token {", "token"),
        ("Keys {", "keys"),
        ("Secrets {", "secrets"),
        ("Clients {", "clients"),
        ("DpopSettings {", "dpop"),
        ("Log {", "log"),
    ];
    let mut existing: BTreeSet<String> =
        ["issuer", "data_dir", "openid_configuration", "profile"].map(str::to_owned).into();
    for (start, section) in sections {
        let body = settings.split(&format!("    {start}")).nth(1).unwrap().split('}').next().unwrap();
        for field in body.split(',') {
            let Some((key, kind)) = field.trim().split_once(": ") else { continue };
            if !kind.contains("Settings =") && !kind.starts_with("Mtls") {
                existing.insert(format!("{section}.{key}"));
            }
        }
    }
    assert!(existing.len() > 30, "{existing:?}");
    assert_eq!(named, existing);
}

#[test]
fn the_production_sample_is_safe_and_complete() {
    let directory = tempfile::tempdir().unwrap();
    let sample = std::fs::read_to_string(root().join("config/production.toml")).unwrap();
    let url = directory.path().join("url");
    std::fs::write(&url, "postgres://grantd:pw@db.test/grantd?sslmode=verify-full\n").unwrap();
    let environment = [("GRANTD__DATABASE__URL_FILE", url.to_str().unwrap())];
    let config = with(&sample, &environment, &[]).unwrap();
    assert!(config.issuer.unwrap().is_https() && !config.database_by_default && !config.auto_migrate);
    assert_eq!(config.token_ttl.to_string(), "15m");
    assert_eq!(config.rotate_every.unwrap().to_string(), "90d");
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "token.ttl = \"10m\"\ntoken.alg = \"EdDSA\"\nregistry.max_stale = \"5m\"";
    let config =
        with(file, &[("GRANTD__TOKEN__TTL", "20m"), ("GRANTD__TOKEN__ALG", "RS256")], &[("token.ttl", "30m")]).unwrap();
    assert_eq!(
        (
            config.token_ttl.to_string(),
            config.token_alg.as_str(),
            humantime::format_duration(config.registry.max_stale).to_string()
        ),
        ("30m".into(), "RS256", "5m".into())
    );
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9090");
    let config = with("", &[("DATABASE_URL", "sqlite:/tmp/x.db")], &[]).unwrap();
    assert!(format!("{:?}", config.database).contains("/tmp/x.db") && !config.database_by_default);
    let config = with("database.url = \"sqlite:/tmp/y.db\"", &[("DATABASE_URL", "sqlite:/tmp/x.db")], &[]).unwrap();
    assert!(format!("{:?}", config.database).contains("/tmp/y.db") && config.issuer.is_none());
    let config = with(
        "",
        &[("GRANTD__SERVER__TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.7"), ("GRANTD__DATABASE__AUTO_MIGRATE", "false")],
        &[],
    )
    .unwrap();
    assert!(config.trusted_proxies.len() == 2 && !config.auto_migrate);
    let config = with("", &[("GRANTD_PORT", "tcp://10.0.0.1:8080")], &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080", "what Kubernetes injects is not ours");
}

#[test]
fn an_unknown_key_lists_the_valid_ones() {
    refused("tokens.ttl = \"1h\"", &[], &["unknown key `tokens`", "grantd.toml, line 1", "`token`"]);
    refused("token.lifetime = \"1h\"", &[], &["unknown key `lifetime`", "`token`", "`ttl`, `alg`, `audience`"]);
    refused("", &[("GRANTD__TOKEN__TLL", "1h")], &["unknown key `tll`", "`ttl`", "GRANTD__TOKEN__TLL"]);
    refused("token = 3", &[], &["`token` is a section", "`ttl`"]);
    refused("[issuer]", &[], &["issuer", "write a string"]);
    refused("[Database]", &[], &["unknown key `Database`", "did you mean `database`?"]);
    refused("database.URL_file = \"/x\"", &[], &["did you mean `database.url_file`?"]);
    refused("not toml at all", &[], &["grantd.toml"]);
}

#[test]
fn insecure_or_incomplete_settings_are_refused_with_a_remedy() {
    refused(
        "server.listen = \"0.0.0.0:8080\"\nissuer = \"https://as.test\"",
        &[],
        &["server.listen", "cleartext", "server.tls.cert_file", "behind-proxy"],
    );
    refused("server.listen = \"0.0.0.0:8080\"\nserver.cleartext = \"behind-proxy\"", &[], &["issuer", "https://"]);
    refused("issuer = \"http://as.test\"", &[], &["issuer", "https"]);
    refused("server.tls.cert_file = \"/x\"", &[], &["server.tls", "both"]);
    refused("database.url = \"postgres://db.test/grantd\"", &[], &["keys.sealing_key_file", "head -c 32 /dev/urandom"]);
    refused("database.url = \"mysql://u:hunter2@db.test/x\"", &[], &["database.url", "postgres://"]);
    refused("database.url = \"sqlite::memory:\"", &[], &["database.url", "name a file"]);
    refused("database.url = \"sqlite:/x\"\ndatabase.url_file = \"/y\"", &[], &["not both"]);
    refused("database.url_file = \"/nonexistent/url\"", &[], &["database.url_file", "/nonexistent/url"]);
    refused("server.listen = \"8080\"", &[], &["server.listen", "127.0.0.1:8080"]);
    refused(
        "",
        &[("GRANTD__SERVER__LISTEN", "here")],
        &["server.listen", "environment, GRANTD__SERVER__LISTEN", "`here`"],
    );
    refused("token.alg = \"HS256\"", &[], &["token.alg", "ES256"]);
    refused("token.ttl = \"2d\"", &[], &["token.ttl", "24h"]);
    refused("token.ttl = \"soon\"", &[], &["soon", "90s"]);
    refused("secrets.argon2 = \"m=8,t=1,p=1\"", &[], &["secrets.argon2", "floor", "m=19456,t=2,p=1"]);
    refused("secrets.argon2 = \"m=4194304,t=1,p=1\"", &[], &["secrets.argon2", "ceiling"]);
    refused("server.trusted_proxies = [\"proxy\"]", &[], &["server.trusted_proxies", "`proxy`", "10.0.0.0/8"]);
    refused("profile = \"other\"", &[], &["profile", "`other`", "default"]);
    refused(
        "",
        &[("GRANTD__SERVER__CLEARTEXT", "always")],
        &["server.cleartext", "environment, GRANTD__SERVER__CLEARTEXT", "loopback, behind-proxy"],
    );
    refused("log.format = \"xml\"", &[], &["log.format", "auto, json, text"]);
    refused("secrets.basic_reading = \"loose\"", &[], &["secrets.basic_reading", "tolerant, strict"]);
    let error = with("token.ttl = \"1h\"", &[], &[("token.ttl", "5x")]).unwrap_err().to_string();
    assert!(error.contains("token.ttl (command line)") && error.contains("`5x`"), "{error}");
    let error = with("database.url = \"postgres://u:CANARY@db/x", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("line 1") && !error.contains("CANARY"), "{error}");
    let error = with("", &[], &[("database.url", "postgres://u:p@h/d")]).unwrap_err().to_string();
    assert!(error.contains("every process") && !error.contains("u:p"), "{error}");
    let error = with("database.url = \"mysql://u:hunter2@db.test/x\"", &[], &[]).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn default_deadlines_close_hostile_connections_within_15_seconds() {
    let config = with("", &[], &[]).unwrap();
    let limits = config.deadlines;
    for deadline in [limits.first_byte, limits.head, limits.write, config.body_deadline] {
        assert!(deadline.as_secs() <= 15, "{limits:?}");
    }
    assert!((config.drain_delay + limits.drain).as_secs() < 10, "a stop takes less than 10 s");
}

#[test]
fn incomplete_mutual_tls_settings_are_refused_with_a_remedy() {
    let listen = "server.mtls.listen = \"127.0.0.1:1\"";
    refused(listen, &[], &["server.mtls.listen", "server.mtls.cert_file", "server.tls"]);
    refused("server.mtls.listen = \"8443\"", &[], &["server.mtls.listen", "0.0.0.0:8443"]);
    refused("server.mtls.client_ca_file = \"ca.pem\"", &[], &["server.mtls.listen", "do nothing without it"]);
    refused("server.mtls.public_url = \"https://m.test\"", &[], &["server.mtls.listen"]);
    refused("server.mtls.cert_file = \"c.pem\"", &[], &["server.mtls.key_file"]);
    refused("server.mtls.client_crl_file = \"crl.pem\"", &[], &["server.mtls.client_ca_file"]);
    refused("server.client_cert_header = true", &[], &["server.client_cert_header", "server.trusted_proxies"]);
    let own = "server.mtls.cert_file = \"c.pem\"\nserver.mtls.key_file = \"k.pem\"";
    refused(&format!("{listen}\n{own}\nserver.mtls.public_url = \"http://m.test\""), &[], &["public_url", "https"]);
    let config = with(&format!("{listen}\n{own}\nserver.mtls.client_ca_file = \"ca.pem\""), &[], &[]).unwrap();
    assert_eq!(config.client_certificates.mtls.unwrap().files.cert, PathBuf::from("c.pem"));
    let tls = "server.tls.cert_file = \"t.pem\"\nserver.tls.key_file = \"t.key\"";
    let config = with(&format!("{listen}\n{tls}"), &[], &[]).unwrap();
    assert_eq!(config.client_certificates.mtls.unwrap().files.cert, PathBuf::from("t.pem"));
    let behind = "server.client_cert_header = true\nserver.trusted_proxies = [\"10.0.0.1\"]\nserver.mtls.client_ca_file = \"ca.pem\"";
    assert!(with(behind, &[], &[]).unwrap().client_certificates.header);
    refused("clients.jwks_uri_allow = [\"https://keys\"]", &[], &["clients.jwks_uri_allow", "10.0.0.0/8"]);
    let config = with("", &[("GRANTD__CLIENTS__JWKS_URI_ALLOW", "10.0.0.0/8,keys.internal")], &[]).unwrap();
    assert_eq!(config.jwks_uri_allow.len(), 2);
}

#[test]
fn the_fapi2_profile_needs_tls_and_another_algorithm_than_rs256() {
    let fapi2 = "profile = \"fapi2\"\nissuer = \"https://as.test\"\n";
    refused("profile = \"fapi\"", &[], &["profile", "default, fapi2"]);
    refused(fapi2, &[], &["profile", "server.tls.cert_file", "behind-proxy"]);
    let behind = "GRANTD__SERVER__CLEARTEXT";
    refused("profile = \"fapi2\"", &[(behind, "behind-proxy")], &["issuer", "https"]);
    let loopback = "profile = \"fapi2\"\nissuer = \"http://127.0.0.1:8080\"";
    refused(loopback, &[(behind, "behind-proxy")], &["issuer", "https"]);
    let rs256 = [(behind, "behind-proxy"), ("GRANTD__TOKEN__ALG", "RS256")];
    refused(fapi2, &rs256, &["token.alg", "RS256", "ES256, EdDSA, Ed25519 or PS256"]);
    for alg in ["ES256", "EdDSA", "PS256"] {
        with(fapi2, &[(behind, "behind-proxy"), ("GRANTD__TOKEN__ALG", alg)], &[]).unwrap();
    }
    with(fapi2, &[("GRANTD__SERVER__TLS__CERT_FILE", "a.pem"), ("GRANTD__SERVER__TLS__KEY_FILE", "b.pem")], &[])
        .unwrap();
}
