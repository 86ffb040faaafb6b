//! One attribute of a name: its type, its value, and when two values are the same (RFC 5280 section 7.1, RFC 4518).

use std::fmt;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode as _, Encode as _, Tag, Tagged as _};

/// A type and a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attribute {
    kind: ObjectIdentifier,
    value: Value,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// Of one of the types that hold text; which of them makes no difference.
    Text {
        /// The form in which two values are compared; `None` for text that cannot be compared.
        prepared: Option<Box<str>>,
        /// As it was given.
        text: Box<str>,
    },
    /// Anything else, in DER.
    Der(Box<[u8]>),
}

impl Attribute {
    /// An attribute of a certificate.
    pub(super) fn of(attribute: &AttributeTypeAndValue) -> Self {
        Self { kind: attribute.oid, value: Value::of(&attribute.value) }
    }

    /// An attribute that was written down as text. `None` when no value can be the same as this text.
    pub(super) fn with_text(kind: ObjectIdentifier, text: &str) -> Option<Self> {
        let prepared = Some(prepare(text)?);
        Some(Self { kind, value: Value::Text { prepared, text: text.into() } })
    }

    /// An attribute that was written down as DER. `None` when it is none, or when no value can be the same.
    pub(super) fn with_der(kind: ObjectIdentifier, der: &[u8]) -> Option<Self> {
        let any = Any::from_der(der).ok()?;
        let value = Value::of(&any);
        let comparable = match &value {
            Value::Text { prepared, .. } => prepared.is_some(),
            Value::Der(_) => !TEXT.contains(&any.tag()),
        };
        comparable.then_some(Self { kind, value })
    }

    /// The type, by its short name if it has one.
    pub(super) fn kind_of(name: &str) -> Option<ObjectIdentifier> {
        let numeric = name.strip_prefix("OID.").or_else(|| name.strip_prefix("oid.")).unwrap_or(name);
        if numeric.starts_with(|first: char| first.is_ascii_digit()) {
            return ObjectIdentifier::new(numeric).ok();
        }
        // RFC 4512 section 1.4, which RFC 4514 section 2.3 points to: short names are case insensitive.
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
    }

    /// Whether both say the same. RFC 5280 section 7.1: "Two naming attributes match if the attribute types are the same
    /// and the values of the attributes are an exact match after processing with the string preparation algorithm."
    pub(super) fn matches(&self, other: &Self) -> bool {
        self.kind == other.kind
            && match (&self.value, &other.value) {
                (Value::Text { prepared: Some(one), .. }, Value::Text { prepared: Some(another), .. }) => {
                    one == another
                }
                (Value::Der(one), Value::Der(another)) => one == another,
                _ => false,
            }
    }
}

impl Value {
    fn of(any: &Any) -> Self {
        match text(any) {
            Some(text) => Self::Text { prepared: prepare(&text), text: text.into() },
            // What was decoded can be encoded; if it cannot, it is nothing that anybody registered.
            None => Self::Der(any.to_der().unwrap_or_default().into()),
        }
    }
}

/// The text of a value of one of the string types; `None` for other types and for bytes that are none of the type's.
fn text(any: &Any) -> Option<String> {
    let bytes = any.value();
    match any.tag() {
        Tag::Utf8String => String::from_utf8(bytes.to_vec()).ok(),
        // T.61 and ASCII agree on ASCII, and nobody agrees on the rest.
        Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString | Tag::TeletexString => {
            bytes.is_ascii().then(|| bytes.iter().copied().map(char::from).collect())
        }
        Tag::BmpString => bytes
            .chunks(2)
            .map(|unit| Some(u32::from(u16::from_be_bytes(unit.try_into().ok()?))))
            .map(|unit| char::from_u32(unit?))
            .collect(),
        _ => None,
    }
}

/// RFC 4518 section 2, with case folded as `caseIgnoreMatch` asks. `None` for text that must match nothing.
fn prepare(text: &str) -> Option<Box<str>> {
    // RFC 4518 would drop control characters, and `john\0.evil.example` would then match `john.evil.example`.
    if text.chars().any(char::is_control) {
        return None;
    }
    let folded: String = text.chars().flat_map(stringprep::tables::case_fold_for_nfkc).collect();
    let prepared = stringprep::x520prep(&folded, false).ok()?;
    // RFC 4518 section 2.6.1: spaces at the ends do not count, and several within count as one.
    let words: Vec<&str> = prepared.split(' ').filter(|word| !word.is_empty()).collect();
    if words.is_empty() { None } else { Some(words.join(" ").into()) }
}

