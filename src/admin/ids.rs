//! Ids of what is registered: those that begin with a prefix, and the one nearest to an id that was mistyped.

use super::{Admin, AdminError};
use crate::model::client_id::ClientId;

/// Kind of an id, with the client to which it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdKind {
    /// Client.
    Client,
    /// Protected resource.
    Resource,
    /// Signing key.
    SigningKey,
    /// Key that tags secrets.
    TagKey,
    /// Secret of a client.
    Secret(ClientId),
    /// Public key of a client.
    ClientKey(ClientId),
    /// Certificate registration of a client.
    Certificate(ClientId),
}

impl Admin {
    /// Returns ids that begin with `prefix`, in order, at most [`MOST_IDS`].
    pub async fn ids_with_prefix(&self, kind: &IdKind, prefix: &str) -> Result<Vec<String>, AdminError> {
        let mut ids = match kind {
            // Client ids stand in the order of their bytes, so those with a prefix follow it.
            IdKind::Client => self.store.client_ids_from(prefix, i64::try_from(MOST_IDS).unwrap_or(i64::MAX)).await?,
            _ => self.ids(kind).await?,
        };
        ids.retain(|id| id.starts_with(prefix));
        ids.sort_unstable();
        ids.truncate(MOST_IDS);
        Ok(ids)
    }

    /// Returns the registered id that was probably meant, when the error is about an id that does not exist.
    ///
    /// The work does not grow with the registry. Of clients, these are compared: the ids at one edit from what was
    /// typed, by exact lookups, and the 256 ids on either side of it in order, which share its beginning.
    /// The other kinds are compared whole, since an API, a server or a client has few of them.
    pub async fn nearest(&self, error: &AdminError) -> Result<Option<String>, AdminError> {
        let Some((kind, typed)) = missing(error) else { return Ok(None) };
        let candidates = match kind {
            IdKind::Client => {
                let edited = at_one_edit(&typed);
                let edited: Vec<&str> = edited.iter().map(String::as_str).collect();
                let mut ids = self.store.client_ids_among(&edited).await?;
                ids.extend(self.store.client_ids_around(&typed, READ_AT_ONCE).await?);
                ids
            }
            kind => self.ids(&kind).await?,
        };
        Ok(nearest_of(&typed, candidates))
    }

    /// Returns all ids of a kind; of clients none, since there may be a million.
    async fn ids(&self, kind: &IdKind) -> Result<Vec<String>, AdminError> {
        Ok(match kind {
            IdKind::Client => Vec::new(),
            IdKind::Resource => {
                let resources = self.store.resources().await?.into_iter();
                // A resource whose row cannot be read is not proposed.
                resources.filter_map(Result::ok).map(|resource| resource.identifier.as_str().to_owned()).collect()
            }
            IdKind::SigningKey => self.store.keys().await?.into_iter().map(|key| key.kid).collect(),
            IdKind::TagKey => self.store.tag_keys().await?.into_iter().map(|key| key.kid).collect(),
            IdKind::Secret(id) => self.secrets(id).await?.into_iter().map(|secret| secret.secret_id).collect(),
            IdKind::ClientKey(id) => self.client(id).await?.keys.iter().map(|key| key.kid.to_string()).collect(),
            IdKind::Certificate(id) => {
                self.client(id).await?.certificates.iter().map(|one| one.cert_id.to_string()).collect()
            }
        })
    }
}

impl AdminError {
    /// Whether the error is about an id that does not exist.
    #[must_use]
    pub fn is_about_an_id(&self) -> bool {
        missing(self).is_some()
    }
}

/// Returns the id that an error calls missing.
fn missing(error: &AdminError) -> Option<(IdKind, String)> {
    Some(match error {
        AdminError::NoSuchClient(id) => (IdKind::Client, id.to_string()),
        AdminError::NoSuchResource(uri) => (IdKind::Resource, uri.as_str().to_owned()),
        AdminError::NoSuchSigningKey(kid) => (IdKind::SigningKey, kid.clone()),
        AdminError::NoSuchTagKey(kid) => (IdKind::TagKey, kid.to_string()),
        AdminError::NoSuchSecret { client_id, secret_id } => (IdKind::Secret(client_id.clone()), secret_id.clone()),
        AdminError::NoSuchClientKey { client_id, kid } => (IdKind::ClientKey(client_id.clone()), kid.clone()),
        AdminError::NoSuchCertificate { client_id, cert_id } => {
            (IdKind::Certificate(client_id.clone()), cert_id.clone())
        }
        _ => return None,
    })
}

