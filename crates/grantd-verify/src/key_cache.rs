//! The issuer's JWK Set: found through its metadata (RFC 8414), cached, and fetched by one task at a time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jose::jwk_set::JwkSet;
use serde::Deserialize;
use tokio::sync::Semaphore;

/// A document to fetch by `GET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    /// The absolute URL. Do not follow redirects: keys come from where the issuer's metadata say.
    pub url: String,
    /// The value of `If-None-Match`, if any.
    pub if_none_match: Option<String>,
}

/// The answer to a [`Get`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The status code. 200 and 304 count, all others are failures.
    pub status: u16,
    /// `ETag`, if any.
    pub etag: Option<String>,
    /// `Cache-Control`, if any.
    pub cache_control: Option<String>,
    /// The body; empty with 304. Stop reading at 256 KiB.
    pub body: Vec<u8>,
}

/// A fetch under way. It is given five seconds, and fails with a text for the log.
pub type Fetching = Pin<Box<dyn Future<Output = Result<Fetched, String>> + Send>>;

pub(crate) type Fetch = Box<dyn Fn(Get) -> Fetching + Send + Sync>;

/// The JWK Set of one issuer.
pub(crate) struct KeyCache {
    issuer: String,
    fetch: Fetch,
    known: Mutex<Known>,
    /// One fetch at a time.
    fetching: Semaphore,
}

#[derive(Default)]
struct Known {
    keys: Option<Arc<JwkSet>>,
    /// Where the keys came from, and the `ETag` they had.
    source: Option<(String, String)>,
    /// The keys are fresh until then.
    fresh_until: Option<Instant>,
    /// When the last successful fetch began.
    fetched: Option<Instant>,
    /// When the last fetch ended.
    tried: Option<Instant>,
}

/// The step before the keys are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Use,
    /// Fetch, and use those at hand meanwhile.
    FetchAside,
    /// Fetch, and wait for it.
    FetchFirst,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

/// A successful fetch.
struct Answer {
    /// `None` when they have not changed.
    keys: Option<JwkSet>,
    source: Option<(String, String)>,
    max_age: Duration,
}

impl KeyCache {
    pub(crate) fn new(issuer: &str, fetch: Fetch) -> Self {
        Self { issuer: issuer.to_owned(), fetch, known: Mutex::default(), fetching: Semaphore::new(1) }
    }

    /// The keys, with `kid` among them if the issuer has published it. `None` while none could be fetched.
    pub(crate) async fn with(self: &Arc<Self>, kid: Option<&str>) -> Option<Arc<JwkSet>> {
        let (keys, next) = self.now(kid);
        if next == Next::Use || (next == Next::FetchAside && self.fetching.available_permits() == 0) {
            return keys;
        }
        // In a task of its own: a caller that goes away must not cancel the fetch for which others wait.
        let (this, wanted) = (Arc::clone(self), kid.map(str::to_owned));
        let fetching = tokio::spawn(async move { this.fetch_once(wanted.as_deref()).await });
        if next == Next::FetchAside {
            return keys;
        }
        drop(fetching.await);
        self.now(kid).0
    }

    fn now(&self, kid: Option<&str>) -> (Option<Arc<JwkSet>>, Next) {
        let (known, now) = (self.known.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        (known.usable(now), known.next(kid, now))
    }

    /// Fetches, unless another task did so while this one waited.
    async fn fetch_once(&self, kid: Option<&str>) {
        let Ok(_one) = self.fetching.acquire().await else { return };
        if self.now(kid).1 == Next::Use {
            return;
        }
        let began = Instant::now();
        let source = self.known.lock().unwrap_or_else(PoisonError::into_inner).source.clone();
        let fetched = self.fetch(source).await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.tried = Some(Instant::now());
        match fetched {
            Ok(Answer { keys, source, max_age }) => {
                known.keys = keys.map(Arc::new).or_else(|| known.keys.take());
                known.source = source;
                (known.fetched, known.fresh_until) = (Some(began), Some(began + max_age));
            }
            Err(why) => tracing::warn!(issuer = %self.issuer, %why, "the JWK Set was not fetched"),
        }
    }

    async fn fetch(&self, source: Option<(String, String)>) -> Result<Answer, String> {
        let metadata = self.get(Get { url: metadata_url(&self.issuer), if_none_match: None }).await?;
        let metadata: Metadata =
            serde_json::from_slice(&metadata.body).map_err(|error| format!("metadata: {error}"))?;
        // RFC 8414 section 3.3: "The "issuer" value returned MUST be identical to the authorization server's issuer
        // identifier value".
        if metadata.issuer != self.issuer {
            return Err("the metadata are of another issuer".to_owned());
        }
        if !metadata.jwks_uri.starts_with("https://") && !self.issuer.starts_with("http://") {
            return Err("jwks_uri is not https".to_owned());
        }
        let url = metadata.jwks_uri;
        let source = source.filter(|(from, _)| *from == url);
        let if_none_match = source.as_ref().map(|(_, etag)| etag.clone());
        let answer = self.get(Get { url: url.clone(), if_none_match }).await?;
        let max_age = max_age(answer.cache_control.as_deref().unwrap_or_default());
        if answer.status == 304 && source.is_some() {
            return Ok(Answer { keys: None, source, max_age });
        }
        let keys = JwkSet::parse(&answer.body, None, KEYS_MAX).map_err(|error| format!("the JWK Set: {error}"))?;
        Ok(Answer { keys: Some(keys), source: answer.etag.map(|etag| (url, etag)), max_age })
    }

    async fn get(&self, get: Get) -> Result<Fetched, String> {
        let (url, conditional) = (get.url.clone(), get.if_none_match.is_some());
        let late = |_| format!("{url}: no answer within {} s", DEADLINE.as_secs());
        let answer = tokio::time::timeout(DEADLINE, (self.fetch)(get)).await.map_err(late)??;
        match answer.status {
            200 => Ok(answer),
            304 if conditional => Ok(answer),
            status => Err(format!("{url}: status {status}")),
        }
    }
}

impl Known {
    /// Old keys are better than none while the issuer is down, but no token of grantd lives longer than a day.
    fn usable(&self, now: Instant) -> Option<Arc<JwkSet>> {
        let fetched = self.fetched?;
        self.keys.clone().filter(|_| now.saturating_duration_since(fetched) < STALE_MAX)
    }

