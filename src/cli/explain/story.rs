//! The cause of a refusal and its remedy, in sentences, with the command that mends it.

use serde_json::Value;

use super::Refusal;
use crate::model::client_id::ClientId;
use crate::protocol::error::reason::Reason;

/// The cause of a refusal, and its remedy, each in sentences.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Story {
    pub(super) cause: String,
    pub(super) remedy: String,
}

impl Story {
    /// The story of a refusal: as its compared values tell it, else as its detail and the table of reasons do.
    pub(super) fn of(refusal: &Refusal) -> Self {
        // A text that cannot be a client id stands in no command.
        let id = refusal.client_id.as_deref().and_then(|id| id.parse::<ClientId>().ok());
        let word = id.as_ref().map(ClientId::in_shell).unwrap_or_default();
        let told = Reason::named(&refusal.reason).and_then(|reason| {
            access(refusal, reason, &word)
                .or_else(|| secret(refusal, reason, &word))
                .or_else(|| key(refusal, reason, &word))
        });
        let (cause, remedy) = told.unwrap_or_default();
        Self {
            cause: if cause.is_empty() { sentence(&refusal.detail) } else { cause },
            remedy: if remedy.is_empty() { of_table(refusal, id.as_ref()) } else { remedy },
        }
    }
}

/// The remedy of the table, with the client's id in its commands.
fn of_table(refusal: &Refusal, id: Option<&ClientId>) -> String {
    match id {
        Some(id) => refusal.remedy.replace(" ID", &format!(" {}", id.in_shell())),
        None => refusal.remedy.clone(),
    }
}

/// Refusals of scopes and resources.
fn access(refusal: &Refusal, reason: Reason, id: &str) -> Option<(String, String)> {
    let (asked, allowed) = (refusal.fact("requested_scope"), refusal.fact("allowed_scope"));
    let (resource, resources) = (refusal.fact("requested_resource"), refusal.fact("allowed_resource"));
    let is_cut = [asked, allowed, resource, resources].iter().any(|text| text.ends_with('…'));
    let (cause, remedy) = match reason {
        Reason::ScopeNotAllowed => {
            let cause = format!("It asked for {} and may have {}.", or_nothing(asked), or_nothing(allowed));
            let respaced = asked.replace([',', ';'], " ");
            let is_separated = respaced != asked && respaced.split_whitespace().all(|scope| has(allowed, scope));
            if is_separated {
                let parameter = respaced.split_whitespace().collect::<Vec<_>>().join(" ");
                (
                    cause,
                    format!("Scopes are separated by one space, so let the client send scope={}.", quoted(&parameter)),
                )
            } else {
                (cause, format!("To allow it: grantd client set {id} --scope {}", quoted(&joined(allowed, asked))))
            }
        }
        Reason::ScopeMissing => (
            format!("It asked for no scope and has no default that applies; it may have {}.", or_nothing(allowed)),
            format!(
                "Let the client send scope, or: grantd client set {id} --scope {0} --default-scope {0}",
                quoted(allowed)
            ),
        ),
        Reason::ScopeNotForResource if !refusal.fact("resource_scope").is_empty() => {
            let understood = refusal.fact("resource_scope");
            (
                format!("It asked for {} at {resource}, which understands {understood}.", or_nothing(asked)),
                format!(
                    "If the resource understands more: grantd resource set {} --scope {}",
                    quoted(resource),
                    quoted(&joined(understood, asked))
                ),
            )
        }
        Reason::ResourceNotAllowed => {
            let may = if resources.is_empty() { "the default audience alone" } else { resources };
            let all: Vec<String> = resources
                .split_whitespace()
                .chain([resource])
                .map(|uri| format!("--resource {}", quoted(uri)))
                .collect();
            (
                format!("It asked for {resource} and may have {may}."),
                format!("To allow it, once `grantd resource list` has it: grantd client set {id} {}", all.join(" ")),
            )
        }
        Reason::ResourceAmbiguous => {
            let first = resources.split_whitespace().next().unwrap_or_default();
            (
                format!("It named no resource and may have {resources}."),
                format!("Let the client send one, such as resource={first}."),
            )
        }
        _ => return None,
    };
    // A command with half of a list would take away the other half.
    Some((cause, if is_cut { String::new() } else { remedy }))
}

