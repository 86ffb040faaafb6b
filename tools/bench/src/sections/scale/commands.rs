//! Commands of the command line in a large registry.

use grantd_kit::clients::Client;
use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;

use super::measure::{Ran, run_command};
use super::{copy_of, label, sizes};
use crate::report::{Figure, Report};
use crate::sections::Bench;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    for &size in sizes(bench) {
        let (grantd, clients) = copy_of(bench, size, DATABASE).await?;
        let id = clients.first().map_or("", |client: &Client| client.id.as_str());
        for (name, arguments, times) in [
            ("client show", &["client", "show", id][..], 5),
            ("client set", &["client", "set", id, "--token-ttl", "15m"], 5),
            ("client cert list ID", &["client", "cert", "list", id], 5),
            ("client list", &["client", "list"], 1),
            ("doctor", &["doctor"], 1),
        ] {
            let ran = repeat(&grantd, arguments, times).await?;
            let (time, memory) =
                if times > 1 { (Goal::AtMost(50.0), Goal::AtMost(40.0)) } else { (Goal::None, Goal::AtMost(100.0)) };
            let name = format!("{}: {name}", label(size));
            report.figure(&name, &Figure::new(ran.iter().map(|ran| ran.wall).collect()), "ms", time);
            let peak = ran.iter().map(|ran| ran.peak).fold(0.0, f64::max);
            report.figure(&format!("{name}, peak"), &Figure::one(peak), "MiB", memory);
        }
        if size == 100_000 {
            flood(bench, report, &grantd).await?;
        }
        bench.postgres.remove(DATABASE).await?;
    }
    Ok(())
}

/// The same fault in 100,000 clients: certificates by name, without a CA that vouches for them.
async fn flood(bench: &Bench, report: &mut Report, grantd: &Grantd) -> anyhow::Result<()> {
    let sql = "insert into client_certificate (client_id, kind, value)
               select client_id, 'san_dns', 'host.example.com' from client
               where client_id not in (select client_id from client_certificate)";
    bench.postgres.sql(DATABASE, sql).await?;
    let ran = run_command(grantd, &["doctor"]).await?;
    let name = "100k: doctor, all with the same fault";
    report.figure(&format!("{name}: lines"), &Figure::one(ran.lines), "", Goal::AtMost(number(100)));
    report.figure(&format!("{name}: time"), &Figure::one(ran.wall), "ms", Goal::None);
    report.figure(&format!("{name}: peak"), &Figure::one(ran.peak), "MiB", Goal::AtMost(100.0));
    Ok(())
}

async fn repeat(grantd: &Grantd, arguments: &[&str], times: usize) -> anyhow::Result<Vec<Ran>> {
    let mut all = Vec::new();
    for _ in 0..times {
        all.push(run_command(grantd, arguments).await?);
    }
    Ok(all)
}

const DATABASE: &str = "scale_commands";
