//! Tokens, kept and renewed: lift this out. One `Tokens` per issuer and client; it keeps one token per scope and resource.
//!
//! - A token is renewed at about 80 % of its life, while callers go on with the old one. Some chance is in that time, so
//!   that the replicas of a service do not all ask at once.
//! - However many callers want a token, one request is under way.
//! - While a renewal fails, the old token is handed out until it ends.
//! - After a failure there is a pause: as long as `Retry-After` says (429 and 503), else longer from time to time. A
//!   request that was refused (another 4xx) is not repeated; only a caller that comes a minute later causes a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::token_endpoint::{Failure, Token, TokenEndpoint};

/// The scope and the resource of a token request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Scopes with spaces between; empty for the client's default.
    pub scope: String,
    /// The API (RFC 8707); empty for the default.
    pub resource: String,
}

/// The tokens of one client.
#[derive(Debug)]
pub struct Tokens {
    endpoint: TokenEndpoint,
    slots: Mutex<HashMap<Wanted, Arc<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    known: Mutex<Known>,
    /// One request at a time.
    asking: Semaphore,
}

#[derive(Debug, Default)]
struct Known {
    token: Option<Arc<Token>>,
    renew_at: Option<Instant>,
    ends_at: Option<Instant>,
    failure: Option<Failure>,
    failures: u32,
    /// No request before this.
    pause_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Use,
    /// Renew, but the token at hand will do for now.
    RenewAside,
    /// Ask, and wait for the answer.
    AskFirst,
    /// There is no token, and it is too early to ask again.
    Fail,
}

impl Tokens {
    pub fn new(endpoint: TokenEndpoint) -> Self {
        Self { endpoint, slots: Mutex::default() }
    }

    /// A token that is good for some time yet.
    pub async fn get(self: &Arc<Self>, wanted: &Wanted) -> Result<Arc<Token>, Failure> {
        let slot = Arc::clone(lock(&self.slots).entry(wanted.clone()).or_insert_with(|| Arc::new(Slot::new())));
        let next = lock(&slot.known).next(Instant::now());
        match next {
            Next::Use | Next::Fail => {}
            Next::RenewAside => {
                if slot.asking.available_permits() > 0 {
                    let (this, slot, wanted) = (Arc::clone(self), Arc::clone(&slot), wanted.clone());
                    tokio::spawn(async move { this.ask_once(&slot, &wanted).await });
                }
            }
            Next::AskFirst => {
                // In a task of its own: when this caller goes away, the others still get their token.
                let (this, slot, wanted) = (Arc::clone(self), Arc::clone(&slot), wanted.clone());
                drop(tokio::spawn(async move { this.ask_once(&slot, &wanted).await }).await);
            }
        }
        lock(&slot.known).outcome(Instant::now())
    }

    /// The API has refused this token although it should be good: its key may be gone. The next caller gets another, unless
    /// this one is so new that another would be no better.
    pub fn forget(&self, wanted: &Wanted, token: &Arc<Token>) {
        let Some(slot) = lock(&self.slots).get(wanted).cloned() else { return };
        let mut known = lock(&slot.known);
        let is_it = known.token.as_ref().is_some_and(|held| Arc::ptr_eq(held, token));
        if is_it && token.asked_at.elapsed() > PAUSE_MOST {
            known.token = None;
        }
    }

    /// Asks, unless somebody else did so while this call waited.
    async fn ask_once(&self, slot: &Slot, wanted: &Wanted) {
        let Ok(_one) = slot.asking.acquire().await else { return };
        if matches!(lock(&slot.known).next(Instant::now()), Next::Use | Next::Fail) {
            return;
        }
        let answer = self.endpoint.ask(wanted).await;
        lock(&slot.known).note(answer, Instant::now(), chance());
    }
}

impl Slot {
    fn new() -> Self {
        Self { known: Mutex::default(), asking: Semaphore::new(1) }
    }
}

impl Known {
    fn next(&self, now: Instant) -> Next {
        let before = |time: Option<Instant>| time.is_some_and(|time| now < time);
        let has_token = self.token.is_some() && before(self.ends_at);
        match (has_token, before(self.renew_at), before(self.pause_until)) {
            (true, true, _) | (true, false, true) => Next::Use,
            (true, false, false) => Next::RenewAside,
            (false, _, false) => Next::AskFirst,
            (false, _, true) => Next::Fail,
        }
    }

    fn outcome(&self, now: Instant) -> Result<Arc<Token>, Failure> {
        match (&self.token, self.ends_at) {
            (Some(token), Some(ends_at)) if now < ends_at => Ok(Arc::clone(token)),
            _ => Err(self.failure.clone().unwrap_or(Failure::Unreachable("the token ended at once".into()))),
        }
    }

