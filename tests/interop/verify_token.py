"""A resource server's check of a token (RFC 9068 section 4), with a JOSE implementation that is not ours.

Usage: verify_token.py PATH_OF_GRANTD. Starts `grantd dev` on free ports with a resource per algorithm, asks for tokens
with curl, and verifies each against the published key set. Ends the server it started.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

ALGORITHMS = ["ES256", "EdDSA", "PS256", "RS256"]
failures = 0
checks = 0


def check(ok, what):
    global checks, failures
    checks += 1
    failures += not ok
    if not ok:
        print(f"FAILED: {what}")


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def token(endpoint, client_id, secret, *form):
    """Asks with curl, as a shell script would: Basic credentials unencoded, the form encoded."""
    fields = ["grant_type=client_credentials", *form]
    command = ["curl", "-sS", "--user", f"{client_id}:{secret}"]
    for field in fields:
        command += ["--data-urlencode", field]
    return json.loads(subprocess.run([*command, endpoint], check=True, capture_output=True).stdout)


def verify(encoded, keys, issuer, audience, algorithm):
    """What RFC 9068 section 4 asks a resource server to check."""
    decoded = jwt.decode(encoded, keys, algorithms=[algorithm])
    if decoded.header["typ"].lower() not in ("at+jwt", "application/at+jwt"):
        raise JoseError("typ")
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        sub={"essential": True},
        client_id={"essential": True},
        iat={"essential": True},
        jti={"essential": True},
    ).validate(decoded.claims)
    return decoded


def refused(call):
    try:
        call()
    except (JoseError, ValueError):
        return True
    return False


def main(grantd):
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            "PATH": os.environ["PATH"],
            "GRANTD__DATA_DIR": directory,
            "GRANTD__SERVER__LISTEN": "127.0.0.1:0",
            "GRANTD__ADMIN__LISTEN": "127.0.0.1:0",
        }
        server = subprocess.Popen([grantd, "dev", "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            demo = json.loads(server.stdout.readline())

            def admin(*arguments):
                return subprocess.run([grantd, *arguments], env=environment, check=True, capture_output=True, text=True).stdout

            resources = {}
            for algorithm in ALGORITHMS:
                resources[algorithm] = f"https://{algorithm.lower()}.example"
                admin("resource", "create", resources[algorithm], "--scope", "read write", "--alg", algorithm)
            flags = [flag for uri in resources.values() for flag in ("--resource", uri)]
            created = json.loads(admin("client", "create", "service", "--scope", "read write", *flags, "--json"))

            issuer = demo["issuer"]
            metadata = fetch(issuer + "/.well-known/oauth-authorization-server")
            check(metadata["issuer"] == issuer and metadata["token_endpoint"] == demo["token_endpoint"], "metadata")

            answer = token(demo["token_endpoint"], demo["client_id"], demo["client_secret"], "scope=read:data write:data")
            keys = KeySet.import_key_set(fetch(metadata["jwks_uri"]))
            decoded = verify(answer["access_token"], keys, issuer, issuer, "ES256")
            check(decoded.claims["scope"] == answer["scope"] == "read:data write:data", "demo scope")

            for algorithm, uri in resources.items():
                for _ in range(100):
                    answer = token(metadata["token_endpoint"], "service", created["client_secret"], "scope=read", f"resource={uri}")
                    if "access_token" in answer:
                        break
                    time.sleep(0.1)
                keys = KeySet.import_key_set(fetch(metadata["jwks_uri"]))
                encoded = answer["access_token"]
                decoded = verify(encoded, keys, issuer, uri, algorithm)
                check(decoded.header["alg"] == algorithm and decoded.claims["client_id"] == "service", f"{algorithm} token")
                key = next(key for key in keys.keys if key.kid == decoded.header["kid"])
                check(key.thumbprint() == key.kid, f"{algorithm}: kid is the RFC 7638 thumbprint")
                check(not key.is_private, f"{algorithm}: the key set is public")
                head, claims, signature = encoded.split(".")
                flipped = signature[:-6] + ("A" if signature[-6] != "A" else "B") + signature[-5:]
                check(refused(lambda: verify(f"{head}.{claims}.{flipped}", keys, issuer, uri, algorithm)), f"{algorithm}: altered signature")
                check(refused(lambda: verify(encoded, keys, issuer, "https://other.example", algorithm)), f"{algorithm}: other audience")
                check(refused(lambda: verify(encoded, keys, "https://other.example", uri, algorithm)), f"{algorithm}: other issuer")
        finally:
            server.terminate()
            check(server.wait(10) == 0, "the server stops with exit code 0")
    print(f"{checks - failures} passed, {failures} failed")
    return failures


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1]) else 0)
