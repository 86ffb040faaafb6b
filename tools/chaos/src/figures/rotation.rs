//! Figure 13: signing keys are rotated while verifiers cache the key set for its full `max-age`. Time passes sixty times
//! as fast, by libfaketime, for three replicas of their own on one SQLite file; the timers of the replicas keep their pace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd_kit::clients::{Client, register};
use grantd_kit::connection::{LOCALHOST, ask};
use grantd_kit::grantd::{Grantd, Server};
use grantd_kit::http::get_request;
use grantd_kit::program::field;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::chance::{below, salt};
use crate::options::Options;
use crate::report::Report;
use crate::rig::Rig;

/// Measures the figure.
pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    rig.recorded += 1;
    let room = rig.grantd.directory.join(format!("rotation-{}", rig.recorded));
    std::fs::create_dir(&room)?;
    let world = Arc::new(World { began: real(), ..World::default() });
    let grantd = faster(&rig.grantd, &room, world.began)?;
    grantd.run_ok(&["migrate"], "").await?;
    let client = register(&grantd, "client", &[]).await?;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(grantd.serve().await?);
    }
    let mut tasks = JoinSet::new();
    for replica in 0..3 {
        let addresses: Vec<_> = replicas.iter().map(|server| server.public).collect();
        tasks.spawn(issue(Arc::clone(&world), client.clone(), addresses.clone(), replica));
        tasks.spawn(verify(Arc::clone(&world), addresses.clone()));
        tasks.spawn(sample(Arc::clone(&world), addresses, replica));
    }
    let rotations = options.lengths().rotations;
    for _ in 0..rotations {
        // With the settings of the servers: a key promises the longest lifetime that its maker knows of.
        let lifetimes = ["--set", &format!("token.ttl={LIFETIME}"), "--set", &format!("registry.max_stale={LIFETIME}")];
        let made = grantd.run_ok(&[&["key", "rotate", "--json"], &lifetimes[..]].concat(), "").await?.stdout;
        let made: Value = serde_json::from_str(&made)?;
        let active_at = made.get("active_at").and_then(Value::as_f64).context("key rotate tells no active_at")?;
        // Sixteen seconds after it signs, the next rotation begins.
        sleep(Duration::from_secs_f64(((active_at + 16.0 - world.now()) / PACE).max(0.0))).await;
    }
    // One rotation by time, and the last key has to leave the sets.
    sleep(Duration::from_secs_f64(2.0 * HOUR / PACE)).await;
    tasks.shutdown().await;
    let removed = remove(&grantd, &replicas).await?;
    tell(&world, rotations, removed, report);
    for mut replica in replicas {
        replica.kill().await;
    }
    Ok(())
}

/// Counts and sightings of all tasks.
#[derive(Default)]
struct World {
    /// The real second in which both clocks agreed.
    began: f64,
    tokens: Mutex<Vec<Token>>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone)]
struct Token {
    kid: String,
    exp: f64,
    signed: String,
    signature: Vec<u8>,
}

#[derive(Debug, Default)]
struct Seen {
    issued: usize,
    refused: usize,
    verified: usize,
    failed: usize,
    first_failure: Option<String>,
    samples: usize,
    lacking: usize,
    /// When a replica first published the key, and last.
    published: BTreeMap<(usize, String), (f64, f64)>,
    /// When a token was first signed by the key, and the expiry of its last.
    used: BTreeMap<String, (f64, f64)>,
}

impl World {
    /// The present second by the clocks of the replicas.
    fn now(&self) -> f64 {
        self.began + (real() - self.began) * PACE
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> Vec<Token> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        tokens.retain(|token| token.exp > now + CLOCKS);
        tokens.clone()
    }
}

