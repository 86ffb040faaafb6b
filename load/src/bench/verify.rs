//! A gateway's question against the limit that reads a form and verifies a signature.

use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Bench, REAL, load, quiet, requests};
use crate::contest::{Contender, compare, run as contest};
use crate::generator::Load;
use crate::process::{Server, exchange, get};
use crate::report::Goal::AtLeast;
use crate::report::Report;

pub(super) fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (site, clients) = bench.copy("verify", 1000)?;
    let server = site.serve(&quiet("ES256"))?;
    let tokens =
        requests(clients, REAL).iter().map(|request| token(&server, request)).collect::<anyhow::Result<Vec<_>>>()?;
    let point = point(&server)?;
    drop(server);
    let asked: Arc<[Vec<u8>]> = tokens.iter().map(|token| question(token)).collect();
    let contenders = [
        Contender::new("limit", || {
            let server = super::limit("ES256", &["--verify", &point])?;
            let load = load(&server, &asked);
            Ok((server, Load { expected: 204, ..load }))
        }),
        Contender::new("grantd", || {
            let server = site.serve(&quiet("ES256"))?;
            let load = load(&server, &asked);
            Ok((server, Load { expected: 204, ..load }))
        }),
    ];
    report.section(&format!("verify: tokens of {REAL} of 1,000 clients, 64 kept connections, ES256"));
    if let [limit, grantd] = contest(bench.plan, &contenders, report)?.as_slice() {
        compare(report, "P11 /verify", grantd, limit, AtLeast(0.9));
    }
    Ok(())
}

fn token(server: &Server, request: &[u8]) -> anyhow::Result<String> {
    let (_, answer) = exchange(server.address, request)?;
    let body = answer.split_once("\r\n\r\n").context("no body")?.1;
    let answer: Value = serde_json::from_str(body)?;
    Ok(answer.get("access_token").and_then(Value::as_str).context("no access_token")?.to_owned())
}

/// The signing key's point in base64url.
fn point(server: &Server) -> anyhow::Result<String> {
    let (_, answer) = get(server.address, "/jwks")?;
    let set: Value = serde_json::from_str(answer.split_once("\r\n\r\n").context("no body")?.1)?;
    let mut point = vec![4];
    for half in ["/keys/0/x", "/keys/0/y"] {
        let half = set.pointer(half).and_then(Value::as_str).context("no key of P-256")?;
        BASE64_URL_SAFE_NO_PAD.decode_vec(half, &mut point)?;
    }
    Ok(BASE64_URL_SAFE_NO_PAD.encode(point))
}

fn question(token: &str) -> Vec<u8> {
    format!(
        "GET /verify?resource=https%3A%2F%2Fauth.example.com&scope=api:read HTTP/1.1\r\nHost: auth.example.com\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}
