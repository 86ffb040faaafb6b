//! Status lists: revocation for APIs that verify tokens by themselves.

mod histories;

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd::model::client::Client;
use grantd::model::resource::Resource;
use grantd::model::time::{Clock, UnixTime};
use grantd::protocol::status_list::claim;
use miniz_oxide::inflate::decompress_to_vec_zlib;
use serde_json::{Value, json};

use crate::harness::{Answer, Db, ISS, Server, Setup, client};
use crate::introspection;
use crate::process::daemon::Grantd;

on_both!(
    a_token_refers_to_the_list_where_its_resource_has_opted_in,
    a_list_is_a_signed_jwt_and_no_token,
    a_list_grows_old_in_the_open_while_the_database_is_away,
    a_change_is_in_the_list_of_every_replica_within_a_second,
    the_list_is_signed_anew_when_its_key_is_removed,
    a_new_index_is_in_range_and_zero_in_lists_that_are_cached,
    a_cut_off_of_all_tokens_sets_every_bit_and_begins_another_list,
    an_epoch_ends_by_a_revocation_and_by_nothing_else,
    the_list_is_served_to_anybody_in_one_form,
    the_list_is_built_when_it_changes_or_half_its_ttl_is_over,
    tokens_that_were_revoked_one_by_one_are_listed_until_they_end,
    the_reserved_claim_of_an_older_client_gives_way,
    a_restored_database_revives_no_token,
    a_restore_that_loses_a_cut_off_of_all_tokens_revives_none,
);

pub const API: &str = "https://api.test";

/// Servers with the client `app`, its resource, which has opted in, and `rs`, which introspects.
pub struct World {
    pub servers: Vec<Server>,
    pub app: String,
    pub rs: String,
}

pub fn of_api(id: &str) -> Client {
    Client { resources: [API.parse().unwrap()].into(), ..client(id) }
}

fn resource(identifier: &str, status_list: bool) -> Resource {
    Resource { status_list, ..introspection::resource(identifier, &["rs"]) }
}

impl World {
    pub async fn of(db: Db, replicas: usize) -> Self {
        Self::with(Setup::new(db).await, replicas).await
    }

    async fn with(mut setup: Setup, replicas: usize) -> Self {
        setup.settings.token.status_ttl = "2s".into();
        let rs = setup.client(client("rs")).await;
        setup.save(resource(API, true)).await;
        let app = setup.client(of_api("app")).await;
        let mut servers = vec![setup.start().await];
        for _ in 1..replicas {
            let replica = servers[0].replica().await;
            servers.push(replica);
        }
        for server in &servers {
            list_of(server, "1").await;
        }
        Self { servers, app, rs }
    }

    pub fn first(&self) -> &Server {
        &self.servers[0]
    }

    /// The program, with the sealing key of the servers.
    fn program(&self) -> Grantd {
        let file = self.first().db.file("sealing.key", &self.first().sealing_key);
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        Grantd::new(&self.first().db).with("GRANTD__ISSUER", ISS)
    }

    pub async fn token(&self) -> String {
        self.first().basic("app", &self.app, "").await.access_token()
    }

    pub async fn is_active(&self, server: &Server, token: &str) -> bool {
        server.introspect("rs", &self.rs, token).await.json()["active"] == true
    }

    pub async fn refresh(&self) {
        for server in &self.servers {
            server.refresh().await;
        }
    }
}

/// Header or claims of a JWT.
pub fn part(jwt: &str, number: usize) -> Value {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(jwt.split('.').nth(number).unwrap()).unwrap()).unwrap()
}

/// The path of the list that a token refers to, and its index there.
pub fn reference(token: &str) -> (String, usize) {
    let status = part(token, 1)["status"]["status_list"].clone();
    let path = status["uri"].as_str().unwrap().strip_prefix(ISS).unwrap().to_owned();
    (path, usize::try_from(status["idx"].as_u64().unwrap()).unwrap())
}

