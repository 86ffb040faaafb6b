//! The JOSE header (RFC 7515 section 4): what is read, what is refused, what is ignored, and which kind of JWT it heads.

use serde_json::Value;

use super::JoseError;
use crate::json::Object;
use crate::signature_alg::SignatureAlg;
use crate::verifying_key::{VerifyingKey, kid};

/// The kind of a JWT, which decides its validation rules. RFC 8725 section 3.12: "Use Mutually Exclusive Validation Rules for Different Kinds of JWTs".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RFC 7523 section 2.2.
    ClientAssertion,
    /// RFC 9449 section 4.2.
    DpopProof,
    /// RFC 9068.
    AccessToken,
    /// An access token whose `typ` may also be `JWT`, for verification by keys that sign nothing else.
    AccessTokenOrJwt,
}

/// The members that are read, within their bounds.
#[derive(Debug)]
pub struct Header {
    alg: SignatureAlg,
    kid: Option<String>,
    typ: Option<String>,
    jwk: Option<Object>,
}

impl Header {
    pub(super) fn read(mut members: Object, kind: Kind) -> Result<Self, JoseError> {
        // RFC 7515 section 4.1.11: "If any of the listed extension Header Parameters are not understood and supported by
        // the recipient, then the JWS is invalid." We support none, and "Producers MUST NOT use the empty list".
        if members.contains_key("crit") {
            return Err(JoseError::Critical);
        }
        if let Some(name) = REFUSED.into_iter().find(|name| members.contains_key(*name)) {
            return Err(JoseError::Refused(name));
        }
        let Some(Value::String(alg)) = members.get("alg") else { return Err(JoseError::Member("alg")) };
        let alg = SignatureAlg::named(alg).ok_or(JoseError::Alg)?;
        let typ = match members.get("typ") {
            None if kind.wants_typ() => return Err(JoseError::Typ),
            None => None,
            Some(Value::String(typ)) if kind.accepts(typ) => Some(typ.clone()),
            Some(_) => return Err(JoseError::Typ),
        };
        let key_id = kid(&members).map_err(|_| JoseError::Kid)?.map(str::to_owned);
        let jwk = match (members.remove("jwk"), kind) {
            (Some(Value::Object(jwk)), Kind::DpopProof) => Some(jwk),
            (_, Kind::DpopProof) => return Err(JoseError::Member("jwk")),
            (Some(_), _) => return Err(JoseError::Refused("jwk")),
            (None, _) => None,
        };
        // RFC 7515 section 4: "Header Parameters … not understood … MUST be ignored". What is left decides nothing.
        Ok(Self { alg, kid: key_id, typ, jwk })
    }

    /// The algorithm it claims. A key says whether that is right.
    #[must_use]
    pub fn alg(&self) -> SignatureAlg {
        self.alg
    }

    /// Whether `typ` says no more than that this is a JWT: it is absent, `JWT` or `JOSE`. Identity tokens of platforms have
    /// no `typ` of their own.
    #[must_use]
    pub fn is_plain_jwt(&self) -> bool {
        let is_plain = |name: &str| name.eq_ignore_ascii_case("JWT") || name.eq_ignore_ascii_case("JOSE");
        self.typ.as_deref().is_none_or(|typ| media_type(typ).is_some_and(is_plain))
    }

    /// SPIFFE JWT-SVID section 2.3: the `typ` header "is OPTIONAL. If set, its value MUST be either JWT or JOSE".
    #[must_use]
    pub fn is_svid(&self) -> bool {
        self.typ.as_deref().is_none_or(|typ| matches!(typ, "JWT" | "JOSE"))
    }

    /// Whether the owner of this key may have signed it, by its `alg` and its `kid`.
    #[must_use]
    pub fn may_be_by(&self, key: &VerifyingKey) -> bool {
        key.takes(self.alg) && self.kid().is_none_or(|kid| key.is_called(kid))
    }

    /// The key it claims: to be compared with ids that we know, never to be built into a path, a query or a line.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(super) fn jwk(&self) -> Option<&Object> {
        self.jwk.as_ref()
    }
}

impl Kind {
    fn wants_typ(self) -> bool {
        self != Self::ClientAssertion
    }

    fn accepts(self, typ: &str) -> bool {
        let Some(name) = media_type(typ) else { return false };
        match self {
            // draft-ietf-oauth-rfc7523bis section 4 recommends `client-authentication+jwt` and lets servers take others;
            // what other specifications made for another use is refused.
            Self::ClientAssertion => !OTHER_KINDS.into_iter().any(|other| name.eq_ignore_ascii_case(other)),
            // RFC 9449 section 4.3: "The typ JOSE Header Parameter has the value dpop+jwt."
            Self::DpopProof => name.eq_ignore_ascii_case("dpop+jwt"),
            // RFC 9068 section 4: "The resource server MUST verify that the "typ" header value is "at+jwt" or
            // "application/at+jwt" and reject tokens carrying any other value."
            Self::AccessToken => name.eq_ignore_ascii_case("at+jwt"),
            Self::AccessTokenOrJwt => name.eq_ignore_ascii_case("at+jwt") || name.eq_ignore_ascii_case("JWT"),
        }
    }
}

