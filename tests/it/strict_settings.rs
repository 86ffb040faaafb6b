//! Settings that are empty, nearly named, out of reach, or not of their type: each is refused with exit 78, and none is
//! quoted where it may hold a secret.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use grantd::config::Sources;

use crate::configuration::{refused, sampled_keys, with};
use crate::harness::Db;
use crate::process::daemon::{Daemon, Grantd, eventually};

/// The configuration without a database of its own, in a directory of its own.
fn bare(db: &Db) -> Grantd {
    Grantd::new(db).with("GRANTD__DATABASE__URL", "").with("GRANTD__KEYS__SEALING_KEY_FILE", "")
}

/// Runs a command that has to fail with 78, and returns what it says.
async fn refused_by(grantd: &Grantd, arguments: &[&str], parts: &[&str]) -> String {
    let done = grantd.run(arguments).await;
    assert_eq!(done.status.code(), Some(78), "{arguments:?}: {done:?}");
    for part in parts {
        assert!(done.stderr.contains(part), "wanted `{part}` in: {}", done.stderr);
    }
    assert!(done.stdout.is_empty() || arguments == ["serve"], "{done:?}");
    done.stderr
}

#[test]
fn a_setting_that_is_named_but_empty_is_refused() {
    refused("issuer = \"\"", &[], &["issuer (", "line 1", "empty"]);
    refused("[clients]\njwks_uri_ca_file = \"\"", &[], &["clients.jwks_uri_ca_file", "line 2", "empty"]);
    refused("server.trusted_proxies = [\"\"]", &[], &["server.trusted_proxies", "empty"]);
    refused("", &[("GRANTD__PROFILE", "")], &["GRANTD__PROFILE", "empty"]);
    refused("", &[("GRANTD_CONFIG", "")], &["GRANTD_CONFIG", "empty"]);
    refused("", &[("DATABASE_URL", "")], &["database.url (environment, DATABASE_URL)", "empty"]);
    refused("", &[("GRANTD__SERVER__TRUSTED_PROXIES", "10.0.0.1,,")], &["entry is empty"]);
    let flag = with("", &[], &[("token.audience", "")]).unwrap_err().to_string();
    assert!(flag.contains("token.audience (command line)") && flag.contains("empty"), "{flag}");
    // Not ours to read, so not ours to refuse.
    with("database.url = \"sqlite:/x\"", &[("DATABASE_URL", ""), ("PGUSER", "")], &[]).unwrap();
    let none = with("server.trusted_proxies = [\"10.0.0.1\"]", &[("GRANTD__SERVER__TRUSTED_PROXIES", "[]")], &[]);
    assert!(none.unwrap().trusted_proxies.is_empty());
}

#[test]
fn an_empty_file_behind_a_setting_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("named");
    for content in ["", "\n", " \r\n\n"] {
        std::fs::write(&file, content).unwrap();
        let toml = format!("database.url_file = {file:?}");
        refused(&toml, &[], &["database.url_file", "named", "empty"]);
        let toml = format!("database.url = \"postgres://h/d?sslmode=verify-full&sslrootcert={}\"", file.display());
        refused(&toml, &[], &["database.url", "sslrootcert", "named", "empty"]);
        let config = with(&format!("clients.jwks_uri_ca_file = {file:?}"), &[], &[]).unwrap();
        let error = format!("{:#}", grantd::serve::clients::fetcher(&config).map(drop).unwrap_err());
        assert!(error.contains("clients.jwks_uri_ca_file") && error.contains("empty"), "{error}");
        let config = with(&format!("keys.sealing_key_file = {file:?}"), &[], &[]).unwrap();
        let error = grantd::serve::sealing_key::read(&config.sealing).unwrap_err().to_string();
        assert!(error.contains("keys.sealing_key_file") && error.contains("empty"), "{error}");
    }
}