/// The list of this name, once it is built.
pub async fn list_of(server: &Server, name: &str) -> Answer {
    let started = Instant::now();
    loop {
        let answer = server.get(&format!("/token-status/{name}")).await;
        if answer.status == 200 {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{} {}", answer.status, answer.body);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn bits_of(list: &Answer) -> Vec<u8> {
    let compressed = part(&list.body, 1)["status_list"]["lst"].as_str().unwrap().to_owned();
    decompress_to_vec_zlib(&BASE64_URL_SAFE_NO_PAD.decode(compressed).unwrap()).unwrap()
}

pub fn bit(bits: &[u8], index: usize) -> bool {
    bits[index / 8] >> (index % 8) & 1 == 1
}

/// Whether the list says that a token is revoked. A list that is not served says nothing.
pub async fn is_listed(server: &Server, token: &str) -> bool {
    let (path, index) = reference(token);
    let list = server.get(&path).await;
    let jti = part(token, 1)["jti"].clone();
    let has = |list: &Answer| part(&list.body, 1)["revoked_jti"].as_array().unwrap().contains(&jti);
    list.status == 200 && (bit(&bits_of(&list), index) || has(&list))
}

pub async fn within(most: Duration, what: &str, asked: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !asked().await {
        assert!(started.elapsed() < most, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const SECOND: Duration = Duration::from_secs(1);

async fn a_token_refers_to_the_list_where_its_resource_has_opted_in(db: Db) {
    let world = World::of(db, 1).await;
    let grantd = world.program();
    let token = world.token().await;
    let claims = part(&token, 1);
    let idx = claims["status"]["status_list"]["idx"].as_u64().unwrap();
    assert_eq!(claims["status"], json!({"status_list": {"idx": idx, "uri": format!("{ISS}/token-status/1")}}));
    let told = world.first().introspect("rs", &world.rs, &token).await.json();
    assert_eq!(told["status"], claims["status"]);
    let again = part(&world.token().await, 1);
    assert_eq!(again["status"], claims["status"], "one index for a client and an epoch");
    // Opting out ends the claim in new tokens; the bits of others go on.
    grantd.ok(&["resource", "set", API, "--status-list", "false"]).await;
    assert_eq!(grantd.json(&["resource", "show", API, "--json"]).await["status_list"], false);
    world.refresh().await;
    assert_eq!(part(&world.token().await, 1).get("status"), None);
    world.first().store.set_client_enabled("app", false).await.unwrap();
    within(SECOND, "the bit is set", async || is_listed(world.first(), &token).await).await;
    let inspected = grantd.run_with_input(&["token", "inspect"], &token).await;
    assert!(!inspected.status.success() && inspected.stdout.contains("its status index has ended"), "{inspected:?}");
    // The default audience opts in by being registered.
    let secret = {
        let created = grantd.json(&["client", "create", "bare", "--scope", "api:read", "--json"]).await;
        created["client_secret"].as_str().unwrap().to_owned()
    };
    world.refresh().await;
    let bare = async || part(&world.first().basic("bare", &secret, "scope=api:read").await.access_token(), 1);
    assert_eq!(bare().await.get("status"), None);
    grantd.ok(&["resource", "create", ISS, "--scope", "", "--status-list"]).await;
    assert_eq!(grantd.json(&["resource", "show", ISS, "--json"]).await["status_list"], true);
    world.refresh().await;
    assert_eq!(bare().await["status"]["status_list"]["uri"], format!("{ISS}/token-status/1"));
    // Two clients, two indices.
    assert_ne!(bare().await["status"]["status_list"]["idx"], idx);
}

async fn a_list_is_a_signed_jwt_and_no_token(db: Db) {
    let world = World::of(db, 1).await;
    let before = Clock::System.now();
    let list = list_of(world.first(), "1").await;
    let (header, claims) = (part(&list.body, 0), part(&list.body, 1));
    let token = world.token().await;
    assert_eq!(
        header,
        json!({"typ": "statuslist+jwt", "alg": "ES256", "kid": part(&token, 0)["kid"]}),
        "the key that signs tokens"
    );
    let kid = header["kid"].as_str().unwrap();
    let key = world.first().server.keyring.published(kid, before).unwrap();
    assert!(key.verifies(&list.body) && world.first().get("/jwks").await.body.contains(kid));
    let iat = claims["iat"].as_i64().unwrap();
    assert!((before.0 - 4..=Clock::System.now().0).contains(&iat), "{iat}");
    assert_eq!(claims["exp"].as_i64().unwrap(), iat + 300, "at least five minutes");
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["ttl"], &claims["status_list"]["bits"]),
        (&json!(ISS), &json!(format!("{ISS}/token-status/1")), &json!(2), &json!(1))
    );
    // Never accepted as something else.
    let as_token = list.body.clone();
    assert!(!world.is_active(world.first(), &as_token).await);
    let bearer = format!("Bearer {as_token}");
    let verified = Request::get(format!("/verify?resource={API}")).header("authorization", bearer);
    assert_eq!(world.first().send(verified.body(Body::empty()).unwrap()).await.status, 401);
    let form = format!(
        "grant_type=client_credentials&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_assertion={as_token}"
    );
    assert_eq!(world.first().post(&[], form).await.status, 401);
}

async fn a_list_grows_old_in_the_open_while_the_database_is_away(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.registry.max_stale = "6s".into();
    let world = World::with(setup, 1).await;
    let server = world.first();
    server.db.sql("alter table registry_revision rename to away").await.unwrap();
    within(3 * SECOND, "the registry is stale", async || server.server.registry.age() > Some(SECOND / 2)).await;
    let iat = part(&list_of(server, "1").await.body, 1)["iat"].as_i64().unwrap();
    tokio::time::sleep(3 * SECOND).await;
    let list = server.get("/token-status/1").await;
    let later = part(&list.body, 1)["iat"].as_i64().unwrap();
    assert!(later <= iat + 1, "nothing was confirmed since: {iat} {later}");
    within(6 * SECOND, "past max_stale", async || server.get("/token-status/1").await.status == 503).await;
    assert_eq!(server.get("/token-status").await.status, 503);
    server.db.sql("alter table away rename to registry_revision").await.unwrap();
    within(6 * SECOND, "confirmed again", async || {
        let list = server.get("/token-status/1").await;
        list.status == 200 && part(&list.body, 1)["iat"].as_i64().unwrap() > later
    })
    .await;
    // max-age ends with exp.
    let lists = server.server.status_lists.published().unwrap();
    let exp = part(&list_of(server, "1").await.body, 1)["exp"].as_i64().unwrap();
    let max_age = |now| lists.max_age(server.server.status_lists.ttl, UnixTime(now));
    assert_eq!([max_age(exp - 100), max_age(exp - 1), max_age(exp), max_age(exp + 9)], [2, 1, 0, 0]);
    let fresh = grantd::protocol::status_list::StatusLists::new(server.server.status_lists.ttl);
    assert!(fresh.published().is_none(), "503 before the first read");
}

async fn a_change_is_in_the_list_of_every_replica_within_a_second(db: Db) {
    let world = World::of(db, 3).await;
    let grantd = world.program();
    let server = world.first();
    for change in
        ["update client set enabled = 0 where client_id = 'app'", "", "delete from client where client_id = 'app'"]
    {
        let token = world.token().await;
        for replica in &world.servers {
            assert!(!is_listed(replica, &token).await && world.is_active(replica, &token).await);
        }
        match change {
            "" => drop(grantd.ok(&["client", "revoke-tokens", "app"]).await),
            sql => server.db.sql(sql).await.unwrap(),
        }
        let changed = Instant::now();
        for replica in &world.servers {
            within(SECOND.saturating_sub(changed.elapsed()), change, async || is_listed(replica, &token).await).await;
            assert!(!world.is_active(replica, &token).await);
        }
        if change.starts_with("update") {
            server.store.set_client_enabled("app", true).await.unwrap();
            world.refresh().await;
        }
    }
    // One token, at the replica that was asked and at the others.
    let secret = grantd.json(&["client", "create", "app2", "--scope", "api:read", "--resource", API, "--json"]).await;
    let secret = secret["client_secret"].as_str().unwrap();
    world.refresh().await;
    let token = server.basic("app2", secret, "scope=api:read").await.access_token();
    assert_eq!(server.revoke("app2", secret, &token).await.status, 200);
    let revoked = Instant::now();
    for replica in &world.servers {
        within(SECOND.saturating_sub(revoked.elapsed()), "jti", async || is_listed(replica, &token).await).await;
    }
}

async fn the_list_is_signed_anew_when_its_key_is_removed(db: Db) {
    let world = World::of(db, 2).await;
    let kid = async |server: &Server| part(&list_of(server, "1").await.body, 0)["kid"].clone();
    let before = kid(world.first()).await;
    let under = grantd::crypto::seal::SealingKey::from_base64(&world.first().sealing_key).unwrap();
    let now = world.first().store.now().await.unwrap();
    let successor =
        grantd::store::keys::new_key("ES256".parse().unwrap(), &under, now, grantd::model::time::Span::from_secs(0));
    let removed = world.first().store.remove_key(before.as_str().unwrap(), Some(&successor.unwrap())).await.unwrap();
    assert!(removed);
    let changed = Instant::now();
    for replica in &world.servers {
        within((2 * SECOND).saturating_sub(changed.elapsed()), "another key", async || kid(replica).await != before)
            .await;
    }
}

async fn a_new_index_is_in_range_and_zero_in_lists_that_are_cached(db: Db) {
    let world = World::of(db, 1).await;
    let server = world.first();
    let cached = bits_of(&list_of(server, "1").await);
    assert_eq!(cached.len(), 1 << 17, "2^20 indices from the beginning");
    let mut seen = Vec::new();
    for _ in 0..3 {
        let (path, index) = reference(&world.token().await);
        assert!(path == "/token-status/1" && !bit(&cached, index) && !seen.contains(&index), "{index} {seen:?}");
        seen.push(index);
        server.db.sql("update client set enabled = 1 - enabled where client_id = 'app'").await.unwrap();
        server.db.sql("update client set enabled = 1 - enabled where client_id = 'app'").await.unwrap();
        world.refresh().await;
    }
    // Rows of ended epochs outlive every token, and their bits.
    let now = server.store.now().await.unwrap();
    let ended = async || {
        let mut reader = server.store.reader().await.unwrap();
        let ended = reader.all_but_clients().await.unwrap().ended.len();
        reader.close().await;
        ended
    };
    assert_eq!(ended().await, 6);
    server.store.sweep_revoked_tokens(UnixTime(now.0 + 86_400 + 60)).await.unwrap();
    assert_eq!(ended().await, 6);
    server.store.sweep_revoked_tokens(UnixTime(now.0 + 2 * 86_400 + 60)).await.unwrap();
    assert_eq!(ended().await, 0);
    // Close to the end of a list, the next one is there before an index of it is.
    server.db.sql("update client set status_index = 1048575 - 100 where client_id = 'app'").await.unwrap();
    world.refresh().await;
    let lists = async || server.get("/token-status").await.json()["status_lists"].as_array().unwrap().len();
    within(SECOND, "a list ahead", async || lists().await == 2).await;
    assert!(bits_of(&list_of(server, "2").await).iter().all(|byte| *byte == 0));
    server.db.sql("update client set status_index = 1048576 + 5 where client_id = 'app'").await.unwrap();
    world.refresh().await;
    assert_eq!(reference(&world.token().await), ("/token-status/2".to_owned(), 5));
}

async fn a_cut_off_of_all_tokens_sets_every_bit_and_begins_another_list(db: Db) {
    let world = World::of(db, 2).await;
    let grantd = world.program();
    let old = world.token().await;
    for _ in 0..2 {
        let before = world.token().await;
        grantd.ok(&["token", "revoke-all", "--now"]).await;
        let changed = Instant::now();
        for replica in &world.servers {
            within(SECOND.saturating_sub(changed.elapsed()), "all", async || {
                is_listed(replica, &before).await && is_listed(replica, &old).await
            })
            .await;
            assert!(!world.is_active(replica, &old).await && !world.is_active(replica, &before).await);
        }
        // Also of the same second: a new token has an index of another list.
        let new = world.token().await;
        for replica in &world.servers {
            assert!(world.is_active(replica, &new).await && !is_listed(replica, &new).await);
        }
        assert_ne!(reference(&new).0, reference(&before).0);
    }
    assert!(bits_of(&list_of(world.first(), "1").await).iter().all(|byte| *byte == u8::MAX));
    let lists = world.first().get("/token-status").await.json();
    let (path, _) = reference(&world.token().await);
    assert!(lists["status_lists"].as_array().unwrap().contains(&json!(format!("{ISS}{path}"))), "{lists}");
    assert!(lists["status_lists"].as_array().unwrap().contains(&json!(format!("{ISS}/token-status/1"))), "{lists}");
    assert_eq!(claim::name(path.rsplit('/').next().unwrap()).unwrap().to_string(), path.rsplit('/').next().unwrap());
}

async fn an_epoch_ends_by_a_revocation_and_by_nothing_else(db: Db) {
    let world = World::of(db, 1).await;
    let server = world.first();
    let index = async || {
        world.refresh().await;
        reference(&world.token().await).1
    };
    let app = "where client_id = 'app'";
    let present = index().await;
    for same in [
        "update client set enabled = 1".to_owned(),
        "update client set not_before = not_before".to_owned(),
        format!("update client set scope = 'api:read api:write api:more' {app}"),
        format!("update client set grant_types = '' {app}"),
        format!("update client set grant_types = 'client_credentials', expires_at = 99999999999 {app}"),
        format!("update client set expires_at = null {app}"),
        "update token_cutoff set not_before = 0".to_owned(),
        "update resource set status_list = 0; update resource set status_list = 1".to_owned(),
        format!("begin; update client set enabled = 0 {app}; rollback"),
    ] {
        server.db.sql(&same).await.unwrap();
        world.refresh().await;
        if !same.contains("grant_types = ''") {
            assert_eq!(index().await, present, "{same}");
        }
    }
    let mut seen = vec![present];
    for end in [
        format!("update client set enabled = 0 {app}; update client set enabled = 1 {app}"),
        format!("begin; update client set enabled = 0 {app}; update client set enabled = 1 {app}; commit"),
        format!("update client set not_before = not_before + 1 {app}"),
        format!("update client set expires_at = 1 {app}; update client set expires_at = null {app}"),
        "update client set enabled = 0; update client set enabled = 1".to_owned(),
    ] {
        let token = world.token().await;
        server.db.sql(&end).await.unwrap();
        let next = index().await;
        assert!(!seen.contains(&next), "{end}");
        seen.push(next);
        within(SECOND, &end, async || is_listed(server, &token).await).await;
        assert!(!world.is_active(server, &token).await, "{end}");
    }
    // An end that comes by itself is in the list, too; moved afterwards, it revives nothing.
    let token = world.token().await;
    let soon = server.store.now().await.unwrap().0 + 2;
    server.db.sql(&format!("update client set expires_at = {soon} {app}")).await.unwrap();
    world.refresh().await;
    assert!(world.is_active(server, &token).await && !is_listed(server, &token).await);
    within(3 * SECOND, "its time is over", async || !world.is_active(server, &token).await).await;
    within(SECOND, "its bit is set", async || is_listed(server, &token).await).await;
    server.db.sql(&format!("update client set expires_at = null {app}")).await.unwrap();
    assert!(!seen.contains(&index().await));
    assert!(is_listed(server, &token).await && !world.is_active(server, &token).await);
    // A cut-off in the future would end every epoch to come.
    assert!(server.db.sql("update client set not_before = 99999999999").await.is_err());
}

async fn the_list_is_served_to_anybody_in_one_form(db: Db) {
    let world = World::of(db, 1).await;
    let server = world.first();
    let ask = async |method: &str, path: &str, fields: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        server.send(request.body(Body::empty()).unwrap()).await
    };
    for accept in [
        "application/statuslist+jwt",
        "*/*",
        "text/html",
        "application/statuslist+cwt, */*;q=0.1",
        "application/statuslist+cwt;q=0",
        "",
    ] {
        let list = ask("GET", "/token-status/1", &[("accept", accept)]).await;
        assert_eq!(
            (list.status.as_u16(), list.header("content-type")),
            (200, "application/statuslist+jwt"),
            "{accept}"
        );
        assert_eq!(list.header("cache-control"), "public, max-age=2");
        assert_eq!(list.header("access-control-allow-origin"), "*");
    }
    for accept in ["application/statuslist+cwt", "Application/StatusList+CWT;q=0.5, application/statuslist+jwt;q=0.0, "]
    {
        assert_eq!(ask("GET", "/token-status/1", &[("accept", accept)]).await.status, 406, "{accept}");
    }
    for query in ["time=1", "time=", "time", "a=b&time=1700000000"] {
        let answer = ask("GET", &format!("/token-status/1?{query}"), &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "{query}");
    }
    assert_eq!(ask("GET", "/token-status/1?times=1", &[]).await.status, 200);
    for path in ["/token-status/0", "/token-status/01", "/token-status/x", "/token-status/-1", "/token-status/77"] {
        assert_eq!(ask("GET", path, &[]).await.status, 404, "{path}");
    }
    for path in ["/token-status/1", "/token-status"] {
        let post = ask("POST", path, &[]).await;
        assert_eq!(post.status, 405);
        assert!(post.header("allow").contains("GET") && post.header("allow").contains("OPTIONS"), "{post:?}");
    }
    for path in ["/token-status/1", "/token-status", "/jwks", "/.well-known/oauth-authorization-server"] {
        let preflight = [("origin", "https://page.test"), ("access-control-request-method", "GET")];
        let answer = ask("OPTIONS", path, &preflight).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (204, "*"), "{path}");
        let got = ask("GET", path, &[("origin", "https://page.test")]).await;
        assert_eq!(got.header("access-control-allow-origin"), "*", "{path}");
        let known = ask("GET", path, &[("if-none-match", got.header("etag"))]).await;
        // The list may have been signed anew in between.
        assert!(known.status == 304 && known.body.is_empty() || known.header("etag") != got.header("etag"), "{path}");
        let head = ask("HEAD", path, &[]).await;
        assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""), "{path}");
    }
    let metadata = server.get("/.well-known/oauth-authorization-server").await.json();
    assert_eq!(metadata["status_list_aggregation_endpoint"], format!("{ISS}/token-status"));
    let aggregation = server.get("/token-status").await;
    assert_eq!(aggregation.json(), json!({"status_lists": [format!("{ISS}/token-status/1")]}));
    assert_eq!(aggregation.header("content-type"), "application/json");
}

