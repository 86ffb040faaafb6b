//! One request, sent to one replica every 10 ms, until the replica changes its mind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use grantd_kit::connection::ask;
use grantd_kit::http::Answer;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::chance::{any_loopback, honest_loopback};

/// Reads an answer as yes or no; `None` when it says neither.
pub type Judge = fn(&Answer, &str) -> Option<bool>;

/// Whether a token request was accepted.
pub fn accepted(answer: &Answer, _body: &str) -> Option<bool> {
    matches!(answer.status, 200 | 401).then_some(answer.status == 200)
}

/// Whether an introspected token is active.
pub fn active(answer: &Answer, body: &str) -> Option<bool> {
    (answer.status == 200).then(|| body.contains(r#""active":true"#))
}

/// The moment of the first yes, and its body; `None` when there is none. Each request comes from another address, since
/// failures of one address would be slowed down.
pub async fn first_yes(replica: SocketAddr, request: Arc<[u8]>, judge: Judge) -> Option<(Instant, String)> {
    let (started, mut ticks) = (Instant::now(), ticks());
    for n in 0.. {
        ticks.tick().await;
        match ask(any_loopback(n), replica, &request, PATIENCE).await {
            Some((answer, body)) if judge(&answer, &body) == Some(true) => return Some((Instant::now(), body)),
            _ if started.elapsed() > GAVE_UP => break,
            _ => {}
        }
    }
    None
}

/// The moment of the last yes before three times no in a row; `None` when the replica says yes to the last.
pub async fn last_yes(replica: SocketAddr, request: Arc<[u8]>, judge: Judge) -> Option<Instant> {
    let (started, mut ticks) = (Instant::now(), ticks());
    let (mut last, mut refusals) = (started, 0);
    while started.elapsed() < GAVE_UP {
        ticks.tick().await;
        let answer = ask(honest_loopback(7), replica, &request, PATIENCE).await;
        match answer.and_then(|(answer, body)| judge(&answer, &body)) {
            Some(true) => (last, refusals) = (Instant::now(), 0),
            Some(false) => refusals += 1,
            None => {}
        }
        if refusals == 3 {
            return Some(last);
        }
    }
    None
}

/// Milliseconds from `since` to that moment: 0 when it was before, infinite when there was none.
pub fn millis(since: Instant, moment: Option<Instant>) -> f64 {
    moment.map_or(f64::INFINITY, |moment| moment.saturating_duration_since(since).as_secs_f64() * 1000.0)
}

fn ticks() -> Interval {
    let mut ticks = interval(Duration::from_millis(10));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Polling ends after so long.
pub const GAVE_UP: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(2);
