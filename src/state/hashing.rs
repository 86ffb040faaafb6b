//! The argon2 lane: a fixed number of threads with memory that they reuse, behind a bounded, fair queue.
//!
//! A semaphore around `spawn_blocking` would not bound memory: a caller that gives up frees its permit while its hash
//! runs on, and hundreds of hashes at once take gigabytes. Here memory is threads times the largest hash, whatever
//! arrives, and a waiting job is small.

mod pace;
pub mod queue;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

use crate::crypto::random;
use crate::crypto::secret::{ClientSecret, HashMemory, HashParams, SecretHash};
use crate::model::event::Event;
use pace::Pace;
use queue::{CLASSES, Priority, Queue, QueueKey};

/// The queue, and the threads that take jobs from it.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    /// Number of hashes computed, for `grantd_argon2_verifications_total`.
    pub verifications: Counter,
    /// Number of waiting jobs, for `grantd_argon2_queue_depth`.
    pub depth: Gauge,
}

/// Verification of one secret against one hash.
#[derive(Debug)]
pub struct HashCheck {
    /// The presented secret.
    pub secret: Arc<ClientSecret>,
    /// The stored hash, or a decoy.
    pub hash: SecretHash,
}

/// Error: the queue is full.
#[derive(Debug, PartialEq, Eq)]
pub struct LaneFull {
    /// Time after which there is likely to be room.
    pub retry_after: Duration,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<LaneState>,
    filled: Condvar,
    pace: Pace,
    /// Whether the number of jobs that may wait follows the pace.
    by_pace: bool,
}

#[derive(Debug)]
struct LaneState {
    jobs: Queue<Job>,
    /// Callers that wait for each attempt that is queued or running.
    callers: HashMap<AttemptId, Vec<oneshot::Sender<Option<usize>>>>,
    /// Jobs of each class that matched nothing, less those that matched; 0 when the queue was last empty.
    guesses: [u32; CLASSES],
    /// Number of jobs that came since abandoned ones were removed.
    since_removal: usize,
    closed: bool,
}

/// Identity of an attempt: a MAC of the client id and of everything presented, since a caller that joins an attempt
/// gets its result.
pub type AttemptId = [u8; 32];

#[derive(Debug)]
enum Job {
    Verify { attempt: AttemptId, class: Priority, checks: Vec<HashCheck> },
    Hash { secret: Arc<ClientSecret>, cost: HashParams, answer: oneshot::Sender<Option<SecretHash>> },
}

