//! Verifiers of generated client secrets: a MAC under a key that is derived from the sealing key. A replica that has just
//! started accepts a secret by its verifier, and verifies the argon2id hash afterwards.
//!
//! argon2id slows down the search for a secret that a person chose. A generated secret has 256 random bits, which no
//! search finds, so its verifier may be cheap. Imported secrets have none.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::seal::SealingKey;
use super::secret::{ClientSecret, SecretHash};
use super::{equal, hmac_sha256};

/// Key that makes and checks verifiers. All replicas with the same sealing key have the same one. While the sealing key is
/// changed, verifiers of the previous one are accepted too.
pub struct VerifierKey {
    key: hmac::Key,
    id: KeyId,
    previous: Option<Box<VerifierKey>>,
}

/// Verifier of a secret of one client with one stored hash: `<8 hexadecimal digits: key id>.<43 of base64url: MAC>`.
pub struct Verifier {
    key_id: KeyId,
    mac: [u8; 32],
}

/// The part of a verifier that a replica keeps in memory: the id of its key and 128 bits of its MAC.
#[derive(Clone, Copy)]
pub struct StoredVerifier {
    key_id: KeyId,
    mac: [u8; STORED_MAC],
}

/// Error for a text that is not a verifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a verifier is 8 hexadecimal digits, a dot and 43 characters of base64url")]
pub struct VerifierError;

type KeyId = [u8; 4];

impl VerifierKey {
    /// Derives the key from the sealing key.
    #[must_use]
    pub fn new(under: &SealingKey) -> Self {
        let key = under.derive("client secret verifiers");
        // What verifiers authenticate begins with a client id and a NUL, which this text does not.
        let id = hmac_sha256(&key, &[b"grantd verifier key id"]);
        Self { key, id, previous: under.previous().map(|previous| Box::new(Self::new(previous))) }
    }

    /// The text with which the verifiers of this key begin.
    #[must_use]
    pub fn key_id(&self) -> String {
        hexadecimal(self.id)
    }

    /// Whether `stored` is the verifier of `secret` under this key or the previous one.
    #[must_use]
    pub fn accepts(&self, client_id: &str, secret: &ClientSecret, hash: &SecretHash, stored: &StoredVerifier) -> bool {
        match &self.previous {
            Some(previous) if previous.id == stored.key_id => previous.accepts(client_id, secret, hash, stored),
            _ => self.verifier(client_id, secret, hash).equals(stored),
        }
    }

    /// Returns the verifier of `secret`, which is a secret of `client_id` and is stored with `hash`.
    ///
    /// The hash is a part of it, so that a hash that was replaced by SQL ends the verifier of the former secret too.
    #[must_use]
    pub fn verifier(&self, client_id: &str, secret: &ClientSecret, hash: &SecretHash) -> Verifier {
        // Neither client ids nor generated secrets contain NUL, so the parts cannot be split in two ways.
        let hash = hash.to_string();
        let parts = [client_id.as_bytes(), b"\0", secret.expose().as_bytes(), b"\0", hash.as_bytes()];
        Verifier { key_id: self.id, mac: hmac_sha256(&self.key, &parts) }
    }
}

impl Verifier {
    /// Compares the key and the MAC, the latter in constant time. A verifier under another sealing key is never equal.
    #[must_use]
    pub fn equals(&self, stored: &StoredVerifier) -> bool {
        let Self { key_id, mac } = self;
        let shortened = mac.first_chunk::<STORED_MAC>();
        *key_id == stored.key_id && shortened.is_some_and(|mac| equal(mac, &stored.mac))
    }

