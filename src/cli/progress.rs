//! Progress of commands that take longer than a second: one line on stderr, where stderr is a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

/// Progress of a command. Dropping it clears its line.
#[derive(Debug)]
pub(super) struct Progress {
    count: Arc<AtomicU64>,
    /// The task that writes the line; `None` where there is no terminal.
    writer: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins to tell the progress of `what`, such as `checking clients`.
    pub(super) fn begin(what: &'static str) -> Self {
        Self::begin_if(what, true)
    }

    /// As [`begin`](Self::begin), for lists: one that is printed on the terminal shows its own progress.
    pub(super) fn begin_of_list() -> Self {
        Self::begin_if("reading", !io::stdout().is_terminal())
    }

    fn begin_if(what: &'static str, wanted: bool) -> Self {
        let count = Arc::new(AtomicU64::new(0));
        let writer = (wanted && io::stderr().is_terminal()).then(|| {
            LINE.lock().unwrap_or_else(PoisonError::into_inner).is_over = false;
            tokio::spawn(write(what, Arc::clone(&count)))
        });
        Self { count, writer }
    }

    /// Counts what has been done since the last call.
    pub(super) fn add(&self, done: usize) {
        self.count.fetch_add(done as u64, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
            writer.abort();
            line.is_over = true;
            line.clear();
        }
    }
}

/// Clears the line of progress, before another message is printed.
pub(super) fn clear() {
    LINE.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// The line of progress on the terminal.
struct Line {
    is_shown: bool,
    is_over: bool,
}

static LINE: Mutex<Line> = Mutex::new(Line { is_shown: false, is_over: false });

impl Line {
    fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            // A failed write is ignored: progress is for people who look on.
            drop(write!(io::stderr(), "\r\u{1b}[K"));
        }
    }
}

/// Writes the line anew, from the first second on.
async fn write(what: &'static str, count: Arc<AtomicU64>) {
    let began = Instant::now();
    let mut wait = Duration::from_secs(1);
    loop {
        tokio::time::sleep(wait).await;
        wait = Duration::from_millis(250);
        let (done, seconds) = (count.load(Ordering::Relaxed), began.elapsed().as_secs());
        let done = if done == 0 { String::new() } else { format!(": {done}") };
        let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
        if line.is_over {
            return;
        }
        line.is_shown = true;
        // A failed write is ignored, as in `clear`.
        drop(write!(io::stderr(), "\r\u{1b}[K{what}{done} ({seconds} s)"));
    }
}
