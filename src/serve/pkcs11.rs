//! The PKCS #11 module of a server or a command: loaded with the PIN of its token.

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::prepare::config_error;
use super::sealing_key::RowsInUse;
use crate::config::{ConfigError, Pkcs11Settings, read_secret, user};
use crate::crypto::seal::SealingKey;
use crate::state::pkcs11::Library;

/// Loads the module. Blocks for as long as the module takes.
///
/// # Errors
/// [`ConfigError`] when the file of the PIN cannot be read, or the module cannot be loaded.
pub fn load(settings: &Pkcs11Settings) -> Result<Library, ConfigError> {
    let pin = settings.pin_file.as_deref().map(|path| {
        let wrong = |error: &dyn std::fmt::Display| {
            config_error("keys.pkcs11_pin_file", &format!("{}: {error}", path.display()))
        };
        let text = read_secret(path).map_err(|error| wrong(&format!("cannot be read by {}: {error}", user())))?;
        let text = Zeroizing::new(text);
        match text.as_str() {
            "" => Err(wrong(&"the file is empty; write the PIN of the token into it")),
            pin => Ok(SecretString::from(pin)),
        }
    });
    Library::open(&settings.module, pin.transpose()?).map_err(|error| config_error(MODULE, &error))
}

/// Refuses to start without a module when a key that is in use was attached from one: this server would publish the key and
/// sign nothing with it.
///
/// # Errors
/// [`ConfigError`], which names the keys.
pub(super) fn refuse_attached_keys(rows: &RowsInUse, under: &SealingKey) -> Result<(), ConfigError> {
    // A row that does not open is reported when it is loaded.
    let opened = rows.keys.iter().filter_map(|key| key.open(under).ok());
    let attached = opened.filter_map(|key| key.module.map(|module| format!("{} ({module})", key.key.kid())));
    let attached: Vec<String> = attached.collect();
    if attached.is_empty() {
        return Ok(());
    }
    let remedy = format!(
        "not set, and in a PKCS #11 module {} the signing key {}; name the module here and the file of its PIN in keys.pkcs11_pin_file, with a grantd that was built with `--features pkcs11`",
        if attached.len() == 1 { "is" } else { "are" },
        attached.join(", ")
    );
    Err(config_error(MODULE, &remedy))
}

const MODULE: &str = "keys.pkcs11_module";
