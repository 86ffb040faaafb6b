//! One round: a request with something that may be used once, the same bytes to all replicas.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokio::time::{Instant, sleep, timeout};

use crate::chaos::connection::{Connection, Failure, KeptAlive};
use crate::chaos::driver::End;
use crate::chaos::registrations::Known;
use crate::chaos::replica::{ISSUER, PROXY};
use crate::chaos::rig::Rig;
use crate::client_key::{ClientKey, assertion_form};

/// What became of one.
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

/// Those who send.
pub struct Senders {
    with_keys: Vec<(String, ClientKey)>,
    with_secrets: Vec<Known>,
    /// Signs all proofs: whose key it is does not matter.
    prover: ClientKey,
    replicas: Vec<(SocketAddr, KeptAlive)>,
}

impl Senders {
    /// Registers some with keys, and takes some of those with secrets.
    pub async fn register(rig: &Rig) -> anyhow::Result<Self> {
        let mut with_keys = Vec::new();
        for n in 0..SENDERS {
            let (id, key) = (format!("vouched-{}-{n:02}", rig.recorded), ClientKey::generate()?);
            let create = ["client", "create", &id, "--scope", "a", "--default-scope", "a", "--no-secret"];
            rig.cli.must(&create, "").await?;
            rig.cli.must(&["client", "key", "add", &id, "--jwk", "-"], &key.jwk()).await?;
            with_keys.push((id, key));
        }
        // Until every replica knows them.
        sleep(Duration::from_secs(2)).await;
        let with_secrets: Vec<Known> =
            rig.registrations.warm.iter().filter(|known| !known.imported).take(SENDERS).cloned().collect();
        anyhow::ensure!(!with_secrets.is_empty(), "no client has a secret");
        let replicas = rig.addresses().into_iter().map(|address| (address, KeptAlive::new(SPARE))).collect();
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
                Some(connection) => connection.send(&bytes).await.err().map(end_of),
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
        let form = assertion_form(&key.assertion(id, ISSUER)?);
        Ok(format!(
            "POST /token HTTP/1.1\r\nHost: grantd\r\nX-Forwarded-For: {name}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        )
        .into_bytes())
    }

    fn proof(&self, n: usize, name: Ipv4Addr) -> anyhow::Result<Vec<u8>> {
        let known = self.with_secrets.get(n / 2 % self.with_secrets.len().max(1)).context("a client with a secret")?;
        let proof = self.prover.proof(&format!("{ISSUER}/token"))?;
        let line = known.request.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (line, rest) = known.request.split_at(line);
        Ok([line, format!("X-Forwarded-For: {name}\r\nDPoP: {proof}\r\n").as_bytes(), rest].concat())
    }
}

type Sent<'a> = ((Option<Connection>, &'a (SocketAddr, KeptAlive)), Option<End>);

/// What one replica answers, and the id of its token.
async fn answered(((connection, (_, kept)), failed): Sent<'_>) -> (End, Option<String>) {
    let (None, Some(mut connection)) = (failed, connection) else {
        return (failed.unwrap_or(End::NotConnected), None);
    };
    match timeout(PATIENCE, connection.answer()).await {
        Ok(Ok(answer)) => {
            let token = (answer.status == 200).then(|| jti(connection.body(&answer))).flatten();
            let end = End::Status(answer.status, answer.retry_after.is_some());
            if !answer.close {
                kept.give_back(connection);
            }
            (end, token)
        }
        Ok(Err(failure)) => (end_of(failure), None),
        Err(_) => (End::Late, None),
    }
}

fn end_of(failure: Failure) -> End {
    match failure {
        Failure::Closed => End::Closed,
        Failure::Malformed => End::Malformed,
    }
}

/// The `jti` of the token in an answer.
fn jti(body: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let claims = answer.get("access_token")?.as_str()?.split('.').nth(1)?;
    let claims: serde_json::Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    Some(claims.get("jti")?.as_str()?.to_owned())
}

/// Of each sort.
const SENDERS: usize = 20;
/// 10.0.0.1 is the name of the first round.
const FIRST_NAME: u32 = 0x0a00_0001;
/// Idle connections to each replica.
const SPARE: usize = 256;
/// Longer than a replica waits for its database.
const PATIENCE: Duration = Duration::from_secs(8);
