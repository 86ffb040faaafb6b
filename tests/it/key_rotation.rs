//! Signing keys that rotate themselves: what verifiers with a cache can rely on, whatever fails, and what operators see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use grantd::config::{Config, Settings, Sources};
use grantd::crypto::jwk::Alg;
use grantd::crypto::seal::SealingKey;
use grantd::model::client::Client;
use grantd::model::time::{Clock, Span, UnixTime};
use grantd::state::keyring::{
    KeyState, Keyring, PUBLISH_AHEAD, Successor, cacheable_for, longest_ttl, max_ttl, timelines,
};
use grantd::state::rotation::{Rotation, raise_max_ttl};
use grantd::store::Store;
use grantd::store::keys::{SealedKey, new_key};
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::Value;

use crate::harness::{Answer, Db, Server, Setup, client};
use crate::process::daemon::{Daemon, Grantd, eventually};

on_both!(
    two_replicas_rotate_once_and_the_next_key_signs_when_it_is_due,
    a_lifetime_that_is_raised_is_promised_before_it_is_granted,
    operators_see_when_the_next_rotation_is_due,
);

const START: i64 = 1_800_000_000;
const SKEW: i64 = 60;

/// Event of a history of three replicas.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Nothing,
    /// A replica loses the database, or finds it again.
    Partition(usize),
    /// All replicas lose the database, or find it again.
    Outage,
    Restart(usize),
    /// An administrator rotates.
    Rotate,
    /// An administrator removes the key that signs.
    Remove,
    /// A client gets tokens of another lifetime.
    Lifetime(i64),
}

fn happenings() -> impl Strategy<Value = Vec<(Happening, i64)>> {
    let happening = prop_oneof![
        4 => Just(Happening::Nothing),
        3 => (0..3_usize).prop_map(Happening::Partition),
        1 => Just(Happening::Outage),
        1 => (0..3_usize).prop_map(Happening::Restart),
        2 => Just(Happening::Rotate),
        1 => Just(Happening::Remove),
        1 => prop_oneof![20..300_i64, 300..7200_i64, 7200..86400_i64].prop_map(Happening::Lifetime),
    ];
    let wait = prop_oneof![1..10_i64, 10..120_i64, 120..400_i64, 400..4000_i64];
    proptest::collection::vec((happening, wait), 20..50)
}

/// Replica by what it knows: the keys that it has read, and when.
struct Replica {
    keyring: Keyring,
    /// Number of the change that it has read.
    read: u64,
    confirmed_at: Option<i64>,
    connected: bool,
    /// Seconds by which its clock is ahead of the database's. It knows this to within a second.
    ahead: i64,
    error: i64,
}

/// Three replicas on one database, and what verifiers may have in their caches.
struct World<'a> {
    store: &'a Store,
    under: &'a Arc<SealingKey>,
    every: Span,
    max_stale: i64,
    lifetime: i64,
    changes: u64,
    replicas: Vec<Replica>,
    /// Key sets with the time until which a cache keeps them.
    cached: Vec<(i64, BTreeSet<String>)>,
    /// The rows of the keys, and the change and the lifetime up to which they were raised.
    rows: Vec<SealedKey>,
    raised: (u64, Span),
    /// When the last token of each key ends, and when the key has last signed by the database.
    ends: BTreeMap<String, i64>,
    signed_at: BTreeMap<String, i64>,
    removed: BTreeSet<String>,
    /// When a replica was last seen without the database.
    last_apart: i64,
    /// Keys that signed before verifiers knew them, since one was removed without a successor; until when that may be.
    excepted: BTreeMap<String, i64>,
    rotations: usize,
}

