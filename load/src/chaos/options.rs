//! What was asked for on the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::patroni::Patroni;
use super::postgres::Postgres;

/// The whole of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which figures, by their numbers.
    pub figures: Vec<String>,
    pub runs: usize,
    pub grantd: PathBuf,
    pub room: PathBuf,
    pub database_host: String,
    pub postgres: Postgres,
    pub record: Option<PathBuf>,
    /// C0 when it is known already; else the ramp finds it.
    pub capacity: Option<f64>,
    /// Most that honest clients ask a second, whatever the capacity.
    pub honest_cap: f64,
    /// Most that is ever asked a second.
    pub rate_cap: f64,
    pub lengths: Lengths,
    /// The program of the release before, for figure 14.
    pub previous: Option<PathBuf>,
    /// The cluster of figure 12.
    pub patroni: Option<Patroni>,
    /// Chooses the faults of figure 15.
    pub seed: Option<u64>,
}

/// How long and how often.
#[derive(Debug, Clone)]
pub struct Lengths {
    pub clients: usize,
    pub active: usize,
    pub ramp_step: Duration,
    pub refinements: usize,
    /// Each measurement without a fault.
    pub base: Duration,
    pub flood: Duration,
    pub outage: Duration,
    pub partition: Duration,
    pub trials: usize,
    /// How many assertions and proofs are sent to all replicas.
    pub rounds: usize,
    /// Restarts of a replica, for each way to reach them.
    pub restarts: usize,
    /// Replicas that are killed.
    pub kills: usize,
    /// Upgrades, each with the way back.
    pub upgrades: usize,
    pub soak: Duration,
    /// How long a part of the Patroni cluster is away.
    pub failover: Duration,
    /// Each shape of hostile connections.
    pub hostile: Duration,
    pub connections: usize,
    /// Each step of the overload.
    pub overload: Duration,
    pub cancelled: usize,
    /// For each class of clients, at most, and the time that one comparison may take.
    pub samples: usize,
    pub comparison: Duration,
}

const SECOND: Duration = Duration::from_secs(1);

impl Lengths {
    /// All figures in about a quarter of an hour.
    pub const USUAL: Self = Self {
        clients: 10_000,
        active: 1000,
        ramp_step: SECOND.saturating_mul(3),
        refinements: 3,
        base: SECOND.saturating_mul(10),
        flood: SECOND.saturating_mul(30),
        outage: SECOND.saturating_mul(30),
        partition: SECOND.saturating_mul(30),
        trials: 100,
        rounds: 10_000,
        restarts: 12,
        kills: 20,
        upgrades: 3,
        soak: SECOND.saturating_mul(120),
        failover: SECOND.saturating_mul(30),
        hostile: SECOND.saturating_mul(25),
        connections: 10_000,
        overload: SECOND.saturating_mul(10),
        cancelled: 1000,
        samples: 2000,
        comparison: SECOND.saturating_mul(40),
    };

    /// To see that everything works; the figures are rough.
    const QUICK: Self = Self {
        clients: 1000,
        active: 60,
        ramp_step: SECOND,
        refinements: 2,
        base: SECOND.saturating_mul(4),
        flood: SECOND.saturating_mul(6),
        outage: SECOND.saturating_mul(6),
        partition: SECOND.saturating_mul(8),
        trials: 8,
        rounds: 2000,
        restarts: 3,
        kills: 4,
        upgrades: 1,
        soak: SECOND.saturating_mul(60),
        failover: SECOND.saturating_mul(30),
        hostile: SECOND.saturating_mul(18),
        connections: 1000,
        overload: SECOND.saturating_mul(4),
        cancelled: 100,
        samples: 200,
        comparison: SECOND.saturating_mul(8),
    };

    /// As the targets were written.
    const FULL: Self = Self {
        base: SECOND.saturating_mul(30),
        flood: SECOND.saturating_mul(60),
        partition: SECOND.saturating_mul(120),
        trials: 1000,
        rounds: 100_000,
        restarts: 100,
        kills: 200,
        upgrades: 20,
        soak: SECOND.saturating_mul(1800),
        failover: SECOND.saturating_mul(60),
        hostile: SECOND.saturating_mul(120),
        overload: SECOND.saturating_mul(60),
        samples: 10_000,
        comparison: SECOND.saturating_mul(600),
        ..Self::USUAL
    };
}

/// What there is to measure.
pub const FIGURES: [&str; 15] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "14", "15", "H62", "M80"];

