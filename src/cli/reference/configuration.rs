//! The page of the configuration, from `config/grantd.toml`. A test compares that file with the settings.

use super::{code, row};

pub(super) fn page() -> String {
    let mut page = String::from(HEAD);
    let (mut section, mut meaning) = (String::new(), String::new());
    for line in FILE.lines() {
        if let Some(text) = line.strip_prefix("## ") {
            meaning = if meaning.is_empty() { text.to_owned() } else { format!("{meaning} {text}") };
        } else if let Some(name) = line.strip_prefix("# [").and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
        } else if let Some((key, value)) = setting(line) {
            let key = format!("{section}{key}");
            let variable = format!("GRANTD__{}", key.to_uppercase().replace('.', "__"));
            let value = if line.starts_with("#~") { format!("none; for example {}", code(value)) } else { code(value) };
            page += &row(&[&code(&key), &value, &meaning, &code(&variable)]);
        } else {
            meaning.clear();
        }
    }
    page
}

/// Returns key and value of a commented-out setting.
fn setting(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("# ").or_else(|| line.strip_prefix("#~ "))?;
    line.split_once(" = ")
}

const FILE: &str = include_str!("../../../config/grantd.toml");

const HEAD: &str = "\
[`config/grantd.toml`](../../config/grantd.toml) has every key at its default, with the same texts. `grantd config print` shows what is in force.

| key | default | meaning | environment variable |
|---|---|---|---|
";
