//! Random histories over three replicas: the lists and introspection say the same, and no token comes back to life.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{SECOND, World, bit, bits_of, of_api, part, reference};
use crate::harness::{Db, Server, new_secret};
use grantd::crypto::secret::new_secret_id;
use grantd::model::credential::SecretOrigin;

on_both!(lists_and_introspection_agree_in_any_history);

/// Numbers that follow from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(most).unwrap()).unwrap()
    }
}

/// A token of the history.
struct Token {
    text: String,
    client: &'static str,
    /// Whether it has to live; `None` for one of a replica that had not heard of the last change.
    lives: Option<bool>,
}

struct History {
    world: World,
    chance: Chance,
    tokens: Vec<Token>,
    /// The clients that exist, and whether they are enabled.
    clients: BTreeMap<&'static str, bool>,
    /// Tokens that some replica has called revoked, and since when.
    revoked: BTreeMap<usize, Instant>,
    told: Vec<String>,
}

const CLIENTS: [&str; 3] = ["a", "b", "c"];
const SECRET: &str = "a secret that was chosen elsewhere and is long";

impl History {
    async fn new(db: Db, seed: u64) -> Self {
        let world = World::of(db, 3).await;
        let mut history = Self {
            world,
            chance: Chance(seed),
            tokens: Vec::new(),
            clients: BTreeMap::new(),
            revoked: BTreeMap::new(),
            told: vec![format!("seed {seed}")],
        };
        for id in CLIENTS {
            history.create(id).await;
        }
        history
    }

    async fn create(&mut self, id: &'static str) {
        let secret = new_secret(&new_secret_id().unwrap(), SECRET, SecretOrigin::Imported);
        self.world.first().store.create_client(&of_api(id), Some(&secret)).await.unwrap();
        self.clients.insert(id, true);
    }

    fn end(&mut self, client: Option<&str>) {
        for token in self.tokens.iter_mut().filter(|token| client.is_none_or(|client| token.client == client)) {
            token.lives = Some(false);
        }
    }

    /// Asks a replica for a token. One that has not heard of the last change may refuse it.
    async fn issue(&mut self, is_settled: bool) {
        let client = CLIENTS[self.chance.below(3)];
        let replica = self.chance.below(3);
        let answer = self.world.servers[replica].basic(client, SECRET, "").await;
        if answer.status == 200 {
            assert!(!is_settled || self.clients.get(client) == Some(&true), "{:?}", self.told);
            let lives = is_settled.then_some(true);
            self.tokens.push(Token { text: answer.access_token(), client, lives });
            self.told.push(format!("token {} of {client} by {replica}", self.tokens.len() - 1));
        } else if answer.status != 429 {
            assert!(!is_settled || self.clients.get(client) != Some(&true), "{} {:?}", answer.body, self.told);
        }
    }

    /// Changes something, and returns when the change is committed.
    async fn change(&mut self) {
        let client = CLIENTS[self.chance.below(3)];
        let store = self.world.first().store.clone();
        let exists = self.clients.contains_key(client);
        let kind = self.chance.below(11);
        self.told.push(format!("change {kind} of {client}"));
        let sql = |sql: &str| sql.replace("APP", &format!("where client_id = '{client}'"));
        let run = match kind {
            0 | 1 if exists => {
                let enabled = self.clients.insert(client, kind == 1) != Some(kind == 1);
                assert!(store.set_client_enabled(client, kind == 1).await.unwrap());
                if enabled {
                    self.end(Some(client));
                }
                return;
            }
            2 => {
                self.end(Some(client));
                self.clients.entry(client).and_modify(|enabled| *enabled = true);
                sql("begin; update client set enabled = 0 APP; update client set enabled = 1 APP; commit")
            }
            3 => {
                self.end(Some(client));
                let now = store.now().await.unwrap();
                assert_eq!(store.revoke_tokens_of(client, now).await.unwrap(), exists);
                return;
            }
            4 => {
                self.end(None);
                store.revoke_all_tokens(store.now().await.unwrap()).await.unwrap();
                return;
            }
            5 => {
                self.end(Some(client));
                self.clients.remove(client);
                store.delete_client(client).await.unwrap();
                return;
            }
            6 if !exists => return self.create(client).await,
            7 => {
                self.end(Some(client));
                sql("update client set expires_at = 1 APP; update client set expires_at = null APP")
            }
            8 => sql("update client set enabled = enabled, not_before = not_before, scope = scope APP"),
            9 if self.clients.get(client) == Some(&true) => {
                let of_client = |token: &&mut Token| token.client == client;
                let Some(token) = self.tokens.iter_mut().rev().find(of_client) else { return };
                let replica = self.chance.below(3);
                let answer = self.world.servers[replica].revoke(client, SECRET, &token.text).await;
                // A replica that has not heard of the client refuses it.
                if answer.status == 200 {
                    token.lives = Some(false);
                }
                return;
            }
            10 if !self.told.iter().any(|told| told.starts_with("change 4")) => {
                self.end(None);
                "update token_cutoff set not_before = not_before + 1 where not_before < 1000".to_owned()
            }
            _ => return,
        };
        self.world.first().db.sql(&run).await.unwrap();
    }

