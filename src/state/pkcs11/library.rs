//! PKCS #11 modules as they are loaded: tokens, sessions, private keys.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use secrecy::SecretString;
use serde_json::json;

use super::{FoundKey, ModuleError};
use crate::crypto::json::Object;
use crate::crypto::jwk::Alg;
use crate::model::pkcs11_uri::Pkcs11Uri;

/// Whether this program loads PKCS #11 modules.
pub const SUPPORTED: bool = true;

/// A loaded module.
#[derive(Debug)]
pub struct Library {
    pkcs11: Pkcs11,
    path: PathBuf,
    is_initialized: Mutex<bool>,
    pin: Option<SecretString>,
    /// Slots of tokens that have refused the PIN. A token locks after a few wrong ones, so it is not tried again, and no two
    /// threads try it at the same time.
    pin_refused: Mutex<Vec<Slot>>,
}

/// A session with a private key.
#[derive(Debug)]
pub struct KeySession {
    uri: Pkcs11Uri,
    session: Session,
    key: ObjectHandle,
}

impl Library {
    /// Loads a module. It is initialized with the first session, since it may be away, or take its time. `pin` is that of the
    /// user of its token.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn open(path: &Path, pin: Option<SecretString>) -> Result<Self, ModuleError> {
        let failed = |error: Error| ModuleError(format!("{}: {}", path.display(), Said(&error)));
        let (pkcs11, path) = (Pkcs11::new(path).map_err(failed)?, path.to_owned());
        Ok(Self { pkcs11, path, is_initialized: Mutex::default(), pin, pin_refused: Mutex::default() })
    }

    fn initialize(&self) -> Result<(), ModuleError> {
        let mut is_initialized = self.is_initialized.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_initialized {
            match self.pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
                Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => *is_initialized = true,
                Err(error) => return Err(ModuleError(format!("{}: {}", self.path.display(), Said(&error)))),
            }
        }
        Ok(())
    }

    /// Opens a session, logs in, and finds the private key.
    pub(super) fn session(&self, uri: &Pkcs11Uri) -> Result<KeySession, ModuleError> {
        let failed = |error: Error| ModuleError(format!("{uri}: {}", Said(&error)));
        self.initialize()?;
        let (slot, token) = self.slot(uri)?;
        let session = self.pkcs11.open_ro_session(slot).map_err(failed)?;
        if token.login_required() {
            self.log_in(&session, slot, &token, uri)?;
        }
        let key = only(&session, ObjectClass::PRIVATE_KEY, uri)?;
        Ok(KeySession { uri: uri.clone(), session, key })
    }

    /// Returns the one token that the URI names, and its slot.
    fn slot(&self, uri: &Pkcs11Uri) -> Result<(Slot, TokenInfo), ModuleError> {
        let failed = |error: Error| ModuleError(format!("{uri}: {}", Said(&error)));
        let (mut found, mut labels) = (Vec::new(), Vec::new());
        for slot in self.pkcs11.get_slots_with_token().map_err(failed)? {
            // A slot of another token may be out of order.
            let Ok(token) = self.pkcs11.get_token_info(slot) else { continue };
            let fits =
                |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|wanted| wanted == own.trim_end());
            if fits(&uri.token, token.label())
                && fits(&uri.serial, token.serial_number())
                && fits(&uri.manufacturer, token.manufacturer_id())
                && fits(&uri.model, token.model())
            {
                found.push((slot, token));
            } else if token.token_initialized() {
                labels.push(format!("`{}`", token.label().trim_end()));
            }
        }
        match (found.len(), found.pop()) {
            (1, Some(one)) => Ok(one),
            (0, _) if labels.is_empty() => Err(ModuleError(format!("{uri}: the module has no token"))),
            (0, _) => Err(ModuleError(format!("{uri}: the module has no such token, but {}", labels.join(", ")))),
            (several, _) => Err(ModuleError(format!("{uri}: names {several} tokens; add `serial=`"))),
        }
    }

    fn log_in(&self, session: &Session, slot: Slot, token: &TokenInfo, uri: &Pkcs11Uri) -> Result<(), ModuleError> {
        let refused = || {
            ModuleError(format!(
                "{uri}: the token refused the PIN; it is not tried again, since a token locks after a few wrong ones: correct keys.pkcs11_pin_file and restart"
            ))
        };
        let Some(pin) = &self.pin else {
            return Err(ModuleError(format!("{uri}: the token asks for a PIN; name its file in keys.pkcs11_pin_file")));
        };
        let mut pin_refused = self.pin_refused.lock().unwrap_or_else(PoisonError::into_inner);
        if pin_refused.contains(&slot) {
            return Err(refused());
        }
        // A session that does not tell its state logs in, and learns from the answer.
        let is_logged_in = session
            .get_session_info()
            .is_ok_and(|session| matches!(session.session_state(), SessionState::RoUser | SessionState::RwUser));
        if is_logged_in {
            return Ok(());
        }
        if token.user_pin_final_try() {
            return Err(ModuleError(format!(
                "{uri}: one more wrong PIN locks the token, and grantd leaves that try to you: log in once with a tool of the module, correct keys.pkcs11_pin_file, and restart"
            )));
        }
        match session.login(UserType::User, Some(pin)) {
            // The login counts for every session of the process.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinLocked
                | RvError::PinExpired
                | RvError::PinLenRange
                | RvError::PinInvalid,
                _,
            )) => {
                pin_refused.push(slot);
                Err(refused())
            }
            Err(error) => Err(ModuleError(format!("{uri}: {}", Said(&error)))),
        }
    }
}

