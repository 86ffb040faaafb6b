"""Go as client and as resource server: golang.org/x/oauth2, go-oidc, lestrrat's jwx and zitadel/oidc, unmodified.

Usage: go_clients.py PATH_OF_GRANTD PROGRAM. The program is built from tests/interop/go.
"""

import json
import subprocess
import sys

from room import check, on_both_databases, same

API = "https://api.example"


def story(room):
    room.sh(f"grantd resource create {API} --scope api:read")
    room.sh("openssl genpkey -algorithm ed25519 -out signer.key && openssl pkey -in signer.key -pubout -out signer.pub")
    signers = {"hour-signer": "--assertion-lifetime 1h", "default-signer": ""}
    for client_id, more in {"secret": "", "api": "", **signers}.items():
        flags = f"--scope api:read --default-scope api:read --resource {API} --no-secret {more}"
        room.sh(f"grantd client create {client_id} {flags}")
    for client_id in signers:
        room.sh(f"grantd client key add {client_id} --jwk signer.pub")
    room.sh(f"grantd resource set {API} --introspect-by api --introspect-by hour-signer --introspect-by default-signer")
    world = {
        "issuer": room.issuer,
        "api": API,
        "secret": room.secret("secret"),
        "apiSecret": room.secret("api"),
        "key": (room.directory / "signer.key").read_text(),
        "ca": room.file("ca.pem"),
    }
    with room.serving():
        done = subprocess.run([sys.argv[2]], input=json.dumps(world), text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{sys.argv[2]}\n{done.stdout}{done.stderr}")
    told = json.loads(done.stdout)
    for _ in range(told["passed"]):
        check(True, "")
    for failure in told["failures"] or []:
        check(False, failure)
    # zitadel/oidc: a token, then assertions for another audience, and twice one that lives for an hour.
    lines = [json.loads(line) for line in room.log.read_text().splitlines()]
    reasons = [line["reason"] for line in lines if line.get("client_id") == "default-signer"]
    same(reasons, ["ok", "assertion_audience", "assertion_lifetime", "assertion_lifetime"], "the log")


on_both_databases(story)
