//! Tag keys: the newest one tags new secrets, so that a made-up secret is refused without a hash.

use super::{Admin, AdminError};
use crate::crypto::seal::SealingKey;
use crate::crypto::secret_tag::{TagKey, TagKid};
use crate::store::tag_keys::SealedTagKey;

impl Admin {
    /// Returns all tag keys, the one in use first.
    pub async fn tag_keys(&self) -> Result<Vec<SealedTagKey>, AdminError> {
        Ok(self.store.tag_keys().await?)
    }

    /// Generates the next tag key. Secrets that former keys tagged still work.
    pub async fn rotate_tag_key(&self) -> Result<SealedTagKey, AdminError> {
        let key = SealedTagKey::generate(&*self.sealing_key()?, self.now())?;
        self.store.add_tag_key(&key, false).await?;
        Ok(key)
    }

    /// Removes a tag key. Secrets that it tagged still work, and each guess at them costs a hash.
    pub async fn remove_tag_key(&self, kid: TagKid) -> Result<(), AdminError> {
        if self.store.remove_tag_key(&kid.to_string()).await? { Ok(()) } else { Err(AdminError::NoSuchTagKey(kid)) }
    }

    /// Returns the tag keys that open, the one in use first. Generates the first one.
    pub(super) async fn usable_tag_keys(&self, under: &SealingKey) -> Result<Vec<TagKey>, AdminError> {
        let mut sealed = self.store.tag_keys().await?;
        if sealed.is_empty() {
            self.store.add_tag_key(&SealedTagKey::generate(under, self.now())?, true).await?;
            sealed = self.store.tag_keys().await?;
        }
        Ok(opened(&sealed, under))
    }

    /// Returns the tag keys for a printed seed, and generates none. A seed may be printed where no database can be
    /// reached; its secret then carries no tag, and a comment in the seed says so.
    pub(super) async fn tag_keys_for_seed(&self, under: &SealingKey) -> Vec<TagKey> {
        opened(&self.store.tag_keys().await.unwrap_or_default(), under)
    }
}

/// Opens tag keys. A key that does not open is left out: a secret without a tag works.
fn opened(sealed: &[SealedTagKey], under: &SealingKey) -> Vec<TagKey> {
    // `grantd doctor` reports each with its error.
    sealed.iter().filter_map(|key| key.open(under).ok()).collect()
}
