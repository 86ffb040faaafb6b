//! The change of the sealing key: moves rows from the previous key to the current one, and counts the rows under each.

use std::fmt;

use serde::Serialize;

use super::{Admin, AdminError};
use crate::crypto::seal::SealingKey;
use crate::crypto::secret_verifier::VerifierKey;
use crate::store::StoreError;

/// Numbers of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SealedRows {
    /// Signing keys.
    pub signing_keys: usize,
    /// Tag keys.
    pub tag_keys: usize,
}

/// Outcome of a move of rows to the current sealing key.
#[derive(Debug)]
pub struct ResealReport {
    /// Fingerprint of the current key.
    pub sealing_key: String,
    /// Rows that were moved.
    pub moved: SealedRows,
    /// Rows that are under the current key now.
    pub sealed: SealedRows,
    /// Rows that open under neither key, and stay as they are.
    pub closed: Vec<StoreError>,
}

/// Number of rows under one sealing key, while the key is changed.
#[derive(Debug)]
struct UnderKey {
    fingerprint: String,
    sealed: SealedRows,
    verifiers: i64,
}

/// Numbers of rows under the current and the previous sealing key.
#[derive(Debug)]
pub struct SealingChange {
    current: UnderKey,
    previous: UnderKey,
}

impl SealedRows {
    /// The number of all rows.
    #[must_use]
    pub fn all(self) -> usize {
        self.signing_keys + self.tag_keys
    }
}

impl Admin {
    /// Moves each signing key and tag key to the current sealing key, a row in one statement. What was moved before an
    /// interruption stays moved, and the next call goes on from there.
    pub async fn reseal(&self) -> Result<ResealReport, AdminError> {
        let under = self.sealing_key()?;
        let mut moved = SealedRows::default();
        loop {
            // Read again after a change, since a server may have added or removed a row meanwhile.
            let (mut sealed, mut closed, mut changed) = (SealedRows::default(), Vec::new(), false);
            for key in self.store.keys().await? {
                match key.resealed(&under) {
                    Ok(None) => sealed.signing_keys += 1,
                    Ok(Some(bytes)) => {
                        changed = true;
                        moved.signing_keys += usize::from(self.store.reseal_key(&key, &bytes).await?);
                    }
                    Err(fault) => closed.push(fault),
                }
            }
            for key in self.store.tag_keys().await? {
                match key.resealed(&under) {
                    Ok(None) => sealed.tag_keys += 1,
                    Ok(Some(bytes)) => {
                        changed = true;
                        moved.tag_keys += usize::from(self.store.reseal_tag_key(&key, &bytes).await?);
                    }
                    Err(fault) => closed.push(fault),
                }
            }
            if !changed {
                return Ok(ResealReport { sealing_key: under.fingerprint(), moved, sealed, closed });
            }
        }
    }

    /// Counts the rows under each of the two sealing keys. `None` unless there is a previous one.
    pub async fn sealing_change(&self, under: &SealingKey) -> Result<Option<SealingChange>, AdminError> {
        let Some(previous) = under.previous() else { return Ok(None) };
        let (keys, tag_keys) = (self.store.keys().await?, self.store.tag_keys().await?);
        let verifiers = self.store.verifiers_by_key(self.now()).await?;
        let count = |under: &SealingKey| {
            let key_id = VerifierKey::new(under).key_id();
            UnderKey {
                fingerprint: under.fingerprint(),
                sealed: SealedRows {
                    signing_keys: keys.iter().filter(|key| under.is_key_of(&key.sealed)).count(),
                    tag_keys: tag_keys.iter().filter(|key| under.is_key_of(&key.sealed)).count(),
                },
                verifiers: verifiers.iter().filter(|(id, _)| *id == key_id).map(|(_, count)| count).sum(),
            }
        };
        Ok(Some(SealingChange { current: count(under), previous: count(previous) }))
    }
}

impl fmt::Display for UnderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SealedRows { signing_keys, tag_keys } = self.sealed;
        let plural = |number: bool| if number { "" } else { "s" };
        write!(
            f,
            "{}: {signing_keys} signing key{}, {tag_keys} tag key{}, {} verifier{}",
            self.fingerprint,
            plural(signing_keys == 1),
            plural(tag_keys == 1),
            self.verifiers,
            plural(self.verifiers == 1)
        )
    }
}

impl fmt::Display for SealingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { current, previous } = self;
        write!(f, "sealing key {current}; previous key {previous}; ")?;
        f.write_str(if previous.sealed.all() > 0 {
            "once every server has both keys, `grantd key reseal` moves the rows of the previous key"
        } else if previous.verifiers > 0 {
            "each verifier of the previous key is replaced at the next use of its secret; once keys.sealing_key_previous_file is removed, the next use costs a hash instead"
        } else if current.sealed.all() > 0 {
            "to change the key, exchange the two on every server; after the change, remove keys.sealing_key_previous_file"
        } else {
            "no row is sealed under either"
        })
    }
}