impl World<'_> {
    fn max_ttl(&self) -> Span {
        max_ttl(seconds(20), Some(seconds(self.lifetime)), Duration::from_secs(self.max_stale.unsigned_abs()))
    }

    async fn happen(&mut self, happening: Happening, now: i64) {
        if self.replicas.iter().any(|replica| !replica.connected) {
            self.last_apart = now;
        }
        match happening {
            // A replica that is cut off cannot learn of an emergency removal, and caches hold its key sets for a while.
            Happening::Remove if now - self.last_apart < 3600 => {}
            Happening::Nothing => {}
            Happening::Partition(which) => self.replicas[which].connected ^= true,
            Happening::Outage => {
                let all = self.replicas.iter().any(|replica| replica.connected);
                self.replicas.iter_mut().for_each(|replica| replica.connected = !all);
            }
            Happening::Restart(which) => {
                let Replica { connected, ahead, error, .. } = self.replicas[which];
                self.replicas[which] = replica(self.every, connected, ahead, error);
            }
            Happening::Rotate => {
                let taken = self.store.keys().await.unwrap();
                let free = |at: &i64| taken.iter().all(|key| key.active_at.0 != *at);
                let from = now + PUBLISH_AHEAD.seconds();
                let signs_from = (from..from + 1000).find(free).unwrap();
                self.add(now, signs_from).await;
                self.changes += 1;
            }
            Happening::Remove => self.remove(now).await,
            Happening::Lifetime(seconds) => {
                let set = |client: &mut Client, _: &mut _| {
                    client.token_ttl = Some(Span::from_secs(seconds.unsigned_abs()).try_into().unwrap());
                    Ok::<_, grantd::store::StoreError>(())
                };
                self.store.update_client("c", set).await.unwrap();
                self.lifetime = seconds;
            }
        }
        // By which key the database says that tokens are signed, also while no replica reads it.
        self.rows = self.store.keys().await.unwrap();
    }

    async fn add(&self, now: i64, signs_from: i64) -> String {
        let key = self.new_key(now, signs_from);
        self.store.add_key(&key).await.unwrap();
        key.kid
    }

    fn new_key(&self, now: i64, signs_from: i64) -> SealedKey {
        let key = new_key(Alg::Es256, self.under, UnixTime(now), seconds(signs_from - now)).unwrap();
        SealedKey { max_ttl: self.max_ttl(), ..key }
    }

    async fn remove(&mut self, now: i64) {
        let keys = self.store.keys().await.unwrap();
        let timeline = timelines(&keys).remove("ES256").unwrap();
        let (_, signs) = *timeline.active(UnixTime(now)).unwrap();
        // As `Admin::remove_key` does: it would sign again once its successor is removed.
        for (gone, _) in timeline.states(UnixTime(now)).filter(|(_, state)| *state == KeyState::Gone) {
            self.store.remove_key(&gone.kid, None).await.unwrap();
        }
        match timeline.successor(UnixTime(now)) {
            Successor::Retiring(key) => {
                // It signs again from now on, however soon the next one does.
                self.signed_at.insert(key.kid.clone(), now);
                assert!(self.store.remove_key(&signs.kid, None).await.unwrap());
            }
            Successor::Next(next) => {
                assert!(self.store.replace_key(&signs.kid, &next.kid, UnixTime(now)).await.unwrap());
                self.excepted.insert(next.kid.clone(), next.created_at.plus(PUBLISH_AHEAD).0);
            }
            Successor::New => {
                let made = self.new_key(now, now);
                assert!(self.store.remove_key(&signs.kid, Some(&made)).await.unwrap());
                self.excepted.insert(made.kid, now + PUBLISH_AHEAD.seconds());
            }
        }
        self.removed.insert(signs.kid.clone());
        self.changes += 1;
    }

    /// One look of every replica at the database, one key set of each, and one token of each that may sign.
    async fn tick(&mut self, now: i64, delay: i64) {
        self.cached.retain(|(until, _)| *until > now);
        for which in 0..self.replicas.len() {
            if self.replicas[which].connected {
                self.poll(which, now, delay).await;
            }
        }
        // Read anew: an administrator may have removed a key while no replica reached the database.
        self.rows = self.store.keys().await.unwrap();
        let timeline = timelines(&self.rows).remove("ES256");
        if let Some((_, key)) = timeline.as_ref().and_then(|timeline| timeline.active(UnixTime(now))) {
            self.signed_at.insert(key.kid.clone(), now);
        }
        for replica in &self.replicas {
            let there = UnixTime(now + replica.error);
            let Some(confirmed_at) = replica.confirmed_at else { continue };
            let staleness = Duration::from_secs((now - confirmed_at).unsigned_abs());
            replica.keyring.publish(there);
            let kids = kids(&replica.keyring);
            for (kid, end) in self.ends.iter().filter(|(kid, _)| !self.removed.contains(*kid)) {
                // After `registry.max_stale` a replica is not ready, and promises nothing.
                let is_ready = now - confirmed_at < self.max_stale;
                let early = is_ready && *end > now && replica.keyring.knows(kid) && !kids.contains(kid);
                assert!(!early, "{kid} has left a key set at {now}, and a token of it lives until {end}");
            }
            if replica.connected {
                for key in self.rows.iter().filter(|key| kids.contains(&key.kid)) {
                    let Some(signed_at) = self.signed_at.get(&key.kid) else { continue };
                    // A look is up to thirty seconds away, and a clock a second.
                    let end = signed_at + key.max_ttl.seconds() + SKEW + 32;
                    assert!(now <= end, "{} signed last at {signed_at} and is published at {now}, not {end}", key.kid);
                }
            }
            let until = now + i64::try_from(cacheable_for(staleness).as_secs()).unwrap();
            if until > now {
                self.cached.push((until, kids));
            }
        }
        self.sign(now);
    }

    async fn poll(&mut self, which: usize, now: i64, delay: i64) {
        let replica = &mut self.replicas[which];
        replica.confirmed_at = Some(now);
        if replica.read != self.changes {
            replica.read = self.changes;
            self.rows = self.store.keys().await.unwrap();
            assert!(replica.keyring.load(&self.rows, self.under).is_empty());
        }
        let there = UnixTime(now + replica.error);
        let due: Vec<_> = replica.keyring.next_rotations(there).into_iter().collect();
        for (alg, next) in due.into_iter().filter(|(_, next)| next.must_begin(there)) {
            let (sealing_key, max_ttl) = (Arc::clone(self.under), self.max_ttl());
            let rotation = Rotation { sealing_key, alg, every: self.every, max_ttl };
            // The replica is slow: it has looked at the clock a while before its key is there.
            let made = rotation.make_next(self.store, || UnixTime(there.0 - delay)).await.unwrap();
            if let Some(key) = made {
                let early = UnixTime(there.0 - delay).plus(PUBLISH_AHEAD);
                assert_eq!(key.active_at, next.due_at.max(early), "when it is due, or as soon as it is known");
                self.changes += 1;
                self.rotations += 1;
            }
        }
        if self.raised != (self.changes, self.max_ttl()) {
            self.rows = self.store.keys().await.unwrap();
            raise_max_ttl(self.store, &self.rows, self.max_ttl(), there).await.unwrap();
            self.rows = self.store.keys().await.unwrap();
            self.changes += 1;
            self.raised = (self.changes, self.max_ttl());
        }
    }

    fn sign(&mut self, now: i64) {
        let max_stale = self.max_stale;
        for replica in &self.replicas {
            let Some(stale) = replica.confirmed_at.map(|at| now - at).filter(|stale| *stale < max_stale) else {
                continue;
            };
            let Some((term, key)) = replica.keyring.signer(Alg::Es256, UnixTime(now + replica.error)) else { continue };
            let (kid, staleness) = (key.kid().to_owned(), Duration::from_secs(stale.unsigned_abs()));
            let longest = longest_ttl(term.max_ttl, staleness).expect("a replica that serves can sign");
            let lifetime = longest.seconds().min(self.lifetime);
            let least = self.lifetime.min(term.max_ttl.seconds()).min(330);
            assert!(lifetime >= least, "a token lives for {lifetime} s, {stale} s after the last poll");
            let end = self.ends.entry(kid.clone()).or_insert(0);
            *end = (*end).max(now + replica.ahead + lifetime);
            if self.removed.contains(&kid) || self.excepted.get(&kid).is_some_and(|until| *until > now) {
                continue;
            }
            for (until, kids) in &self.cached {
                assert!(kids.contains(&kid), "{kid} signs at {now}, and a cache lacks it until {until}");
            }
        }
    }
}

