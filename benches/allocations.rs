//! Number and size of the allocations of a warm token request, and of a refused one: `cargo bench --bench allocations`.

#[path = "in_process/server.rs"]
mod server;

use anyhow::ensure;
use axum::body::Body;
use axum::http::{Request, StatusCode};
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
    let (_, seen) = send(&server, (0..REQUESTS).map(|_| InProcess::refused_request()).collect::<Result<_, _>>()?);
    println!("{REQUESTS} requests with made-up secrets:");
    println!("  {:>6} allocations a request", each(seen.count_total));
    println!("  {:>6} bytes a request", each(seen.bytes_total));
    Ok(())
}

/// Sends `count` requests in sequence, and counts the allocations between request and response.
fn ask(server: &InProcess, count: u32) -> anyhow::Result<(Vec<Response>, allocation_counter::AllocationInfo)> {
    Ok(send(server, (0..count).map(|_| server.request()).collect::<Result<Vec<_>, _>>()?))
}

fn send(server: &InProcess, requests: Vec<Request<Body>>) -> (Vec<Response>, allocation_counter::AllocationInfo) {
    let mut answers = Vec::with_capacity(requests.len());
    let (app, caller) = (&server.assembled.app, InProcess::caller());
    let seen = allocation_counter::measure(|| {
        server.runtime.block_on(async {
            for request in requests {
                answers.push(app.answer(ListenerUrl::Issuer, &caller, request).await);
            }
        });
    });
    (answers, seen)
}

const REQUESTS: u32 = 200;
