//! PKCS #11 URIs (RFC 7512): the name of a private key in a module.

use std::fmt;
use std::str::FromStr;

/// Name of a private key in a PKCS #11 module. Attributes that are absent match any value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Pkcs11Uri {
    /// Label of the token.
    pub token: Option<String>,
    /// Manufacturer of the token.
    pub manufacturer: Option<String>,
    /// Model of the token.
    pub model: Option<String>,
    /// Serial number of the token.
    pub serial: Option<String>,
    /// Label of the object (`CKA_LABEL`).
    pub object: Option<String>,
    /// Id of the object (`CKA_ID`).
    pub id: Option<Vec<u8>>,
}

/// Reasons for refusing a PKCS #11 URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Pkcs11UriError {
    /// Another scheme.
    #[error("a PKCS #11 URI begins with `pkcs11:`, such as `pkcs11:token=grantd;object=signing`")]
    Scheme,
    /// The text is not `name=value`, or its percent-encoding is malformed.
    #[error(
        "`{0}` is not an attribute of a PKCS #11 URI: write `name=value`, percent-encoded, with `;` between attributes"
    )]
    Attribute(String),
    /// RFC 7512 section 2.3: "A PKCS #11 URI MUST NOT contain duplicate attributes of the same name".
    #[error("the attribute `{0}` is repeated")]
    Repeated(String),
    /// The attribute does not name a private key.
    #[error(
        "the attribute `{0}` is not supported: name the key with token, serial, manufacturer, model, object and id"
    )]
    Unsupported(String),
    /// `type` names another class of objects.
    #[error("type is `private`: only a private key signs")]
    Type,
    /// The module is a setting of each server.
    #[error("`{0}` belongs into the configuration of each server: set keys.pkcs11_module and keys.pkcs11_pin_file")]
    Configured(&'static str),
    /// The PIN stands in the arguments of a process, which others can read.
    #[error(
        "a PIN in a URI can be read by others: change the PIN, and write the new one to the file that keys.pkcs11_pin_file names"
    )]
    Pin,
    /// Nothing says which token is meant.
    #[error("the URI names no token: add `token=LABEL` or `serial=NUMBER`")]
    NoToken,
    /// Nothing says which key is meant.
    #[error("the URI names no key: add `object=LABEL` or `id=%01`")]
    NoObject,
}

impl FromStr for Pkcs11Uri {
    type Err = Pkcs11UriError;

    fn from_str(text: &str) -> Result<Self, Pkcs11UriError> {
        let rest = text.trim().strip_prefix("pkcs11:").ok_or(Pkcs11UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if let Some(attribute) = query.split('&').find(|attribute| !attribute.is_empty()) {
            return Err(match attribute.split_once('=').map_or(attribute, |(name, _)| name) {
                "pin-value" => Pkcs11UriError::Pin,
                "pin-source" => Pkcs11UriError::Configured("pin-source"),
                "module-path" => Pkcs11UriError::Configured("module-path"),
                "module-name" => Pkcs11UriError::Configured("module-name"),
                other => Pkcs11UriError::Unsupported(other.to_owned()),
            });
        }
        let mut uri = Self::default();
        for attribute in path.split(';').filter(|attribute| !attribute.is_empty()) {
            let malformed = || Pkcs11UriError::Attribute(attribute.to_owned());
            let (name, value) = attribute.split_once('=').ok_or_else(malformed)?;
            let bytes = percent_decoded(value).filter(|bytes| !bytes.is_empty()).ok_or_else(malformed)?;
            if name == "id" {
                if uri.id.replace(bytes).is_some() {
                    return Err(Pkcs11UriError::Repeated(name.to_owned()));
                }
                continue;
            }
            let value = String::from_utf8(bytes).map_err(|_| malformed())?;
            let slot = match name {
                "token" => &mut uri.token,
                "manufacturer" => &mut uri.manufacturer,
                "model" => &mut uri.model,
                "serial" => &mut uri.serial,
                "object" => &mut uri.object,
                "type" if value == "private" => continue,
                "type" => return Err(Pkcs11UriError::Type),
                other => return Err(Pkcs11UriError::Unsupported(other.to_owned())),
            };
            if slot.replace(value).is_some() {
                return Err(Pkcs11UriError::Repeated(name.to_owned()));
            }
        }
        if uri.token.is_none() && uri.serial.is_none() {
            return Err(Pkcs11UriError::NoToken);
        }
        if uri.object.is_none() && uri.id.is_none() { Err(Pkcs11UriError::NoObject) } else { Ok(uri) }
    }
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, manufacturer, model, serial, object, id } = self;
        let texts = [("token", token), ("manufacturer", manufacturer), ("model", model), ("serial", serial)];
        let texts = texts.into_iter().chain([("object", object)]);
        let texts = texts.filter_map(|(name, value)| Some((name, value.as_ref()?.as_bytes())));
        let all = texts.chain(id.as_ref().map(|id| ("id", id.as_slice())));
        f.write_str("pkcs11:")?;
        for (number, (name, value)) in all.enumerate() {
            write!(f, "{}{name}=", if number == 0 { "" } else { ";" })?;
            for byte in value {
                // RFC 7512 section 2.3: "the value of the "id" attribute SHOULD be percent-encoded" as a whole.
                match char::from(*byte) {
                    plain @ ('a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~') if name != "id" => {
                        write!(f, "{plain}")?;
                    }
                    _ => write!(f, "%{byte:02X}")?,
                }
            }
        }
        Ok(())
    }
}

