//! Distinguished names: written as RFC 4514 has it, compared as RFC 5280 section 7.1 has it, never as text.

use std::fmt;
use std::str::FromStr;

use x509_cert::name::Name;

use super::attribute::Attribute;

/// A name as a sequence of sets of attributes, in the order of its encoding: the most general first.
#[derive(Clone)]
pub struct DistinguishedName(Vec<Vec<Attribute>>);

/// Reasons for refusing a text as a distinguished name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DistinguishedNameError {
    /// Nothing, or far too much.
    #[error("a distinguished name has 1 to {} bytes", DistinguishedName::MAX_LENGTH)]
    Length,
    /// Not `type=value`.
    #[error("`{0}` is not type=value; write the name as in RFC 4514, for example CN=billing,O=Example,C=DE")]
    NoPair(String),
    /// A type that has no number here.
    #[error("`{0}` is no known attribute type; write its object identifier, as in 2.5.4.3=billing")]
    Type(String),
    /// A special character that is not escaped.
    #[error("`{0}` stands for itself only when it is escaped, as in \\{0} (RFC 4514 section 2.4)")]
    Unescaped(char),
    /// A backslash before something that needs none, or hexadecimal that is none.
    #[error("a backslash stands before one of space # = \" + , ; < > \\ or before two hexadecimal digits of UTF-8")]
    Escape,
    /// Empty, or with characters that match nothing.
    #[error("the value of `{0}` is empty, holds control characters or is not what its # form says: nothing matches it")]
    Value(String),
}

impl DistinguishedName {
    /// Most bytes of a name that is written down.
    pub const MAX_LENGTH: usize = 4096;

    /// The name in a certificate.
    pub(super) fn of(name: &Name) -> Self {
        Self(name.iter_rdn().map(|rdn| sorted(rdn.iter().map(Attribute::of).collect())).collect())
    }

    /// Whether both name the same. RFC 5280 section 7.1: "Two distinguished names DN1 and DN2 match if they have the same
    /// number of RDNs, for each RDN in DN1 there is a matching RDN in DN2, and the matching RDNs appear in the same order
    /// in both DNs."
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        // "Two relative distinguished names RDN1 and RDN2 match if they have the same number of naming attributes and for
        // each naming attribute in RDN1 there is a matching naming attribute in RDN2." They are sorted, so it is in place.
        let same = |one: &[Attribute], another: &[Attribute]| {
            one.len() == another.len() && one.iter().zip(another).all(|(one, another)| one.matches(another))
        };
        // A certificate without a subject is nobody's.
        !self.0.is_empty()
            && self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|(one, another)| same(one, another))
    }
}

impl DistinguishedName {
    /// The name with its parts in the reverse order.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self(self.0.iter().rev().cloned().collect())
    }

    /// Whether it was likely written in the order of `openssl x509`, the most general part first: as text it ends with a
    /// common name and does not begin with one.
    #[must_use]
    pub fn looks_reversed(&self) -> bool {
        let is_common_name = |rdn: &[Attribute]| rdn.iter().any(|attribute| attribute.to_string().starts_with("CN="));
        self.0.len() > 1
            && self.0.first().is_some_and(|rdn| is_common_name(rdn))
            && !self.0.last().is_some_and(|rdn| is_common_name(rdn))
    }
}

/// By type and prepared value, so that equal sets are equal in place.
fn sorted(mut rdn: Vec<Attribute>) -> Vec<Attribute> {
    rdn.sort();
    rdn
}

impl FromStr for DistinguishedName {
    type Err = DistinguishedNameError;

    /// RFC 4514 section 3, and spaces around its delimiters.
    fn from_str(text: &str) -> Result<Self, DistinguishedNameError> {
        if text.trim().is_empty() || text.len() > Self::MAX_LENGTH {
            return Err(DistinguishedNameError::Length);
        }
        let mut rdns = Vec::new();
        for rdn in split(text, ',') {
            rdns.push(sorted(split(rdn, '+').map(attribute).collect::<Result<_, _>>()?));
        }
        // RFC 4514 section 2.1: "starting with the last element of the RDNSequence and moving backwards toward the first."
        rdns.reverse();
        Ok(Self(rdns))
    }
}

/// At each `delimiter` that has no backslash before it.
fn split(text: &str, delimiter: char) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let here = c == delimiter && !escaped;
        escaped = c == '\\' && !escaped;
        here
    })
}

fn attribute(pair: &str) -> Result<Attribute, DistinguishedNameError> {
    let (name, value) =
        pair.split_once('=').ok_or_else(|| DistinguishedNameError::NoPair(pair.trim_matches(' ').to_owned()))?;
    let (name, value) = (name.trim_matches(' '), value.trim_start_matches(' '));
    let kind = Attribute::kind_of(name).ok_or_else(|| DistinguishedNameError::Type(name.to_owned()))?;
    let attribute = match value.strip_prefix('#') {
        Some(hexadecimal) => {
            Attribute::with_der(kind, &bytes(hexadecimal.trim_end_matches(' ')).ok_or(DistinguishedNameError::Escape)?)
        }
        None => Attribute::with_text(kind, &unescaped(value)?),
    };
    attribute.ok_or_else(|| DistinguishedNameError::Value(name.to_owned()))
}

/// RFC 4514 section 3, `string`: a pair is a backslash and a special character or two hexadecimal digits.
fn unescaped(value: &str) -> Result<String, DistinguishedNameError> {
    let mut text = Vec::new();
    // Spaces at the end that are not escaped are no part of the value.
    let mut kept = 0;
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                let next = rest.next().ok_or(DistinguishedNameError::Escape)?;
                if matches!(next, ' ' | '#' | '=' | '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
                    text.extend(next.encode_utf8(&mut [0; 4]).bytes());
                } else {
                    let digits: String = [Some(next), rest.next()].into_iter().flatten().collect();
                    text.extend(bytes(&digits).ok_or(DistinguishedNameError::Escape)?);
                }
                kept = text.len();
            }
            '"' | ';' | '<' | '>' => return Err(DistinguishedNameError::Unescaped(c)),
            c => {
                text.extend(c.encode_utf8(&mut [0; 4]).bytes());
                if c != ' ' {
                    kept = text.len();
                }
            }
        }
    }
    text.truncate(kept);
    String::from_utf8(text).map_err(|_| DistinguishedNameError::Escape)
}

/// Hexadecimal digits, two to a byte.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() || !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, rdn) in self.0.iter().rev().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            for (at, attribute) in rdn.iter().enumerate() {
                if at > 0 {
                    f.write_str("+")?;
                }
                write!(f, "{attribute}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistinguishedName({self})")
    }
}
