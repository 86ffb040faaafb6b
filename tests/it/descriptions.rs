//! Refusals whose description says what to mend, without a word of what was sent.

use crate::harness::{Db, Setup, basic};

on_both!(a_slip_in_a_parameter_is_named);

async fn a_slip_in_a_parameter_is_named(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let ask =
        async |body: &str| server.post(&[("authorization", &basic("basic-client", &secret))], body.to_owned()).await;
    for (body, code, part) in [
        ("grant_type=client_credentials\n", "unsupported_grant_type", "without blanks or line ends"),
        ("grant_type=client_credentials%0A", "unsupported_grant_type", "without blanks or line ends"),
        ("grant_type=+client_credentials%0d%0a", "unsupported_grant_type", "without blanks or line ends"),
        ("grant_type=Client_Credentials", "unsupported_grant_type", "in lower case"),
        ("grant_type=password", "unsupported_grant_type", "this server supports client_credentials"),
        ("grant_type=client_credentials&scope=api:read,api:write", "invalid_scope", "not by commas"),
        ("grant_type=client_credentials&scope=api:read;api:write", "invalid_scope", "not by commas"),
        ("grant_type=client_credentials&scope=api:read,none", "invalid_scope", "not by commas"),
        ("grant_type=client_credentials&scope=none", "invalid_scope", "a scope is not allowed for this client"),
        ("grant_type=client_credentials&scope=api:read++api:write", "invalid_scope", "one space between scopes"),
        ("grant_type=client_credentials&scope=api:read+", "invalid_scope", "one space between scopes"),
        ("grant_type=client_credentials&scope=+", "invalid_scope", "one space between scopes"),
        ("grant_type=client_credentials&scope=api:read%0A", "invalid_scope", "one space between scopes"),
        ("grant_type=client_credentials&scope=api:read%09api:write", "invalid_scope", "one space between scopes"),
        ("grant_type=client_credentials&scope=\"api:read\"", "invalid_scope", "without quotation mark"),
        ("grant_type=client_credentials&scope=caf%C3%A9", "invalid_scope", "printable ASCII"),
        ("grant_type=client_credentials&resource=https://a.test%0A", "invalid_target", "blanks or line ends"),
        ("grant_type=client_credentials&resource=a", "invalid_target", "absolute URI"),
    ] {
        let answer = ask(body).await;
        answer.error(code);
        let json = answer.json();
        let description = json["error_description"].as_str().unwrap();
        assert!(description.contains(part), "{body:?}: {description}");
    }
    let long = format!("grant_type=client_credentials&scope={}", "a+".repeat(101).trim_end_matches('+'));
    let long = ask(&long).await.json();
    assert!(long["error_description"].as_str().unwrap().contains("at most 100 scopes"), "{long}");
    // The one comma that is allowed.
    ask("grant_type=client_credentials&scope=api:read").await.ok();
}