async fn the_list_is_built_when_it_changes_or_half_its_ttl_is_over(db: Db) {
    let mut setup = Setup::new(db).await;
    setup.settings.token.status_ttl = "1h".into();
    let rs = setup.client(client("rs")).await;
    setup.save(resource(API, true)).await;
    let app = setup.client(of_api("app")).await;
    let world = World { servers: vec![setup.start().await], app, rs };
    let server = world.first();
    let etag = list_of(server, "1").await.header("etag").to_owned();
    // Requests, tokens and changes of other things build nothing.
    for _ in 0..3 {
        let token = world.token().await;
        assert!(world.is_active(server, &token).await);
        server.db.sql("update client set scope = scope").await.unwrap();
        world.refresh().await;
    }
    assert!(!server.server.build_status_lists(true), "there is nothing to build");
    assert_eq!(server.get("/token-status/1").await.header("etag"), etag);
    server.store.set_client_enabled("app", false).await.unwrap();
    within(SECOND, "built", async || server.get("/token-status/1").await.header("etag") != etag).await;
    // A short ttl has it signed again, with a later iat.
    let world = World::of(Db::sqlite(), 1).await;
    let iat = async || part(&list_of(world.first(), "1").await.body, 1)["iat"].as_i64().unwrap();
    let before = iat().await;
    within(3 * SECOND, "signed again", async || iat().await > before).await;
}

