//! Status lists (draft-ietf-oauth-status-list): signed documents that say which tokens are revoked, for APIs that verify tokens
//! by themselves. An index stands for one epoch of a client, so nothing is written for a token (ADR 33).

mod bits;
pub mod claim;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use serde_json::json;

use super::AuthorizationServer;
use crate::model::document::Document;
use crate::model::event::Event;
use crate::model::status::{LIST_BITS, StatusIndex};
use crate::model::time::{Span, UnixTime};
use crate::state::registry::Freshness;
use crate::state::signer::{Signer, SigningFault};

pub use bits::compress;

/// The status lists of this replica.
#[derive(Debug)]
pub struct StatusLists {
    /// `token.status_ttl`: the time for which a verifier may keep a list.
    pub ttl: Span,
    /// Times that building took, for `grantd_status_list_build_seconds`.
    pub build_seconds: Histogram,
    published: ArcSwapOption<PublishedLists>,
    /// Contents of the published lists; held while lists are built.
    made_of: Mutex<Contents>,
    has_many_revoked: AtomicBool,
    /// Whether the registry has changed since the lists were last found current.
    is_outdated: AtomicBool,
}

/// Status lists as they are served.
#[derive(Debug)]
pub struct PublishedLists {
    /// The Status List Tokens, by the name of their list.
    lists: BTreeMap<i64, Document>,
    /// Status List Aggregation: the URIs of all lists.
    pub aggregation: Document,
    kid: String,
    iat: UnixTime,
    exp: UnixTime,
}

/// Contents of all lists.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    lists: BTreeMap<i64, ListContents>,
    /// Ids of revoked tokens that have not expired.
    revoked: Arc<BTreeSet<String>>,
}

/// Set bits of a list, and the list as it stands in its token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ListContents {
    bits: Vec<u8>,
    lst: String,
}

impl StatusLists {
    /// Makes lists that are not built yet.
    #[must_use]
    pub fn new(ttl: Span) -> Self {
        Self {
            ttl,
            // From 50 µs to 0.8 s.
            build_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 15)),
            published: ArcSwapOption::empty(),
            made_of: Mutex::default(),
            has_many_revoked: AtomicBool::new(false),
            is_outdated: AtomicBool::new(true),
        }
    }

    /// The lists as they were built last; `None` before that.
    #[must_use]
    pub fn published(&self) -> Option<Arc<PublishedLists>> {
        self.published.load_full()
    }

    /// Seconds from `iat` to `exp` of a list.
    fn lifetime(&self) -> i64 {
        self.ttl.seconds().saturating_mul(10).max(SHORTEST_LIFETIME)
    }
}

impl PublishedLists {
    /// Returns the list of that name.
    #[must_use]
    pub fn list(&self, name: i64) -> Option<&Document> {
        self.lists.get(&name)
    }

    /// Seconds for which a cache may keep a list: `ttl`, and never past `exp`.
    #[must_use]
    pub fn max_age(&self, ttl: Span, now: UnixTime) -> i64 {
        ttl.seconds().min(self.exp.0.saturating_sub(now.0)).max(0)
    }
}

impl AuthorizationServer {
    /// Builds the lists when something is different, or half of their `ttl` is over. Without a change of the registry, only the
    /// ends of clients are looked at. Blocks while it compresses, so a task of its own calls it. Returns whether it built.
    pub fn build_status_lists(&self, has_changed: bool) -> bool {
        let (lists, now) = (&self.status_lists, self.clock.now());
        let mut made_of = lists.made_of.lock().unwrap_or_else(PoisonError::into_inner);
        // Kept until a build succeeds: a key in a module may fail to sign this one.
        let has_changed = lists.is_outdated.fetch_or(has_changed, Ordering::Relaxed) || has_changed;
        let Some(age) = self.registry.age().filter(|_| self.registry.freshness() != Freshness::Unusable) else {
            return false;
        };
        let Ok((_, key)) = self.signer(self.defaults.alg, now) else {
            // A list whose key was removed would be refused by every verifier.
            lists.published.store(None);
            return false;
        };
        let started = Instant::now();
        let published = lists.published();
        // "iat" is the time of which the list speaks, also when the database has not confirmed it for a while.
        let iat = UnixTime(now.0.saturating_sub(whole_seconds(age)));
        let iat = published.as_ref().map_or(iat, |published| published.iat.max(iat).min(now));
        let is_fresh = published.as_ref().is_some_and(|published| {
            let half = iat.0.saturating_sub(published.iat.0).saturating_mul(2) < lists.ttl.seconds();
            published.kid == key.kid() && half
        });
        let contents = self.status_contents(&made_of, has_changed || !is_fresh, now);
        let is_current = is_fresh && *made_of == contents;
        if is_current {
            lists.is_outdated.store(false, Ordering::Relaxed);
            return false;
        }
        let documents = match self.signed_lists(&contents, &key, iat) {
            Ok(documents) => documents,
            // The log has the trouble of a module, and the next look tries again.
            Err(SigningFault::Module(_)) => return false,
            Err(fault @ SigningFault::Library) => {
                tracing::error!(event = Event::Internal.as_str(), reason = %fault, "a status list could not be signed");
                return false;
            }
        };
        let uris: Vec<String> = contents.lists.keys().map(|name| claim::uri(self.issuer.as_str(), *name)).collect();
        lists.published.store(Some(Arc::new(PublishedLists {
            lists: documents,
            aggregation: Document::new(&json!({ "status_lists": uris })),
            kid: key.kid().to_owned(),
            iat,
            exp: UnixTime(iat.0.saturating_add(lists.lifetime())),
        })));
        *made_of = contents;
        lists.is_outdated.store(false, Ordering::Relaxed);
        lists.build_seconds.observe(started.elapsed().as_secs_f64());
        true
    }