    /// `chance` is between 0 and 1.
    fn note(&mut self, answer: Result<Token, Failure>, now: Instant, chance: f64) {
        match answer {
            Ok(token) => {
                let (asked_at, life) = (token.asked_at, token.life);
                *self = Self {
                    renew_at: Some(asked_at + life.mul_f64(RENEW_AT - RENEW_SPREAD * chance)),
                    // A token that ends while the call is under way is of no use.
                    ends_at: Some(asked_at + life.saturating_sub(MARGIN.min(life / 10))),
                    token: Some(Arc::new(token)),
                    ..Self::default()
                };
            }
            Err(failure) => {
                let doubled = PAUSE_FIRST.saturating_mul(1 << self.failures.min(6)).min(PAUSE_MOST);
                let pause = match &failure {
                    Failure::Busy { retry_after: Some(said), .. } => *said,
                    Failure::Refused { .. } => PAUSE_MOST,
                    Failure::Busy { .. } | Failure::Unreachable(_) => doubled,
                };
                self.failures = self.failures.saturating_add(1);
                // Never sooner than was said, and not all replicas at once.
                self.pause_until = Some(now + pause.min(PAUSE_SAID_MOST).mul_f64(1.0 + 0.1 * chance));
                self.failure = Some(failure);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From 0 to 1. It spreads load; without randomness there is no harm.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    let filled = aws_lc_rs::rand::fill(&mut bytes).is_ok();
    if filled { f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX) } else { 0.5 }
}

/// Of a token's life, at the latest.
const RENEW_AT: f64 = 0.8;

const RENEW_SPREAD: f64 = 0.1;

const MARGIN: Duration = Duration::from_secs(10);

const PAUSE_FIRST: Duration = Duration::from_secs(1);

const PAUSE_MOST: Duration = Duration::from_mins(1);

/// Longest wait that `Retry-After` may ask for. A longer one is taken for a mistake.
const PAUSE_SAID_MOST: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: f64, start: Instant) -> Instant {
        start + Duration::from_secs_f64(seconds)
    }

    fn token(asked_at: Instant, life: u64) -> Token {
        Token { text: "t".into(), bound: false, asked_at, life: Duration::from_secs(life) }
    }

    #[test]
    fn a_token_is_renewed_between_seventy_and_eighty_percent_and_ends_a_little_early() {
        let start = Instant::now();
        for (chance, renewed) in [(0.0, 480.0), (0.5, 450.0), (1.0, 420.0)] {
            let mut known = Known::default();
            assert_eq!(known.next(start), Next::AskFirst);
            known.note(Ok(token(start, 600)), after(1.0, start), chance);
            assert_eq!(known.next(after(renewed - 1.0, start)), Next::Use);
            assert_eq!(known.next(after(renewed + 1.0, start)), Next::RenewAside);
            assert_eq!(known.next(after(589.0, start)), Next::RenewAside);
            assert!(known.outcome(after(589.0, start)).is_ok() && known.outcome(after(590.0, start)).is_err());
            assert_eq!(known.next(after(590.0, start)), Next::AskFirst);
        }
        let mut short = Known::default();
        short.note(Ok(token(start, 1)), start, 0.0);
        assert!(short.outcome(after(0.89, start)).is_ok() && short.outcome(after(0.91, start)).is_err());
    }

    #[test]
    fn while_renewals_fail_the_old_token_is_used_and_pauses_grow() {
        let start = Instant::now();
        let mut known = Known::default();
        known.note(Ok(token(start, 600)), start, 0.0);
        let (mut now, mut pauses) = (after(500.0, start), Vec::new());
        for _ in 0..8 {
            known.note(Err(Failure::Unreachable("x".into())), now, 0.0);
            assert_eq!(known.next(now), Next::Use);
            let until = known.pause_until.unwrap();
            pauses.push((until - now).as_secs());
            now += Duration::from_millis(1);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(known.next(after(589.0, start)), Next::RenewAside);
        assert_eq!(known.next(after(591.0, start)), Next::AskFirst);
        known.note(Ok(token(now, 600)), now, 0.0);
        assert_eq!((known.failures, known.failure.as_ref(), known.next(now)), (0, None, Next::Use));
    }

    #[test]
    fn retry_after_is_kept_to_and_a_refusal_is_not_repeated() {
        let start = Instant::now();
        let busy = |said| Failure::Busy { status: 503, retry_after: Some(Duration::from_secs(said)) };
        let refused = Failure::Refused { status: 401, error: "invalid_client".into() };
        for (failure, pause) in [(busy(7), 7.0), (busy(90), 90.0), (busy(86_400), 3600.0), (refused, 60.0)] {
            for chance in [0.0, 1.0] {
                let mut known = Known::default();
                known.note(Err(failure.clone()), start, chance);
                assert_eq!(known.next(after(pause - 0.1, start)), Next::Fail, "{failure:?}");
                assert_eq!(known.outcome(after(1.0, start)).unwrap_err(), failure);
                assert_eq!(known.next(after(pause * 1.1 + 0.1, start)), Next::AskFirst, "{failure:?}");
            }
        }
    }
}
