//! The issuer's keys: found through its metadata (RFC 8414), kept as long as they may be, and fetched without haste.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::CACHE_CONTROL;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::check::KeySet;

/// The key set of one issuer, cached.
#[derive(Debug)]
pub struct IssuerKeys {
    issuer: String,
    http: reqwest::Client,
    known: Mutex<Known>,
    /// One fetch at a time.
    fetching: Semaphore,
}

/// The cached keys, and the times of the fetches.
#[derive(Debug, Default)]
struct Known {
    keys: Option<Arc<KeySet>>,
    /// Until when the keys are fresh.
    fresh_until: Option<Instant>,
    /// When a fetch began that succeeded.
    fetched: Option<Instant>,
    /// When a fetch ended. Until then, those who need it wait for it.
    tried: Option<Instant>,
}

/// The step before the keys are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Use,
    /// Fetch, but those at hand will do for now.
    FetchAside,
    /// Fetch, and wait for it.
    FetchFirst,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl IssuerKeys {
    pub fn new(issuer: &str, http: reqwest::Client) -> Self {
        Self { issuer: issuer.to_owned(), http, known: Mutex::default(), fetching: Semaphore::new(1) }
    }

    /// The keys, among them `kid` if the issuer has published it. `None` while none could be fetched.
    pub async fn with(self: &Arc<Self>, kid: Option<&str>) -> Option<Arc<KeySet>> {
        let (keys, next) = self.now(kid);
        if next == Next::Use || (next == Next::FetchAside && self.fetching.available_permits() == 0) {
            return keys;
        }
        // In a task of its own: a caller that goes away must not take along the one fetch of these 30 seconds.
        let (this, wanted) = (Arc::clone(self), kid.map(str::to_owned));
        let fetching = tokio::spawn(async move { this.fetch_once(wanted.as_deref()).await });
        if next == Next::FetchAside {
            return keys;
        }
        drop(fetching.await);
        self.now(kid).0
    }

    fn now(&self, kid: Option<&str>) -> (Option<Arc<KeySet>>, Next) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        (known.usable(now), known.next(kid, now))
    }

    /// Fetches, unless somebody else did so while this call waited.
    async fn fetch_once(&self, kid: Option<&str>) {
        let Ok(_one) = self.fetching.acquire().await else { return };
        if self.now(kid).1 == Next::Use {
            return;
        }
        let began = Instant::now();
        let fetched = self.fetch().await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.tried = Some(Instant::now());
        match fetched {
            Ok((keys, max_age)) => {
                known.keys = Some(Arc::new(keys));
                known.fetched = Some(began);
                known.fresh_until = Some(began + max_age);
            }
            Err(why) => eprintln!("the keys of {} were not fetched: {why}", self.issuer),
        }
    }

    async fn fetch(&self) -> Result<(KeySet, Duration), String> {
        let (text, _) = self.get(&metadata_url(&self.issuer)).await?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| format!("metadata: {error}"))?;
        // RFC 8414 section 3.3: "The "issuer" value returned MUST be identical to the authorization server's issuer
        // identifier value".
        if metadata.issuer != self.issuer {
            return Err("the metadata is of another issuer".into());
        }
        let same_protection = metadata.jwks_uri.starts_with("https://") || self.issuer.starts_with("http://");
        if !same_protection {
            return Err("jwks_uri is not https".into());
        }
        let (text, max_age) = self.get(&metadata.jwks_uri).await?;
        let keys = KeySet::parse(&text).ok_or("the key set is malformed")?;
        Ok((keys, max_age.unwrap_or(MAX_AGE_UNSAID).clamp(PAUSE, MAX_AGE_MOST)))
    }

    /// A document of bounded size, and how long it is fresh.
    async fn get(&self, url: &str) -> Result<(Vec<u8>, Option<Duration>), String> {
        let failed = |error: reqwest::Error| error.without_url().to_string();
        let mut answer = self.http.get(url).timeout(PATIENCE).send().await.map_err(failed)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("{url} answers {}", answer.status()));
        }
        let fresh = answer.headers().get(CACHE_CONTROL).and_then(|value| max_age(value.to_str().ok()?));
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            text.extend_from_slice(&chunk);
            if text.len() > SIZE_MAX {
                return Err(format!("{url} is too large"));
            }
        }
        Ok((text, fresh))
    }
}

