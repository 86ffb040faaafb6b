//! The page of the limits, with the values of the constants that hold them.

use super::row;
use crate::config::Settings;
use crate::crypto::secret::HashParams;
use crate::http::body::MAX_BODY;
use crate::state::key_sets::{REFRESH, entry::STALE};

use crate::http::form::MAX_PARAMETERS;
use crate::http::log::recent::{KEPT, KEPT_BYTES};
use crate::model::client_id::ClientId;
use crate::model::time::{MAX_SECONDS, Span};
use crate::model::{resource, scope};
use crate::protocol::{access_token, client_assertion, compared, dpop};
use crate::serve::descriptors::ADMIN;
use crate::state::keyring::{LONGEST_TTL, PUBLISH_AHEAD, SKEW};
use crate::state::throttle::{BURST, REFILL_INTERVAL};
use crate::store::DEADLINE;
use crate::store::changes::LOAD_DEADLINE;
use crate::store::secrets::MAX_IMPORTED;
use crate::transport::listener::MAX_HEAD;
use crate::transport::listener::timed_stream::{LINGER, LINGER_BYTES};

pub(super) fn page() -> String {
    let mut page = String::from("| what | limit |\n|---|---|\n");
    for (what, limit) in sizes() {
        page += &row(&[what, &limit]);
    }
    page += TIMES;
    for (what, value, leeway) in times() {
        page += &row(&[what, &value, &leeway]);
    }
    page
}

fn seconds(span: Span) -> String {
    format!("{} s", span.seconds())
}

