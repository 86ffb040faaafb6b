"""Node.js as client and as resource server: openid-client, oauth4webapi, jose, simple-oauth2, express-oauth2-jwt-bearer,
and passport-jwt with jwks-rsa, unmodified.

Usage: node_clients.py PATH_OF_GRANTD DIRECTORY. The directory has clients.mjs and servers.mjs with their packages beside them.
"""

import json
import subprocess
import sys

from room import check, on_both_databases

API = "https://api.example"
OTHER = "https://other.example"
PLAIN = "https://plain.example"


def node(room, *arguments, input=None):
    environment = {**room.environment, "NODE_EXTRA_CA_CERTS": room.file("ca.pem")}
    done = subprocess.run(
        ["node", "clients.mjs", *arguments], cwd=sys.argv[2], env=environment, input=input, text=True, capture_output=True
    )
    if done.returncode != 0:
        sys.exit(f"clients.mjs {arguments}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def story(room):
    create = (
        "grantd client create %s --scope 'api:read api:write plain:read' --default-scope api:read "
        f"--resource {API} --resource {OTHER} --resource {PLAIN} --no-secret"
    )
    keys = node(room, "keys")
    room.sh(f"grantd resource create {API} --scope 'api:read api:write'")
    room.sh(f"grantd resource create {OTHER} --scope api:read")
    room.sh(f"grantd resource create {PLAIN} --scope plain:read --token-typ JWT")
    for client_id in ["secret", "api", *keys]:
        room.sh(create % client_id)
    private = {"d", "p", "q", "dp", "dq", "qi"}
    for client_id, key in keys.items():
        public = {name: value for name, value in key.items() if name not in private}
        room.sh(f"grantd client key add {client_id} --jwk -", input=json.dumps(public))
    room.sh(f"grantd resource set {API} --introspect-by api")
    world = {
        "issuer": room.issuer,
        "api": API,
        "other": OTHER,
        "plain": PLAIN,
        "secret": room.secret("secret"),
        "apiSecret": room.secret("api"),
        "keys": keys,
    }
    with room.serving():
        told = node(room, "check", input=json.dumps(world))
    for _ in range(told["passed"]):
        check(True, "")
    for failure in told["failures"]:
        check(False, failure)


on_both_databases(story)
