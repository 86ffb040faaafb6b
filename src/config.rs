//! Configuration: [`Settings`] as written, parsed once into a [`Config`] that is complete and not insecure.

mod database;
mod file;
mod keys;
mod listening;
mod pkcs11;
mod postgres_url;
mod registry;
mod sealing;
mod settings;
mod sources;
mod tokens;

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::crypto::jwk::Alg;
use crate::crypto::secret::HashParams;
use crate::http::credentials::BasicReading;
use crate::model::issuer::Issuer;
use crate::model::lifetime::{ExpiresIn, LifetimeError};
use crate::model::profile::Profile;
use crate::model::time::{Span, SpanError};
use crate::protocol::grant::Defaults;
use crate::state::registry::RegistryOptions;
use crate::store::Database;
use crate::transport::fetch::{AllowedTarget, is_ipv4_mapped};
use crate::transport::listener::Deadlines;
use crate::transport::tls::Files;

pub use database::{UrlFile, database_at};
pub use file::user;
pub use listening::{ClientCertificates, Mtls};
pub use pkcs11::Pkcs11Settings;
pub use sealing::{SealingKeySource, SealingSettings};
pub use settings::Settings;
pub use sources::Sources;

use database::DatabaseChoice;
use listening::PublicListener;

/// Parsed configuration.
#[derive(Debug)]
pub struct Config {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// `issuer`; `None` when it is not set, which only a listener on loopback accepts.
    pub issuer: Option<Issuer>,
    /// `data_dir`: directory of the embedded database and its sealing key.
    pub data_dir: PathBuf,
    /// `openid_configuration`: whether the metadata is also served where OpenID Connect clients look.
    pub openid_configuration: bool,
    /// `profile`: the security profile.
    pub profile: Profile,
    /// `server.listen`: address of the public listener.
    pub listen: SocketAddr,
    /// `server.tls`: certificate and key of the public listener.
    pub tls: Option<Files>,
    /// Ways in which client certificates arrive.
    pub client_certificates: ClientCertificates,
    /// `clients.jwks_uri_allow`: hosts and networks outside the public internet that a `jwks_uri` may name.
    pub jwks_uri_allow: Vec<AllowedTarget>,
    /// `clients.jwks_uri_ca_file`: further CAs of the hosts of `jwks_uri`.
    pub jwks_uri_ca_file: Option<PathBuf>,
    /// `server.trusted_proxies`: proxies whose statements about the client are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether `server.cleartext` is `behind-proxy`: a proxy in front terminates TLS.
    pub behind_proxy: bool,
    /// `server.max_connections`: maximum number of public connections.
    pub max_connections: u32,
    /// `server.overload_delay`: standing delay above which requests are refused.
    pub overload_delay: Duration,
    /// `server.deadlines`: deadlines of a connection.
    pub deadlines: Deadlines,
    /// `server.deadlines.body`: deadline of a request body.
    pub body_deadline: Duration,
    /// `server.deadlines.drain_delay`: time from the signal to stop until connections are refused; the process is not
    /// ready then.
    pub drain_delay: Duration,
    /// `admin.listen`: address of the admin listener.
    pub admin_listen: SocketAddr,
    /// Location of the database.
    pub database: Database,
    /// Whether no setting names the database.
    pub database_by_default: bool,
    /// `database.url_file`: file with the database URL. It is read again, since the password may be rotated.
    pub database_url_file: Option<UrlFile>,
    /// `database.max_connections`: maximum number of pooled connections.
    pub database_max_connections: u32,
    /// `database.seeds`: directory of seeds.
    pub seeds: Option<PathBuf>,
    /// `database.auto_migrate`: whether `serve` applies schema and seeds.
    pub auto_migrate: bool,
    /// `registry`: options of following the database.
    pub registry: RegistryOptions,
    /// `token.ttl`: default lifetime of tokens.
    pub token_ttl: Span,
    /// `token.alg`: signing algorithm of tokens for resources that name none.
    pub token_alg: Alg,
    /// Whether Ed25519 has that name (RFC 9864) instead of `EdDSA`.
    pub fully_specified: bool,
    /// `token.audience`: audience of tokens for clients without resources; `None` for the issuer.
    pub token_audience: Option<String>,
    /// `token.status_ttl`: time for which a verifier may keep the status list.
    pub status_ttl: Span,
    /// `dpop.require_nonce`: whether a DPoP proof must carry a nonce of this server.
    pub dpop_require_nonce: bool,
    /// `keys.rotate_every`: time for which a key signs; `None` for `never`.
    pub rotate_every: Option<Span>,
    /// `keys.sealing_key_…`: sources of the key that seals private keys, and of the one before it.
    pub sealing: SealingSettings,
    /// `keys.pkcs11_…`: the module in which attached keys are.
    pub pkcs11: Option<Pkcs11Settings>,
    /// `secrets.argon2`: cost of new hashes.
    pub argon2: HashParams,
    /// `secrets.max_age`: longest lifetime of new secrets.
    pub secret_max_age: Option<ExpiresIn>,
    /// `secrets.threads`: threads of the argon2 lane.
    pub hashing_threads: usize,
    /// `secrets.queue`: capacity of the lane's queue; 0 for as many secrets as are verified in half a minute.
    pub hashing_queue: usize,
    /// `secrets.basic_reading`: reading of Basic credentials.
    pub basic_reading: BasicReading,
    /// `log.format`: format of the log.
    pub log_format: LogFormat,
}

