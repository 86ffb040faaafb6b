//! Settings as they are written, each key with its type and its default.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::Deserialize;

/// Type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string, as written.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number from 0 to this maximum.
    Number(u64),
    /// A list of strings: an array in the file, separated by commas elsewhere.
    List,
}

/// A section or a value that lists its keys by dotted name.
pub(super) trait ListKeys {
    fn list(name: &str, keys: &mut Vec<(String, Kind)>);
}

macro_rules! kinds {
    ($($type:ty: $kind:expr),* $(,)?) => {
        $(impl ListKeys for $type {
            fn list(name: &str, keys: &mut Vec<(String, Kind)>) {
                keys.push((name.to_owned(), $kind));
            }
        })*
    };
}

kinds!(
    String: Kind::Text,
    PathBuf: Kind::Text,
    Option<SecretString>: Kind::Text,
    bool: Kind::Flag,
    Option<bool>: Kind::Flag,
    u8: Kind::Number(u64::from(u8::MAX)),
    u16: Kind::Number(u64::from(u16::MAX)),
    u32: Kind::Number(u64::from(u32::MAX)),
    Vec<String>: Kind::List,
);

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

        impl ListKeys for $name {
            fn list(name: &str, keys: &mut Vec<(String, Kind)>) {
                let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
                $(<$type as ListKeys>::list(&format!("{prefix}{}", stringify!($key)), keys);)*
            }
        }
    };
}

/// Returns every key with its type, in the order of `config/grantd.toml`.
pub(super) fn keys() -> Vec<(String, Kind)> {
    let mut keys = Vec::new();
    Settings::list("", &mut keys);
    keys
}

section!(
    /// All settings. `config/grantd.toml` documents each at its default, and a test compares the two.
    #[expect(missing_docs, reason = "config/grantd.toml says what each key means, and a test keeps it complete")]
    Settings {
        issuer: String = String::new(),
        data_dir: PathBuf = "grantd-data".into(),
        openid_configuration: bool = true,
        profile: String = "default".into(),
        server: Server = Server::default(),
        admin: Admin = Admin::default(),
        database: DatabaseSettings = DatabaseSettings::default(),
        registry: RegistrySettings = RegistrySettings::default(),
        token: Token = Token::default(),
        dpop: DpopSettings = DpopSettings::default(),
        keys: Keys = Keys::default(),
        secrets: Secrets = Secrets::default(),
        clients: Clients = Clients::default(),
        log: Log = Log::default(),
    }
);
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
        pooling: String = "session".into(),
        max_clock_skew: String = "30s".into(),
    }
);
section!(
    /// `[registry]`.
    RegistrySettings {
        max_stale: String = "15m".into(),
        poll: String = "250ms".into(),
        reload: String = "5m".into(),
        rewrite_lost_revocations: bool = true,
    }
);
section!(
    /// `[token]`.
    Token {
        ttl: String = "1h".into(),
        alg: String = "ES256".into(),
        audience: String = String::new(),
        status_ttl: String = "30s".into(),
    }
);
section!(
    /// `[dpop]`.
    DpopSettings { require_nonce: bool = false }
);
section!(
    /// `[keys]`.
    Keys {
        rotate_every: String = "never".into(),
        sealing_key_file: PathBuf = PathBuf::new(),
        sealing_key_command: Vec<String> = Vec::new(),
        sealing_key_previous_file: PathBuf = PathBuf::new(),
        pkcs11_module: PathBuf = PathBuf::new(),
        pkcs11_pin_file: PathBuf = PathBuf::new(),
    }
);
section!(
    /// `[secrets]`.
    Secrets {
        argon2: String = "m=19456,t=2,p=1".into(),
        max_age: String = String::new(),
        threads: u8 = 0,
        queue: u16 = 0,
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
