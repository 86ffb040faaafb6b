//! Log lines on their way out: gathered in memory, written by a thread of their own in whole batches.
//!
//! A request appends to a buffer and goes on. A reader that has stalled costs lines, which are counted, and never a token.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Where lines are put.
#[derive(Debug, Clone)]
pub struct Lines(Arc<Shared>);

/// The thread that writes them. Dropping it writes what is left.
#[derive(Debug)]
pub struct Writer {
    lines: Lines,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    gathered: Mutex<Gathered>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Gathered {
    bytes: Vec<u8>,
    closed: bool,
}

impl Lines {
    /// Starts a thread that writes to `out`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Self, Writer)> {
        let lines = Self(Arc::default());
        let shared = Arc::clone(&lines.0);
        let thread = thread::Builder::new().name("log".into()).spawn(move || shared.write_to(out))?;
        Ok((lines.clone(), Writer { lines, thread: Some(thread) }))
    }

    /// Appends whole lines, or drops and counts them when too many are waiting.
    pub fn put(&self, lines: &[u8]) {
        let mut gathered = self.0.lock();
        if gathered.bytes.len() + lines.len() > MOST_WAITING {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = gathered.bytes.is_empty();
        gathered.bytes.extend_from_slice(lines);
        drop(gathered);
        if first {
            self.0.changed.notify_one();
        }
    }

    /// How many have been dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn write_to(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut gathered = self.lock();
            while gathered.bytes.is_empty() && !gathered.closed {
                gathered = self.changed.wait(gathered).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut batch, &mut gathered.bytes);
            let closed = gathered.closed;
            drop(gathered);
            // Nobody reads any more: there is no place left where that could be told.
            if out.write_all(&batch).and_then(|()| out.flush()).is_err() || closed {
                return;
            }
            batch.clear();
            batch.shrink_to(KEPT);
            // What comes in the meantime goes out together: a busy server wakes this thread a hundred times a second, not
            // once for each token.
            let gathered = self.lock();
            drop(self.changed.wait_timeout_while(gathered, TOGETHER, |gathered| !gathered.closed));
        }
    }

    /// A poisoned lock still guards whole lines.
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.0.lock().closed = true;
        self.lines.0.changed.notify_all();
        // A reader that has stalled for good must not keep the process from ending.
        let Some(thread) = self.thread.take() else { return };
        for _ in 0..100 {
            if thread.is_finished() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The text format writes each of its lines in one call.
impl Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.put(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Some sixty thousand lines.
const MOST_WAITING: usize = 32 << 20;
/// A buffer that a burst has blown up is given back.
const KEPT: usize = 1 << 20;
const TOGETHER: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Channel(mpsc::Sender<Vec<u8>>);

    impl Write for Channel {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_comes_out_in_order_and_the_last_ones_when_it_ends() {
        let (sender, written) = mpsc::channel();
        let (lines, writer) = Lines::to(Channel(sender)).unwrap();
        for number in 0..1000 {
            lines.put(format!("{number}\n").as_bytes());
        }
        drop(writer);
        let text: Vec<u8> = written.try_iter().flatten().collect();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn a_reader_that_has_stalled_costs_lines_and_neither_memory_nor_the_end() {
        struct Stalled;
        impl Write for Stalled {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                loop {
                    thread::park();
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (lines, writer) = Lines::to(Stalled).unwrap();
        let megabyte = vec![b'x'; 1 << 20];
        for _ in 0..80 {
            lines.put(&megabyte);
        }
        assert!(lines.dropped() >= 80 - 64, "{}", lines.dropped());
        drop(writer);
    }
}
