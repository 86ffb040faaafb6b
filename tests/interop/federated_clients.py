"""Trusted issuers whose tokens are made by libraries that share no code with grantd: joserfc, and jose in Node.js.

Usage: federated_clients.py PATH_OF_GRANTD [DIRECTORY]. The directory has issuer.mjs with its packages beside it; without it,
joserfc alone is the issuer. The keys are served over TLS by Python.
"""

import base64
import collections
import contextlib
import http.server
import json
import ssl
import subprocess
import sys
import threading
import time

import requests
from joserfc import jwk, jws
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from room import check, free_ports, on_both_databases, same

API = "https://api.example.com"
ALGORITHMS = ["RS256", "ES256", "EdDSA", "PS256"]
BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PRIVATE = {"d", "p", "q", "dp", "dq", "qi"}
LIFETIME = 600


class Joserfc:
    """The issuer in Python."""

    name = "joserfc"

    def __init__(self):
        # The check of an RSA key takes longer than the signature.
        self.imported = {}

    def keys(self):
        made = {}
        for alg in ALGORITHMS:
            kind, size = {"ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}.get(alg, ("RSA", 2048))
            made[alg] = jwk.generate_key(kind, size, {"alg": alg, "kid": alg.lower()}).as_dict(private=True)
        return made

    def sign(self, orders):
        def one(order):
            key, header = order["key"], order["header"]
            text = json.dumps(key)
            if text not in self.imported:
                self.imported[text] = jwk.import_key(key, key["kty"])
            claims = json.dumps(order["claims"])
            return jws.serialize_compact(header, claims, self.imported[text], algorithms=[header["alg"]])
        return [one(order) for order in orders]


class Jose:
    """The issuer in Node.js."""

    name = "jose"

    def node(self, command, input=None):
        done = subprocess.run(
            ["node", "issuer.mjs", command], cwd=sys.argv[2], input=input, text=True, capture_output=True, check=True
        )
        return json.loads(done.stdout)

    def keys(self):
        return self.node("keys")

    def sign(self, orders):
        return self.node("sign", json.dumps(orders))


LIBRARIES = [Joserfc(), *([Jose()] if len(sys.argv) > 2 else [])]
KEYS = {library.name: library.keys() for library in LIBRARIES}
# Keys that are no issuer's own: those of the other library, since RSA keys take their time.
STRANGERS = {"joserfc": KEYS.get("jose") or LIBRARIES[0].keys(), "jose": KEYS["joserfc"]}


class Host:
    """Serves documents over TLS, with the certificate of a room, and counts who asks for which."""

    def __init__(self, room):
        self.documents, self.asked, host = {}, collections.Counter(), self
        [port] = free_ports(1)
        self.url = f"https://localhost:{port}"

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                host.asked[self.path] += 1
                document = host.documents.get(self.path)
                body = json.dumps(document).encode()
                self.send_response(404 if document is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(room.file("server.pem"), room.file("server.key"))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)

    @contextlib.contextmanager
    def serving(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            self.server.shutdown()
            self.server.server_close()


class Platforms:
    """The issuers of one library: GitHub, a cluster of Kubernetes, and a trust domain with SPIRE."""

    def __init__(self, room, host, library):
        self.room, self.library, name = room, library, library.name
        self.github, self.cluster = f"{host.url}/{name}/github", f"{host.url}/{name}/cluster"
        self.domain, self.bundle = f"spiffe://{name}.example", f"/{name}/bundle"
        self.keys = KEYS[name]
        public = {alg: {n: v for n, v in key.items() if n not in PRIVATE} for alg, key in self.keys.items()}
        for issuer in self.github, self.cluster:
            path = issuer.removeprefix(host.url)
            host.documents[f"{path}/.well-known/openid-configuration"] = {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
            host.documents[f"{path}/jwks"] = {"keys": [{**key, "use": "sig"} for key in public.values()]}
        host.documents[self.bundle] = {
            "spiffe_sequence": 1, "keys": [{**key, "use": "jwt-svid"} for key in public.values()],
        }
        self.register(host)

    def register(self, host):
        name = self.library.name
        rules = {
            "github": f"--issuer {self.github} --subject 'repo:acme@4711/app@815:*' --claim repository_id=815 "
                      "--claim repository_owner_id=4711 --claim ref=refs/heads/main",
            "pod": f"--issuer {self.cluster} --subject system:serviceaccount:pay:billing "
                   """--claim-json 'kubernetes.io={"namespace":"pay"}'""",
            "workload": f"--issuer {self.domain} --subject '{self.domain}/ns/pay/*'",
        }
        self.room.sh(f"""
grantd trusted-issuer create {self.github} --kind github --ca-file ca.pem
grantd trusted-issuer create {self.cluster} --kind kubernetes
grantd trusted-issuer create {self.domain} --kind spiffe --bundle-uri {host.url}{self.bundle}
""" + "".join(f"""
grantd client create {name}-{client} --scope 'read write' --default-scope read --resource {API} --no-secret
grantd client set {name}-{client} --grant-types "client_credentials {GRANT}"
grantd client federation add {name}-{client} {rule}
""" for client, rule in rules.items()))

    def job(self, **changes):
        """The claims of a job of GitHub Actions, with ids in its `sub` as since July 2026."""
        self.jobs = getattr(self, "jobs", 0) + 1
        return self.claims({
            "iss": self.github, "sub": "repo:acme@4711/app@815:ref:refs/heads/main", "aud": self.room.issuer,
            "repository": "acme/app", "repository_id": "815", "repository_owner": "acme", "repository_owner_id": "4711",
            "ref": "refs/heads/main", "ref_protected": "true", "event_name": "push", "run_id": "1658821493",
            "job_workflow_ref": "acme/app/.github/workflows/deploy.yml@refs/heads/main", "jti": f"job-{self.jobs}",
        }, changes)

    def pod(self, **changes):
        """The claims of a projected token of a service account."""
        account = {
            "namespace": "pay", "serviceaccount": {"name": "billing", "uid": "9a4c"}, "pod": {"name": "b-0", "uid": "77f"},
        }
        return self.claims({
            "iss": self.cluster, "sub": "system:serviceaccount:pay:billing", "aud": [self.room.issuer],
            "kubernetes.io": account,
        }, changes)

    def svid(self, **changes):
        """The claims of a JWT-SVID by SPIRE."""
        return self.claims({"sub": f"{self.domain}/ns/pay/sa/billing", "aud": [self.room.issuer]}, changes)

    def claims(self, claims, changes):
        now = int(time.time())
        claims = {**claims, "iat": now, "nbf": now, "exp": now + LIFETIME, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def order(self, claims, alg, key=None, **header):
        """What the library has to sign."""
        key = key or self.keys[alg]
        header = {"alg": alg, "kid": self.keys.get(alg, key)["kid"], "typ": "JWT", **header}
        return {"key": key, "claims": claims, "header": header}

    def right(self):
        """Tokens, with the client of each, its door, and how often it works."""
        for alg in ALGORITHMS:
            for door in "authentication", "grant":
                yield "github", door, 1, self.order(self.job(), alg)
                yield "pod", door, 2, self.order(self.pod(), alg)
            yield "workload", "svid", 2, self.order(self.svid(), alg)
        yield "github", "grant", 1, self.order(self.job(aud=f"{self.room.issuer}/token"), "RS256")
        yield "pod", "authentication", 2, self.order(self.pod(), "ES256", typ="JOSE")
        yield "workload", "svid", 2, self.order(self.svid(iss="https://anything.example", nbf=None, iat=None), "ES256")

    def wrong(self):
        """Tokens that are refused, with the reason in the log, and their door."""
        stranger, now, issuer = STRANGERS[self.library.name], int(time.time()), self.room.issuer
        for alg in ALGORITHMS:
            yield "jws_signature", "authentication", self.order(self.job(), alg, key=stranger[alg])
        # The public key as the key of a MAC.
        public = self.keys["RS256"]["n"]
        mac = {"kty": "oct", "k": public, "kid": "rs256"}
        for door, job, pod in [("authentication", self.job, self.pod), ("grant", self.job, self.pod)]:
            yield "jws_alg", door, self.order(job(), "HS256", key=mac)
            yield "jws_signature", door, self.order(job(), "RS256", key=stranger["RS256"])
            yield "jws_key", door, self.order(pod(), "RS256", kid="unknown")
            yield "jws_typ", door, self.order(job(), "RS256", typ="at+jwt")
            yield "federation_audience", door, self.order(job(aud="sts.example.com"), "RS256")
            yield "federation_audience", door, self.order(pod(aud=[issuer, "https://other.example"]), "RS256")
            yield "assertion_expired", door, self.order(job(iat=now - 900, nbf=now - 900, exp=now - 300), "RS256")
            yield "assertion_incomplete", door, self.order(job(exp=None), "RS256")
            yield "assertion_incomplete", door, self.order(job(jti=None), "RS256")
            yield "federation_lifetime", door, self.order(pod(exp=now + 3700), "RS256")
            yield "assertion_early", door, self.order(pod(iat=now + 3600, nbf=None, exp=now + 4000), "RS256")
            yield "federation_issuer", door, self.order(job(iss=f"{self.github}/"), "RS256")
            yield "federation_issuer", door, self.order(job(iss=self.github.upper()), "RS256")
            yield "federation_claims", door, self.order(job(repository_id="816"), "RS256")
            yield "federation_claims", door, self.order(job(ref="refs/heads/other"), "RS256")
            yield "federation_subject", door, self.order(job(sub="repo:acme-evil@1/app@815:ref:refs/heads/main"), "RS256")
            yield "federation_subject", door, self.order(pod(sub=f"{self.library.name}-pod"), "RS256")
        yield "federation_subject", "svid", self.order(self.svid(sub=f"{self.domain}/ns/payroll/sa/x"), "ES256")
        yield "federation_issuer", "svid", self.order(self.svid(sub="spiffe://evil.example/ns/pay/sa/x"), "ES256")
        yield "jws_signature", "svid", self.order(self.svid(), "ES256", key=stranger["ES256"])
        yield "jws_typ", "svid", self.order(self.svid(), "ES256", typ="at+jwt")
        yield "federation_audience", "svid", self.order(self.svid(aud=[issuer, issuer]), "ES256")


def session_of(room):
    session = requests.Session()
    session.verify = room.file("ca.pem")
    session.trust_env = False
    # A busy machine refuses some requests for that alone, and they may be sent again.
    session.mount("https://", HTTPAdapter(max_retries=Retry(5, status_forcelist=[503], allowed_methods=None)))
    return session


def ask(session, room, door, token):
    form = {
        "authentication": {"grant_type": "client_credentials", "client_assertion_type": BEARER, "client_assertion": token},
        "svid": {"grant_type": "client_credentials", "client_assertion_type": SPIFFE, "client_assertion": token},
        "grant": {"grant_type": GRANT, "assertion": token},
    }[door]
    return session.post(f"{room.issuer}/token", data=form)


def subject_of(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["sub"]


REFUSALS = {"authentication": (401, "invalid_client"), "svid": (401, "invalid_client"), "grant": (400, "invalid_grant")}


def accepted(session, platforms):
    name, room = platforms.library.name, platforms.room
    orders = list(platforms.right())
    for (client, door, uses, order), token in zip(orders, platforms.library.sign([order for *_, order in orders])):
        what = f"{name}, {client} by {order['header']['alg']}, {door}"
        for use in range(2):
            answer = ask(session, room, door, token)
            if use < uses:
                same(answer.status_code, 200, f"{what}: {answer.text}")
                same(subject_of(answer.json()["access_token"]), f"{name}-{client}", what)
            else:
                same((answer.status_code, answer.json()["error"]), REFUSALS[door], f"{what}, again")


def refused(session, platforms):
    """Each refusal has the same answer as the others of its door, and a reason in the log."""
    name, room = platforms.library.name, platforms.room
    orders = list(platforms.wrong())
    faces = collections.defaultdict(set)
    expected = {}
    for (reason, door, order), token in zip(orders, platforms.library.sign([order for *_, order in orders])):
        answer = ask(session, room, door, token)
        same((answer.status_code, answer.json()["error"]), REFUSALS[door], f"{name}, {reason} by {door}")
        faces[door].add(answer.text)
        expected[answer.headers["x-request-id"]] = reason
    for door, answers in faces.items():
        same(len(answers), 1, f"{name}: the answers at {door}: {answers}")
    found = {}
    for _ in range(200):
        lines = [json.loads(line) for line in room.log.read_text().splitlines()]
        found = {line["request_id"]: line["reason"] for line in lines if line.get("event") == "token.refused"}
        if expected.keys() <= found.keys():
            break
        time.sleep(0.02)
    for request_id, reason in expected.items():
        same(found.get(request_id), reason, f"{name}: the reason in the log")


def story(room):
    room.environment["GRANTD__CLIENTS__JWKS_URI_ALLOW"] = "localhost"
    room.environment["GRANTD__CLIENTS__JWKS_URI_CA_FILE"] = room.file("ca.pem")
    room.environment["GRANTD__LOG__FORMAT"] = "json"
    host = Host(room)
    with host.serving():
        room.sh(f"grantd resource create {API} --scope 'read write'")
        all_platforms = [Platforms(room, host, library) for library in LIBRARIES]
        host.asked.clear()
        with room.serving():
            session = session_of(room)
            for platforms in all_platforms:
                accepted(session, platforms)
                refused(session, platforms)
            grants = session.get(f"{room.issuer}/.well-known/oauth-authorization-server").json()["grant_types_supported"]
            check(GRANT in grants, f"the metadata lists the grant: {grants}")
    # However many tokens and unknown key ids came, each document was fetched once in half a minute.
    for path, count in host.asked.items():
        check(count <= 2, f"{path} was fetched {count} times")


on_both_databases(story)