    /// Asks a replica about every token: first its lists, then introspection.
    async fn ask(&self, server: &Server) -> Vec<(bool, bool)> {
        let mut lists = BTreeMap::new();
        for path in self.tokens.iter().map(|token| reference(&token.text).0).collect::<BTreeSet<_>>() {
            let list = server.get(&path).await;
            if list.status == 200 {
                lists.insert(path, (bits_of(&list), part(&list.body, 1)["revoked_jti"].clone()));
            }
        }
        let mut answers = Vec::new();
        for token in &self.tokens {
            let (path, index) = reference(&token.text);
            let jti = &part(&token.text, 1)["jti"];
            let is_listed = lists
                .get(&path)
                .is_some_and(|(bits, revoked)| bit(bits, index) || revoked.as_array().unwrap().contains(jti));
            let knows_client = server.server.registry.snapshot().client(token.client).is_some();
            let is_active = self.world.is_active(server, &token.text).await;
            // A client that a replica has not heard of yet is no revocation.
            answers.push((is_listed, is_active || !knows_client && !is_listed));
        }
        answers
    }

    /// Asks all replicas, and returns whether all say the same, which is what the history demands.
    async fn check(&mut self) -> bool {
        let mut is_settled = true;
        for replica in 0..self.world.servers.len() {
            let asked = Instant::now();
            let answers = self.ask(&self.world.servers[replica]).await;
            for (number, (is_listed, is_active)) in answers.into_iter().enumerate() {
                let told = || format!("token {number} at {replica}: {:?}", self.told);
                // "what the list calls revoked is never active (at once on the replica that answers)"
                assert!(!(is_listed && is_active), "{}", told());
                if is_listed || !is_active {
                    let since = *self.revoked.entry(number).or_insert(asked);
                    assert!(self.tokens[number].lives != Some(true), "it has to live: {}", told());
                    is_settled &= is_listed && !is_active;
                    assert!(is_listed || asked.duration_since(since) < SECOND, "not listed in a second: {}", told());
                } else {
                    let since = self.revoked.get(&number);
                    let is_late = since.is_some_and(|since| asked.duration_since(*since) >= SECOND);
                    assert!(!is_late, "active a second after it was called revoked: {}", told());
                    is_settled &= since.is_none() && self.tokens[number].lives != Some(false);
                }
            }
        }
        is_settled
    }

    async fn settle(&mut self) {
        let started = Instant::now();
        while !self.check().await {
            assert!(started.elapsed() < SECOND, "the replicas differ after a second: {:?}", self.told);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.world.refresh().await;
    }
}

async fn lists_and_introspection_agree_in_any_history(db: Db) {
    let random = u64::from_ne_bytes(grantd::crypto::random::<8>().unwrap());
    let seed = std::env::var("GRANTD_TEST_SEED").map_or(random, |seed| seed.parse().unwrap());
    println!("seed {seed}; GRANTD_TEST_SEED repeats it");
    let mut history = History::new(db, seed).await;
    history.settle().await;
    for _ in 0..CHANGES {
        for _ in 0..2 {
            history.issue(true).await;
        }
        for _ in 0..=history.chance.below(3) {
            history.change().await;
            if history.chance.below(2) == 0 {
                history.issue(false).await;
            }
            // Whether all replicas say the same already is no matter here.
            let _ = history.check().await;
        }
        history.settle().await;
    }
}

const CHANGES: usize = 12;
