//! Signals: which ones stop the process, which one reloads files, and which ones are ignored.
//!
//! The kernel delivers no signal without a handler to process 1 of a container, so handlers come before anything that waits.

use std::io::{self, Write as _};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::sealing_command;
use crate::model::event::Event;

/// The request that a signal makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals of a daemon, caught.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal that asks for something.
    pub async fn next(&mut self) -> Asked {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return Asked::Stop,
                _ = self.interrupt.recv() => return Asked::Stop,
                _ = self.hang_up.recv() => return Asked::Reload,
                _ = self.user_1.recv() => "SIGUSR1",
                _ = self.user_2.recv() => "SIGUSR2",
            };
            tracing::info!(
                event = Event::SignalIgnored.as_str(),
                signal = ignored,
                "this signal does nothing; the log is on stdout, so there is no file to open again"
            );
        }
    }

    /// Waits for a signal to stop. Others stay pending.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ends the process on SIGTERM and SIGINT, as the default action does for every process but process 1.
///
/// # Errors
/// When the system refuses a handler.
pub fn end_when_told() -> io::Result<()> {
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")] {
        let mut signal = signal(kind)?;
        // A task of its own: the main thread may be waiting for stdin.
        tokio::spawn(async move {
            signal.recv().await;
            sealing_command::kill_running();
            drop(writeln!(io::stderr(), "grantd: ended by {name}"));
            // The code by which a shell reports a process that a signal has ended.
            std::process::exit(128 + kind.as_raw_value());
        });
    }
    Ok(())
}
