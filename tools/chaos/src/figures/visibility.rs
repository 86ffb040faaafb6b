//! Figure 4: how long after a command has ended each replica still acts on what was before.

use std::time::Duration;

use anyhow::Context as _;
use grantd_kit::clients::{Client, SCOPES, register};
use grantd_kit::report::Goal;
use grantd_kit::stats::percentile;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::introspected;
use super::polling::{GAVE_UP, accepted, first_yes, last_yes, millis};
use crate::options::Options;
use crate::report::Report;
use crate::rig::Rig;

pub async fn measure(rig: &mut Rig, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    // The names of clients are made from this number, and a second run needs other names.
    rig.recorded += 1;
    let (mut added, mut removed, mut listeners) = (Vec::new(), Vec::new(), 0);
    for n in 0..options.lengths().trials {
        let trial = Trial { n, by_sql: n % 4 >= 2, revoke: n % 2 == 1, cut: n / 4 % 2 == 1 };
        listeners += trial.run(rig, &mut added, &mut removed).await.with_context(|| format!("trial {n}"))?;
    }
    let trials = options.lengths().trials;
    for (what, all) in [("a new client", &added), ("a disabled client or a revoked secret", &removed)] {
        let ms = |keep: &dyn Fn(&Sample) -> bool, share: f64| {
            percentile(&mut all.iter().filter(|seen| keep(seen)).map(|seen| seen.ms).collect::<Vec<_>>(), share)
        };
        let max = |keep: &dyn Fn(&Sample) -> bool| ms(keep, 1.0);
        let note = format!(
            "{trials} trials x 3 replicas; p50 {:.0}, p99 {:.0}; largest with the connection that hears of changes cut 100 ms earlier {:.0} \
             ({listeners} connections cut), else {:.0}; by SQL {:.0}, by command {:.0}",
            ms(&|_| true, 0.5),
            ms(&|_| true, 0.99),
            max(&|seen| seen.trial.cut),
            max(&|seen| !seen.trial.cut),
            max(&|seen| seen.trial.by_sql),
            max(&|seen| !seen.trial.by_sql)
        );
        report.add("4", &format!("{what}: p99.9, ms"), Goal::AtMost(1000.0), ms(&|_| true, 0.999), note);
        report.add(
            "4",
            &format!("{what}: largest, ms"),
            Goal::AtMost(2000.0),
            max(&|_| true),
            format!("polled every 10 ms; {GAVE_UP:?} means never"),
        );
    }
    introspected::measure(rig, trials, report).await
}

/// A client that is registered and removed.
#[derive(Debug, Clone, Copy)]
struct Trial {
    n: usize,
    by_sql: bool,
    revoke: bool,
    cut: bool,
}

struct Sample {
    trial: Trial,
    ms: f64,
}

impl Trial {
    /// Returns how many connections were cut.
    async fn run(self, rig: &Rig, added: &mut Vec<Sample>, removed: &mut Vec<Sample>) -> anyhow::Result<usize> {
        let client_id = format!("trial-{}-{}", rig.recorded, self.n);
        let mut cut = self.cut_first(rig).await?;
        let known = self.add(rig, &client_id).await?;
        let since = Instant::now();
        let mut waiting = JoinSet::new();
        for address in rig.addresses() {
            waiting.spawn(first_yes(address, known.request.clone(), accepted));
        }
        let accepted_at = waiting.join_all().await.into_iter().map(|first| first.map(|(moment, _)| moment));
        added.extend(accepted_at.map(|moment| Sample { trial: self, ms: millis(since, moment) }));

        let mut polling = JoinSet::new();
        for address in rig.addresses() {
            polling.spawn(last_yes(address, known.request.clone(), accepted));
        }
        sleep(Duration::from_millis(50)).await;
        cut += self.cut_first(rig).await?;
        self.remove(rig, &known).await?;
        let since = Instant::now();
        removed
            .extend(polling.join_all().await.into_iter().map(|last| Sample { trial: self, ms: millis(since, last) }));
        Ok(cut)
    }

    async fn cut_first(self, rig: &Rig) -> anyhow::Result<usize> {
        if !self.cut {
            return Ok(0);
        }
        let cut = rig.database.cut_listeners().await?;
        sleep(Duration::from_millis(100)).await;
        Ok(cut)
    }

    async fn add(self, rig: &Rig, id: &str) -> anyhow::Result<Client> {
        if !self.by_sql {
            return register(&rig.grantd, id, &[]).await;
        }
        let file = rig.grantd.directory.join(format!("{id}.secret"));
        let path = file.to_string_lossy();
        let create = [&["client", "create", id, "--sql", "--secret-file", &path][..], &SCOPES].concat();
        let seed = rig.grantd.run_ok(&create, "").await?.stdout;
        let secret = std::fs::read_to_string(&file)?;
        std::fs::remove_file(&file)?;
        rig.database.sql(&format!("begin; {seed} commit;")).await?;
        Ok(Client::new(id, secret.trim().to_owned(), String::new(), false))
    }

    async fn remove(self, rig: &Rig, client: &Client) -> anyhow::Result<()> {
        let Client { id, secret_id, .. } = client;
        let now = "extract(epoch from now())::bigint";
        match (self.by_sql, self.revoke) {
            (false, false) => rig.grantd.run_ok(&["client", "disable", id], "").await.map(drop),
            (false, true) => rig.grantd.run_ok(&["client", "secret", "revoke", id, secret_id], "").await.map(drop),
            (true, false) => {
                let sql = format!("update client set enabled = 0 where client_id = '{id}'");
                rig.database.sql(&sql).await.map(drop)
            }
            (true, true) => {
                let sql = format!("update client_secret set revoked_at = {now} where client_id = '{id}'");
                rig.database.sql(&sql).await.map(drop)
            }
        }
    }
}