/// Format of the log (`log.format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object per line.
    Json,
    /// Text.
    Text,
}

/// Error of a setting: its key, its source, and what to write instead.
#[derive(Debug)]
pub struct ConfigError {
    /// The key, such as `server.listen`; empty for an error of the whole file.
    pub key: String,
    /// The source: a file, the environment or the command line.
    pub origin: String,
    /// The fault, and what to write instead.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), self.origin.as_str()) {
            ("", "") => write!(f, "configuration: {}", self.remedy),
            ("", origin) => write!(f, "configuration: {origin}: {}", self.remedy),
            (key, origin) => write!(f, "configuration: {key} ({origin}): {}", self.remedy),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Parses settings.
    ///
    /// # Errors
    /// The first setting that is malformed, insecure or missing.
    pub fn parse(settings: &Settings, sources: &Sources) -> Result<Self, ConfigError> {
        let at = |key: &'static str| SettingRef { key, sources };
        let server = &settings.server;
        let profile =
            at("profile").one_of(&settings.profile, &[("default", Profile::Default), ("fapi2", Profile::Fapi2)])?;
        let PublicListener { listen, tls, issuer } = listening::public(settings, sources, profile)?;
        let DatabaseChoice { database, by_default: database_by_default, url_file: database_url_file } =
            database::database(settings, sources)?;
        let embedded = matches!(database, Database::Sqlite(_));
        let sealing = SealingSettings::parse(settings, sources, embedded)?;
        let optional = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
        let client_certificates = listening::client_certificates(settings, sources)?;
        let admin_listen =
            at("admin.listen").parse(&settings.admin.listen, "an address and a port, such as 127.0.0.1:9090")?;
        listening::apart(listen, admin_listen, client_certificates.mtls.as_ref(), sources)?;
        let limits = &server.deadlines;
        let (token_alg, fully_specified) = tokens::alg(settings, profile, sources)?;
        let deadline = |key: &'static str, text: &str| at(key).span(text).map(Span::duration);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            file: sources.file.clone(),
            issuer,
            data_dir: settings.data_dir.clone(),
            openid_configuration: settings.openid_configuration,
            profile,
            listen,
            tls,
            trusted_proxies: at("server.trusted_proxies").each(
                &server.trusted_proxies,
                "an address or a network, such as 10.0.0.0/8 or 192.0.2.7; an IPv4 address is written without ::ffff: before it",
                |net| {
                    let net = net.parse().ok().or_else(|| net.parse().ok().map(|ip: IpAddr| ip.into()));
                    net.filter(|net| !is_ipv4_mapped(net))
                },
            )?,
            client_certificates,
            jwks_uri_allow: at("clients.jwks_uri_allow").each(
                &settings.clients.jwks_uri_allow,
                "an address, a network or a host name, such as 10.0.0.0/8 or keys.internal; an IPv4 address is written without ::ffff: before it",
                AllowedTarget::parse,
            )?,
            jwks_uri_ca_file: optional(&settings.clients.jwks_uri_ca_file),
            behind_proxy: server.cleartext == "behind-proxy",
            max_connections: at("server.max_connections").in_range(server.max_connections, 1, 1_000_000)?,
            overload_delay: at("server.overload_delay").delay(&server.overload_delay)?,
            deadlines: Deadlines {
                first_byte: deadline("server.deadlines.first_byte", &limits.first_byte)?,
                head: deadline("server.deadlines.head", &limits.head)?,
                idle: deadline("server.deadlines.idle", &limits.idle)?,
                write: deadline("server.deadlines.write", &limits.write)?,
                drain: deadline("server.deadlines.drain", &limits.drain)?,
            },
            body_deadline: deadline("server.deadlines.body", &limits.body)?,
            drain_delay: deadline("server.deadlines.drain_delay", &limits.drain_delay)?,
            admin_listen,
            database,
            database_by_default,
            database_url_file,
            database_max_connections: at("database.max_connections").in_range(
                settings.database.max_connections,
                2,
                1000,
            )?,
            seeds: optional(&settings.database.seeds),
            auto_migrate: settings.database.auto_migrate.unwrap_or(embedded),
            registry: registry::registry(settings, sources)?,
            token_ttl: tokens::ttl(settings, sources)?,
            token_alg,
            fully_specified,
            token_audience: Some(settings.token.audience.clone()).filter(|audience| !audience.is_empty()),
            status_ttl: tokens::status_ttl(settings, sources)?,
            dpop_require_nonce: settings.dpop.require_nonce,
            rotate_every: at("keys.rotate_every").rotation(&settings.keys.rotate_every)?,
            sealing,
            pkcs11: Pkcs11Settings::parse(settings, sources)?,
            argon2: Self::argon2(settings, sources)?,
            secret_max_age: at("secrets.max_age").lifetime(&settings.secrets.max_age)?,
            // More threads would only wait for memory.
            hashing_threads: match settings.secrets.threads {
                0 => cores.min(8),
                threads => usize::from(threads),
            },
            hashing_queue: at("secrets.queue").in_range(u32::from(settings.secrets.queue), 0, 65535)? as usize,
            basic_reading: at("secrets.basic_reading").one_of(
                &settings.secrets.basic_reading,
                &[("tolerant", BasicReading::Tolerant), ("strict", BasicReading::Strict)],
            )?,
            log_format: at("log.format").one_of(
                &settings.log.format,
                &[("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)],
            )?,
        })
    }