    /// The part to keep in memory.
    #[must_use]
    pub fn stored(&self) -> StoredVerifier {
        let mut mac = [0; STORED_MAC];
        mac.iter_mut().zip(self.mac).for_each(|(kept, byte)| *kept = byte);
        StoredVerifier { key_id: self.key_id, mac }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", hexadecimal(self.key_id), BASE64_URL_SAFE_NO_PAD.encode(self.mac))
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let (key_id, mac) = text.split_at_checked(8).ok_or(VerifierError)?;
        let lower_case = key_id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u32::from_str_radix(key_id, 16).ok().filter(|_| lower_case);
        let (mut bytes, mac) = ([0; 32], mac.strip_prefix('.').ok_or(VerifierError)?);
        let is_whole = BASE64_URL_SAFE_NO_PAD.decode_slice(mac, &mut bytes) == Ok(bytes.len());
        let number = number.filter(|_| is_whole).ok_or(VerifierError)?;
        Ok(Self { key_id: number.to_be_bytes(), mac: bytes })
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifierKey")
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl fmt::Debug for StoredVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredVerifier")
    }
}

fn hexadecimal(id: KeyId) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

/// Bytes of the MAC that are kept in memory. A forged secret passes once in 2¹²⁸ attempts, each of which needs a valid
/// tag and a request.
const STORED_MAC: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    use crate::crypto::secret::{HashMemory, HashParams};

    fn key() -> VerifierKey {
        VerifierKey::new(&SealingKey::from_base64(&SealingKey::generate_base64().unwrap()).unwrap())
    }

    #[test]
    fn a_verifier_is_for_one_key_one_client_one_secret_and_one_hash() {
        let hash = |secret: &str| SecretHash::new(secret, HashParams::default(), &mut HashMemory::default()).unwrap();
        let secret = ClientSecret::generate("billing", "a", None).unwrap();
        let (key, stored_hash) = (key(), hash(secret.expose()));
        let stored = key.verifier("billing", &secret, &stored_hash).stored();
        assert!(key.verifier("billing", &secret, &stored_hash).equals(&stored));
        let other = ClientSecret::generate("billing", "a", None).unwrap();
        assert!(!key.verifier("billin", &secret, &stored_hash).equals(&stored));
        assert!(!key.verifier("billing", &other, &stored_hash).equals(&stored));
        assert!(!key.verifier("billing", &secret, &hash(secret.expose())).equals(&stored), "another salt");
        assert!(!self::key().verifier("billing", &secret, &stored_hash).equals(&stored), "another sealing key");
    }

    #[test]
    fn a_verifier_of_the_previous_sealing_key_is_accepted_and_none_is_made() {
        let texts = [(); 2].map(|()| SealingKey::generate_base64().unwrap());
        let [old, new] = texts.map(|text| SealingKey::from_base64(&text).unwrap());
        let (secret, hash) =
            (ClientSecret::generate("billing", "a", None).unwrap(), SecretHash::decoy(HashParams::default()));
        let stored = VerifierKey::new(&old).verifier("billing", &secret, &hash).stored();
        let [of_old, of_new] = [&old, &new].map(|key| VerifierKey::new(key).key_id());
        let both = VerifierKey::new(&new.with_previous(old));
        assert!(both.accepts("billing", &secret, &hash, &stored));
        let other = ClientSecret::generate("billing", "a", None).unwrap();
        assert!(!both.accepts("billing", &other, &hash, &stored));
        let made = both.verifier("billing", &secret, &hash);
        assert!(!made.equals(&stored) && both.accepts("billing", &secret, &hash, &made.stored()));
        assert!(made.to_string().starts_with(&of_new) && of_new != of_old && both.key_id() == of_new);
    }

    #[test]
    fn a_verifier_survives_its_column() {
        let secret = ClientSecret::generate("billing", "a", None).unwrap();
        let verifier = key().verifier("billing", &secret, &SecretHash::decoy(HashParams::default()));
        let text = verifier.to_string();
        assert_eq!(text.len(), 52);
        assert!(verifier.equals(&text.parse::<Verifier>().unwrap().stored()));
        let upper = text.to_uppercase();
        for wrong in ["", ".", &text[1..], &text[..51], &format!("{text}A"), &text.replace('.', ""), &upper] {
            assert!(wrong.parse::<Verifier>().is_err(), "{wrong}");
        }
        assert_eq!(format!("{verifier:?}"), "Verifier");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            drop(text.parse::<Verifier>());
        }
    }
}
