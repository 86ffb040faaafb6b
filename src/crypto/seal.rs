//! Private keys at rest: AES-256-GCM under a sealing key that never enters the database.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::{Zeroize as _, Zeroizing};

use super::{NoEntropy, hmac_sha256, random};

/// Key that seals private keys: 32 bytes, in base64 in its file.
pub struct SealingKey {
    key: RandomizedNonceKey,
    deriving: hmac::Key,
    id: [u8; ID_LEN],
    /// The other key of a deployment whose sealing key is being changed.
    previous: Option<Box<SealingKey>>,
}

/// Errors of reading a sealing key and of opening sealed bytes.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file does not contain 32 bytes in base64.
    #[error("a sealing key is 32 bytes in base64; make one with `head -c 32 /dev/urandom | base64`")]
    BadKey,
    /// The bytes were sealed under another key. Both keys are named by fingerprint.
    #[error(
        "sealed under sealing key {sealed_under}, but the configured one is {configured}; restore the former, or remove the key"
    )]
    OtherKey {
        /// Fingerprint that is stored with the sealed bytes.
        sealed_under: String,
        /// Fingerprint of the configured key.
        configured: String,
    },
    /// The sealed bytes are truncated or altered, or belong to another row.
    #[error("sealed bytes are damaged or belong to another row")]
    Damaged,
    /// No random nonce could be generated.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

impl SealingKey {
    /// Reads the base64 text of a key file.
    ///
    /// # Errors
    /// [`SealError::BadKey`] unless the text is 32 bytes in base64, surrounding white space aside.
    pub fn from_base64(text: &str) -> Result<Self, SealError> {
        let bytes = Zeroizing::new(BASE64_STANDARD.decode(text.trim()).map_err(|_| SealError::BadKey)?);
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| SealError::BadKey)?;
        let deriving = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let id = hmac_sha256(&deriving, &[b"grantd sealing key id"]);
        Ok(Self { key, deriving, id, previous: None })
    }

    /// Returns the same key, which also opens what `previous` sealed. It seals under itself alone.
    #[must_use]
    pub fn with_previous(self, previous: Self) -> Self {
        Self { previous: Some(Box::new(previous)), ..self }
    }

    /// The other key under which sealed bytes open.
    #[must_use]
    pub fn previous(&self) -> Option<&Self> {
        self.previous.as_deref()
    }

    /// The fingerprint of the key: 16 hexadecimal digits, which sealed bytes carry.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.id)
    }

    /// Generates a key, and returns its base64 text for a key file.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn generate_base64() -> Result<Zeroizing<String>, NoEntropy> {
        let mut bytes = random::<32>()?;
        let text = Zeroizing::new(BASE64_STANDARD.encode(bytes));
        bytes.zeroize();
        Ok(text)
    }

    /// Derives a key for another purpose. All replicas derive the same one, and it does not reveal the sealing key.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> hmac::Key {
        // No other text that this key authenticates begins like this.
        let derived = hmac_sha256::<32>(&self.deriving, &[b"grantd key for: ", purpose.as_bytes()]);
        hmac::Key::new(hmac::HMAC_SHA256, &derived)
    }

    /// Seals `plain` so that it opens only under this key and with the same `context` (the row it belongs to).
    ///
    /// # Errors
    /// [`SealError::NoEntropy`].
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut body = plain.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(context.as_bytes()), &mut body)
            .map_err(|_| SealError::NoEntropy(NoEntropy))?;
        let mut sealed = Vec::with_capacity(1 + ID_LEN + NONCE_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens bytes that [`seal`](Self::seal) made.
    ///
    /// # Errors
    /// [`SealError::OtherKey`] or [`SealError::Damaged`].
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Damaged)?;
        let (id, rest) = rest.split_at_checked(ID_LEN).ok_or(SealError::Damaged)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Damaged)?;
        if *version != VERSION {
            return Err(SealError::Damaged);
        }
        if id != self.id {
            return match &self.previous {
                Some(previous) if id == previous.id => previous.open(context, sealed),
                _ => Err(SealError::OtherKey { sealed_under: fingerprint(id), configured: self.fingerprints() }),
            };
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
        let mut body = Zeroizing::new(body.to_vec());
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(context.as_bytes()), &mut body)
            .map_err(|_| SealError::Damaged)?
            .len();
        body.truncate(opened);
        Ok(body)
    }

    /// Seals under this key what the previous one sealed. `None` when the bytes are under this key already.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and [`seal`](Self::seal).
    pub fn reseal(&self, context: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, SealError> {
        let plain = self.open(context, sealed)?;
        if self.is_key_of(sealed) { Ok(None) } else { self.seal(context, &plain).map(Some) }
    }

    /// Whether this key itself sealed the bytes, by the fingerprint that they carry.
    #[must_use]
    pub fn is_key_of(&self, sealed: &[u8]) -> bool {
        id_in(sealed) == Some(&self.id)
    }

    /// Whether the bytes were sealed under a key that is neither this one nor the previous one.
    #[must_use]
    pub fn is_foreign(&self, sealed: &[u8]) -> bool {
        let is_known = |id: &[u8; ID_LEN]| *id == self.id || self.previous().is_some_and(|previous| *id == previous.id);
        id_in(sealed).is_some_and(|id| !is_known(id))
    }

    fn fingerprints(&self) -> String {
        match self.previous() {
            Some(previous) => format!("{}, and the previous one {}", self.fingerprint(), previous.fingerprint()),
            None => self.fingerprint(),
        }
    }
}

