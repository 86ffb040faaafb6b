//! Stopping without losing a request, and answers that reach a client which is still sending.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::transport::{listen, listen_with, one_answer, rest};

const JWKS: &[u8] = b"GET /jwks HTTP/1.1\r\nhost: as.test\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_signal_on_every_answer_is_the_last_on_its_connection() {
    let listening = listen().await;
    let mut kept = listening.connect().await;
    kept.write_all(JWKS).await.unwrap();
    assert!(!one_answer(&mut kept).await.contains("connection: close"));
    listening.draining.store(true, Ordering::Relaxed);
    let request = listening.token_request();
    for mut stream in [kept, listening.connect().await] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_sent_before_the_listener_closed_is_answered() {
    for _ in 0..5 {
        let listening = listen().await;
        let mut kept = Vec::new();
        for _ in 0..40 {
            let mut stream = listening.connect().await;
            stream.write_all(JWKS).await.unwrap();
            one_answer(&mut stream).await;
            // A blocking socket: what it has written is in the server's kernel when the call returns.
            let stream = stream.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            kept.push(stream);
        }
        let request = listening.token_request();
        for stream in &mut kept {
            stream.write_all(request.as_bytes()).unwrap();
        }
        listening.stop.send(true).unwrap();
        for stream in kept {
            stream.set_nonblocking(true).unwrap();
            let answer = rest(&mut TcpStream::from_std(stream).unwrap()).await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\nconnection: close\r\n"), "{answer:?}");
        }
        listening.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_waiting_in_the_kernels_queue_are_answered() {
    let listening = listen_with(None, 1).await;
    let mut held = listening.connect().await;
    held.write_all(JWKS).await.unwrap();
    one_answer(&mut held).await;
    let mut waiting = Vec::new();
    for _ in 0..24 {
        let mut stream = listening.connect().await;
        stream.write_all(listening.token_request().as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    listening.stop.send(true).unwrap();
    for mut stream in waiting {
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
    drop(held);
    listening.task.await.unwrap();
    assert!(TcpStream::connect(listening.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_connects_as_the_listener_closes_may_still_ask() {
    let listening = listen().await;
    let mut stream = listening.connect().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    listening.stop.send(true).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(listening.token_request().as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
}

/// Sends a body of `megabytes` with blocking writes, as simple clients do, and reads only then.
fn send_whole(address: std::net::SocketAddr, head: &str, megabytes: usize) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = megabytes << 20;
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes())?;
    let part = vec![b'x'; 1 << 16];
    for _ in 0..length / part.len() {
        stream.write_all(&part)?;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_sends_five_megabytes_reads_its_refusal() {
    let listening = listen().await;
    let address = listening.address;
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    for (head, status) in [
        (format!("POST /token HTTP/1.1\r\nhost: a\r\n{form}"), "413"),
        (format!("POST /introspect HTTP/1.1\r\nhost: a\r\n{form}"), "413"),
        ("POST /token HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\n".to_owned(), "400"),
        (format!("POST /token?client_secret=x HTTP/1.1\r\nhost: a\r\n{form}"), "400"),
        ("PUT /token HTTP/1.1\r\nhost: a\r\n".to_owned(), "405"),
        ("POST /nowhere HTTP/1.1\r\nhost: a\r\n".to_owned(), "404"),
        ("POST /token HTTP/1.1\r\nhost: a b\r\n".to_owned(), "400"),
        ("POST /jwks HTTP/1.1\r\nhost: a\r\n".to_owned(), "405"),
        (format!("POST /token HTTP/1.1\r\nhost: a\r\nx: {}\r\n", "y".repeat(20_000)), "431"),
    ] {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let head = head.clone();
            clients.spawn_blocking(move || send_whole(address, &head, 5));
        }
        for answer in clients.join_all().await {
            let answer = answer.unwrap_or_else(|error| panic!("{head}: {error}"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
            assert!(
                answer.contains("\r\nconnection: close\r\n") && answer.contains("x-request-id"),
                "{head}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_small_body_that_nobody_reads_leaves_the_connection_open() {
    let listening = listen().await;
    let mut stream = listening.connect().await;
    for _ in 0..3 {
        stream.write_all(b"POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
        let answer = one_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_not_asked_for() {
    let listening = listen().await;
    let mut stream = listening.connect().await;
    let head = "POST /token HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-www-form-urlencoded\r\nexpect: 100-continue\r\ncontent-length: 5000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_body_without_end_is_dropped_for_a_bounded_time() {
    let listening = listen().await;
    let mut stream = listening.connect().await;
    let head = "POST /nowhere HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let started = Instant::now();
    // A byte each 100 ms never pauses, so the bound of the whole counts.
    while stream.write_all(b"1\r\nx\r\n").await.is_ok() && started.elapsed() < Duration::from_secs(15) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