#[test]
fn a_variable_that_is_nearly_one_of_ours_is_refused_by_its_right_name() {
    for (nearly, right) in [
        ("GRANTD_DATABASE__URL", "GRANTD__DATABASE__URL"),
        ("GRANTD_DATABASE_URL", "GRANTD__DATABASE__URL"),
        ("GRANTD__DATABASE_URL", "GRANTD__DATABASE__URL"),
        ("GRANTD__DATABASE__URLFILE", "GRANTD__DATABASE__URL_FILE"),
        ("grantd__database__url", "GRANTD__DATABASE__URL"),
        ("GRANTD__SERVER___LISTEN", "GRANTD__SERVER__LISTEN"),
        ("Grantd__Profile", "GRANTD__PROFILE"),
        ("GRANTD_PROFILE", "GRANTD__PROFILE"),
        ("GRANTD__CONFIG", "GRANTD_CONFIG"),
        ("grantd_config", "GRANTD_CONFIG"),
        ("DATABASE__URL", "DATABASE_URL"),
        ("database_url", "DATABASE_URL"),
    ] {
        refused("", &[(nearly, "hunter2")], &[nearly, right]);
        let error = with("", &[(nearly, "hunter2")], &[]).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
    // What Kubernetes sets for a Service named grantd, and what is somebody else's.
    let others = [
        ("GRANTD_SERVICE_HOST", "10.0.0.1"),
        ("GRANTD_SERVICE_PORT", "80"),
        ("GRANTD_PORT", "tcp://10.0.0.1:80"),
        ("GRANTD_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("GRANTD_TEST_POSTGRES", "postgres://h/d"),
        ("GRANTDEE", ""),
    ];
    with("", &others, &[]).unwrap();
    with("database.url = \"sqlite:/x\"", &[("database_url", "mysql://x")], &[]).unwrap();
}

#[test]
fn a_value_is_read_by_the_type_of_its_key() {
    let variables =
        [("GRANTD__TOKEN__AUDIENCE", "0042"), ("GRANTD__DATA_DIR", "1.10"), ("GRANTD__SECRETS__QUEUE", "7")];
    let config = with("", &variables, &[]).unwrap();
    assert_eq!((config.token_audience.as_deref(), config.hashing_queue), (Some("0042"), 7));
    assert_eq!(config.data_dir, Path::new("1.10"));
    for text in ["true", "1e3", "[1]", "a,b", " x "] {
        let config = with("", &[("GRANTD__TOKEN__AUDIENCE", text)], &[]).unwrap();
        assert_eq!(config.token_audience.as_deref(), Some(text));
        let config = with("", &[], &[("token.audience", text)]).unwrap();
        assert_eq!(config.token_audience.as_deref(), Some(text));
    }
    refused("token.audience = 42", &[], &["token.audience", "in quotes"]);
    refused("data_dir = 1.10", &[], &["data_dir", "in quotes"]);
    refused("openid_configuration = \"false\"", &[], &["openid_configuration", "true or false"]);
    refused("secrets.threads = 256", &[], &["secrets.threads", "0 to 255"]);
    refused("secrets.threads = \"2\"", &[], &["secrets.threads", "0 to 255"]);
    refused("server.max_connections = -1", &[], &["server.max_connections", "whole number"]);
    refused("server.trusted_proxies = \"10.0.0.1\"", &[], &["server.trusted_proxies", "list"]);
    refused("", &[("GRANTD__DATABASE__AUTO_MIGRATE", "yes")], &["database.auto_migrate", "true or false"]);
    refused("", &[("GRANTD__SECRETS__QUEUE", "7.0")], &["secrets.queue", "whole number"]);
    assert_eq!(with("secrets.queue = 0x10", &[], &[]).unwrap().hashing_queue, 16);
    // A password that is a number stays out of the message.
    let error = with("database.url = 4711", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("database.url") && !error.contains("4711"), "{error}");
}

#[test]
fn the_entry_of_a_list_that_is_wrong_is_named() {
    let proxies = with("", &[("GRANTD__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.7")], &[]).unwrap();
    assert_eq!(proxies.trusted_proxies.len(), 2);
    refused("server.trusted_proxies = [\"10.0.0.0/8 \"]", &[], &["server.trusted_proxies", "`10.0.0.0/8 `", "space"]);
    let separated = [("GRANTD__SERVER__TRUSTED_PROXIES", "10.0.0.0/8 192.0.2.7")];
    refused("", &separated, &["`10.0.0.0/8 192.0.2.7`", "space"]);
    refused("clients.jwks_uri_allow = [\"a\", \"b c\"]", &[], &["clients.jwks_uri_allow", "`b c`", "space"]);
}

#[test]
fn two_listeners_at_one_address_are_refused() {
    let same = "server.listen = \"127.0.0.1:9090\"";
    refused(same, &[], &["admin.listen", "server.listen", "127.0.0.1:9090"]);
    for (public, admin) in
        [("0.0.0.0:1", "127.0.0.1:1"), ("[::1]:1", "[::]:1"), ("127.0.0.1:1", "[::]:1"), ("0.0.0.0:1", "[::]:1")]
    {
        let toml = format!(
            "issuer = \"https://a.test\"\nserver.cleartext = \"behind-proxy\"\nserver.listen = \"{public}\"\nadmin.listen = \"{admin}\""
        );
        refused(&toml, &[], &["admin.listen", "taken by server.listen"]);
    }
    let mtls = "server.mtls.listen = \"127.0.0.1:9090\"\nserver.mtls.cert_file = \"c\"\nserver.mtls.key_file = \"k\"";
    refused(mtls, &[], &["server.mtls.listen", "admin.listen"]);
    for free in ["server.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"", "server.listen = \"[::1]:9090\""] {
        with(free, &[], &[]).unwrap();
    }
}

#[test]
fn a_configuration_file_that_cannot_be_read_is_never_taken_for_absent() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let find = |path: &Path| {
        let found = Sources::find(Some(path), Vec::new(), Vec::<(String, String)>::new());
        found.and_then(|sources| sources.read().map(drop)).unwrap_err().to_string()
    };
    std::fs::write(at("file"), "").unwrap();
    let through_a_file = find(&at("file/grantd.toml"));
    assert!(through_a_file.contains("cannot be reached by uid"), "{through_a_file}");
    symlink(at("loop"), at("loop")).unwrap();
    assert!(find(&at("loop")).contains("cannot be reached"), "{}", find(&at("loop")));
    symlink(at("gone"), at("dangling")).unwrap();
    assert!(find(&at("dangling")).contains("symbolic link"), "{}", find(&at("dangling")));
    assert!(find(&at("gone")).contains("no such file"));
    let folder = find(directory.path());
    assert!(folder.contains("is a directory") && folder.contains("grantd.toml"), "{folder}");
    for utf16 in [&b"\xff\xfei\0s\0"[..], b"\xfe\xff\0i\0s", b"i\0s\0s\0"] {
        std::fs::write(at("utf16"), utf16).unwrap();
        assert!(find(&at("utf16")).contains("UTF-16"), "{}", find(&at("utf16")));
    }
    std::fs::write(at("latin1"), b"issuer = \"x\"\nprofile = \"d\xe9faut\"").unwrap();
    assert!(find(&at("latin1")).contains("line 2: not UTF-8"), "{}", find(&at("latin1")));
    std::fs::write(at("bom"), "\u{feff}profile = \"fapi\"").unwrap();
    Sources::find(Some(&at("bom")), Vec::new(), Vec::<(String, String)>::new()).unwrap().read().unwrap();
}

#[tokio::test]
async fn the_usual_file_out_of_reach_is_an_error() {
    let db = Db::sqlite();
    let room = db.directory.path().join("room");
    std::fs::create_dir(&room).unwrap();
    symlink(room.join("nothing"), room.join("grantd.toml")).unwrap();
    let mut command = bare(&db).command(&["config", "check"]);
    let done = command.current_dir(&room).output().await.unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(78) && said.contains("grantd.toml: is a symbolic link"), "{done:?}");
}

