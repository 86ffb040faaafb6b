//! Settings as they are written: defaults, file, environment, flags, in this order, the last one wins.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat};
use secrecy::SecretString;
use serde::Deserialize;

use super::ConfigError;

/// Every key. `config/grantd.toml` documents each at its default, and a test compares the two.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "config/grantd.toml says what each key means, and a test keeps it complete")]
pub struct Settings {
    pub issuer: String,
    pub data_dir: PathBuf,
    pub openid_configuration: bool,
    pub profile: String,
    pub server: Server,
    pub admin: Admin,
    pub database: DatabaseSettings,
    pub registry: RegistrySettings,
    pub token: Token,
    pub dpop: DpopSettings,
    pub keys: Keys,
    pub secrets: Secrets,
    pub clients: Clients,
    pub log: Log,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty = $default:expr),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $(pub $key: $type),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default),* }
            }
        }
    };
}

section!(
    /// `[server]`.
    Server {
        listen: String = "127.0.0.1:8080".into(),
        cleartext: String = "loopback".into(),
        trusted_proxies: Vec<String> = Vec::new(),
        client_cert_header: bool = false,
        max_connections: u32 = 10_000,
        overload_delay: String = "250ms".into(),
        tls: TlsSettings = TlsSettings::default(),
        mtls: Mtls = Mtls::default(),
        deadlines: DeadlineSettings = DeadlineSettings::default(),
    }
);
section!(
    /// `[server.tls]`.
    TlsSettings { cert_file: PathBuf = PathBuf::new(), key_file: PathBuf = PathBuf::new() }
);
section!(
    /// `[server.mtls]`.
    Mtls {
        listen: String = String::new(),
        public_url: String = String::new(),
        cert_file: PathBuf = PathBuf::new(),
        key_file: PathBuf = PathBuf::new(),
        client_ca_file: PathBuf = PathBuf::new(),
        client_crl_file: PathBuf = PathBuf::new(),
    }
);
section!(
    /// `[server.deadlines]`.
    DeadlineSettings {
        first_byte: String = "10s".into(),
        head: String = "10s".into(),
        body: String = "5s".into(),
        idle: String = "75s".into(),
        write: String = "10s".into(),
        drain_delay: String = "1s".into(),
        drain: String = "7s".into(),
    }
);
section!(
    /// `[admin]`.
    Admin { listen: String = "127.0.0.1:9090".into() }
);
section!(
    /// `[database]`.
    DatabaseSettings {
        url: Option<SecretString> = None,
        url_file: PathBuf = PathBuf::new(),
        seeds: PathBuf = PathBuf::new(),
        auto_migrate: Option<bool> = None,
        max_connections: u32 = 5,
        max_clock_skew: String = "30s".into(),
    }
);
section!(
    /// `[registry]`.
    RegistrySettings { max_stale: String = "15m".into(), poll: String = "250ms".into() }
);
section!(
    /// `[token]`.
    Token { ttl: String = "1h".into(), alg: String = "ES256".into(), audience: String = String::new() }
);
section!(
    /// `[dpop]`.
    DpopSettings { require_nonce: bool = false }
);
section!(
    /// `[keys]`.
    Keys { sealing_key_file: PathBuf = PathBuf::new() }
);
section!(
    /// `[secrets]`.
    Secrets {
        argon2: String = "m=19456,t=2,p=1".into(),
        threads: u8 = 0,
        queue: u16 = 256,
        basic_reading: String = "tolerant".into(),
    }
);
section!(
    /// `[clients]`.
    Clients { jwks_uri_allow: Vec<String> = Vec::new(), jwks_uri_ca_file: PathBuf = PathBuf::new() }
);
section!(
    /// `[log]`.
    Log { format: String = "auto".into() }
);

impl Default for Settings {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            data_dir: "grantd-data".into(),
            openid_configuration: true,
            profile: "default".into(),
            server: Server::default(),
            admin: Admin::default(),
            database: DatabaseSettings::default(),
            registry: RegistrySettings::default(),
            token: Token::default(),
            dpop: DpopSettings::default(),
            keys: Keys::default(),
            secrets: Secrets::default(),
            clients: Clients::default(),
            log: Log::default(),
        }
    }
}

/// Where settings come from. The environment is handed in; it may hold secrets, so there is no `Debug`.
#[derive(Default)]
pub struct Sources {
    /// The file, when there is one.
    pub file: Option<PathBuf>,
    /// `--set KEY=VALUE`.
    pub flags: Vec<(String, String)>,
    /// The process's environment.
    pub environment: HashMap<String, String>,
}