    fn next(&self, kid: Option<&str>, now: Instant) -> Next {
        // Tokens with made-up ids, and an issuer that is down, cause one fetch every 30 seconds and no more.
        let too_soon = self.tried.is_some_and(|at| now.saturating_duration_since(at) < PAUSE);
        let fresh = self.fresh_until.is_some_and(|until| now < until);
        let missing = match (self.usable(now), kid) {
            (None, _) => true,
            (Some(keys), Some(kid)) => !keys.keys.iter().any(|key| key.is_called(kid)),
            (Some(_), None) => false,
        };
        match (too_soon, missing, fresh) {
            (true, ..) | (false, false, true) => Next::Use,
            (false, true, _) => Next::FetchFirst,
            (false, false, false) => Next::FetchAside,
        }
    }
}

/// RFC 8414 section 3.1: the well-known part is inserted between host and path.
fn metadata_url(issuer: &str) -> String {
    let host = issuer.find("://").map_or(0, |at| at + 3);
    let path = issuer.get(host..).and_then(|rest| rest.find('/')).map_or(issuer.len(), |at| host + at);
    let (origin, path) = issuer.split_at(path);
    format!("{origin}/.well-known/oauth-authorization-server{}", path.trim_end_matches('/'))
}

/// How long the keys are fresh (RFC 9111 section 5.2.2), within bounds.
fn max_age(cache_control: &str) -> Duration {
    let mut directives = cache_control.split(',').map(str::trim);
    let seconds = directives.find_map(|directive| match directive.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("max-age") => value.trim_matches('"').parse().ok(),
        None if ["no-store", "no-cache"].iter().any(|name| directive.eq_ignore_ascii_case(name)) => Some(0),
        _ => None,
    });
    seconds.map_or(MAX_AGE_UNSAID, Duration::from_secs).clamp(PAUSE, MAX_AGE_MAX)
}

