//! Runs `keys.sealing_key_command`: a program that prints the sealing key, such as the command line of a KMS or a vault.
//!
//! The program prints the key on stdout, so no message, log line or error quotes that stream.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use zeroize::Zeroizing;

/// Errors of a command.
#[derive(Debug)]
pub(super) enum CommandError {
    /// There is no such program, or it cannot be executed.
    NotStarted(io::Error),
    /// It failed or was too slow, with the end of its stderr.
    Failed(String),
}

/// A part of what is waited for.
enum Part {
    Stdout(io::Result<Zeroizing<Vec<u8>>>),
    Stderr(Vec<u8>),
    Ended(End),
}

/// End of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Code(i32),
    Signal(i32),
    /// The system does not tell.
    Unknown,
}

/// Process group of a command. Dropping it kills all of it.
struct Group(Child);

/// The process group of the command that runs. Its child is not reaped yet, so the id names no other group.
static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);

/// Kills the command that runs, for a process that ends by a signal meanwhile.
pub(super) fn kill_running() {
    // Nothing panics while it holds the lock.
    if let Ok(running) = RUNNING.lock() {
        kill(*running);
    }
}

fn kill(group: Option<Pid>) {
    if let Some(group) = group {
        // A group that is gone needs no signal.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl Group {
    fn new(child: Child) -> Self {
        if let Ok(mut running) = RUNNING.lock() {
            *running = group_of(&child);
        }
        Self(child)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        kill(group_of(&self.0));
        if let Ok(mut running) = RUNNING.lock() {
            *running = None;
        }
        // The child may have left its group.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs a program without stdin, in a process group of its own, and returns what it printed on stdout. The group is killed
/// when the program has ended or [`DEADLINE`] is over, so it leaves no process behind.
pub(super) fn run(program: &str, arguments: &[String]) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let until = Instant::now() + DEADLINE;
    let mut child = command.spawn().map_err(|error| match Errno::from_io_error(&error) {
        // The machine lacks processes, memory or files at this moment.
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => {
            CommandError::Failed(format!("cannot be started now: {error}"))
        }
        _ => CommandError::NotStarted(error),
    })?;
    let (stdout, stderr, process) = (child.stdout.take(), child.stderr.take(), group_of(&child));
    let group = Group::new(child);
    let (sender, parts) = mpsc::channel();
    let started = [
        spawn(&sender, move || Part::Stdout(stdout.map_or_else(|| Ok(Zeroizing::default()), read_key))),
        spawn(&sender, move || Part::Stderr(stderr.map(read_end).unwrap_or_default())),
        spawn(&sender, move || Part::Ended(process.map_or(End::Unknown, end_of))),
    ];
    if let Some(error) = started.into_iter().find_map(Result::err) {
        return Err(CommandError::Failed(format!("cannot be watched: {error}")));
    }
    let (mut printed, mut end, mut complaint) = (None, None, None);
    while (printed.is_none() || end.is_none()) && end.is_none_or(|end| end == End::Code(0)) {
        match parts.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Part::Stdout(read)) => printed = Some(read),
            Ok(Part::Stderr(read)) => complaint = Some(read),
            Ok(Part::Ended(ended)) => end = Some(ended),
            // The three threads send before they end, so this is the deadline.
            Err(_) => break,
        }
    }
    drop(group);
    let reason = match (printed, end) {
        (Some(Ok(printed)), Some(End::Code(0))) => return Ok(printed),
        (Some(Err(error)), Some(End::Code(0))) => format!("cannot be read: {error}"),
        (_, None | Some(End::Code(0))) => format!("was not done after {} seconds", DEADLINE.as_secs()),
        (_, Some(end)) => end.to_string(),
    };
    let complaint = complaint.or_else(|| stderr_of(&parts)).unwrap_or_default();
    let complaint = String::from_utf8_lossy(&complaint);
    let complaint = Some(complaint.trim()).filter(|text| !text.is_empty()).map(|text| format!(": {text}"));
    Err(CommandError::Failed(reason + &complaint.unwrap_or_default()))
}

fn group_of(child: &Child) -> Option<Pid> {
    // A process id is a positive number of 31 bits.
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn spawn(sender: &Sender<Part>, work: impl FnOnce() -> Part + Send + 'static) -> io::Result<()> {
    let sender = sender.clone();
    // A part that is no longer waited for has no receiver.
    thread::Builder::new().spawn(move || drop(sender.send(work()))).map(drop)
}

/// Waits for the end of a process, which stays a zombie.
fn end_of(process: Pid) -> End {
    let Ok(Some(status)) = waitid(WaitId::Pid(process), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) else {
        return End::Unknown;
    };
    let signal = || status.terminating_signal().map(End::Signal);
    status.exit_status().map(End::Code).or_else(signal).unwrap_or(End::Unknown)
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "failed with exit code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Unknown => f.write_str("failed"),
        }
    }
}

/// Reads a key to the end of the stream. Of a longer text the beginning is kept, which is no key.
fn read_key(mut stream: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Memory that is not moved, since a copy would stay behind.
    let mut kept = Zeroizing::new(Vec::with_capacity(KEY_MAX + CHUNK));
    let mut chunk = Zeroizing::new([0; CHUNK]);
    loop {
        match stream.read(&mut *chunk) {
            Ok(0) => return Ok(kept),
            Ok(read) if kept.len() <= KEY_MAX => kept.extend_from_slice(chunk.get(..read).unwrap_or_default()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads the stream, and keeps its last [`COMPLAINT_MAX`] bytes.
fn read_end(mut stream: impl Read) -> Vec<u8> {
    let (mut kept, mut chunk) = (Vec::new(), [0; CHUNK]);
    // An error ends it too: what was read until then is all that there is to show.
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        kept.extend_from_slice(chunk.get(..read).unwrap_or_default());
        let surplus = kept.len().saturating_sub(COMPLAINT_MAX);
        kept.drain(..surplus);
    }
    kept
}

/// The stderr of a group that has just been killed. A process that left the group may hold it open.
fn stderr_of(parts: &Receiver<Part>) -> Option<Vec<u8>> {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        match parts.recv_timeout(until.saturating_duration_since(Instant::now())).ok()? {
            Part::Stderr(read) => return Some(read),
            Part::Stdout(_) | Part::Ended(_) => {}
        }
    }
}

/// Time within which a command has to end, with every process of its group that holds its stdout.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a key in base64 with white space around it.
const KEY_MAX: usize = 1024;
const CHUNK: usize = 512;
/// Bytes of stderr that are shown.
const COMPLAINT_MAX: usize = 1024;
