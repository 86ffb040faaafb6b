//! `grantd config`: checks the configuration, and prints it without secrets.

use std::path::PathBuf;

use serde_json::{Value, json};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::Shell;
use crate::config::{Config, ConfigError, SealingKeySource};
use crate::model::issuer::Issuer;
use crate::model::time::Span;
use crate::serve::clients::{fetcher, mutual_tls};
use crate::serve::prepare::{check_room, is_absent};
use crate::serve::sealing_key;
use crate::store::Database;
use crate::store::servers::Servers;
use crate::transport::tls::Tls;

/// Reads the files that the configuration names, as `serve` does, and creates none.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    let wrong =
        |key: &str, remedy: String| ConfigError { key: key.to_owned(), origin: "as configured".to_owned(), remedy };
    config.tls.clone().map(Tls::load).transpose().map_err(|error| wrong("server.tls", error.to_string()))?;
    check_room(config)?;
    mutual_tls(config)?;
    fetcher(config)?;
    match &config.sealing.source {
        // Only a missing sealing key may be made; one that cannot be reached is a fault.
        SealingKeySource::File { path, may_be_made: true } if is_absent(path) => {}
        SealingKeySource::File { .. } => drop(sealing_key::read(&config.sealing)?),
        // A check runs no program and asks no KMS.
        SealingKeySource::Command { .. } => {}
    }
    if let Some(seeds) = &config.seeds {
        std::fs::read_dir(seeds).map_err(|error| wrong("database.seeds", format!("{}: {error}", seeds.display())))?;
    }
    Ok(())
}

pub(super) fn print(shell: &Shell) -> anyhow::Result<()> {
    let config = shell.config()?;
    let database = match &config.database {
        Database::Sqlite(path) => format!("sqlite:{}", path.display()),
        Database::Postgres(servers) => postgres(servers),
    };
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let issuer = config.issuer.clone().unwrap_or_default();
    let clients = &config.client_certificates;
    let mtls = clients.mtls.as_ref();
    let seconds = |duration: std::time::Duration| format!("{}s", duration.as_secs());
    let value = json!({
        "issuer": issuer.as_str(),
        "data_dir": config.data_dir,
        "openid_configuration": config.openid_configuration,
        "profile": config.profile.as_str(),
        "server": {
            "listen": config.listen, "cleartext": shell.settings.server.cleartext, "max_connections": config.max_connections,
            "overload_delay": humantime::format_duration(config.overload_delay).to_string(),
            "trusted_proxies": config.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "tls": {"cert_file": config.tls.as_ref().map(|tls| &tls.cert), "key_file": config.tls.as_ref().map(|tls| &tls.key)},
            "client_cert_header": clients.header,
            "mtls": {
                "listen": mtls.map(|mtls| mtls.listen), "public_url": mtls.and_then(|mtls| mtls.public_url.as_ref()).map(Issuer::as_str),
                "cert_file": mtls.map(|mtls| &mtls.files.cert), "key_file": mtls.map(|mtls| &mtls.files.key),
                "client_ca_file": path(&clients.files.ca), "client_crl_file": path(&clients.files.crl),
            },
            "deadlines": {
                "first_byte": seconds(config.deadlines.first_byte), "head": seconds(config.deadlines.head),
                "body": seconds(config.body_deadline), "idle": seconds(config.deadlines.idle), "write": seconds(config.deadlines.write),
                "drain_delay": seconds(config.drain_delay), "drain": seconds(config.deadlines.drain),
            },
        },
        "admin": {"listen": config.admin_listen},
        "database": {
            "url": database, "seeds": path(&config.seeds), "auto_migrate": config.auto_migrate,
            "max_connections": config.database_max_connections, "pooling": shell.settings.database.pooling,
            "max_clock_skew": humantime::format_duration(config.registry.max_clock_skew).to_string(),
        },
        "registry": {
            "max_stale": humantime::format_duration(config.registry.max_stale).to_string(),
            "poll": humantime::format_duration(config.registry.poll).to_string(),
            "reload": humantime::format_duration(config.registry.reload).to_string(),
            "rewrite_lost_revocations": config.registry.rewrite_lost_revocations,
        },
        "token": {"ttl": config.token_ttl.to_string(), "alg": shell.settings.token.alg, "audience": config.defaults(&issuer).audience, "status_ttl": config.status_ttl.to_string()},
        "dpop": {"require_nonce": config.dpop_require_nonce},
        "keys": {
            "rotate_every": config.rotate_every.map_or_else(|| "never".to_owned(), |every| every.to_string()),
            "sealing_key_file": config.sealing.file(),
            "sealing_key_command": Some(&shell.settings.keys.sealing_key_command).filter(|words| !words.is_empty()),
            "sealing_key_previous_file": path(&config.sealing.previous_file),
            "pkcs11_module": config.pkcs11.as_ref().map(|pkcs11| &pkcs11.module),
            "pkcs11_pin_file": config.pkcs11.as_ref().and_then(|pkcs11| pkcs11.pin_file.as_ref()),
        },
        "secrets": {
            "argon2": config.argon2.to_string(), "max_age": config.secret_max_age.map(|age| Span::from(age).to_string()), "threads": config.hashing_threads, "queue": config.hashing_queue,
            "basic_reading": config.basic_reading,
        },
        "clients": {
            "jwks_uri_allow": shell.settings.clients.jwks_uri_allow, "jwks_uri_ca_file": path(&config.jwks_uri_ca_file),
        },
        "log": {"format": config.log_format},
    });
    shell.print(&value, || flat(&value, ""))
}

/// Returns the database URL in force, without the password.
fn postgres(servers: &Servers) -> String {
    let options = &servers.first;
    let place = |options: &PgConnectOptions| {
        let (host, port) = (options.get_host(), options.get_port());
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    };
    let (places, socket) = match options.get_socket() {
        Some(directory) => (String::new(), format!("host={}&port={}&", directory.display(), options.get_port())),
        None => (servers.all().map(place).collect::<Vec<_>>().join(","), String::new()),
    };
    let writable = if servers.writable_only { "&target_session_attrs=read-write" } else { "" };
    format!(
        "postgres://{}:[redacted]@{places}/{}?{socket}sslmode={}{writable}",
        options.get_username(),
        options.get_database().unwrap_or_default(),
        ssl_mode(options.get_ssl_mode())
    )
}

/// Writes one line `a.b = value` for each value.
fn flat(value: &Value, under: &str) -> String {
    let Value::Object(members) = value else { return format!("{under} = {value}\n") };
    let key = |name: &str| if under.is_empty() { name.to_owned() } else { format!("{under}.{name}") };
    members.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| flat(value, &key(name))).collect()
}

fn ssl_mode(mode: PgSslMode) -> &'static str {
    match mode {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    }
}
