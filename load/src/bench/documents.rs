//! P11: the key set and the metadata against static bytes.

use std::sync::Arc;

use super::{Bench, load, quiet};
use crate::contest::{Contender, compare, run as contest};
use crate::report::Goal::AtLeast;
use crate::report::Report;

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, _) = bench.copy("documents", 1000)?;
    for path in ["/jwks", "/.well-known/oauth-authorization-server"] {
        let ours = get(path);
        let theirs = get("/static-json");
        let contenders = [
            Contender::new("static", || {
                let server = super::limit("ES256", &[])?;
                let load = load(&server, &theirs);
                Ok((server, load))
            }),
            Contender::new("grantd", || {
                let server = site.serve(&quiet("ES256"))?;
                let load = load(&server, &ours);
                Ok((server, load))
            }),
        ];
        report.section(&format!("documents: GET {path}"));
        if let [limit, ours] = contest(bench.plan, &contenders, report)?.as_slice() {
            compare(report, "P11", ours, limit, AtLeast(0.9));
        }
    }
    Ok(())
}

fn get(path: &str) -> Arc<[Vec<u8>]> {
    [format!("GET {path} HTTP/1.1\r\nHost: auth.example.com\r\n\r\n").into_bytes()].into()
}