impl Sources {
    /// Finds the file: `--config`, else `GRANTD_CONFIG`, else `/etc/grantd/grantd.toml`, else `./grantd.toml`, else none.
    ///
    /// # Errors
    /// When one was named and is not there, or a flag would put a secret where every process can read it.
    pub fn find(
        named: Option<&Path>,
        flags: Vec<(String, String)>,
        environment: HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let wrong = |key: &str, remedy: String| ConfigError { key: key.into(), origin: "command line".into(), remedy };
        if flags.iter().any(|(key, _)| key == "database.url") {
            return Err(wrong(
                "database.url",
                "arguments can be read by every process; use GRANTD__DATABASE__URL or database.url_file".into(),
            ));
        }
        let named = named
            .map(Path::to_owned)
            .or_else(|| environment.get("GRANTD_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        let file = match named {
            Some(path) if path.exists() => Some(path),
            Some(path) => {
                return Err(ConfigError {
                    key: String::new(),
                    origin: path.display().to_string(),
                    remedy: "there is no such file".into(),
                });
            }
            None => {
                ["/etc/grantd/grantd.toml", "grantd.toml"].map(PathBuf::from).into_iter().find(|path| path.exists())
            }
        };
        Ok(Self { file, flags, environment })
    }

    /// Reads all sources into settings.
    ///
    /// # Errors
    /// An unknown key, with the valid ones, or a value of the wrong type.
    pub fn read(&self) -> Result<Settings, ConfigError> {
        let mut builder = config::Config::builder();
        if let Some(file) = &self.file {
            builder = builder.add_source(File::from(file.as_path()).format(FileFormat::Toml));
        }
        let prefixed = self.environment.iter().filter(|(name, _)| name.starts_with("GRANTD__"));
        builder = builder.add_source(
            Environment::with_prefix("GRANTD")
                .prefix_separator("__")
                .separator("__")
                .ignore_empty(true)
                .try_parsing(true)
                .list_separator(",")
                .with_list_parse_key("server.trusted_proxies")
                .with_list_parse_key("clients.jwks_uri_allow")
                .source(Some(prefixed.map(|(name, value)| (name.clone(), value.clone())).collect())),
        );
        let fault = |error: &dyn std::fmt::Display| ConfigError {
            key: String::new(),
            origin: self.whole_origin(),
            remedy: without_quotations(&error.to_string()),
        };
        for (key, value) in &self.flags {
            let value: config::Value = match (key.as_str(), value.as_str()) {
                ("server.trusted_proxies" | "clients.jwks_uri_allow", list) => {
                    list.split(',').map(str::to_owned).collect::<Vec<_>>().into()
                }
                (_, "true") => true.into(),
                (_, "false") => false.into(),
                (_, text) => text.into(),
            };
            builder = builder.set_override(key, value).map_err(|error| fault(&error))?;
        }
        builder.build().and_then(config::Config::try_deserialize).map_err(|error| fault(&error))
    }

    /// Where the value of a key comes from.
    #[must_use]
    pub fn origin(&self, key: &str) -> String {
        let variable = format!("GRANTD__{}", key.to_uppercase().replace('.', "__"));
        if self.flags.iter().any(|(flag, _)| flag == key) {
            "command line".into()
        } else if self.environment.keys().any(|name| name.starts_with(&variable)) {
            format!("environment, {variable}")
        } else if key == "database.url" && self.database_url().is_some() {
            "environment, DATABASE_URL".into()
        } else {
            self.file.as_ref().map_or_else(|| "no configuration file".into(), |file| file.display().to_string())
        }
    }

    /// The habit of many tools, when `database.url` is absent.
    #[must_use]
    pub fn database_url(&self) -> Option<String> {
        self.environment.get("DATABASE_URL").filter(|url| !url.is_empty()).cloned()
    }

    fn whole_origin(&self) -> String {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        let environment = self
            .environment
            .keys()
            .any(|name| name.starts_with("GRANTD__"))
            .then(|| "environment GRANTD__*".to_owned());
        file.into_iter().chain(environment).collect::<Vec<_>>().join(", ")
    }
}

/// A parser quotes the line that it stumbled over, and that line may hold a password.
fn without_quotations(message: &str) -> String {
    message.lines().filter(|line| !line.contains('|')).collect::<Vec<_>>().join(": ")
}
