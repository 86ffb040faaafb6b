//! The credential of a request: exactly one, or an error before anything is checked (RFC 6749 section 2.3).

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::form::{Form, decode};
use crate::model::certificate::PeerCertificate;
use crate::model::client::AuthMethod;
use crate::model::client_id::ClientId;
use crate::protocol::client_auth::{Credential, same_client, spiffe_id};
use crate::protocol::error::{ClientAuthError, RequestError};
use crate::protocol::federation::{Door, VerifiedToken};
use crate::protocol::{presented_jwt, readings};

/// How Basic credentials are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BasicReading {
    /// Form-decoded, as RFC 6749 section 2.3.1 has it, and then raw, as many clients send it: the secret, and the client id
    /// where only its raw reading names a client.
    #[default]
    Tolerant,
    /// Form-decoded only.
    Strict,
}

/// Clients and tokens that the server knows, looked up while a request is read.
pub struct Known<'a> {
    /// Tells whether an id names a client.
    pub client: &'a dyn Fn(&str) -> bool,
    /// Finds a token of a trusted issuer that was verified before.
    pub token: &'a dyn Fn(&str, Door) -> Option<Arc<VerifiedToken>>,
}

/// Finds the one credential. The certificate of the connection is one when there is no other, and else none: it may be
/// there for tokens to be bound to (RFC 8705 section 3).
///
/// # Errors
/// [`RequestError`] for several. One that cannot be read is [`Credential::Unreadable`], since it is refused later.
pub fn credential<'a>(
    headers: &HeaderMap,
    form: &'a Form<'_>,
    basic: BasicReading,
    certificate: Option<&PeerCertificate>,
    known: &Known<'_>,
) -> Result<Credential<'a>, RequestError> {
    let client_id = form.one("client_id")?;
    let client_secret = form.one("client_secret")?;
    let assertion = form.one("client_assertion")?;
    let assertion_type = form.one("client_assertion_type")?;
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorizations.next();
    if authorizations.next().is_some() {
        return Err(RequestError::SeveralAuthorizations);
    }

    match (authorization, client_secret, assertion.or(assertion_type)) {
        // Each legal combination is a line; every other is an invalid request.
        (Some(authorization), None, None) => {
            let credential = from_basic(authorization, basic, known.client).unwrap_or_else(Credential::Unreadable);
            same_client(credential.client_id(), client_id)?;
            Ok(credential)
        }
        (None, Some(secret), None) => Ok(match client_id {
            Some(client_id) => Credential::Secret {
                client_id: client_id.to_owned(),
                method: AuthMethod::ClientSecretPost,
                readings: readings(secret.to_owned(), None),
            },
            None => Credential::Unreadable(ClientAuthError::Absent),
        }),
        (None, None, Some(_)) => {
            let assertion = presented_jwt::read(assertion_type, assertion, client_id, known.token);
            Ok(assertion.map_or_else(Credential::Unreadable, Credential::Assertion))
        }
        // RFC 8705 section 2: "the client MUST include the "client_id" parameter". Nobody is guessed from a certificate, unless
        // it is an X.509-SVID.
        (None, None, None) => Ok(match (client_id, certificate) {
            (client_id, Some(certificate)) if client_id.is_some() || spiffe_id(certificate).is_some() => {
                Credential::Certificate { client_id: client_id.map(str::to_owned), certificate: certificate.clone() }
            }
            // The parameter stands there, and nothing in it.
            (Some(client_id), None) if form.has("client_secret") => {
                Credential::Unreadable(ClientAuthError::SecretEmpty(client_id.into()))
            }
            _ => Credential::Unreadable(ClientAuthError::Absent),
        }),
        _ => Err(RequestError::SeveralMethods),
    }
}

/// Reads the assertion of the grant `jwt-bearer` (RFC 7523 section 2.1), which says which client asks.
///
/// # Errors
/// [`RequestError`] without an assertion, and for client authentication beside it.
pub fn grant_assertion<'a>(
    headers: &HeaderMap,
    form: &'a Form<'_>,
    known: &Known<'_>,
) -> Result<Credential<'a>, RequestError> {
    let client_id = form.one("client_id")?;
    let is_beside =
        ["client_secret", "client_assertion", "client_assertion_type"].into_iter().any(|name| form.has(name));
    if is_beside || headers.contains_key(header::AUTHORIZATION) {
        return Err(RequestError::AuthenticationBesideAssertion);
    }
    let assertion = form.one("assertion")?.ok_or(RequestError::NoAssertion)?;
    let assertion = presented_jwt::read_by(Door::Grant, assertion, client_id, known.token);
    Ok(assertion.map_or_else(Credential::Unreadable, Credential::Assertion))
}

