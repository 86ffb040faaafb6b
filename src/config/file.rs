//! The configuration file: TOML, read by the types of the keys. Messages never quote its values, since one may be a
//! password.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::keys::{kind, number};
use super::settings::Kind;

/// Whether a file exists. Only "not found" counts as absent; a file that cannot be reached is an error.
pub(super) fn is_there(path: &Path) -> Result<bool, ConfigError> {
    let unreachable = |error: std::io::Error| fault(path, &format!("cannot be reached by {}: {error}", user()));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unreachable(error)),
        Ok(_) => {}
    }
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let within = path.join("grantd.toml");
            Err(fault(path, &format!("is a directory; name a file, such as {}", within.display())))
        }
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(fault(path, "is a symbolic link, and there is no file where it leads"))
        }
        Err(error) => Err(unreachable(error)),
    }
}

/// Reads the keys of the file, by dotted name.
pub(super) fn read(path: &Path, keys: &[(String, Kind)]) -> Result<HashMap<String, Value>, ConfigError> {
    let text = text(path)?;
    let document = DeTable::parse(&text).map_err(|error| {
        let place = error.span().map(|span| format!("{}: ", position(&text, span.start))).unwrap_or_default();
        fault(path, &format!("{place}not TOML: {}", error.message()))
    })?;
    let mut values = HashMap::new();
    let mut open = vec![(String::new(), document.into_inner())];
    while let Some((section, table)) = open.pop() {
        for (name, value) in table {
            let key =
                if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
            let line = format!("{}, {}", path.display(), position(&text, name.span().start));
            let is_section =
                keys.iter().any(|(known, _)| known.strip_prefix(&*key).is_some_and(|rest| rest.starts_with('.')));
            match value.into_inner() {
                DeValue::Table(inner) if is_section => open.push((key, inner)),
                value => {
                    let wrong = |key: &str, remedy| ConfigError { key: key.to_owned(), origin: line.clone(), remedy };
                    let kind = kind(keys, &key).map_err(|remedy| wrong("", remedy))?;
                    let value = typed(kind, &value).map_err(|remedy| wrong(&key, remedy))?;
                    values.insert(key, value);
                }
            }
        }
    }
    Ok(values)
}

/// Reads one value of a file, if the file can be read that far.
pub(super) fn read_some(path: &Path, key: &str) -> Option<Value> {
    let text = text(path).ok()?;
    let (document, _) = DeTable::parse_recoverable(&text);
    let mut value = DeValue::Table(document.into_inner());
    for name in key.split('.') {
        value = value.get(name)?.get_ref().clone();
    }
    value.as_str().map(Value::from)
}

fn typed(kind: Kind, value: &DeValue<'_>) -> Result<Value, String> {
    let text = |value: &DeValue<'_>| match value {
        DeValue::String(text) if text.is_empty() => Err("set, but empty; give it a value or remove it".to_owned()),
        DeValue::String(text) => Ok(Value::from(&**text)),
        _ => Err("write a string, in quotes".to_owned()),
    };
    match (kind, value) {
        (Kind::Text, value) => text(value),
        (Kind::Flag, DeValue::Boolean(flag)) => Ok((*flag).into()),
        (Kind::Flag, _) => Err("write true or false, without quotes".to_owned()),
        (Kind::Number(most), DeValue::Integer(integer)) => number(integer.as_str(), integer.radix(), most),
        (Kind::Number(most), _) => Err(format!("write a whole number from 0 to {most}, without quotes")),
        (Kind::List, DeValue::Array(items)) => items.iter().map(|item| text(item.get_ref())).collect(),
        (Kind::List, _) => Err("write a list of strings, such as [\"a\", \"b\"]".to_owned()),
    }
}

fn text(path: &Path) -> Result<String, ConfigError> {
    let bytes = fs::read(path).map_err(|error| fault(path, &format!("cannot be read by {}: {error}", user())))?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.iter().take(64).any(|&b| b == 0) {
        return Err(fault(path, "is UTF-16 or binary; save it as UTF-8"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|&&byte| byte == b'\n').count() + 1;
        fault(path, &format!("line {line}: not UTF-8; save the file as UTF-8"))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

pub(super) fn fault(path: &Path, remedy: &str) -> ConfigError {
    ConfigError { key: String::new(), origin: path.display().to_string(), remedy: remedy.to_owned() }
}

/// The user of this process, for messages about files.
#[must_use]
pub fn user() -> String {
    format!("uid {}", rustix::process::geteuid().as_raw())
}

fn position(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    format!("line {}, column {column}", before.matches('\n').count() + 1)
}
