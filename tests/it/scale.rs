//! Large registries: bulk changes, ranges of clients, forgotten notes, batches of revocations, and the elected replica.

use std::time::{Duration, Instant};

use grantd::model::time::{Span, UnixTime};
use grantd::store::changes::{Changes, Since};
use grantd::store::ranges::{RANGE, RangeReader};

use crate::harness::{Db, Setup, client};

on_both!(
    a_bulk_change_is_in_force_within_seconds_and_refuses_nobody_meanwhile,
    ranges_hold_every_client_once_in_the_order_of_their_ids,
    a_reader_whose_notes_were_deleted_is_told_to_read_everything,
    revocations_of_one_statement_are_read_once_and_together,
    one_replica_has_the_lease_until_it_ends,
);

/// SQL that inserts clients with the ids `filler-000001` and so on.
fn filler(db: &Db, count: usize) -> String {
    let numbers = if db.is_postgres() {
        format!("select lpad(n::text, 6, '0') as n from generate_series(1, {count}) as n")
    } else {
        format!(
            "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < {count})
             select printf('%06d', n) as n from numbers"
        )
    };
    format!("insert into client (client_id, scope) select 'filler-' || n, 'a b' from ({numbers}) as numbers")
}

async fn a_bulk_change_is_in_force_within_seconds_and_refuses_nobody_meanwhile(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(client("basic-client")).await;
    setup.client(client("other")).await;
    let server = setup.start().await;
    server.basic("basic-client", &secret, "").await.ok();
    let registry = &server.server.registry;
    let started = Instant::now();
    let until = async |what: &str, is_so: &dyn Fn() -> bool| {
        for asked in 0.. {
            assert!(started.elapsed() < Duration::from_mins(1), "{what}");
            // A client that nobody knows is unknown, and not perhaps about to be read.
            if asked < 5 {
                server.basic(&format!("{}-{asked}", what.replace(' ', "-")), &secret, "").await.unauthorized();
            }
            server.basic("basic-client", &secret, "").await.ok();
            if is_so() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // More than is noted one by one, and more than two ranges.
    server.db.sql(&filler(&server.db, 12_000)).await.unwrap();
    until("all are loaded", &|| registry.snapshot().client_count() == 12_002).await;
    // Changes of one client, at each poll, and a second bulk change while the first is read.
    let store = server.store.clone();
    let small = tokio::spawn(async move {
        for number in 0.. {
            store.set_client_enabled("other", number % 2 == 0).await.unwrap();
        }
    });
    let update = |ttl: i64| format!("update client set token_ttl = {ttl} where client_id like 'filler-%'");
    server.db.sql(&update(76)).await.unwrap();
    server.db.sql(&update(77)).await.unwrap();
    let ttl = |id: &str| registry.snapshot().client(id).unwrap().token_ttl.map(Span::from).map(Span::seconds);
    until("the last is changed", &|| ttl("filler-012000") == Some(77) && ttl("filler-000001") == Some(77)).await;
    small.abort();
    server.db.sql("delete from client where client_id like 'filler-%'").await.unwrap();
    until("all are gone", &|| registry.snapshot().client_count() == 2).await;
    assert_eq!((registry.differences.get(), registry.history_changes.get()), (0, 0));
}

async fn ranges_hold_every_client_once_in_the_order_of_their_ids(db: Db) {
    let store = db.store().await;
    db.sql(&filler(&db, 2 * RANGE)).await.unwrap();
    // An order that is not that of most languages.
    db.sql("insert into client (client_id) values ('Zebra'), ('a b'), ('a-b'), ('a.b'), ('aB'), ('~')").await.unwrap();
    let (mut reader, mut ranges) = (store.reader().await.unwrap(), RangeReader::default());
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let range = ranges.next(&mut reader).await.unwrap();
        assert_eq!(range.after, after);
        ids.extend(range.clients.into_iter().map(|(id, client)| {
            assert_eq!(client.unwrap().client_id.as_str(), id);
            id
        }));
        after = range.through;
        if after.is_none() {
            break;
        }
    }
    assert!(ids.is_sorted() && ids.len() == 2 * RANGE + 6, "{}", ids.len());
    ids.dedup();
    assert_eq!(ids.len(), 2 * RANGE + 6);
}

async fn a_reader_whose_notes_were_deleted_is_told_to_read_everything(db: Db) {
    let store = db.store().await;
    let mut reader = store.reader().await.unwrap();
    let away = reader.poll().await.unwrap().position;
    db.sql("insert into client (client_id) values ('a'), ('b')").await.unwrap();
    let present = reader.poll().await.unwrap().position;
    db.sql("update client set enabled = 0 where client_id = 'b'").await.unwrap();
    assert_eq!(store.forget_changes(present.revision).await.unwrap(), 1, "b has changed since");
    assert!(matches!(reader.since(&away).await.unwrap(), Since::Everything(_)));
    let Since::Changes(changes) = reader.since(&present).await.unwrap() else { panic!("nothing was forgotten") };
    assert_eq!(changes.clients.len(), 1);
    // An older revision takes nothing back.
    store.forget_changes(1).await.unwrap();
    assert!(matches!(reader.since(&away).await.unwrap(), Since::Everything(_)));
}

async fn revocations_of_one_statement_are_read_once_and_together(db: Db) {
    let store = db.store().await;
    let mut reader = store.reader().await.unwrap();
    let mut since = async |held: &_| match reader.since(held).await.unwrap() {
        Since::Changes(changes) => changes,
        other => panic!("{other:?}"),
    };
    let start = since(&store.reader().await.unwrap().poll().await.unwrap().position).await.position;
    let row = |letter: &str| format!("('{}A', 'c', 99999999)", letter.repeat(21));
    let insert = |rows: &[&str]| {
        let rows: Vec<String> = rows.iter().map(|letter| row(letter)).collect();
        format!("insert into revoked_token (jti, client_id, expires_at) values {}", rows.join(", "))
    };
    db.sql(&insert(&["a", "b", "c"])).await.unwrap();
    let Changes { position, revoked, .. } = since(&start).await;
    assert_eq!(revoked.len(), 3);
    db.sql(&insert(&["d"])).await.unwrap();
    let later = since(&position).await;
    assert_eq!(later.revoked, [(format!("{}A", "d".repeat(21)), UnixTime(99_999_999))]);
    assert_eq!(since(&start).await.revoked.len(), 4);
    assert!(since(&later.position).await.revoked.is_empty());
    let all = store.reader().await.unwrap().all_but_clients().await.unwrap();
    assert_eq!(all.revoked.len(), 4);
}

async fn one_replica_has_the_lease_until_it_ends(db: Db) {
    let store = db.store().await;
    let take = async |holder: &str, now: i64| {
        store.take_lease("sweep", holder, UnixTime(now), UnixTime(now + 60)).await.unwrap()
    };
    assert!(take("one", 100).await && !take("other", 120).await, "one has it");
    assert!(take("one", 150).await && !take("other", 200).await, "and renews it");
    assert!(take("other", 211).await && !take("one", 220).await, "until it ends");
}
