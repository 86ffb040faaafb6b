//! Revocation of one token or of all tokens. A resource server that does not introspect accepts a token until its
//! `exp`.

use super::{Admin, AdminError};
use crate::protocol::access_token::{IssuedToken, verify};
use crate::state::keyring::Keyring;

impl Admin {
    /// Revokes a token of any client.
    pub async fn revoke_token(&self, token: &str) -> Result<IssuedToken, AdminError> {
        let (keyring, now) = (Keyring::default(), self.now());
        // A token of a key that does not open cannot be verified, so it is refused.
        drop(keyring.load(&self.store.keys().await?, &*self.sealing_key()?));
        let issued = verify(token, self.policy.issuer.as_str(), &keyring, now).map_err(AdminError::NothingToRevoke)?;
        self.store.revoke_token(&issued.jti, &issued.client_id, issued.exp, now).await?;
        Ok(issued)
    }

    /// Revokes all tokens that were issued until now.
    pub async fn revoke_all_tokens(&self) -> Result<(), AdminError> {
        Ok(self.store.revoke_all_tokens(self.now()).await?)
    }
}
