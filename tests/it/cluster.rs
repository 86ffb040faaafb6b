//! PostgreSQL servers of a test's own, which it may stop and promote, and what stands between them and grantd.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use grantd::config::{Config, Settings, Sources};
use sqlx::Connection as _;

use crate::harness::Db;

/// A PostgreSQL server with data of its own. It ends with the test.
pub struct Cluster {
    directory: tempfile::TempDir,
    pub port: u16,
}

impl Cluster {
    /// An empty server with a database `grantd`.
    pub async fn start() -> Self {
        let cluster = Self::place();
        run(Self::tool("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "-D"])
            .arg(cluster.data()));
        cluster.begin();
        cluster.sql("postgres", "create database grantd").await;
        cluster
    }

    /// A standby that follows this server.
    pub fn standby(&self) -> Self {
        let standby = Self::place();
        let source = format!("host=127.0.0.1 port={} user=postgres", self.port);
        run(Self::tool("pg_basebackup")
            .args([
                "--write-recovery-conf",
                "--wal-method=stream",
                "--checkpoint=fast",
                "--no-sync",
                "-d",
                &source,
                "-D",
            ])
            .arg(standby.data()));
        standby.begin();
        standby
    }

    /// Waits until this standby has what `primary` has written.
    pub async fn catch_up(&self, primary: &Self) {
        let written = primary.ask("select pg_current_wal_lsn()::text").await;
        let sql = format!("select (pg_last_wal_replay_lsn() >= '{written}'::pg_lsn)::text");
        let started = Instant::now();
        while self.ask(&sql).await != "true" {
            assert!(started.elapsed() < Duration::from_secs(10), "the standby lags");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn promote(&self) {
        run(Self::tool("pg_ctl").args(["-w", "promote", "-D"]).arg(self.data()));
    }

    pub fn stop(&self) {
        run(Self::tool("pg_ctl").args(["-m", "immediate", "-w", "stop", "-D"]).arg(self.data()));
    }

    /// Runs SQL past grantd, and past what stands before the server.
    pub async fn sql(&self, database: &str, sql: &str) {
        let url = format!("postgres://postgres@127.0.0.1:{}/{database}", self.port);
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// The one text that a query returns.
    pub async fn ask(&self, sql: &str) -> String {
        let url = format!("postgres://postgres@127.0.0.1:{}/grantd", self.port);
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        let (text,): (String,) =
            sqlx::query_as(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        text
    }

    fn place() -> Self {
        let directory = tempfile::Builder::new().prefix("grantd-cluster").tempdir_in("/tmp").unwrap();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("postgres").arg(directory.path()));
        }
        Self { directory, port: free_port() }
    }

    fn begin(&self) {
        let options = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=60 -c shared_buffers=16MB",
            self.port,
            self.directory.path().display()
        );
        let log = self.directory.path().join("log");
        run(Self::tool("pg_ctl").arg("-l").arg(log).args(["-w", "-o", &options, "start", "-D"]).arg(self.data()));
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A program of PostgreSQL's, which refuses to run as root.
    fn tool(name: &str) -> Command {
        let bin = std::env::var_os("GRANTD_TEST_PG_BIN")
            .expect("set GRANTD_TEST_PG_BIN to the directory of initdb, or run script/test, which does");
        as_postgres(PathBuf::from(bin).join(name))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(Self::tool("pg_ctl").args(["-m", "immediate", "-w", "stop", "-D"]).arg(self.data()).output());
    }
}

/// A PgBouncer before a server.
pub struct Pooler {
    process: Child,
    _directory: tempfile::TempDir,
    pub port: u16,
}

impl Pooler {
    /// Pools the connections to the server at `port`, by session or by transaction.
    pub async fn start(port: u16, pool_mode: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("grantd-pooler").tempdir_in("/tmp").unwrap();
        let (own, path) = (free_port(), directory.path().join("pgbouncer.ini"));
        // Two connections for each user and database: who relied on getting the same one again would notice.
        let pool_size = if pool_mode == "session" { 20 } else { 2 };
        std::fs::write(
            &path,
            format!(
                "[databases]\n* = host=127.0.0.1 port={port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own}\n\
                 unix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\ndefault_pool_size = {pool_size}\n\
                 server_round_robin = 1\nignore_startup_parameters = extra_float_digits\n"
            ),
        )
        .unwrap();
        if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg("-R").arg("postgres").arg(directory.path()));
        }
        let process = as_postgres("/usr/sbin/pgbouncer")
            .arg("--quiet")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("PgBouncer is installed; script/test installs it");
        let started = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", own)).await.is_err() {
            assert!(started.elapsed() < Duration::from_secs(10), "PgBouncer does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { process, _directory: directory, port: own }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// An address that leads new connections somewhere else when told to, and leaves the old ones where they are.
pub struct Switch {
    target: Arc<AtomicU16>,
    pub port: u16,
}

impl Switch {
    pub async fn to(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(port));
        let asked = Arc::clone(&target);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let port = asked.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    if let Ok(mut far) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                    }
                });
            }
        });
        Self { target, port: own }
    }

    pub fn turn(&self, port: u16) {
        self.target.store(port, Ordering::Relaxed);
    }
}

impl Db {
    /// The database that a URL names, read as `database.url` is.
    pub fn at(url: &str, pooling: &str) -> Self {
        let mut settings = Settings { issuer: crate::harness::ISS.into(), ..Settings::default() };
        settings.database.url = Some(url.into());
        settings.database.pooling = pooling.into();
        settings.keys.sealing_key_file = "/unused".into();
        let database = Config::parse(&settings, &Sources::default()).unwrap().database;
        Self { database, url: url.to_owned(), directory: tempfile::tempdir().unwrap() }
    }
}

fn as_postgres(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    // Becomes the program, so that a signal to it is one to the program.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

#[track_caller]
fn run(command: &mut Command) {
    // Without pipes, which a server that is started would hold open.
    let status = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{command:?}: {status:?}");
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
