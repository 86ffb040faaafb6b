//! The PKCS #11 module of a server or a command: loaded with the PIN of its token.

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::prepare::config_error;
use crate::config::{ConfigError, Pkcs11Settings, read_secret, user};
use crate::crypto::seal::SealingKey;
use crate::state::keyring::live;
use crate::state::pkcs11::Library;
use crate::store::{Store, StoreError};

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
/// [`ConfigError`], which names the keys; [`StoreError`]. None when the database cannot be reached.
pub async fn refuse_attached_keys(store: &Store, under: &SealingKey) -> anyhow::Result<()> {
    let attached = async {
        let (now, keys) = (store.now().await?, store.keys().await?);
        let opened = live(&keys, now).filter_map(|key| key.open(under).ok());
        let attached = opened.filter_map(|key| key.module.map(|module| format!("{} ({module})", key.key.kid())));
        Ok::<_, StoreError>(attached.collect::<Vec<_>>())
    };
    match attached.await {
        Ok(attached) if attached.is_empty() => Ok(()),
        Ok(attached) => {
            let remedy = format!(
                "not set, and in a PKCS #11 module {} the signing key {}; name the module here and the file of its PIN in keys.pkcs11_pin_file, with a grantd that was built with `--features pkcs11`",
                if attached.len() == 1 { "is" } else { "are" },
                attached.join(", ")
            );
            Err(config_error(MODULE, &remedy).into())
        }
        Err(error) if error.is_outage() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

const MODULE: &str = "keys.pkcs11_module";
