//! Servers as processes: started on given processors, watched through /proc, ended with their owner.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// A directory that goes with its owner.
pub struct Room(PathBuf);

impl Room {
    /// Makes one for this process.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}.{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} was not removed: {error}", self.0.display());
        }
    }
}

/// A command that runs on `cores` (`0` or `0,1`) and is killed when the thread that starts it ends.
#[must_use]
pub fn pinned(cores: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", cores]).arg(program);
    command
}

/// Moves the calling process's main thread, and the threads it will start, to `cores`.
///
/// # Errors
/// When `taskset` fails.
pub fn pin_self(cores: &str) -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let done = Command::new("taskset").args(["-pc", cores, &pid]).output().context("taskset")?;
    if !done.status.success() {
        bail!("taskset -pc {cores}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

/// A loopback address that nobody listens on.
///
/// # Errors
/// When the system gives none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// A server in a process of its own. Dropping it kills it.
pub struct Server {
    child: Child,
    /// Where it answers.
    pub address: SocketAddr,
    /// Where it answers operators, if it does.
    pub admin: Option<SocketAddr>,
}

impl Server {
    /// Starts `command` and waits until `address` takes connections.
    ///
    /// # Errors
    /// When it ends, or is not there after half a minute.
    pub fn start(mut command: Command, address: SocketAddr, admin: Option<SocketAddr>) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut server = Self { child, address, admin };
        server.until(Duration::from_mins(1), |server| TcpStream::connect(server.address).is_ok())?;
        Ok(server)
    }

    /// Waits until something is true of the server, looking every millisecond.
    ///
    /// # Errors
    /// When the process ends, or the time is over.
    pub fn until(&mut self, most: Duration, mut true_of: impl FnMut(&Self) -> bool) -> anyhow::Result<()> {
        let started = Instant::now();
        while !true_of(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server has ended: {status}");
            }
            if started.elapsed() > most {
                bail!("the server was not ready after {most:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Processor time that it has used.
    ///
    /// # Errors
    /// When /proc does not tell.
    pub fn processor_time(&self) -> anyhow::Result<Duration> {
        processor_time(self.child.id())
    }

    /// A field of /proc/PID/status in KiB, such as `VmRSS` or `VmHWM`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn memory_kib(&self, field: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()).context("/proc/PID/status")?;
        Ok(number.parse()?)
    }

    /// One sample from `/metrics`, by its name and labels as they stand there.
    ///
    /// # Errors
    /// When it is not there.
    pub fn metric(&self, sample: &str) -> anyhow::Result<f64> {
        let (_, text) = get(self.admin.context("no admin address")?, "/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.and_then(|value| value.split(' ').next()?.parse().ok()).with_context(|| format!("no metric {sample}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// User and system time of all threads of a process so far, in steps of 10 ms.
///
/// # Errors
/// When /proc does not tell.
pub fn processor_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // proc(5): the name in parentheses may hold anything; utime and stime are the 14th and 15th field.
    let fields = stat.rsplit_once(')').context("/proc/PID/stat")?.1;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Fetches a path over a connection of its own: the status and the whole answer.
///
/// # Errors
/// When there is no answer.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    exchange(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
}

/// Sends a request as it is and reads until the end of the connection, or of an answer that keeps it open.
///
/// # Errors
/// When there is no answer.
pub fn exchange(address: SocketAddr, request: &[u8]) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer)?;
        bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let whole = crate::generator::Head::parse(&bytes)?;
        if let Some(head) = whole.filter(|head| read == 0 || bytes.len() >= head.whole) {
            return Ok((head.status, String::from_utf8_lossy(&bytes).into_owned()));
        }
        if read == 0 {
            bail!("the connection ended without an answer");
        }
    }
}