/// grantd whose clock is sixty times as fast from `began` on.
fn faster(grantd: &Grantd, room: &Path, began: f64) -> anyhow::Result<Grantd> {
    let library = std::fs::read_dir("/usr/lib")?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
        .context("libfaketime is not installed")?;
    let (program, database) = (room.join("grantd"), room.join("grantd.db"));
    // Each process begins at the second that the others have reached.
    let script = format!(
        "#!/bin/sh\nexport FAKETIME_DONT_FAKE_MONOTONIC=1 LD_PRELOAD_AFTER={library}\n\
         FAKETIME=$(date +%s.%N | awk '{{ printf \"+%.3f x{PACE}\", ($1 - {began:.3}) * ({PACE} - 1) }}')\n\
         export FAKETIME LD_PRELOAD=$LD_PRELOAD_AFTER\nexec {program} \"$@\"\n",
        library = library.display(),
        program = grantd.program.display(),
    );
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let grantd = Grantd::new(program, room, format!("sqlite:{}", database.display()))?;
    Ok(grantd
        .with("registry.poll", "100ms")
        .with("registry.max_stale", LIFETIME)
        .with("token.ttl", LIFETIME)
        .with("keys.rotate_every", "1h")
        .with("database.max_clock_skew", "1h"))
}

/// Gets tokens from a replica, forty a second.
async fn issue(world: Arc<World>, client: Client, addresses: Vec<std::net::SocketAddr>, replica: usize) {
    loop {
        sleep(Duration::from_millis(25)).await;
        let Some(address) = addresses.get(replica) else { return };
        let answer = ask(LOCALHOST, *address, &client.request, Duration::from_secs(2)).await;
        let token = answer.filter(|(answer, _)| answer.status == 200).and_then(|(_, body)| read(&body));
        let (now, mut seen) = (world.now(), world.seen());
        let Some(token) = token else {
            seen.refused += 1;
            continue;
        };
        seen.issued += 1;
        let used = seen.used.entry(token.kid.clone()).or_insert((now, token.exp));
        used.1 = used.1.max(token.exp);
        drop(seen);
        world.tokens.lock().unwrap_or_else(PoisonError::into_inner).push(token);
    }
}

fn read(body: &str) -> Option<Token> {
    let token = field(body, "access_token")?;
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let read = |part| serde_json::from_slice::<Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    Some(Token {
        kid: read(header)?.get("kid")?.as_str()?.to_owned(),
        exp: read(claims)?.get("exp")?.as_f64()?,
        signed: signed.to_owned(),
        signature: BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?,
    })
}

/// Verifies tokens by a key set that is cached for its full `max-age`, as a resource server does.
async fn verify(world: Arc<World>, addresses: Vec<std::net::SocketAddr>) {
    let (mut keys, mut until, mut n) = (BTreeMap::new(), 0.0, salt());
    loop {
        if world.now() >= until {
            let from = below(n, addresses.len());
            let fetched = match addresses.get(from) {
                Some(address) => fetch(*address).await,
                None => None,
            };
            // The time of the fetch, since the age of an answer counts from then.
            if let Some((set, max_age)) = fetched {
                (keys, until) = (set, world.now() + max_age);
            }
        }
        let tokens = world.live();
        for _ in 0..20 {
            n = n.wrapping_add(1);
            let Some(token) = tokens.get(below(n, tokens.len())) else { break };
            let good = keys.get(&token.kid).is_some_and(|point: &Vec<u8>| {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(token.signed.as_bytes(), &token.signature).is_ok()
            });
            let now = world.now();
            let mut seen = world.seen();
            seen.verified += 1;
            if !good {
                seen.failed += 1;
                let known: BTreeSet<&String> = keys.keys().collect();
                let told = format!("{} at {now:.0}, cached until {until:.0}: {known:?}", token.kid);
                seen.first_failure.get_or_insert(told);
            }
        }
        sleep(Duration::from_millis(30)).await;
    }
}

/// The key set of a replica, as points by their ids, with its `max-age`.
async fn fetch(address: std::net::SocketAddr) -> Option<(BTreeMap<String, Vec<u8>>, f64)> {
    let request = get_request("/jwks", &[("Connection", "close")]);
    let (answer, body) = ask(LOCALHOST, address, &request, Duration::from_secs(2)).await?;
    let set: Value = serde_json::from_str(&body).ok().filter(|_| answer.status == 200)?;
    let point = |key: &Value| {
        let mut point = vec![4];
        for half in ["x", "y"] {
            point.extend(BASE64_URL_SAFE_NO_PAD.decode(key.get(half)?.as_str()?).ok()?);
        }
        Some((key.get("kid")?.as_str()?.to_owned(), point))
    };
    Some((set.get("keys")?.as_array()?.iter().filter_map(point).collect(), f64::from(answer.max_age?)))
}