/// Reads `Authorization: Basic` (RFC 7617), each half "encoded using the "application/x-www-form-urlencoded" encoding".
fn from_basic(
    authorization: &HeaderValue,
    reading: BasicReading,
    is_client: &dyn Fn(&str) -> bool,
) -> Result<Credential<'static>, ClientAuthError> {
    let text = authorization.to_str().map_err(|_| ClientAuthError::Malformed)?;
    let (scheme, credentials) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("Basic") {
        return Err(ClientAuthError::Scheme);
    }
    // RFC 9110 section 11.4: 1*SP between scheme and token68.
    let decoded = BASE64_STANDARD.decode(credentials.trim_matches(' ')).map_err(|_| ClientAuthError::Malformed)?;
    let (client_id, password) = user_and_password(&decoded, reading, is_client).ok_or(ClientAuthError::Malformed)?;
    if password.is_empty() {
        return Err(ClientAuthError::SecretEmpty(client_id.into()));
    }

    // Most secrets read the same both ways.
    if !password.contains(&b'%') && !password.contains(&b'+') {
        let secret = decode(password).ok_or(ClientAuthError::Malformed)?;
        let readings = readings(secret.into_owned(), None);
        return Ok(Credential::Secret { client_id, method: AuthMethod::ClientSecretBasic, readings });
    }
    let form_decoded = decode(password);
    let raw = std::str::from_utf8(password).ok().filter(|raw| !raw.contains('\0') && reading == BasicReading::Tolerant);
    let readings = match (form_decoded, raw) {
        (Some(decoded), Some(raw)) if decoded != raw => readings(decoded.into_owned(), Some(raw.to_owned())),
        (Some(decoded), _) => readings(decoded.into_owned(), None),
        (None, Some(raw)) => readings(raw.to_owned(), None),
        (None, None) => return Err(ClientAuthError::Malformed),
    };
    Ok(Credential::Secret { client_id, method: AuthMethod::ClientSecretBasic, readings })
}

