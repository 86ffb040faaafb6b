"""compose.yaml with the programs of this machine instead of containers: its secrets, its two roles and their grants (also as
the Job of Kubernetes runs them) on a PostgreSQL of its own, the serving role at work, and the backup and restore commands of
the guide.

Usage: compose.py PATH_OF_GRANTD
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "interop"))
from room import check, ended, free_ports, same  # noqa: E402

GUIDE = (ROOT / "docs" / "guides" / "containers.md").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def hardened():
    """The limits of each service, and the secrets that the server does not get."""
    for name, service in SERVICES.items():
        same(set(service["logging"]["options"]), {"max-size", "max-file"}, f"{name}: log rotation")
        check("mem_limit" in service, f"{name}: a memory limit")
        same(service["security_opt"], ["no-new-privileges:true"], f"{name}: security_opt")
        if name != "postgres":
            same((service["read_only"], service["cap_drop"]), (True, ["ALL"]), f"{name}: nothing to write, no capability")
        for secret in service["secrets"]:
            check(secret in COMPOSE["secrets"], f"{name}: the secret {secret} is declared")
    same(SERVICES["grantd"]["secrets"], ["app_url", "sealing_key"], "the server's secrets")
    same({name for name, service in SERVICES.items() if "postgres_password" in service["secrets"]}, {"postgres"}, "the superuser")
    for port in SERVICES["grantd"]["ports"]:
        check(port.startswith("127.0.0.1:"), f"port {port} is published on loopback only")


def documented():
    """The grants of README and book are those of grants.sql."""
    statements = lambda text: set(re.findall(r"^grant .*;$", text, re.MULTILINE))
    grants = statements((ROOT / "deploy" / "postgres" / "grants.sql").read_text())
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        found = statements(page.read_text())
        check(not found or found == grants, f"{page.name}: the grants differ from grants.sql: {found ^ grants}")


class Machine:
    """A PostgreSQL that asks for passwords, and the files that compose.yaml mounts."""

    def __init__(self, grantd, directory):
        self.grantd = str(Path(grantd).resolve())
        self.bin = Path(os.environ["GRANTD_TEST_PG_BIN"])
        self.directory = Path(directory)
        self.directory.chmod(0o755)
        self.owner = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        self.pg_port, self.port, self.admin = free_ports(3)
        deploy = self.directory / "deploy"
        deploy.mkdir()
        shutil.copy(ROOT / "deploy" / "compose-secrets", deploy)
        subprocess.run([deploy / "compose-secrets"], check=True)
        self.secrets = deploy / "compose"
        same(oct(self.secrets.stat().st_mode)[-3:], "700", "mode of the directory of secrets")
        same({path.name for path in self.secrets.iterdir()}, {*COMPOSE["secrets"], ".gitignore"}, "secrets made")
        if os.getuid() != 0:
            (self.secrets / "sealing_key").chmod(0o400)
        for role in "owner", "app":
            url = self.secrets / f"{role}_url"
            url.write_text(url.read_text().replace("@postgres:5432", f"@127.0.0.1:{self.pg_port}"))

    @contextlib.contextmanager
    def postgres(self):
        data, socket = self.directory / "data", self.directory / "socket"
        for path in data, socket:
            path.mkdir()
            if self.owner:
                shutil.chown(path, "postgres")
        self.run([*self.owner, self.bin / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
        hba = f"local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (data / "pg_hba.conf").write_text(hba)
        options = f"-p {self.pg_port} -k {socket} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = [*self.owner, self.bin / "pg_ctl", "-D", data]
        self.run([*control, "-w", "-l", self.directory / "socket" / "log", "start", "-o", options])
        try:
            yield
        finally:
            self.run([*control, "-m", "immediate", "stop"])

    def run(self, command, environment=None, **how):
        environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", **(environment or {})}
        done = subprocess.run([str(part) for part in command], env=environment, cwd="/", capture_output=True, text=True, **how)
        if done.returncode != 0:
            sys.exit(f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def superuser(self):
        """The environment of a command in the container of PostgreSQL."""
        return {"PGHOST": str(self.directory / "socket"), "PGPORT": str(self.pg_port)}

    def mounted(self, name):
        """An SQL file that compose.yaml mounts, with the secrets of this machine."""
        path = self.directory / name
        path.write_text((ROOT / "deploy" / "postgres" / name).read_text().replace("/run/secrets", str(self.secrets)))
        return path

    def environment(self, service):
        """The environment of a service, with the paths and ports of this machine."""
        fields = dict(SERVICES[service]["environment"])
        fields = {key: value.replace("/run/secrets", str(self.secrets)) for key, value in fields.items()}
        return {
            **fields,
            "GRANTD__ISSUER": f"http://127.0.0.1:{self.port}",
            "GRANTD__SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "GRANTD__ADMIN__LISTEN": f"127.0.0.1:{self.admin}",
            "GRANTD__SERVER__DEADLINES__DRAIN_DELAY": "0s",
            "PATH": os.environ["PATH"],
        }

    def command(self, service, *arguments):
        """`docker compose run --rm SERVICE …`"""
        return subprocess.run([self.grantd, *arguments], env=self.environment(service), cwd=self.directory, capture_output=True, text=True)

    def as_owner(self, sql):
        script = SERVICES["grants"]["entrypoint"][2].replace("$$", "$").replace("/run/secrets", str(self.secrets))
        script = script.replace("/grants.sql", str(sql))
        database = {**SERVICES["grants"]["environment"], "PGHOST": "127.0.0.1", "PGPORT": str(self.pg_port)}
        self.run(["sh", "-euc", script], database)

    def as_job(self, sql):
        """The same as the migration Job of Kubernetes does it, with the pg_service.conf of its guide; without TLS here."""
        [job] = yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "migrate-job.yaml").read_text())
        [container] = job["spec"]["template"]["spec"]["containers"]
        service = (ROOT / "docs" / "guides" / "kubernetes.md").read_text().split("```text\n[grantd]\n")[1].split("```")[0]
        service = service.replace("HOST", f"127.0.0.1\nport={self.pg_port}").replace("PASSWORD", (self.secrets / "owner_password").read_text().strip())
        file = self.directory / "pg_service.conf"
        file.write_text("[grantd]\n" + "".join(line for line in service.splitlines(True) if not line.startswith("ssl")))
        [variable] = container["env"]
        self.run([part.replace("/etc/grantd/grants.sql", str(sql)) for part in container["command"]], {variable["name"]: str(file)})

    @contextlib.contextmanager
    def serving(self):
        log = self.directory / "grantd.log"
        with log.open("a") as output:
            server = subprocess.Popen(
                [self.grantd, *SERVICES["grantd"]["command"]], env=self.environment("grantd"), cwd=self.directory, stdout=output, stderr=output
            )
        try:
            for _ in range(200):
                if self.ask(self.admin, "/readyz")[0] == 200:
                    break
                if server.poll() is not None:
                    sys.exit(f"grantd ended: {log.read_text()}")
                time.sleep(0.05)
            yield
        finally:
            server.terminate()
            same(server.wait(15), 0, "the server's exit code")

    def ask(self, port, path, **form):
        body = urllib.parse.urlencode(form).encode() if form else None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as refusal:
            return refusal.code, json.loads(refusal.read() or b"{}")
        except OSError:
            return None, None


def guide(beginning):
    """The command of the guide that begins like this, as it runs in the container."""
    [line] = [line for line in GUIDE.splitlines() if line.startswith(beginning)]
    command, _, target = line.removeprefix("docker compose exec -T postgres ").partition(" < " if " < " in line else " > ")
    return shlex.split(command), target


def story(machine):
    with machine.postgres():
        superuser = machine.superuser()
        psql = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--username=postgres"]
        machine.run([*psql, "--dbname=postgres", f"--file={machine.mounted('roles.sql')}"], superuser)
        roles = machine.run([*psql, "--dbname=grantd", "-Atc", "select rolname from pg_roles where rolsuper"], superuser)
        same(roles.split(), ["postgres"], "superusers")
        done = machine.command("migrate", *SERVICES["migrate"]["command"])
        same((done.returncode, done.stderr if done.returncode else ""), (0, ""), "migrate")
        grants = machine.mounted("grants.sql")
        machine.as_owner(grants)
        machine.as_job(grants)
        done = machine.command("admin", *shlex.split('client create demo --scope "read write" --default-scope read --json'))
        secret = json.loads(done.stdout)["client_secret"]
        credentials = {"client_id": "demo", "client_secret": secret}
        token = lambda: machine.ask(machine.port, "/token", grant_type="client_credentials", **credentials)
        with machine.serving():
            code, answer = token()
            same(code, 200, "a token by the serving role")
            same(machine.ask(machine.port, "/revoke", token=answer["access_token"], **credentials)[0], 200, "a revocation by it")
            refused = machine.command("grantd", "client", "create", "other", "--scope", "read")
            check(refused.returncode != 0 and "permission denied" in refused.stderr, f"the serving role creates no client: {refused.stderr}")
            doctor = machine.command("grantd", "doctor")
            same((doctor.returncode, doctor.stdout + doctor.stderr if doctor.returncode else ""), (0, ""), "doctor as the serving role")

            dump, file = guide("docker compose exec -T postgres pg_dump")
            check(file.startswith("grantd"), f"the guide writes the backup to {file!r}")
            backup = machine.directory / "backup.dump"
            with backup.open("wb") as output:
                subprocess.run(dump, env={**os.environ, **superuser}, stdout=output, check=True)
            same(machine.command("admin", "client", "delete", "demo").returncode, 0, "the client deleted")
            time.sleep(1)
            same(token()[0], 401, "a deleted client")
            restore, _ = guide("docker compose exec -T postgres pg_restore")
            with backup.open("rb") as dumped:
                done = subprocess.run(restore, env={**os.environ, **superuser}, stdin=dumped, capture_output=True, text=True)
            same((done.returncode, done.stderr), (0, ""), "the restore under a running server")
            for _ in range(50):
                if token()[0] == 200:
                    break
                time.sleep(0.2)
            same(token()[0], 200, "a token after the restore")
            doctor = machine.command("grantd", "doctor")
            same((doctor.returncode, doctor.stdout + doctor.stderr if doctor.returncode else ""), (0, ""), "doctor after the restore")


hardened()
documented()
with tempfile.TemporaryDirectory(dir="/tmp") as directory:
    story(Machine(sys.argv[1], directory))
ended()
