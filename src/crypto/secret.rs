//! Client secrets: generation, hashing with argon2id (RFC 9106), and verification within fixed bounds of memory and
//! work.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Block, Version};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

pub use super::hash_params::{HashError, HashParams};
use super::secret_tag::{TAG_LEN, TagKey, TagKid};
use super::{NoEntropy, equal, random};

/// Client secret in clear. It has no `Display`, `==` or `Clone`, and its `Debug` prints nothing of it.
#[derive(Debug)]
pub struct ClientSecret(SecretString);

impl ClientSecret {
    /// Wraps a secret that was presented or chosen elsewhere.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(SecretString::from(secret))
    }

    /// Generates a secret of 256 random bits (RFC 6749 section 10.10 asks for 160). It carries `secret_id`, so that
    /// verifying it takes one hash however many secrets the client has. With a tag key it also carries a tag, so that a
    /// made-up secret is refused without a hash.
    ///
    /// The alphabet is base64url, so the secret has the same bytes raw and form-encoded.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn generate(client_id: &str, secret_id: &str, tag_key: Option<&TagKey>) -> Result<Self, NoEntropy> {
        let bytes = Zeroizing::new(random::<32>()?);
        let mut secret = String::with_capacity(PREFIX.len() + secret_id.len() + 1 + RANDOM_LEN + TAG_LEN);
        secret.push_str(PREFIX);
        secret.push_str(secret_id);
        secret.push('_');
        BASE64_URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut secret);
        if let Some(tag) = tag_key.map(|key| key.tag(client_id, &secret)) {
            secret.push_str(&tag);
        }
        Ok(Self::new(secret))
    }

    /// The secret's id when grantd generated it; `None` for a secret that was chosen elsewhere.
    #[must_use]
    pub fn secret_id(&self) -> Option<&str> {
        self.parts().filter(|(_, random)| matches!(random.len(), RANDOM_LEN | TAGGED_LEN)).map(|(id, _)| id)
    }

    /// Whether it has the form of a generated secret with a tag.
    #[must_use]
    pub fn has_tag(&self) -> bool {
        self.parts().is_some_and(|(_, random)| random.len() == TAGGED_LEN)
    }

    /// Whether it begins like a secret that grantd generated, and is too short for one.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.parts().is_some_and(|(_, random)| random.len() < TAGGED_LEN && random.len() != RANDOM_LEN)
    }

    /// The id and the rest of a text that begins like a generated secret, whatever its length.
    #[expect(clippy::needless_bitwise_bool, reason = "without branches the compiler looks at many bytes at a time")]
    fn parts(&self) -> Option<(&str, &str)> {
        let (id, random) = self.expose().strip_prefix(PREFIX).map(|it| it.split_once('_').unwrap_or((it, "")))?;
        let is_made_of = |text: &str, other: u8| {
            text.bytes().fold(true, |ok, byte| ok & (byte.is_ascii_alphanumeric() | (byte == b'-') | (byte == other)))
        };
        let well_formed = (1..=64).contains(&id.len()) && is_made_of(id, b'-') && is_made_of(random, b'_');
        well_formed.then_some((id, random))
    }

    /// The secret without the characters around it that come with a copy: white space, quotation marks, a byte order mark,
    /// and a line end in letters. `None` when there are none.
    #[must_use]
    pub fn unwrapped(&self) -> Option<(Self, Wrapping)> {
        let text = self.expose();
        let is_around = |character: char| Wrapping::of(character).is_some();
        let mut inner = text.trim_matches(is_around);
        while let Some(shorter) = inner.strip_suffix(r"\n").or_else(|| inner.strip_suffix(r"\r")) {
            inner = shorter.trim_end_matches(is_around);
        }
        if inner.len() == text.len() || inner.is_empty() {
            return None;
        }
        let ends = [text.chars().next_back(), text.chars().next()];
        // What is left is a line end in letters.
        let wrapping = ends.into_iter().flatten().find_map(Wrapping::of).unwrap_or(Wrapping::LineEnd);
        Some((Self::new(inner.to_owned()), wrapping))
    }

    /// The identifier of the key among `keys` that tagged this secret for `client_id`.
    #[must_use]
    pub fn tagged_by(&self, client_id: &str, keys: &[TagKey]) -> Option<TagKid> {
        self.secret_id()?;
        let (untagged, tag) = self.expose().split_at_checked(self.expose().len().checked_sub(TAG_LEN)?)?;
        keys.iter().find(|key| key.verifies(client_id, untagged, tag)).map(TagKey::kid)
    }

    /// The secret in clear, for hashing and for showing it once.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The kind of characters around a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// A line feed or a carriage return.
    LineEnd,
    /// Other white space, visible or not.
    Blank,
    /// Quotation marks.
    Quotes,
    /// U+FEFF, which some editors write at the start of a file.
    ByteOrderMark,
}