impl KeySession {
    /// Signs a message as JWS does (RFC 7518 section 3, RFC 8037 section 3.1).
    pub(super) fn sign(&self, alg: Alg, message: &[u8]) -> Result<Vec<u8>, ModuleError> {
        let hash = digest(&SHA256, message);
        let (mechanism, input) = match alg {
            // The module hashes nothing here: few of them have an ECDSA that does. The signature is R and S.
            Alg::Es256 => (Mechanism::Ecdsa, hash.as_ref()),
            Alg::EdDsa => (Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), message),
            Alg::Ps256 => (
                Mechanism::Sha256RsaPkcsPss(PkcsPssParams {
                    hash_alg: MechanismType::SHA256,
                    mgf: PkcsMgfType::MGF1_SHA256,
                    // RFC 7518 section 3.5: "The size of the salt value is the same size as the hash function output".
                    s_len: 32.into(),
                }),
                message,
            ),
            Alg::Rs256 => (Mechanism::Sha256RsaPkcs, message),
        };
        self.session.sign(&mechanism, self.key, input).map_err(|error| self.failed(&error))
    }

    /// Reads the public half of the key: its own attributes, or those of the public key of the same name.
    pub(super) fn public_half(&self) -> Result<FoundKey, ModuleError> {
        let own = self.attributes(self.key, &[AttributeType::Extractable])?;
        let extractable = !own.iter().any(|attribute| matches!(attribute, Attribute::Extractable(false)));
        let of_public =
            [AttributeType::Modulus, AttributeType::PublicExponent, AttributeType::EcParams, AttributeType::EcPoint];
        if let Some(jwk) = jwk(&self.attributes(self.key, &of_public)?) {
            return Ok(FoundKey { jwk, extractable });
        }
        let public = only(&self.session, ObjectClass::PUBLIC_KEY, &self.uri)?;
        let jwk = jwk(&self.attributes(public, &of_public)?).ok_or_else(|| {
            ModuleError(format!("{}: the key is none of EC on P-256, Ed25519 and RSA with exponent 65537", self.uri))
        })?;
        Ok(FoundKey { jwk, extractable })
    }

    fn attributes(&self, object: ObjectHandle, wanted: &[AttributeType]) -> Result<Vec<Attribute>, ModuleError> {
        self.session.get_attributes(object, wanted).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &Error) -> ModuleError {
        ModuleError(format!("{}: {}", self.uri, Said(error)))
    }
}

/// Returns the one object of a class that the URI names.
fn only(session: &Session, class: ObjectClass, uri: &Pkcs11Uri) -> Result<ObjectHandle, ModuleError> {
    let label = uri.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes()));
    let id = uri.id.as_ref().map(|id| Attribute::Id(id.clone()));
    let template: Vec<Attribute> = [Some(Attribute::Class(class)), label, id].into_iter().flatten().collect();
    let found = session.find_objects(&template).map_err(|error| ModuleError(format!("{uri}: {}", Said(&error))))?;
    let what = if class == ObjectClass::PRIVATE_KEY { "private" } else { "public" };
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(ModuleError(format!("{uri}: the token has no {what} key of that name"))),
        several => Err(ModuleError(format!("{uri}: names {} {what} keys; add `id=`", several.len()))),
    }
}

/// Returns the public key that attributes describe. `None` where they describe none that signs here.
fn jwk(attributes: &[Attribute]) -> Option<Object> {
    let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (mut modulus, mut exponent, mut curve, mut point) = (None, None, None, None);
    for attribute in attributes {
        match attribute {
            Attribute::Modulus(bytes) => modulus = Some(without_zeros(bytes)),
            Attribute::PublicExponent(bytes) => exponent = Some(without_zeros(bytes)),
            Attribute::EcParams(bytes) => curve = Some(bytes.as_slice()),
            Attribute::EcPoint(bytes) => point = Some(bytes.as_slice()),
            _ => {}
        }
    }
    let jwk = match (modulus, exponent, curve, point) {
        (Some(modulus), Some([1, 0, 1]), ..) => json!({"kty": "RSA", "n": text(modulus), "e": "AQAB"}),
        (_, _, Some(P_256), Some(point)) => {
            // PKCS #11 section 2.3.3: the point is a DER OCTET STRING. Some modules leave its two bytes out.
            let point = point.strip_prefix(&[4, 65]).filter(|_| point.len() == 67).unwrap_or(point);
            let point = point.strip_prefix(&[4]).filter(|point| point.len() == 64)?;
            let (x, y) = point.split_at(32);
            json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)})
        }
        (_, _, Some(ED25519 | ED25519_NAME), Some(point)) => {
            let point = point.strip_prefix(&[4, 32]).filter(|_| point.len() == 34).unwrap_or(point);
            let point = Some(point).filter(|point| point.len() == 32)?;
            json!({"kty": "OKP", "crv": "Ed25519", "x": text(point)})
        }
        _ => return None,
    };
    jwk.as_object().cloned()
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

/// Error of a module in few words: the function and the name of its return value.
struct Said<'e>(&'e Error);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Pkcs11(value, function) => write!(f, "C_{function:?} of the module returned {value:?}"),
            Error::LibraryLoading(error) => write!(f, "the module cannot be loaded: {error}"),
            other => write!(f, "{other}"),
        }
    }
}

/// The named curve P-256 (RFC 5480 section 2.1.1.1), in DER.
const P_256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// Ed25519 by its object identifier (RFC 8410 section 3), in DER.
const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];
/// Ed25519 by its name, as PKCS #11 3.0 section 2.3.5 writes it: a printable string in DER.
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";
