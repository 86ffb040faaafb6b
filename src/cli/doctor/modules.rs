//! The check of signing keys in a PKCS #11 module, for `grantd doctor`.

use anyhow::Context as _;

use crate::config::Config;
use crate::crypto::jws::SigningKey;
use crate::model::pkcs11_uri::Pkcs11Uri;
use crate::serve::pkcs11;
use crate::serve::prepare::exposed;
use crate::state::pkcs11::attachment::verify;

/// Has each attached key sign. Returns the faults.
pub(super) async fn examine(config: &Config, attached: Vec<(SigningKey, Pkcs11Uri)>) -> anyhow::Result<Vec<String>> {
    let Some(settings) = config.pkcs11.clone() else {
        let missing = |(key, uri): &(SigningKey, Pkcs11Uri)| {
            format!("signing key {}: it is in a PKCS #11 module ({uri}), and keys.pkcs11_module is not set", key.kid())
        };
        return Ok(attached.iter().map(missing).collect());
    };
    let of_file = settings.pin_file.as_deref().and_then(exposed);
    let of_file = of_file.map(|fault| format!("keys.pkcs11_pin_file: {fault}"));
    let tried = tokio::task::spawn_blocking(move || {
        let library = match pkcs11::load(&settings) {
            Ok(library) => library,
            Err(error) => return vec![error.to_string()],
        };
        let fault = |(key, uri): &(SigningKey, Pkcs11Uri)| {
            let error = verify(&library, uri, key).err()?;
            Some(format!("signing key {}: {error}", key.kid()))
        };
        attached.iter().filter_map(fault).collect()
    });
    Ok(of_file.into_iter().chain(tried.await.context("trying the PKCS #11 module")?).collect())
}