impl Wrapping {
    fn of(character: char) -> Option<Self> {
        match character {
            '\n' | '\r' => Some(Self::LineEnd),
            '"' | '\'' | '`' | '\u{201c}' | '\u{201d}' => Some(Self::Quotes),
            '\u{feff}' => Some(Self::ByteOrderMark),
            '\u{200b}' => Some(Self::Blank),
            other => other.is_whitespace().then_some(Self::Blank),
        }
    }
}

impl fmt::Display for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LineEnd => "a line end",
            Self::Blank => "a blank",
            Self::Quotes => "a quotation mark",
            Self::ByteOrderMark => "a byte order mark",
        })
    }
}

/// Returns a new id for a secret: 80 random bits in lower-case letters and digits, without a delimiter.
///
/// # Errors
/// [`NoEntropy`].
pub fn new_secret_id() -> Result<String, NoEntropy> {
    // Five bits of each byte select one of a to z and 2 to 7.
    let letter = |byte: u8| if byte < 26 { b'a' + byte } else { b'2' + byte - 26 };
    Ok(random::<16>()?.iter().map(|byte| char::from(letter(byte & 31))).collect())
}

/// Stored argon2id hash, parsed and within the bounds of cost.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash {
    params: HashParams,
    bytes: HashBytes,
}

/// Salt and output.
#[derive(Clone, PartialEq, Eq)]
enum HashBytes {
    /// A salt of 16 and an output of 32 bytes, in place: a registry may hold a million hashes.
    Usual([u8; 48]),
    /// A salt of that many bytes, and an output.
    Other(Box<(usize, Box<[u8]>)>),
}

impl SecretHash {
    /// Hashes `secret` with a new 16-byte salt.
    ///
    /// # Errors
    /// [`HashError::NoEntropy`], and [`HashError::TooWeak`] or [`HashError::TooCostly`] for a cost outside the bounds.
    pub fn new(secret: &str, params: HashParams, memory: &mut HashMemory) -> Result<Self, HashError> {
        let params = params.checked()?;
        let salt = random::<16>()?;
        let mut output = [0; 32];
        memory.run(params, secret.as_bytes(), &salt, &mut output)?;
        Ok(Self::of(params, &salt, &output))
    }

    /// Whether `secret` matches the hash; compared in constant time.
    #[must_use]
    pub fn verify(&self, secret: &str, memory: &mut HashMemory) -> bool {
        let mut output = [0; MAX_OUTPUT];
        let (salt, expected) = self.parts();
        let Some(output) = output.get_mut(..expected.len()) else { return false };
        memory.run(self.params, secret.as_bytes(), salt, output).is_ok() && equal(output, expected)
    }

    /// Returns a hash that no secret matches. Verifying against it costs as much as against a real hash of these
    /// parameters.
    #[must_use]
    pub fn decoy(params: HashParams) -> Self {
        Self::of(params, &[0x5a; 16], &[0; 32])
    }

    fn of(params: HashParams, salt: &[u8], output: &[u8]) -> Self {
        let both = [salt, output].concat();
        let usual = both.as_slice().try_into().ok().filter(|_| salt.len() == 16);
        let bytes = usual.map_or_else(|| HashBytes::Other(Box::new((salt.len(), both.into()))), HashBytes::Usual);
        Self { params, bytes }
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        match &self.bytes {
            HashBytes::Usual(bytes) => bytes.split_at(16),
            HashBytes::Other(other) => other.1.split_at_checked(other.0).unwrap_or_default(),
        }
    }

    /// The cost parameters of the hash.
    #[must_use]
    pub fn params(&self) -> HashParams {
        self.params
    }
}

/// Reads a hash in the form in which grantd writes them, with a salt of 16 and an output of 32 bytes, in one pass: a large
/// registry has a million of them. `None` for any other text, which the general form then reads or refuses.
fn usual(phc: &str) -> Option<Result<SecretHash, HashError>> {
    let (rest, output) = phc.strip_prefix("$argon2id$v=19$")?.rsplit_once('$')?;
    let (params, salt) = rest.rsplit_once('$')?;
    let is_usual = params == HashParams::DEFAULT;
    let is_plain = is_usual || !params.contains(['+', '$']) && !params.contains("=0");
    if salt.len() != 22 || output.len() != 43 || !is_plain {
        return None;
    }
    let mut bytes = [0; 48];
    let (salt_to, output_to) = bytes.split_at_mut(16);
    BASE64_STANDARD_NO_PAD.decode_slice(salt, salt_to).ok()?;
    BASE64_STANDARD_NO_PAD.decode_slice(output, output_to).ok()?;
    let params = if is_usual { Ok(HashParams::default()) } else { params.parse() };
    Some(params.map(|params| SecretHash { params, bytes: HashBytes::Usual(bytes) }))
}