/// Refusals of secrets and clients.
fn secret(refusal: &Refusal, reason: Reason, id: &str) -> Option<(String, String)> {
    let other = refusal.fact("secret_of_client");
    let credential = refusal.fact("credential_id");
    let ago = |name: &str| refusal.number(name).map(|at| span(refusal.at.saturating_sub(at)));
    Some(match reason {
        Reason::WrongSecret | Reason::SecretOfOtherClient if !other.is_empty() => (
            format!("The secret is one of the client {other}."),
            format!("Deploy a secret of {id}, or let the client authenticate as {other}."),
        ),
        Reason::WrongSecret if refusal.number("live_secrets") == Some(0) => {
            ("The client has no secret that is live.".to_owned(), format!("To make one: grantd client secret add {id}"))
        }
        Reason::WrongSecret if refusal.number("live_secrets").is_some() && refusal.detail == "wrong secret" => (
            match refusal.number("live_secrets")? {
                1 => "It does not match the client's one live secret.".to_owned(),
                number => format!("It matches none of the client's {number} live secrets."),
            },
            String::new(),
        ),
        Reason::SecretExpired => (
            format!("Its secret {credential} expired {} before.", ago("expires_at")?),
            format!("To make another: grantd client secret add {id}"),
        ),
        Reason::SecretRevoked => (
            format!("Its secret {credential} was revoked {} before.", ago("revoked_at")?),
            format!(
                "A deployment at {} still has it; the live ones: grantd client secret list {id}",
                refusal.remote_addr
            ),
        ),
        Reason::ClientDisabled => (
            "The credential is right, and the client is disabled.".to_owned(),
            format!("If it may work again: grantd client enable {id}"),
        ),
        Reason::Throttled => (
            format!("It failed too often; the reason of its last failure is {}.", refusal.fact("last_reason")),
            format!("Mend that: grantd explain --client {id} --reason {}", refusal.fact("last_reason")),
        ),
        Reason::UnknownClient if !refusal.fact("similar_client").is_empty() => (
            format!(
                "No client has this id; there is {}. Ids are compared exactly, with blanks, line ends and capitals.",
                refusal.fact("similar_client")
            ),
            "Correct the client id in the deployment.".to_owned(),
        ),
        Reason::AuthMethodNotAllowed => {
            let (used, allowed) = (refusal.fact("auth_method"), refusal.fact("allowed_auth_methods"));
            (
                format!("It authenticated by {used} and may use {}.", or_nothing(allowed)),
                format!("To allow it: grantd client set {id} --auth-methods {}", quoted(&joined(allowed, used))),
            )
        }
        _ => return None,
    })
}

/// Refusals of assertions, proofs and certificates.
fn key(refusal: &Refusal, reason: Reason, id: &str) -> Option<(String, String)> {
    let difference = refusal.number("clock_difference_seconds");
    let no_remedy = String::new();
    Some(match reason {
        Reason::JwsKey | Reason::JwsSignature | Reason::JwsAlg => {
            let kid = refusal.fact("kid");
            let signed = if kid.is_empty() { "names no kid".to_owned() } else { format!("names the kid {kid}") };
            let registered = match refusal.compared.get("registered_keys").and_then(Value::as_array) {
                Some(keys) => format!("registered: {}", or_nothing(&listed(keys))),
                None => format!("its keys are published at {}", or_nothing(refusal.fact("jwks_uri"))),
            };
            let mend = match refusal.compared.get("registered_keys") {
                Some(_) => format!("To register the key that it signs with: grantd client key add {id} --jwk FILE"),
                None => no_remedy,
            };
            (format!("Its assertion is signed by {} and {signed}; {registered}.", refusal.fact("alg")), mend)
        }
        Reason::AssertionAudience => {
            let aud = refusal.fact("aud");
            let aud = if aud.is_empty() { "missing" } else { aud };
            (format!("Its aud is {aud}, and has to be {}.", refusal.fact("expected_aud")), no_remedy)
        }
        Reason::AssertionExpired => (format!("Its exp was {} before it came.", span(-difference?)), no_remedy),
        Reason::AssertionEarly => (format!("Its iat or nbf is {} ahead of this clock.", span(difference?)), no_remedy),
        Reason::AssertionOld => (format!("Its iat is {} back.", span(-difference?)), no_remedy),
        Reason::AssertionLifetime => {
            (format!("It is valid for {}.", span(refusal.number("lifetime_seconds")?)), no_remedy)
        }
        Reason::DpopTime => {
            let difference = difference?;
            let side = if difference < 0 { "behind" } else { "ahead of" };
            (format!("The iat of its proof is {} {side} this clock.", span(difference.abs())), no_remedy)
        }
        Reason::CertificateUnknown => {
            let registered = refusal.compared.get("registered_certificates").and_then(Value::as_array);
            let registered = registered.map(|all| listed(all)).unwrap_or_default();
            (
                format!(
                    "It showed the certificate of {}; registered: {}.",
                    refusal.fact("certificate_subject"),
                    or_nothing(&registered)
                ),
                match refusal.fact("reversed_subject") {
                    "" => no_remedy,
                    subject => format!(
                        "The registered name has its parts in the order of OpenSSL. In that of RFC 4514: grantd client cert remove {id} {} && grantd client cert add {id} --subject-dn {}",
                        quoted(refusal.fact("cert_id")),
                        quoted(subject)
                    ),
                },
            )
        }
        _ => return None,
    })
}