    /// Computes the contents of the lists. A list whose bits are those of `before` is not compressed again, and revoked ids are
    /// collected only where `all` is read.
    fn status_contents(&self, before: &Contents, all: bool, now: UnixTime) -> Contents {
        let (registry, database_now) = (&self.registry, self.registry.database_time(now));
        let snapshot = registry.snapshot();
        // A verifier that has cached a list finds every index in it, and 0, that is given out later: lists have their full
        // size from the beginning, and a list is there before the one below it is full.
        let next = StatusIndex(snapshot.last_status_index().0.saturating_add(AHEAD));
        let mut names: BTreeSet<i64> = (snapshot.first_status_index().list()..=next.list()).collect();
        names.extend(registry.ended.lists());
        let expired: Vec<StatusIndex> = snapshot.expired_status(database_now).collect();
        let list = |name: i64| {
            let bits = match registry.ended.of_list(name) {
                None => vec![u8::MAX; LIST_BYTES],
                Some(ended) => {
                    let expired = expired.iter().filter(|index| index.list() == name).map(|index| index.idx());
                    bits::set(LIST_BYTES, ended.into_iter().chain(expired))
                }
            };
            let known = before.lists.get(&name).filter(|known| known.bits == bits);
            (name, known.cloned().unwrap_or_else(|| ListContents { lst: compress(&bits), bits }))
        };
        let lists = names.into_iter().map(list).collect();
        if !all {
            return Contents { lists, revoked: Arc::clone(&before.revoked) };
        }
        let living = registry.revoked.living(UnixTime(database_now.0.saturating_sub(LEEWAY)));
        let revoked: BTreeSet<String> = living.iter().map(ToString::to_string).collect();
        let has_many = revoked.len() > MANY_REVOKED;
        if has_many && !self.status_lists.has_many_revoked.swap(has_many, Ordering::Relaxed) {
            tracing::warn!(
                event = Event::StatusListLarge.as_str(),
                revoked = revoked.len(),
                "every verifier fetches the ids of all revoked tokens; revoke the tokens of a client with `grantd client revoke-tokens`"
            );
        }
        self.status_lists.has_many_revoked.store(has_many, Ordering::Relaxed);
        Contents { lists, revoked: Arc::new(revoked) }
    }

    fn signed_lists(
        &self,
        contents: &Contents,
        key: &Signer,
        iat: UnixTime,
    ) -> Result<BTreeMap<i64, Document>, SigningFault> {
        let exp = iat.0.saturating_add(self.status_lists.lifetime());
        let signed = |(name, list): (&i64, &ListContents)| {
            let claims = json!({
                "iss": self.issuer.as_str(),
                "sub": claim::uri(self.issuer.as_str(), *name),
                "iat": iat.0,
                "exp": exp,
                "ttl": self.status_lists.ttl.seconds(),
                "status_list": {"bits": 1, "lst": list.lst},
                // "The JWT MAY contain other claims." These tokens were revoked one by one.
                "revoked_jti": *contents.revoked,
            });
            Ok((*name, Document::of(key.jwt_blocking(TYP, claims.to_string().as_bytes())?)))
        };
        contents.lists.iter().map(signed).collect()
    }

    /// Number of status indices that are in use, or whose epoch has ended and whose tokens may live.
    #[must_use]
    pub fn status_indices(&self) -> usize {
        self.registry.snapshot().client_count() + self.registry.ended.count()
    }
}

/// Rounds up to whole seconds.
fn whole_seconds(age: Duration) -> i64 {
    i64::try_from(age.as_secs()).unwrap_or(i64::MAX).saturating_add(i64::from(age.subsec_nanos() > 0))
}

/// Time for which the bit of an ended epoch stays set: a day, the longest life of a token, and half a day for replicas that
/// could not reach the database when it ended.
pub const BIT_KEPT: Span = Span::from_secs(86_400 + 43_200);
/// Number of revoked ids in a list above which a warning is logged, and `grantd doctor` has advice.
pub const MANY_REVOKED: usize = 10_000;
/// The `typ` of a Status List Token.
const TYP: &str = "statuslist+jwt";
/// Bytes of a list, one bit for each index.
const LIST_BYTES: usize = 1 << (LIST_BITS - 3);
/// Number of free indices below which a further list is published.
const AHEAD: i64 = 1 << (LIST_BITS - 2);
/// Shortest lifetime of a list, in seconds.
const SHORTEST_LIFETIME: i64 = 300;
/// Seconds after the end of a revoked token for which its id stays in the lists, for verifiers whose clocks are behind.
const LEEWAY: i64 = 60;
