//! One round: a request with something that may be used once, the same bytes to all replicas.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::client_key::{ClientKey, assertion_request};
use grantd_kit::clients::{Client, register_key};
use grantd_kit::connection::Connection;
use grantd_kit::grantd::{ISSUER, TOKEN_ENDPOINT};
use grantd_kit::http::with_field;
use grantd_kit::program::field;
use tokio::time::{Instant, sleep, timeout};

use crate::driver::End;
use crate::figures::jti_of;
use crate::pool::Pool;
use crate::replica::PROXY;
use crate::rig::Rig;

/// The result of one round.
#[derive(Debug)]
pub struct Round {
    /// The source that its requests name, which no other round has.
    pub name: Ipv4Addr,
    /// Whether it was an assertion; else a proof.
    pub assertion: bool,
    pub sent: Instant,
    pub ended: Instant,
    /// From the first request sent to the last.
    pub spread: Duration,
    pub ends: Vec<End>,
    /// The ids of tokens that were answered.
    pub tokens: Vec<String>,
}

impl Round {
    pub fn accepted(&self) -> usize {
        self.ends.iter().filter(|end| matches!(end, End::Status(200, _))).count()
    }

    /// One token, and two refusals that say nothing but that it was spent.
    pub fn is_exactly_one(&self) -> bool {
        let refused = if self.assertion { 401 } else { 400 };
        let replays = self.ends.iter().filter(|end| matches!(end, End::Status(status, _) if *status == refused));
        self.accepted() == 1 && self.tokens.len() == 1 && replays.count() == 2
    }
}

/// The clients that send, and their connections.
pub struct Senders {
    with_keys: Vec<(String, ClientKey)>,
    with_secrets: Vec<Client>,
    /// Signs all proofs: one key serves for all clients.
    prover: ClientKey,
    replicas: Vec<(SocketAddr, Pool)>,
}

impl Senders {
    /// Registers some with keys, and takes some of those with secrets.
    pub async fn register(rig: &Rig) -> anyhow::Result<Self> {
        let mut with_keys = Vec::new();
        for n in 0..SENDERS {
            let id = format!("vouched-{}-{n:02}", rig.recorded);
            let key = register_key(&rig.grantd, &id).await?;
            with_keys.push((id, key));
        }
        // Until every replica knows them.
        sleep(Duration::from_secs(2)).await;
        let with_secrets: Vec<Client> =
            rig.registrations.warm.iter().filter(|known| !known.imported).take(SENDERS).cloned().collect();
        anyhow::ensure!(!with_secrets.is_empty(), "no client has a secret");
        let replicas = rig.addresses().into_iter().map(|address| (address, Pool::new(SPARE))).collect();
        Ok(Self { with_keys, with_secrets, prover: ClientKey::generate()?, replicas })
    }

    /// The n-th round.
    pub async fn round(&self, n: usize) -> anyhow::Result<Round> {
        let assertion = n.is_multiple_of(2);
        let name = Ipv4Addr::from(FIRST_NAME + u32::try_from(n)?);
        let mut connections = Vec::new();
        for (address, kept) in &self.replicas {
            connections.push(match kept.take() {
                Some(connection) => Some(connection),
                // A replica that is down refuses at once; one that is too busy to take a connection counts as down.
                None => {
                    timeout(PATIENCE, Connection::open(IpAddr::V4(PROXY), *address)).await.ok().and_then(Result::ok)
                }
            });
        }
        let bytes = if assertion { self.assertion(n, name)? } else { self.proof(n, name)? };
        // Each replica is the first in its turn.
        let mut order = [0, 1, 2];
        order.rotate_left(n / 2 % 3);
        let (sent, mut last, mut failures) = (Instant::now(), Instant::now(), [None; 3]);
        for which in order {
            let connection = connections.get_mut(which).and_then(Option::as_mut);
            let failed = match connection {
                Some(connection) => connection.send(&bytes).await.err().map(End::from),
                None => Some(End::NotConnected),
            };
            if let Some(slot) = failures.get_mut(which) {
                *slot = failed;
            }
            last = Instant::now();
        }
        let mut waiting = connections.into_iter().zip(&self.replicas).zip(failures).map(answered);
        let (one, two, three) = (waiting.next(), waiting.next(), waiting.next());
        let (one, two, three) = tokio::join!(
            one.context("three replicas")?,
            two.context("three replicas")?,
            three.context("three replicas")?
        );
        let (mut ends, mut tokens) = (Vec::new(), Vec::new());
        for (end, token) in [one, two, three] {
            ends.push(end);
            tokens.extend(token);
        }
        Ok(Round { name, assertion, sent, ended: Instant::now(), spread: last - sent, ends, tokens })
    }

    fn assertion(&self, n: usize, name: Ipv4Addr) -> anyhow::Result<Vec<u8>> {
        let (id, key) = self.with_keys.get(n / 2 % SENDERS).context("a client with a key")?;
        Ok(with_field(&assertion_request(&key.assertion(id, ISSUER)?), "X-Forwarded-For", &name.to_string()))
    }

    fn proof(&self, n: usize, name: Ipv4Addr) -> anyhow::Result<Vec<u8>> {
        let client = self.with_secrets.get(n / 2 % self.with_secrets.len().max(1)).context("a client with a secret")?;
        let request = with_field(&client.request, "DPoP", &self.prover.proof(TOKEN_ENDPOINT)?);
        Ok(with_field(&request, "X-Forwarded-For", &name.to_string()))
    }
}

type Sent<'a> = ((Option<Connection>, &'a (SocketAddr, Pool)), Option<End>);

/// Returns the answer of one replica, and the id of its token.
async fn answered(((connection, (_, kept)), failed): Sent<'_>) -> (End, Option<String>) {
    let (None, Some(mut connection)) = (failed, connection) else {
        return (failed.unwrap_or(End::NotConnected), None);
    };
    match timeout(PATIENCE, connection.answer()).await {
        Ok(Ok(answer)) => {
            let body = String::from_utf8_lossy(connection.body(&answer));
            let jti = field(&body, "access_token").and_then(|token| jti_of(&token));
            let end = End::Status(answer.status, answer.retry_after.is_some());
            if !answer.close {
                kept.give_back(connection);
            }
            (end, jti)
        }
        Ok(Err(failure)) => (failure.into(), None),
        Err(_) => (End::Late, None),
    }
}

/// Senders of each sort.
const SENDERS: usize = 20;
/// 10.0.0.1 is the name of the first round.
const FIRST_NAME: u32 = 0x0a00_0001;
/// Idle connections to each replica.
const SPARE: usize = 256;
/// Longer than a replica waits for its database.
const PATIENCE: Duration = Duration::from_secs(8);