/// Looks at the key set of a replica ten times a second: no live token may lack its key.
async fn sample(world: Arc<World>, addresses: Vec<std::net::SocketAddr>, replica: usize) {
    while let Some(address) = addresses.get(replica) {
        sleep(Duration::from_millis(100)).await;
        let live: BTreeSet<String> = world.live().into_iter().map(|token| token.kid).collect();
        let Some((keys, _)) = fetch(*address).await else { continue };
        let (now, mut seen) = (world.now(), world.seen());
        seen.samples += 1;
        seen.lacking += usize::from(live.iter().any(|kid| !keys.contains_key(kid)));
        for kid in keys.into_keys() {
            seen.published.entry((replica, kid)).or_insert((now, now)).1 = now;
        }
    }
}

/// Removes the key that signs. Returns the real seconds until no replica publishes it.
async fn remove(grantd: &Grantd, replicas: &[Server]) -> anyhow::Result<f64> {
    let listed = grantd.run_ok(&["key", "list", "--json"], "").await?.stdout;
    let listed: Vec<Value> = serde_json::from_str(&listed)?;
    let text = |key: &Value, name: &str| key.get(name).and_then(Value::as_str).map(str::to_owned);
    let signs = listed.iter().find(|key| text(key, "state").as_deref() == Some("active"));
    let kid = &signs.and_then(|key| text(key, "kid"));
    let kid = kid.as_deref().context("no key signs")?;
    grantd.run_ok(&["key", "remove", kid, "--now"], "").await?;
    let started = Instant::now();
    for replica in replicas {
        while fetch(replica.public).await.is_none_or(|(keys, _)| keys.contains_key(kid)) {
            anyhow::ensure!(started.elapsed() < Duration::from_secs(20), "{kid} is still published");
            sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(started.elapsed().as_secs_f64())
}

fn tell(world: &World, rotations: usize, removed: f64, report: &mut Report) {
    let seen = world.seen();
    let note = format!(
        "{rotations} rotations by command and those by time, {} keys; {} tokens, {} requests failed; {} verifications; {}",
        seen.used.len(),
        seen.issued,
        seen.refused,
        seen.verified,
        seen.first_failure.as_deref().unwrap_or("3 verifiers, each with the key set of one replica for its max-age"),
    );
    report.add("13", "verifications that failed", Goal::AtMost(0.0), number(seen.failed), note);
    let note = format!("{} samples, three replicas every 100 ms", seen.samples);
    report.add("13", "samples that lack a live token's key", Goal::AtMost(0.0), number(seen.lacking), note);
    let by_kid =
        |kid: &str| (0..3).filter_map(|replica| seen.published.get(&(replica, kid.to_owned())).copied()).collect();
    // The first key signs at once, and the successor of the removed one may.
    let mut used: Vec<(&String, &(f64, f64))> = seen.used.iter().collect();
    used.sort_by(|one, other| one.1.0.total_cmp(&other.1.0));
    let (mut ahead, mut late) = (f64::INFINITY, 0.0_f64);
    for (kid, (first, exp)) in used.iter().skip(1).take(rotations.saturating_sub(1)) {
        let published: Vec<(f64, f64)> = by_kid(kid);
        for (since, until) in published {
            ahead = ahead.min(first - since);
            late = late.max(until - (exp + SKEW));
        }
    }
    let note = "seconds of the replicas' clocks; a sample comes every six";
    report.add("13", "published before it signs, s, least", Goal::AtLeast(354.0 - CLOCKS), ahead, note);
    let note = "seconds after the last exp and a minute; of every replaced key on every replica";
    report.add("13", "published after its last token, s, most", Goal::AtMost(60.0), late, note);
    report.add("13", "a removed key leaves every key set, s", Goal::AtMost(2.0), removed, "real seconds");
}

#[expect(clippy::disallowed_methods, reason = "the clocks of the replicas are made from the system's")]
fn real() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// How much faster time passes.
const PACE: f64 = 60.0;
/// Seconds by which the clocks of two processes may differ, and a sample be late.
const CLOCKS: f64 = 6.0;
/// Clock skew for which a key stays published.
const SKEW: f64 = 60.0;
const HOUR: f64 = 3600.0;
/// Lifetime of tokens, and time for which a replica signs without the database.
const LIFETIME: &str = "20m";