/// Splits a Basic pair at its first colon, and form-decodes the client id.
///
/// Where that names no client, and the reading is tolerant, the first colon before which the bytes as they stand name one
/// divides the pair: a client that does not form-encode may have an id with `:`, `+` or `%`.
fn user_and_password<'a>(
    pair: &'a [u8],
    reading: BasicReading,
    is_client: &dyn Fn(&str) -> bool,
) -> Option<(String, &'a [u8])> {
    let divided = |colon: usize| Some((pair.get(..colon)?, pair.get(colon + 1..)?));
    let (user, password) = divided(pair.iter().position(|&byte| byte == b':')?)?;
    let by_rule = decode(user).filter(|id| !id.is_empty());
    let reads_one_way = !user.contains(&b'%') && !user.contains(&b'+') && !password.contains(&b':');
    if reading == BasicReading::Strict || reads_one_way || by_rule.as_deref().is_some_and(is_client) {
        return Some((by_rule?.into_owned(), password));
    }
    let longest = pair.len().min(ClientId::MAX_LENGTH + 1);
    let colons = (0..longest).filter(|&at| pair.get(at) == Some(&b':'));
    let as_it_stands = colons.filter_map(divided).find_map(|(user, password)| {
        let id = std::str::from_utf8(user).ok().filter(|id| is_client(id))?;
        Some((id.to_owned(), password))
    });
    as_it_stands.or_else(|| Some((by_rule?.into_owned(), password)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn basic(header: &str, reading: BasicReading) -> Result<(String, Vec<String>), ClientAuthError> {
        basic_among(&[], header, reading)
    }

    fn basic_among(
        clients: &[&str],
        header: &str,
        reading: BasicReading,
    ) -> Result<(String, Vec<String>), ClientAuthError> {
        let header = HeaderValue::from_bytes(header.as_bytes()).unwrap();
        let credential = from_basic(&header, reading, &|id| clients.contains(&id))?;
        let Credential::Secret { client_id, readings, .. } = credential else { panic!("Basic brings a secret") };
        Ok((client_id, readings.iter().map(|secret| secret.expose().to_owned()).collect()))
    }

    fn encoded(pair: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }

    #[test]
    fn the_basic_example_of_rfc_6749_is_read() {
        let read = basic("Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3", BasicReading::Strict);
        assert_eq!(read, Ok(("s6BhdRkqt3".into(), vec!["7Fjfp0ZBr1KtDRbnfVdmIw".into()])));
    }

    #[test]
    fn each_half_of_basic_is_form_decoded_and_colon_plus_percent_survive() {
        let read = basic(&encoded("an%2Eidentifier:some+secure+%26+non-standard+secret"), BasicReading::Strict);
        assert_eq!(read, Ok(("an.identifier".into(), vec!["some secure & non-standard secret".into()])));
        assert_eq!(basic(&encoded("a:b:c"), BasicReading::Strict), Ok(("a".into(), vec!["b:c".into()])));
        assert_eq!(basic(&encoded("a:%5^"), BasicReading::Tolerant), Ok(("a".into(), vec!["%5^".into()])));
        assert_eq!(basic(&encoded("a:%5^"), BasicReading::Strict), Err(ClientAuthError::Malformed));
    }

    #[test]
    fn the_raw_reading_of_basic_comes_second_and_can_be_turned_off() {
        let header = encoded("a:x+y");
        assert_eq!(basic(&header, BasicReading::Tolerant), Ok(("a".into(), vec!["x y".into(), "x+y".into()])));
        assert_eq!(basic(&header, BasicReading::Strict), Ok(("a".into(), vec!["x y".into()])));
    }

    #[test]
    fn a_raw_client_id_is_accepted_where_only_the_raw_reading_names_a_client() {
        let url = "https://ci.example/a+b%20";
        let read = |clients: &[&str], pair: &str| {
            let (id, readings) = basic_among(clients, &encoded(pair), BasicReading::Tolerant).unwrap();
            (id, readings.join(" or "))
        };
        let pair = format!("{url}:s3:cret");
        assert_eq!(read(&[url], &pair), (url.into(), "s3:cret".into()));
        assert_eq!(
            read(&[], &pair),
            ("https".into(), "//ci.example/a b :s3:cret or //ci.example/a+b%20:s3:cret".into())
        );
        assert_eq!(read(&["https", url], &pair).0, "https", "the reading of RFC 6749 comes first");
        assert_eq!(read(&["a b", "a+b"], "a+b:secret").0, "a b");
        assert_eq!(read(&["a+b"], "a+b:secret").0, "a+b");
        assert_eq!(read(&["a%zz"], "a%zz:secret").0, "a%zz");
        assert_eq!(read(&["a"], "a:b:c"), ("a".into(), "b:c".into()));
        let form_encoded = "https%3A%2F%2Fci.example%2Fa%2Bb%2520:secret";
        assert_eq!(read(&[url], form_encoded), (url.into(), "secret".into()));
        let strict = basic_among(&[url], &encoded(&pair), BasicReading::Strict).unwrap();
        assert_eq!(strict.0, "https");
    }

    #[test]
    fn a_malformed_authorization_header_is_a_failed_attempt() {
        assert!(basic(&encoded("a:b").replacen("Basic", "bAsIc", 1), BasicReading::Strict).is_ok());
        let malformed = [
            "Basic",
            "Basic ",
            "Basic !!!",
            &encoded("nocolon"),
            &encoded(":b"),
            &encoded("%zz:b"),
            &encoded("a%00:b"),
            &format!("{}x", encoded("a:b")),
            &format!("{}=", encoded("a:b")),
            "Basic /zpiYg==",
        ];
        for header in malformed {
            assert_eq!(basic(header, BasicReading::Tolerant), Err(ClientAuthError::Malformed), "{header}");
        }
        for header in ["Bearer x", "Digest y", "Negotiate z", "Basic_ x"] {
            assert_eq!(basic(header, BasicReading::Tolerant), Err(ClientAuthError::Scheme), "{header}");
        }
    }

    proptest! {
        #[test]
        fn form_encoded_credentials_round_trip(id in "[!-~]([ -~]{0,40}[!-~])?", secret in "[^\0]{1,40}") {
            let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
            let header = encoded(&format!("{}:{}", encode(&id), encode(&secret)));
            let (read_id, readings) = basic(&header, BasicReading::Tolerant).unwrap();
            prop_assert_eq!(read_id, id);
            prop_assert_eq!(readings.first(), Some(&secret));
        }

        #[test]
        fn no_header_makes_it_panic(header in "[ -~]{0,80}") {
            if let Ok((_, readings)) = basic(&header, BasicReading::Tolerant) {
                prop_assert!((1..=2).contains(&readings.len()));
            }
        }
    }
}
