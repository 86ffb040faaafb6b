"""Go as client and as resource server: golang.org/x/oauth2, go-oidc and lestrrat's jwx, unmodified.

Usage: go_clients.py PATH_OF_GRANTD PROGRAM. The program is built from tests/interop/go.
"""

import json
import subprocess
import sys

from room import check, on_both_databases

API = "https://api.example"


def story(room):
    room.sh(f"grantd resource create {API} --scope api:read")
    room.sh(f"grantd client create secret --scope api:read --default-scope api:read --resource {API} --no-secret")
    world = {"issuer": room.issuer, "api": API, "secret": room.secret("secret"), "ca": room.file("ca.pem")}
    with room.serving():
        done = subprocess.run([sys.argv[2]], input=json.dumps(world), text=True, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{sys.argv[2]}\n{done.stdout}{done.stderr}")
    told = json.loads(done.stdout)
    for _ in range(told["passed"]):
        check(True, "")
    for failure in told["failures"] or []:
        check(False, failure)


on_both_databases(story)