#[tokio::test]
async fn an_environment_that_is_not_utf_8_neither_panics_nor_prints() {
    let db = Db::sqlite();
    let raw = |text: &str| OsString::from_vec([text.as_bytes(), b"\xff"].concat());
    for (name, code) in
        [("UNRELATED", 0), ("GRANTD__TOKEN__AUDIENCE", 78), ("DATABASE_URL", 78), ("RUST_LOG", 78), ("PGPASSWORD", 78)]
    {
        let mut command = bare(&db).command(&["config", "check"]);
        let done = command.env(name, raw("hunter2")).output().await.unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{name}: {said}");
        assert!(!said.contains("hunter2") && !said.contains("panicked"), "{said}");
        assert!(code == 0 || said.contains(name) && said.contains("UTF-8"), "{said}");
    }
    let unrelated = [(raw("NAME"), raw("value"))];
    Sources::find(None, Vec::new(), unrelated).unwrap();
}

#[tokio::test]
async fn a_sealing_key_that_is_named_is_never_made() {
    let db = Db::sqlite();
    let missing = db.directory.path().join("mount/sealing.key");
    let grantd = Grantd::new(&db).with("GRANTD__KEYS__SEALING_KEY_FILE", missing.to_str().unwrap());
    for arguments in [&["serve"][..], &["config", "check"], &["client", "create", "a"]] {
        refused_by(&grantd, arguments, &["keys.sealing_key_file", "mount/sealing.key", "never made"]).await;
        assert!(!missing.exists() && !missing.parent().unwrap().exists(), "{arguments:?}");
    }
    // A link to nothing stands for a key that has not been mounted yet.
    let data = db.directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    symlink(data.join("elsewhere"), data.join("sealing.key")).unwrap();
    let grantd = bare(&db).with("GRANTD__DATA_DIR", data.to_str().unwrap());
    refused_by(&grantd, &["serve"], &["keys.sealing_key_file", "sealing.key"]).await;
    assert!(!data.join("elsewhere").exists());
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_named_with_the_user() {
    let db = Db::sqlite();
    let file = db.file("file", "");
    // Root may write where the mode forbids it, but nobody makes a directory in a file.
    for place in [file.clone(), file.join("data"), file.join("data/deeper")] {
        let grantd = bare(&db).with("GRANTD__DATA_DIR", place.to_str().unwrap());
        for arguments in [&["serve"][..], &["config", "check"], &["migrate"], &["client", "create", "a"]] {
            refused_by(&grantd, arguments, &["data_dir", place.to_str().unwrap(), "uid ", "cannot write"]).await;
        }
    }
    let named = Grantd::new(&db).with("GRANTD__DATABASE__URL", &format!("sqlite:{}/x.db", file.display()));
    refused_by(&named, &["serve"], &["database.url", "uid "]).await;
}

#[tokio::test]
async fn a_private_key_that_lost_its_line_ends_is_not_printed() {
    let db = Db::sqlite();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = db.file("tls.pem", &made.cert.pem());
    let pem = made.signing_key.serialize_pem();
    let canary = pem.lines().nth(1).unwrap();
    let as_bytes = format!("{:?}", &canary.as_bytes()[..8]).trim_matches(['[', ']']).to_owned();
    let cut = pem.replace("-----END PRIVATE KEY-----", "");
    for (damaged, parts) in [
        (pem.trim().replace('\n', "\\n"), &["line ends"][..]),
        (pem.trim().replace('\n', " "), &["line ends"]),
        (pem.trim().replace('\n', ""), &["line ends"]),
        (cut, &["END"]),
        (pem.replace('a', "!"), &["base64"]),
        (made.cert.pem().replace("CERTIFICATE", "TRUSTED CERTIFICATE"), &["TRUSTED CERTIFICATE", "openssl x509"]),
        (pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), &["passphrase", "openssl pkey"]),
        (made.cert.pem(), &["no such PEM section"]),
        (String::new(), &["empty"]),
    ] {
        let key = db.file("tls.key", &damaged);
        let grantd = Grantd::new(&db)
            .with("GRANTD__SERVER__TLS__CERT_FILE", cert.to_str().unwrap())
            .with("GRANTD__SERVER__TLS__KEY_FILE", key.to_str().unwrap());
        let parts: Vec<&str> = parts.iter().copied().chain(["server.tls", "tls.key"]).collect();
        let said = refused_by(&grantd, &["config", "check"], &parts).await;
        assert!(!said.contains(canary) && !said.contains(&as_bytes) && said.len() < 600, "{said}");
    }
    // The same at SIGHUP, where the key in use stays.
    let key = db.file("tls.key", &pem);
    let grantd = Grantd::new(&db)
        .with("GRANTD__SERVER__TLS__CERT_FILE", cert.to_str().unwrap())
        .with("GRANTD__SERVER__TLS__KEY_FILE", key.to_str().unwrap());
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    db.file("tls.key", &pem.trim().replace('\n', "\\n"));
    daemon.reload();
    let events = eventually(async || daemon.events("reload"), |events| !events.is_empty()).await;
    assert!(events[0]["reason"].as_str().unwrap().contains("line ends"), "{events:?}");
    daemon.stop_cleanly(Duration::from_secs(5)).await;
    let log = daemon.stdout.lock().unwrap().join("\n");
    assert!(!log.contains(canary) && !log.contains(&as_bytes), "{log}");
}