impl Lane {
    /// Starts the lane with `threads` threads and a queue of `capacity` jobs, or of as many as are run in half a minute.
    /// The first estimate of that is made from the usual `cost` of a hash.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize, capacity: Option<usize>, cost: HashParams) -> io::Result<Self> {
        let pace = Pace::new(threads, cost);
        let state = Mutex::new(LaneState {
            jobs: Queue::new(capacity.unwrap_or_else(|| pace.capacity())),
            callers: HashMap::new(),
            guesses: [0; CLASSES],
            since_removal: 0,
            closed: false,
        });
        let shared = Arc::new(Shared { state, filled: Condvar::new(), pace, by_pace: capacity.is_none() });
        let lane = Self { shared, verifications: Counter::default(), depth: Gauge::default() };
        for number in 0..threads {
            let (shared, verifications, depth) =
                (Arc::clone(&lane.shared), lane.verifications.clone(), lane.depth.clone());
            thread::Builder::new()
                .name(format!("argon2-{number}"))
                .spawn(move || shared.work(&verifications, &depth))?;
        }
        Ok(lane)
    }

    /// Verifies `checks` in order until one matches, and returns its position. A failure computes all of them.
    ///
    /// A caller of an attempt that is already queued or running shares its hashes. Dropping the future before its turn
    /// costs nothing.
    ///
    /// # Errors
    /// [`LaneFull`] when the queue has no room for the attempt, or evicts it.
    pub async fn first_match(
        &self,
        key: QueueKey,
        attempt: AttemptId,
        checks: Vec<HashCheck>,
    ) -> Result<Option<usize>, LaneFull> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.shared.lock();
            let is_long = checks.iter().any(|check| check.secret.expose().len() > LONG);
            if is_long && waiting.jobs.depth() >= LONG_PLACES {
                drop(waiting);
                return Err(self.full());
            }
            match waiting.callers.entry(attempt) {
                Entry::Occupied(mut callers) => callers.get_mut().push(answer),
                Entry::Vacant(callers) => {
                    callers.insert(vec![answer]);
                    self.enqueue(waiting, key, Job::Verify { attempt, class: key.priority, checks });
                }
            }
        }
        answered.await.map_err(|_| self.full())
    }

    /// Verifies a secret that no request waits for, when there is nothing else to do.
    ///
    /// # Errors
    /// [`LaneFull`] when the queue has no room, or evicts it.
    pub async fn confirm(&self, check: HashCheck) -> Result<bool, LaneFull> {
        let attempt = random().map_err(|_| self.full())?;
        let key = QueueKey { priority: Priority::Confirmation, client: 0, source: 0 };
        self.first_match(key, attempt, vec![check]).await.map(|matched| matched.is_some())
    }

    /// Hashes a secret at a new cost.
    ///
    /// # Errors
    /// [`LaneFull`] when the queue has no room, or the hash cannot be made.
    pub async fn hash(&self, secret: Arc<ClientSecret>, cost: HashParams) -> Result<SecretHash, LaneFull> {
        let (answer, answered) = oneshot::channel();
        let key = QueueKey { priority: Priority::KnownSource, client: 0, source: 0 };
        self.enqueue(self.shared.lock(), key, Job::Hash { secret, cost, answer });
        // A job that was displaced, or whose hash failed, which is logged, has no answer.
        answered.await.ok().flatten().ok_or_else(|| self.full())
    }

    /// Adds a job. Callers of an evicted job learn of it from their dropped channel.
    fn enqueue(&self, mut waiting: MutexGuard<'_, LaneState>, key: QueueKey, job: Job) {
        waiting.since_removal += 1;
        // In steps, so that a flood that finds no room does not cost a search each time.
        if !waiting.jobs.has_room(key.priority) && waiting.since_removal > waiting.jobs.depth() / 16 {
            waiting.remove_abandoned();
        }
        if let Some(Job::Verify { attempt, .. }) = waiting.jobs.push(key, job) {
            waiting.callers.remove(&attempt);
        }
        self.depth.set(i64::try_from(waiting.jobs.depth()).unwrap_or(i64::MAX));
        drop(waiting);
        self.shared.filled.notify_one();
    }

    /// The error for a caller that finds no room.
    fn full(&self) -> LaneFull {
        let depth = self.shared.lock().jobs.depth();
        LaneFull { retry_after: self.shared.pace.retry_after(depth) }
    }
}

impl LaneState {
    /// Records whether a job has matched. A class in which guesses prevail is flooded.
    fn note(&mut self, class: Priority, matched: bool) {
        let Some(guesses) = self.guesses.get_mut(class as usize) else { return };
        *guesses = if matched { guesses.saturating_sub(1) } else { (*guesses + 1).min(2 * MANY_GUESSES) };
        let flooded = *guesses >= MANY_GUESSES;
        // Whoever has a tag was given the secret, and confirmations are no guesses.
        if matches!(class, Priority::KnownSource | Priority::Unknown) {
            self.jobs.set_flooded(class, flooded);
        }
    }

    /// Ends a flood.
    fn forget_guesses(&mut self) {
        self.guesses = [0; CLASSES];
        self.jobs.set_flooded(Priority::KnownSource, false);
        self.jobs.set_flooded(Priority::Unknown, false);
    }

    fn remove_abandoned(&mut self) {
        self.since_removal = 0;
        let Self { jobs, callers, .. } = self;
        jobs.retain(|job| !job.is_abandoned(callers));
        callers.retain(|_, callers| callers.iter().any(|caller| !caller.is_closed()));
    }
}

impl Job {
    /// Whether every caller has given up.
    fn is_abandoned(&self, callers: &HashMap<AttemptId, Vec<oneshot::Sender<Option<usize>>>>) -> bool {
        match self {
            Self::Verify { attempt, .. } => {
                callers.get(attempt).is_none_or(|callers| callers.iter().all(oneshot::Sender::is_closed))
            }
            Self::Hash { answer, .. } => answer.is_closed(),
        }
    }
}