async fn tokens_that_were_revoked_one_by_one_are_listed_until_they_end(db: Db) {
    let world = World::of(db, 1).await;
    let grantd = world.program();
    let server = world.first();
    let now = server.store.now().await.unwrap().0;
    let rows = format!(
        "insert into revoked_token (jti, expires_at) values ('000000000000000000000A', {}), ('000000000000000000001A', {}),
         ('000000000000000000002A', {})",
        now - 70,
        now - 50,
        now + 100
    );
    server.db.sql(&rows).await.unwrap();
    let listed = async || part(&list_of(server, "1").await.body, 1)["revoked_jti"].clone();
    let wanted = json!(["000000000000000000001A", "000000000000000000002A"]);
    within(SECOND, "until a minute after the end", async || listed().await == wanted).await;
    let many: Vec<String> = (0..10_001).map(|number| format!("('{number:0>21}Q', {})", now + 3000)).collect();
    for rows in many.chunks(1000) {
        let insert = format!("insert into revoked_token (jti, expires_at) values {}", rows.join(", "));
        server.db.sql(&insert).await.unwrap();
    }
    let doctor = grantd.run(&["doctor", "--json"]).await.stdout;
    let doctor: Value = serde_json::from_str(&doctor).unwrap();
    let advice = doctor["advice"].to_string();
    assert!(advice.contains("status list: it has the ids of 10002 revoked tokens"), "{advice}");
    within(5 * SECOND, "all", async || listed().await.as_array().unwrap().len() == 10_003).await;
}

