//! Signing keys in a PKCS #11 module: threads of their own sign, behind a bounded queue.
//!
//! The code of a module may block for as long as it likes. So no thread that serves requests calls it, and no request waits for
//! it longer than [`DEADLINE`].

// The library that loads modules is an optional dependency.
#[cfg_attr(feature = "pkcs11", path = "pkcs11/library.rs")]
#[cfg_attr(not(feature = "pkcs11"), path = "pkcs11/no_library.rs")]
mod library;

pub mod attachment;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::oneshot;

use crate::crypto::json::Object;
use crate::crypto::jws::SigningKey;
use crate::model::event::Event;
use crate::model::pkcs11_uri::Pkcs11Uri;

use library::KeySession;
pub use library::{Library, SUPPORTED};

/// Module that is loaded, with the threads that sign by it.
pub struct Module(Arc<Shared>);

/// Error of a module, for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ModuleError(String);

/// Faults of a signature by a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModuleFault {
    /// No module is configured here.
    #[error("the signing key is in a PKCS #11 module, and keys.pkcs11_module is not set")]
    NotConfigured,
    /// The module did not sign; the log event `signing.trouble` says why.
    #[error("the PKCS #11 module does not sign")]
    Failed,
    /// The module did not sign in time.
    #[error("the PKCS #11 module did not sign within {} s", DEADLINE.as_secs())]
    Slow,
    /// More is to be signed than the module signs in time.
    #[error("the queue of the PKCS #11 module is full")]
    Busy,
}

/// Public half of a private key in a module.
#[derive(Debug)]
pub struct FoundKey {
    /// The public key as a JWK.
    pub jwk: Object,
    /// Whether the module lets the private key out.
    pub extractable: bool,
}

/// Private key in a module, with its state.
#[derive(Debug)]
pub struct ModuleKey {
    state: Arc<KeyState>,
    module: Option<Arc<Module>>,
}

#[derive(Debug)]
struct KeyState {
    uri: Pkcs11Uri,
    /// The public half.
    key: SigningKey,
    /// The fault of the key, until it signs again.
    trouble: ArcSwapOption<Trouble>,
    /// Whether it has signed or failed since the process started.
    tried: AtomicBool,
    /// Whether a probe waits or runs.
    probing: AtomicBool,
}

#[derive(Debug)]
struct Trouble {
    reason: String,
    since: Instant,
}

struct Shared {
    library: Library,
    queue: Mutex<VecDeque<Job>>,
    filled: Condvar,
}

struct Job {
    key: Arc<KeyState>,
    /// Header and claims of a JWT.
    unsigned: String,
    answer: Answer,
    /// Time after which the signature comes too late.
    until: Instant,
}

/// Session of a thread with a key.
struct OpenSession {
    of: Weak<KeyState>,
    session: KeySession,
}

/// Receiver of a JWT.
enum Answer {
    Request(oneshot::Sender<Signed>),
    Blocking(mpsc::SyncSender<Signed>),
    /// None: the state of the key alone is wanted.
    Probe,
}

type Signed = Result<String, ModuleFault>;

impl Module {
    /// Starts the threads that sign. They end with the process: a library that is unloaded while it is called may crash.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(library: Library) -> io::Result<Self> {
        let shared = Arc::new(Shared { library, queue: Mutex::default(), filled: Condvar::new() });
        for number in 0..THREADS {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("pkcs11-{number}")).spawn(move || shared.work())?;
        }
        Ok(Self(shared))
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Module")
    }
}

impl ModuleKey {
    /// Makes the key of that name, whose public half is `key`. `module` is `None` where no module is configured.
    #[must_use]
    pub fn new(uri: Pkcs11Uri, key: SigningKey, module: Option<Arc<Module>>) -> Self {
        let state = KeyState {
            uri,
            key,
            trouble: ArcSwapOption::empty(),
            tried: AtomicBool::new(false),
            probing: AtomicBool::new(false),
        };
        Self { state: Arc::new(state), module }
    }

