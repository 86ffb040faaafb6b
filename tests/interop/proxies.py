"""Proxies in front of grantd, with the configurations of deploy/proxies: nginx, HAProxy and Caddy end TLS, pass on the client's
address and certificate, and let no client forge either.

Usage: proxies.py PATH_OF_GRANTD
"""

import base64
import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from room import Room, check, ended, free_ports, same

PROXIES = Path(__file__).resolve().parents[2] / "deploy" / "proxies"
SOURCE = "127.0.0.5"
FORGED = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Forwarded-Proto": "http"}


class Behind(Room):
    """A room whose server is in cleartext on loopback, as the heads of the configurations say."""

    def __init__(self, grantd, directory):
        super().__init__(grantd, directory, f"sqlite:{directory}/grantd.db")
        self.ports = dict(zip(["nginx", "haproxy", "caddy"], free_ports(3)))
        self.health = free_ports(1)[0]
        [settings] = {
            "".join(re.findall(r"^#   ((?:trusted_proxies|client_cert_header) = .*\n)", (PROXIES / name).read_text(), re.MULTILINE))
            for name in ["nginx.conf", "haproxy.cfg", "Caddyfile"]
        }
        (self.directory / "grantd.toml").write_text(f"""
issuer = "https://localhost:{self.ports['nginx']}"
data_dir = "."
[server]
listen = "127.0.0.1:{self.port}"
mtls.client_ca_file = "client-ca.pem"
deadlines.drain_delay = "0s"
{settings}
[admin]
listen = "127.0.0.1:{self.health}"
[database]
url = "sqlite:{directory}/grantd.db"
[keys]
sealing_key_file = "sealing.key"
[log]
format = "json"
""")

    def wait(self, server):
        for _ in range(400):
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.health, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
            if server.poll() is not None:
                break
            time.sleep(0.05)
        sys.exit(f"grantd does not serve: {self.log.read_text()}")

    def configuration(self, name, changes):
        """A file of deploy/proxies with the addresses of this room; each text to be changed has to stand there."""
        text = (PROXIES / name).read_text()
        for of_file, of_room in changes:
            check(of_file in text, f"{name} has {of_file!r}")
            text = text.replace(of_file, of_room)
        path = self.directory / name
        path.write_text(text)
        return path