/// Decodes percent-encoding (RFC 3986 section 2.1). `None` when it is malformed.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut decoded) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            u8::try_from(high * 16 + low).ok()?
        } else {
            byte
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Pkcs11UriError {
        text.parse::<Pkcs11Uri>().unwrap_err()
    }

    #[test]
    fn a_uri_is_read_and_written_in_one_form() {
        let uri: Pkcs11Uri = "pkcs11:object=signing%20key;id=%01a;token=grantd;type=private".parse().unwrap();
        assert_eq!((uri.token.as_deref(), uri.object.as_deref()), (Some("grantd"), Some("signing key")));
        assert_eq!(uri.id.as_deref(), Some(&b"\x01a"[..]));
        assert_eq!(uri.to_string(), "pkcs11:token=grantd;object=signing%20key;id=%01%61");
        assert_eq!(uri.to_string().parse(), Ok(uri));
        let by_serial: Pkcs11Uri = "pkcs11:serial=12;model=x;manufacturer=y;id=%ff".parse().unwrap();
        assert_eq!(by_serial.to_string(), "pkcs11:manufacturer=y;model=x;serial=12;id=%FF");
    }

    #[test]
    fn each_other_text_is_refused_with_what_to_write() {
        assert_eq!(error("token=a;object=b"), Pkcs11UriError::Scheme);
        assert_eq!(error("pkcs11:object=b"), Pkcs11UriError::NoToken);
        assert_eq!(error("pkcs11:token=a"), Pkcs11UriError::NoObject);
        assert_eq!(error("pkcs11:token=a;token=b;id=%01"), Pkcs11UriError::Repeated("token".into()));
        assert_eq!(error("pkcs11:token=a;id=%02;id=%01"), Pkcs11UriError::Repeated("id".into()));
        assert_eq!(error("pkcs11:token=a;slot-id=1;id=%01"), Pkcs11UriError::Unsupported("slot-id".into()));
        assert_eq!(error("pkcs11:token=a;type=cert;id=%01"), Pkcs11UriError::Type);
        for malformed in ["id", "id=", "id=%", "id=%1", "id=%zz", "object=%ff"] {
            assert_eq!(error(&format!("pkcs11:token=a;{malformed}")), Pkcs11UriError::Attribute(malformed.into()));
        }
        assert_eq!(error("pkcs11:token=a;id=%01?pin-value=1234"), Pkcs11UriError::Pin);
        assert_eq!(error("pkcs11:token=a;id=%01?module-path=/x.so"), Pkcs11UriError::Configured("module-path"));
        assert!(!error("pkcs11:token=a;id=%01?pin-value=1234").to_string().contains("1234"));
    }
}