/// RFC 7515 section 4.1.9: "A recipient using the media type value MUST treat it as if "application/" were prepended to
/// any "typ" value not containing a '/'." So that prefix is dropped; other types keep theirs.
fn media_type(typ: &str) -> Option<&str> {
    let (top, name) = typ.split_once('/').unwrap_or(("application", typ));
    // RFC 6838 section 4.2, restricted-name.
    let is_name = |name: &str| {
        (1..=127).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    match (is_name(top), is_name(name)) {
        (true, true) if top.eq_ignore_ascii_case("application") => Some(name),
        (true, true) => Some(typ),
        _ => None,
    }
}

/// RFC 7797 `b64` would change what is signed, and `enc` and `zip` belong to JWE (RFC 7516), of which there is none here.
///
/// `jku`, `x5u` and `x5c`, which libraries add by themselves, are ignored: RFC 8725 section 3.10, keys are never taken or
/// fetched from where a header points.
const REFUSED: [&str; 3] = ["b64", "enc", "zip"];

/// Media types of JWTs that are made for something else than authenticating a client.
const OTHER_KINDS: [&str; 20] = [
    "at+jwt",
    "dpop+jwt",
    "oauth-authz-req+jwt",
    "token-introspection+jwt",
    "secevent+jwt",
    "logout+jwt",
    "entity-statement+jwt",
    "oauth-client-attestation+jwt",
    "oauth-client-attestation-pop+jwt",
    "authorization-grant+jwt",
    "id_token+jwt",
    "rt+jwt",
    "jwk-set+jwt",
    "statuslist+jwt",
    "trust-mark+jwt",
    "resolve-response+jwt",
    "statuslist+jwt",
    "kb+jwt",
    "txntoken+jwt",
    "wit+jwt",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::json;

    fn read(header: &Value, kind: Kind) -> Result<Header, JoseError> {
        Header::read(json::object(header.to_string().as_bytes()).unwrap(), kind)
    }

    fn assertion(header: &Value) -> Result<Header, JoseError> {
        read(header, Kind::ClientAssertion)
    }

    #[test]
    fn a_crit_header_is_refused_whatever_it_lists() {
        for crit in
            [json!(["x"]), json!([]), json!(["alg"]), json!("x"), json!(["b64"]), json!(["x", "x"]), json!(null)]
        {
            for kind in [Kind::ClientAssertion, Kind::DpopProof, Kind::AccessToken] {
                let header = json!({"alg": "ES256", "typ": "at+jwt", "crit": crit, "x": 1});
                assert_eq!(read(&header, kind).unwrap_err(), JoseError::Critical, "{crit}");
            }
        }
        assert_eq!(assertion(&json!({"alg": "ES256", "b64": false})).unwrap_err(), JoseError::Refused("b64"));
    }

    #[test]
    fn alg_is_a_supported_algorithm_in_its_exact_spelling() {
        let hostile =
            ["none", "None", "NONE", "nOnE", "noNE", "", "es256", "es384", "ES512", "ES256K", "HS256", "HS384"];
        let hostile =
            hostile.into_iter().chain(["HS512", "RS1", "rs512", "Ed448", "EDDSA", "ES256 ", "PBES2-HS256+A128KW"]);
        for alg in hostile {
            assert_eq!(assertion(&json!({"alg": alg})).unwrap_err(), JoseError::Alg, "{alg}");
        }
        for header in [json!({}), json!({"alg": null}), json!({"alg": 0}), json!({"alg": ["ES256"]})] {
            assert_eq!(assertion(&header).unwrap_err(), JoseError::Member("alg"), "{header}");
        }
        for alg in SignatureAlg::ALL {
            assert_eq!(assertion(&json!({"alg": alg.as_str()})).unwrap().alg(), alg);
        }
        // RFC 9864: `EdDSA` and `Ed25519` name the same algorithm here.
        assert_eq!(assertion(&json!({"alg": "Ed25519"})).unwrap().alg(), SignatureAlg::EdDsa);
    }

    #[test]
    fn no_header_parameter_brings_a_key_or_causes_a_fetch() {
        for name in ["jku", "x5u", "x5c"] {
            for value in [json!("file:///etc/passwd"), json!(["MIIB"]), json!(null)] {
                let header = assertion(&json!({"alg": "ES256", name: value})).expect("ignored");
                assert!(header.jwk().is_none());
            }
        }
        for kind in [Kind::ClientAssertion, Kind::AccessToken] {
            let header = json!({"alg": "ES256", "typ": if kind == Kind::AccessToken { "at+jwt" } else { "JWT" }, "jwk": {"kty": "EC"}});
            assert_eq!(read(&header, kind).unwrap_err(), JoseError::Refused("jwk"));
        }
        for jwk in [json!(null), json!("EC"), json!([])] {
            let header = json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk});
            assert_eq!(read(&header, Kind::DpopProof).unwrap_err(), JoseError::Member("jwk"));
        }
    }

    #[test]
    fn unknown_header_parameters_that_are_not_critical_are_ignored() {
        let header =
            json!({"alg": "ES256", "x5t": "AA", "x5t#S256": "AA", "cty": "JWT", "iat": 1, "anything": {"a": [1]}});
        assert!(assertion(&header).is_ok());
        for name in ["enc", "zip"] {
            assert_eq!(assertion(&json!({"alg": "ES256", name: "DEF"})).unwrap_err(), JoseError::Refused(name));
        }
    }

    #[test]
    fn kid_is_one_short_line_of_text() {
        for kid in [json!("x".repeat(10_240)), json!("a\0b"), json!("a\r\nb"), json!("a\u{85}b"), json!(1), json!([1])]
        {
            assert_eq!(assertion(&json!({"alg": "ES256", "kid": kid})).unwrap_err(), JoseError::Kid, "{kid}");
        }
        for nothing in [json!(""), json!(null)] {
            assert_eq!(assertion(&json!({"alg": "ES256", "kid": nothing})).unwrap().kid(), None);
        }
        // These are texts; no key is called so, and nothing is built of them.
        for kid in ["' OR 1=1--", "../../../../dev/null", "\u{1f511}", &"x".repeat(256)] {
            assert_eq!(assertion(&json!({"alg": "ES256", "kid": kid})).unwrap().kid(), Some(kid));
        }
    }

    #[test]
    fn an_identity_token_has_no_typ_of_its_own() {
        let read = |typ: &str| assertion(&json!({"alg": "ES256", "typ": typ}));
        for (typ, svid) in [("JWT", true), ("JOSE", true), ("jwt", false), ("application/jose", false)] {
            let header = read(typ).unwrap();
            assert_eq!((header.is_plain_jwt(), header.is_svid()), (true, svid), "{typ}");
        }
        for typ in ["client-authentication+jwt", "x+jwt", "text/jwt"] {
            let header = read(typ).unwrap();
            assert!(!header.is_plain_jwt() && !header.is_svid(), "{typ}");
        }
        let header = assertion(&json!({"alg": "ES256"})).unwrap();
        assert!(header.is_plain_jwt() && header.is_svid());
    }

    #[test]
    fn each_kind_of_jwt_has_its_typ() {
        let typ = |typ: Option<&str>, kind| {
            let mut header = json!({"alg": "ES256"});
            if let Some(typ) = typ {
                header["typ"] = typ.into();
            }
            if kind == Kind::DpopProof {
                header["jwk"] = json!({});
            }
            read(&header, kind).map(drop)
        };
        let (accepted, refused) = (Ok(()), Err(JoseError::Typ));
        for name in
            ["JWT", "jwt", "client-authentication+jwt", "application/client-authentication+jwt", "x+jwt", "JOSE"]
        {
            assert_eq!(typ(Some(name), Kind::ClientAssertion), accepted, "{name}");
        }
        assert_eq!(typ(None, Kind::ClientAssertion), accepted);
        for name in OTHER_KINDS {
            for name in
                [name.to_owned(), name.to_uppercase(), format!("application/{name}"), format!("Application/{name}")]
            {
                assert_eq!(typ(Some(&name), Kind::ClientAssertion), refused, "{name}");
                let is = |kind: &str| name.to_lowercase().trim_start_matches("application/") == kind;
                assert_eq!(typ(Some(&name), Kind::DpopProof).is_ok(), is("dpop+jwt"), "{name}");
                assert_eq!(typ(Some(&name), Kind::AccessToken).is_ok(), is("at+jwt"), "{name}");
                assert_eq!(typ(Some(&name), Kind::AccessTokenOrJwt).is_ok(), is("at+jwt") || is("jwt"), "{name}");
            }
        }
        for kind in [Kind::DpopProof, Kind::AccessToken, Kind::AccessTokenOrJwt] {
            for name in [None, Some("client-authentication+jwt"), Some("dpop+jwt+wrong"), Some("text/at+jwt")] {
                assert_eq!(typ(name, kind), refused, "{name:?}");
            }
        }
        assert_eq!(typ(Some("JWT"), Kind::DpopProof), refused);
        for odd in [
            "",
            "/",
            "at+jwt ",
            " at+jwt",
            "at+jwt;x=y",
            "application/application/at+jwt",
            "application/",
            "/at+jwt",
            "at+jwt\0",
        ] {
            for kind in [Kind::ClientAssertion, Kind::DpopProof, Kind::AccessToken, Kind::AccessTokenOrJwt] {
                assert_eq!(typ(Some(odd), kind), refused, "{odd}");
            }
        }
        assert_eq!(assertion(&json!({"alg": "ES256", "typ": ["JWT"]})).unwrap_err(), JoseError::Typ);
    }
}
