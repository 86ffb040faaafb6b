//! In place of the library that loads PKCS #11 modules, in a program that was built without it.

use std::path::Path;

use secrecy::SecretString;

use super::{FoundKey, ModuleError};
use crate::crypto::jwk::Alg;
use crate::model::pkcs11_uri::Pkcs11Uri;

/// Whether this program loads PKCS #11 modules.
pub const SUPPORTED: bool = false;

/// A loaded module; there is none.
#[derive(Debug)]
pub enum Library {}

/// A session with a key; there is none. Boxed, so that code behind one is not called unreachable.
#[derive(Debug)]
pub struct KeySession(Box<Library>);

impl Library {
    /// Loads a module.
    ///
    /// # Errors
    /// Always.
    pub fn open(path: &Path, _pin: Option<SecretString>) -> Result<Self, ModuleError> {
        Err(ModuleError(format!(
            "{}: this grantd was built without PKCS #11; build it with `cargo build --release --features pkcs11`",
            path.display()
        )))
    }

    pub(super) fn session(&self, _uri: &Pkcs11Uri) -> Result<KeySession, ModuleError> {
        match *self {}
    }
}

impl KeySession {
    pub(super) fn public_half(&self) -> Result<FoundKey, ModuleError> {
        match *self.0 {}
    }

    pub(super) fn sign(&self, _alg: Alg, _message: &[u8]) -> Result<Vec<u8>, ModuleError> {
        match *self.0 {}
    }
}
