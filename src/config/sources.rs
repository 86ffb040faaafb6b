//! Sources of settings: defaults, file, environment, flags, in this order. The last source that has a key wins.
//!
//! A source that is empty, misspelt or unreachable is an error, since the default in its place would configure another
//! server.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::keys::{kind, number, plain};
use super::settings::{Kind, Settings, keys};
use super::{ConfigError, file};

/// Sources of settings. The environment is handed in. It may contain secrets, so there is no `Debug`.
#[derive(Default)]
pub struct Sources {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// `--set KEY=VALUE`.
    pub flags: Vec<(String, String)>,
    /// The environment variables that grantd reads.
    pub environment: HashMap<String, String>,
}

impl Sources {
    /// Finds the configuration file: `--config`, else `GRANTD_CONFIG`, else `/etc/grantd/grantd.toml`, else
    /// `./grantd.toml`, else none.
    ///
    /// # Errors
    /// When a named file does not exist, a file cannot be reached, a variable is empty, not UTF-8 or misspelt, or a
    /// flag would put a secret where every process can read it.
    pub fn find(
        named: Option<&Path>,
        flags: Vec<(String, String)>,
        environment: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Result<Self, ConfigError> {
        if flags.iter().any(|(key, _)| plain(key) == plain("database.url")) {
            return Err(ConfigError {
                key: "database.url".into(),
                origin: "command line".into(),
                remedy: "arguments can be read by every process; use GRANTD__DATABASE__URL or database.url_file".into(),
            });
        }
        let environment = grantd_variables(environment)?;
        let file = match named.map(Path::to_owned).or_else(|| environment.get(CONFIG).map(PathBuf::from)) {
            Some(path) if file::is_there(&path)? => Some(path),
            Some(path) => return Err(file::fault(&path, "there is no such file")),
            None => {
                let mut found = None;
                for path in ["/etc/grantd/grantd.toml", "grantd.toml"].map(PathBuf::from) {
                    if file::is_there(&path)? {
                        found = Some(path);
                        break;
                    }
                }
                found
            }
        };
        Ok(Self { file, flags, environment })
    }

    /// Reads all sources into settings.
    ///
    /// # Errors
    /// For an unknown key, a value of the wrong type, or an empty value.
    pub fn read(&self) -> Result<Settings, ConfigError> {
        let keys = keys();
        let in_file = match &self.file {
            Some(path) => file::read(path, &keys)?,
            None => HashMap::new(),
        };
        let mut in_variables = HashMap::new();
        for (name, text) in &self.environment {
            if let Some(path) = name.strip_prefix(PREFIX) {
                let key = path.to_lowercase().replace("__", ".");
                let kind = kind(&keys, &key).map_err(|remedy| in_environment(name, "", &remedy))?;
                let value = typed(kind, text).map_err(|remedy| in_environment(name, &key, &remedy))?;
                in_variables.insert(key, value);
            }
        }
        let mut in_flags = HashMap::new();
        for (key, text) in &self.flags {
            let fault = |key: &str, remedy: String| ConfigError {
                key: key.to_owned(),
                origin: "command line".to_owned(),
                remedy,
            };
            let kind = kind(&keys, key).map_err(|remedy| fault("", remedy))?;
            in_flags.insert(key.clone(), typed(kind, text).map_err(|remedy| fault(key, remedy))?);
        }
        let mut layers = config::Config::builder();
        for layer in [in_file, in_variables, in_flags] {
            layers = layers.add_source(Layer(layer));
        }
        // The values have the types of their keys, so this fails only by a fault of grantd. The message of the crate
        // may quote a value.
        layers.build().and_then(config::Config::try_deserialize).map_err(|_| ConfigError {
            key: String::new(),
            origin: self.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            remedy: "the settings could not be merged; please report this".to_owned(),
        })
    }

    /// Reads one text setting alone, whatever is wrong with the others.
    #[must_use]
    pub fn one(&self, key: &str) -> Option<String> {
        let flag = self.flags.iter().rev().find(|(flag, _)| flag == key).map(|(_, value)| value.clone());
        flag.or_else(|| self.environment.get(&variable(key)).cloned()).or_else(|| {
            let values = file::read_some(self.file.as_ref()?, key)?;
            Some(values.as_str()?.to_owned())
        })
    }

    /// Returns the source of a key's value.
    #[must_use]
    pub fn origin(&self, key: &str) -> String {
        let variable = variable(key);
        if self.flags.iter().any(|(flag, _)| flag == key) {
            "command line".into()
        } else if self.environment.keys().any(|name| name.starts_with(&variable)) {
            format!("environment, {variable}")
        } else if key == "database.url" && self.database_url().is_some() {
            format!("environment, {DATABASE_URL}")
        } else {
            self.file.as_ref().map_or_else(|| "no configuration file".into(), |file| file.display().to_string())
        }
    }

    /// The value of `DATABASE_URL`, which many tools use, for when `database.url` is absent.
    #[must_use]
    pub fn database_url(&self) -> Option<&str> {
        self.environment.get(DATABASE_URL).map(String::as_str)
    }

    /// The name of a variable that is a misspelt `DATABASE_URL`.
    #[must_use]
    pub fn similar_to_database_url(&self) -> Option<&str> {
        let nearly = |name: &&String| name.as_str() != DATABASE_URL && plain(name) == plain(DATABASE_URL);
        self.environment.keys().find(nearly).map(String::as_str)
    }
}

/// Selects the environment variables that grantd reads. Messages never quote values, since each may be a secret.
fn grantd_variables(
    environment: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Result<HashMap<String, String>, ConfigError> {
    let mut names: Vec<String> = keys().iter().map(|(key, _)| variable(key)).collect();
    names.push(CONFIG.to_owned());
    let mut ours = HashMap::new();
    for (name, value) in environment {
        let (name, value) = (name.into(), value.into());
        // A name that is not UTF-8 resembles none of grantd's.
        let Some(name) = name.to_str() else { continue };
        let is_database_url = plain(name) == plain(DATABASE_URL);
        let is_known = names.iter().any(|known| known == name);
        if !is_known && let Some(meant) = names.iter().find(|known| plain(known) == plain(name)) {
            return Err(in_environment(name, "", &format!("not a variable of grantd; write {meant}")));
        }
        if !is_known && !is_database_url && !name.starts_with(PREFIX) && !name.starts_with("PG") {
            continue;
        }
        let Some(value) = value.to_str() else {
            return Err(in_environment(name, "", "its value is not UTF-8"));
        };
        // An empty variable of PostgreSQL's counts as unset.
        if value.is_empty() && !is_database_url && !name.starts_with("PG") {
            return Err(in_environment(name, "", "set, but empty; give it a value or remove it"));
        }
        ours.insert(name.to_owned(), value.to_owned());
    }
    Ok(ours)
}

fn in_environment(name: &str, key: &str, remedy: &str) -> ConfigError {
    ConfigError { key: key.to_owned(), origin: format!("environment, {name}"), remedy: remedy.to_owned() }
}

/// Returns the environment variable of a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// Reads the text of a variable or a flag by the type of its key.
fn typed(kind: Kind, text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Err("set, but empty; give it a value or remove it".to_owned());
    }
    match kind {
        Kind::Text => Ok(text.into()),
        Kind::Flag => match text {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err("write true or false".to_owned()),
        },
        Kind::Number(most) => number(text, 10, most),
        Kind::List if text == "[]" => Ok(Value::Array(Vec::new())),
        Kind::List => {
            let items: Vec<&str> = text.split(',').map(str::trim).collect();
            if items.contains(&"") {
                return Err("an entry is empty; separate entries by single commas, and write [] for none".to_owned());
            }
            Ok(items.into())
        }
    }
}

/// Values of one source by dotted key, each with the type of its key. The crate `config` merges the layers; its own
/// sources would guess the types.
#[derive(Debug, Clone)]
struct Layer(HashMap<String, Value>);

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, config::Value>, config::ConfigError> {
        let values = self.0.iter().map(|(key, value)| (key.clone(), config::Value::new(None, value_kind(value))));
        Ok(values.collect())
    }
}

fn value_kind(value: &Value) -> config::ValueKind {
    match value {
        Value::String(text) => config::ValueKind::String(text.clone()),
        Value::Bool(flag) => config::ValueKind::Boolean(*flag),
        Value::Number(number) => number.as_u64().map_or(config::ValueKind::Nil, config::ValueKind::U64),
        Value::Array(items) => {
            config::ValueKind::Array(items.iter().map(|item| config::Value::new(None, value_kind(item))).collect())
        }
        Value::Null | Value::Object(_) => config::ValueKind::Nil,
    }
}

const PREFIX: &str = "GRANTD__";
const CONFIG: &str = "GRANTD_CONFIG";
const DATABASE_URL: &str = "DATABASE_URL";