#[tokio::test]
async fn a_url_is_never_quoted_by_any_command() {
    let db = Db::sqlite();
    let key = db.directory.path().join("sealing.key");
    for parameter in ["sslpassword=hunter2", "pasword=hunter2", "hunter2", "hunter2=x", "sslkey=-----BEGIN%20hunter2"] {
        let url = format!("postgres://u@127.0.0.1:1/x?sslcert={}&{parameter}", key.display());
        let grantd = Grantd::new(&db).with("GRANTD__DATABASE__URL", &url);
        for arguments in [&["migrate"][..], &["client", "list"], &["doctor"], &["config", "print"], &["serve"]] {
            let said = refused_by(&grantd, arguments, &["database.url"]).await;
            assert!(!said.contains("hunter2") || parameter == "hunter2=x", "{said}");
        }
    }
    // sqlx tells lines of a password file that it cannot read.
    let passwords = db.file("pgpass", "no colons but hunter2\n");
    std::fs::set_permissions(&passwords, std::fs::Permissions::from_mode(0o600)).unwrap();
    let grantd = Grantd::new(&db).with("GRANTD__DATABASE__URL", "postgres://u@127.0.0.1:1/x");
    for level in ["", "trace", "info,sqlx_postgres::options::pgpass=trace"] {
        let grantd = grantd.with("PGPASSFILE", passwords.to_str().unwrap()).with("RUST_LOG", level);
        let done = grantd.run(&["config", "print"]).await;
        assert!(done.status.success() && !done.stderr.contains("hunter2"), "{level}: {done:?}");
    }
}

