//! A gateway's question against the limit that reads a form and verifies a signature.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use grantd_kit::connection::{LOCALHOST, ask, get};
use grantd_kit::grantd::Server;
use grantd_kit::http::get_request;
use grantd_kit::program::field;
use grantd_kit::report::Goal::AtLeast;
use serde_json::Value;

use super::{Bench, REAL, load, requests};
use crate::contest::{Contender, compare, run as contest};
use crate::generator::Load;
use crate::report::Report;

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (grantd, clients) = bench.copy("verify", 1000).await?;
    let grantd = grantd.with("token.alg", "ES256");
    let server = grantd.serve().await?;
    let mut questions = Vec::new();
    for request in &*requests(clients, REAL) {
        questions.push(question(&token(&server, request).await.context("no token")?));
    }
    let point = point(&server).await?;
    drop(server);
    let questions: Arc<[Vec<u8>]> = questions.into();
    let load = || Load { expected: 204, ..load(&questions) };
    let contenders = [
        Contender::limit("limit", "ES256", &["--verify", &point], load()),
        Contender::grantd("grantd", grantd, load()),
    ];
    report.section(&format!("verify: tokens of {REAL} of 1,000 clients, 64 kept connections, ES256"));
    if let [limit, grantd] = contest(bench.plan, &contenders, report).await?.as_slice() {
        compare(report, "P11 /verify", grantd, limit, AtLeast(0.9));
    }
    Ok(())
}

async fn token(server: &Server, request: &[u8]) -> Option<String> {
    let (_, body) = ask(LOCALHOST, server.public, request, Duration::from_secs(20)).await?;
    field(&body, "access_token")
}

/// The signing key's point in base64url.
async fn point(server: &Server) -> anyhow::Result<String> {
    let (_, set) = get(server.public, "/jwks").await.context("no key set")?;
    let set: Value = serde_json::from_str(&set)?;
    let mut point = vec![4];
    for half in ["/keys/0/x", "/keys/0/y"] {
        let half = set.pointer(half).and_then(Value::as_str).context("no key of P-256")?;
        BASE64_URL_SAFE_NO_PAD.decode_vec(half, &mut point)?;
    }
    Ok(BASE64_URL_SAFE_NO_PAD.encode(point))
}

fn question(token: &str) -> Vec<u8> {
    let path = "/verify?resource=https%3A%2F%2Fauth.example.com&scope=api:read";
    get_request(path, &[("Authorization", &format!("Bearer {token}"))])
}
