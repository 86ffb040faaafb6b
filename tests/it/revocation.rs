//! Tokens that are revoked, one by one, all of a client, or all there are.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use grantd::http::log::TokenLabels;
use grantd::model::client::Client;
use grantd::model::resource::Resource;
use grantd::model::time::{Clock, UnixTime};
use grantd::model::token_id::TokenId;
use grantd::protocol::AuthorizationServer;
use sqlx::Connection as _;

use crate::harness::{Answer, Db, Server, Setup, basic, client};
use crate::process::daemon::{Daemon, Grantd, eventually};

on_both!(
    the_revocation_form_follows_the_rules_of_a_token_request,
    a_revoked_token_is_inactive_at_once_and_within_a_second_everywhere,
    revoking_a_token_that_is_not_live_succeeds,
    every_type_of_token_can_be_revoked,
    a_client_cannot_revoke_the_token_of_another,
    without_the_database_no_revocation_is_acknowledged,
    concurrent_revocations_share_few_statements,
    a_revocation_is_acknowledged_once_its_row_is_committed,
    a_batch_of_revocations_that_fails_is_acknowledged_to_no_client,
    rows_and_memory_of_a_revocation_end_with_the_token,
    the_latest_of_all_cut_offs_decides,
    no_other_spelling_of_a_revoked_token_is_active,
    a_revocation_survives_a_restart_and_the_client_that_had_it,
    revoked_by_hand_counts_like_any_other,
    the_command_line_revokes_and_a_running_server_follows_and_logs,
);

const API1: &str = "https://api1.test";

/// The clients `basic-client` and `other-client`, and `rs1`, which introspects.
struct World {
    server: Server,
    basic_client: String,
    other_client: String,
    rs1: String,
}

impl World {
    async fn with(mut setup: Setup, clock: Clock) -> Self {
        setup.clock = clock;
        let rs1 = setup.client(client("rs1")).await;
        let introspectors = vec!["rs1".parse().unwrap()];
        let scope = "api:read api:write".parse().unwrap();
        let identifier = API1.parse().unwrap();
        setup
            .save(Resource {
                identifier,
                scope,
                alg: None,
                token_ttl: None,
                token_typ: grantd::model::resource::TokenTyp::default(),
                status_list: false,
                introspectors,
            })
            .await;
        let of_api1 = |id: &str| Client { resources: [API1.parse().unwrap()].into(), ..client(id) };
        let basic_client = setup.client(of_api1("basic-client")).await;
        let other_client = setup.client(of_api1("other-client")).await;
        Self { server: setup.start().await, basic_client, other_client, rs1 }
    }

    async fn new(db: Db) -> Self {
        Self::with(Setup::new(db).await, Clock::System).await
    }

    async fn token(&self) -> String {
        self.server.basic("basic-client", &self.basic_client, "").await.access_token()
    }

    async fn is_active(&self, token: &str) -> bool {
        self.is_active_at(&self.server, token).await
    }

    async fn is_active_at(&self, server: &Server, token: &str) -> bool {
        let answer = server.introspect("rs1", &self.rs1, token).await;
        if answer.json()["active"] == true {
            return true;
        }
        answer.inactive();
        false
    }

    async fn revoke(&self, token: &str) -> Answer {
        self.server.revoke("basic-client", &self.basic_client, token).await
    }
}

/// Number of revoked tokens in memory.
fn revoked_count(server: &AuthorizationServer) -> usize {
    server.registry.revoked.missing_from(&HashSet::new(), UnixTime(0)).len()
}

#[track_caller]
fn done(answer: &Answer) {
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, "{}"));
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), ("no-store", "no-cache"));
}

