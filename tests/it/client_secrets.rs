//! Client secrets, presented in every way that clients present them and attackers try.

use axum::http::{Request, StatusCode};
use grantd::crypto::secret::ClientSecret;
use grantd::model::client::Client;
use grantd::model::credential::SecretOrigin;
use grantd::model::time::{Clock, Span, UnixTime};
use grantd::store::last_used::LastUsedTimes;
use grantd::store::secrets::NewSecret;

use crate::harness::{Db, Server, Setup, basic, client, new_secret};

const GRANT: &str = "grant_type=client_credentials";

on_both!(
    secrets_are_accepted_by_basic_and_in_the_body,
    basic_is_form_decoded_and_raw_is_tolerated,
    the_raw_reading_can_be_turned_off,
    failed_attempts_are_401_with_a_challenge,
    a_request_uses_one_authentication_mechanism,
    an_empty_secret_or_an_hmac_assertion_authenticates_no_client,
    a_client_may_narrow_its_methods,
    every_failure_to_authenticate_looks_and_works_the_same,
    failures_slow_down_the_guesser_alone,
    secrets_are_compared_exactly,
    several_secrets_are_valid_side_by_side_and_one_hash_decides,
    imported_secrets_are_tried_alike_for_every_client,
    a_full_hashing_queue_refuses_at_once_with_503,
    a_burst_of_imported_secrets_is_served_without_a_refusal,
    a_refused_client_is_told_to_come_when_the_queue_is_done,
    a_cheaper_hash_is_raised_after_its_use,
    uses_of_secrets_are_recorded,
);

async fn secrets_are_accepted_by_basic_and_in_the_body(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    server.basic("basic-client", &secret, "").await.ok();
    server.in_body("basic-client", &secret, "").await.ok();
    let lower = basic("basic-client", &secret).replacen("Basic", "bAsIc", 1);
    server.post(&[("authorization", &lower)], GRANT).await.ok();
    let spaces = basic("basic-client", &secret).replacen("Basic ", "Basic   ", 1);
    server.post(&[("authorization", &spaces)], GRANT).await.ok();
}

/// The characters that clients encode differently, in one secret.
const AWKWARD: &str = "some secure & non-standard secret +%2B:/=£€";

fn form_encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte == b' ' { "+".to_owned() } else { format!("%{byte:02X}") }).collect()
}

async fn basic_is_form_decoded_and_raw_is_tolerated(db: Db) {
    let setup = Setup::new(db).await;
    setup.imported(client("an.identifier"), AWKWARD).await;
    let server = setup.start().await;
    let encoded = form_encoded(AWKWARD);
    for secret in [encoded.clone(), encoded.to_lowercase(), encoded.replace('+', "%20")] {
        server.basic("an%2Eidentifier", &secret, "").await.ok();
    }
    // Raw, as curl and requests send it: its %2B would decode to something else.
    server.basic("an.identifier", AWKWARD, "").await.ok();
    let raw_counted =
        server.counts.basic_readings.get_or_create(&grantd::http::log::ReadingLabels { reading: "raw" }).get();
    let form_counted =
        server.counts.basic_readings.get_or_create(&grantd::http::log::ReadingLabels { reading: "form" }).get();
    assert_eq!((form_counted, raw_counted), (3, 1));
    let body = format!("{GRANT}&client_id=an.identifier&client_secret={encoded}");
    server.post(&[], body).await.ok();
}

async fn the_raw_reading_can_be_turned_off(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.secrets.basic_reading = "strict".into();
    setup.imported(client("imported"), AWKWARD).await;
    let server = setup.start().await;
    server.basic("imported", &form_encoded(AWKWARD), "").await.ok();
    server.basic("imported", AWKWARD, "").await.unauthorized();
}

async fn failed_attempts_are_401_with_a_challenge(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let garbage = format!("{}x", basic("basic-client", &secret));
    for authorization in [
        basic("basic-client", "wrong"),
        basic("nobody", "wrong"),
        basic("basic-client", ""),
        basic("", ""),
        basic("%zz", "x"),
        "Basic".into(),
        "Basic ".into(),
        "Basic !!!".into(),
        "Basic bm9jb2xvbg==".into(),
        "Basic /zpiYg==".into(),
        garbage,
        "Bearer x".into(),
        "Digest username=basic-client".into(),
        "Negotiate abc".into(),
        "DPoP x".into(),
    ] {
        server.post(&[("authorization", &authorization)], GRANT).await.unauthorized();
    }
    server.post(&[], GRANT).await.unauthorized();
    server.post(&[], format!("{GRANT}&client_id=basic-client")).await.unauthorized();
    server.post(&[], format!("{GRANT}&client_secret={secret}")).await.unauthorized();
}

