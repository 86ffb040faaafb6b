"""Stand-ins for the platforms whose tokens the guides use: GitHub Actions, GitLab CI, Kubernetes, SPIRE and an MCP host.

A page that names the host of a platform finds it in /etc/hosts of its own namespace, answering by TLS with documents of the
shapes that the platform has. `kubectl`, `spire-server` and `spire-agent` print what theirs print. Tokens are made by joserfc.
"""

import base64
import contextlib
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from pathlib import Path

GITHUB, GITLAB, IDP = "token.actions.githubusercontent.com", "gitlab.com", "login.example.com"
EKS, SPIRE = "oidc.eks.eu-central-1.amazonaws.com", "spire.example.org"
HOSTS = [GITHUB, GITLAB, IDP, EKS, SPIRE]
EKS_ISSUER = f"https://{EKS}/id/EXAMPLED539D4633E53DE1B716D3041E"
CLUSTER_ISSUER = "https://kubernetes.default.svc.cluster.local"
SHIMS = ["kubectl", "spire-server", "spire-agent"]
JOBS = 8099


def needed(text):
    """Whether a page needs a stand-in."""
    return any(name in text for name in [*HOSTS, *SHIMS])


def prepare(directory):
    """Makes keys, CAs and shims in a directory."""
    directory.mkdir()
    run = lambda command: subprocess.run(command, shell=True, check=True, capture_output=True, cwd=directory)
    ca = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
    run(f"openssl req {ca} -subj /CN=hosts -keyout ca.key -out ca.pem")
    run(f"openssl req {ca} -subj /O=SPIRE -addext subjectAltName=URI:spiffe://example.org -keyout spire.key -out spire.pem")
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    run("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=hosts -keyout host.key -out host.csr")
    (directory / "host.ext").write_text(f"subjectAltName={names}\n")
    run("openssl x509 -req -in host.csr -CA ca.pem -CAkey ca.key -days 30 -extfile host.ext -out host.pem")
    run("openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out platform.key")
    (directory / "bin").mkdir()
    for name in SHIMS:
        shim = directory / "bin" / name
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -B {__file__} {directory} {name} "$@"\n')
        shim.chmod(0o755)


def start(directory):
    """Serves the hosts on 127.0.0.1:443, and the request for a token of a GitHub job beside."""
    hosts = directory / "hosts"
    hosts.write_text(Path("/etc/hosts").read_text() + f"\n127.0.0.1 {' '.join(HOSTS)}\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "host.pem", directory / "host.key")
    for port, tls in (443, context), (JOBS, None):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler(Platform(directory)))
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()


def environment(directory, room):
    """The variables that a page finds: of grantd, which trusts the hosts, and of a job. Writes the token of an agent."""
    platform = Platform(directory)
    (room / "id_token").write_text(platform.agent())
    return {
        "GRANTD__CLIENTS__JWKS_URI_CA_FILE": str(directory / "ca.pem"),
        "GRANTD__CLIENTS__JWKS_URI_ALLOW": ",".join(HOSTS),
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://127.0.0.1:{JOBS}/idtoken?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner",
        "GRANTD_ID_TOKEN": platform.gitlab(),
    }


