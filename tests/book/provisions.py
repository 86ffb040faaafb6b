"""The provisions of the pages of the book: toolchains with their libraries, a PostgreSQL, and files that a configuration names."""

import base64
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path

from blocks import blocks

ROOT = Path(__file__).resolve().parents[2]
INTEROP = ROOT / "target" / "interop"
# For each language: the program, and what script/test has installed for it.
TOOLCHAINS = {
    "js": ("node", INTEROP / "node" / "node_modules" / "jose"),
    "go": ("go", INTEROP / "go-clients"),
    "java": ("javac", INTEROP / "java" / "spring" / "lib"),
}


def missing(path):
    """The toolchain that a page needs and this machine does not have."""
    for language in {block.language for block in blocks((ROOT / path).read_text())} & TOOLCHAINS.keys():
        program, installed = TOOLCHAINS[language]
        if not shutil.which(program) or not installed.exists():
            return program
    return None


def postgres_bin():
    if os.environ.get("PG_BIN"):
        return [Path(os.environ["PG_BIN"])]
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return [path.parent for path in found[-1:]]


def postgres_owner():
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    return "postgres" if "postgres" in {user.pw_name for user in pwd.getpwall()} else "nobody"


def as_postgres(program, *arguments):
    owner = ["runuser", "-u", postgres_owner(), "--"] if postgres_owner() else []
    subprocess.run([*owner, postgres_bin()[0] / program, *arguments], check=True, capture_output=True, cwd="/")


def initialized(directory):
    """Makes a PostgreSQL that each page copies, since making one takes seconds."""
    Path(directory).chmod(0o755)
    if postgres_owner():
        shutil.chown(directory, postgres_owner())
    as_postgres("initdb", "-D", f"{directory}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")


def needs_postgres(path):
    return "127.0.0.1:5432" in (ROOT / path).read_text()


def kept_settings(languages):
    """Where the toolchains keep what script/test has fetched; a page has a home of its own."""
    if "go" not in languages or not shutil.which("go"):
        return {}
    names = ["GOMODCACHE", "GOCACHE"]
    found = subprocess.run(["go", "env", *names], capture_output=True, text=True, check=True).stdout.split("\n")
    return dict(zip(names, found)) | {"GOPROXY": "off", "GOFLAGS": "-mod=mod"}


def start_postgres(directory):
    """A PostgreSQL with the port, the superuser and the trust that a page expects of 127.0.0.1:5432."""
    shutil.copytree(os.environ["BOOK_POSTGRES"], directory)
    if postgres_owner():
        subprocess.run(["chown", "-R", postgres_owner(), directory], check=True)
    options = f"-k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
    as_postgres("pg_ctl", "-D", f"{directory}/data", "-w", "-l", f"{directory}/log", "start", "-o", options)


def with_stand_ins(text, directory):
    """A configuration with files of a directory in place of those of /etc/grantd, which are not here."""
    for name in sorted(set(re.findall(r"/etc/grantd/([\w.-]+)", text))):
        directory.mkdir(exist_ok=True)
        if name.endswith(".pem") and not (directory / name).exists():
            key = directory / name.replace(".pem", ".key")
            extensions = [] if "ca" in name else ["-addext", "basicConstraints=critical,CA:FALSE"]
            command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"]
            command += ["-subj", "/CN=stand-in", *extensions, "-keyout", str(key), "-out", str(directory / name)]
            subprocess.run(command, check=True, capture_output=True)
        elif name.startswith("sealing"):
            (directory / name).write_text(base64.b64encode(os.urandom(32)).decode())
        elif name.startswith("database"):
            (directory / name).write_text("postgres://grantd_app:PASSWORD@127.0.0.1/grantd\n")
    return text.replace("/etc/grantd", str(directory))
