//! Log filter: `RUST_LOG`, read strictly, since a misspelt level would silence the log.

use std::ffi::OsStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config::ConfigError;

/// Filter of the events to log.
#[derive(Debug)]
pub struct Filter {
    pub(super) events: EnvFilter,
    /// Whether `RUST_LOG` switches the events of grantd itself off.
    pub(super) silent: bool,
}

impl Filter {
    /// Reads `RUST_LOG`. When it is unset or empty, `level` applies.
    ///
    /// # Errors
    /// When `RUST_LOG` is malformed, names an unknown level or target, or does not cover grantd.
    pub fn from_environment(level: &str) -> Result<Self, ConfigError> {
        Self::parse(std::env::var_os("RUST_LOG").as_deref(), level)
    }

    fn parse(chosen: Option<&OsStr>, level: &str) -> Result<Self, ConfigError> {
        let wrong = |remedy: String| ConfigError { key: "RUST_LOG".into(), origin: "environment".into(), remedy };
        let chosen = match chosen.filter(|text| !text.is_empty()).map(OsStr::to_str) {
            None => level,
            Some(Some(text)) => text,
            Some(None) => return Err(wrong("its value is not UTF-8".into())),
        };
        // Whether the log is off: for all crates, and for grantd.
        let (mut all, mut own) = (None, None);
        for directive in chosen.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            let (target, level) = match directive.split_once('=') {
                Some((target, level)) => (target, Some(level)),
                None if is_level(directive) => ("", Some(directive)),
                None => (directive, None),
            };
            if let Some(level) = level.filter(|level| !is_level(level)) {
                return Err(wrong(format!("`{level}` is not a level; write {LEVELS}")));
            }
            let silent = level.is_some_and(|level| level.eq_ignore_ascii_case("off") || level == "0");
            let target = target.split('[').next().unwrap_or_default();
            match target.split("::").next().unwrap_or_default() {
                "" => all = Some(silent),
                "grantd" => own = Some(silent),
                crate_name if LOGGING.contains(&crate_name) => {}
                _ => {
                    return Err(wrong(format!(
                        "`{target}` is neither a level nor a part of grantd; write {LEVELS}, or TARGET=LEVEL with a target of {}",
                        LOGGING.join(", ")
                    )));
                }
            }
        }
        let Some(silent) = own.or(all) else {
            return Err(wrong("shows no event of grantd; write a level too, such as info,hyper=debug".into()));
        };
        let mut events = EnvFilter::builder()
            .parse(chosen)
            .map_err(|error| wrong(format!("{error}; write {LEVELS}, or TARGET=LEVEL, separated by commas")))?;
        // This part of sqlx quotes lines of a password file. What cryptoki says is an error of ours, too.
        for never in ["sqlx_postgres::options=off", "sqlx_postgres::options::pgpass=off", "cryptoki=off"] {
            if let Ok(never) = never.parse::<Directive>() {
                events = events.add_directive(never);
            }
        }
        Ok(Self { events, silent })
    }
}

fn is_level(text: &str) -> bool {
    let names = ["off", "error", "warn", "info", "debug", "trace", "0", "1", "2", "3", "4", "5"];
    names.iter().any(|name| name.eq_ignore_ascii_case(text))
}

const LEVELS: &str = "error, warn, info, debug or trace";

/// Crates that `RUST_LOG` may name.
const LOGGING: [&str; 14] = [
    "grantd",
    "axum",
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "rustls",
    "sqlx",
    "sqlx_core",
    "sqlx_postgres",
    "sqlx_sqlite",
    "tokio",
    "tokio_rustls",
    "tower_http",
];

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn parse(text: &str) -> Result<bool, String> {
        Filter::parse(Some(OsStr::new(text)), "info").map(|filter| filter.silent).map_err(|error| error.to_string())
    }

    #[test]
    fn a_filter_that_would_silence_grantd_by_mistake_is_refused() {
        for (text, part) in [
            ("wran", "`wran` is neither a level"),
            ("info,wran", "`wran`"),
            ("grantd=wran", "`wran` is not a level"),
            ("grandt=debug,info", "`grandt`"),
            ("hyper=debug", "info,hyper=debug"),
            ("sqlx", "shows no event"),
            ("info;debug", "`info;debug`"),
            ("grantd[", "RUST_LOG"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part) && error.contains("RUST_LOG"), "{text}: {error}");
        }
        let not_text = Filter::parse(Some(OsStr::from_bytes(b"info\xff")), "info").unwrap_err().to_string();
        assert!(not_text.contains("UTF-8"), "{not_text}");
    }

    #[test]
    fn levels_and_targets_that_exist_are_taken() {
        for text in
            ["", "info", "WARN", "trace", "3", "info,hyper=debug", "grantd=debug", "grantd::http=trace,warn", "info,"]
        {
            assert_eq!(parse(text), Ok(false), "{text}");
        }
        for text in ["off", "grantd=off,info", "0"] {
            assert_eq!(parse(text), Ok(true), "{text}");
        }
    }

    #[test]
    fn the_part_that_quotes_password_files_is_off_at_every_level() {
        for text in ["trace", "sqlx_postgres::options::pgpass=trace,info", "sqlx_postgres=trace,info"] {
            let events = Filter::parse(Some(OsStr::new(text)), "info").unwrap().events.to_string();
            assert!(events.contains("sqlx_postgres::options::pgpass=off"), "{events}");
            assert!(!events.contains("pgpass=trace"), "{events}");
        }
    }
}