/// Returns the id of the key in sealed bytes of this version.
fn id_in(sealed: &[u8]) -> Option<&[u8; ID_LEN]> {
    sealed.split_first().filter(|(version, _)| **version == VERSION)?.1.first_chunk()
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", fingerprint(&self.id))
    }
}

fn fingerprint(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

const VERSION: u8 = 1;
const ID_LEN: usize = 8;
const NONCE_LEN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SealingKey {
        SealingKey::from_base64(&SealingKey::generate_base64().unwrap()).unwrap()
    }

    #[test]
    fn sealed_data_opens_under_the_same_key_and_context_only() {
        let key = key();
        let sealed = key.seal("signing_key/a", b"private").unwrap();
        assert_eq!(key.open("signing_key/a", &sealed).unwrap().as_slice(), b"private");
        assert!(!sealed.windows(7).any(|window| window == b"private"));
        assert!(matches!(key.open("signing_key/b", &sealed), Err(SealError::Damaged)));
        assert!(matches!(super::tests::key().open("signing_key/a", &sealed), Err(SealError::OtherKey { .. })));
    }

    #[test]
    fn a_key_opens_and_reseals_what_the_previous_one_sealed() {
        let texts = [(); 3].map(|()| SealingKey::generate_base64().unwrap());
        let key = |at: usize| SealingKey::from_base64(&texts[at]).unwrap();
        let both = key(1).with_previous(key(0));
        let [old, foreign] = [0, 2].map(|at| key(at).seal("k", b"private").unwrap());
        assert_eq!(both.open("k", &old).unwrap().as_slice(), b"private");
        assert!(matches!(both.open("other", &old), Err(SealError::Damaged)));
        assert!(!both.is_key_of(&old) && !both.is_foreign(&old) && key(1).is_foreign(&old));
        let moved = both.reseal("k", &old).unwrap().expect("it is under the previous key");
        assert_eq!(key(1).open("k", &moved).unwrap().as_slice(), b"private");
        assert!(both.is_key_of(&moved) && both.reseal("k", &moved).unwrap().is_none());
        assert!(both.is_foreign(&foreign) && !both.is_foreign(b"") && !both.is_foreign(&old[..4]));
        let error = both.reseal("k", &foreign).unwrap_err().to_string();
        assert!([0, 1, 2].iter().all(|at| error.contains(&key(*at).fingerprint())), "{error}");
        // Whichever of two keys is current, both open.
        let swapped = key(0).with_previous(key(1));
        assert!(swapped.open("k", &moved).is_ok() && swapped.open("k", &old).is_ok());
        assert!(both.is_key_of(&both.seal("k", b"private").unwrap()), "it seals under itself alone");
    }

    #[test]
    fn derived_keys_are_of_one_key_and_one_purpose() {
        let text = SealingKey::generate_base64().unwrap();
        let tag = |key: &SealingKey, purpose: &str| hmac::sign(&key.derive(purpose), b"x").as_ref().to_vec();
        let (one, again) = (SealingKey::from_base64(&text).unwrap(), SealingKey::from_base64(&text).unwrap());
        assert_eq!(tag(&one, "a"), tag(&again, "a"));
        assert_ne!(tag(&one, "a"), tag(&one, "b"));
        assert_ne!(tag(&one, "a"), tag(&key(), "a"));
    }

    #[test]
    fn no_single_altered_or_missing_byte_opens() {
        let key = key();
        let sealed = key.seal("k", b"private").unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(key.open("k", &altered).is_err(), "byte {at}");
            assert!(key.open("k", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_key_of_the_wrong_size_says_how_to_make_one() {
        let error = SealingKey::from_base64("c2hvcnQ=").unwrap_err();
        assert!(error.to_string().contains("head -c 32"), "{error}");
    }
}
