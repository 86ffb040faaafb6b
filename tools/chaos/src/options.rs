//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use grantd_kit::postgres::Postgres;

use crate::database::Database;
use crate::patroni::Patroni;

/// Measure grantd under faults; run it with script/chaos, which explains the options
#[derive(clap::Parser)]
pub struct Options {
    /// The figures, by their numbers; all when none is named
    #[arg(value_parser = PossibleValuesParser::new(FIGURES))]
    figures: Vec<String>,
    /// Rough figures, to see that everything works
    #[arg(long)]
    quick: bool,
    /// As long and as often as the targets were written
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    #[arg(long, default_value_t = 1)]
    pub runs: usize,
    /// Directory for one line for each request
    #[arg(long)]
    pub record: Option<PathBuf>,
    /// C0 in requests per second, instead of the ramp
    #[arg(long)]
    pub capacity: Option<f64>,
    /// Limit of the honest load, in requests per second
    #[arg(long, default_value_t = 500.0)]
    pub honest_cap: f64,
    /// Limit of every load, in requests per second
    #[arg(long, default_value_t = 20_000.0)]
    pub rate_cap: f64,
    /// Registered clients
    #[arg(long)]
    clients: Option<usize>,
    /// Registered clients whose secrets are known
    #[arg(long)]
    active: Option<usize>,
    /// Hostile connections of figure 9
    #[arg(long)]
    connections: Option<usize>,
    /// Trials of figures 4 and H62
    #[arg(long)]
    trials: Option<usize>,
    /// Assertions and proofs of figure 6
    #[arg(long)]
    rounds: Option<usize>,
    /// Restarts of figure 7, for each way to reach the replicas
    #[arg(long)]
    restarts: Option<usize>,
    /// Replicas that figures 5 and 8 kill
    #[arg(long)]
    kills: Option<usize>,
    /// Rotations of figure 13
    #[arg(long)]
    rotations: Option<usize>,
    /// Upgrades of figure 14, each with the way back
    #[arg(long)]
    upgrades: Option<usize>,
    /// Samples of figure M80 for each class of clients, at most
    #[arg(long)]
    samples: Option<usize>,
    /// Length of figure 15
    #[arg(long)]
    minutes: Option<u64>,
    /// Length of figure 15
    #[arg(long, conflicts_with = "minutes")]
    hours: Option<u64>,
    /// Chooses the faults of figure 15
    #[arg(long)]
    pub seed: Option<u64>,
    /// Program of the release before, for figure 14
    #[arg(long)]
    pub previous: Option<PathBuf>,
    #[command(flatten)]
    pub place: Place,
}

/// Where the programs and the database are. script/chaos fills this in.
#[derive(clap::Args)]
pub struct Place {
    #[arg(long)]
    pub grantd: PathBuf,
    /// Directory of the run
    #[arg(long)]
    pub room: PathBuf,
    #[arg(long)]
    netns: String,
    #[arg(long)]
    pg_bin: PathBuf,
    #[arg(long, default_value = "", required_unless_present = "patroni")]
    pg_host: String,
    #[arg(long, default_value_t = 5432)]
    pg_port: u16,
    #[arg(long, required_unless_present = "patroni")]
    pg_data: Option<PathBuf>,
    #[arg(long, default_value = "", required_unless_present = "patroni")]
    pg_owner: String,
    /// Network of the Patroni cluster of figure 12: the first three numbers of its addresses
    #[arg(long, requires = "bridge_links")]
    patroni: Option<String>,
    #[arg(long, default_value = "")]
    bridge_links: String,
}

impl Place {
    /// The Patroni cluster, if there is one.
    pub fn patroni(&self) -> Option<Patroni> {
        let (net, links) = (self.patroni.clone()?, self.bridge_links.clone());
        Some(Patroni::new(net, self.room.clone(), &self.pg_bin, self.netns.clone(), links))
    }

