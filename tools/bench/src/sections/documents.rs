//! P11: the key set and the metadata against static bytes.

use grantd_kit::http::get_request;
use grantd_kit::report::Goal::AtLeast;

use super::{Bench, load};
use crate::contest::{Contender, compare, run as contest};
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, _) = bench.copy("documents", 1000).await?;
    for path in ["/jwks", "/.well-known/oauth-authorization-server"] {
        let get = |path| load(&[get_request(path, &[])].into());
        let contenders = [
            Contender::limit("static", "ES256", &[], get("/static-json")),
            Contender::grantd("grantd", grantd.clone().with("token.alg", "ES256"), get(path)),
        ];
        report.section(&format!("documents: GET {path}"));
        if let [limit, ours] = contest(bench.plan, &contenders, report).await?.as_slice() {
            compare(report, "P11", ours, limit, AtLeast(0.9));
        }
    }
    Ok(())
}