def nginx(room, port):
    conf = room.configuration("nginx.conf", [
        ("127.0.0.1:8080", f"127.0.0.1:{room.port}"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("/etc/nginx/auth.example.com.pem", room.file("server.pem")),
        ("/etc/nginx/auth.example.com.key", room.file("server.key")),
    ])
    main = room.directory / "nginx-main.conf"
    main.write_text(f"""
daemon off; pid {room.directory}/nginx.pid; error_log stderr; worker_processes 1;
events {{}}
http {{ access_log off; client_body_temp_path {room.directory}/b; proxy_temp_path {room.directory}/p;
fastcgi_temp_path {room.directory}/f; uwsgi_temp_path {room.directory}/u; scgi_temp_path {room.directory}/s;
include {conf}; }}
""")
    return ["nginx", "-e", "stderr", "-c", str(main)]


def haproxy(room, port):
    pem = room.directory / "haproxy.pem"
    pem.write_text((room.directory / "server.pem").read_text() + (room.directory / "server.key").read_text())
    conf = room.configuration("haproxy.cfg", [
        ("127.0.0.1:8080", f"127.0.0.1:{room.port}"),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("port 9090", f"port {room.health}"),
        ("/etc/haproxy/auth.example.com.pem", str(pem)),
        ("/etc/haproxy/client-ca.pem", room.file("client-ca.pem")),
    ])
    return ["haproxy", "-db", "-f", str(conf)]


def caddy(room, port):
    conf = room.configuration("Caddyfile", [
        ("127.0.0.1:8080", f"127.0.0.1:{room.port}"),
        ("health_port 9090", f"health_port {room.health}"),
        ("\nauth.example.com {\n\ttls {", f"\nhttps://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {room.file('server.pem')} {room.file('server.key')} {{"),
        ("\n{\n\tservers {", "\n{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {"),
    ])
    return ["caddy", "run", "--config", str(conf), "--adapter", "caddyfile"]


@contextlib.contextmanager
def running(room, name, command, port):
    """Runs a proxy in the foreground until the end of the block."""
    log = room.directory / f"{name}.log"
    with log.open("w") as output:
        proxy = subprocess.Popen(command, cwd=room.directory, env={**room.environment, "XDG_DATA_HOME": str(room.directory)}, stdout=output, stderr=output)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if proxy.poll() is not None:
                raise SystemExit(f"{name} ended: {log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        proxy.terminate()
        proxy.wait(10)


def ask(room, port, method="POST", path="/token", fields=(), body="", certificate=None):
    """One request from an address of its own; its status and its JSON."""
    context = ssl.create_default_context(cafile=room.file("ca.pem"))
    if certificate:
        context.load_cert_chain(room.file(f"{certificate}.pem"), room.file(f"{certificate}.key"))
    connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context, source_address=(SOURCE, 0))
    kind = {"Content-Type": "application/x-www-form-urlencoded"} if method == "POST" else {}
    connection.request(method, path, body, {**kind, **dict(fields)})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    with contextlib.suppress(ValueError):
        return answer.status, json.loads(text)
    return answer.status, {}


def events(room, name):
    lines = [json.loads(line) for line in room.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def claims(answer):
    part = answer["access_token"].split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def slow(room, name, port):
    """A client that never ends the head of its request is closed."""
    began = time.monotonic()
    context = ssl.create_default_context(cafile=room.file("ca.pem"))
    with socket.create_connection(("127.0.0.1", port), 5) as tcp, context.wrap_socket(tcp, server_hostname="localhost") as stream:
        stream.sendall(b"POST /token HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        stream.settimeout(30)
        with contextlib.suppress(OSError):
            while stream.recv(4096):
                pass
    check(time.monotonic() - began < 16, f"{name}: a slow head ends in time, after {time.monotonic() - began:.0f} s")


def checks(room, name, port, secret):
    form = f"grant_type=client_credentials&client_id=billing&client_secret={secret}"
    seen = len(events(room, "token.issued"))
    code, answer = ask(room, port, body=form, fields=FORGED)
    same(code, 200, f"{name}: a token for a secret")
    check("cnf" not in claims(answer), f"{name}: bound to nothing")
    time.sleep(0.1)
    same([line["remote_addr"] for line in events(room, "token.issued")[seen:]], [SOURCE], f"{name}: the client's own address")
    same(ask(room, port, "GET", "/.well-known/oauth-authorization-server")[0], 200, f"{name}: the metadata")
    for path in "/metrics", "/readyz", "/livez":
        same(ask(room, port, "GET", path)[0], 404, f"{name}: {path} is not public")
    same(ask(room, port, body=form + "&x=" + "x" * 20000)[0], 413, f"{name}: a body that is too large")

    by_certificate = lambda client: f"grant_type=client_credentials&client_id={client}"
    for client, certificate in [("partner", "partner"), ("itself", "own"), ("long", "long")]:
        code, answer = ask(room, port, body=by_certificate(client), certificate=certificate)
        same(code, 200, f"{name}: {client} by its certificate")
        if code == 200:
            same(claims(answer)["cnf"], {"x5t#S256": room.x5t(certificate)}, f"{name}: {client} is bound to it")
        # Its certificate in the field, and on the connection none, or another.
        der = base64.b64encode(ssl.PEM_cert_to_DER_cert((room.directory / f"{certificate}.pem").read_text())).decode()
        for field in "Client-Cert", "client-cert", "Client_Cert":
            same(ask(room, port, body=by_certificate(client), fields={field: f":{der}:"})[0], 401, f"{name}: {client} by a forged {field}")
        same(ask(room, port, body=by_certificate(client), fields={"Client-Cert": f":{der}:"}, certificate="forged")[0], 401, f"{name}: {client} by a forged field beside another certificate")
    same(ask(room, port, body=by_certificate("partner"), certificate="forged")[0], 401, f"{name}: a namesake that no CA vouches for")


def story(room):
    for client in "billing", "partner", "itself", "long":
        room.sh(f"grantd client create {client} --scope api:read --default-scope api:read --no-secret")
    secret = room.secret("billing")
    room.sh("""
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Example/CN=partner" -keyout partner.key -out partner.csr
echo extendedKeyUsage=clientAuth > partner.ext
openssl x509 -req -in partner.csr -CA client-ca.pem -CAkey client-ca.key -CAcreateserial -days 90 -extfile partner.ext -out partner.pem
grantd client cert add partner --subject-dn "CN=partner,O=Example"
openssl req -x509 -newkey rsa:4096 -nodes -days 90 -subj "/CN=long" -addext "subjectAltName=DNS:$(printf 'a%.0s' {1..60}).example.com" -keyout long.key -out long.pem
grantd client cert add long --self-signed long.pem
""")
    room.self_signed("own", "/CN=billing")
    room.sh("grantd client cert add itself --self-signed own.pem")
    room.self_signed("forged", "/O=Example/CN=partner")
    with room.serving(), contextlib.ExitStack() as proxies:
        for proxy in nginx, haproxy, caddy:
            port = room.ports[proxy.__name__]
            proxies.enter_context(running(room, proxy.__name__, proxy(room, port), port))
        patient = [threading.Thread(target=slow, args=(room, name, port)) for name, port in room.ports.items()]
        for thread in patient:
            thread.start()
        # Until each has seen that grantd is well.
        time.sleep(5)
        for name, port in room.ports.items():
            checks(room, name, port, secret)
        for thread in patient:
            thread.join()


with tempfile.TemporaryDirectory() as directory:
    story(Behind(sys.argv[1], directory))
ended()
