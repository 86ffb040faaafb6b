//! Output of log lines: buffered in memory, and written in batches by a thread.
//!
//! A request appends to the buffer and continues. When the reader of the log stalls, lines are dropped and counted, and
//! tokens are still issued. Lines that cannot be written (full disk, pipe without a reader) are counted too, and later
//! lines are tried again.

use crate::model::event::Event;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

/// Buffer of log lines.
#[derive(Debug, Clone)]
pub struct Lines(Arc<Shared>);

/// Thread that writes the lines. Dropping it writes the rest.
#[derive(Debug)]
pub struct Writer {
    lines: Lines,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    closed: bool,
}

impl Lines {
    /// Starts a thread that writes to `out`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Self, Writer)> {
        let lines = Self(Arc::default());
        let shared = Arc::clone(&lines.0);
        let thread = thread::Builder::new().name("log".into()).spawn(move || shared.write_to(out))?;
        Ok((lines.clone(), Writer { lines, thread: Some(thread) }))
    }

    /// Appends whole lines, or drops and counts them when the buffer is full.
    pub fn put(&self, lines: &[u8]) {
        let mut buffer = self.0.lock();
        if buffer.bytes.len() + lines.len() > MOST_WAITING {
            self.0.dropped.inc_by(count(lines));
            return;
        }
        let first = buffer.bytes.is_empty();
        buffer.bytes.extend_from_slice(lines);
        drop(buffer);
        if first {
            self.0.changed.notify_one();
        }
    }

    /// The number of lost lines, for `grantd_log_lines_dropped_total`.
    #[must_use]
    pub fn dropped(&self) -> &Counter {
        &self.0.dropped
    }
}

impl Shared {
    fn write_to(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        let mut lost = LostLines::default();
        loop {
            let mut buffer = self.lock();
            while buffer.bytes.is_empty() && !buffer.closed {
                buffer = self.changed.wait(buffer).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut batch, &mut buffer.bytes);
            let closed = buffer.closed;
            drop(buffer);
            let written = self.write(&mut out, &batch, lost.cut);
            if let Some(missing) = batch.get(written.bytes..).filter(|missing| !missing.is_empty()) {
                self.dropped.inc_by(count(missing));
                lost.lines += count(missing);
                lost.cut = match written.bytes.checked_sub(1).and_then(|end| batch.get(end)) {
                    Some(&end) => end != b'\n',
                    None => written.cut,
                };
                lost.reason = written.fault.map(|fault| fault.to_string());
            }
            if closed {
                return;
            }
            if written.bytes == batch.len() && lost.lines > 0 {
                let LostLines { lines, reason, .. } = std::mem::take(&mut lost);
                tracing::warn!(
                    event = Event::LogLost.as_str(),
                    lines,
                    reason,
                    "log lines were lost; lines can be written again"
                );
            }
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
            // Lines that arrive meanwhile are written together: a busy server wakes this thread a hundred times a
            // second, not once for each token.
            let buffer = self.lock();
            drop(self.changed.wait_timeout_while(buffer, FLUSH_INTERVAL, |buffer| !buffer.closed));
        }
    }

    /// Writes as much of `lines` as possible, after ending a line that was cut off.
    fn write(&self, out: &mut impl Write, lines: &[u8], cut: bool) -> WriteOutcome {
        let mut bytes = 0;
        let mut end_line = cut;
        while let Some(rest) = lines.get(bytes..).filter(|rest| !rest.is_empty()) {
            match out.write(if end_line { b"\n" } else { rest }) {
                Ok(0) => return WriteOutcome { bytes, cut: end_line, fault: Some(io::ErrorKind::WriteZero.into()) },
                Ok(_) if end_line => end_line = false,
                Ok(written) => bytes += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process has made the pipe non-blocking, and its reader has stalled. Writing is tried again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.lock().closed => {
                    thread::sleep(FLUSH_INTERVAL);
                }
                Err(error) => return WriteOutcome { bytes, cut: end_line, fault: Some(error) },
            }
        }
        // Lines that stay in a buffer of `out` are written with the next ones, or lost with the process.
        WriteOutcome { bytes, cut: end_line, fault: out.flush().err() }
    }

    /// A poisoned lock is used on: the buffer always holds whole lines.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Result of writing lines.
struct WriteOutcome {
    bytes: usize,
    /// Whether the line before them still lacks its end.
    cut: bool,
    fault: Option<io::Error>,
}

/// Lines lost since the last successful write.
#[derive(Default)]
struct LostLines {
    lines: u64,
    /// Whether the last written line lacks its end.
    cut: bool,
    reason: Option<String>,
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.0.lock().closed = true;
        self.lines.0.changed.notify_all();
        // A stalled reader must not keep the process from ending.
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

/// The text format writes each line in one call.
impl Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.put(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Maximum size of the buffer, in bytes: some sixty thousand lines.
const MOST_WAITING: usize = 32 << 20;
/// Capacity that the buffer keeps after a burst.
const KEPT_BYTES: usize = 1 << 20;
const FLUSH_INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writer that sends what is written.
    pub(in crate::telemetry) struct Channel(pub(in crate::telemetry) mpsc::Sender<Vec<u8>>);

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
        assert_eq!(lines.dropped().get(), 0);
    }

    /// A disk with room for so many bytes.
    struct Full {
        written: mpsc::Sender<Vec<u8>>,
        room: Arc<Mutex<usize>>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            let taken = bytes.len().min(*room);
            *room -= taken;
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.send(bytes[..taken].to_vec()).unwrap();
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_later_ones_are_written() {
        let (written, text) = mpsc::channel();
        let room = Arc::new(Mutex::new(3));
        let (lines, writer) = Lines::to(Full { written, room: Arc::clone(&room) }).unwrap();
        lines.put(b"first\nsecond\n");
        while lines.dropped().get() < 2 {
            thread::sleep(Duration::from_millis(5));
        }
        *room.lock().unwrap() = 1000;
        lines.put(b"third\n");
        drop(writer);
        let text: Vec<u8> = text.try_iter().flatten().collect();
        assert_eq!(String::from_utf8(text).unwrap(), "fir\nthird\n", "a line that was cut off ends before the next");
        assert_eq!(lines.dropped().get(), 2);
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
        let mut megabyte = vec![b'x'; 1 << 20];
        megabyte[(1 << 20) - 1] = b'\n';
        for _ in 0..80 {
            lines.put(&megabyte);
        }
        assert!(lines.dropped().get() >= 80 - 64, "{:?}", lines.dropped());
        drop(writer);
    }
}
