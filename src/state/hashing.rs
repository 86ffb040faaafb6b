//! The argon2 lane: a few threads of its own with memory they reuse, and a bounded, fair queue before them.
//!
//! Not `spawn_blocking` and not a semaphore: a caller who gives up would free its permit while its hash runs on, and
//! hundreds of hashes at once take gigabytes. Here memory is threads times the largest hash, whoever comes and goes.

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

/// The queue and the threads that work it.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    /// Hashes computed, for `grantd_argon2_verifications_total`.
    pub verifications: Counter,
    /// Jobs waiting, for `grantd_argon2_queue_depth`.
    pub depth: Gauge,
}

/// One secret to be held against one hash.
#[derive(Debug)]
pub struct HashCheck {
    /// What was presented.
    pub secret: Arc<ClientSecret>,
    /// What it may match.
    pub hash: SecretHash,
}

/// The queue is full: the machine cannot check more secrets now.
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
    /// Who waits for each attempt that is queued or under way.
    callers: HashMap<AttemptId, Vec<oneshot::Sender<Option<usize>>>>,
    closed: bool,
}

/// Tells an attempt from every other: a MAC of the client's id and all that was shown, since who joins an attempt gets its
/// answer.
pub type AttemptId = [u8; 32];

#[derive(Debug)]
enum Job {
    Verify { attempt: AttemptId, checks: Vec<HashCheck> },
    Hash { secret: Arc<ClientSecret>, cost: HashParams, answer: oneshot::Sender<Option<SecretHash>> },
}

impl Lane {
    /// Starts `threads` threads behind a queue of `capacity` jobs.
    ///
    /// # Errors
    /// When the system gives no thread.
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

    /// Tries each in turn until one matches, and returns its position. Failing runs all of them.
    ///
    /// Whoever makes an attempt that is queued or under way already waits for the same hashes. Dropping the future before its
    /// turn comes costs nothing.
    ///
    /// # Errors
    /// [`LaneFull`] when the queue has no room for it, or makes room for another.
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

    /// Hashes a secret anew.
    ///
    /// # Errors
    /// [`LaneFull`] when the queue has no room for it or the hash cannot be made.
    pub async fn hash(&self, secret: Arc<ClientSecret>, cost: HashParams) -> Result<SecretHash, LaneFull> {
        let (answer, answered) = oneshot::channel();
        let key = QueueKey { priority: Priority::KnownSource, client: 0, source: 0 };
        self.enqueue(self.shared.lock(), key, Job::Hash { secret, cost, answer });
        answered.await.ok().flatten().ok_or(LaneFull)
    }

    /// Whoever waits for a job that finds no room is told by its being dropped.
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
    /// Whether everybody who waited has left.
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
    /// Does the work and tells who waits, and may have left meanwhile.
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
                        "a hash panicked; whoever waits is told to try again"
                    ),
                }
            }
            Job::Hash { secret, cost, answer } => {
                let hash = SecretHash::new(secret.expose(), cost, memory);
                if let Err(error) = &hash {
                    tracing::error!(event = Event::Internal.as_str(), reason = %error, "a secret was not hashed anew");
                }
                // The error is told above; whoever waits can only try again.
                drop(answer.send(hash.ok()));
            }
        }
    }

    fn work(&self, verifications: &Counter, depth: &Gauge) {
        // A hash can wait for a few milliseconds; the clients whose secrets are known should not notice it. On Linux the
        // number is the thread's, and where it cannot be set, hashes are as important as all else.
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::debug!(%error, "the argon2 lane has the priority of all other threads");
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

    /// A poisoned lock is still a queue: no code that holds it leaves it half changed.
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

/// Of two busy threads, one of nice 0 and one of this, the latter gets a ninth of a processor.
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
    async fn h59_a_full_queue_refuses_at_once_and_jobs_of_callers_who_left_cost_nothing() {
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
