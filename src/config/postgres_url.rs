//! PostgreSQL URLs in libpq's form, read strictly: a part that cannot be honoured is an error, and messages quote none.
//!
//! A raw `/ ? # @` in a password shifts the parts of the URL, so that pieces of the password become host, port or
//! parameter. An unknown parameter is therefore named only where this cannot have happened.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::store::servers::Servers;
use crate::transport::tls::{TlsError, pem_items};

/// Parses a URL of libpq's form, with defaults from PostgreSQL's environment variables.
pub(super) fn parse(url: &str, environment: &HashMap<String, String>) -> Result<Servers, String> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = rest else {
        return Err("write postgres://user:password@host/database?sslmode=verify-full, or sqlite:/path/to/file".into());
    };
    let mut parameters = Parameters::default();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let raw = |text: &str, marks: &[char]| {
        text.contains(marks) || text.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    if authority.matches('@').count() > 1 || raw(url, &['#']) || raw(path, &['@', '/']) || raw(query, &['@', '?']) {
        return Err(PERCENT_ENCODE.into());
    }
    let (user_info, host_port) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = match user_info.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user_info, None),
    };
    let (hosts, ports) = hosts_and_ports(host_port)?;
    for (name, text) in [
        ("user", user),
        ("password", password.unwrap_or_default()),
        ("host", &hosts),
        ("port", &ports),
        ("dbname", path),
    ] {
        if !text.is_empty() {
            parameters.named.insert(name, decoded(text)?);
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .ok_or("a parameter of the URL has no `=`; percent-encode ? and & in a password as %3F and %26")?;
        parameters.take(&decoded(name)?, decoded(value)?)?;
    }
    if parameters.ssl && !parameters.named.contains_key("sslmode") {
        parameters.named.insert("sslmode", "require".to_owned());
    }
    for (variable, name) in VARIABLES {
        if let Some(value) = environment.get(variable).filter(|value| !value.is_empty())
            && !parameters.named.contains_key(name)
        {
            parameters.take(name, value.clone()).map_err(|remedy| format!("{variable}: {remedy}"))?;
        }
    }
    parameters.servers()
}

/// Returns hosts and ports of `h1:p1,h2:p2`, each as a list with commas. A list without any port is empty.
fn hosts_and_ports(text: &str) -> Result<(String, String), String> {
    let pairs: Vec<(&str, &str)> = text.split(',').map(host_and_port).collect::<Result<_, _>>()?;
    let list = |parts: Vec<&str>| parts.join(",");
    let (hosts, ports): (Vec<&str>, Vec<&str>) = pairs.into_iter().unzip();
    let ports = if ports.iter().all(|port| port.is_empty()) { String::new() } else { list(ports) };
    Ok((list(hosts), ports))
}

/// Returns host, without brackets, and port, as written.
fn host_and_port(text: &str) -> Result<(&str, &str), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(inside) => {
            let (host, rest) = inside.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
            let address = host.split_once('%').map_or(host, |(address, _zone)| address);
            if address.parse::<Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return Err(
                    "what stands in brackets is not an IPv6 address, such as postgres://user@[2001:db8::1]:5432/name"
                        .into(),
                );
            }
            (host, rest.strip_prefix(':').unwrap_or_default())
        }
        None if text.matches(':').count() > 1 => {
            return Err("write an IPv6 address in brackets, such as postgres://user@[2001:db8::1]:5432/name; in a password, percent-encode / ? # @ as %2F %3F %23 %40".into());
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    Ok((host, port))
}

/// Decodes percent-encoding. A plus sign stays a plus sign, as in libpq.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.first_chunk::<2>().and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|&byte| byte != 0);
        bytes.push(escaped.ok_or("a % in the URL begins no escape; percent-encode it as %25")?);
        rest = after.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_| "an escape in the URL is not UTF-8".to_owned())
}

/// Decoded parameters of a URL, by libpq's names.
#[derive(Default)]
struct Parameters {
    named: BTreeMap<&'static str, String>,
    /// `ssl=true`, as JDBC writes it.
    ssl: bool,
    /// `target_session_attrs` of `read-write` or `primary`.
    writable_only: bool,
    connect_timeout: Option<Duration>,
}