async fn a_request_uses_one_authentication_mechanism(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    let authorization = basic("basic-client", &secret);
    let fields = [("authorization", authorization.as_str())];
    let two = Request::post("/token").header("content-type", "application/x-www-form-urlencoded");
    let two = two.header("authorization", &authorization).header("authorization", &authorization);
    server.send(two.body(GRANT.into()).unwrap()).await.error("invalid_request");
    server
        .post(&fields, format!("{GRANT}&client_secret={secret}&client_id=basic-client"))
        .await
        .error("invalid_request");
    server.post(&fields, format!("{GRANT}&client_assertion=a.b.c")).await.error("invalid_request");
    server.post(&fields, format!("{GRANT}&client_assertion_type=x")).await.error("invalid_request");
    let body = format!("{GRANT}&client_id=basic-client&client_secret={secret}&client_assertion=a.b.c");
    server.post(&[], body).await.error("invalid_request");
    server.post(&fields, format!("{GRANT}&client_id=other")).await.error("invalid_request");
    assert_eq!(server.server.authenticator.lane.verifications.get(), 0, "no hash is computed");
    server.post(&fields, format!("{GRANT}&client_id=basic-client")).await.ok();
}

async fn an_empty_secret_or_an_hmac_assertion_authenticates_no_client(db: Db) {
    let setup = Setup::new(db).await;
    setup.store.create_client(&client("bare"), None).await.unwrap();
    setup.client(client("basic-client")).await;
    let server = setup.start().await;
    for id in ["bare", "basic-client"] {
        for secret in ["", " ", "null", "undefined", "%20"] {
            server.basic(id, secret, "").await.unauthorized();
            server.in_body(id, secret, "").await.unauthorized();
        }
    }
    let metadata = server.get("/.well-known/oauth-authorization-server").await.json();
    let methods = metadata["token_endpoint_auth_methods_supported"].as_array().unwrap();
    assert_eq!(methods, &["client_secret_basic", "client_secret_post", "private_key_jwt"]);
    let assertion = "client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion=eyJhbGciOiJIUzI1NiJ9.e30.AA";
    server.post(&[], format!("{GRANT}&client_id=basic-client&{assertion}")).await.unauthorized();
}

async fn a_client_may_narrow_its_methods(db: Db) {
    let setup = Setup::new(db).await;
    let only = |id: &str, method: &str| Client { auth_methods: Some(method.into()), ..client(id) };
    let by_basic = setup.client(only("basic-client", "client_secret_basic")).await;
    let by_body = setup.client(only("post-client", "client_secret_post")).await;
    let by_key = setup.client(only("jwt-client", "private_key_jwt tls_client_auth")).await;
    let server = setup.start().await;
    server.basic("basic-client", &by_basic, "").await.ok();
    server.in_body("basic-client", &by_basic, "").await.unauthorized();
    server.in_body("post-client", &by_body, "").await.ok();
    server.basic("post-client", &by_body, "").await.unauthorized();
    server.basic("jwt-client", &by_key, "").await.unauthorized();
}

