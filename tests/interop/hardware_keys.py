"""Signing keys in a PKCS #11 module: SoftHSM, and a module that hands on to it and fails when it is told to. Tokens are verified
by joserfc.

Usage: hardware_keys.py PATH_OF_GRANTD PATH_OF_GRANTD_WITHOUT_PKCS11. The first is built with `--features pkcs11`. Needs SoftHSM,
pkcs11-tool of OpenSC and a C compiler.
"""

import asyncio
import base64
import concurrent.futures
import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

import requests
from joserfc import jwk, jws

from room import check, on_both_databases, same

WITHOUT_PKCS11 = str(Path(sys.argv[2]).resolve())
HERE = Path(__file__).resolve().parent
SOFTHSM = next(str(path) for path in sorted(Path("/usr/lib").glob("**/libsofthsm2.so")))
KINDS = {"ES256": "EC:prime256v1", "EdDSA": "EC:edwards25519", "PS256": "rsa:2048", "RS256": "rsa:2048"}


class Hardware:
    """SoftHSM with one token, and the module that can be told to fail."""

    def __init__(self, room):
        self.room = room
        self.mode, self.logins = Path(room.file("mode")), Path(room.file("logins"))
        self.mode.write_text("work")
        Path(room.file("tokens")).mkdir()
        Path(room.file("softhsm2.conf")).write_text(
            f"directories.tokendir = {room.file('tokens')}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        room.environment |= {
            "SOFTHSM2_CONF": room.file("softhsm2.conf"),
            "GRANTD_TEST_MODULE_REAL": SOFTHSM,
            "GRANTD_TEST_MODULE_MODE": str(self.mode),
            "GRANTD_TEST_MODULE_LOGINS": str(self.logins),
            "GRANTD__KEYS__PKCS11_MODULE": room.file("module.so"),
            "GRANTD__KEYS__PKCS11_PIN_FILE": "pin",
        }
        Path(room.file("pin")).write_text("2222\n")
        os.chmod(room.file("pin"), 0o600)
        room.sh(f"cc -shared -fPIC -o module.so {HERE}/pkcs11/faulty_module.c -ldl")
        room.sh("softhsm2-util --init-token --free --label grantd --so-pin 1111 --pin 2222")
        for number, alg in enumerate(KINDS, 1):
            self.generate(alg, alg, number)

    def generate(self, alg, label, number, *options):
        self.tool("--keypairgen", "--key-type", KINDS[alg], "--label", label, "--id", f"{number:02x}", *options)

    def tool(self, *arguments):
        command = ["pkcs11-tool", "--module", SOFTHSM, "--login", "--pin", "2222", "--token-label", "grantd", *arguments]
        done = subprocess.run(command, env=self.room.environment, capture_output=True, text=True)
        same(done.returncode, 0, f"{' '.join(arguments)}: {done.stderr}")

    @contextlib.contextmanager
    def failing(self, mode):
        self.mode.write_text(mode)
        try:
            yield
        finally:
            self.mode.write_text("work")