class Platform:
    """Tokens and documents of each platform, all signed by one key."""

    def __init__(self, directory):
        self.directory = directory

    def key(self):
        from joserfc.jwk import RSAKey

        return RSAKey.import_key((self.directory / "platform.key").read_text(), {"kid": "2026-11", "use": "sig"})

    def key_set(self):
        return {"keys": [self.key().as_dict(private=False) | {"alg": "RS256"}]}

    def token(self, lifetime=600, **claims):
        from joserfc import jwt

        now = int(time.time())
        claims = {"iat": now, "nbf": now, "exp": now + lifetime} | claims
        return jwt.encode({"alg": "RS256", "kid": "2026-11", "typ": "JWT"}, claims, self.key())

    def github(self, audience):
        return self.token(
            300, jti=str(uuid.uuid4()), iss=f"https://{GITHUB}", aud=audience, sub="repo:acme/app:ref:refs/heads/main",
            repository="acme/app", repository_id="74", repository_owner="acme", repository_owner_id="65",
            ref="refs/heads/main", ref_type="branch", ref_protected="true", event_name="push", run_id="8123",
            job_workflow_ref="acme/app/.github/workflows/deploy.yml@refs/heads/main", actor="octocat",
        )

    def gitlab(self):
        return self.token(
            3600, jti=str(uuid.uuid4()), iss=f"https://{GITLAB}", aud="http://127.0.0.1:8080",
            sub="project_path:acme/app:ref_type:branch:ref:main", project_id="22", namespace_id="72",
            project_path="acme/app", namespace_path="acme", ref="main", ref_type="branch", ref_protected="true",
            pipeline_source="push", environment="production", job_id="4711",
        )

    def service_account(self, namespace, name, audience, issuer):
        kubernetes = {"namespace": namespace, "serviceaccount": {"name": name, "uid": "0f9c"}, "pod": {"name": f"{name}-7d", "uid": "5e1b"}}
        claims = {"iss": issuer, "sub": f"system:serviceaccount:{namespace}:{name}", "aud": [audience], "kubernetes.io": kubernetes}
        return self.token(3600, **claims)

    def agent(self):
        return self.token(600, jti=str(uuid.uuid4()), iss=f"https://{IDP}", aud="http://127.0.0.1:8080", sub="agent-7")

    def bundle(self):
        der = subprocess.run(["openssl", "x509", "-in", self.directory / "spire.pem", "-outform", "DER"], check=True, capture_output=True).stdout
        jwt_key = self.key().as_dict(private=False) | {"use": "jwt-svid"}
        authority = {"kty": "EC", "use": "x509-svid", "crv": "P-256", "x": "", "y": "", "x5c": [base64.b64encode(der).decode()]}
        return {"keys": [authority, jwt_key], "spiffe_sequence": 1, "spiffe_refresh_hint": 300}

    def document(self, host, path):
        """The document of a host at a path."""
        issuers = {GITHUB: f"https://{GITHUB}", GITLAB: f"https://{GITLAB}", IDP: f"https://{IDP}", EKS: EKS_ISSUER}
        if host == SPIRE:
            return self.bundle()
        if issuer := issuers.get(host):
            if path == urllib.parse.urlsplit(issuer).path + "/.well-known/openid-configuration":
                return {"issuer": issuer, "jwks_uri": f"{issuer}/keys", "id_token_signing_alg_values_supported": ["RS256"]}
            if path == urllib.parse.urlsplit(issuer).path + "/keys":
                return self.key_set()
        return None

    def kubectl(self, *arguments):
        match arguments:
            case ["get", "--raw", "/.well-known/openid-configuration"]:
                return json.dumps({"issuer": CLUSTER_ISSUER, "jwks_uri": f"{CLUSTER_ISSUER}/openid/v1/jwks"})
            case ["get", "--raw", "/openid/v1/jwks"]:
                return json.dumps(self.key_set())
            case ["create", "token", name, "--namespace", namespace, "--audience", audience]:
                return self.service_account(namespace, name, audience, CLUSTER_ISSUER)
            case ["apply", "-f", file]:
                return f"{file} applied"

    def spire_server(self, *arguments):
        match arguments:
            case ["bundle", "show", "-format", "spiffe"]:
                return json.dumps(self.bundle())
            case ["entry", "create", *_]:
                return "Entry ID: 4a2c"

    def spire_agent(self, *arguments):
        match arguments:
            case ["api", "fetch", "jwt", "-audience", audience, "-output", "json"]:
                svid = self.token(300, sub="spiffe://example.org/billing", aud=[audience])
                return json.dumps([{"svids": [{"spiffe_id": "spiffe://example.org/billing", "svid": svid}]}, {"bundles": {}}])
            case ["api", "fetch", "x509", "-write", path]:
                self.x509_svid(path)
                files = "Writing SVID #0 to file svid.0.pem.\nWriting key #0 to file svid.0.key.\nWriting bundle #0 to file bundle.0.pem."
                return f"Received 1 svid after 2.134ms\n\nSPIFFE ID:\t\tspiffe://example.org/billing\n\n{files}"

    def x509_svid(self, path):
        extensions = "subjectAltName=URI:spiffe://example.org/billing\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\nbasicConstraints=critical,CA:FALSE\n"
        (self.directory / "svid.ext").write_text(extensions)
        for command in (
            f"openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /C=US/O=SPIRE -keyout {path}/svid.0.key -out svid.csr",
            f"openssl x509 -req -in svid.csr -CA spire.pem -CAkey spire.key -days 1 -extfile svid.ext -out {path}/svid.0.pem",
        ):
            subprocess.run(command, shell=True, check=True, capture_output=True, cwd=self.directory)


def handler(platform):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            url = urllib.parse.urlsplit(self.path)
            if url.path == "/idtoken" and self.headers["Authorization"] == "bearer runner":
                document = {"value": platform.github(urllib.parse.parse_qs(url.query)["audience"][0])}
            else:
                document = platform.document(self.headers["Host"].partition(":")[0], url.path)
            body = json.dumps(document).encode()
            self.send_response(200 if document else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def main():
    """A shim: prints what the program of the platform would."""
    directory, name, *arguments = sys.argv[1:]
    printed = getattr(Platform(Path(directory)), name.replace("-", "_"))(*[os.path.abspath(a) if a == "." else a for a in arguments])
    if printed is None:
        sys.exit(f"{name} {' '.join(arguments)}: tests/book/platforms.py knows no such command")
    print(printed)


if __name__ == "__main__":
    main()