/// A server with a client for each way to fail, and the requests that do.
async fn failing(db: Db) -> (Server, Vec<(&'static str, String, String)>) {
    let setup = Setup::new(db).await;
    let mut attempts = vec![(
        "unknown_client",
        "nobody".to_owned(),
        "gds_aaaaaaaaaaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
    )];
    let right = setup.client(client("basic-client")).await;
    let prefix = &right[..20];
    let wrong = format!("{}{}", &right[..right.len() - 1], if right.ends_with('A') { 'B' } else { 'A' });
    assert!(wrong.starts_with(prefix), "it names its row");
    attempts.push(("wrong_secret", "basic-client".into(), wrong));
    attempts.push((
        "client_disabled",
        "disabled".into(),
        setup.client(Client { enabled: false, ..client("disabled") }).await,
    ));
    let narrowed = Client { auth_methods: Some("private_key_jwt".into()), ..client("narrow") };
    attempts.push(("auth_method_not_allowed", "narrow".into(), setup.client(narrowed).await));
    for (reason, id, ended) in
        [("secret_expired", "expired", "expires_at = 1"), ("secret_revoked", "revoked", "revoked_at = 1")]
    {
        let secret = setup.client(client(id)).await;
        setup.db.sql(&format!("update client_secret set {ended} where client_id = '{id}'")).await.unwrap();
        attempts.push((reason, id.into(), secret));
    }
    attempts.push(("secret_whitespace", "basic-client".into(), format!("{right}\n")));
    attempts.push(("secret_truncated", "basic-client".into(), right[..40].to_owned()));
    attempts.push(("secret_of_other_client", "basic-client".into(), setup.client(client("another")).await));
    setup.store.create_client(&client("bare"), None).await.unwrap();
    attempts.push((
        "wrong_secret",
        "bare".into(),
        "gds_bbbbbbbbbbbbbbbb_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into(),
    ));
    (setup.start().await, attempts)
}

async fn every_failure_to_authenticate_looks_and_works_the_same(db: Db) {
    let (server, attempts) = failing(db).await;
    let mut faces = Vec::new();
    let hashes = || server.server.authenticator.lane.verifications.get();
    for (reason, id, secret) in &attempts {
        let before = hashes();
        let answer = server.basic(id, secret, "").await;
        let was_once_one =
            matches!(*reason, "client_disabled" | "auth_method_not_allowed" | "secret_expired" | "secret_revoked");
        assert_eq!(
            hashes() - before,
            u64::from(was_once_one),
            "{reason}: {id}: only what was once a secret costs a hash"
        );
        answer.unauthorized();
        faces.push(answer.face());
        let counted = grantd::http::log::TokenLabels { result: "refused", reason, method: "client_secret_basic" };
        assert!(
            server.counts.token_requests.get_or_create(&counted).get() > 0,
            "{reason} is not what was logged for {id}"
        );
    }
    faces.dedup();
    assert_eq!(faces.len(), 1, "{faces:#?}");
    // The other database asserts the same snapshot.
    insta::allow_duplicates! {
        insta::assert_snapshot!(faces[0], @r#"
    401 Unauthorized
    cache-control: no-store
    content-length: 190
    content-type: application/json
    pragma: no-cache
    referrer-policy: no-referrer
    strict-transport-security: max-age=63072000
    www-authenticate: Basic realm="grantd", charset="UTF-8"
    x-content-type-options: nosniff

    {"error":"invalid_client","error_description":"client authentication failed; HTTP Basic takes the client_id and a secret of that client, each form-urlencoded first (RFC 6749 section 2.3.1)"}
    "#);
    }
}

/// The guesser is slowed down; no client is locked out.
async fn failures_slow_down_the_guesser_alone(db: Db) {
    let setup = Setup::new(db).await;
    let victim = setup.client(client("victim")).await;
    let other = setup.client(client("other")).await;
    let server = setup.start().await;
    let mut statuses = Vec::new();
    for _ in 0..14 {
        statuses.push(server.basic("victim", "wrong-but-long-enough", "").await);
    }
    assert_eq!(statuses[0].status, StatusCode::UNAUTHORIZED);
    let throttled = statuses.last().unwrap();
    throttled.refusal(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable");
    assert!((1..=60).contains(&throttled.header("retry-after").parse::<u64>().unwrap()));
    server.basic("other", &other, "").await.ok();
    // Nor does the client itself notice, here, where it shows what only it was given, or somewhere else.
    server.basic("victim", &victim, "").await.ok();
    let request = Request::post("/token").header("content-type", "application/x-www-form-urlencoded");
    let request = request.header("authorization", basic("victim", &victim)).body(GRANT.into()).unwrap();
    server.send_from(([198, 51, 100, 7], 1), request).await.ok();
}

async fn secrets_are_compared_exactly(db: Db) {
    let setup = Setup::new(db).await;
    let long = "Abc".repeat(67);
    setup.imported(client("imported"), &long).await;
    let server = setup.start().await;
    server.in_body("imported", &long, "").await.ok();
    let last = format!("{}d", &long[..long.len() - 1]);
    for wrong in [last, format!("{long}+"), format!("+{long}"), long.to_lowercase(), long[..72].to_owned()] {
        server.in_body("imported", &wrong, "").await.unauthorized();
    }
}

async fn several_secrets_are_valid_side_by_side_and_one_hash_decides(db: Db) {
    let mut setup = Setup::new(db).await;
    let (clock, hand) = Clock::fixed(1_800_000_000);
    setup.clock = clock;
    let first = setup.client(client("basic-client")).await;
    let mut last = (String::new(), String::new());
    for number in 0..20 {
        let id = format!("secret{number}");
        let secret = ClientSecret::generate("basic-client", &id, Some(&setup.tag_key)).unwrap();
        let mut stored = new_secret(&id, secret.expose(), SecretOrigin::Tagged(setup.tag_key.kid()));
        stored.expires_at = (number == 19).then(|| UnixTime(1_800_000_000).plus(Span::from_secs(60)));
        setup.store.add_secret("basic-client", &stored).await.unwrap();
        last = (id, secret.expose().to_owned());
    }
    let server = setup.start().await;
    let hashes = || server.server.authenticator.lane.verifications.get();
    server.basic("basic-client", &first, "").await.ok();
    server.basic("basic-client", &last.1, "").await.ok();
    assert_eq!(hashes(), 2);
    server.basic("basic-client", &format!("{}-_-", &last.1[..last.1.len() - 3]), "").await.unauthorized();
    assert_eq!(hashes(), 2, "a made-up secret of a client with 21 costs none");

    hand.store(1_800_000_060, std::sync::atomic::Ordering::Relaxed);
    server.basic("basic-client", &last.1, "").await.unauthorized();
    assert_eq!(hashes(), 2, "it is known again, and known to be over");
    server.basic("basic-client", &first, "").await.ok();
    let id = first.split('_').nth(1).unwrap();
    assert!(server.store.revoke_secret("basic-client", id, UnixTime(1_800_000_060)).await.unwrap());
    server.refresh().await;
    server.basic("basic-client", &first, "").await.unauthorized();
}

async fn imported_secrets_are_tried_alike_for_every_client(db: Db) {
    let setup = Setup::new(db).await;
    setup.imported(client("two"), "the first imported secret").await;
    setup
        .store
        .add_secret("two", &new_secret("second", "the second imported secret", SecretOrigin::Imported))
        .await
        .unwrap();
    let third =
        setup.store.add_secret("two", &new_secret("third", "the third imported secret", SecretOrigin::Imported)).await;
    assert!(
        third.unwrap_err().to_string().contains("revoke one first"),
        "each has to be tried, so their number is bounded"
    );
    // Dead ones make room, and do not hide the living.
    setup.imported(client("three"), "the only living one of three").await;
    for id in ["dead1", "dead2"] {
        let mut dead = new_secret(id, "an expired imported secret", SecretOrigin::Imported);
        (dead.created_at, dead.expires_at) = (UnixTime(1_900_000_000), Some(UnixTime(1)));
        setup.store.add_secret("three", &dead).await.unwrap();
    }
    setup.client(client("tagged")).await;
    let server = setup.start().await;
    server.in_body("three", "the only living one of three", "").await.ok();
    let hashes = || server.server.authenticator.lane.verifications.get();
    for secret in ["the first imported secret", "the second imported secret"] {
        server.in_body("two", secret, "").await.ok();
    }
    let mut costs = Vec::new();
    for id in ["two", "tagged", "nobody"] {
        let before = hashes();
        server.in_body(id, "not a secret of anybody", "").await.unauthorized();
        costs.push(hashes() - before);
    }
    assert_eq!(costs, [2, 2, 2], "unknown, tagged-only and imported do the same work");
}

async fn a_full_hashing_queue_refuses_at_once_with_503(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.imported(client("imported"), "chosen elsewhere").await;
    setup.settings.secrets.queue = 1;
    setup.settings.secrets.threads = 1;
    let server = setup.start().await;
    let asks = (0..20).map(|number| {
        let (server, id) = (&server, format!("nobody{number}"));
        async move { server.basic(&id, "wrong", "").await }
    });
    let answers = futures_join(asks).await;
    let busy: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE).collect();
    assert!(busy.len() >= 10, "{}", busy.len());
    busy[0].refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    let wait: u64 = busy[0].header("retry-after").parse().unwrap();
    assert!((1..=2).contains(&wait), "the queue is short: {wait} s");
    assert!(answers.iter().any(|answer| answer.status == StatusCode::UNAUTHORIZED));
}

/// Clients with imported secrets, each at an address of its own, that all ask at once.
async fn a_burst(server: &Server, number: usize, secret: &str) -> Vec<crate::harness::Answer> {
    let asks = (0..number).map(|number| {
        let id = format!("imported{number}");
        let request = crate::harness::form("/token", &[("authorization", &basic(&id, secret))], GRANT);
        let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
        server.send_from(([10, 0, high, low], 1), request)
    });
    futures_join(asks).await
}

/// Registers the clients of a burst. They share a secret, whose hash is computed once.
async fn register_a_burst(setup: &Setup, number: usize) {
    let hash = new_secret("any", "chosen elsewhere", SecretOrigin::Imported).hash;
    for number in 0..number {
        let id = format!("imported{number}");
        let stored = NewSecret {
            secret_id: format!("s{number}"),
            hash: hash.clone(),
            origin: SecretOrigin::Imported,
            verifier: None,
            label: String::new(),
            created_at: UnixTime(1),
            expires_at: None,
        };
        setup.store.create_client(&client(&id), Some(&stored)).await.unwrap();
    }
}

async fn a_burst_of_imported_secrets_is_served_without_a_refusal(db: Db) {
    let setup = Setup::new(db).await;
    register_a_burst(&setup, 300).await;
    let server = setup.start().await;
    for answer in a_burst(&server, 300, "chosen elsewhere").await {
        answer.ok();
    }
}

async fn a_refused_client_is_told_to_come_when_the_queue_is_done(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.imported(client("imported"), "chosen elsewhere").await;
    setup.settings.secrets.queue = 200;
    setup.settings.secrets.threads = 1;
    let server = setup.start().await;
    let answers = a_burst(&server, 300, "a guess, long enough").await;
    let waits: std::collections::BTreeSet<u64> = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE)
        .map(|answer| answer.header("retry-after").parse().unwrap())
        .collect();
    assert!(waits.len() > 1 && waits.iter().all(|wait| (1..=60).contains(wait)), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > 2), "200 hashes take longer: {waits:?}");
}