/// Between the end of a fetch and the next.
const PAUSE: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(5);
const MAX_AGE_UNSAID: Duration = Duration::from_mins(5);
const MAX_AGE_MAX: Duration = Duration::from_hours(1);
const STALE_MAX: Duration = Duration::from_hours(24);
const KEYS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use jose::jwk::Alg;
    use jose::jws::SigningKey;
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://as.test";

    /// An issuer that answers with this `ETag`, or is down, and the requests it has had.
    #[derive(Default)]
    struct Issuer {
        published: Mutex<Vec<SigningKey>>,
        is_down: Mutex<bool>,
        requests: Mutex<Vec<Get>>,
    }

    impl Issuer {
        fn answer(&self, get: &Get) -> Result<Fetched, String> {
            self.requests.lock().unwrap().push(get.clone());
            if *self.is_down.lock().unwrap() {
                return Err("down".to_owned());
            }
            let published = self.published.lock().unwrap();
            let keys: Vec<_> = published.iter().map(SigningKey::published).collect();
            let etag = format!("\"{}\"", keys.len());
            let body = match get.url.as_str() {
                "https://as.test/.well-known/oauth-authorization-server" => {
                    json!({"issuer": ISSUER, "jwks_uri": "https://as.test/jwks"})
                }
                "https://as.test/jwks" if get.if_none_match.as_ref() == Some(&etag) => {
                    return Ok(Fetched { status: 304, ..Fetched::default() });
                }
                "https://as.test/jwks" => json!({"keys": keys}),
                other => return Err(format!("{other}?")),
            };
            let body = body.to_string().into_bytes();
            Ok(Fetched { status: 200, etag: Some(etag), cache_control: Some("public, max-age=60".to_owned()), body })
        }

        fn publish(&self) -> String {
            let (key, _) = SigningKey::generate(Alg::EdDsa).unwrap();
            let kid = key.kid().to_owned();
            self.published.lock().unwrap().push(key);
            kid
        }
    }

    fn cache() -> (Arc<Issuer>, Arc<KeyCache>) {
        let issuer = Arc::new(Issuer::default());
        let fetched = Arc::clone(&issuer);
        let fetch: Fetch = Box::new(move |get| {
            let answer = fetched.answer(&get);
            Box::pin(async move { answer })
        });
        (issuer, Arc::new(KeyCache::new(ISSUER, fetch)))
    }

    /// Moves the times of the cache into the past.
    fn pass(cache: &KeyCache, seconds: u64) {
        let mut known = cache.known.lock().unwrap();
        let earlier = |at: Option<Instant>| at.map(|at| at.checked_sub(Duration::from_secs(seconds)).unwrap());
        known.fresh_until = earlier(known.fresh_until);
        (known.fetched, known.tried) = (earlier(known.fetched), earlier(known.tried));
    }

    fn kids(keys: Option<Arc<JwkSet>>) -> Vec<String> {
        keys.unwrap().keys.iter().map(|key| key.jkt().to_owned()).collect()
    }

    #[tokio::test]
    async fn an_unknown_kid_causes_one_fetch_in_thirty_seconds_and_one_at_a_time() {
        let (issuer, cache) = cache();
        let first = issuer.publish();
        let waiting: Vec<_> = (0..20)
            .map(|n| {
                let cache = Arc::clone(&cache);
                tokio::spawn(async move { cache.with(Some(&format!("unknown {n}"))).await.unwrap().keys.len() })
            })
            .collect();
        for one in waiting {
            assert_eq!(one.await.unwrap(), 1);
        }
        assert_eq!(issuer.requests.lock().unwrap().len(), 2, "the metadata and the JWK Set, once");
        let second = issuer.publish();
        assert_eq!(kids(cache.with(Some(&second)).await), [&*first], "it is too soon");
        pass(&cache, 30);
        assert_eq!(kids(cache.with(Some(&second)).await), [first, second.clone()]);
        let last = issuer.requests.lock().unwrap().last().cloned().unwrap();
        assert_eq!(last.if_none_match.as_deref(), Some("\"1\""), "the ETag it has");
        // With a known kid, nothing is fetched until the set is old; then it has not changed.
        assert_eq!(cache.with(Some(&second)).await.unwrap().keys.len(), 2);
        assert_eq!(issuer.requests.lock().unwrap().len(), 4);
        pass(&cache, 60);
        assert_eq!(cache.with(Some("a third")).await.unwrap().keys.len(), 2, "304 keeps the keys");
        assert_eq!(issuer.requests.lock().unwrap().len(), 6);
    }

    #[tokio::test]
    async fn the_last_good_set_is_used_for_a_day_while_the_issuer_is_down() {
        let (issuer, cache) = cache();
        *issuer.is_down.lock().unwrap() = true;
        assert!(cache.with(None).await.is_none());
        *issuer.is_down.lock().unwrap() = false;
        assert!(cache.with(None).await.is_none(), "it is too soon");
        let kid = issuer.publish();
        pass(&cache, 30);
        assert_eq!(kids(cache.with(Some(&kid)).await), [&*kid]);
        *issuer.is_down.lock().unwrap() = true;
        pass(&cache, 86_000);
        assert_eq!(kids(cache.with(Some(&kid)).await), [&*kid]);
        pass(&cache, 400);
        assert!(cache.with(Some(&kid)).await.is_none());
    }

    #[test]
    fn the_well_known_part_is_inserted_behind_the_host() {
        for (issuer, url) in [
            ("https://as.test", "https://as.test/.well-known/oauth-authorization-server"),
            ("https://as.test/", "https://as.test/.well-known/oauth-authorization-server"),
            ("https://as.test:1/t1", "https://as.test:1/.well-known/oauth-authorization-server/t1"),
        ] {
            assert_eq!(metadata_url(issuer), url);
        }
    }

    #[test]
    fn freshness_is_what_cache_control_says_within_bounds() {
        for (field, seconds) in [
            ("public, max-age=300, stale-if-error=86400", 300),
            ("Max-Age=90", 90),
            ("max-age=5", 30),
            ("max-age=86400", 3600),
            ("no-store", 30),
            ("private, no-cache", 30),
            ("", 300),
            ("max-age=", 300),
            ("max-age=-1", 300),
            ("s-maxage=5", 300),
        ] {
            assert_eq!(max_age(field), Duration::from_secs(seconds), "{field}");
        }
    }
}
