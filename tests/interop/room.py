"""The room of the checks: a grantd with TLS, set up on each database as an administrator would, and a count of checks."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

passed = 0
failed = 0


def check(ok, what):
    global passed, failed
    passed += bool(ok)
    failed += not ok
    if not ok:
        print(f"FAILED: {what}")


def same(found, expected, what):
    check(found == expected, f"{what}: {found!r} is not {expected!r}")


class Room:
    """A directory with a configuration, a CA by openssl, and commands that run there. Clients are registered before the
    server starts, so that it knows them at once."""

    def __init__(self, grantd, directory, database_url):
        self.directory = Path(directory)
        self.log = self.directory / "grantd.log"
        self.environment = {
            "PATH": f"{Path(grantd).resolve().parent}:{os.environ['PATH']}",
            "HOME": directory,
            "GRANTD_CONFIG": "grantd.toml",
        }
        self.port, self.mtls_port, admin = free_ports(3)
        self.issuer = f"https://localhost:{self.port}"
        (self.directory / "grantd.toml").write_text(f"""
issuer = "{self.issuer}"
data_dir = "."
[server]
listen = "127.0.0.1:{self.port}"
tls.cert_file = "server.pem"
tls.key_file = "server.key"
mtls.listen = "127.0.0.1:{self.mtls_port}"
mtls.client_ca_file = "client-ca.pem"
deadlines.drain_delay = "0s"
[admin]
listen = "127.0.0.1:{admin}"
[database]
url = "{database_url}"
[keys]
sealing_key_file = "sealing.key"
""")
        self.sh("""
head -c 32 /dev/urandom | base64 > sealing.key
ec="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $ec -days 2 -subj "/CN=Example Servers" -keyout ca.key -out ca.pem
openssl req $ec -subj "/CN=localhost" -keyout server.key -out server.csr
echo subjectAltName=DNS:localhost > server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem
openssl req -x509 $ec -days 2 -subj "/CN=Example Clients" -keyout client-ca.key -out client-ca.pem
grantd migrate
""")

    def sh(self, commands, input=None):
        """Runs commands of a shell, as they stand in the book, and returns what they print."""
        done = subprocess.run(
            ["bash", "-euc", commands], cwd=self.directory, env=self.environment, input=input, text=True, capture_output=True
        )
        if done.returncode != 0:
            sys.exit(f"{commands}\n{done.stdout}{done.stderr}")
        return done.stdout

    def run(self, command):
        """Runs one command, and returns what it prints, also when it fails."""
        return subprocess.run(command, cwd=self.directory, env=self.environment, text=True, capture_output=True).stdout

    def secret(self, client_id):
        """Gives a client a further secret."""
        return json.loads(self.sh(f"grantd client secret add {client_id} --json"))["client_secret"]

    def self_signed(self, name, subject):
        """A certificate that nobody vouches for, and its key."""
        self.sh(f"""
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj "{subject}" -keyout {name}.key -out {name}.pem
""")

    def x5t(self, name):
        """The `x5t#S256` of a certificate, by openssl."""
        hexed = self.sh(f"openssl x509 -in {name}.pem -outform der | openssl dgst -sha256 -r").split()[0]
        return base64.urlsafe_b64encode(bytes.fromhex(hexed)).decode().rstrip("=")

    def file(self, name):
        return str(self.directory / name)

    @contextlib.contextmanager
    def serving(self, *settings):
        """Serves, with these settings besides those of the file."""
        flags = [part for setting in settings for part in ("--set", setting)]
        with self.log.open("a") as log:
            server = subprocess.Popen(
                ["grantd", "serve", *flags], cwd=self.directory, env=self.environment, stdout=log, stderr=log
            )
        try:
            self.wait(server)
            yield
        finally:
            server.terminate()
            same(server.wait(10), 0, "the server's exit code")

    def wait(self, server):
        for _ in range(400):
            answers = subprocess.run(
                ["curl", "-s", "--cacert", self.file("ca.pem"), self.issuer + "/jwks"], env=self.environment, capture_output=True
            )
            if answers.returncode == 0:
                return
            if server.poll() is not None:
                break
            time.sleep(0.05)
        sys.exit(f"grantd does not serve: {self.log.read_text()}")


def on_both_databases(story):
    """Tells a story in a new room on SQLite, and in another on PostgreSQL; then tells the count, and ends the program."""
    for database in sqlite, postgres:
        with tempfile.TemporaryDirectory() as directory, database(directory) as url:
            before = failed
            story(Room(sys.argv[1], directory, url))
            if failed > before:
                print(f"… on {database.__name__}")
    ended()


def ended():
    """Prints the count of checks, and ends the program."""
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


@contextlib.contextmanager
def sqlite(directory):
    yield f"sqlite:{directory}/grantd.db"


@contextlib.contextmanager
def postgres(_):
    """A database of its own on the server that GRANTD_TEST_POSTGRES names."""
    server = os.environ.get("GRANTD_TEST_POSTGRES") or sys.exit("GRANTD_TEST_POSTGRES names no server; see script/test")
    name = f"grantd_interop_{os.getpid()}"

    def psql(sql):
        subprocess.run(["psql", server, "-qc", sql], check=True)

    psql(f"create database {name}")
    try:
        yield f"{server.rsplit('/', 1)[0]}/{name}"
    finally:
        psql(f"drop database {name} with (force)")


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
