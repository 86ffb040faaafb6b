//! Names of keys: lookup, suggestions for misspelt ones, and the type of each.

use serde_json::Value;

use super::settings::Kind;

/// Normalises a name: without dots and underscores, in lower case.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '.')).flat_map(char::to_lowercase).collect()
}

/// Returns the type of a key, or an error that lists the valid keys.
pub(super) fn kind(keys: &[(String, Kind)], key: &str) -> Result<Kind, String> {
    if let Some((_, kind)) = keys.iter().find(|(known, _)| known == key) {
        return Ok(*kind);
    }
    // The deepest existing section, and its keys.
    let mut section = key;
    let members = loop {
        section = section.rsplit_once('.').map_or("", |(section, _)| section);
        let members = members(keys, section);
        if section.is_empty() || !members.is_empty() {
            break members;
        }
    };
    let wrong = key.get(section.len()..).unwrap_or(key).trim_start_matches('.').split('.').next().unwrap_or(key);
    if wrong.is_empty() || members.iter().any(|member| member == wrong) {
        return Err(format!("`{key}` is a section; its keys are {}", quoted(&self::members(keys, key))));
    }
    let place = if section.is_empty() { String::new() } else { format!(" of `{section}`") };
    let path = if section.is_empty() { wrong.to_owned() } else { format!("{section}.{wrong}") };
    let own = |member: &String| if section.is_empty() { member.clone() } else { format!("{section}.{member}") };
    let near = members.iter().map(own).chain(keys.iter().map(|(known, _)| known.clone()));
    let near = near.into_iter().find(|known| plain(known) == plain(&path) || plain(known) == plain(key));
    let near = near.map(|known| format!("did you mean `{known}`? ")).unwrap_or_default();
    Err(format!("unknown key `{wrong}`; {near}the keys{place} are {}", quoted(&members)))
}

/// Returns the names in a section.
fn members(keys: &[(String, Kind)], section: &str) -> Vec<String> {
    let mut members = Vec::new();
    for (key, _) in keys {
        let inside = match section {
            "" => Some(key.as_str()),
            _ => key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')),
        };
        if let Some(member) = inside.and_then(|inside| inside.split('.').next())
            && members.last().is_none_or(|last| last != member)
        {
            members.push(member.to_owned());
        }
    }
    members
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Parses a whole number from 0 to `most`.
pub(super) fn number(digits: &str, radix: u32, most: u64) -> Result<Value, String> {
    match u64::from_str_radix(digits, radix) {
        Ok(number) if number <= most => Ok(number.into()),
        _ => Err(format!("write a whole number from 0 to {most}")),
    }
}