impl fmt::Display for Attribute {
    /// RFC 4514 sections 2.3 and 2.4.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, kind)| *kind == self.kind) {
            Some((name, _)) => write!(f, "{name}=")?,
            None => write!(f, "{}=", self.kind)?,
        }
        match &self.value {
            Value::Der(der) => {
                f.write_str("#")?;
                der.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Value::Text { text, .. } => {
                let last = text.chars().count().saturating_sub(1);
                text.chars().enumerate().try_for_each(|(at, c)| match c {
                    ' ' if at == 0 || at == last => f.write_str("\\ "),
                    '#' if at == 0 => f.write_str("\\#"),
                    '"' | '+' | ',' | ';' | '<' | '>' | '\\' => write!(f, "\\{c}"),
                    c if c.is_control() => {
                        c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(f, "\\{byte:02x}"))
                    }
                    c => write!(f, "{c}"),
                })
            }
        }
    }
}

/// The types that hold text.
const TEXT: [Tag; 7] = [
    Tag::Utf8String,
    Tag::PrintableString,
    Tag::Ia5String,
    Tag::NumericString,
    Tag::VisibleString,
    Tag::TeletexString,
    Tag::BmpString,
];

/// RFC 4514 section 3 and what else is usual. Of several names for one type the first is printed.
const NAMES: [(&str, ObjectIdentifier); 37] = [
    ("CN", ObjectIdentifier::new_unwrap("2.5.4.3")),
    ("L", ObjectIdentifier::new_unwrap("2.5.4.7")),
    ("ST", ObjectIdentifier::new_unwrap("2.5.4.8")),
    ("O", ObjectIdentifier::new_unwrap("2.5.4.10")),
    ("OU", ObjectIdentifier::new_unwrap("2.5.4.11")),
    ("C", ObjectIdentifier::new_unwrap("2.5.4.6")),
    ("STREET", ObjectIdentifier::new_unwrap("2.5.4.9")),
    ("DC", ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25")),
    ("UID", ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1")),
    ("emailAddress", ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1")),
    ("serialNumber", ObjectIdentifier::new_unwrap("2.5.4.5")),
    ("SN", ObjectIdentifier::new_unwrap("2.5.4.4")),
    ("GN", ObjectIdentifier::new_unwrap("2.5.4.42")),
    ("title", ObjectIdentifier::new_unwrap("2.5.4.12")),
    ("initials", ObjectIdentifier::new_unwrap("2.5.4.43")),
    ("generationQualifier", ObjectIdentifier::new_unwrap("2.5.4.44")),
    ("dnQualifier", ObjectIdentifier::new_unwrap("2.5.4.46")),
    ("pseudonym", ObjectIdentifier::new_unwrap("2.5.4.65")),
    ("name", ObjectIdentifier::new_unwrap("2.5.4.41")),
    ("description", ObjectIdentifier::new_unwrap("2.5.4.13")),
    ("businessCategory", ObjectIdentifier::new_unwrap("2.5.4.15")),
    ("postalCode", ObjectIdentifier::new_unwrap("2.5.4.17")),
    ("organizationIdentifier", ObjectIdentifier::new_unwrap("2.5.4.97")),
    ("jurisdictionL", ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.60.2.1.1")),
    ("jurisdictionST", ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.60.2.1.2")),
    ("jurisdictionC", ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.60.2.1.3")),
    ("commonName", ObjectIdentifier::new_unwrap("2.5.4.3")),
    ("localityName", ObjectIdentifier::new_unwrap("2.5.4.7")),
    ("stateOrProvinceName", ObjectIdentifier::new_unwrap("2.5.4.8")),
    ("organizationName", ObjectIdentifier::new_unwrap("2.5.4.10")),
    ("organizationalUnitName", ObjectIdentifier::new_unwrap("2.5.4.11")),
    ("countryName", ObjectIdentifier::new_unwrap("2.5.4.6")),
    ("domainComponent", ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25")),
    ("userId", ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1")),
    ("surname", ObjectIdentifier::new_unwrap("2.5.4.4")),
    ("givenName", ObjectIdentifier::new_unwrap("2.5.4.42")),
    ("E", ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1")),
];