impl Parameters {
    /// Adds one parameter, if it can be honoured.
    fn take(&mut self, name: &str, value: String) -> Result<(), String> {
        let refuse = |why: &str| Err(format!("the parameter {name} {why}"));
        if let Some(known) = PASSED_ON.iter().find(|(spelling, _)| *spelling == name).map(|(_, known)| *known) {
            let overrides = known == "host"
                && value.starts_with('/')
                && self.named.get("host").is_some_and(|host| host == "localhost");
            if self.named.contains_key(known) && !overrides {
                return refuse("repeats a part of the URL; remove one");
            }
            drop(self.named.insert(known, value));
            return Ok(());
        }
        if let Some(setting) = name.strip_prefix("options[").and_then(|name| name.strip_suffix(']'))
            && is_identifier(setting)
        {
            let options = self.named.entry("options").or_default();
            options.push_str(&format!(" -c {setting}={}", value.replace('\\', "\\\\").replace(' ', "\\ ")));
            return Ok(());
        }
        match (name, value.as_str()) {
            // Parameters that grantd honours by default.
            ("channel_binding" | "gssencmode", "disable" | "prefer")
            | ("target_session_attrs", "any")
            | ("sslnegotiation", "postgres")
            | ("sslcompression" | "requiressl", "0")
            | ("sslsni", "1")
            | ("keepalives", "0" | "1")
            | ("ssl_min_protocol_version", "TLSv1" | "TLSv1.1" | "TLSv1.2")
            | ("client_encoding", "UTF8" | "utf8" | "auto") => Ok(()),
            ("connect_timeout", seconds) => match seconds.parse::<u32>() {
                Ok(seconds) => {
                    self.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                    Ok(())
                }
                Err(_) => refuse("takes a number of seconds"),
            },
            // grantd notices a silent server as soon: every exchange ends after three seconds, an idle connection is
            // tested before its use, and the feed asks once a second.
            ("tcp_user_timeout", milliseconds) => match milliseconds.parse::<u32>() {
                Ok(0 | 3000..) => Ok(()),
                Ok(_) => refuse("is shorter than grantd's own deadline, 3000 ms; write 3000 or more, or remove it"),
                Err(_) => refuse("takes a number of milliseconds"),
            },
            ("keepalives_idle" | "keepalives_interval" | "keepalives_count", number) => {
                number.parse::<u32>().map(drop).or_else(|_| refuse("takes a number"))
            }
            ("keepalives", _) => refuse("takes 0 or 1"),
            ("target_session_attrs", "read-write" | "primary") => {
                self.writable_only = true;
                Ok(())
            }
            // libpq: "instances of parameter ssl=true are translated into sslmode=require".
            ("ssl", "true") | ("requiressl", "1") => {
                self.ssl = true;
                Ok(())
            }
            ("ssl", _) => refuse("takes true; otherwise write sslmode=disable, require or verify-full"),
            ("channel_binding", _) => refuse("cannot be obeyed: grantd does not bind channels. Remove it, and write sslmode=verify-full to be sure of the server"),
            ("target_session_attrs", _) => refuse("cannot be obeyed: grantd works on a server that takes writes; write read-write, primary or any"),
            ("passfile", _) => refuse("is not read from a URL; set PGPASSFILE, or write the whole URL into database.url_file"),
            ("sslpassword", _) => refuse("cannot be obeyed: grantd reads keys that are not encrypted. Name such a key in sslkey, and remove it"),
            (name, _) if is_known_to_libpq(name) => refuse("is not supported by grantd; remove it"),
            (name, _) if is_identifier(name) => Err(format!("unknown parameter {name}; the parameters are {}", NAMES.join(", "))),
            _ => Err("a parameter of the URL has no name that a parameter can have; percent-encode ? and & in a password as %3F and %26".to_owned()),
        }
    }

