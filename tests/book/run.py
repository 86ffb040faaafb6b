"""Runs the commands and programs of README and book as they are printed.

Usage: run.py PATH_OF_GRANTD [PAGE…]. Each page has a directory and a network namespace of its own, so that its ports are
free, and one shell from its first block to its last. Blocks of the languages in `blocks.RUN` run in the order of the page;
one whose first line is a comment with a file name is saved under that name, as a reader would. Where neither root nor user
namespaces may isolate a page, pages run one after the other, and need ports 8080 and 9090. Libraries are those that script/test has installed for tests/interop.
"""

import concurrent.futures
import contextlib
import ctypes
import dataclasses
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import platforms
from blocks import RUN, Wrong, blocks, same
from provisions import INTEROP, ROOT, initialized, kept_settings, missing, needs_postgres, postgres_bin, start_postgres, with_stand_ins

# A page of these needs what the tests of deploy/ provide, and is run by them.
ELSEWHERE = {f"docs/guides/{name}.md" for name in ["containers", "kubernetes", "systemd", "proxies", "monitoring", "release"]}
CHANGES = re.compile(r"\bgrantd (client|resource|key|token|migrate)\b|\b(psql|sqlite3)\b")
SERVES = re.compile(r"^\s*(grantd|cargo run --release --) (serve|dev)\b", re.M)
TIMEOUT = 120


def pages():
    summary = (ROOT / "docs" / "SUMMARY.md").read_text()
    paths = [os.path.normpath(f"docs/{target}") for target in re.findall(r"\]\(([^)]+\.md)\)", summary)]
    return [path for path in dict.fromkeys(paths) if path == "README.md" or re.match(r"docs/(?!reference/)", path)]