impl Options {
    /// Reads the command line; `script/chaos` gives what tells where the database is.
    pub fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut arguments = arguments.peekable();
        let (mut figures, mut runs, mut record, mut lengths) = (Vec::new(), 1, None, Lengths::USUAL);
        let (mut capacity, mut honest_cap, mut rate_cap) = (None, 500.0, 20_000.0);
        let (mut grantd, mut room, mut host, mut port) = (None, None, None, 5432);
        let (mut previous, mut seed, mut patroni, mut links) = (None, None, None, None);
        let (mut bin, mut data, mut owner, mut namespace) = (None, None, None, None);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
            match argument.as_str() {
                "--quick" => lengths = Lengths { trials: lengths.trials.min(8), ..Lengths::QUICK },
                "--full" => lengths = Lengths::FULL,
                "--runs" => runs = value()?.parse().context("--runs")?,
                "--trials" => lengths.trials = value()?.parse().context("--trials")?,
                "--rounds" => lengths.rounds = value()?.parse().context("--rounds")?,
                "--restarts" => lengths.restarts = value()?.parse().context("--restarts")?,
                "--kills" => lengths.kills = value()?.parse().context("--kills")?,
                "--upgrades" => lengths.upgrades = value()?.parse().context("--upgrades")?,
                "--minutes" => lengths.soak = SECOND.saturating_mul(60 * value()?.parse::<u32>().context("--minutes")?),
                "--hours" => lengths.soak = SECOND.saturating_mul(3600 * value()?.parse::<u32>().context("--hours")?),
                "--seed" => seed = Some(value()?.parse().context("--seed")?),
                "--previous" => previous = Some(PathBuf::from(value()?)),
                "--samples" => lengths.samples = value()?.parse().context("--samples")?,
                "--clients" => lengths.clients = value()?.parse().context("--clients")?,
                "--active" => lengths.active = value()?.parse().context("--active")?,
                "--connections" => lengths.connections = value()?.parse().context("--connections")?,
                "--capacity" => capacity = Some(value()?.parse().context("--capacity")?),
                "--honest-cap" => honest_cap = value()?.parse().context("--honest-cap")?,
                "--rate-cap" => rate_cap = value()?.parse().context("--rate-cap")?,
                "--record" => record = Some(PathBuf::from(value()?)),
                "--grantd" => grantd = Some(PathBuf::from(value()?)),
                "--room" => room = Some(PathBuf::from(value()?)),
                "--pg-host" => host = Some(value()?),
                "--pg-port" => port = value()?.parse().context("--pg-port")?,
                "--pg-bin" => bin = Some(PathBuf::from(value()?)),
                "--pg-data" => data = Some(PathBuf::from(value()?)),
                "--pg-owner" => owner = Some(value()?),
                "--netns" => namespace = Some(value()?),
                "--patroni" => patroni = Some(value()?),
                "--bridge-links" => links = Some(value()?),
                number if FIGURES.contains(&number) => figures.push(number.to_owned()),
                other => bail!("{other}: no such option or figure; the figures are {}", FIGURES.join(" ")),
            }
        }
        if figures.is_empty() {
            // Without the release before, there is nothing to upgrade from.
            let wanted = FIGURES.iter().filter(|&&figure| figure != "14" || previous.is_some());
            figures = wanted.map(|&figure| figure.to_owned()).collect();
        }
        let room = room.context("--room is missing; run script/chaos")?;
        let bin: PathBuf = bin.context("--pg-bin is missing")?;
        let namespace = namespace.context("--netns is missing")?;
        let patroni = match patroni {
            None => None,
            Some(net) => Some(Patroni {
                net,
                room: room.clone(),
                bin: bin.clone(),
                namespace: namespace.clone(),
                links: links.context("--bridge-links is missing")?,
            }),
        };
        let postgres = match &patroni {
            None => Postgres {
                bin,
                data: data.context("--pg-data is missing")?,
                socket: room.clone(),
                owner: owner.context("--pg-owner is missing")?,
                namespace,
                port,
            },
            // Reached through the proxy; what happens to it is Patroni's.
            Some(patroni) => {
                let (socket, port) = (PathBuf::from(patroni.address()), 5000);
                Postgres { bin, data: PathBuf::new(), socket, owner: String::new(), namespace, port }
            }
        };
        let host = host.or_else(|| patroni.as_ref().map(Patroni::address));
        let (grantd, database_host) = (grantd.context("--grantd is missing")?, host.context("--pg-host is missing")?);
        Ok(Self {
            figures,
            runs,
            grantd,
            room,
            database_host,
            postgres,
            record,
            capacity,
            honest_cap,
            rate_cap,
            lengths,
            previous,
            patroni,
            seed,
        })
    }
}
