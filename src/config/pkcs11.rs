//! Settings of the PKCS #11 module in which attached signing keys are.

use std::path::PathBuf;

use super::{ConfigError, SettingRef, Settings, Sources};
use crate::state::pkcs11::SUPPORTED;

/// A PKCS #11 module, and the PIN of its token.
#[derive(Debug, Clone)]
pub struct Pkcs11Settings {
    /// `keys.pkcs11_module`: the shared library of the module.
    pub module: PathBuf,
    /// `keys.pkcs11_pin_file`: file with the PIN of the token's user; `None` for a token that asks for none.
    pub pin_file: Option<PathBuf>,
}

impl Pkcs11Settings {
    pub(super) fn parse(settings: &Settings, sources: &Sources) -> Result<Option<Self>, ConfigError> {
        let at = |key: &'static str| SettingRef { key, sources };
        let set = |path: &PathBuf| Some(path.clone()).filter(|path| !path.as_os_str().is_empty());
        match (set(&settings.keys.pkcs11_module), set(&settings.keys.pkcs11_pin_file)) {
            (None, None) => Ok(None),
            (None, Some(_)) => {
                Err(at("keys.pkcs11_pin_file").wrong("it is the PIN of keys.pkcs11_module, which is not set"))
            }
            (Some(_), _) if !SUPPORTED => Err(at("keys.pkcs11_module").wrong(
                "this grantd was built without PKCS #11; build it with `cargo build --release --features pkcs11`",
            )),
            (Some(module), pin_file) => Ok(Some(Self { module, pin_file })),
        }
    }
}
