//! The database as its administrators set it up: search paths, isolation levels, policies, locks, other programs' tables,
//! and clocks that differ.

use std::time::{Duration, Instant};

use grantd::config::Config;
use grantd::model::time::{Clock, UnixTime};
use grantd::store::migrations::{MigrationError, MigrationOptions, Schema};
use grantd::store::ranges::RangeReader;
use grantd::store::{Database, Store, StoreError};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::harness::{Db, Setup, client};
use crate::process::daemon::{Daemon, Grantd, eventually};
use crate::process::schema_files;

on_both!(
    a_replica_whose_clock_is_wrong_says_so_and_forgets_nothing_early,
    a_cut_off_in_the_future_and_a_time_in_milliseconds_are_refused,
    a_database_of_another_program_is_left_alone,
    the_schema_of_a_development_version_is_adopted_whole_or_refused,
    a_write_that_fails_is_counted_and_told,
    a_server_waits_for_a_schema_that_is_on_its_way,
);

/// A session of an administrator, with settings of its own.
async fn administrator(db: &Db, settings: &str) -> PgConnection {
    let mut connection = PgConnection::connect(&db.url).await.unwrap();
    run(&mut connection, settings).await.unwrap();
    connection
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop)
}

/// The database with a schema of grantd's own, named in the URL.
fn in_schema(db: &Db, schema: &str) -> Database {
    let separator = if db.url.contains('?') { '&' } else { '?' };
    let options: PgConnectOptions = format!("{}{separator}options=-csearch_path%3D{schema}", db.url).parse().unwrap();
    Database::Postgres(Box::new(options.into()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_by_sql_counts_whatever_the_sessions_settings_are() {
    let mut db = Db::postgres().await;
    // An older copy stands where unqualified names would lead.
    db.store().await;
    db.sql("create schema auth").await.unwrap();
    db.database = in_schema(&db, "auth");
    let setup = Setup::new(db).await;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    server.basic("basic-client", &secret, "").await.ok();
    for settings in [
        "",
        "set search_path = pg_temp",
        "set search_path = ''",
        "set search_path = public; create temp table registry_revision (revision bigint)",
        "set standard_conforming_strings = off; set bytea_output = escape; set datestyle = 'SQL, DMY'; set timezone = 'Asia/Kathmandu'",
        "set default_transaction_isolation = 'serializable'",
        "set default_transaction_isolation = 'repeatable read'",
    ] {
        let mut session = administrator(&server.db, settings).await;
        for enabled in [0, 1] {
            run(&mut session, &format!("update auth.client set enabled = {enabled} where client_id = 'basic-client'"))
                .await
                .unwrap();
            let status = if enabled == 1 { 200 } else { 401 };
            let started = Instant::now();
            while server.basic("basic-client", &secret, "").await.status != status {
                assert!(started.elapsed() < Duration::from_secs(2), "{settings}: not in force");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        run(
            &mut session,
            "insert into auth.client (client_id) values ('made'); delete from auth.client where client_id = 'made'",
        )
        .await
        .unwrap();
        session.close().await.unwrap();
    }
    // Every function of ours is pinned, whatever is added later.
    let mut session = administrator(&server.db, "").await;
    let loose: Vec<(String,)> = sqlx::query_as(
        "select proname::text from pg_proc where pronamespace = 'auth'::regnamespace and proname like 'grantd%'
         and not coalesce(proconfig @> array['search_path=pg_catalog, pg_temp'], false)",
    )
    .fetch_all(&mut session)
    .await
    .unwrap();
    assert!(loose.is_empty(), "{loose:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_policy_hides_are_an_error_and_no_empty_registry() {
    let db = Db::postgres().await;
    db.store().await;
    let name = db.url.rsplit('/').next().unwrap().to_owned();
    let role = format!("r_{name}");
    db.sql(&format!(
        "create role {role} login; grant usage on schema public to {role};
         grant select, insert, update, delete on all tables in schema public to {role};
         insert into client (client_id) values ('hidden');"
    ))
    .await
    .unwrap();
    let url = db.url.replacen("postgres@", &format!("{role}@"), 1);
    assert_ne!(url, db.url, "the tests' server has no password");
    let store = Store::open(&Database::Postgres(Box::new(url.parse::<PgConnectOptions>().unwrap().into())), 2);
    assert_eq!(store.schema().await.unwrap(), Schema::Usable);
    assert!(store.tables_with_row_security().await.unwrap().is_empty());
    assert!(store.unreadable_tables().await.unwrap().is_empty());
    store.try_write().await.unwrap();

    db.sql("alter table client enable row level security").await.unwrap();
    let mut reader = store.reader().await.unwrap();
    let read = RangeReader::default().next(&mut reader).await;
    assert!(matches!(read, Err(StoreError::Denied(_))), "an empty registry would refuse everybody");
    assert_eq!(store.tables_with_row_security().await.unwrap(), ["client"]);
    let faults = store.unreadable_tables().await.unwrap();
    assert!(matches!(faults.as_slice(), [("client", StoreError::Denied(_))]), "{faults:?}");
    db.sql("alter table _grantd_migrations enable row level security").await.unwrap();
    assert!(matches!(store.schema().await, Err(StoreError::Denied(_))), "not: it lacks migrations");
    let doctor = Grantd::new(&db).with("GRANTD__DATABASE__URL", &url).run(&["doctor"]).await;
    assert!(doctor.status.code() != Some(0) && doctor.stderr.contains("row-level security"), "{doctor:?}");
    db.sql(&format!("drop owned by {role}; drop role {role}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_the_database_role_do_not_matter() {
    let db = Db::postgres().await;
    db.store().await;
    let name = db.url.rsplit('/').next().unwrap().to_owned();
    for setting in [
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = '500ms'",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "bytea_output = 'escape'",
        "datestyle = 'SQL, DMY'",
        "timezone = 'Asia/Kathmandu'",
        "standard_conforming_strings = off",
        "synchronous_commit = off",
    ] {
        db.sql(&format!("alter database {name} set {setting}")).await.unwrap();
    }
    let setup = Setup::new(db).await;
    let secret = setup.client(client("basic-client")).await;
    let server = setup.start().await;
    let mut revoking = Vec::new();
    for _ in 0..60 {
        revoking.push(server.basic("basic-client", &secret, "").await.access_token());
    }
    // All at once, each a transaction that raises the one revision.
    let revoked =
        futures_util::future::join_all(revoking.iter().map(|token| server.revoke("basic-client", &secret, token)))
            .await;
    assert!(revoked.iter().all(|answer| answer.status == 200), "{revoked:?}");
    let made = futures_util::future::join_all((0..12).map(|number| {
        let store = server.store.clone();
        async move { store.create_client(&client(&format!("c{number}")), None).await }
    }))
    .await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_holder_of_a_lock_is_named_and_no_outage_is_reported() {
    let db = Db::postgres().await;
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["client", "create", "basic-client"]).await;
    let mut open = administrator(&db, "set application_name = 'deploy script'").await;
    run(&mut open, "begin; update client set scope = 'a'").await.unwrap();
    let (pid,): (i32,) = sqlx::query_as("select pg_backend_pid()").fetch_one(&mut open).await.unwrap();
    let refused = grantd.run(&["client", "disable", "basic-client"]).await;
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    for part in [&format!("pid {pid}"), "deploy script", "idle in transaction", "since 20"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("unavailable"), "{}", refused.stderr);
    let doctor = grantd.run(&["doctor"]).await;
    assert!(doctor.stdout.contains(&format!("pid {pid}")), "{doctor:?}");
    // Migrating says whom it waits for, and gives up.
    run(&mut open, "lock table _grantd_migrations").await.unwrap();
    let migrate = grantd.run(&["migrate", "--lock-timeout", "3s"]).await;
    assert_eq!(migrate.status.code(), Some(69), "{migrate:?}");
    assert!(
        migrate.stderr.contains("migrating waits") && migrate.stderr.contains(&format!("pid {pid}")),
        "{migrate:?}"
    );
    open.close().await.unwrap();
}

async fn a_replica_whose_clock_is_wrong_says_so_and_forgets_nothing_early(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(client("basic-client")).await;
    setup.resource("https://api.test", "api:read").await;
    let server = setup.start().await;
    let ready = |server: &crate::harness::Server| server.server.readiness().into_iter().all(|(_, item)| item.is_ok());
    assert!(ready(&server));
    for (shift, is_ready) in [(20, true), (100, false), (-100, false)] {
        let apart = server.replica_at(Clock::Shifted(shift)).await;
        let ahead = apart.server.registry.clock_ahead();
        assert!((ahead - shift * 1000).abs() < 1500, "{shift} s: measured {ahead} ms");
        assert_eq!(ready(&apart), is_ready, "{shift} s: {:?}", apart.server.readiness());
        // What is over, and which key signs, is the database's to say.
        let (theirs, ours) = (apart.server.database_time(), Clock::System.now());
        assert!((theirs.0 - ours.0).abs() <= 2, "{theirs} is not {ours}");
    }
    let token = server.basic("basic-client", &secret, "").await.access_token();
    assert_eq!(server.revoke("basic-client", &secret, &token).await.status, 200);
    let now = server.store.now().await.unwrap();
    assert!((now.0 - Clock::System.now().0).abs() <= 2);
    assert_eq!(server.store.sweep_revoked_tokens(now).await.unwrap(), 0, "a live token's row stays");
}

async fn a_cut_off_in_the_future_and_a_time_in_milliseconds_are_refused(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(client("basic-client")).await;
    let store = setup.store.clone();
    let now = store.now().await.unwrap();
    let later = UnixTime(now.0 + 60);
    for refused in [store.revoke_tokens_of("basic-client", later).await.map(drop), store.revoke_all_tokens(later).await]
    {
        assert!(
            matches!(&refused, Err(StoreError::Refused(reason)) if reason.to_string().contains("not in the future")),
            "{refused:?}"
        );
    }
    assert!(store.revoke_tokens_of("basic-client", UnixTime(now.0 - 10)).await.unwrap());
    let milliseconds = now.0 * 1000;
    for sql in [
        format!("update client_secret set expires_at = {milliseconds}"),
        format!("update client_secret set created_at = {milliseconds}"),
        format!("update client_secret set revoked_at = {milliseconds}"),
        format!("update client set created_at = {milliseconds}"),
        "update client set created_at = -1".to_owned(),
        format!(
            "insert into spent_jti (kind, owner, jti, expires_at) values ('a', 'b', {}, {milliseconds})",
            if setup.db.is_postgres() { "'\\x00'" } else { "x'00'" }
        ),
        format!("insert into deleted_client (client_id, deleted_at) values ('gone', {milliseconds})"),
    ] {
        let error = setup.db.sql(&sql).await.expect_err(&sql).to_string();
        assert!(error.contains("seconds since 1970, not milliseconds"), "{sql}: {error}");
    }
    // A row from before the check stops its own client, instead of never expiring.
    let unchecked = if setup.db.is_postgres() {
        "alter table client_secret drop constraint \"expires_at: seconds since 1970, not milliseconds\""
    } else {
        "pragma ignore_check_constraints = on"
    };
    setup.db.sql(&format!("{unchecked}; update client_secret set expires_at = {milliseconds}")).await.unwrap();
    let server = setup.start().await;
    assert_ne!(server.basic("basic-client", &secret, "").await.status, 200);
    assert_eq!(server.server.registry.snapshot().malformed().len(), 1);
}

async fn a_database_of_another_program_is_left_alone(db: Db) {
    if let Database::Sqlite(path) = &db.database {
        std::fs::write(path, "").unwrap();
    }
    db.sql("create table orders (id bigint primary key); create table _sqlx_migrations (version bigint primary key)")
        .await
        .unwrap();
    let store = Store::open(&db.database, 2);
    let refused = store.migrate(&db.database, None).await;
    let Err(MigrationError::Shared { target, tables }) = refused else { panic!("{refused:?}") };
    assert!(
        tables == "_sqlx_migrations, orders"
            && target.starts_with(if db.is_postgres() { "postgres://127" } else { "sqlite:" }),
        "{target}: {tables}"
    );
    let done = Grantd::new(&db).run(&["migrate"]).await;
    assert_eq!(done.status.code(), Some(78), "{done:?}");
    assert!(done.stderr.contains("--into-shared-database") && done.stderr.contains("orders"), "{done:?}");
    assert_eq!(store.schema().await.unwrap(), Schema::Older { pending: schema_files() }, "nothing was made");
    if db.is_postgres() {
        db.sql("create schema auth").await.unwrap();
        let own = in_schema(&db, "auth");
        Store::open(&own, 2).migrate(&own, None).await.expect("a schema of our own needs no leave");
    }
    let terms = MigrationOptions { into_shared_database: true, ..MigrationOptions::default() };
    store.migrate_with(&db.database, None, terms).await.unwrap();
    // From then on it is ours too.
    db.sql("create table later (id bigint)").await.unwrap();
    store.migrate(&db.database, None).await.unwrap();
    assert_eq!(store.schema().await.unwrap(), Schema::Usable);
}

async fn the_schema_of_a_development_version_is_adopted_whole_or_refused(db: Db) {
    let store = Store::open(&db.database, 4);
    if let Database::Sqlite(path) = &db.database {
        std::fs::write(path, "").unwrap();
    }
    db.sql(if db.is_postgres() { POSTGRES_SCHEMA } else { SQLITE_SCHEMA }).await.unwrap();
    let bytes = if db.is_postgres() { "'\\x00'" } else { "x'00'" };
    let kind = if db.is_postgres() { "bytea" } else { "blob" };
    let columns = "version bigint primary key, description text not null, installed_on timestamp not null default current_timestamp";
    let rest = format!("success boolean not null, checksum {kind} not null, execution_time bigint not null");
    db.sql(&format!("create table _grantd_migrations ({columns}, {rest})")).await.unwrap();
    let note = async |version: i64, name: &str| {
        let columns = "version, description, success, checksum, execution_time";
        let sql = format!("insert into _grantd_migrations ({columns}) values ({version}, '{name}', true, {bytes}, 0)");
        db.sql(&sql).await.unwrap();
    };
    note(1, "registry").await;
    for version in 2..=10 {
        note(version, "of a development version").await;
    }
    let refused = store.migrate(&db.database, None).await;
    assert!(matches!(&refused, Err(MigrationError::Development { .. })), "{refused:?}");
    let done = Grantd::new(&db).run(&["migrate"]).await;
    assert!(done.status.code() == Some(78) && done.stderr.contains("create a new database"), "{done:?}");

    note(11, "client_ids").await;
    db.sql("insert into client (client_id) values ('kept')").await.unwrap();
    assert_eq!(store.schema().await.unwrap(), Schema::Older { pending: schema_files() });
    let done = store.migrate(&db.database, None).await.unwrap();
    assert_eq!(
        done.iter().map(|one| one.version).collect::<Vec<_>>(),
        (2..).take(schema_files() - 1).collect::<Vec<_>>()
    );
    assert_eq!(store.schema().await.unwrap(), Schema::Usable);
    assert!(store.migrate(&db.database, None).await.unwrap().is_empty(), "nothing is made a second time");
    assert!(store.client("kept").await.unwrap().is_some());
}

async fn a_write_that_fails_is_counted_and_told(db: Db) {
    let server = Setup::new(db).await.start().await;
    assert_eq!(server.store.health.trouble(), None);
    server.db.sql("alter table client rename to elsewhere").await.unwrap();
    assert!(server.store.delete_client("basic-client").await.is_err());
    assert!(server.store.health.trouble().is_some());
    assert_eq!(server.store.health.write_failures.get(), 1);
    server.db.sql("alter table elsewhere rename to client").await.unwrap();
    assert!(!server.store.delete_client("basic-client").await.unwrap());
    assert_eq!((server.store.health.trouble(), server.store.health.write_failures.get()), (None, 1));
}

async fn a_server_waits_for_a_schema_that_is_on_its_way(db: Db) {
    let grantd = Grantd::new(&db).with("GRANTD__DATABASE__AUTO_MIGRATE", "false");
    let serving = grantd.command(&["serve"]);
    let starting = tokio::spawn(async move { Daemon::start(serving, false).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    Grantd::new(&db).ok(&["migrate"]).await;
    let mut daemon = starting.await.unwrap();
    let ready = eventually(async || daemon.admin_get("/readyz").await.status.as_u16(), |status| *status == 200).await;
    assert_eq!(ready, 200);
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_damaged_file_is_bad_configuration_with_a_remedy() {
    let db = Db::sqlite();
    let Database::Sqlite(path) = &db.database else { unreachable!() };
    std::fs::write(path, "this is no database, and it is long enough to have a header of one: ".repeat(100)).unwrap();
    for arguments in [&["serve"][..], &["migrate"], &["client", "list"], &["doctor"]] {
        let done = Grantd::new(&db).run(arguments).await;
        assert_eq!(done.status.code(), Some(78), "{arguments:?}: {done:?}");
        assert!(done.stderr.contains("restore a backup"), "{arguments:?}: {done:?}");
    }
}

#[test]
fn the_poll_interval_and_the_clock_have_bounds() {
    let parse = |poll: &str, skew: &str| {
        let mut settings = grantd::config::Settings::default();
        settings.registry.poll = poll.into();
        settings.database.max_clock_skew = skew.into();
        Config::parse(&settings, &grantd::config::Sources::default()).map_err(|error| error.to_string())
    };
    assert_eq!(parse("250ms", "30s").unwrap().registry.current_for(), Duration::from_secs(2));
    assert_eq!(parse("30s", "5m").unwrap().registry.poll, Duration::from_secs(30));
    for (poll, skew, key) in [
        ("31s", "30s", "registry.poll"),
        ("10ms", "30s", "registry.poll"),
        ("often", "30s", "registry.poll"),
        ("1s", "0s", "max_clock_skew"),
    ] {
        assert!(parse(poll, skew).unwrap_err().contains(key), "{poll} {skew}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_and_metrics_tell_the_distance_of_the_clocks() {
    let db = Db::sqlite();
    let mut daemon = Daemon::start(Grantd::new(&db).command(&["serve"]), false).await;
    let ready: Value = daemon.admin_get("/readyz").await.json();
    assert_eq!(
        (&ready["checks"]["clock"]["ready"], &ready["clock_skew_seconds"]),
        (&true.into(), &0.into()),
        "{ready}"
    );
    assert!(ready["database_write_trouble"].is_null());
    let metrics = daemon.admin_get("/metrics").await.body;
    for name in ["grantd_clock_skew_seconds", "grantd_database_write_failures_total 0"] {
        assert!(metrics.contains(name), "{name}");
    }
    daemon.stop_cleanly(Duration::from_secs(5)).await;
}

const POSTGRES_SCHEMA: &str = include_str!("../../migrations/postgres/1_schema.sql");
const SQLITE_SCHEMA: &str = include_str!("../../migrations/sqlite/1_schema.sql");