fn seconds(of: i64) -> Span {
    Span::from_secs(of.unsigned_abs())
}

fn replica(every: Span, connected: bool, ahead: i64, error: i64) -> Replica {
    Replica { keyring: Keyring::new(false, Some(every), None), read: 0, confirmed_at: None, connected, ahead, error }
}

fn kids(keyring: &Keyring) -> BTreeSet<String> {
    let document: Value = serde_json::from_slice(&keyring.jwks().body).unwrap();
    document["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// Random histories of three replicas with clocks up to a minute apart. Time is handed to every part, so months pass in
/// seconds; keys, key sets, rotation, removal and the database are the real ones.
#[test]
fn caches_have_each_key_that_signs_and_keys_leave_in_time_whatever_fails() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let setup = runtime.block_on(async {
        let setup = Setup::new(Db::sqlite()).await;
        setup.store.create_client(&client("c"), None).await.unwrap();
        setup
    });
    let under = Arc::new(SealingKey::from_base64(&setup.sealing_key).unwrap());
    let mut runner =
        TestRunner::new(Cases { cases: 24, max_shrink_iters: 100, failure_persistence: None, ..Cases::default() });
    let times = (3600..4 * 3600_i64, prop_oneof![10..120_i64, 120..1200_i64, 1200..7200_i64]);
    let clocks = proptest::collection::vec((-30..=30_i64, -1..=1_i64), 3);
    let rotations = AtomicUsize::new(0);
    let history = (times, clocks, happenings(), 0..20_i64, 20..7200_i64);
    let done = runner.run(&history, |((every, max_stale), clocks, happenings, delay, lifetime)| {
        runtime.block_on(async {
            for key in setup.store.keys().await.unwrap() {
                setup.store.remove_key(&key.kid, None).await.unwrap();
            }
            let replicas = clocks.iter().map(|(ahead, error)| replica(seconds(every), true, *ahead, *error)).collect();
            let mut world = World {
                store: &setup.store,
                under: &under,
                every: seconds(every),
                max_stale,
                lifetime,
                changes: 1,
                replicas,
                cached: Vec::new(),
                rows: Vec::new(),
                raised: (0, seconds(0)),
                ends: BTreeMap::new(),
                signed_at: BTreeMap::new(),
                removed: BTreeSet::new(),
                last_apart: 0,
                excepted: BTreeMap::new(),
                rotations: 0,
            };
            world.happen(Happening::Lifetime(lifetime), START).await;
            world.add(START, START).await;
            let mut now = START;
            for (happening, wait) in happenings {
                world.happen(happening, now).await;
                let until = now + wait;
                while now < until {
                    world.tick(now, delay).await;
                    now = (now + if wait < 400 { 7 } else { 30 }).min(until);
                }
            }
            rotations.fetch_add(world.rotations, Ordering::Relaxed);
        });
        Ok(())
    });
    done.unwrap();
    let rotations = rotations.into_inner();
    assert!(rotations > 0, "no key was rotated by time");
}

#[test]
fn a_key_signs_for_an_hour_at_least_or_until_somebody_rotates_it() {
    let parse = |every: &str| {
        let mut settings = Settings::default();
        settings.keys.rotate_every = every.into();
        Config::parse(&settings, &Sources::default())
            .map(|config| config.rotate_every)
            .map_err(|error| error.to_string())
    };
    assert_eq!((parse("never").unwrap(), parse("1h").unwrap()), (None, Some(seconds(3600))));
    for (wrong, remedy) in [("59m", "at least 1h, or never"), ("0s", "at least 1h"), ("daily", "a number with a unit")]
    {
        let told = parse(wrong).unwrap_err();
        assert!(told.contains("keys.rotate_every") && told.contains(remedy), "{told}");
    }
}

async fn two_replicas_rotate_once_and_the_next_key_signs_when_it_is_due(db: Db) {
    let mut setup = Setup::new(db).await;
    let secret = setup.client(client("c")).await;
    setup.settings.keys.rotate_every = "2h".into();
    let (clock, hand) = Clock::fixed(START);
    setup.clock = clock;
    let server = setup.start().await;
    let replica = server.replica().await;
    let kid = async |server: &Server| server.basic("c", &secret, "").await.token().0["kid"].clone();
    let first = kid(&server).await;
    let due_at = START + 7200;
    let keys = async || server.store.keys().await.unwrap();
    // Six minutes and a half before.
    hand.store(due_at - 390, Ordering::Relaxed);
    let made = eventually(&keys, |keys| keys.len() == 2).await;
    assert_eq!((made[1].active_at, made[1].created_at), (UnixTime(due_at), UnixTime(due_at - 390)));
    server.refresh().await;
    replica.refresh().await;
    for (now, signer) in [(due_at - 1, &first), (due_at, &made[1].kid.clone().into())] {
        hand.store(now, Ordering::Relaxed);
        for one in [&server, &replica] {
            assert_eq!(&kid(one).await, signer, "at {now}");
            let published = one.get("/jwks").await.json()["keys"].as_array().unwrap().len();
            assert_eq!(published, 2, "each is published before it signs and while its tokens live");
        }
    }
    // Its tokens lived for an hour at most.
    hand.store(due_at + 3600 + SKEW, Ordering::Relaxed);
    eventually(async || server.get("/jwks").await.json()["keys"].as_array().unwrap().len(), |keys| *keys == 1).await;
    // A server that comes too late publishes the next key first.
    hand.store(due_at + 9000, Ordering::Relaxed);
    let made = eventually(&keys, |keys| keys.len() == 3).await;
    assert_eq!(made[2].active_at, UnixTime(due_at + 9000).plus(PUBLISH_AHEAD));
}

async fn a_lifetime_that_is_raised_is_promised_before_it_is_granted(db: Db) {
    let setup = Setup::new(db).await;
    let secret = setup.client(client("c")).await;
    let server = setup.start().await;
    let ttl = |answer: &Answer| answer.ok()["expires_in"].as_i64().unwrap();
    let ask = async || server.basic("c", &secret, "").await;
    assert_eq!(ttl(&ask().await), 3600);
    assert_eq!(server.store.keys().await.unwrap()[0].max_ttl, seconds(3600));
    let raise = |client: &mut Client, _: &mut _| {
        client.token_ttl = Some(seconds(86400).try_into().unwrap());
        Ok::<_, grantd::store::StoreError>(())
    };
    server.store.update_client("c", raise).await.unwrap();
    eventually(&ask, |answer| ttl(answer) == 86400).await;
    assert_eq!(server.store.keys().await.unwrap()[0].max_ttl, seconds(86400));
    // What the database promises is the limit, whatever is registered, until a server has raised it again.
    server.db.sql("update signing_key set max_ttl = 60").await.unwrap();
    eventually(&ask, |answer| ttl(answer) == 60).await;
    eventually(&ask, |answer| ttl(answer) == 86400).await;
}

async fn operators_see_when_the_next_rotation_is_due(db: Db) {
    let grantd = Grantd::new(&db);
    grantd.ok(&["migrate"]).await;
    grantd.ok(&["key", "generate"]).await;
    let never = grantd.json(&["key", "list", "--json"]).await;
    assert!(never[0]["changes_at"].is_null(), "{never}");
    let grantd = grantd.with("GRANTD__KEYS__ROTATE_EVERY", "90d");
    let due = |listed: &Value| listed[0]["changes_at"].as_i64().unwrap() - listed[0]["active_at"].as_i64().unwrap();
    assert_eq!(due(&grantd.json(&["key", "list", "--json"]).await), 90 * 86400);
    let listed = grantd.ok(&["key", "list"]).await.stdout;
    assert!(listed.contains("CHANGES") && (listed.contains("in 90 days") || listed.contains("in 89 days")), "{listed}");
    let note = grantd.ok(&["doctor"]).await.stderr;
    assert!(note.contains("note: another ES256 signing key signs from "), "{note}");

    // Half an hour before: both replicas see that, and one says it.
    let now = Clock::System.now().0;
    db.sql(&format!("update signing_key set active_at = {}", now - 90 * 86400 + 1800)).await.unwrap();
    let mut daemons = Vec::new();
    for _ in 0..2 {
        daemons.push(Daemon::start(grantd.command(&["serve"]), false).await);
    }
    let told = async || daemons.iter().map(|daemon| daemon.events("key.rotation_due").len()).sum::<usize>();
    eventually(&told, |told| *told == 1).await;
    for daemon in &daemons {
        let ready = daemon.admin_get("/readyz").await.json();
        assert_eq!(ready["signing_keys"][0]["rotation_due_at"], now + 1800, "{ready}");
        let metrics = daemon.admin_get("/metrics").await.body;
        let line =
            metrics.lines().find_map(|line| line.strip_prefix("grantd_key_next_rotation_seconds{alg=\"ES256\"} "));
        let left: i64 = line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap();
        assert!((1700..=1800).contains(&left), "{left}");
    }
    let url = format!("http://{}", daemons[0].admin);
    let screen = grantd.ok(&["status", "--admin-url", &url]).await.stdout;
    assert!(screen.contains("signs; rotates in 29 min") || screen.contains("signs; rotates in 30 min"), "{screen}");

    // Five minutes before: one of them makes the next key, which signs when every verifier knows it.
    db.sql(&format!("update signing_key set active_at = {}", now - 90 * 86400 + 300)).await.unwrap();
    let made = async || {
        let all = daemons.iter().flat_map(|daemon| daemon.events("key.changed"));
        all.filter(|event| event["what"] == "made by rotation").count()
    };
    eventually(&made, |made| *made == 1).await;
    for daemon in &daemons {
        let published = async || daemon.get("/jwks").await.json()["keys"].as_array().unwrap().len();
        eventually(published, |keys| *keys == 2).await;
    }
    let listed = grantd.json(&["key", "list", "--json"]).await;
    let ahead = listed[1]["active_at"].as_i64().unwrap() - listed[1]["created_at"].as_i64().unwrap();
    assert_eq!((ahead, &listed[0]["changes_at"]), (360, &listed[1]["active_at"]));
    assert_eq!((told().await, made().await), (1, 1));

    // Nobody serves, and a rotation is overdue.
    for daemon in &mut daemons {
        daemon.stop_cleanly(Duration::from_secs(10)).await;
    }
    db.sql(&format!("update signing_key set active_at = active_at - {}", 91 * 86400)).await.unwrap();
    let advice = grantd.ok(&["doctor"]).await.stderr;
    assert!(advice.contains("advice: keys.rotate_every: the ES256 signing key "), "{advice}");
}