    /// The name of the private key.
    #[must_use]
    pub fn uri(&self) -> &Pkcs11Uri {
        &self.state.uri
    }

    /// Signs the header and the claims of a JWT. Returns the JWT.
    ///
    /// # Errors
    /// [`ModuleFault`].
    pub async fn sign(&self, unsigned: String) -> Result<String, ModuleFault> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(unsigned, Answer::Request(answer))?;
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok(signed)) => signed,
            Ok(Err(_)) => Err(self.fault(ModuleFault::Failed)),
            Err(_) => Err(self.fault(ModuleFault::Slow)),
        }
    }

    /// Signs as [`sign`](Self::sign) does, and blocks until it is signed.
    ///
    /// # Errors
    /// [`ModuleFault`].
    pub fn sign_blocking(&self, unsigned: String) -> Result<String, ModuleFault> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.enqueue(unsigned, Answer::Blocking(answer))?;
        answered.recv_timeout(DEADLINE).unwrap_or_else(|_| Err(self.fault(ModuleFault::Slow)))
    }

    /// Signs a probe, unless the key works or a probe is on its way. The result is noted with the key.
    pub fn probe(&self) {
        let is_in_doubt = self.state.trouble.load().is_some() || !self.state.tried.load(Ordering::Relaxed);
        if is_in_doubt && !self.state.probing.swap(true, Ordering::Relaxed) {
            let probe = self.unsigned("JWT", PROBE).map(|unsigned| self.enqueue(unsigned, Answer::Probe));
            if !matches!(probe, Some(Ok(()))) {
                self.state.probing.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Reason for which the key does not sign; `None` while it does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.state.trouble.load().as_ref().map(|trouble| trouble.reason.clone())
    }

    /// Notes a fault of the key, and returns it.
    fn fault(&self, fault: ModuleFault) -> ModuleFault {
        self.state.note(Err(&fault));
        fault
    }

    fn enqueue(&self, unsigned: String, answer: Answer) -> Result<(), ModuleFault> {
        let Some(Module(shared)) = self.module.as_deref() else { return Err(self.fault(ModuleFault::NotConfigured)) };
        let now = Instant::now();
        let mut waiting = shared.lock();
        if waiting.len() >= PLACES {
            waiting.retain(|job| job.is_wanted(now));
        }
        if waiting.len() >= PLACES {
            // No fault of the key: when it hangs, those that wait say so.
            return Err(ModuleFault::Busy);
        }
        waiting.push_back(Job { key: Arc::clone(&self.state), unsigned, answer, until: now + DEADLINE });
        drop(waiting);
        shared.filled.notify_one();
        Ok(())
    }
}

impl Deref for ModuleKey {
    type Target = SigningKey;

    fn deref(&self) -> &SigningKey {
        &self.state.key
    }
}

impl KeyState {
    /// Notes that the key has signed, or why not. The log says when that changes, once a second at most: a module that is too
    /// slow fails and signs in turn.
    fn note(&self, signed: Result<(), &dyn fmt::Display>) {
        self.tried.store(true, Ordering::Relaxed);
        match signed {
            Ok(()) => {
                let is_over = self.trouble.load().as_ref().is_some_and(|trouble| trouble.since.elapsed() >= CALM);
                if is_over && self.trouble.swap(None).is_some() {
                    tracing::info!(
                        event = Event::SigningRecovered.as_str(),
                        kid = self.key.kid(),
                        "the PKCS #11 module signs again"
                    );
                }
            }
            Err(reason) => {
                let trouble = Trouble { reason: reason.to_string(), since: Instant::now() };
                if self.trouble.swap(Some(Arc::new(trouble))).is_none() {
                    tracing::error!(event = Event::SigningTrouble.as_str(), kid = self.key.kid(), key = %self.uri, %reason, "no token is signed with this key until the PKCS #11 module works");
                }
            }
        }
    }
}

impl Job {
    /// Whether its caller waits. A probe is always wanted: it says when the key works again.
    fn is_wanted(&self, now: Instant) -> bool {
        match &self.answer {
            Answer::Request(answer) => !answer.is_closed() && now < self.until,
            Answer::Blocking(_) => now < self.until,
            Answer::Probe => true,
        }
    }
}

impl Answer {
    fn give(self, signed: Signed) {
        // A caller that has given up needs no answer.
        match self {
            Self::Request(answer) => drop(answer.send(signed)),
            Self::Blocking(answer) => drop(answer.send(signed)),
            Self::Probe => {}
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs what is queued, for as long as the process lives.
    fn work(&self) {
        let mut sessions = Vec::new();
        loop {
            let job = self.next();
            if !job.is_wanted(Instant::now()) {
                continue;
            }
            let Job { key, unsigned, answer, mut until } = job;
            // A probe may have waited behind others that hung. Its own time is what counts.
            if matches!(answer, Answer::Probe) {
                until = Instant::now() + DEADLINE;
            }
            // Panics of the library end neither the thread nor the waiting of its caller.
            let signed = catch_unwind(AssertUnwindSafe(|| self.sign(&mut sessions, &key, unsigned, until)));
            let signed = signed.unwrap_or_else(|_| Err(ModuleError("the library of modules panicked".to_owned())));
            let signed = match signed {
                Ok(_) if until <= Instant::now() => Err(ModuleError(ModuleFault::Slow.to_string())),
                other => other,
            };
            key.note(signed.as_ref().map(drop).map_err(|error| error as &dyn fmt::Display));
            if matches!(answer, Answer::Probe) {
                key.probing.store(false, Ordering::Relaxed);
            }
            answer.give(signed.map_err(|_| ModuleFault::Failed));
        }
    }

    fn next(&self) -> Job {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.pop_front() {
                return job;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Signs in the session of this thread for the key. A session that fails is replaced once, unless the time is over: it ends
    /// when the module or the connection to it begins anew.
    fn sign(
        &self,
        sessions: &mut Vec<OpenSession>,
        state: &Arc<KeyState>,
        unsigned: String,
        until: Instant,
    ) -> Result<String, ModuleError> {
        let KeyState { uri, key, .. } = &**state;
        // The object may have been replaced, and a fault of the module must not become a token.
        let completed = |unsigned, signature: &[u8]| {
            let jws = key.complete(unsigned, signature);
            jws.ok_or_else(|| ModuleError(format!("{uri}: the signature does not verify with the published key")))
        };
        if let Some(at) = sessions.iter().position(|open| open.of.as_ptr() == Arc::as_ptr(state)) {
            let open = sessions.swap_remove(at);
            match open.session.sign(key.alg(), unsigned.as_bytes()) {
                Ok(signature) => {
                    sessions.push(open);
                    return completed(unsigned, &signature);
                }
                Err(error) if until <= Instant::now() => return Err(error),
                // The error of the next session is the one that counts.
                Err(_) => {}
            }
        }
        // Sessions of keys that have left the key set are closed before another is opened: tokens have few.
        sessions.retain(|open| open.of.strong_count() > 0);
        let session = self.library.session(uri)?;
        let signature = session.sign(key.alg(), unsigned.as_bytes())?;
        sessions.push(OpenSession { of: Arc::downgrade(state), session });
        completed(unsigned, &signature)
    }
}

/// Threads that sign, each with a session of its own: a module in the network spends its time in waiting.
const THREADS: usize = 8;
/// Number of signatures that may wait.
const PLACES: usize = 512;
/// Time after which a caller no longer waits for a signature.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// Time after a fault in which no signature ends it.
const CALM: Duration = Duration::from_secs(1);
/// Claims of a probe: those of no token.
const PROBE: &[u8] = b"{\"probe\":true}";