#[tokio::test]
async fn a_log_filter_that_would_silence_everything_is_refused() {
    let db = Db::sqlite();
    for level in ["wran", "info,grantd=wran", "grandt=info"] {
        let grantd = Grantd::new(&db).with("RUST_LOG", level);
        for arguments in [&["serve"][..], &["config", "check"]] {
            refused_by(&grantd, arguments, &["RUST_LOG", "error, warn, info, debug or trace"]).await;
        }
    }
}

#[tokio::test]
async fn a_start_names_what_is_in_force_and_what_is_open_to_doubt() {
    let db = Db::sqlite();
    let file = db
        .file("grantd.toml", "issuer = \"https://as.test\"\nprofile = \"fapi2\"\nserver.cleartext = \"behind-proxy\"");
    let grantd = Grantd::new(&db).with("GRANTD_CONFIG", file.to_str().unwrap());
    let key = db.directory.path().join("sealing.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let config = &daemon.events("config.file")[0];
    assert_eq!((&config["path"], &config["profile"]), (&file.to_str().unwrap().into(), &"fapi2".into()));
    assert_eq!(daemon.events("proxy.untrusted")[0]["level"], "WARN");
    let exposed = &daemon.events("config.exposed")[0];
    assert!(
        exposed["key"] == "keys.sealing_key_file" && exposed["reason"].as_str().unwrap().contains("0644"),
        "{exposed}"
    );
    let doctor = grantd.run(&["doctor"]).await;
    assert!(doctor.status.code() == Some(1) && doctor.stdout.contains("keys.sealing_key_file"), "{doctor:?}");
    daemon.stop_cleanly(Duration::from_secs(5)).await;
    assert_eq!(grantd.json(&["config", "print", "--json"]).await["profile"], "fapi2");

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let grantd = Grantd::new(&db);
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    assert!(daemon.events("config.file")[0].get("path").is_none());
    assert!(daemon.events("proxy.untrusted").is_empty() && daemon.events("config.exposed").is_empty());
    grantd.ok(&["doctor"]).await;
    daemon.stop_cleanly(Duration::from_secs(5)).await;
    assert_eq!(grantd.json(&["config", "print", "--json"]).await["profile"], "default");
}

#[tokio::test]
async fn config_print_shows_every_key() {
    fn keys(value: &serde_json::Value, under: &str, found: &mut BTreeSet<String>) {
        match value.as_object() {
            None => drop(found.insert(under.trim_start_matches('.').to_owned())),
            Some(members) => members.iter().for_each(|(name, value)| keys(value, &format!("{under}.{name}"), found)),
        }
    }
    let mut printed = BTreeSet::new();
    keys(&Grantd::new(&Db::sqlite()).json(&["config", "print", "--json"]).await, "", &mut printed);
    let mut existing = sampled_keys();
    // The URL that was read from it is printed.
    existing.remove("database.url_file");
    assert_eq!(printed, existing);
}

#[tokio::test]
async fn the_cas_for_jwks_uri_are_read_again() {
    let db = Db::sqlite();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = db.file("ca.pem", &made.cert.pem());
    let grantd = Grantd::new(&db).with("GRANTD__CLIENTS__JWKS_URI_CA_FILE", file.to_str().unwrap());
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    std::fs::write(&file, "").unwrap();
    daemon.reload();
    let events = eventually(async || daemon.events("reload"), |events| events.len() == 1).await;
    let reason = events[0]["reason"].as_str().unwrap();
    assert!(reason.contains("clients.jwks_uri_ca_file") && reason.contains("empty"), "{reason}");
    std::fs::write(&file, made.cert.pem()).unwrap();
    daemon.reload();
    let events = eventually(async || daemon.events("reload"), |events| events.len() == 2).await;
    assert!(
        events[1].get("reason").is_none() && events[1]["message"].as_str().unwrap().contains("reloaded"),
        "{events:?}"
    );
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn health_finds_the_listener_of_the_running_server() {
    let db = Db::sqlite();
    let file = db.file("grantd.toml", "");
    let grantd = Grantd::new(&db).with("GRANTD_CONFIG", file.to_str().unwrap()).with("GRANTD__ADMIN__LISTEN", "");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let told = format!("admin.listen=127.0.0.1:{port}");
    let mut daemon = Daemon::start(grantd.command(&["serve", "--set", &told]), false).await;
    grantd.ok(&["health", "--set", &told]).await;
    grantd.ok(&["health"]).await;
    // Faults that the server has not started with are no concern of a health check.
    std::fs::write(&file, "nonsense = true\n[[[").unwrap();
    grantd.ok(&["health"]).await;
    grantd.with("GRANTD_DATABASE_URL", "x").with("DATABASE_URL", "y").ok(&["health"]).await;
    // Another configuration is another server's.
    let other = grantd.with("GRANTD_CONFIG", db.file("other.toml", "admin.listen = \"127.0.0.1:1\"").to_str().unwrap());
    assert!(other.run(&["health"]).await.stderr.contains("127.0.0.1:1"));
    daemon.stop_cleanly(Duration::from_secs(5)).await;
    let unhealthy = grantd.run(&["health", "--set", &told]).await;
    assert_eq!(unhealthy.status.code(), Some(1));
    let said = unhealthy.stderr;
    assert!(said.contains("the configuration cannot be read") && said.contains("grantd.toml"), "{said}");
}

#[tokio::test]
async fn a_secret_that_is_too_long_is_refused_and_not_cut() {
    let grantd = Grantd::new(&Db::sqlite());
    grantd.ok(&["client", "create", "a", "--no-secret"]).await;
    for arguments in [&["hash-secret"][..], &["client", "secret", "import", "a"]] {
        let done = grantd.run_with_input(arguments, &"x".repeat(9000)).await;
        assert!(done.status.code() == Some(1) && done.stderr.contains("at most 4096 bytes"), "{arguments:?}: {done:?}");
        assert_eq!(done.stdout, "");
        let done = grantd.run_with_input(arguments, &"x".repeat(4096)).await;
        assert!(done.status.success(), "{arguments:?}: {done:?}");
    }
    let long = grantd.run_with_input(&["token", "inspect"], &"x".repeat(70_000)).await;
    assert!(long.status.code() == Some(1) && long.stderr.contains("at most 65536 bytes"), "{long:?}");
}

#[tokio::test]
async fn rotated_credentials_of_the_database_are_used_without_a_restart() {
    let db = Db::postgres().await;
    Grantd::new(&db).ok(&["migrate"]).await;
    let name = db.url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    let (before, after) = (format!("{name}_before"), format!("{name}_after"));
    let url = |role: &str| {
        let (scheme, rest) = db.url.split_once("://").unwrap();
        format!("{scheme}://{role}@{}\n", rest.rsplit_once('@').map_or(rest, |(_, place)| place))
    };
    let file = db.file("database_url", &url(&before));
    db.sql(&format!("create role {before} login superuser")).await.unwrap();
    let owner = Grantd::new(&db);
    let served = owner.with("GRANTD__DATABASE__URL", "").with("GRANTD__DATABASE__URL_FILE", file.to_str().unwrap());
    let mut daemon = Daemon::start(served.command(&["serve"]), false).await;

    // The file is ahead of the database: what is in use stays in use.
    std::fs::write(&file, url(&after)).unwrap();
    eventually(async || daemon.events("database.credentials"), |events| !events.is_empty()).await;
    assert_eq!(daemon.admin_get("/readyz").await.status, 200);
    db.sql(&format!(
        "create role {after} login superuser; alter role {before} nologin; select pg_terminate_backend(pid) from pg_stat_activity where usename = '{before}'"
    ))
    .await
    .unwrap();
    daemon.reload();
    eventually(
        async || daemon.events("database.credentials"),
        |events| events.iter().any(|event| event["level"] == "INFO"),
    )
    .await;
    let created = owner.json(&["client", "create", "later", "--scope", "a", "--default-scope", "a", "--json"]).await;
    let secret = created["client_secret"].as_str().unwrap();
    eventually(async || daemon.token("later", secret).await, |answer| answer.status == 200).await;

    // Another database is not a rotation, and an empty file is a secret that is not there yet.
    let events = daemon.events("database.credentials").len();
    std::fs::write(&file, url(&after).replace(&name, "postgres")).unwrap();
    let warned = eventually(async || daemon.events("database.credentials"), |all| all.len() > events).await;
    assert!(warned.last().unwrap()["reason"].as_str().unwrap().contains("restart"), "{warned:?}");
    std::fs::write(&file, "\n").unwrap();
    daemon.reload();
    let warned = eventually(async || daemon.events("database.credentials"), |all| all.len() > events + 1).await;
    assert!(warned.last().unwrap()["reason"].as_str().unwrap().contains("empty"), "{warned:?}");
    assert_eq!(daemon.admin_get("/readyz").await.status, 200);
    daemon.stop_cleanly(Duration::from_secs(5)).await;
    db.sql(&format!("drop role {before}; drop role {after}")).await.unwrap();
}
