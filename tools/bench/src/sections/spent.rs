//! P10, its second half: what a token costs when a million ids are spent, against none.

use grantd_kit::report::Goal;

use super::assertions::{KEYED, ensure_durable, keyed_clients, report_late, stock};
use super::{Bench, load_once};
use crate::contest::{Contender, ratio, run as contest};
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (none, _) = bench.copy("none_spent", 1000).await?;
    let none = none.with("token.alg", "ES256");
    let clients = keyed_clients(&none).await?;
    bench.postgres.create("many_spent", Some("none_spent")).await?;
    // They expire after the end of the bench.
    bench.postgres.sql("many_spent", &spent_ids(bench.million(), 86_400)).await?;
    let many = none.on(bench.postgres.url("many_spent"));
    let (of_none, of_many) = (stock(&clients), stock(&clients));
    let contenders = [
        Contender::grantd("none spent", none, load_once(&of_none)),
        Contender::grantd("many spent", many, load_once(&of_many)),
    ];
    report.section(&format!("spent: private_key_jwt with no id spent, and with {}", bench.million()));
    ensure_durable(bench).await?;
    if let [none, many] = contest(bench.plan, &contenders, report).await?.as_slice() {
        report.figure("P10: CPU ÷ with none", &ratio(many, none, |round| round.cpu), "", Goal::AtMost(1.1));
        report.figure("P10: time for each ÷ with none", &ratio(none, many, |round| round.rate), "", Goal::AtMost(1.1));
    }
    report_late(report, &[&of_none, &of_many]);
    Ok(())
}

/// SQL that spends `count` ids of the clients with keys; they expire `after` seconds from now.
pub(super) fn spent_ids(count: usize, after: i64) -> String {
    format!(
        "insert into spent_jti (kind, owner, jti, expires_at)
         select 'assertion', 'keyed-' || lpad((i % {KEYED})::text, 4, '0'), sha256(('spent' || i)::bytea),
             extract(epoch from now())::bigint + {after} + i * 300 / {count}
         from generate_series(1, {count}) as i;
         vacuum analyze spent_jti;
         checkpoint;\n"
    )
}
