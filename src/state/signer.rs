//! Signing keys as they sign: the private half in memory, or in a PKCS #11 module.

use std::ops::Deref;
use std::sync::Arc;

use super::pkcs11::{Module, ModuleFault, ModuleKey};
use crate::crypto::jws::SigningKey;
use crate::store::keys::OpenedKey;

/// Signing key with the place of its private half.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every key is in memory, and there are few")]
pub enum Signer {
    /// In memory.
    Memory(SigningKey),
    /// In a PKCS #11 module.
    Module(ModuleKey),
}

/// Reasons for which a key did not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningFault {
    /// The library failed.
    #[error("the library does not sign")]
    Library,
    /// The PKCS #11 module failed, was too slow or has too much to sign.
    #[error(transparent)]
    Module(#[from] ModuleFault),
}

impl Signer {
    /// Makes the signer of an opened key. A key in a module signs only where `module` is configured.
    #[must_use]
    pub fn new(opened: OpenedKey, module: Option<&Arc<Module>>) -> Self {
        let OpenedKey { key, module: uri } = opened;
        match uri {
            None => Self::Memory(key),
            Some(uri) => Self::Module(ModuleKey::new(uri, key, module.cloned())),
        }
    }

    /// The key in a PKCS #11 module; `None` for a key in memory.
    #[must_use]
    pub fn module(&self) -> Option<&ModuleKey> {
        match self {
            Self::Memory(_) => None,
            Self::Module(key) => Some(key),
        }
    }

    /// Signs claims as a JWT with that `typ`.
    ///
    /// # Errors
    /// [`SigningFault`].
    pub async fn jwt(&self, typ: &str, claims: &[u8]) -> Result<String, SigningFault> {
        match self {
            Self::Memory(key) => key.sign_as(typ, claims).ok_or(SigningFault::Library),
            Self::Module(key) => {
                let unsigned = key.unsigned(typ, claims).ok_or(SigningFault::Library)?;
                // Boxed, to keep the future of other keys small.
                Ok(Box::pin(key.sign(unsigned)).await?)
            }
        }
    }

    /// Signs claims as [`jwt`](Self::jwt) does, and blocks until they are signed.
    ///
    /// # Errors
    /// [`SigningFault`].
    pub fn jwt_blocking(&self, typ: &str, claims: &[u8]) -> Result<String, SigningFault> {
        match self {
            Self::Memory(key) => key.sign_as(typ, claims).ok_or(SigningFault::Library),
            Self::Module(key) => Ok(key.sign_blocking(key.unsigned(typ, claims).ok_or(SigningFault::Library)?)?),
        }
    }
}

impl Deref for Signer {
    type Target = SigningKey;

    fn deref(&self) -> &SigningKey {
        match self {
            Self::Memory(key) => key,
            Self::Module(key) => key,
        }
    }
}
