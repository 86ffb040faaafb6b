//! Signing keys that replace each other: their publication in each state, and the view of a verifier with a cache.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grantd::crypto::jwk::Alg;
use grantd::crypto::seal::SealingKey;
use grantd::model::time::{Clock, Span, UnixTime};
use grantd::state::keyring::{Keyring, LONGEST_TTL, PUBLISH_AHEAD};
use grantd::store::keys::new_key;
use serde_json::Value;

use crate::harness::{Db, Setup};

on_both!(
    every_published_key_is_public_and_typed_in_every_state_on_every_replica,
    no_verifier_with_a_cache_meets_a_token_of_an_unknown_key,
);

const START: i64 = 1_800_000_000;

fn keys_of(document: &Value) -> &Vec<Value> {
    document["keys"].as_array().unwrap()
}

async fn every_published_key_is_public_and_typed_in_every_state_on_every_replica(db: Db) {
    let mut setup = Setup::new(db).await;
    (setup.clock, _) = Clock::fixed(START);
    let under = SealingKey::from_base64(&setup.sealing_key).unwrap();
    let mut made = BTreeMap::new();
    for alg in Alg::ALL {
        // Retiring, active, next.
        for (before, ahead) in [(1000, 0), (10, 0), (10, 360)] {
            let key = new_key(alg, &under, UnixTime(START - before), Span::from_secs(ahead)).unwrap();
            setup.store.add_key(&key).await.unwrap();
            made.insert(key.kid.clone(), alg);
        }
    }
    let server = setup.start().await;
    let replica = server.replica().await;
    let body = server.get("/jwks").await.body;
    assert_eq!(replica.get("/jwks").await.body, body);
    let document: Value = serde_json::from_str(&body).unwrap();
    let mut seen = BTreeSet::new();
    for key in keys_of(&document) {
        let kid = key["kid"].as_str().unwrap();
        assert!(seen.insert(kid.to_owned()), "{kid} stands twice");
        let alg = made[kid];
        assert_eq!((&key["alg"], &key["use"]), (&alg.as_str().into(), &"sig".into()), "{key}");
        let (kty, of_kty): (_, &[&str]) = match alg {
            Alg::Es256 => ("EC", &["crv", "x", "y"]),
            Alg::EdDsa => ("OKP", &["crv", "x"]),
            Alg::Ps256 | Alg::Rs256 => ("RSA", &["n", "e"]),
        };
        assert_eq!(key["kty"], kty);
        // No d, p, q, dp, dq, qi, k or oth, and nothing else that nobody has thought of.
        let members: BTreeSet<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
        let expected: BTreeSet<&str> = ["kty", "kid", "alg", "use"].iter().chain(of_kty).copied().collect();
        assert_eq!(members, expected, "{key}");
    }
    assert_eq!(seen, made.keys().cloned().collect(), "four algorithms in three states");
}

/// One hundred rotations by the clock of the keys alone, so that a month passes in a moment.
async fn no_verifier_with_a_cache_meets_a_token_of_an_unknown_key(db: Db) {
    const EVERY: i64 = 6 * 3600;
    let server = Setup::new(Db::sqlite()).await.start().await;
    let cached_for = server.get("/jwks").await.header("cache-control").to_owned();
    let cached_for: i64 = cached_for.strip_prefix("public, max-age=").unwrap().parse().unwrap();
    let (ahead, longest) = (PUBLISH_AHEAD.seconds(), LONGEST_TTL.seconds());

    // Nothing runs on these keys but what is below.
    let Setup { store, sealing_key, .. } = &Setup::new(db).await;
    let under = SealingKey::from_base64(sealing_key).unwrap();
    let keyring = Keyring::default();
    let first = new_key(Alg::Es256, &under, UnixTime(START - EVERY), Span::from_secs(0)).unwrap();
    store.add_key(&first).await.unwrap();
    // What was published when, as far back as a cache goes; until when the last token of each key lives.
    let (mut published, mut live) = (VecDeque::new(), BTreeMap::new());
    let (mut signs, mut replaced_at) = (first.kid.clone(), BTreeMap::new());
    for rotation in 0..100 {
        let rotated_at = START + rotation * EVERY;
        let next = new_key(Alg::Es256, &under, UnixTime(rotated_at), PUBLISH_AHEAD).unwrap();
        store.add_key(&next).await.unwrap();
        replaced_at.insert(std::mem::replace(&mut signs, next.kid.clone()), rotated_at + ahead);
        assert!(keyring.load(&store.keys().await.unwrap(), &under).is_empty());
        // Every second around a change and a minute later, and now and then between two.
        let busy = (0..2).chain(ahead - 2..ahead + 2).chain(ahead + 58..ahead + 62);
        let busy = busy.chain([ahead + cached_for - 1, ahead + cached_for, EVERY - 1]);
        let quiet = (1..EVERY / 1800).map(|step| step * 1800);
        let seconds: BTreeSet<i64> = busy.chain(quiet).collect();
        for second in seconds {
            let now = rotated_at + second;
            keyring.publish(UnixTime(now));
            let document: Value = serde_json::from_slice(&keyring.jwks().body).unwrap();
            let kids: BTreeSet<String> =
                keys_of(&document).iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
            for (kid, at) in kids.iter().filter_map(|kid| Some((kid, replaced_at.get(kid)?))) {
                assert!(now < at + longest + 60, "{kid} was replaced at {at} and is still published at {now}");
            }
            published.push_back((now, kids));
            while published.front().is_some_and(|(then, _)| *then <= now - cached_for) {
                published.pop_front();
            }
            let signer = keyring.signing(Alg::Es256, UnixTime(now)).unwrap().kid().to_owned();
            assert_eq!(signer == next.kid, second >= ahead, "{second} after rotation {rotation}");
            live.insert(signer, now + longest);
            live.retain(|_, ends| *ends > now);
            for (fetched, kids) in &published {
                for (kid, ends) in &live {
                    // A token is as old as its cache or younger: whatever lives now can be shown to whoever fetched then.
                    assert!(kids.contains(kid), "fetched at {fetched}, it lacks {kid} at {now}, live until {ends}");
                }
            }
        }
    }
}
