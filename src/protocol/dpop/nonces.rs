//! Nonces (RFC 9449 section 8) that carry their own proof: a MAC over chance and the minute they were made in.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::crypto::{NoEntropy, equal, hmac_sha256, random_id};
use crate::model::time::UnixTime;

/// The key of the MAC, which all replicas derive alike, and the one before it while the sealing key is changed.
pub(super) struct Nonces {
    key: hmac::Key,
    previous: Option<hmac::Key>,
}

impl Nonces {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self { key, previous: None }
    }

    pub(super) fn with_previous(self, previous: Option<hmac::Key>) -> Self {
        Self { previous, ..self }
    }

    /// A nonce of now.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub(super) fn issue(&self, now: UnixTime) -> Result<String, NoEntropy> {
        let salt = random_id()?;
        let mac = mac(&self.key, window(now), &salt);
        Ok(BASE64_URL_SAFE_NO_PAD.encode([salt, mac].concat()))
    }

    /// How many windows ago a nonce was made. One that is older than the window before this is nobody's. One under the
    /// previous key counts as a window old, so that the client gets another.
    pub(super) fn age(&self, nonce: &str, now: UnixTime) -> Option<i64> {
        let bytes: [u8; 32] = BASE64_URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?;
        let (salt, mac) = bytes.split_first_chunk::<16>()?;
        // The replica that made it may be in the next window already.
        let age = |key| [0, 1, -1].into_iter().find(|age| equal(mac, &self::mac(key, window(now) - age, salt)));
        age(&self.key).or_else(|| age(self.previous.as_ref()?).map(|_| 1))
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces")
    }
}

fn mac(key: &hmac::Key, window: i64, salt: &[u8; 16]) -> [u8; 16] {
    hmac_sha256(key, &[&window.to_be_bytes(), salt])
}

fn window(now: UnixTime) -> i64 {
    now.0.div_euclid(WINDOW)
}

/// Seconds of a window. A nonce is accepted in its own and in the next one.
pub(crate) const WINDOW: i64 = 60;