async fn the_reserved_claim_of_an_older_client_gives_way(db: Db) {
    let world = World::of(db, 1).await;
    let grantd = world.program();
    let server = world.first();
    let refused = server.db.sql(r#"update client set claims = '{"status":"gold"}' where client_id = 'app'"#).await;
    assert!(refused.unwrap_err().to_string().contains("claims: status is set by grantd"));
    let refused = grantd.run(&["client", "set", "app", "--claim", "status=\"gold\""]).await;
    assert!(!refused.status.success() && refused.stderr.contains("status"), "{refused:?}");
    let off = if server.db.is_postgres() {
        "drop trigger client_claims_status on client"
    } else {
        "drop trigger client_claims_status_on_update"
    };
    for (claims, without) in [
        (r#"{"status":"gold","team":"a"}"#, json!("gold")),
        (r#"{"status":{"status_list":{"idx":9,"uri":"https://as.test/token-status/1"}},"team":"a"}"#, Value::Null),
    ] {
        let sql = format!("update client set claims = '{claims}' where client_id = 'app'");
        server.db.sql(&if claims.contains("gold") { format!("{off}; {sql}") } else { sql }).await.unwrap();
        world.refresh().await;
        let token = world.token().await;
        let ours = part(&token, 1);
        assert!(ours["team"] == "a" && ours["status"]["status_list"]["idx"].is_u64(), "{ours}");
        assert_eq!(token.matches('.').count(), 2);
        assert!(world.is_active(server, &token).await, "no claim twice");
        server.db.sql("update resource set status_list = 0").await.unwrap();
        world.refresh().await;
        assert_eq!(part(&world.token().await, 1)["status"], without);
        server.db.sql("update resource set status_list = 1").await.unwrap();
    }
    let doctor = grantd.run(&["doctor"]).await;
    assert!(doctor.stdout.contains("client app: its further claim status is reserved"), "{doctor:?}");
}

/// Changes the database as `sql` says, and gives it another past.
async fn rewrite_the_past(server: &Server, sql: &str) {
    let revision = server.server.registry.snapshot().revision;
    let id = grantd::crypto::secret::new_secret_id().unwrap();
    let past = format!(
        "begin; {sql}; update registry_revision set revision = {revision}; update registry_revision set history = '{id}';
         delete from registry_history; insert into registry_history (revision, history) values ({revision}, '{id}'); commit"
    );
    server.db.sql(&past).await.unwrap();
}

async fn a_restored_database_revives_no_token(db: Db) {
    let world = World::of(db, 2).await;
    let server = world.first();
    let token = world.token().await;
    let backup = "create table dump as select * from client where client_id = 'app'";
    server.db.sql(backup).await.unwrap();
    server.store.set_client_enabled("app", false).await.unwrap();
    server.store.set_client_enabled("app", true).await.unwrap();
    within(SECOND, "it ended", async || is_listed(server, &token).await).await;
    world.refresh().await;
    let newer = world.token().await;
    // As if the database was what it had been.
    let restored = if server.db.is_postgres() {
        "set local session_replication_role = replica; delete from ended_status;
         update client set status_index = (select status_index from dump) where client_id = 'app'; set local session_replication_role = origin"
    } else {
        "delete from ended_status; drop trigger client_epoch_ended;
         update client set status_index = (select status_index from dump) where client_id = 'app'"
    };
    rewrite_the_past(server, restored).await;
    within(5 * SECOND, "the restore is noticed", async || server.server.registry.history_changes.get() > 0).await;
    for _ in 0..30 {
        for replica in &world.servers {
            assert!(is_listed(replica, &token).await && !world.is_active(replica, &token).await, "it stays dead");
        }
        tokio::time::sleep(SECOND / 20).await;
    }
    if server.db.is_postgres() {
        // What ended is written again, and no client has such an index.
        within(5 * SECOND, "the client has another index", async || {
            server.basic("app", &world.app, "").await.status == 200
        })
        .await;
        let fresh = world.token().await;
        assert!(![reference(&token).1, reference(&newer).1].contains(&reference(&fresh).1));
        world.refresh().await;
        let replica = server.replica().await;
        assert!(!world.is_active(&replica, &token).await, "a replica that starts learns of it");
    }
}

async fn a_restore_that_loses_a_cut_off_of_all_tokens_revives_none(db: Db) {
    let world = World::of(db, 2).await;
    let server = world.first();
    let old = world.token().await;
    server.store.revoke_all_tokens(server.store.now().await.unwrap()).await.unwrap();
    world.refresh().await;
    let newer = world.token().await;
    rewrite_the_past(server, "delete from ended_status; update token_cutoff set not_before = 0, status_list = 0").await;
    for replica in &world.servers {
        within(5 * SECOND, "the restore is noticed", async || replica.server.registry.history_changes.get() > 0).await;
        // The database counts from the old list again, and could not revoke a token of the newer one.
        within(5 * SECOND, "both lists have ended", async || is_listed(replica, &newer).await).await;
        assert!(is_listed(replica, &old).await);
        assert!(!world.is_active(replica, &old).await && !world.is_active(replica, &newer).await);
    }
    within(15 * SECOND, "a list of its own", async || server.basic("app", &world.app, "").await.status == 200).await;
    world.refresh().await;
    let fresh = world.token().await;
    assert!(![reference(&old).0, reference(&newer).0].contains(&reference(&fresh).0));
    for replica in &world.servers {
        assert!(world.is_active(replica, &fresh).await && !world.is_active(replica, &newer).await);
    }
}