fn sizes() -> [(&'static str, String); 23] {
    let settings = Settings::default();
    let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
    [
        (
            "body of a request",
            format!(
                "{} (413). Of a body that is refused unread, up to {} MiB are read and dropped for up to {} s, so that the client gets its answer",
                kib(MAX_BODY),
                LINGER_BYTES >> 20,
                LINGER.as_secs()
            ),
        ),
        ("request line and header fields", format!("{} (431)", kib(MAX_HEAD))),
        ("form parameters", MAX_PARAMETERS.to_string()),
        ("client id", format!("{} characters", ClientId::MAX_LENGTH)),
        (
            "scope of a client, a resource or a request",
            format!("{} tokens, {} bytes", scope::MAX_TOKENS, scope::MAX_BYTES),
        ),
        ("resource identifier", format!("{} bytes", resource::MAX_BYTES)),
        ("lifetime of a token", format!("1 s to {}", seconds(LONGEST_TTL))),
        ("a span of time in an argument or a setting", format!("{} days", MAX_SECONDS / 86400)),
        ("further claims of a client", "64, and 4096 characters of JSON".into()),
        ("size of a token before `grantd doctor` names its client", format!("{} bytes", access_token::size::TOO_LARGE)),
        ("secrets of a client", format!("no limit; {MAX_IMPORTED} imported ones that work")),
        ("secret read from stdin", "16 to 4096 bytes; a longer one is refused".into()),
        (
            "argon2id hash",
            format!("at least m=19456,t=2, or m=47104,t=1, or m=12288,t=3; at most m={},t=10,p=16", HashParams::MAX_M),
        ),
        ("RSA keys", "2048 to 4096 bits, exponent 65537".into()),
        (
            "connections",
            format!(
                "{} public (`server.max_connections`), {ADMIN} admin, or what the limit on open files leaves",
                settings.server.max_connections
            ),
        ),
        (
            "secrets that wait to be verified",
            "as many as are verified in 30 s, from 256 to 16,384 (`secrets.queue`)".to_owned(),
        ),
        ("client assertion", kib(client_assertion::MAX_ASSERTION_BYTES)),
        ("DPoP proof", format!("{}, its `jti` {} bytes", kib(dpop::MAX_BYTES), dpop::JTI_MAX)),
        (
            "failures of one client from one address",
            format!(
                "{BURST}, then one each {} s, and two a second of secrets that are presented again",
                REFILL_INTERVAL.as_secs()
            ),
        ),
        (
            "refusals that a process keeps for `grantd explain`",
            format!("{KEPT}, and {} MiB; each text in them {} bytes", KEPT_BYTES >> 20, compared::MAX_TEXT),
        ),
        (
            "refused scopes or resource in the answer to an authenticated client",
            format!("{} bytes", compared::MAX_REPEATED),
        ),
        (
            "delay until a change in the database is in force",
            format!("`registry.poll` ({}), and at once when PostgreSQL notifies", settings.registry.poll),
        ),
        (
            "a statement to the database",
            format!(
                "{} s; each part of a load of everything {} s, the whole as long as it makes progress",
                DEADLINE.as_secs(),
                LOAD_DEADLINE.as_secs()
            ),
        ),
    ]
}

fn times() -> [(&'static str, String, String); 18] {
    let assertion = client_assertion::LIFETIME;
    [
        ("assertion: `exp` is over", "at once".into(), format!("{} late", seconds(client_assertion::EXP_LEEWAY))),
        ("assertion: `nbf`, `iat` in the future", "none".into(), seconds(client_assertion::NBF_LEEWAY)),
        (
            "assertion: from `iat` to `exp`; without `iat`, from now",
            seconds(assertion),
            seconds(client_assertion::NBF_LEEWAY),
        ),
        ("assertion: age of `iat`", seconds(client_assertion::MAX_IAT_AGE), "in the value".into()),
        (
            "assertion: its `jti` is remembered",
            "until `exp`".into(),
            format!(
                "{}, and {} for replicas",
                seconds(client_assertion::EXP_LEEWAY),
                seconds(client_assertion::REPLICA_SKEW)
            ),
        ),
        ("DPoP proof: age of `iat`", seconds(dpop::MAX_AGE), "in the value".into()),
        ("DPoP proof: `iat`, `nbf` in the future", "none".into(), seconds(dpop::FUTURE_LEEWAY)),
        ("DPoP proof: `exp`, where it has one", "at once".into(), format!("{} late", seconds(dpop::EXP_LEEWAY))),
        (
            "DPoP proof: its `jti` is remembered",
            format!("until {} after `iat`", seconds(dpop::MAX_AGE)),
            format!("{} for replicas", seconds(dpop::REPLICA_SKEW)),
        ),
        (
            "DPoP nonce",
            format!("{} to {} s", dpop::nonces::WINDOW, 2 * dpop::nonces::WINDOW),
            "one window between replicas".into(),
        ),
        (
            "access token at `/introspect`, `/revoke`, `/verify`: `iat` in the future",
            "none".into(),
            format!("{} between replicas", seconds(access_token::CLOCKS)),
        ),
        ("access token at `/introspect`, `/revoke`, `/verify`: `exp` is over", "at once".into(), "none".into()),
        (
            "expiry of a secret, key or certificate registration",
            "at once".into(),
            "none: the operator chose the moment".into(),
        ),
        ("dates of a certificate, and of a CRL", "at once".into(), "none: they are the CA's".into()),
        (
            "JWK Set of a client: used without fetching it again",
            format!("{}; {} while its host fails", seconds(REFRESH), seconds(STALE)),
            "none: measured by one clock".into(),
        ),
        ("new signing key: published before it signs", seconds(PUBLISH_AHEAD), "60 s of it".into()),
        (
            "replaced signing key: published after it signs",
            "the longest lifetime of its tokens, at least `registry.max_stale`".into(),
            seconds(SKEW),
        ),
        ("signing key that is gone: its row is deleted after", seconds(LONGEST_TTL), "none".into()),
    ]
}

const TIMES: &str = "
## Time limits and clocks

Each limit on what a client signs has leeway for the client's clock. Single-use ids are remembered for a minute longer than any replica accepts them.

| limit | value | leeway for clocks |
|---|---|---|
";
