//! The argon2 lane: a fixed number of threads with memory that they reuse, behind a bounded, fair queue.
//!
//! A semaphore around `spawn_blocking` would not bound memory: a caller that gives up frees its permit while its hash
//! runs on, and hundreds of hashes at once take gigabytes. Here memory is threads times the largest hash, whatever
//! arrives.

pub mod queue;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

use crate::crypto::secret::{ClientSecret, HashMemory, HashParams, SecretHash};
use crate::model::event::Event;
use queue::{Priority, Queue, QueueKey};

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
pub struct LaneFull;

#[derive(Debug)]
struct Shared {
    state: Mutex<LaneState>,
    filled: Condvar,
}

#[derive(Debug)]
struct LaneState {
    jobs: Queue<Job>,
    /// Callers that wait for each attempt that is queued or running.
    callers: HashMap<AttemptId, Vec<oneshot::Sender<Option<usize>>>>,
    closed: bool,
}

/// Identity of an attempt: a MAC of the client id and of everything presented, since a caller that joins an attempt
/// gets its result.
pub type AttemptId = [u8; 32];

#[derive(Debug)]
enum Job {
    Verify { attempt: AttemptId, checks: Vec<HashCheck> },
    Hash { secret: Arc<ClientSecret>, cost: HashParams, answer: oneshot::Sender<Option<SecretHash>> },
}

impl Lane {
    /// Starts the lane with `threads` threads and a queue of `capacity` jobs.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize, capacity: usize) -> io::Result<Self> {
        let state = Mutex::new(LaneState { jobs: Queue::new(capacity), callers: HashMap::new(), closed: false });
        let shared = Arc::new(Shared { state, filled: Condvar::new() });
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
            match waiting.callers.entry(attempt) {
                Entry::Occupied(mut callers) => callers.get_mut().push(answer),
                Entry::Vacant(callers) => {
                    callers.insert(vec![answer]);
                    self.enqueue(waiting, key, Job::Verify { attempt, checks });
                }
            }
        }
        answered.await.map_err(|_| LaneFull)
    }

    /// Hashes a secret at a new cost.
    ///
    /// # Errors
    /// [`LaneFull`] when the queue has no room, or the hash cannot be made.
    pub async fn hash(&self, secret: Arc<ClientSecret>, cost: HashParams) -> Result<SecretHash, LaneFull> {
        let (answer, answered) = oneshot::channel();
        let key = QueueKey { priority: Priority::KnownSource, client: 0, source: 0 };
        self.enqueue(self.shared.lock(), key, Job::Hash { secret, cost, answer });
        answered.await.ok().flatten().ok_or(LaneFull)
    }

    /// Adds a job. Callers of an evicted job learn of it from their dropped channel.
    fn enqueue(&self, mut waiting: MutexGuard<'_, LaneState>, key: QueueKey, job: Job) {
        if waiting.jobs.is_full() {
            waiting.remove_abandoned();
        }
        if let Some(Job::Verify { attempt, .. }) = waiting.jobs.push(key, job) {
            waiting.callers.remove(&attempt);
        }
        self.depth.set(i64::try_from(waiting.jobs.depth()).unwrap_or(i64::MAX));
        drop(waiting);
        self.shared.filled.notify_one();
    }
}

impl LaneState {
    fn remove_abandoned(&mut self) {
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
            Job::Verify { attempt, checks } => {
                let matched = catch_unwind(AssertUnwindSafe(|| {
                    checks.iter().position(|check| {
                        verifications.inc();
                        check.hash.verify(check.secret.expose(), memory)
                    })
                }));
                let callers = self.lock().callers.remove(&attempt).unwrap_or_default();
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
                if !job.is_abandoned(&waiting.callers) {
                    return Some(job);
                }
                if let Job::Verify { attempt, .. } = job {
                    waiting.callers.remove(&attempt);
                }
                continue;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    use crate::crypto::random;

    const PLACE: QueueKey = QueueKey { priority: Priority::Unknown, client: 1, source: 1 };

    fn check(secret: &str) -> HashCheck {
        HashCheck {
            secret: Arc::new(ClientSecret::new(secret.to_owned())),
            hash: SecretHash::decoy(HashParams::default()),
        }
    }

    #[tokio::test]
    async fn the_first_match_is_found_and_failing_tries_all() {
        let lane = Lane::start(1, 8).unwrap();
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
        let lane = Lane::start(1, 4).unwrap();
        let mut callers: Vec<_> =
            (0..50).map(|_| Box::pin(lane.first_match(PLACE, random().unwrap(), vec![check("wrong")]))).collect();
        let mut refused = 0;
        for caller in &mut callers {
            if let Some(Err(LaneFull)) = futures_poll(caller.as_mut()) {
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
        let lane = Lane::start(2, 8).unwrap();
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

    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