    /// `database.url` of the replicas, and the database; that of a cluster is reached through its proxy.
    pub fn database(&self, patroni: Option<&Patroni>) -> (String, Database) {
        let (host, port) = patroni.map_or_else(|| (self.pg_host.clone(), self.pg_port), Patroni::address);
        let socket = patroni.map_or_else(|| self.room.clone(), |_| PathBuf::from(&host));
        let url = format!("?host={}&port={port}", socket.display());
        let database = Database {
            server: Postgres::new(Some(&self.pg_bin), "postgres://postgres@/", &url),
            bin: self.pg_bin.clone(),
            data: self.pg_data.clone().unwrap_or_default(),
            socket,
            owner: self.pg_owner.clone(),
            namespace: self.netns.clone(),
            port,
        };
        (format!("postgres://postgres@{host}:{port}/grantd?sslmode=disable"), database)
    }
}

/// Lengths and counts of all figures.
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
    pub rounds: usize,
    pub restarts: usize,
    pub kills: usize,
    pub rotations: usize,
    pub upgrades: usize,
    pub soak: Duration,
    /// Faults of issuers.
    pub issuers: Duration,
    /// How long a part of the Patroni cluster is away.
    pub failover: Duration,
    /// Each shape of hostile connections.
    pub hostile: Duration,
    pub connections: usize,
    /// Each step of the overload.
    pub overload: Duration,
    pub cancelled: usize,
    pub samples: usize,
    /// Each comparison of classes.
    pub comparison: Duration,
}

impl Options {
    /// The figures to measure.
    pub fn figures(&self) -> Vec<String> {
        if !self.figures.is_empty() {
            return self.figures.clone();
        }
        // Without the release before, there is nothing to upgrade from.
        let wanted = FIGURES.iter().filter(|&&figure| figure != "14" || self.previous.is_some());
        wanted.map(|&figure| figure.to_owned()).collect()
    }

    /// The lengths: as given, else usual ones that take about a quarter of an hour, quick ones, or those of the targets.
    pub fn lengths(&self) -> Lengths {
        let seconds = |usual, quick, full| Duration::from_secs(self.pick(usual, quick, full));
        let count = |given: Option<usize>, usual, quick, full| given.unwrap_or(self.pick(usual, quick, full));
        let minutes = self.minutes.or(self.hours.map(|hours| 60 * hours));
        Lengths {
            clients: count(self.clients, 10_000, 1000, 10_000),
            active: count(self.active, 1000, 60, 1000),
            ramp_step: seconds(3, 1, 3),
            refinements: count(None, 3, 2, 3),
            base: seconds(10, 4, 30),
            flood: seconds(30, 6, 60),
            outage: seconds(30, 6, 30),
            partition: seconds(30, 8, 120),
            trials: count(self.trials, 100, 8, 1000),
            rounds: count(self.rounds, 10_000, 2000, 100_000),
            restarts: count(self.restarts, 12, 3, 100),
            kills: count(self.kills, 20, 4, 200),
            rotations: count(self.rotations, 10, 3, 100),
            upgrades: count(self.upgrades, 3, 1, 20),
            soak: minutes.map_or(seconds(120, 60, 1800), Duration::from_mins),
            issuers: seconds(75, 40, 300),
            failover: seconds(30, 30, 60),
            hostile: seconds(25, 18, 120),
            connections: count(self.connections, 10_000, 1000, 10_000),
            overload: seconds(10, 4, 60),
            cancelled: count(None, 1000, 100, 1000),
            samples: count(self.samples, 2000, 200, 10_000),
            comparison: seconds(40, 8, 600),
        }
    }

    fn pick<T>(&self, usual: T, quick: T, full: T) -> T {
        match (self.quick, self.full) {
            (true, _) => quick,
            (_, true) => full,
            _ => usual,
        }
    }
}

/// The figures that there are; figure 12 is measured with `--patroni`.
const FIGURES: [&str; 17] =
    ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "13", "14", "15", "16", "H62", "M80"];
