//! Tokens signed in a PKCS #11 module beside those signed in memory, by one program.

use std::path::PathBuf;

use anyhow::Context as _;
use grantd_kit::grantd::Grantd;
use grantd_kit::report::Goal;

use super::{Bench, REAL, load, requests};
use crate::contest::{Contender, beside_us, ratio, run as contest};
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let Some(module) = std::env::var_os(MODULE).map(PathBuf::from) else {
        println!("\npkcs11 is left out: `script/bench pkcs11` builds a grantd with PKCS #11 and prepares SoftHSM");
        return Ok(());
    };
    let (grantd, clients) = bench.copy("pkcs11", 1000).await?;
    let load = load(&requests(clients, REAL));
    let grantd = Grantd { program: beside_us("grantd-pkcs11")?, ..grantd };
    let (memory, mut attached) = (grantd.clone().with("token.alg", "ES256"), grantd.with("token.alg", "ES256"));
    attached = attached.on(bench.postgres.url("pkcs11_attached"));
    bench.postgres.create("pkcs11_attached", Some("pkcs11")).await?;
    let pin = std::env::var(PIN_FILE).with_context(|| format!("{PIN_FILE} names no file"))?;
    let settings = [("keys.pkcs11_module", module.display().to_string()), ("keys.pkcs11_pin_file", pin)];
    let set: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut attach = vec!["key", "attach", "--pkcs11", "pkcs11:token=bench;object=ES256"];
    attach.extend(set.iter().flat_map(|setting| ["--set", setting]));
    attached.run_ok(&attach, "").await?;
    let attached = settings.into_iter().fold(attached, |attached, (key, value)| attached.with(key, value));
    let contenders =
        [Contender::grantd("in memory", memory, load.clone()), Contender::grantd("in SoftHSM", attached, load)];
    report.section(&format!("pkcs11: {REAL} of 1,000 clients, 64 kept connections, ES256"));
    if let [memory, attached] = contest(bench.plan, &contenders, report).await?.as_slice() {
        let figures = [
            ("requests/s ÷ in memory", ratio(attached, memory, |round| round.rate)),
            ("CPU ÷ in memory", ratio(attached, memory, |round| round.cpu)),
            ("p50 ÷ in memory", ratio(attached, memory, |round| round.p50)),
        ];
        for (name, figure) in figures {
            report.figure(name, &figure, "", Goal::None);
        }
    }
    Ok(())
}

/// The shared library of `SoftHSM`, whose token `bench` has the key `ES256`.
const MODULE: &str = "BENCH_PKCS11_MODULE";
/// The file with the PIN of that token.
const PIN_FILE: &str = "BENCH_PKCS11_PIN_FILE";