impl Shared {
    /// Runs a job and sends its result to the callers, of which some may have given up.
    fn run(&self, job: Job, verifications: &Counter, memory: &mut HashMemory) {
        match job {
            Job::Verify { attempt, class, checks } => {
                let started = Instant::now();
                let matched = catch_unwind(AssertUnwindSafe(|| {
                    checks.iter().position(|check| {
                        verifications.inc();
                        check.hash.verify(check.secret.expose(), memory)
                    })
                }));
                self.pace.note(started.elapsed());
                let mut waiting = self.lock();
                if let Ok(matched) = &matched {
                    waiting.note(class, matched.is_some());
                }
                if self.by_pace {
                    waiting.jobs.set_capacity(self.pace.capacity());
                }
                let callers = waiting.callers.remove(&attempt).unwrap_or_default();
                drop(waiting);
                match matched {
                    Ok(matched) => {
                        for caller in callers {
                            caller.send(matched).unwrap_or_default();
                        }
                    }
                    Err(_) => tracing::error!(
                        event = Event::Internal.as_str(),
                        reason = "panic",
                        "a hash panicked; the requests that wait for it are answered 503"
                    ),
                }
            }
            Job::Hash { secret, cost, answer } => {
                let hash = SecretHash::new(secret.expose(), cost, memory);
                if let Err(error) = &hash {
                    tracing::error!(event = Event::Internal.as_str(), reason = %error, "a secret could not be hashed at the new cost");
                }
                // The error is logged above; the caller can only try again.
                drop(answer.send(hash.ok()));
            }
        }
    }

    fn work(&self, verifications: &Counter, depth: &Gauge) {
        // Hashes yield to requests whose secrets are cached. On Linux the priority is that of the thread; where it
        // cannot be set, hashes compete equally.
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::debug!(%error, "the priority of the argon2 lane could not be lowered");
        }
        let mut memory = HashMemory::default();
        while let Some(job) = self.next(depth) {
            self.run(job, verifications, &mut memory);
        }
    }

    fn next(&self, depth: &Gauge) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop() {
                depth.set(i64::try_from(waiting.jobs.depth()).unwrap_or(i64::MAX));
                // What waited when a flood was noticed is refused, down to the places that a flood has.
                let crowded = matches!(job, Job::Verify { class, .. } if waiting.jobs.is_crowded(class));
                if !crowded && !job.is_abandoned(&waiting.callers) {
                    return Some(job);
                }
                if let Job::Verify { attempt, .. } = job {
                    waiting.callers.remove(&attempt);
                }
                continue;
            }
            waiting.forget_guesses();
            if waiting.closed {
                return None;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A poisoned lock is used on: no code that holds it leaves the queue half changed.
    fn lock(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_all();
    }
}