impl Known {
    /// Old keys are better than none while the issuer cannot be reached, but no token lives longer than a day.
    fn usable(&self, now: Instant) -> Option<Arc<KeySet>> {
        let fetched = self.fetched?;
        self.keys.clone().filter(|_| now.saturating_duration_since(fetched) < STALE_MAX)
    }

    fn next(&self, kid: Option<&str>, now: Instant) -> Next {
        // Whoever sends tokens with random ids, or an issuer that is down, causes a fetch every 30 seconds and no more.
        let too_soon = self.tried.is_some_and(|at| now.saturating_duration_since(at) < PAUSE);
        let fresh = self.fresh_until.is_some_and(|until| now < until);
        let missing = match (self.usable(now), kid) {
            (None, _) => true,
            (Some(keys), Some(kid)) => !keys.has(kid),
            (Some(_), None) => false,
        };
        match (too_soon, missing, fresh) {
            (true, ..) | (false, false, true) => Next::Use,
            (false, true, _) => Next::FetchFirst,
            (false, false, false) => Next::FetchAside,
        }
    }
}

/// RFC 8414 section 3.1: the well-known part goes between host and path.
fn metadata_url(issuer: &str) -> String {
    let host = issuer.find("://").map_or(0, |at| at + 3);
    let path = issuer.get(host..).and_then(|rest| rest.find('/')).map_or(issuer.len(), |at| host + at);
    let (origin, path) = issuer.split_at(path);
    format!("{origin}/.well-known/oauth-authorization-server{}", path.trim_end_matches('/'))
}

/// RFC 9111 section 5.2.2.1.
fn max_age(cache_control: &str) -> Option<Duration> {
    let mut directives = cache_control.split(',').map(str::trim);
    directives.find_map(|directive| directive.strip_prefix("max-age=")?.parse().ok()).map(Duration::from_secs)
}

/// Between two fetches, whatever comes.
const PAUSE: Duration = Duration::from_secs(30);

const PATIENCE: Duration = Duration::from_secs(5);

const MAX_AGE_UNSAID: Duration = Duration::from_mins(5);

const MAX_AGE_MOST: Duration = Duration::from_hours(1);

const STALE_MAX: Duration = Duration::from_hours(24);

const SIZE_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_part_goes_behind_the_host() {
        for (issuer, url) in [
            ("https://as.test", "https://as.test/.well-known/oauth-authorization-server"),
            ("https://as.test/", "https://as.test/.well-known/oauth-authorization-server"),
            ("https://as.test:1/t1", "https://as.test:1/.well-known/oauth-authorization-server/t1"),
        ] {
            assert_eq!(metadata_url(issuer), url);
        }
    }

    #[test]
    fn max_age_is_read() {
        assert_eq!(max_age("public, max-age=300, stale-if-error=86400"), Some(Duration::from_mins(5)));
        for without in ["", "no-store", "max-age=", "max-age=-1", "s-maxage=5"] {
            assert_eq!(max_age(without), None, "{without}");
        }
    }

    #[test]
    fn key_set_fetches_are_thirty_seconds_apart_whatever_arrives() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let nothing = Known::default();
        assert_eq!(nothing.next(Some("a"), start), Next::FetchFirst);
        assert_eq!(nothing.next(None, start), Next::FetchFirst);
        let failed = Known { tried: Some(start), ..Known::default() };
        assert_eq!(failed.next(Some("a"), at(29)), Next::Use, "and there is nothing to use");
        assert_eq!(failed.next(Some("a"), at(30)), Next::FetchFirst);

        let text = br#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"a","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs","y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}]}"#;
        let keys = Some(Arc::new(KeySet::parse(text).unwrap()));
        let known = Known { keys, fresh_until: Some(at(300)), fetched: Some(start), tried: Some(start) };
        assert_eq!(known.next(Some("a"), at(299)), Next::Use);
        assert_eq!(known.next(Some("b"), at(29)), Next::Use, "an unknown id right after a fetch is refused at once");
        assert_eq!(known.next(Some("b"), at(30)), Next::FetchFirst);
        assert_eq!(known.next(Some("a"), at(300)), Next::FetchAside, "nobody waits for what is only old");
        assert_eq!(known.next(None, at(300)), Next::FetchAside);
        assert!(known.usable(at(86_399)).is_some() && known.usable(at(86_400)).is_none());
        assert_eq!(known.next(Some("a"), at(86_400)), Next::FetchFirst);
    }
}