fn listed(values: &[Value]) -> String {
    values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn has(list: &str, word: &str) -> bool {
    list.split(' ').any(|mine| mine == word)
}

/// The words of two lists, each once.
fn joined(one: &str, other: &str) -> String {
    let mut words: Vec<&str> = one.split_whitespace().collect();
    words.extend(other.split_whitespace().filter(|word| !has(one, word)));
    words.join(" ")
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

/// A text with a capital at its start and a full stop at its end.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    let stop = if text.ends_with('.') { "" } else { "." };
    first.into_iter().chain(characters).collect::<String>() + stop
}

/// A text as one word of a POSIX shell. Double quotation marks are for texts in which a shell replaces nothing.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@+%=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    if text.bytes().all(|byte| byte == b' ' || is_plain(byte)) {
        return format!("\"{text}\"");
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A number of seconds in its largest unit, rounded up.
pub(in crate::cli) fn span(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        7200..172_800 => format!("{} h", seconds.div_ceil(3600)),
        _ => format!("{} days", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(reason: Reason, compared: &Value) -> Story {
        Story::of(&Refusal {
            request_id: "AAAAAAAAAAAAAAAA".into(),
            at: 1000,
            client_id: Some("payroll".into()),
            remote_addr: "10.2.3.4".into(),
            reason: reason.as_str().into(),
            detail: "the detail".into(),
            remedy: reason.remedy().into(),
            compared: compared.as_object().unwrap().clone(),
        })
    }

    #[test]
    fn a_refused_scope_is_told_with_the_command_that_allows_it() {
        let story = told(
            Reason::ScopeNotAllowed,
            &json!({"requested_scope": "payroll:write", "allowed_scope": "invoices:read"}),
        );
        assert_eq!(story.cause, "It asked for payroll:write and may have invoices:read.");
        assert_eq!(story.remedy, "To allow it: grantd client set payroll --scope \"invoices:read payroll:write\"");
        let comma = told(Reason::ScopeNotAllowed, &json!({"requested_scope": "a,b", "allowed_scope": "a b c"}));
        assert_eq!(comma.remedy, "Scopes are separated by one space, so let the client send scope=\"a b\".");
        let cut = told(Reason::ScopeNotAllowed, &json!({"requested_scope": "z", "allowed_scope": "a b…"}));
        assert!(cut.remedy.contains("`grantd client set payroll --scope …`"), "{}", cut.remedy);
    }

    #[test]
    fn a_scope_that_a_shell_would_run_is_quoted() {
        let story = told(Reason::ScopeNotAllowed, &json!({"requested_scope": "$(reboot)", "allowed_scope": "a'b"}));
        assert!(story.remedy.ends_with(r"--scope 'a'\''b $(reboot)'"), "{}", story.remedy);
    }

    #[test]
    fn every_reason_has_a_cause_and_a_remedy_without_a_placeholder() {
        for reason in Reason::ALL {
            let story = told(*reason, &json!({}));
            assert!(story.cause.ends_with('.') && !story.remedy.is_empty(), "{}: {story:?}", reason.as_str());
            assert!(!story.remedy.contains(" ID"), "{}: {}", reason.as_str(), story.remedy);
        }
    }

    #[test]
    fn a_name_in_the_order_of_openssl_is_told_with_the_commands_that_mend_it() {
        let story = told(
            Reason::CertificateUnknown,
            &json!({
                "certificate_subject": "CN=a b,C=DE",
                "registered_certificates": ["subject_dn C=DE,CN=a b"],
                "reversed_subject": "CN=a b,C=DE",
                "cert_id": "x1",
            }),
        );
        assert_eq!(story.cause, "It showed the certificate of CN=a b,C=DE; registered: subject_dn C=DE,CN=a b.");
        let commands =
            "grantd client cert remove payroll x1 && grantd client cert add payroll --subject-dn \"CN=a b,C=DE\"";
        assert!(story.remedy.ends_with(commands), "{}", story.remedy);
    }

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        for (seconds, text) in
            [(-1, "0 s"), (5, "5 s"), (119, "119 s"), (270, "5 min"), (7200, "2 h"), (172_800, "2 days")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
