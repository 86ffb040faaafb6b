//! P10, its second half: what a token costs when a million ids are spent, against none.

use std::sync::Arc;

use super::assertions::{KEYED, durable, late, stock};
use super::{Bench, load_of, quiet};
use crate::contest::{Contender, ratio, run as contest};
use crate::registrations::register_keys;
use crate::report::{Goal, Report};

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (none, _) = bench.copy("none_spent", 1000)?;
    let clients = Arc::new(register_keys(&none, &bench.room, KEYED)?);
    bench.postgres.create("many_spent", Some("none_spent"))?;
    // They expire when all is over.
    bench.postgres.sql("many_spent", &spent_ids(bench.million(), 86_400))?;
    let many = none.elsewhere(bench.postgres.url("many_spent", None));
    let (of_none, of_many) = (stock(&clients), stock(&clients));
    let contender = |name, site, stock| {
        Contender::new(name, move || {
            let server = crate::site::Site::serve(site, &quiet("ES256"))?;
            let load = load_of(&server, stock);
            Ok((server, load))
        })
    };
    let contenders = [contender("none spent", &none, &of_none), contender("many spent", &many, &of_many)];
    report.section(&format!("spent: private_key_jwt with no id spent, and with {}", bench.million()));
    durable(bench, report)?;
    if let [none, many] = contest(bench.plan, &contenders, report)?.as_slice() {
        report.figure("P10: CPU ÷ with none", &ratio(many, none, |round| round.cpu), "", Goal::AtMost(1.1));
        report.figure("P10: time for each ÷ with none", &ratio(none, many, |round| round.rate), "", Goal::AtMost(1.1));
    }
    late(report, &[&of_none, &of_many]);
    Ok(())
}

/// SQL that spends `count` ids of the clients with keys, which expire `after` seconds from now.
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
