//! The argon2 lane: a few threads of its own with memory they reuse, and a bounded, fair queue before them.
//!
//! Not `spawn_blocking` and not a semaphore: a caller who gives up would free its permit while its hash runs on, and
//! hundreds of hashes at once take gigabytes. Here memory is threads times the largest hash, whoever comes and goes.

pub mod queue;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

use crate::crypto::secret::{ClientSecret, HashParams, Memory, SecretHash};
use queue::{Place, Queue, Standing};

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
pub struct Trial {
    /// What was presented.
    pub secret: Arc<ClientSecret>,
    /// What it may match.
    pub hash: SecretHash,
}

/// The queue is full: the machine cannot check more secrets now.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug)]
struct Waiting {
    jobs: Queue<Job>,
    closed: bool,
}

#[derive(Debug)]
enum Job {
    Try { trials: Vec<Trial>, answer: oneshot::Sender<Option<usize>> },
    Hash { secret: Arc<ClientSecret>, cost: HashParams, answer: oneshot::Sender<Option<SecretHash>> },
}

impl Lane {
    /// Starts `threads` threads behind a queue of `capacity` jobs.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(threads: usize, capacity: usize) -> io::Result<Self> {
        let waiting = Mutex::new(Waiting { jobs: Queue::new(capacity), closed: false });
        let shared = Arc::new(Shared { waiting, filled: Condvar::new() });
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
    /// Dropping the future before its turn comes costs nothing.
    ///
    /// # Errors
    /// [`Busy`] when the queue has no room for it, or makes room for another.
    pub async fn first_match(&self, place: Place, trials: Vec<Trial>) -> Result<Option<usize>, Busy> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(place, Job::Try { trials, answer });
        answered.await.map_err(|_| Busy)
    }

    /// Hashes a secret anew.
    ///
    /// # Errors
    /// [`Busy`] when the queue has no room for it or the hash cannot be made.
    pub async fn hash(&self, secret: Arc<ClientSecret>, cost: HashParams) -> Result<SecretHash, Busy> {
        let (answer, answered) = oneshot::channel();
        let place = Place { standing: Standing::KnownSource, client: 0, source: 0 };
        self.enqueue(place, Job::Hash { secret, cost, answer });
        answered.await.ok().flatten().ok_or(Busy)
    }

    /// Whoever waits for a job that finds no room is told by its being dropped.
    fn enqueue(&self, place: Place, job: Job) {
        let mut waiting = self.shared.lock();
        if waiting.jobs.is_full() {
            waiting.jobs.retain(|job| !job.is_abandoned());
        }
        let evicted = waiting.jobs.push(place, job);
        self.depth.set(i64::try_from(waiting.jobs.len()).unwrap_or(i64::MAX));
        drop(waiting);
        drop(evicted);
        self.shared.filled.notify_one();
    }
}

impl Job {
    /// Whether the caller has left.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Try { answer, .. } => answer.is_closed(),
            Self::Hash { answer, .. } => answer.is_closed(),
        }
    }

    /// Does the work and tells the caller, who may have left meanwhile.
    fn run(self, verifications: &Counter, memory: &mut Memory) {
        match self {
            Self::Try { trials, answer } => {
                let matched = trials.iter().position(|trial| {
                    verifications.inc();
                    trial.hash.verify(trial.secret.expose(), memory)
                });
                answer.send(matched).unwrap_or_default();
            }
            Self::Hash { secret, cost, answer } => {
                let hash = SecretHash::new(secret.expose(), cost, memory);
                if let Err(error) = &hash {
                    tracing::error!(event = "internal", reason = %error, "a secret was not hashed anew");
                }
                // The error is told above; whoever waits can only try again.
                drop(answer.send(hash.ok()));
            }
        }
    }
}

impl Shared {
    fn work(&self, verifications: &Counter, depth: &Gauge) {
        // A hash can wait for a few milliseconds; the clients whose secrets are known should not notice it. On Linux the
        // number is the thread's, and where it cannot be set, hashes are as important as all else.
        if let Err(error) = rustix::process::nice(YIELDING) {
            tracing::debug!(%error, "the argon2 lane has the priority of all other threads");
        }
        let mut memory = Memory::default();
        while let Some(job) = self.next(depth) {
            if job.is_abandoned() {
                continue;
            }
            if catch_unwind(AssertUnwindSafe(|| job.run(verifications, &mut memory))).is_err() {
                tracing::error!(
                    event = "internal",
                    reason = "panic",
                    "a hash panicked; its caller is told to try again"
                );
            }
        }
    }

    fn next(&self, depth: &Gauge) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop() {
                depth.set(i64::try_from(waiting.jobs.len()).unwrap_or(i64::MAX));
                return Some(job);
            }
            if waiting.closed {
                return None;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A poisoned lock is still a queue: no code that holds it leaves it half changed.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.filled.notify_all();
    }
}

/// Of two busy threads, one of nice 0 and one of this, the latter gets a ninth of a processor.
const YIELDING: i32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { standing: Standing::Unknown, client: 1, source: 1 };

    fn trial(secret: &str) -> Trial {
        Trial { secret: Arc::new(ClientSecret::new(secret.to_owned())), hash: SecretHash::decoy(HashParams::default()) }
    }

    #[tokio::test]
    async fn the_first_match_is_found_and_failing_tries_all() {
        let lane = Lane::start(1, 8).unwrap();
        let hash = SecretHash::new("right", HashParams::default(), &mut Memory::default()).unwrap();
        let secret = Arc::new(ClientSecret::new("right".to_owned()));
        let trials = vec![trial("right"), Trial { secret, hash }, trial("right")];
        assert_eq!(lane.first_match(PLACE, trials).await, Ok(Some(1)));
        assert_eq!(lane.verifications.get(), 2);
        assert_eq!(lane.first_match(PLACE, vec![trial("wrong"), trial("wrong")]).await, Ok(None));
        assert_eq!(lane.verifications.get(), 4);
    }

    #[tokio::test]
    async fn h59_a_full_queue_refuses_at_once_and_jobs_of_callers_who_left_cost_nothing() {
        let lane = Lane::start(1, 4).unwrap();
        let mut callers: Vec<_> = (0..50).map(|_| Box::pin(lane.first_match(PLACE, vec![trial("wrong")]))).collect();
        let mut refused = 0;
        for caller in &mut callers {
            if let Some(Err(Busy)) = futures_poll(caller.as_mut()) {
                refused += 1;
            }
        }
        assert!(refused >= 45, "{refused}");
        let ran_before = lane.verifications.get();
        drop(callers);
        assert_eq!(lane.first_match(PLACE, vec![trial("wrong")]).await, Ok(None));
        assert!(lane.verifications.get() - ran_before <= 2, "abandoned jobs were hashed");
    }

    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