/// Niceness of the threads. Beside a busy thread of niceness 0, a thread of the lane gets a ninth of a processor.
const NICE: i32 = 10;
/// Bytes of a secret above which it is long. A long one finds room only while few jobs wait, so that the queue's memory is
/// bounded: by its capacity times 3.5 KiB, and 8 MiB for long ones.
const LONG: usize = 1024;
const LONG_PLACES: usize = 256;
/// Guesses more than right secrets, within one class, that make a flood.
const MANY_GUESSES: u32 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    use crate::crypto::random;

    const PLACE: QueueKey = QueueKey { priority: Priority::Unknown, client: 1, source: 1 };

    fn lane(threads: usize, capacity: usize) -> Lane {
        Lane::start(threads, Some(capacity), HashParams::default()).unwrap()
    }

    fn check(secret: &str) -> HashCheck {
        HashCheck {
            secret: Arc::new(ClientSecret::new(secret.to_owned())),
            hash: SecretHash::decoy(HashParams::default()),
        }
    }

    #[tokio::test]
    async fn the_first_match_is_found_and_failing_tries_all() {
        let lane = lane(1, 8);
        let hash = SecretHash::new("right", HashParams::default(), &mut HashMemory::default()).unwrap();
        let secret = Arc::new(ClientSecret::new("right".to_owned()));
        let checks = vec![check("right"), HashCheck { secret, hash }, check("right")];
        assert_eq!(lane.first_match(PLACE, random().unwrap(), checks).await, Ok(Some(1)));
        assert_eq!(lane.verifications.get(), 2);
        assert_eq!(lane.first_match(PLACE, random().unwrap(), vec![check("wrong"), check("wrong")]).await, Ok(None));
        assert_eq!(lane.verifications.get(), 4);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_abandoned_jobs_cost_nothing() {
        let lane = lane(1, 4);
        let mut callers: Vec<_> =
            (0..50).map(|_| Box::pin(lane.first_match(PLACE, random().unwrap(), vec![check("wrong")]))).collect();
        let mut refused = 0;
        for caller in &mut callers {
            if let Some(Err(LaneFull { .. })) = futures_poll(caller.as_mut()) {
                refused += 1;
            }
        }
        assert!(refused >= 45, "{refused}");
        let ran_before = lane.verifications.get();
        drop(callers);
        assert_eq!(lane.first_match(PLACE, random().unwrap(), vec![check("wrong")]).await, Ok(None));
        assert!(lane.verifications.get() - ran_before <= 2, "abandoned jobs were hashed");
    }

    #[tokio::test]
    async fn the_same_attempt_at_the_same_time_is_hashed_once_and_every_caller_is_told() {
        let lane = lane(2, 8);
        let hash = SecretHash::new("right", HashParams::default(), &mut HashMemory::default()).unwrap();
        let right = || {
            let secret = Arc::new(ClientSecret::new("right".to_owned()));
            lane.first_match(PLACE, [1; 32], vec![HashCheck { secret, hash: hash.clone() }])
        };
        let (a, b, c, other) =
            tokio::join!(right(), right(), right(), lane.first_match(PLACE, [2; 32], vec![check("x")]));
        assert_eq!([a, b, c, other], [Ok(Some(0)), Ok(Some(0)), Ok(Some(0)), Ok(None)]);
        assert_eq!(lane.verifications.get(), 2);
        assert!(lane.shared.lock().callers.is_empty());
        assert_eq!(right().await, Ok(Some(0)), "later ones are attempts of their own");
        assert_eq!(lane.verifications.get(), 3);
    }

    #[tokio::test]
    async fn guesses_that_prevail_have_few_places_and_right_secrets_have_all() {
        let lane = lane(2, 2000);
        let hash = SecretHash::new("right", HashParams::default(), &mut HashMemory::default()).unwrap();
        let trial = async |secret: &str| {
            let secret = Arc::new(ClientSecret::new(secret.to_owned()));
            let check = HashCheck { secret, hash: hash.clone() };
            lane.first_match(PLACE, random().unwrap(), vec![check]).await
        };
        let refused = async |number: usize, secret: &str| {
            let trials = futures_util::future::join_all((0..number).map(|_| trial(secret))).await;
            trials.iter().filter(|trial| trial.is_err()).count()
        };
        assert_eq!(refused(300, "right").await, 0, "a herd after a restart");
        let refused_guesses = refused(350, "wrong").await;
        assert!((30..=94).contains(&refused_guesses), "{refused_guesses}");
        assert_eq!(refused(50, "right").await, 0, "the flood is over");
    }

    #[tokio::test]
    async fn a_confirmation_tells_whether_the_hash_matches() {
        let lane = lane(1, 4);
        let hash = SecretHash::new("right", HashParams::default(), &mut HashMemory::default()).unwrap();
        let secret = Arc::new(ClientSecret::new("right".to_owned()));
        assert_eq!(lane.confirm(HashCheck { secret, hash }).await, Ok(true));
        assert_eq!(lane.confirm(check("right")).await, Ok(false));
    }

    #[tokio::test]
    async fn long_secrets_find_room_in_a_short_queue_alone() {
        let lane = lane(1, 2000);
        let long = "x".repeat(LONG + 1);
        let mut callers: Vec<_> =
            (0..400).map(|_| Box::pin(lane.first_match(PLACE, random().unwrap(), vec![check(&long)]))).collect();
        let refused = callers.iter_mut().filter_map(|caller| futures_poll(caller.as_mut())).count();
        assert!((100..=144).contains(&refused), "{refused}");
        let mut short = Box::pin(lane.first_match(PLACE, random().unwrap(), vec![check("short")]));
        assert!(futures_poll(short.as_mut()).is_none(), "it waits");
    }

    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