impl FromStr for SecretHash {
    type Err = HashError;

    fn from_str(phc: &str) -> Result<Self, HashError> {
        if !phc.starts_with("$argon2id$") || phc.len() > 256 {
            return Err(HashError::NotArgon2id);
        }
        if let Some(usual) = usual(phc) {
            return usual;
        }
        let parsed = PasswordHash::new(phc).map_err(|_| HashError::Malformed)?;
        if parsed.version != Some(Version::V0x13.into()) {
            return Err(HashError::Malformed);
        }
        let params: HashParams = parsed.params.to_string().parse()?;
        let (Some(salt), Some(output)) = (parsed.salt, parsed.hash) else { return Err(HashError::Malformed) };
        if salt.as_ref().len() < 16 || output.as_bytes().len() < 32 {
            return Err(HashError::TooWeak);
        }
        Ok(Self::of(params, salt.as_ref(), output.as_bytes()))
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params = self.params.to_string().parse::<ParamsString>().map_err(|_| fmt::Error)?;
        let (salt, output) = self.parts();
        let salt = Salt::new(salt).map_err(|_| fmt::Error)?;
        let output = Output::new(output).map_err(|_| fmt::Error)?;
        write!(f, "$argon2id$v=19${params}${salt}${output}")
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHash({})", self.params)
    }
}

/// Working memory of argon2, reused so that hashing does not allocate.
#[derive(Default)]
pub struct HashMemory(Vec<Block>);

impl HashMemory {
    fn run(&mut self, params: HashParams, secret: &[u8], salt: &[u8], output: &mut [u8]) -> Result<(), HashError> {
        let params = params.checked()?;
        let argon2 = params.argon2(output.len())?;
        let blocks = argon2.params().block_count();
        if self.0.len() < blocks {
            self.0.resize(blocks, Block::default());
        }
        let done = argon2.hash_password_into_with_memory(secret, salt, output, &mut self.0);
        // After a costly hash the memory shrinks to its usual size.
        self.0.truncate(KEEP_BLOCKS);
        self.0.shrink_to(KEEP_BLOCKS);
        done.map_err(|_| HashError::Malformed)
    }
}

