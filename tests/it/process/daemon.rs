//! Running the program: commands, a daemon whose log is read, and a road to PostgreSQL that can be closed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::harness::{Answer, Db};

/// The program with an environment of its own.
#[derive(Debug, Clone)]
pub struct Grantd {
    environment: BTreeMap<String, String>,
}

/// The result of a command.
#[derive(Debug)]
pub struct Done {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Grantd {
    pub fn new(db: &Db) -> Self {
        let directory = db.directory.path();
        let sealing_key = directory.join("sealing.key");
        if !sealing_key.exists() {
            std::fs::write(&sealing_key, grantd::crypto::seal::SealingKey::generate_base64().unwrap().as_str())
                .unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&sealing_key, mode).unwrap();
        }
        let environment = [
            ("PATH", std::env::var("PATH").unwrap()),
            ("GRANTD__DATA_DIR", directory.display().to_string()),
            ("GRANTD__DATABASE__URL", db.url.clone()),
            ("GRANTD__KEYS__SEALING_KEY_FILE", sealing_key.display().to_string()),
            ("GRANTD__SERVER__LISTEN", "127.0.0.1:0".into()),
            ("GRANTD__ADMIN__LISTEN", "127.0.0.1:0".into()),
        ];
        Self { environment: environment.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    /// With a variable, or with the empty text without it: grantd refuses variables that are set but empty.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        if value.is_empty() {
            other.environment.remove(name);
        } else {
            other.environment.insert(name.to_owned(), value.to_owned());
        }
        other
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grantd"));
        command.args(arguments).env_clear().envs(&self.environment).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Done {
        self.run_with_input(arguments, "").await
    }

    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Done {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input closes it.
        drop(stdin.write_all(input.as_bytes()).await);
        drop(stdin);
        let output = tokio::time::timeout(Duration::from_mins(1), child.wait_with_output())
            .await
            .expect("the command ends")
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Done { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub async fn ok(&self, arguments: &[&str]) -> Done {
        let done = self.run(arguments).await;
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        done
    }

    pub async fn json(&self, arguments: &[&str]) -> Value {
        let done = self.ok(arguments).await;
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", done.stdout))
    }
}

type Lines = Arc<Mutex<Vec<String>>>;

/// A server in a process of its own.
pub struct Daemon {
    child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Daemon {
    /// Starts it and waits until it listens. Its log is on stdout, or on stderr for `dev`.
    pub async fn start(mut command: Command, log_on_stderr: bool) -> Self {
        command.env("GRANTD__LOG__FORMAT", "json");
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
        let log = if log_on_stderr { &stderr } else { &stdout };
        let started = Instant::now();
        let address = |name: &str| {
            let events = events_of(log, "listening");
            let event = events.into_iter().find(|event| event["listener"] == name)?;
            Some(event["address"].as_str().unwrap().parse::<SocketAddr>().unwrap())
        };
        let (public, admin) = loop {
            if let (Some(public), Some(admin)) = (address("public"), address("admin")) {
                break (public, admin);
            }
            assert!(
                started.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none(),
                "it does not listen: {:?} {:?}",
                stdout.lock().unwrap(),
                stderr.lock().unwrap()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Self { child, public, admin, stdout, stderr }
    }

    pub async fn stdout_line(&self, wanted: impl Fn(&str) -> bool) -> String {
        eventually(async || self.stdout.lock().unwrap().iter().find(|line| wanted(line)).cloned(), Option::is_some)
            .await
            .unwrap()
    }

    pub fn events(&self, name: &str) -> Vec<Value> {
        events_of(&self.stdout, name)
    }

    pub async fn get(&self, path: &str) -> Answer {
        get(self.public, path).await
    }

    pub async fn admin_get(&self, path: &str) -> Answer {
        get(self.admin, path).await
    }

    /// Asks for a token with credentials in the body, the secret sent as it is. On a machine that is busy a request may be
    /// refused for that alone; it says to try again in a second, which no other 503 does.
    pub async fn token(&self, id: &str, secret: &str) -> Answer {
        let body = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        let overloaded = |answer: &Answer| {
            answer.status == 503 && answer.headers.get("retry-after").is_some_and(|after| after == "1")
        };
        eventually(async || self.post("/token", &[], body.clone()).await, |answer| !overloaded(answer)).await
    }

    pub async fn post(&self, path: &str, fields: &[(&str, &str)], body: String) -> Answer {
        let mut request = Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        send(self.public, request.body(Body::from(body)).unwrap()).await
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Tells it to read its files again.
    pub fn reload(&self) {
        self.signal("-HUP");
    }

    /// Sends a signal, such as `-USR1`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Tells it to stop, unless that was done, and expects exit code 0 within `most`.
    pub async fn stop_cleanly(&mut self, most: Duration) {
        let told = events_of(&self.stdout, "stopping").len() + events_of(&self.stderr, "stopping").len() > 0;
        if !told {
            self.terminate();
        }
        let status = tokio::time::timeout(most, self.child.wait()).await.expect("it stops in time").unwrap();
        assert_eq!(status.code(), Some(0), "{:?}", self.stderr.lock().unwrap());
        // What it wrote last is still being read.
        eventually(
            async || events_of(&self.stdout, "stopped").len() + events_of(&self.stderr, "stopped").len(),
            |stopped| *stopped == 1,
        )
        .await;
    }
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static) -> Lines {
    let lines = Lines::default();
    let into = Arc::clone(&lines);
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            into.lock().unwrap().push(line);
        }
    });
    lines
}

fn events_of(lines: &Lines, name: &str) -> Vec<Value> {
    let lines = lines.lock().unwrap();
    lines
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|event| event["event"] == name)
        .collect()
}

pub async fn get(address: SocketAddr, path: &str) -> Answer {
    send(address, Request::get(path).body(Body::empty()).unwrap()).await
}

pub async fn send(address: SocketAddr, mut request: Request<Body>) -> Answer {
    request.headers_mut().insert("host", address.to_string().parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

/// Asks again until the answer is the wanted one, for 20 s.
pub async fn eventually<T: std::fmt::Debug>(ask: impl AsyncFn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let started = Instant::now();
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "still {answer:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// The behaviour of the connection to PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Connections are cut, and new ones too.
    Refuse,
    /// Connections stay open and nothing comes through: a silent partition.
    Freeze,
}

pub struct Proxy {
    pub url: String,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    pub async fn start(url: &str) -> Self {
        let rest = url.split_once("://").unwrap().1;
        let authority = rest.split('/').next().unwrap();
        let target = authority.rsplit('@').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let (mode, modes) = watch::channel(Mode::Pass);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, target.clone(), modes.clone()));
            }
        });
        Self { url: url.replacen(&format!("@{}", authority.rsplit('@').next().unwrap()), &format!("@{here}"), 1), mode }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn carry(mut near: TcpStream, target: String, mut modes: watch::Receiver<Mode>) {
    if *modes.borrow() == Mode::Freeze {
        drop(modes.wait_for(|mode| *mode != Mode::Freeze).await);
        return;
    }
    if *modes.borrow() == Mode::Refuse {
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let interrupted = tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
        mode = modes.wait_for(|mode| *mode != Mode::Pass) => mode.map(|mode| *mode),
    };
    if matches!(interrupted, Ok(Mode::Freeze)) {
        // Both ends are held open, and nothing is said.
        drop(modes.wait_for(|mode| *mode != Mode::Freeze).await);
    }
}
