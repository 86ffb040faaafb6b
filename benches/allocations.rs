//! Number and size of the allocations of a warm token request: `cargo bench --bench allocations`.

#[path = "in_process/server.rs"]
mod server;

use anyhow::ensure;
use axum::http::StatusCode;
use axum::response::Response;
use grantd::http::ListenerUrl;
use server::InProcess;

fn main() -> anyhow::Result<()> {
    let server = InProcess::new()?;
    let warm = ask(&server, 20)?;
    ensure!(warm.0.iter().all(|answer| answer.status() == StatusCode::OK), "the warm-up got no tokens");
    let (answers, seen) = ask(&server, REQUESTS)?;
    ensure!(answers.iter().all(|answer| answer.status() == StatusCode::OK), "not every answer is a token");
    let each = |count: u64| count / u64::from(REQUESTS);
    println!("{REQUESTS} warm token requests through the surface, no log line, the listener left out:");
    println!("  {:>6} allocations a request", each(seen.count_total));
    println!("  {:>6} bytes a request", each(seen.bytes_total));
    println!("  {:>6} bytes at once, at most, for all of them with their answers", seen.bytes_max);
    Ok(())
}

/// Sends `count` requests in sequence, and counts the allocations between request and response.
fn ask(server: &InProcess, count: u32) -> anyhow::Result<(Vec<Response>, allocation_counter::AllocationInfo)> {
    let requests = (0..count).map(|_| server.request()).collect::<Result<Vec<_>, _>>()?;
    let mut answers = Vec::with_capacity(requests.len());
    let (app, caller) = (&server.assembled.app, InProcess::caller());
    let seen = allocation_counter::measure(|| {
        server.runtime.block_on(async {
            for request in requests {
                answers.push(app.answer(ListenerUrl::Issuer, &caller, request).await);
            }
        });
    });
    Ok((answers, seen))
}

const REQUESTS: u32 = 200;