/// Prefix of generated secrets. Secret scanners recognise it, so it never changes.
const PREFIX: &str = "gds_";
/// Characters of 256 bits in base64url.
const RANDOM_LEN: usize = 43;
const TAGGED_LEN: usize = RANDOM_LEN + TAG_LEN;
const MAX_OUTPUT: usize = 64;
const KEEP_BLOCKS: usize = 19456;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_is_256_bits_of_base64url_and_carries_its_row_id() {
        let id = new_secret_id().unwrap();
        let (key, _) = TagKey::generate().unwrap();
        let secret = ClientSecret::generate("c", &id, None).unwrap();
        assert_eq!(secret.secret_id(), Some(id.as_str()));
        assert_eq!(secret.tagged_by("c", &[key]), None, "there is no tag");
        assert!(secret.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        let random = secret.expose().rsplit_once(&format!("{id}_")).unwrap().1;
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(random).unwrap().len(), 32);
        assert_eq!(format!("{secret:?}"), "ClientSecret(SecretBox<str>([REDACTED]))");
    }

    #[test]
    fn a_tagged_secret_is_told_from_every_other() {
        let keys = [TagKey::generate().unwrap().0, TagKey::generate().unwrap().0];
        let secret = ClientSecret::generate("c", "row", Some(&keys[1])).unwrap();
        assert_eq!(secret.secret_id(), Some("row"));
        assert_eq!(secret.tagged_by("c", &keys), Some(keys[1].kid()));
        assert_eq!(secret.tagged_by("c", &keys[..1]), None, "its key is lost");
        assert_eq!(secret.tagged_by("d", &keys), None, "another client");
        for at in 0..secret.expose().len() {
            let mut altered = secret.expose().to_owned().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = ClientSecret::new(String::from_utf8(altered).unwrap());
            assert_eq!(altered.tagged_by("c", &keys), None, "altered at {at}");
        }
    }

    #[test]
    fn characters_around_a_secret_are_told_and_taken_off() {
        let unwrapped = |text: &str| {
            let unwrapped = ClientSecret::new(text.to_owned()).unwrapped();
            unwrapped.map(|(secret, wrapping)| (secret.expose().to_owned(), wrapping))
        };
        for (text, wrapping) in [
            ("s3cret\n", Wrapping::LineEnd),
            ("s3cret\r\n", Wrapping::LineEnd),
            (r"s3cret\n", Wrapping::LineEnd),
            (" s3cret", Wrapping::Blank),
            ("s3cret\u{a0}", Wrapping::Blank),
            ("\"s3cret\"", Wrapping::Quotes),
            ("'s3cret'", Wrapping::Quotes),
            ("\u{feff}s3cret", Wrapping::ByteOrderMark),
            ("\u{feff}\"s3cret\"\n", Wrapping::LineEnd),
        ] {
            assert_eq!(unwrapped(text), Some(("s3cret".to_owned(), wrapping)), "{text:?}");
        }
        for text in ["s3cret", "s3 cret", "s3\"cret", "", " ", "\n\n"] {
            assert_eq!(unwrapped(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_generated_secret_that_lacks_its_end_is_told() {
        let (key, _) = TagKey::generate().unwrap();
        let secret = ClientSecret::generate("c", "row", Some(&key)).unwrap();
        for length in 5..secret.expose().len() {
            let cut = ClientSecret::new(secret.expose()[..length].to_owned());
            // Without exactly its tag it is as long as one that has none.
            assert_eq!(cut.is_truncated(), length != secret.expose().len() - TAG_LEN, "{length}");
        }
        assert!(!secret.is_truncated());
        for other in ["chosen elsewhere, long enough", "gds", "gds_", "gds_row with blanks"] {
            assert!(!ClientSecret::new(other.to_owned()).is_truncated(), "{other}");
        }
    }

    #[test]
    fn a_hash_has_the_configured_cost_and_its_own_salt_and_parses_back() {
        let mut memory = HashMemory::default();
        let a = SecretHash::new("correct horse", HashParams::default(), &mut memory).unwrap();
        let b = SecretHash::new("correct horse", HashParams::default(), &mut memory).unwrap();
        assert_ne!(a.to_string(), b.to_string());
        assert_eq!(HashParams::default().to_string(), HashParams::DEFAULT);
        assert!(a.to_string().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{a}");
        assert_eq!(a.to_string().parse::<SecretHash>().unwrap(), a);
        assert!(a.verify("correct horse", &mut memory));
        assert!(!a.verify("correct hors", &mut memory));
    }

    #[test]
    fn a_hash_made_by_the_reference_implementation_verifies() {
        // argon2-cffi: PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1).hash("some secure & non-standard secret")
        let made = "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$4PTs6i9jvSbk26IegYamZi+9v3lOmSCppfpnmuUDP68";
        let hash: SecretHash = made.parse().unwrap();
        assert!(hash.verify("some secure & non-standard secret", &mut HashMemory::default()));
        assert_eq!(hash.to_string(), made);
    }

    #[test]
    fn a_stored_hash_with_hostile_parameters_is_refused() {
        let salt_and_output = "$MDEyMzQ1Njc4OWFiY2RlZg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        let cases = [
            ("m=4194304,t=2,p=1", HashError::TooCostly),
            ("m=65536,t=1000000,p=1", HashError::TooCostly),
            ("m=19456,t=2,p=255", HashError::TooCostly),
            ("m=19455,t=2,p=1", HashError::TooWeak),
            ("m=19456,t=1,p=1", HashError::TooWeak),
            ("m=99999999999,t=2,p=1", HashError::Malformed),
        ];
        for (params, expected) in cases {
            assert_eq!(
                format!("$argon2id$v=19${params}{salt_and_output}").parse::<SecretHash>(),
                Err(expected),
                "{params}"
            );
        }
        for other in ["hunter2", "", "$2b$12$abcdefghijklmnopqrstuv", "$argon2i$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA"] {
            assert_eq!(other.parse::<SecretHash>(), Err(HashError::NotArgon2id), "{other}");
        }
        assert_eq!(
            "$argon2id$v=16$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                .parse::<SecretHash>(),
            Err(HashError::Malformed)
        );
        assert_eq!(
            "$argon2id$v=19$m=19456,t=2,p=1$c2hvcnRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                .parse::<SecretHash>(),
            Err(HashError::TooWeak)
        );
    }

    #[test]
    fn a_long_secret_is_not_truncated() {
        let mut memory = HashMemory::default();
        let long = "x".repeat(200);
        let hash = SecretHash::new(&long, HashParams::default(), &mut memory).unwrap();
        assert!(!hash.verify(&format!("{}y", &long[..199]), &mut memory), "not truncated");
        assert!(!hash.verify(&format!("{long} "), &mut memory), "not trimmed");
    }
}
