//! Tokens in the logs of the replicas, whether or not their answers arrived.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The address that a request named as its source, and the `jti` of the token that it got.
pub type Token = (Ipv4Addr, String);

/// Collects the tokens in the logs of all replicas, between `begin` and `end`.
#[derive(Debug, Clone, Default)]
pub struct TokenLog(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    wanted: AtomicBool,
    tokens: Mutex<Vec<Token>>,
}

impl TokenLog {
    /// Starts to collect.
    pub fn begin(&self) {
        self.0.wanted.store(true, Ordering::Relaxed);
    }

    /// Stops, and returns the tokens collected.
    pub fn end(&self) -> Vec<Token> {
        self.0.wanted.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads a line of a log.
    pub fn note(&self, line: &[u8]) {
        if self.0.wanted.load(Ordering::Relaxed)
            && let Some(token) = token(line)
        {
            self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner).push(token);
        }
    }
}

fn token(line: &[u8]) -> Option<Token> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    (line.get("event")?.as_str()? == "token.issued").then_some(())?;
    Some((line.get("remote_addr")?.as_str()?.parse().ok()?, line.get("jti")?.as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_issued_tokens_are_logged_and_only_while_recording() {
        let log = TokenLog::default();
        let line = br#"{"event":"token.issued","remote_addr":"10.0.0.7","jti":"a"}"#;
        log.note(line);
        log.begin();
        log.note(line);
        log.note(br#"{"event":"token.refused","remote_addr":"10.0.0.7"}"#);
        assert_eq!(log.end(), [(Ipv4Addr::new(10, 0, 0, 7), "a".to_owned())]);
        log.note(line);
        assert!(log.end().is_empty());
    }
}