async fn futures_join<F: Future<Output = crate::harness::Answer>>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut answers: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, answer) in futures.iter_mut().zip(&mut answers) {
            if answer.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(cx)
            {
                *answer = Some(output);
            }
        }
        if answers.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}

async fn a_cheaper_hash_is_raised_after_its_use(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.secrets.argon2 = "m=19456,t=3,p=1".into();
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let cost =
        || server.server.registry.snapshot().client("basic-client").unwrap().secrets[0].hash.params().to_string();
    assert_eq!(cost(), "m=19456,t=2,p=1");
    server.basic("basic-client", &secret, "").await.ok();
    let started = std::time::Instant::now();
    while cost() != "m=19456,t=3,p=1" {
        assert!(started.elapsed().as_secs() < 5, "the hash was not raised");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    server.basic("basic-client", &secret, "").await.ok();
}

async fn uses_of_secrets_are_recorded(db: Db) {
    let (server, secret) = Setup::with_basic_client(db).await;
    server.basic("basic-client", &secret, "").await.ok();
    let id: std::sync::Arc<str> = secret.split('_').nth(1).unwrap().into();
    let used: Vec<_> = server
        .server
        .registry
        .snapshot()
        .client("basic-client")
        .unwrap()
        .secrets
        .iter()
        .filter_map(|secret| secret.cache.used().at())
        .collect();
    assert_eq!(used.len(), 1);
    server.verifiers_written().await;
    let revision = server.server.registry.snapshot().revision;
    let of = |secrets| LastUsedTimes { secrets, ..LastUsedTimes::default() };
    server.store.record_last_used(&of(vec![(id.clone(), used[0]), ("gone".into(), used[0])])).await.unwrap();
    server.store.record_last_used(&of(vec![(id, UnixTime(5))])).await.unwrap();
    assert_eq!(
        server.store.secrets("basic-client").await.unwrap()[0].last_used_at,
        Some(used[0]),
        "the latest use stays"
    );
    server.refresh().await;
    assert_eq!(server.server.registry.snapshot().revision, revision, "a use is not a change of the registry");
}
