//! A terminal for the program, so that tests see what commands do only on one.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::Command;

/// A terminal of a number of columns.
pub struct Terminal {
    ours: File,
    theirs: File,
}

/// The result of a command on a terminal.
#[derive(Debug)]
pub struct Shown {
    pub status: ExitStatus,
    /// Everything that was written to the terminal, and the echo of what was typed.
    pub text: String,
}

impl Terminal {
    pub fn new(columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let theirs =
            OpenOptions::new().read(true).write(true).open(std::ffi::OsStr::from_bytes(name.as_bytes())).unwrap();
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();
        Self { ours: ours.into(), theirs }
    }

    /// Runs a command with stdin, stdout and stderr on the terminal, and types `input`.
    pub async fn run(self, mut command: Command, input: &str) -> Shown {
        let end = || Stdio::from(self.theirs.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        self.wait_for(command, input).await
    }

    /// Runs a command with stderr alone on the terminal. Its stdout is dropped.
    pub async fn run_with_stderr(self, mut command: Command) -> Shown {
        command.stdout(Stdio::null()).stderr(Stdio::from(self.theirs.try_clone().unwrap()));
        self.wait_for(command, "").await
    }

    async fn wait_for(self, mut command: Command, input: &str) -> Shown {
        if !command.as_std().get_envs().any(|(name, _)| name == "TERM") {
            command.env("TERM", "xterm");
        }
        let mut child = command.spawn().unwrap();
        // The command holds copies, which would keep the terminal open.
        drop(command);
        let Self { mut ours, theirs } = self;
        drop(theirs);
        ours.write_all(input.as_bytes()).unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
            // Linux answers with an error once the last holder of the other end has closed it.
            while let Ok(count @ 1..) = ours.read(&mut buffer) {
                text.extend_from_slice(&buffer[..count]);
            }
            text
        });
        let status =
            tokio::time::timeout(Duration::from_mins(1), child.wait()).await.expect("the command ends").unwrap();
        let text = read.await.unwrap();
        Shown { status, text: String::from_utf8(text).unwrap() }
    }
}