async fn the_revocation_form_follows_the_rules_of_a_token_request(db: Db) {
    let world = World::new(db).await;
    let get = world.server.get("/revoke").await;
    assert_eq!((get.status, get.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    let token = world.token().await;
    world.server.post_to("/revoke", &[], format!("token={token}")).await.unauthorized();
    world.server.revoke("basic-client", "wrong", &token).await.unauthorized();
    let authorization = basic("basic-client", &world.basic_client);
    let ask = async |form: String| world.server.post_to("/revoke", &[("authorization", &authorization)], form).await;
    for form in [String::new(), "token=".into(), format!("token={token}&token={token}")] {
        ask(form).await.error("invalid_request");
    }
    assert!(world.is_active(&token).await);
    for extra in
        ["token_type_hint=refresh_token", "token_type_hint=foo", "callback=evil", "token_type_hint=access_token"]
    {
        let token = world.token().await;
        done(&ask(format!("token={token}&{extra}")).await);
        assert!(!world.is_active(&token).await, "{extra}");
    }
    // A secret in the body is as good.
    let form = format!("client_id=basic-client&client_secret={}&token={token}", world.basic_client);
    done(&world.server.post_to("/revoke", &[], form).await);
    assert!(!world.is_active(&token).await);
}

async fn a_revoked_token_is_inactive_at_once_and_within_a_second_everywhere(db: Db) {
    let world = World::new(db).await;
    let replica = world.server.replica().await;
    let (token, other) = (world.token().await, world.token().await);
    assert!(world.is_active_at(&replica, &token).await);
    done(&world.revoke(&token).await);
    let revoked_at = Instant::now();
    assert!(!world.is_active(&token).await, "at once where it was revoked");
    while world.is_active_at(&replica, &token).await {
        assert!(revoked_at.elapsed() < Duration::from_secs(1), "within a second on every replica");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(world.is_active(&other).await && world.is_active_at(&replica, &other).await);
    // New rows are read, not all again.
    done(&world.revoke(&other).await);
    world.server.refresh().await;
    assert_eq!(revoked_count(&world.server.server), 2);
}

async fn revoking_a_token_that_is_not_live_succeeds(db: Db) {
    let (clock, hand) = Clock::fixed(1_700_000_000);
    let world = World::with(Setup::new(db).await, clock).await;
    let token = world.token().await;
    done(&world.revoke(&token).await);
    done(&world.revoke(&token).await);
    for garbage in ["garbage", "a.b.c", &token[..token.len() - 1], &format!("{token}x"), &"x".repeat(15_000)] {
        done(&world.revoke(garbage).await);
    }
    let token = world.token().await;
    hand.store(1_700_003_600, std::sync::atomic::Ordering::Relaxed);
    done(&world.revoke(&token).await);
    assert_eq!(revoked_count(&world.server.server), 1);
}

async fn every_type_of_token_can_be_revoked(db: Db) {
    let world = World::new(db).await;
    let authorization = basic("basic-client", &world.basic_client);
    // The types of RFC 7009 and RFC 8693, and some that are none.
    let hints = [
        "access_token",
        "refresh_token",
        "id_token",
        "pat",
        "urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt",
        "urn:ietf:params:oauth:token-type:saml2",
        "ACCESS_TOKEN",
        "%20",
        "",
    ];
    for hint in hints {
        let token = world.token().await;
        let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { unreachable!() };
        let opaque = "tGzv3JOkF0XG5Qx2TlKWIA";
        for token in [
            opaque,
            &format!("{header}.{claims}."),
            &format!("{header}.e30.{signature}"),
            "a.b.c.d.e",
            &*token,
            &*token,
        ] {
            let form = format!("token={token}&token_type_hint={hint}");
            let answer = world.server.post_to("/revoke", &[("authorization", &authorization)], form).await;
            assert!(!answer.body.contains("unsupported_token_type"), "{hint}: {}", answer.body);
            done(&answer);
        }
        assert!(!world.is_active(&token).await, "{hint}");
    }
}

async fn a_client_cannot_revoke_the_token_of_another(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    for (id, secret) in [("other-client", &world.other_client), ("rs1", &world.rs1)] {
        world.server.revoke(id, secret, &token).await.error("invalid_grant");
        assert!(world.is_active(&token).await);
    }
    // What is no token is nobody's.
    done(&world.server.revoke("other-client", &world.other_client, &token[..token.len() - 4]).await);
    assert!(world.is_active(&token).await);
}

async fn without_the_database_no_revocation_is_acknowledged(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    world.server.db.sql("alter table revoked_token rename to away").await.unwrap();
    let answer = world.revoke(&token).await;
    answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    assert!(!answer.header("retry-after").is_empty());
    assert!(world.is_active(&token).await);
    world.server.db.sql("alter table away rename to revoked_token").await.unwrap();
    assert!(world.is_active(&token).await);
    done(&world.revoke(&token).await);
    assert!(!world.is_active(&token).await);
}

impl World {
    /// New tokens of `basic-client`, each with its `jti`.
    async fn tokens(&self, number: usize) -> Vec<(String, String)> {
        let mut tokens = Vec::new();
        for _ in 0..number {
            let answer = self.server.basic("basic-client", &self.basic_client, "").await;
            tokens.push((answer.access_token(), answer.token().1["jti"].as_str().unwrap().to_owned()));
        }
        tokens
    }

    /// The answers to concurrent requests to revoke these tokens.
    async fn revoke_at_once(&self, tokens: &[(String, String)]) -> Vec<Answer> {
        join_all(tokens.iter().map(|(token, _)| self.revoke(token))).await
    }

    /// The number of these tokens whose revocation another connection reads.
    async fn committed(&self, tokens: &[(String, String)]) -> usize {
        let store = &self.server.store;
        let found = join_all(tokens.iter().map(|(_, jti)| store.is_token_revoked(jti))).await;
        found.into_iter().filter(|found| *found.as_ref().unwrap()).count()
    }
}

async fn concurrent_revocations_share_few_statements(db: Db) {
    let world = World::new(db).await;
    let tokens = world.tokens(200).await;
    // A session that is about to commit keeps writers out, so that all requests arrive during the first write.
    let lock = keep_writers_out(&world.server.db).await;
    let before = world.server.store.queries.get();
    let mut revoking = std::pin::pin!(world.revoke_at_once(&tokens));
    assert!(tokio::time::timeout(Duration::from_millis(800), &mut revoking).await.is_err());
    drop(lock);
    let answers = revoking.await;
    let statements = world.server.store.queries.get() - before;
    answers.iter().for_each(done);
    // At least one for each 64 rows; the feed asks meanwhile, too.
    assert!((4..100).contains(&statements), "{statements} statements for 200 revocations");
    assert_eq!(world.committed(&tokens).await, 200);
    let replica = world.server.replica().await;
    assert_eq!((revoked_count(&world.server.server), revoked_count(&replica.server)), (200, 200));
    world.revoke_at_once(&tokens).await.iter().for_each(done);
}

/// Keeps writers of `revoked_token` waiting until the returned session is dropped.
async fn keep_writers_out(db: &Db) -> Box<dyn Send> {
    if db.is_postgres() {
        let mut other = sqlx::PgConnection::connect(&db.url).await.unwrap();
        sqlx::raw_sql("begin; lock table revoked_token in exclusive mode").execute(&mut other).await.unwrap();
        Box::new(other)
    } else {
        let mut other = sqlx::SqliteConnection::connect(&db.url).await.unwrap();
        sqlx::raw_sql("begin immediate").execute(&mut other).await.unwrap();
        Box::new(other)
    }
}

async fn a_revocation_is_acknowledged_once_its_row_is_committed(db: Db) {
    let world = World::new(db).await;
    let tokens = world.tokens(20).await;
    let lock = keep_writers_out(&world.server.db).await;
    let before = world.server.store.queries.get();
    let mut revoking = std::pin::pin!(world.revoke_at_once(&tokens));
    let mut still_waits = async || tokio::time::timeout(Duration::from_millis(10), &mut revoking).await.is_err();
    while world.server.store.queries.get() == before {
        assert!(still_waits().await, "answered before the write was sent");
    }
    // The write waits for the lock, and so does every answer.
    assert_eq!((world.committed(&tokens).await, world.is_active(&tokens[0].0).await), (0, true));
    assert!(still_waits().await);
    let done_so_far = TokenLabels { result: "done", reason: "revoked", method: "client_secret_basic" };
    assert_eq!(world.server.counts.revocations.get_or_create(&done_so_far).get(), 0);
    drop(lock);
    revoking.await.iter().for_each(done);
    assert_eq!((world.committed(&tokens).await, world.is_active(&tokens[0].0).await), (20, false));
    assert_eq!(world.server.counts.revocations.get_or_create(&done_so_far).get(), 20);
}

async fn a_batch_of_revocations_that_fails_is_acknowledged_to_no_client(db: Db) {
    let world = World::new(db).await;
    let tokens = world.tokens(20).await;
    world.server.db.sql("alter table revoked_token rename to away").await.unwrap();
    for answer in world.revoke_at_once(&tokens).await {
        answer.refusal(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
    }
    assert!(world.is_active(&tokens[0].0).await);
    world.server.db.sql("alter table away rename to revoked_token").await.unwrap();
    world.revoke_at_once(&tokens).await.iter().for_each(done);
    assert_eq!(world.committed(&tokens).await, 20);
}

async fn rows_and_memory_of_a_revocation_end_with_the_token(db: Db) {
    let world = World::new(db).await;
    let store = &world.server.store;
    for number in 0..10u8 {
        let id: TokenId = BASE64_URL_SAFE_NO_PAD.encode([number; 16]).parse().unwrap();
        store.revoke_token(&id, "basic-client", UnixTime(1000 + i64::from(number)), UnixTime(1)).await.unwrap();
        store.revoke_token(&id, "basic-client", UnixTime(9999), UnixTime(1)).await.unwrap();
    }
    world.server.refresh().await;
    assert_eq!(revoked_count(&world.server.server), 10);
    let many: Vec<String> = (0..1500).map(|number| format!("('{number:0>21}A', {})", 1000 + number % 5)).collect();
    let insert = format!("insert into revoked_token (jti, expires_at) values {}", many.join(", "));
    world.server.db.sql(&insert).await.unwrap();
    assert_eq!(store.sweep_revoked_tokens(UnixTime(1005)).await.unwrap(), 1505, "in more than one batch");
    assert_eq!(store.sweep_revoked_tokens(UnixTime(1005)).await.unwrap(), 0);
    world.server.refresh().await;
    world.server.server.registry.revoked.forget(UnixTime(1005));
    assert_eq!(revoked_count(&world.server.server), 5);
    // Another server knows those that are left.
    assert_eq!(revoked_count(&world.server.replica().await.server), 5);
}

async fn the_latest_of_all_cut_offs_decides(db: Db) {
    const START: i64 = 1_700_000_000;
    let (clock, hand) = Clock::fixed(START);
    let world = World::with(Setup::new(db).await, clock).await;
    let mut tokens = Vec::new();
    for second in 0..40 {
        hand.store(START + second, std::sync::atomic::Ordering::Relaxed);
        tokens.push(world.token().await);
    }
    let store = &world.server.store;
    let check = async |first_active: usize| {
        world.server.refresh().await;
        for (second, token) in tokens.iter().enumerate() {
            assert_eq!(world.is_active(token).await, second >= first_active, "{second} {first_active}");
        }
    };
    check(0).await;
    // The client's first, then a global one before it, then one behind it, then the client's behind that.
    assert!(store.revoke_tokens_of("basic-client", UnixTime(START + 9)).await.unwrap());
    check(10).await;
    store.revoke_all_tokens(UnixTime(START + 4)).await.unwrap();
    check(10).await;
    store.revoke_all_tokens(UnixTime(START + 19)).await.unwrap();
    check(20).await;
    assert!(store.revoke_tokens_of("basic-client", UnixTime(START + 29)).await.unwrap());
    check(30).await;
    // No earlier moment takes a later one back.
    assert!(store.revoke_tokens_of("basic-client", UnixTime(START)).await.unwrap());
    store.revoke_all_tokens(UnixTime(START)).await.unwrap();
    check(30).await;
    // Another client's cut-off is no matter, and there has to be a client.
    assert!(store.revoke_tokens_of("other-client", UnixTime(START + 100)).await.unwrap());
    assert!(!store.revoke_tokens_of("nobody", UnixTime(START + 100)).await.unwrap());
    check(30).await;
    // What an administrator changes besides leaves it alone.
    world
        .server
        .db
        .sql("update client set scope = 'api:read api:write api:more' where client_id = 'basic-client'")
        .await
        .unwrap();
    check(30).await;
}

async fn no_other_spelling_of_a_revoked_token_is_active(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut other = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, signature).unwrap();
    // ECDSA has a second signature for each: s and n - s.
    let order =
        base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, "_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE")
            .unwrap();
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let difference = i16::from(order[at]) - i16::from(other[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        other[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    let other = format!("{signed}.{}", base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, other));
    assert_ne!(other, token);
    assert!(world.is_active(&token).await && world.is_active(&other).await, "both verify");
    done(&world.revoke(&other).await);
    assert!(!world.is_active(&token).await && !world.is_active(&other).await);
    for spelling in [format!("{token}="), format!("%20{token}"), format!("{token}%0A"), token.to_uppercase()] {
        assert!(!world.is_active(&spelling).await, "{spelling}");
    }
}

async fn a_revocation_survives_a_restart_and_the_client_that_had_it(db: Db) {
    let world = World::new(db).await;
    let token = world.token().await;
    done(&world.revoke(&token).await);
    let replica = world.server.replica().await;
    assert!(!world.is_active_at(&replica, &token).await);
    world.server.store.delete_client("basic-client").await.unwrap();
    world.server.store.create_client(&client("basic-client"), None).await.unwrap();
    world.server.refresh().await;
    assert!(!world.is_active(&token).await);
}

async fn revoked_by_hand_counts_like_any_other(db: Db) {
    let world = World::new(db).await;
    let answer = world.server.basic("basic-client", &world.basic_client, "").await;
    let (token, jti) = (answer.access_token(), answer.token().1["jti"].as_str().unwrap().to_owned());
    let insert = |jti: &str| format!("insert into revoked_token (jti, expires_at) values ('{jti}', 9999999999)");
    for wrong in ["x", &jti[1..], &format!("{jti}A"), &format!("{}x", &jti[..21])] {
        let refused = world.server.db.sql(&insert(wrong)).await.unwrap_err().to_string();
        assert!(refused.contains("jti: as it stands in the token, 22 of A-Z a-z 0-9 _ -"), "{refused}");
    }
    world.server.db.sql(&insert(&jti)).await.unwrap();
    world.server.refresh().await;
    assert!(!world.is_active(&token).await);
    let token = world.token().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let cut = format!("update token_cutoff set not_before = {}", Clock::System.now().0 - 1);
    world.server.db.sql(&cut).await.unwrap();
    world.server.refresh().await;
    assert!(!world.is_active(&token).await);
    assert!(world.is_active(&world.token().await).await);
}

async fn the_command_line_revokes_and_a_running_server_follows_and_logs(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    let created = async |arguments: &[&str]| {
        let done = grantd.json(&[&["client", "create"], arguments, &["--json"]].concat()).await;
        done["client_secret"].as_str().unwrap().to_owned()
    };
    let rs1 = created(&["rs1"]).await;
    grantd.ok(&["resource", "create", API1, "--scope", "a", "--introspect-by", "rs1"]).await;
    let basic_client = created(&["basic-client", "--scope", "a", "--default-scope", "a", "--resource", API1]).await;
    let mut daemon = Daemon::start(grantd.command(&["serve"]), false).await;
    let authorization = basic("rs1", &rs1);
    let is_active = async |token: &str| {
        let fields = [("authorization", authorization.as_str())];
        daemon.post("/introspect", &fields, format!("token={token}")).await.json()["active"] == true
    };
    let token = async || daemon.token("basic-client", &basic_client).await.access_token();
    let is_cut_off = async |token: &str| {
        assert!(!eventually(async || is_active(token).await, |active| !active).await);
    };
    // What is issued in the second of a cut-off is cut off, too.
    let live = async || {
        eventually(
            async || {
                let token = token().await;
                is_active(&token).await.then_some(token)
            },
            Option::is_some,
        )
        .await
        .unwrap()
    };
    let (one, other) = (live().await, live().await);
    let done = grantd.run_with_input(&["token", "revoke"], &format!("{one}\n")).await;
    assert!(done.status.success() && done.stderr.contains("until they expire"), "{done:?}");
    is_cut_off(&one).await;
    assert!(is_active(&other).await);
    grantd.ok(&["client", "revoke-tokens", "basic-client"]).await;
    is_cut_off(&other).await;
    let third = live().await;
    grantd.ok(&["token", "revoke-all", "--now"]).await;
    is_cut_off(&third).await;
    let fourth = live().await;
    let refused = grantd.run(&["token", "revoke-all"]).await;
    assert_eq!(refused.status.code(), Some(2), "it has to be meant");
    for (token, fault) in
        [(&one, "it was revoked"), (&other, "of client basic-client issued until"), (&third, "all tokens issued until")]
    {
        let explained = grantd.run_with_input(&["token", "inspect"], token).await;
        assert!(explained.status.code() == Some(1) && explained.stdout.contains(fault), "{explained:?}");
    }
    assert!(grantd.run_with_input(&["token", "inspect"], &fourth).await.status.success());
    let nothing = grantd.run_with_input(&["token", "revoke"], "garbage").await;
    assert!(nothing.status.code() == Some(1) && nothing.stderr.contains("nothing to revoke"), "{nothing:?}");
    let missing = grantd.run(&["client", "revoke-tokens", "nobody"]).await;
    assert!(missing.status.code() == Some(1) && missing.stderr.contains("there is no client nobody"), "{missing:?}");
    assert!(is_active(&fourth).await);
    let cb_authorization = basic("basic-client", &basic_client);
    let revoked = daemon.post("/revoke", &[("authorization", &cb_authorization)], format!("token={fourth}")).await;
    done_over_a_socket(&revoked);
    let refused = daemon.post("/revoke", &[("authorization", "Basic eDp5")], format!("token={fourth}")).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(!is_active(&fourth).await);

    let reasons = |event: &str| -> Vec<String> {
        daemon.events(event).iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect()
    };
    let told = reasons("introspection");
    for reason in ["active", "token_revoked", "token_cut_off"] {
        assert!(told.iter().any(|one| one == reason), "{reason}: {told:?}");
    }
    let revocations = eventually(async || reasons("revocation"), |reasons| reasons.len() == 2).await;
    assert_eq!(revocations, ["revoked", "unknown_client"]);
    let entry = &daemon.events("introspection")[0];
    assert_eq!((&entry["client_id"], &entry["token_client_id"]), (&"rs1".into(), &"basic-client".into()));
    assert!(entry["jti"].is_string() && entry["duration_us"].is_number(), "{entry}");
    let lines = [daemon.events("introspection"), daemon.events("revocation")].concat();
    assert!(!lines.iter().any(|entry| entry.to_string().contains(&fourth)), "no token in a log line");
    let metrics = daemon.admin_get("/metrics").await.body;
    for counted in ["grantd_introspections_total{result=\"active\"", "grantd_revocations_total{result=\"done\""] {
        assert!(metrics.contains(counted), "{counted}");
    }
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

#[track_caller]
fn done_over_a_socket(answer: &Answer) {
    done(answer);
    assert_eq!(answer.header("content-length"), "2");
}
