//! P4 and P5: what reaches the database, and how many hashes are computed, while 100,000 tokens are issued.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Bench, REAL, load, quiet, requests};
use crate::generator::{Load, Until};
use crate::report::{Figure, Goal, Report};
use crate::site::Site;

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (_, clients) = bench.copy(DATABASE, 1000)?;
    let asked = requests(clients, REAL);
    // A role of its own, so that what grantd says is told apart from what we ask.
    bench.postgres.sql("postgres", &format!("create role {ROLE} superuser login"))?;
    bench.postgres.sql(DATABASE, "create extension if not exists pg_stat_statements")?;
    let site = Site::new(&bench.room, bench.postgres.url(DATABASE, Some(ROLE)))?;
    let server = site.serve(&quiet("ES256"))?;
    std::thread::sleep(Duration::from_secs(2));

    bench.postgres.sql(DATABASE, "select pg_stat_statements_reset()")?;
    let rows_before = rows_written(bench)?;
    let queries_before = server.metric("grantd_database_queries_total")?;
    let hashes_before = server.metric("grantd_argon2_verifications_total")?;
    let started = Instant::now();
    let (wanted, most) = if bench.quick { (20_000, 15) } else { (100_000, 60) };
    let seen = Load { until: Until::Count(wanted, Duration::from_secs(most)), ..load(&server, &asked) }.run();
    // Use is written down every half minute: wait for it, or it is not counted.
    let wait = Duration::from_secs(if bench.quick { 3 } else { 32 });
    std::thread::sleep(wait);
    let hashes = server.metric("grantd_argon2_verifications_total")? - hashes_before;
    let queries = server.metric("grantd_database_queries_total")? - queries_before;
    let statements = statements(bench)?;
    let elapsed = started.elapsed().as_secs_f64();
    // PostgreSQL tells what was written a second later.
    std::thread::sleep(Duration::from_millis(1500));
    let rows_after = rows_written(bench)?;
    drop(server);

    report.section(&format!("sql: {} tokens of {wanted} wanted, from {REAL} clients", seen.answers));
    if seen.errors > 0 {
        report.errors(seen.errors, seen.unavailable, seen.first_error.as_deref());
    }
    let (mut all, mut polls, mut by_time) = (0.0, 0.0, 0.0);
    for (statement, calls) in &statements {
        all += calls;
        if statement.contains(POLL) {
            polls += calls;
        } else {
            if BY_TIME.iter().any(|part| statement.contains(part)) {
                by_time += calls;
            }
            // One that writes a hundred rows names a hundred parameters.
            let text: String = statement.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(120).collect();
            report.note(&format!("{calls} × {text}"));
        }
    }
    let mut written = 0.0;
    for (table, after) in &rows_after {
        let more = after - rows_before.get(table).copied().unwrap_or(0.0);
        if more > 0.0 {
            report.note(&format!("{more} rows written in {table}"));
            written += if table == USES { 0.0 } else { more };
        }
    }
    let one = |value| Figure::new(vec![value]);
    report.figure("statements that PostgreSQL saw", &one(all), "", Goal::None);
    report.figure("statements that grantd counted", &one(queries), "", Goal::None);
    report.figure("polls a second", &one(polls / elapsed), "", Goal::None);
    let rest = all - polls - by_time;
    report.figure("P4: statements, but for what goes by time", &one(rest), "", Goal::AtMost(0.0));
    report.figure("P4: rows written, dates of use aside", &one(written), "", Goal::AtMost(0.0));
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    report.figure("P5: argon2 runs", &one(hashes), "", Goal::AtMost(REAL as f64));
    Ok(())
}

/// The statements of grantd, with how often each was run.
fn statements(bench: &Bench) -> anyhow::Result<BTreeMap<String, f64>> {
    let sql = format!(
        "select json_agg(json_build_array(query, calls)) from pg_stat_statements s
         join pg_roles r on r.oid = s.userid where r.rolname = '{ROLE}'"
    );
    let rows: Option<Vec<(Arc<str>, f64)>> = serde_json::from_str(bench.postgres.sql(DATABASE, &sql)?.trim())?;
    let mut statements = BTreeMap::new();
    for (query, calls) in rows.unwrap_or_default() {
        *statements.entry(query.to_string()).or_default() += calls;
    }
    Ok(statements)
}

/// Rows inserted, changed and deleted so far, by table.
fn rows_written(bench: &Bench) -> anyhow::Result<BTreeMap<String, f64>> {
    let sql = "select relname, n_tup_ins + n_tup_upd + n_tup_del from pg_stat_user_tables";
    let rows = bench.postgres.sql(DATABASE, sql)?;
    Ok(rows
        .lines()
        .filter_map(|row| row.split_once('|'))
        .filter_map(|(table, count)| Some((table.to_owned(), count.parse().ok()?)))
        .collect())
}

const DATABASE: &str = "sql";
const ROLE: &str = "grantd_measured";
/// When secrets were last used is written down in batches, by time and not by token.
const USES: &str = "client_secret_use";
/// That, what is swept every few seconds, and what is set once on a new connection.
const BY_TIME: [&str; 3] = [USES, "delete from", "select set_config"];
const POLL: &str = "select revision, current_setting";
