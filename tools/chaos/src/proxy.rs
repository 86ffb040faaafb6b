//! nginx and `HAProxy` in front of the replicas, each with the settings that the book recommends.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use grantd_kit::connection::get;
use grantd_kit::grantd::free_address;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::replica::{Replica, note_pid};

/// A way in which requests reach the replicas.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    proxy: Option<Kind>,
    /// `server.deadlines.drain_delay` of the replicas: longer than the way takes to notice.
    pub drain_delay: &'static str,
    /// From the first 200 of `/readyz` until requests come.
    pub settles: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Nginx,
    Haproxy,
}

/// Directly, where the client asks `/readyz` five times a second and connects to ready replicas only. Behind nginx without
/// active checks and with `max_fails=0`, which tries the next server when a connection is refused. Behind `HAProxy` with
/// its default checks, every 2 s, of `/readyz`: it takes three to remove a server, and two to add it.
pub const WAYS: [Way; 3] = [
    Way { name: "direct", proxy: None, drain_delay: "1s", settles: Duration::from_millis(500) },
    Way { name: "nginx", proxy: Some(Kind::Nginx), drain_delay: "1s", settles: Duration::from_millis(500) },
    Way { name: "HAProxy", proxy: Some(Kind::Haproxy), drain_delay: "8s", settles: Duration::from_secs(5) },
];

/// A running proxy. Dropping it ends it.
pub struct Proxy {
    pub address: SocketAddr,
    _child: Child,
}

impl Proxy {
    /// Starts the proxy of a way, and waits until it answers; `None` when the way has none.
    pub async fn start(way: Way, room: &Path, replicas: &[Replica]) -> anyhow::Result<Option<Self>> {
        let Some(kind) = way.proxy else { return Ok(None) };
        let address = free_address()?;
        let mut command = match kind {
            Kind::Nginx => {
                let file = room.join("nginx.conf");
                std::fs::write(&file, nginx(address, room, replicas)).context("writing nginx.conf")?;
                let mut command = Command::new("/usr/sbin/nginx");
                command.arg("-c").arg(file).arg("-p").arg(room);
                command
            }
            Kind::Haproxy => {
                let file = room.join("haproxy.cfg");
                std::fs::write(&file, haproxy(address, replicas)).context("writing haproxy.cfg")?;
                let mut command = Command::new("/usr/sbin/haproxy");
                command.arg("-db").arg("-f").arg(file);
                command
            }
        };
        let log = std::fs::File::create(room.join(format!("{}.log", way.name))).context("a log for the proxy")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {}", way.name))?;
        note_pid(room, child.id().context("the proxy has ended already")?)?;
        let started = Instant::now();
        while get(address, "/jwks").await.is_none_or(|(status, _)| status != 200) {
            if started.elapsed() > Duration::from_secs(20) || child.try_wait()?.is_some() {
                bail!("{} does not answer; see its log", way.name);
            }
            sleep(Duration::from_millis(100)).await;
        }
        // Until it has checked every replica.
        sleep(way.settles).await;
        Ok(Some(Self { address, _child: child }))
    }
}

/// The configuration of nginx: one process, so that killing it ends all of it.
fn nginx(address: SocketAddr, room: &Path, replicas: &[Replica]) -> String {
    let servers: String =
        replicas.iter().map(|replica| format!("    server {} max_fails=0;\n", replica.public)).collect();
    let room = room.display();
    format!(
        "daemon off;\nmaster_process off;\npid {room}/nginx.pid;\nerror_log {room}/nginx-error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {room}/nginx-body;\n  proxy_temp_path {room}/nginx-proxy;\n  \
         fastcgi_temp_path {room}/nginx-fastcgi;\n  uwsgi_temp_path {room}/nginx-uwsgi;\n  scgi_temp_path {room}/nginx-scgi;\n  \
         upstream grantd {{\n{servers}    keepalive 32;\n  }}\n  \
         server {{\n    listen {address};\n    location / {{\n      proxy_pass http://grantd;\n      \
         proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_set_header Host $http_host;\n    }}\n  }}\n}}\n"
    )
}

fn haproxy(address: SocketAddr, replicas: &[Replica]) -> String {
    let servers: String = replicas
        .iter()
        .enumerate()
        .map(|(number, replica)| format!("  server r{number} {} check port {}\n", replica.public, replica.admin.port()))
        .collect();
    format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend front\n  bind {address}\n  default_backend grantd\n\
         backend grantd\n  balance roundrobin\n  option redispatch\n  option httpchk\n  http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host grantd\n\
         {servers}"
    )
}
