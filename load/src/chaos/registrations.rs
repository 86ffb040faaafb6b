//! The clients of a run: some thousand that only fill the registry, and some with real secrets that ask for tokens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::chance::{below, honest_loopback, untagged_secret};
use super::connection::Connection;
use super::driver::{Ask, Kind, Stream};
use super::http::token_request;
use super::postgres::Postgres;
use super::shell::Cli;

/// A client whose secret we have.
#[derive(Debug, Clone)]
pub struct Known {
    pub client_id: String,
    pub secret_id: String,
    pub imported: bool,
    /// Its token request, ready to send.
    pub request: Arc<[u8]>,
}

/// All of them.
#[derive(Debug)]
pub struct Registrations {
    /// Those that every replica has seen after [`Registrations::warm_up`].
    pub warm: Arc<[Known]>,
    /// Those kept back, to be new to a replica when it counts.
    cold: Arc<[Known]>,
    cold_used: AtomicUsize,
    /// How many clients have no secret that anybody knows.
    pub idle: usize,
}

impl Registrations {
    /// Registers `total` clients of which `active` have secrets that we keep, a tenth of those imported ones.
    pub async fn make(cli: &Cli, postgres: &Postgres, total: usize, active: usize) -> anyhow::Result<Self> {
        let idle = total.saturating_sub(active);
        // The first makes the key that tags secrets, which the idle ones are to have too.
        let first = register(cli, "active-first", false).await?;
        postgres.sql(&bulk(idle)).await.context("registering idle clients")?;
        // Each takes a hash: more than two at once would only wait for processors.
        let places = Arc::new(Semaphore::new(2));
        let mut tasks = JoinSet::new();
        for number in 1..active {
            let (cli, places) = (cli.clone(), Arc::clone(&places));
            tasks.spawn(async move {
                let _place = places.acquire().await?;
                register(&cli, &format!("active-{number:05}"), number % 10 == 9).await
            });
        }
        let mut known = Vec::with_capacity(active);
        known.push(first);
        while let Some(registered) = tasks.join_next().await {
            known.push(registered??);
        }
        known.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        let cold = known.split_off(active - active / 5);
        Ok(Self { warm: known.into(), cold: cold.into(), cold_used: AtomicUsize::new(0), idle })
    }

    /// Lets every warm client get a token from every replica once, with as many in flight as keeps the lane busy.
    pub async fn warm_up(&self, replicas: &[SocketAddr]) -> anyhow::Result<()> {
        let places = Arc::new(Semaphore::new(8));
        let mut tasks = JoinSet::new();
        for (number, known) in self.warm.iter().enumerate() {
            for replica in replicas.iter().copied() {
                let (places, request) = (Arc::clone(&places), Arc::clone(&known.request));
                tasks.spawn(async move {
                    let _place = places.acquire().await?;
                    until_token(replica, number as u64, &request).await
                });
            }
        }
        while let Some(warmed) = tasks.join_next().await {
            warmed??;
        }
        Ok(())
    }

    /// Honest requests by warm clients, to all replicas in turn.
    pub fn warm_stream(&self, rate: f64, lasts: Duration) -> Stream {
        let warm = Arc::clone(&self.warm);
        Stream::honest(rate, lasts, Box::new(move |n| ask(Kind::Warm, n, &warm, below(n, warm.len()))))
    }

    /// Pairs of a client and a replica that have not met, to be used once.
    pub fn take_cold(&self, most: usize) -> Vec<(Known, usize)> {
        let from = self.cold_used.fetch_add(most, Ordering::Relaxed);
        (from..from + most)
            .filter_map(|pair| {
                // First each client to one replica, then each to the next.
                let (client, turn) = (pair % self.cold.len().max(1), pair / self.cold.len().max(1));
                (turn < 3).then_some((self.cold.get(client)?.clone(), (client + turn) % 3))
            })
            .collect()
    }

    /// How many such pairs are left.
    pub fn cold_left(&self) -> usize {
        (3 * self.cold.len()).saturating_sub(self.cold_used.load(Ordering::Relaxed))
    }

    /// After every replica was started anew, nobody has met it.
    pub fn all_cold_again(&self) {
        self.cold_used.store(0, Ordering::Relaxed);
    }

    /// The id of any registered client.
    pub fn any_id(&self, n: u64) -> String {
        let idle = below(n, self.idle + self.warm.len());
        match self.warm.get(idle) {
            Some(known) => known.client_id.clone(),
            None => format!("idle-{:05}", idle - self.warm.len() + 1),
        }
    }
}

/// A request of a known client to the replica whose turn it is.
pub fn ask(kind: Kind, n: u64, clients: &[Known], which: usize) -> Ask {
    let bytes = clients.get(which).map(|known| Arc::clone(&known.request)).unwrap_or_default();
    Ask { kind, replica: below(n ^ 0x7e11, 3), bytes }
}

/// Registers one client as an operator does.
pub async fn register(cli: &Cli, client_id: &str, imported: bool) -> anyhow::Result<Known> {
    let mut create = vec!["client", "create", client_id, "--scope", "a b", "--default-scope", "a", "--json"];
    if imported {
        create.push("--no-secret");
    }
    let mut printed = cli.must(&create, "").await?.stdout;
    let mut chosen = None;
    if imported {
        let secret = untagged_secret(client_id.bytes().fold(1, |n, byte| n * 31 % 0xffff_ffff + u64::from(byte)));
        printed = cli.must(&["client", "secret", "import", client_id, "--json"], &secret).await?.stdout;
        chosen = Some(secret);
    }
    let printed: serde_json::Value = serde_json::from_str(&printed).context("what grantd printed")?;
    let text = |key: &str| printed.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let secret = chosen.or_else(|| text("client_secret")).context("grantd printed no secret")?;
    let secret_id = text("secret_id").context("grantd printed no secret_id")?;
    let request = token_request(client_id, &secret).into();
    Ok(Known { client_id: client_id.to_owned(), secret_id, imported, request })
}

/// Asks until there is a token, a bounded number of times.
async fn until_token(replica: SocketAddr, number: u64, request: &[u8]) -> anyhow::Result<()> {
    let mut last = None;
    for attempt in 0..30 {
        let asking = async {
            let mut connection = Connection::open(honest_loopback(number ^ attempt << 32), replica).await?;
            connection.exchange(request).await.map_err(|failure| anyhow::anyhow!("{failure:?}"))
        };
        match timeout(Duration::from_secs(10), asking).await {
            Ok(Ok(answer)) if answer.status == 200 => return Ok(()),
            other => last = Some(other),
        }
        sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("a client could not be warmed up: {last:?}")
}

/// Clients with hashes that no secret has. Salt and output are of the right length and alphabet.
fn bulk(idle: usize) -> String {
    format!(
        "begin;
         insert into client (client_id, scope, default_scope)
             select 'idle-' || lpad(i::text, 5, '0'), 'a b', 'a' from generate_series(1, {idle}) as i;
         insert into client_secret (client_id, imported, tag_key, hash)
             select 'idle-' || lpad(i::text, 5, '0'), case when i % 10 = 0 then 1 else 0 end,
                 case when i % 10 = 0 then null else (select max(kid) from secret_tag_key) end,
                 '$argon2id$v=19$m=19456,t=2,p=1$'
                 || rtrim(encode(substring(sha256(('salt' || i)::bytea) from 1 for 16), 'base64'), '=')
                 || '$' || rtrim(encode(sha256(('hash' || i)::bytea), 'base64'), '=')
             from generate_series(1, {idle}) as i;
         commit;"
    )
}