class Page:
    """A page that is being run, within its namespaces."""

    def __init__(self, grantd, path, directory):
        self.path = path
        self.text = (ROOT / path).read_text()
        self.blocks = blocks(self.text)
        self.languages = {block.language for block in self.blocks if block.language in RUN}
        self.room = Path(directory, "page")
        self.notes = Path(directory, "notes")
        self.room.mkdir()
        self.notes.mkdir()
        self.servers = []
        self.saved = {}
        self.counts = {"blocks": 0, "run": 0, "text": 0, "left": [], "slowest": [0, 0]}
        tools = [self.shims(Path(grantd).resolve()), Path(grantd).resolve().parent, INTEROP / "bin", *postgres_bin()]
        self.environment = {
            "PATH": ":".join([*map(str, tools), os.environ["PATH"]]),
            "HOME": str(self.room),
            "LANG": "C.UTF-8",
            **kept_settings(self.languages),
        }
        if "js" in self.languages:
            (self.room / "node_modules").symlink_to(INTEROP / "node" / "node_modules")
        if "go" in self.languages:
            for name in "go.mod", "go.sum":
                shutil.copy(ROOT / "tests" / "interop" / "go" / name, self.room)
        if "java" in self.languages:
            libraries = "spring" if "spring" in path else "nimbus-kafka"
            self.environment["CLASSPATH"] = f"{INTEROP}/java/{libraries}/lib/*"
        if needs_postgres(path):
            start_postgres(Path(directory, "postgres"))
        if platforms.needed(self.text):
            at = Path(directory, "platforms")
            platforms.prepare(at)
            platforms.start(at)
            self.environment |= platforms.environment(at, self.room) | {"PATH": f"{at}/bin:{self.environment['PATH']}"}
        signal.signal(signal.SIGALRM, raise_timeout)
        self.shell = subprocess.Popen(
            ["bash"], cwd=self.room, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def shims(self, grantd):
        """`cargo run` as README and examples say it, of what is built already."""
        shim = self.notes / "cargo"
        shim.write_text(f"""#!/bin/sh
case "$1 $2" in
  "run --release") shift 3; exec {grantd} "$@" ;;
  "build --release") exit 0 ;;
  "run --example") example=$3; shift 3; [ "${{1:-}}" != -- ] || shift; exec {grantd.parent}/examples/"$example" "$@" ;;
esac
echo "cargo $*: tests/book/run.py knows no such command" >&2
exit 1
""")
        # Programs that run for a second start sooner without the optimising compiler.
        for program, flags in ("java", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"), ("javac", "-J-XX:TieredStopAtLevel=1"):
            if there := shutil.which(program):
                (self.notes / program).write_text(f'#!/bin/sh\nexec {there} {flags} "$@"\n')
        for program in self.notes.iterdir():
            program.chmod(0o755)
        return self.notes

    def run(self):
        for number, block in enumerate(self.blocks):
            if "file" in block.directives:
                # A file that other tests run.
                if block.text != (ROOT / block.directives["file"]).read_text():
                    raise Wrong(f"{block.line}: this is not {block.directives['file']}")
                self.counts["blocks"] += 1
                self.counts["run"] += 1
                continue
            # Blocks in other languages count only when something is done with them.
            if block.name and block.language not in ("sh", "console"):
                path = self.cwd() / block.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
                self.saved[block.name] = block
            if block.language == "text":
                self.counts["blocks"] += 1
                self.counts["text"] += 1
                self.counts["left"].append(f"{block.line}: {block.before}")
                if "not run" not in block.before.lower():
                    raise Wrong(f"{block.line}: the text before a block of `text` says why it is not run")
            if block.language not in RUN:
                continue
            self.counts["blocks"] += 1
            began = time.monotonic()
            printed = self.run_block(number, block)
            self.counts["slowest"] = max(self.counts["slowest"], [round(time.monotonic() - began, 1), block.line])
            self.counts["run"] += 1
            if block.output is not None and not same(printed, block.output):
                raise Wrong(f"{block.line}: printed\n{printed}\ninstead of\n{block.output}")
        for name, block in self.saved.items():
            if block.language != "toml" and not any(name in other.text for other in self.blocks if other.line > block.line):
                raise Wrong(f"{block.line}: {name} is saved and never used")

    def run_block(self, number, block):
        if block.language == "toml":
            path = self.cwd() / block.name if block.name else self.notes / f"{number}.toml"
            path.write_text(with_stand_ins(block.text, self.notes / "etc"))
            return self.command(number, block, f"grantd config check --config {path}\n")
        if block.language == "sql":
            if "psql" in block.directives:
                command = f"psql -v ON_ERROR_STOP=1 -q {block.directives['psql']}"
            elif "sqlite" in block.directives:
                command = f"sqlite3 -bail {block.directives['sqlite']}"
            elif block.name:
                return ""
            else:
                raise Wrong(f"{block.line}: SQL for no database")
            (self.notes / f"{number}.sql").write_text(block.text)
            printed = self.command(number, block, f"{command} < {self.notes}/{number}.sql\n")
            self.wait_for_changes()
            return printed
        if block.language in ("python", "js", "go", "java"):
            if block.name:
                return ""
            if block.language == "python":
                (self.notes / f"{number}.py").write_text(block.text)
                return self.command(number, block, f"python {self.notes}/{number}.py\n")
            raise Wrong(f"{block.line}: a program without the name of its file")
        if "server" in block.directives or SERVES.search(block.text):
            return self.serve(number, block)
        printed = self.command(number, block, block.text)
        if CHANGES.search(block.text):
            self.wait_for_changes()
        return printed

    def cwd(self):
        """Where the page's shell is; the other terminals of a reader are there too."""
        return Path(f"/proc/{self.shell.pid}/cwd").readlink()

    def command(self, number, block, text):
        """Runs text in the page's shell, and returns what it prints."""
        script, output = self.notes / f"{number}.sh", self.notes / f"{number}.out"
        script.write_text(text)
        fails = "fails" in block.directives
        self.shell.stdin.write(f"set -o pipefail; set {'+' if fails else '-'}e; . {script} >{output} 2>&1 </dev/null; echo $?\n")
        self.shell.stdin.flush()
        signal.alarm(TIMEOUT)
        try:
            status = self.shell.stdout.readline().strip()
        except TimeoutError:
            status = f"not done within {TIMEOUT} s"
        signal.alarm(0)
        printed = output.read_text() if output.exists() else ""
        if (status == "0") == fails:
            raise Wrong(f"{block.line}: {'did not fail' if fails else 'failed'}\n{text}{printed}{self.server_log()}")
        return printed

    def serve(self, number, block):
        """Starts a server, after those that run have ended, and waits until it is ready."""
        if "beside" not in block.directives:
            self.stop_servers()
        script, log = self.notes / f"{number}.sh", self.notes / f"{number}.out"
        script.write_text(block.text)
        # With the variables that the shell has by now.
        variables = self.notes / "variables"
        self.command(f"{number}-variables", dataclasses.replace(block, directives={}), f"export -p > {variables}\n")
        with log.open("w") as output:
            server = subprocess.Popen(
                ["bash", "-eo", "pipefail", "-c", f". {variables}; . {script}"], cwd=self.cwd(), env=self.environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )
        self.servers.append((server, log))
        deadline = time.monotonic() + TIMEOUT
        while not self.ready(block.directives.get("server")):
            if server.poll() is not None or time.monotonic() > deadline:
                logs = "".join(path.read_text()[-3000:] for path in [log, *self.cwd().glob("*.log")])
                raise Wrong(f"{block.line}: the server is not ready ({server.poll()})\n{block.text}{logs}")
            time.sleep(0.02)
        return log.read_text()

    def stop_servers(self):
        """Ends the servers as Ctrl-C does, and waits for all their processes."""
        for server, _ in self.servers:
            os.killpg(server.pid, signal.SIGINT)
            # A shell without a terminal starts some programs deaf to SIGINT.
            os.killpg(server.pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        for server, _ in self.servers:
            # This process is the first of its namespace, so what a shell leaves behind becomes its child.
            with contextlib.suppress(ChildProcessError):
                while time.monotonic() < deadline:
                    if os.waitpid(-server.pid, os.WNOHANG) == (0, 0):
                        time.sleep(0.02)
        self.servers = []

    def ready(self, port):
        with contextlib.suppress(OSError):
            if port:
                socket.create_connection(("127.0.0.1", int(port)), 1).close()
                return True
            return urllib.request.urlopen("http://127.0.0.1:9090/readyz", timeout=5).status == 200
        return False

    def wait_for_changes(self):
        """Waits until each grantd that runs has asked its database once more, as a reader who types does."""
        changed = time.monotonic()
        for port in 9090, 9091:
            while time.monotonic() < changed + 10:
                try:
                    asked = time.monotonic()
                    metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
                except OSError:
                    break
                age = re.search(r"^grantd_registry_age_seconds (\S+)$", metrics, re.M)
                if age and asked - float(age[1]) > changed:
                    break
                time.sleep(0.05)

    def server_log(self):
        return "".join(f"\nserver:\n{log.read_text()[-3000:]}" for _, log in self.servers)


def raise_timeout(*_):
    raise TimeoutError


def inside(grantd, path):
    """Runs one page in the namespaces of this process, and prints its report."""
    if os.getpid() == 1:
        lo = struct.pack("16sH14x", b"lo", 0x41)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, 0x8914, lo)
    else:
        # Processes that a shell leaves behind become children of this process here, too (PR_SET_CHILD_SUBREAPER).
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="grantd-book.", ignore_cleanup_errors=True) as directory:
        os.chmod(directory, 0o755)
        counts, wrong = {"blocks": 0, "run": 0, "text": 0, "left": [], "slowest": [0, 0]}, None
        try:
            page = Page(grantd, path, directory)
            counts = page.counts
            page.run()
        except Wrong as error:
            wrong = f"{path}:{error}"
    print(json.dumps({**counts, "wrong": wrong, "seconds": round(time.monotonic() - began, 1)}))
    sys.stdout.flush()
    if os.getpid() != 1:
        end_children()
    # The namespace of processes ends with this one.
    os._exit(0)


def end_children():
    """Ends each process that a page has left behind."""
    while children := Path("/proc/self/task", str(os.getpid()), "children").read_text().split():
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(int(child), 0)


def namespaces():
    """The command that gives a page namespaces of its own; empty where that is not permitted."""
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-current-user", "--keep-caps"]
    permitted = shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    if not permitted or os.environ.get("BOOK_NAMESPACES") == "none":
        print("pages run one after the other: namespaces are not permitted here")
        return []
    return command


def isolated(namespaces, grantd, path):
    done = subprocess.run([*namespaces, sys.executable, "-B", __file__, "--inside", grantd, path], text=True, capture_output=True)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        sys.exit(f"{path}: {done.stdout}{done.stderr}")


def main():
    if sys.argv[1] == "--inside":
        return inside(*sys.argv[2:])
    grantd, chosen = sys.argv[1], sys.argv[2:] or pages()
    began = time.monotonic()
    here = [path for path in chosen if path not in ELSEWHERE]
    # Where nobody would see that a page was left out, it is a failure.
    skipped = {path: program for path in here if (program := missing(path)) and os.environ.get("CI") != "true"}
    for path, program in skipped.items():
        print(f"skipped: {path}: {program} is not here")
    here = [path for path in here if path not in skipped]
    isolation = namespaces()
    if not isolation:
        # Without a namespace of its own, a page cannot have other hosts.
        apart = {path for path in here if platforms.needed((ROOT / path).read_text())}
        print(*(f"skipped: {path}: it needs namespaces" for path in sorted(apart)), sep="\n")
        here = [path for path in here if path not in apart]
    at_once = 2 if isolation else 1
    with tempfile.TemporaryDirectory(prefix="grantd-book.") as template, concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        os.environ["BOOK_POSTGRES"] = template
        made = pool.submit(initialized, template) if any(map(needs_postgres, here)) else None

        def report_of(path):
            if needs_postgres(path):
                made.result()
            return isolated(isolation, grantd, path)

        # The longest begin first; Java starts slowly.
        by_length = sorted(here, key=lambda path: ("spring" not in path, "java" not in path))
        found = dict(zip(by_length, pool.map(report_of, by_length)))
        reports = {path: found[path] for path in here}
    for path, report in reports.items():
        if report["wrong"]:
            print(f"FAILED: {report['wrong']}")
        if report["blocks"]:
            numbers = f"{report['blocks']} blocks, {report['run']} run, {report['text']} text"
            seconds, line = report["slowest"]
            print(f"{path}: {numbers}, {report['seconds']} s (line {line}: {seconds} s)")
    total = {name: sum(report[name] for report in reports.values()) for name in ("blocks", "run", "text")}
    failed = sum(report["wrong"] is not None for report in reports.values())
    for path, report in reports.items():
        for reason in report["left"]:
            print(f"not run: {path}:{reason}")
    print(
        f"book: {len(here)} pages, {total['blocks']} blocks, {total['run']} run, {total['text']} text, "
        f"{failed} failed, {time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if failed or not total["run"] else 0)


main()