def grantd(room, *arguments, program="grantd"):
    """Runs a command, and returns its exit code and what it printed."""
    done = subprocess.run(
        [program, *arguments], cwd=room.directory, env=room.environment, text=True, capture_output=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def attach(room, label, *options):
    return json.loads(room.sh(f"grantd key attach --pkcs11 'pkcs11:token=grantd;object={label}' {' '.join(options)} --json"))


def refused(room, expected, texts, *arguments, **how):
    """A command ends with an exit code, and says each of the texts."""
    code, said = grantd(room, *arguments, **how)
    same(code, expected, f"exit code of {' '.join(arguments)}: {said}")
    for text in texts:
        check(text in said, f"{' '.join(arguments)} says {text}: {said}")


class Caller:
    """The client, and what it reads of the server."""

    def __init__(self, room, secret):
        self.room, self.secret = room, secret
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = room.file("ca.pem")

    def ask(self, alg="ES256"):
        form = {"grant_type": "client_credentials", "scope": "read", "resource": f"https://api.example.com/{alg}"}
        return self.session.post(f"{self.room.issuer}/token", data=form, auth=("batch", self.secret), timeout=10)

    def token(self, alg="ES256"):
        answer = self.ask(alg)
        same(answer.status_code, 200, f"a token by {alg}: {answer.text}")
        return answer.json()["access_token"]

    def verified(self, token, alg):
        keys = self.session.get(f"{self.room.issuer}/jwks", timeout=10).json()
        read = jws.deserialize_compact(token, jwk.KeySet.import_key_set(keys), algorithms=[alg])
        same(read.headers()["alg"], alg, "the algorithm of a token")
        return json.loads(read.payload)

    def unavailable(self, answer, what):
        error = answer.json().get("error")
        same((answer.status_code, error), (503, "temporarily_unavailable"), what)

    def until(self, what, condition, seconds=15):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return check(False, f"within {seconds} s: {what}")
            time.sleep(0.1)
        check(True, what)

    def events(self, name):
        lines = [json.loads(line) for line in self.room.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]


def keys_that_never_leave(room):
    hardware = Hardware(room)
    for alg in KINDS:
        same(attach(room, alg, "--alg", alg)["alg"], alg, "the algorithm of an attached key")
        room.sh(f"grantd resource create https://api.example.com/{alg} --scope read --alg {alg} --status-list")
    resources = " ".join(f"--resource https://api.example.com/{alg}" for alg in KINDS)
    secret = json.loads(room.sh(f"grantd client create batch --scope read {resources} --json"))["client_secret"]
    room.sh("grantd resource set https://api.example.com/ES256 --introspect-by batch")
    caller = Caller(room, secret)
    with room.serving("log.format=json", "keys.rotate_every=1h"):
        signs(caller)
        fails(caller, hardware)
        stalls(caller, hardware)
    keys = json.loads(room.sh("grantd key list --json"))
    same({key["alg"]: key.get("pkcs11") for key in keys}, {alg: f"pkcs11:token=grantd;object={alg}" for alg in KINDS}, "the keys")
    same(len(keys), len(KINDS), "no key in memory was made beside them")
    administration(room, hardware, keys)
    a_wrong_pin_is_tried_once(room, hardware, caller)


def signs(caller):
    for alg in KINDS:
        claims = caller.verified(caller.token(alg), alg)
        same((claims["client_id"], claims["scope"]), ("batch", "read"), "the claims of a token")
    issuer, session = caller.room.issuer, caller.session
    listed = session.get(caller.verified(caller.token(), "ES256")["status"]["status_list"]["uri"], timeout=10)
    same(caller.verified(listed.text, "ES256")["iss"], issuer, "the issuer of the status list")
    asked = session.post(
        f"{issuer}/introspect",
        data={"token": caller.token()},
        auth=("batch", caller.secret),
        headers={"accept": "application/token-introspection+jwt"},
        timeout=10,
    )
    same(caller.verified(asked.text, "ES256")["token_introspection"]["active"], True, "a signed introspection response")


def fails(caller, hardware):
    """A fault is 503 and an alarm, for as long as it lasts, and everything that needs no signature works."""
    token, admin = caller.token(), caller.room.sh("grantd config print --json")
    admin = f"http://{json.loads(admin)['admin']['listen']}"
    for mode in "fail", "wrong":
        before, recovered = len(caller.events("signing.trouble")), len(caller.events("signing.recovered"))
        with hardware.failing(mode):
            for _ in range(3):
                caller.unavailable(caller.ask(), f"a token while the module answers `{mode}`")
            caller.verified(token, "ES256")
            trouble = requests.get(f"{admin}/readyz", timeout=10).json()
            found = trouble["signing_module_trouble"] or {}
            check(found.get("kid") in {key["kid"] for key in trouble["signing_keys"]}, f"readyz names the key: {found}")
            check(DEVICE[mode] in found.get("reason", ""), f"readyz says why the module does not sign: {found}")
            said = caller.room.sh("grantd explain --reason signing_module_unavailable")
            check("signing_module_unavailable" in said, f"explain tells the refusals: {said}")
            same(len(caller.events("signing.trouble")) - before, 1, "events of one trouble")
            check(DEVICE[mode] in str(caller.events("signing.trouble")[-1]), "the event has the reason")
        caller.until("tokens are signed again", lambda: caller.ask().status_code == 200)
        trouble = lambda: requests.get(f"{admin}/readyz", timeout=10).json()["signing_module_trouble"]  # noqa: E731
        caller.until("/readyz says that the trouble is over", lambda: trouble() is None)
        caller.until("the log says so", lambda: len(caller.events("signing.recovered")) == recovered + 1)


def stalls(caller, hardware):
    """A module that does not answer holds up no request for longer than two seconds, and none that needs no signature."""
    with hardware.failing("stall"), concurrent.futures.ThreadPoolExecutor(60) as pool:
        def timed():
            started = time.monotonic()
            answer = caller.ask()
            return answer, time.monotonic() - started
        asked = [pool.submit(timed) for _ in range(600)]
        time.sleep(0.5)
        started = time.monotonic()
        keys = caller.session.get(f"{caller.room.issuer}/jwks", timeout=10)
        same(keys.status_code, 200, "the key set while the module stalls")
        check(time.monotonic() - started < 1, "the key set comes at once")
        answers = [one.result() for one in asked]
        for answer, _ in answers:
            caller.unavailable(answer, "a token while the module stalls")
        check(max(took for _, took in answers) < 4, f"the longest wait: {max(took for _, took in answers)} s")
        crowd(caller)
    caller.until("tokens are signed again", lambda: caller.ask().status_code == 200)


def crowd(caller):
    """More requests at once than may wait for the module: those over are refused at once."""
    async def one():
        tls = ssl.create_default_context(cafile=caller.room.file("ca.pem"))
        reader, writer = await asyncio.open_connection("localhost", caller.room.port, ssl=tls)
        await everyone.wait()
        body = "grant_type=client_credentials&scope=read&resource=https://api.example.com/ES256"
        basic = base64.b64encode(f"batch:{caller.secret}".encode()).decode()
        head = f"POST /token HTTP/1.1\r\nHost: localhost:{caller.room.port}\r\nAuthorization: Basic {basic}\r\nConnection: close\r\n"
        head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        started = time.monotonic()
        writer.write((head + body).encode())
        answer = (await reader.read()).decode()
        writer.close()
        return answer, time.monotonic() - started

    async def all_of_them():
        asked = [asyncio.create_task(one()) for _ in range(620)]
        await asyncio.sleep(5)
        everyone.set()
        return await asyncio.gather(*asked)

    everyone = asyncio.Event()
    answers = asyncio.run(all_of_them())
    at_once = [took for answer, took in answers if "retry-after: 1\r\n" in answer]
    check(all(answer.startswith("HTTP/1.1 503 ") for answer, _ in answers), "each of a crowd gets 503 while the module stalls")
    check(len(at_once) >= 50 and max(at_once) < 1.5, f"those beyond the queue are refused at once: {len(at_once)}, {max(at_once, default=0)} s")


def administration(room, hardware, keys):
    kid = next(key["kid"] for key in keys if key["alg"] == "ES256")
    refused(room, 1, [kid, "PKCS #11", "grantd key attach"], "key", "rotate", "--alg", "ES256")
    refused(room, 1, [kid, "PKCS #11", "grantd key attach"], "key", "remove", kid, "--now")
    room.sh("chmod 600 sealing.key")
    refused(room, 0, ["no faults"], "doctor")
    for uri, text in [
        ("pkcs11:token=other;object=ES256", "`grantd`"),
        ("pkcs11:token=grantd;object=none", "no private key of that name"),
    ]:
        refused(room, 1, [text], "key", "attach", "--pkcs11", uri)
    with_pin = ["key", "attach", "--pkcs11", "pkcs11:token=grantd;object=ES256?pin-value=2222"]
    refused(room, 2, ["keys.pkcs11_pin_file"], *with_pin)
    check("2222" not in grantd(room, *with_pin)[1], "the PIN is not repeated")
    refused(room, 1, ["EdDSA"], "key", "attach", "--pkcs11", "pkcs11:token=grantd;object=ES256", "--alg", "EdDSA")
    # Another sealing key: the names of keys are sealed as keys are.
    room.sh("chmod 600 sealing.key; cp sealing.key before.key; head -c 32 /dev/urandom | base64 > sealing.key")
    room.environment["GRANTD__KEYS__SEALING_KEY_PREVIOUS_FILE"] = "before.key"
    moved = json.loads(room.sh("grantd key reseal --json"))
    same(moved["moved"]["signing_keys"], len(KINDS), "keys that were sealed anew")
    del room.environment["GRANTD__KEYS__SEALING_KEY_PREVIOUS_FILE"]
    refused(room, 0, ["no faults"], "doctor")
    # A rotation within the module: the next key is published, and signs later.
    hardware.generate("ES256", "next", 9, "--extractable")
    following = attach(room, "next")
    room.sh(f"grantd key remove {following['kid']} --now")
    told = grantd(room, "key", "attach", "--pkcs11", "pkcs11:token=grantd;object=next")[1]
    check("CKA_EXTRACTABLE" in told, f"a key that the module lets out is a warning: {told}")
    check(following["active_at"] > time.time() + 300, "the next key signs once every verifier has fetched it")
    refused(room, 1, ["exists"], "key", "attach", "--pkcs11", "pkcs11:token=grantd;object=next")
    room.sh(f"grantd key remove {following['kid']} --now")
    # What a server needs that has an attached key.
    module = room.environment.pop("GRANTD__KEYS__PKCS11_MODULE")
    pin = room.environment.pop("GRANTD__KEYS__PKCS11_PIN_FILE")
    refused(room, 78, [kid, "keys.pkcs11_module"], "serve")
    refused(room, 1, [kid, "keys.pkcs11_module"], "doctor")
    refused(room, 78, [kid, "--features pkcs11"], "serve", program=WITHOUT_PKCS11)
    refused(room, 78, ["keys.pkcs11_pin_file", "keys.pkcs11_module"], "config", "check", "--set", f"keys.pkcs11_pin_file={pin}")
    setting = ["--set", f"keys.pkcs11_module={module}"]
    refused(room, 78, ["keys.pkcs11_module", "built without"], "config", "check", *setting, program=WITHOUT_PKCS11)
    refused(room, 1, ["keys.pkcs11_pin_file"], "doctor", *setting)
    refused(room, 78, ["keys.pkcs11_module", "cannot be loaded"], "serve", "--set", "keys.pkcs11_module=/nonexistent.so")
    room.environment |= {"GRANTD__KEYS__PKCS11_MODULE": module, "GRANTD__KEYS__PKCS11_PIN_FILE": pin}
    check("attach" in grantd(room, "key", "--help")[1], "the help has the command")
    check("attach" not in grantd(room, "key", "--help", program=WITHOUT_PKCS11)[1], "without PKCS #11, the help lacks it")


def a_wrong_pin_is_tried_once(room, hardware, caller):
    """A token locks after a few wrong PINs, so a server that restarts or recovers must not use them up."""
    Path(room.file("pin")).write_text("9999\n")
    hardware.logins.unlink()
    with room.serving("log.format=json"):
        for _ in range(20):
            caller.unavailable(caller.ask(), "a token while the PIN is wrong")
        time.sleep(6)
        same(hardware.logins.read_text().count("login"), 1, "logins with a wrong PIN")
        check("pkcs11_pin_file" in str(caller.events("signing.trouble")[-1]), "the event names the setting")
    Path(room.file("pin")).write_text("2222\n")
    a_module_that_is_away_at_the_start(room, hardware, caller)
    with room.serving("log.format=json"):
        caller.until("the right PIN works after a restart", lambda: caller.ask().status_code == 200)
        # A key that is destroyed in the module is a fault, and no other key signs.
        hardware.tool("--delete-object", "--type", "privkey", "--label", "ES256")
        caller.until("the key is gone", lambda: caller.ask().status_code == 503)
        caller.token("PS256")
    refused(room, 1, ["no private key of that name"], "doctor")


def a_module_that_is_away_at_the_start(room, hardware, caller):
    """The server starts, publishes its keys, and signs once the module is there."""
    hardware.mode.write_text("away")
    with room.serving("log.format=json"):
        caller.unavailable(caller.ask(), "a token while the module is away")
        same(len(caller.session.get(f"{room.issuer}/jwks", timeout=10).json()["keys"]), len(KINDS), "keys while the module is away")
        hardware.mode.write_text("work")
        caller.until("tokens are signed once it is there", lambda: caller.ask().status_code == 200)


# The words of the event for each fault.
DEVICE = {"fail": "DeviceError", "wrong": "does not verify"}

on_both_databases(keys_that_never_leave)
