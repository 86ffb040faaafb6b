//! P4 and P5: what reaches the database, and how many hashes are computed, while 100,000 tokens are issued.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use grantd_kit::report::Goal;
use grantd_kit::stats::number;
use tokio::time::sleep;

use super::{Bench, REAL, load, requests};
use crate::contest::HASHES;
use crate::generator::{Load, Until};
use crate::report::{Figure, Report, note};

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = bench.copy(DATABASE, 1000).await?;
    // A role of its own tells grantd's statements from ours.
    bench.postgres.sql("postgres", &format!("create role {ROLE} superuser login")).await?;
    bench.postgres.sql(DATABASE, "create extension if not exists pg_stat_statements").await?;
    let url = bench.postgres.url(DATABASE).replacen("//postgres@", &format!("//{ROLE}@"), 1);
    let server = grantd.on(url).with("token.alg", "ES256").serve().await?;
    let metric = async |name| server.metric(name).await.with_context(|| format!("no metric {name}"));
    sleep(Duration::from_secs(2)).await;

    bench.postgres.sql(DATABASE, "select pg_stat_statements_reset()").await?;
    let rows_before = rows_written(bench).await?;
    let (queries_before, hashes_before) = (metric(QUERIES).await?, metric(HASHES).await?);
    let started = Instant::now();
    let (wanted, most) = if bench.quick { (20_000, 15) } else { (100_000, 60) };
    let load = load(&requests(clients, REAL));
    let seen = Load { until: Until::Count(wanted, Duration::from_secs(most)), ..load }.run(server.public);
    // The last use of secrets is written every half minute.
    sleep(Duration::from_secs(if bench.quick { 3 } else { 32 })).await;
    let (queries, hashes) = (metric(QUERIES).await? - queries_before, metric(HASHES).await? - hashes_before);
    let statements = statements(bench).await?;
    let elapsed = started.elapsed().as_secs_f64();
    // PostgreSQL publishes its counters a second later.
    sleep(Duration::from_millis(1500)).await;
    let rows_after = rows_written(bench).await?;
    drop(server);

    report.section(&format!("sql: {} tokens of {wanted} wanted, from {REAL} clients", seen.answers));
    report.errors(&seen);
    let (mut all, mut polls, mut by_time) = (0.0, 0.0, 0.0);
    for (statement, calls) in &statements {
        all += calls;
        if statement.contains(POLL) {
            polls += calls;
        } else {
            if statement.starts_with("set ") || BY_TIME.iter().any(|part| statement.contains(part)) {
                by_time += calls;
            }
            // A statement that writes a hundred rows names a hundred parameters.
            let text: String = statement.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(120).collect();
            note(&format!("{calls} × {text}"));
        }
    }
    let mut written = 0.0;
    for (table, after) in &rows_after {
        let more = after - rows_before.get(table).copied().unwrap_or(0.0);
        if more > 0.0 {
            note(&format!("{more} rows written in {table}"));
            written += if WRITTEN_BY_TIME.contains(&table.as_str()) { 0.0 } else { more };
        }
    }
    report.figure("statements that PostgreSQL saw", &Figure::one(all), "", Goal::None);
    report.figure("statements that grantd counted", &Figure::one(queries), "", Goal::None);
    report.figure("polls a second", &Figure::one(polls / elapsed), "", Goal::None);
    let rest = all - polls - by_time;
    report.figure("P4: statements, but for what goes by time", &Figure::one(rest), "", Goal::AtMost(0.0));
    report.figure("P4: rows written, but for what goes by time", &Figure::one(written), "", Goal::AtMost(0.0));
    report.figure("P5: argon2 runs", &Figure::one(hashes), "", Goal::AtMost(number(REAL)));
    Ok(())
}

/// The statements of grantd, and how often each was run.
async fn statements(bench: &Bench) -> anyhow::Result<BTreeMap<String, f64>> {
    let sql = format!(
        "select json_agg(json_build_array(query, calls)) from pg_stat_statements s
         join pg_roles r on r.oid = s.userid where r.rolname = '{ROLE}'"
    );
    let rows: Option<Vec<(String, f64)>> = serde_json::from_str(&bench.postgres.sql(DATABASE, &sql).await?)?;
    let mut statements = BTreeMap::new();
    for (query, calls) in rows.unwrap_or_default() {
        *statements.entry(query).or_default() += calls;
    }
    Ok(statements)
}

/// Rows inserted, changed and deleted so far, by table.
async fn rows_written(bench: &Bench) -> anyhow::Result<BTreeMap<String, f64>> {
    let sql = "select relname, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables";
    let rows = bench.postgres.sql(DATABASE, sql).await?;
    Ok(rows
        .lines()
        .filter_map(|row| row.split_once('|'))
        .filter_map(|(table, count)| Some((table.to_owned(), count.parse().ok()?)))
        .collect())
}

const DATABASE: &str = "sql";
const ROLE: &str = "grantd_measured";
const QUERIES: &str = "grantd_database_queries_total";
/// The last use of secrets is written in batches, by time and not by token.
const USES: &str = "client_secret_use";
/// Tables that are written by time: that one, and those by which replicas share work and know each other's issuer.
const WRITTEN_BY_TIME: [&str; 3] = [USES, "lease", "own_issuer"];
/// Parts of statements that run by time: that one, the sweeps, and what the feed and the pool run on a new connection.
const BY_TIME: [&str; 11] = [
    USES,
    "delete from",
    "into lease",
    "from lease",
    "select set_config",
    "registry_change",
    "LISTEN",
    "pg_notify",
    "select current_setting",
    "clock_timestamp()",
    "system_identifier",
];
const POLL: &str = "select revision, history, current_setting";