    fn servers(mut self) -> Result<Servers, String> {
        let list = |name: &str| self.named.get(name).map(|list| list.split(',').map(str::to_owned).collect());
        let (hosts, ports): (Vec<String>, Vec<String>) =
            (list("host").unwrap_or_default(), list("port").unwrap_or_default());
        let is_port = |port: &String| port.is_empty() || port.parse::<u16>().is_ok_and(|port| port != 0);
        if !ports.iter().all(is_port) || ports.len() == 1 && ports.first().is_some_and(String::is_empty) {
            return Err(format!("the port is not a number from 1 to 65535. {PERCENT_ENCODE}"));
        }
        if hosts.len() > 1 && hosts.iter().any(String::is_empty) {
            return Err("a host is missing between two commas".into());
        }
        if ports.len() > 1 && ports.len() != hosts.len() {
            return Err(format!(
                "there are {} hosts and {} ports; write one port, or as many",
                hosts.len(),
                ports.len()
            ));
        }
        if let Some(address) = self.named.get("hostaddr") {
            if self.named.contains_key("host") {
                return Err(
                    "write host or hostaddr, not both: a certificate is checked against the one that is connected to"
                        .into(),
                );
            }
            address.parse::<IpAddr>().map_err(|_| "hostaddr is not an IP address")?;
        }
        if let Some(capacity) = self.named.get("statement-cache-capacity") {
            capacity.parse::<usize>().map_err(|_| "statement-cache-capacity is not a number")?;
        }
        let mode = match self.named.get("sslmode").map(|mode| mode.parse::<PgSslMode>()) {
            None => PgSslMode::Prefer,
            Some(Ok(PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer)) if self.ssl => {
                return Err("ssl=true contradicts sslmode; remove one".into());
            }
            Some(Ok(mode)) => mode,
            Some(Err(_)) => {
                return Err("sslmode is one of disable, allow, prefer, require, verify-ca, verify-full".into());
            }
        };
        if let Some(root) = self.named.get("sslrootcert") {
            if root == "system" {
                return Err("sslrootcert=system is not supported; name the file of CAs, such as /etc/ssl/certs/ca-certificates.crt. Without it, sslmode=verify-full trusts the CAs of the public web".into());
            }
            pem_file("sslrootcert", root, |path| pem_items::<CertificateDer<'static>>(path).map(drop))?;
            match mode {
                PgSslMode::VerifyCa | PgSslMode::VerifyFull => {}
                // libpq: with a root certificate, require is verify-ca.
                PgSslMode::Require => drop(self.named.insert("sslmode", "verify-ca".to_owned())),
                _ => {
                    return Err(
                        "sslrootcert has no effect without sslmode=verify-full (or verify-ca); add one of them".into(),
                    );
                }
            }
        }
        match (self.named.get("sslcert"), self.named.get("sslkey")) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                pem_file("sslcert", cert, |path| pem_items::<CertificateDer<'static>>(path).map(drop))?;
                pem_file("sslkey", key, |path| pem_items::<PrivateKeyDer<'static>>(path).map(drop))?;
            }
            _ => return Err("write both sslcert and sslkey, or neither".into()),
        }
        let port_of = |position: usize| if ports.len() == 1 { ports.first() } else { ports.get(position) };
        let first = self.options(hosts.first(), port_of(0))?;
        let others =
            hosts.iter().enumerate().skip(1).map(|(position, host)| self.options(Some(host), port_of(position)));
        Ok(Servers {
            others: others.collect::<Result<_, _>>()?,
            writable_only: self.writable_only,
            connect_timeout: self.connect_timeout,
            ..Servers::from(first)
        })
    }

    /// Returns sqlx's options for one server.
    fn options(&self, host: Option<&String>, port: Option<&String>) -> Result<PgConnectOptions, String> {
        let others = self.named.iter().filter(|(name, _)| !matches!(**name, "host" | "port"));
        let place = [("host", host), ("port", port.filter(|port| !port.is_empty()))];
        let place = place.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        // Rewritten with everything encoded, so that sqlx cannot read it differently.
        let pairs: Vec<String> =
            others.chain(place).map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        // sqlx's message could quote the URL.
        format!("postgres:///?{}", pairs.join("&")).parse().map_err(|_| "not a PostgreSQL URL".to_owned())
    }
}

/// Checks a file that a parameter names. A value that is no path, such as a key itself, is not quoted.
fn pem_file(name: &str, path: &str, read: impl FnOnce(&Path) -> Result<(), TlsError>) -> Result<(), String> {
    if path.contains("-----") || path.contains(char::is_control) {
        return Err(format!("{name} takes the path of a file in PEM"));
    }
    // Checks first that it is a file: for a directory the PEM reader would report an empty file.
    fs::File::open(path).map_err(|error| format!("{name}: {path}: {error}"))?;
    read(Path::new(path)).map_err(|error| format!("{name}: {error}"))
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn is_identifier(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'))
}

fn is_known_to_libpq(name: &str) -> bool {
    const OTHERS: [&str; 22] = [
        "client_encoding",
        "fallback_application_name",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "krbsrvname",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "oauth_client_secret",
        "replication",
        "require_auth",
        "requirepeer",
        "requiressl",
        "service",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslsni",
    ];
    OTHERS.contains(&name)
        || matches!(name, "sslnegotiation" | "sslkeylogfile" | "scram_client_key" | "scram_server_key")
}

/// Spellings of parameters, each with the name that sqlx knows.
const PASSED_ON: [(&str, &str); 18] = [
    ("host", "host"),
    ("hostaddr", "hostaddr"),
    ("port", "port"),
    ("dbname", "dbname"),
    ("user", "user"),
    ("password", "password"),
    ("application_name", "application_name"),
    ("options", "options"),
    ("sslmode", "sslmode"),
    ("ssl-mode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("sslcert", "sslcert"),
    ("ssl-cert", "sslcert"),
    ("sslkey", "sslkey"),
    ("ssl-key", "sslkey"),
    ("statement-cache-capacity", "statement-cache-capacity"),
];

/// Parameters that the message about an unknown one lists.
const NAMES: [&str; 14] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "connect_timeout",
    "target_session_attrs",
    "application_name",
    "options",
];

/// libpq's environment variables that concern the security of a connection. sqlx reads some of them leniently, and
/// others not at all.
const VARIABLES: [(&str, &str); 14] = [
    ("PGPORT", "port"),
    ("PGSSLMODE", "sslmode"),
    ("PGREQUIRESSL", "requiressl"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
];

const PERCENT_ENCODE: &str =
    "In a user name or a password, percent-encode @ as %40, / as %2F, ? as %3F, # as %23, % as %25 and a space as %20";

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(url: &str) -> Servers {
        parse(url, &HashMap::new()).unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    fn parsed(url: &str) -> PgConnectOptions {
        servers(url).first
    }

    #[track_caller]
    fn refused(url: &str, parts: &[&str]) {
        let error = parse(url, &HashMap::new()).expect_err(url);
        for part in parts {
            assert!(error.contains(part), "{url}: wanted `{part}` in: {error}");
        }
        assert!(!error.contains("hunter2"), "{url}: {error}");
    }

    #[test]
    fn common_forms_of_postgresql_urls_are_read() {
        let plain = parsed("postgresql://u:p%40%2F%3F%23%25%20w@db.test:6432/name?sslmode=verify-full");
        assert_eq!((plain.get_username(), plain.get_host(), plain.get_port()), ("u", "db.test", 6432));
        assert_eq!((plain.get_database(), plain.get_ssl_mode() as u8), (Some("name"), PgSslMode::VerifyFull as u8));
        assert!(format!("{plain:?}").contains("p@/?#% w"));
        // Cloud SQL, and Prisma's spelling of it.
        for url in [
            "postgres://u:p@/name?host=/cloudsql/a:b:c",
            "postgres://u:p@localhost/name?host=/cloudsql/a:b:c",
            "postgres://u:p@%2Fcloudsql%2Fa%3Ab%3Ac/name",
            "postgres:///name?user=u&password=p&host=/cloudsql/a:b:c",
        ] {
            let socket = parsed(url);
            assert_eq!(socket.get_socket().unwrap(), Path::new("/cloudsql/a:b:c"), "{url}");
            assert_eq!((socket.get_username(), socket.get_database()), ("u", Some("name")), "{url}");
        }
        for url in [
            "postgres://u@[2001:db8::1]:6432/d",
            "postgres://u@/d?host=2001:db8::1&port=6432",
            "postgres://u@/d?hostaddr=2001:db8::1&port=6432",
        ] {
            let v6 = parsed(url);
            assert_eq!((v6.get_host(), v6.get_port()), ("2001:db8::1", 6432), "{url}");
        }
        assert_eq!(parsed("postgres://u@[fe80::1%25eth0]/d").get_host(), "fe80::1%eth0");
        // As in libpq, a plus sign is no space, and a colon ends the user name once.
        assert!(format!("{:?}", parsed("postgres://u:a:b+c@h/d")).contains("a:b+c"));
        assert_eq!(parsed("postgres://h/d?options=-c%20search_path%3Dauth").get_options(), Some("-c search_path=auth"));
        assert_eq!(parsed("postgres://h/d?options[search_path]=auth").get_options(), Some(" -c search_path=auth"));
        assert_eq!(parsed("postgres://h/d?application_name=as-1").get_application_name(), Some("as-1"));
    }

    #[test]
    fn a_raw_character_in_a_password_asks_for_percent_encoding_and_shows_nothing() {
        for password in [
            "hunter2@x",
            "hunter2/x",
            "hunter2?x",
            "hunter2#x",
            "12/hunter2",
            "12?hunter2",
            "12?hunter2=1",
            "12#hunter2",
            "?&hunter2=1&",
            "hunter2%x",
            "hunter2 x",
            "a?sslmode=hunter2",
            "[hunter2",
            "a:b/hunter2",
        ] {
            let url = format!("postgres://user:{password}@db.test/name");
            if password == "[hunter2" {
                parsed(&url);
            } else {
                refused(&url, &["percent-encode"]);
            }
        }
        refused("postgres://user@hunter2:pw@db.test/name", &["%40"]);
        refused("postgres://u:p@2001:db8::1/d", &["brackets", "[2001:db8::1]"]);
        refused("postgres://u:p@[hunter2]/d", &["IPv6"]);
        refused("postgres://u:p@h:hunter2/d", &["1 to 65535", "percent-encode"]);
        refused("postgres://u:p@h:0/d", &["1 to 65535"]);
        refused("postgres://u:hunter2@h1,,h2/d", &["host is missing"]);
        refused("postgres://u:hunter2@h1,h2/d?port=1,2,3", &["2 hosts and 3 ports"]);
        refused("postgres://u:hunter2@h1,h2:0/d", &["1 to 65535"]);
        refused("mysql://u:hunter2@h/d", &["postgres://"]);
        refused("jdbc:postgresql://h/d?password=hunter2", &["postgres://"]);
    }

    #[test]
    fn several_hosts_are_tried_in_their_order() {
        for (url, places) in [
            ("postgres://u:p@h1,h2,h3/d", "h1:5432 h2:5432 h3:5432"),
            ("postgres://u:p@h1:1,h2,[2001:db8::1]:3/d", "h1:1 h2:5432 2001:db8::1:3"),
            ("postgres://u:p@/d?host=h1,h2&port=7", "h1:7 h2:7"),
            ("postgres://u:p@/d?host=h1,h2&port=7,8", "h1:7 h2:8"),
            ("postgres://u:p@h/d", "h:5432"),
        ] {
            let servers = servers(url);
            let found: Vec<String> =
                servers.all().map(|one| format!("{}:{}", one.get_host(), one.get_port())).collect();
            assert_eq!(found.join(" "), places, "{url}");
            assert!(servers.all().all(|one| one.get_username() == "u" && one.get_database() == Some("d")));
            assert!(!servers.writable_only && servers.connect_timeout.is_none());
        }
        for attribute in ["read-write", "primary"] {
            let servers = servers(&format!("postgres://h1,h2/d?target_session_attrs={attribute}&connect_timeout=2"));
            assert!(servers.writable_only && servers.connect_timeout == Some(Duration::from_secs(2)));
        }
        assert_eq!(servers("postgres://h/d?connect_timeout=0").connect_timeout, None);
    }

    #[test]
    fn a_parameter_that_cannot_be_obeyed_is_refused_by_its_name() {
        for (parameter, part) in [
            ("sslpassword=hunter2", "sslpassword"),
            ("pasword=hunter2", "unknown parameter pasword"),
            ("Password=hunter2", "no name"),
            ("channel_binding=require", "channel_binding"),
            ("target_session_attrs=standby", "read-write, primary or any"),
            ("tcp_user_timeout=2000", "tcp_user_timeout"),
            ("keepalives=2", "keepalives"),
            ("keepalives_idle=hunter2", "keepalives_idle"),
            ("connect_timeout=hunter2", "connect_timeout"),
            ("require_auth=scram-sha-256", "require_auth"),
            ("sslcrl=/x", "sslcrl"),
            ("gssencmode=require", "gssencmode"),
            ("sslnegotiation=direct", "sslnegotiation"),
            ("ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version"),
            ("service=hunter2", "service"),
            ("passfile=/x", "PGPASSFILE"),
            ("ssl=maybe", "ssl"),
            ("sslmode=hunter2", "verify-full"),
            ("ssl=true&sslmode=prefer", "contradicts"),
            ("sslmode=disable&ssl=true", "contradicts"),
            ("user=hunter2", "user"),
            ("sslmode=require&sslmode=disable", "repeats a part"),
            ("hostaddr=10.0.0.1", "host or hostaddr"),
            ("sslrootcert=system", "ca-certificates.crt"),
            ("sslrootcert=/nonexistent/ca.pem&sslmode=verify-full", "sslrootcert: /nonexistent/ca.pem"),
            ("sslcert=/nonexistent/c.pem", "both sslcert and sslkey"),
            ("sslkey=-----BEGIN%20hunter2&sslcert=/x", "sslcert"),
        ] {
            refused(&format!("postgres://u:p@h/d?{parameter}"), &[part]);
        }
        for harmless in [
            "connect_timeout=10",
            "channel_binding=prefer",
            "target_session_attrs=any",
            "tcp_user_timeout=5000&keepalives=1&keepalives_idle=30&keepalives_interval=5&keepalives_count=3",
            "sslsni=1",
            "client_encoding=UTF8",
        ] {
            parsed(&format!("postgres://u:p@h/d?{harmless}"));
        }
    }

    #[test]
    fn a_connection_is_never_weaker_than_was_asked() {
        let mode = |url: &str| format!("{:?}", parsed(url).get_ssl_mode());
        for url in ["postgres://h/d?ssl=true", "postgres://h/d?ssl=true&sslmode=require", "postgres://h/d?requiressl=1"]
        {
            assert_eq!(mode(url), "Require", "{url}");
        }
        assert_eq!(mode("postgres://h/d?sslmode=verify-full&ssl=true"), "VerifyFull");
        let directory = tempfile::tempdir().unwrap();
        let generated = rcgen::generate_simple_self_signed(["db.test".to_owned()]).unwrap();
        let (ca, key) = (directory.path().join("ca.pem"), directory.path().join("key.pem"));
        fs::write(&ca, generated.cert.pem()).unwrap();
        fs::write(&key, generated.signing_key.serialize_pem()).unwrap();
        let with_ca = |parameters: &str| format!("postgres://h/d?sslrootcert={}{parameters}", ca.display());
        // As in libpq; sqlx would verify nothing.
        assert_eq!(mode(&with_ca("&sslmode=require")), "VerifyCa");
        assert_eq!(mode(&with_ca("&sslmode=verify-full")), "VerifyFull");
        for weak in ["", "&sslmode=prefer", "&sslmode=disable"] {
            refused(&with_ca(weak), &["sslrootcert", "verify-full"]);
        }
        let client =
            |cert: &Path, key: &Path| format!("postgres://h/d?sslcert={}&sslkey={}", cert.display(), key.display());
        parsed(&client(&ca, &key));
        refused(&client(&key, &ca), &["sslcert", "key.pem", "no such PEM section"]);
        refused(&client(&ca, directory.path()), &["sslkey"]);
        let environment = |name: &str, value: &str| HashMap::from([(name.to_owned(), value.to_owned())]);
        for (variable, value) in [
            ("PGSSLMODE", "verify-ful"),
            ("PGCHANNELBINDING", "require"),
            ("PGTARGETSESSIONATTRS", "standby"),
            ("PGPORT", "x"),
            ("PGSSLROOTCERT", "/nonexistent"),
            ("PGREQUIREAUTH", "scram-sha-256"),
        ] {
            parse("postgres://u:p@h/d", &environment(variable, value)).expect_err(variable);
        }
        let options = parse("postgres://h/d?sslmode=verify-full", &environment("PGSSLMODE", "disable")).unwrap().first;
        assert_eq!(format!("{:?}", options.get_ssl_mode()), "VerifyFull");
        let options = parse("postgres://h/d", &environment("PGSSLMODE", "verify-full")).unwrap().first;
        assert_eq!(format!("{:?}", options.get_ssl_mode()), "VerifyFull");
    }
}