/// Returns the candidate at the least distance, if it is near enough to be meant: a third of the length, at most 3. An id
/// of which only the beginning was typed is near, too. Of equally near ones, the first in order is returned.
fn nearest_of(typed: &str, candidates: Vec<String>) -> Option<String> {
    let most = (typed.chars().count() / 3).clamp(1, 3);
    let near = candidates.into_iter().filter_map(|candidate| {
        let is_beginning = typed.len() >= 4 && candidate.starts_with(typed);
        let distance = if is_beginning { 1 } else { distance(typed, &candidate) };
        (distance <= most && candidate != typed).then_some((distance, candidate))
    });
    near.min().map(|(_, candidate)| candidate)
}

/// Returns the number of edits between two texts: a character added, left out or replaced, or two neighbours swapped
/// (optimal string alignment). Texts whose lengths differ by more than 3 are far apart, and are not compared.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().abs_diff(other.len()) > 3 {
        return usize::MAX;
    }
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=other.len()).collect());
    for (row, a) in one.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, b) in other.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut cost = at(&last, column) + usize::from(a != b);
            cost = cost.min(at(&last, column + 1) + 1).min(at(&next, column) + 1);
            let is_swapped = row > 0 && column > 0 && one.get(row - 1) == Some(b) && other.get(column - 1) == Some(a);
            if is_swapped {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().unwrap_or_default()
}

/// Returns the texts at one edit from an ASCII text, with the characters of `ALPHABET`: at most 6,000 for an id of 64
/// characters. A longer id is not varied.
fn at_one_edit(typed: &str) -> Vec<String> {
    let mut edited = Vec::new();
    if typed.len() > 64 || !typed.is_ascii() {
        return edited;
    }
    for at in 0..=typed.len() {
        let (before, after) = typed.split_at(at);
        edited.extend(ALPHABET.chars().map(|added| format!("{before}{added}{after}")));
        let mut rest = after.chars();
        let Some(first) = rest.next() else { continue };
        edited.push(format!("{before}{}", rest.as_str()));
        edited.extend(ALPHABET.chars().map(|replaced| format!("{before}{replaced}{}", rest.as_str())));
        if let Some(second) = rest.next() {
            edited.push(format!("{before}{second}{first}{}", rest.as_str()));
        }
    }
    edited
}

/// Characters that are tried in place of each character of a mistyped client id.
const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz0123456789-_.:/@";
/// Client ids that are read at once.
const READ_AT_ONCE: i64 = 256;
/// Maximum number of ids that are returned for a prefix.
pub const MOST_IDS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_counts_edits() {
        for (one, other, edits) in [
            ("billing", "billing", 0),
            ("biling", "billing", 1),
            ("billling", "billing", 1),
            ("bliling", "billing", 1),
            ("iblling", "billing", 1),
            ("bulling", "billing", 1),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), edits, "{one} {other}");
        }
        assert_eq!(distance("a", "abcde"), usize::MAX);
    }

    #[test]
    fn the_nearest_is_near_or_none() {
        let ids = || ["billing", "payroll", "reports", "rZ4kq9"].map(str::to_owned).to_vec();
        for (typed, nearest) in [
            ("biling", Some("billing")),
            ("Payroll", Some("payroll")),
            ("pyarol", Some("payroll")),
            ("repo", Some("reports")),
            ("rZ4k", Some("rZ4kq9")),
            ("nobody", None),
            ("x", None),
            ("billing", None),
        ] {
            assert_eq!(nearest_of(typed, ids()).as_deref(), nearest, "{typed}");
        }
    }

    #[test]
    fn every_edit_of_one_character_is_tried() {
        let edited = at_one_edit("pyroll");
        assert!(
            ["payroll", "yroll", "proll", "pyroll-", "yproll", "pyrolx"]
                .iter()
                .all(|id| edited.contains(&(*id).to_owned()))
        );
        assert!(at_one_edit(&"a".repeat(64)).len() < 6_000);
        assert!(at_one_edit(&"a".repeat(65)).is_empty());
    }
}