    /// Parses the cost of new hashes alone, whatever is wrong with other settings.
    ///
    /// # Errors
    /// When the setting is malformed, below the minimum or above the maximum.
    pub fn argon2(settings: &Settings, sources: &Sources) -> Result<HashParams, ConfigError> {
        HashParams::from_str(&settings.secrets.argon2).map_err(|error| {
            SettingRef { key: "secrets.argon2", sources }.wrong(&format!("{error}; write \"m=19456,t=2,p=1\" or more"))
        })
    }

    /// Returns the issuer, or the default for the bound address when none is set.
    #[must_use]
    pub fn issuer_or(&self, bound: SocketAddr) -> Issuer {
        let default = || format!("http://{bound}").parse::<Issuer>();
        self.issuer.clone().map_or_else(default, Ok).unwrap_or_default()
    }

    /// Returns the defaults of tokens.
    #[must_use]
    pub fn defaults(&self, issuer: &Issuer) -> Defaults {
        let audience = self.token_audience.as_deref().unwrap_or(issuer.as_str());
        Defaults { audience: audience.into(), ttl: self.token_ttl, alg: self.token_alg }
    }
}

#[derive(Clone, Copy)]
struct SettingRef<'a> {
    key: &'static str,
    sources: &'a Sources,
}

impl SettingRef<'_> {
    fn wrong(&self, remedy: &str) -> ConfigError {
        ConfigError { key: self.key.to_owned(), origin: self.sources.origin(self.key), remedy: remedy.to_owned() }
    }

    fn parse<T: FromStr>(&self, text: &str, expected: &str) -> Result<T, ConfigError> {
        text.parse().map_err(|_| self.wrong(&format!("`{text}` is not {expected}")))
    }

    /// Parses each entry of a list. An error names the entry.
    fn each<T>(
        &self,
        entries: &[String],
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let parsed = |entry: &String| {
            let separate = if entry.contains(char::is_whitespace) {
                "; it has a space in it: separate entries by commas, or by quotes and commas in the file"
            } else {
                ""
            };
            parse(entry).ok_or_else(|| self.wrong(&format!("`{entry}` is not {expected}{separate}")))
        };
        entries.iter().map(parsed).collect()
    }

    fn span(&self, text: &str) -> Result<Span, ConfigError> {
        text.parse().map_err(|error: SpanError| self.wrong(&error.to_string()))
    }

    /// Parses a lifetime; empty for none.
    fn lifetime(&self, text: &str) -> Result<Option<ExpiresIn>, ConfigError> {
        let text = Some(text).filter(|text| !text.is_empty());
        text.map(|text| text.parse().map_err(|error: LifetimeError| self.wrong(&error.to_string()))).transpose()
    }

    /// Parses a time from one rotation to the next.
    fn rotation(&self, text: &str) -> Result<Option<Span>, ConfigError> {
        match text {
            "never" => Ok(None),
            _ => match self.span(text)? {
                every if every.seconds() >= 3600 => Ok(Some(every)),
                _ => Err(self.wrong("write at least 1h, or never")),
            },
        }
    }

    /// Parses a delay from 10 ms to 60 s.
    fn delay(&self, text: &str) -> Result<Duration, ConfigError> {
        let delay = humantime::parse_duration(text).ok();
        delay
            .filter(|delay| (Duration::from_millis(10)..=Duration::from_mins(1)).contains(delay))
            .ok_or_else(|| self.wrong(&format!("`{text}` is not a delay from 10ms to 60s; write 250ms")))
    }

    fn one_of<T: Copy>(&self, text: &str, values: &[(&str, T)]) -> Result<T, ConfigError> {
        let names = || values.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let found = values.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        found.ok_or_else(|| self.wrong(&format!("`{text}` is not one of {}", names())))
    }

    fn in_range(&self, number: u32, least: u32, most: u32) -> Result<u32, ConfigError> {
        if (least..=most).contains(&number) {
            Ok(number)
        } else {
            Err(self.wrong(&format!("a number from {least} to {most}")))
        }
    }
}

/// Reads a secret from a file, without the line end.
///
/// # Errors
/// When the file cannot be read.
pub fn read_secret(path: &Path) -> std::io::Result<String> {
    Ok(fs::read_to_string(path)?.trim_end_matches(['\r', '\n']).to_owned())
}
