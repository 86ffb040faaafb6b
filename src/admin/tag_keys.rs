//! Tag keys: the newest tags new secrets, so that a made-up one is refused before any hash.

use super::{Admin, AdminError};
use crate::crypto::seal::SealingKey;
use crate::crypto::secret_tag::{TagKey, TagKid};
use crate::store::tag_keys::SealedTagKey;

impl Admin {
    /// All tag keys, the one in use first.
    pub async fn tag_keys(&self) -> Result<Vec<SealedTagKey>, AdminError> {
        Ok(self.store.tag_keys().await?)
    }

    /// Makes the next tag key. Secrets that former keys tagged go on working.
    pub async fn rotate_tag_key(&self) -> Result<SealedTagKey, AdminError> {
        let key = SealedTagKey::generate(&*self.sealing_key()?, self.now())?;
        self.store.add_tag_key(&key, false).await?;
        Ok(key)
    }

    /// Removes a tag key. Secrets that it tagged go on working, and each guess at them costs a hash.
    pub async fn remove_tag_key(&self, kid: TagKid) -> Result<(), AdminError> {
        if self.store.remove_tag_key(&kid.to_string()).await? { Ok(()) } else { Err(AdminError::NoSuchTagKey(kid)) }
    }

    /// The tag keys that open, the one in use first; the first of all is made here.
    pub(super) async fn usable_tag_keys(&self) -> Result<Vec<TagKey>, AdminError> {
        let under = self.sealing_key()?;
        let mut sealed = self.store.tag_keys().await?;
        if sealed.is_empty() {
            self.store.add_tag_key(&SealedTagKey::generate(&under, self.now())?, true).await?;
            sealed = self.store.tag_keys().await?;
        }
        Ok(opened(&sealed, &under))
    }

    /// Returns the tag keys for a printed seed, and makes none. A seed may be printed where no database can be reached: its
    /// secret then carries no tag, and a comment in the seed says so.
    pub(super) async fn tag_keys_for_seed(&self) -> Result<Vec<TagKey>, AdminError> {
        let sealed = self.store.tag_keys().await.unwrap_or_default();
        if sealed.is_empty() { Ok(Vec::new()) } else { Ok(opened(&sealed, &*self.sealing_key()?)) }
    }
}

/// Opens tag keys. A key that does not open is left out: a secret without a tag works, and `grantd doctor` reports the key.
fn opened(sealed: &[SealedTagKey], under: &SealingKey) -> Vec<TagKey> {
    sealed.iter().filter_map(|key| key.open(under).ok()).collect()
}
