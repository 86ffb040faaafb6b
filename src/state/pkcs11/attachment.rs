//! Attachment of a private key in a module: its public half, and the proof that it signs.

use std::fmt;

use super::{FoundKey, Library, ModuleError};
use crate::crypto::json::Object;
use crate::crypto::jwk::Alg;
use crate::crypto::jws::SigningKey;
use crate::model::pkcs11_uri::Pkcs11Uri;

/// Finds the private key of that name in a module, and has it sign a probe. `alg` is needed where the key fits several.
/// Returns the key, and whether the module lets its private half out.
///
/// # Errors
/// [`ModuleError`], with what the module said and what to do.
pub fn find(library: &Library, uri: &Pkcs11Uri, alg: Option<Alg>) -> Result<(SigningKey, bool), ModuleError> {
    let session = library.session(uri)?;
    let FoundKey { jwk, extractable } = session.public_half()?;
    let alg = alg.unwrap_or_else(|| default_alg(&jwk));
    let wrong = |error: &dyn fmt::Display| ModuleError(format!("{uri} cannot sign with {alg}: {error}"));
    let key = SigningKey::from_public_jwk(alg, &jwk).map_err(|error| wrong(&error))?;
    let unsigned = key.unsigned("JWT", b"{}").ok_or_else(|| wrong(&"its header cannot be encoded"))?;
    let signature = session.sign(alg, unsigned.as_bytes())?;
    let jws = key.complete(unsigned, &signature);
    jws.ok_or_else(|| wrong(&"its signature does not verify with the public key of the same name"))?;
    Ok((key, extractable))
}

/// Has an attached key sign a probe.
///
/// # Errors
/// [`ModuleError`].
pub fn verify(library: &Library, uri: &Pkcs11Uri, key: &SigningKey) -> Result<(), ModuleError> {
    let (found, _) = find(library, uri, Some(key.alg()))?;
    if found.kid() == key.kid() {
        Ok(())
    } else {
        Err(ModuleError(format!("{uri} is another key than the one that was attached")))
    }
}

/// The algorithm of a key that fits one, or the better one of those that an RSA key fits.
fn default_alg(jwk: &Object) -> Alg {
    match jwk.get("kty").and_then(|kty| kty.as_str()) {
        Some("OKP") => Alg::EdDsa,
        Some("RSA") => Alg::Ps256,
        _ => Alg::Es256,
    }
}
