"""Gateways in front of an API, with the configurations of examples/gateways: nginx and Caddy, which ask grantd, and HAProxy
and Apache with mod_oauth2, which check tokens by themselves.

Usage: gateways.py PATH_OF_GRANTD
"""

import base64
import contextlib
import hashlib
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey
from room import check, free_ports, on_both_databases, same

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "gateways"
API = "https://invoices.example.com"
TOLD = ["X-Auth-Client-Id", "X-Auth-Subject", "X-Auth-Scope"]


class Upstream(http.server.BaseHTTPRequestHandler):
    """The API: answers with what it was told of the caller."""

    def do_GET(self):
        told = json.dumps({name: self.headers.get_all(name) for name in TOLD}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.wfile.write(told)

    do_POST = do_PUT = do_GET

    def log_message(self, *_):
        pass


def call(url, fields, method="GET", body=None):
    request = urllib.request.Request(url, headers=fields, method=method, data=body)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers, refusal.read()


@contextlib.contextmanager
def running(room, name, command, port):
    """Runs a gateway in the foreground until the end of the block."""
    log = room.directory / f"{name}.log"
    with log.open("w") as output:
        gateway = subprocess.Popen(command, cwd=room.directory, stdout=output, stderr=output)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if gateway.poll() is not None:
                raise SystemExit(f"{name} ended: {log.read_text()}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/invoices/7"
    finally:
        gateway.terminate()
        gateway.wait(10)


def example(room, name, api, port, fixed_port):
    """An example with the addresses of this room."""
    text = (EXAMPLES / name).read_text()
    grantd = f"127.0.0.1:{room.port}"
    for of_example, of_room in [
        ("127.0.0.1:8080", grantd),
        ("127.0.0.1:9000", f"127.0.0.1:{api}"),
        (f"127.0.0.1:{fixed_port}", f"127.0.0.1:{port}"),
        ("https://auth.example.com", room.issuer),
        ("/etc/haproxy/grantd.pem", room.file("grantd.pem")),
    ]:
        text = text.replace(of_example, of_room)
    path = room.directory / name
    path.write_text(text)
    return str(path)


def nginx(room, api, port):
    conf = room.directory / "nginx-main.conf"
    conf.write_text(f"""
daemon off; pid {room.directory}/nginx.pid; error_log stderr; worker_processes 1;
events {{}}
http {{ access_log off; client_body_temp_path {room.directory}/b; proxy_temp_path {room.directory}/p;
fastcgi_temp_path {room.directory}/f; uwsgi_temp_path {room.directory}/u; scgi_temp_path {room.directory}/s;
include {example(room, "nginx.conf", api, port, 8090)}; }}
""")
    return ["nginx", "-e", "stderr", "-c", str(conf)]


def caddy(room, api, port):
    path = room.directory / "Caddyfile"
    example(room, "Caddyfile", api, port, 8091)
    path.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + path.read_text())
    return ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"]


def haproxy(room, api, port):
    kid = json.loads(room.sh("grantd key list --json"))[0]["kid"]
    (room.directory / "grantd.pem").write_text(room.sh(f"grantd key show {kid} --pem"))
    return ["haproxy", "-db", "-f", example(room, "haproxy.cfg", api, port, 8092)]


def apache(room, api, port):
    modules = "/usr/lib/apache2/modules"
    named = ["mpm_event", "authz_core", "authn_core", "proxy", "proxy_http", "rewrite", "oauth2"]
    load = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in named)
    conf = room.directory / "apache-main.conf"
    conf.write_text(f"""
{load}
Listen 127.0.0.1:{port}
ServerName localhost
ServerRoot {room.directory}
DocumentRoot {room.directory}
PidFile {room.directory}/apache.pid
ErrorLog /dev/stderr
DefaultRuntimeDir {room.directory}
Include {example(room, "apache.conf", api, port, 8093)}
""")
    return ["apache2", "-X", "-f", str(conf)]


def proof(key, method, url, token):
    """A DPoP proof beside an access token (RFC 9449 section 7)."""
    encode = lambda octets: base64.urlsafe_b64encode(octets).decode().rstrip("=")
    jti = encode(hashlib.sha256(str(time.time_ns()).encode()).digest())
    claims = {"htm": method, "htu": url, "jti": jti, "iat": int(time.time())}
    if token:
        claims["ath"] = encode(hashlib.sha256(token.encode()).digest())
    return jwt.encode({"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False)}, claims, key)


def token(room, client_id, secret, further="", fields=None):
    """An access token for the API."""
    basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    body = f"grant_type=client_credentials&resource={API}{further}".encode()
    _, _, answer = call(f"{room.issuer}/token", {"Authorization": f"Basic {basic}", **(fields or {})}, "POST", body)
    return answer["access_token"]


def forged():
    return {name: "admin" for name in TOLD}


def checks(name, url, tokens, asks):
    """The checks of every gateway; `asks` says that it asks grantd, and so knows more."""
    status = lambda bearer: call(url, {"Authorization": f"Bearer {bearer}", **forged()})[0]
    code, _, told = call(url, {"Authorization": f"Bearer {tokens['good']}", **forged()})
    same(code, 200, f"{name}: a good token")
    same(told["X-Auth-Client-Id"] if asks else None, ["billing"] if asks else None, f"{name}: whose it is")
    same(status(tokens["both"]), 200, f"{name}: the scope among others")
    code, fields, _ = call(url, forged())
    same(code, 401, f"{name}: no token")
    check("Bearer" in fields.get("WWW-Authenticate", "") or name == "apache", f"{name}: the challenge")
    for what in ["other audience", "expired", "garbage", "altered", "bound"]:
        same(status(tokens[what]), 401, f"{name}: {what}")
    same(status(tokens["little"]) in (401, 403), True, f"{name}: without the scope")
    if not asks:
        return
    same(status(tokens["little"]), 403, f"{name}: without the scope")
    same([told[one] for one in TOLD], [["billing"], ["billing"], ["invoices:read"]], f"{name}: what the API is told")
    same(status(tokens["revoked"]), 401, f"{name}: revoked")
    code, _, told = call(url, {"Authorization": f"Bearer {tokens['good']}", **forged()}, "POST", b"x" * 5000)
    same((code, told["X-Auth-Client-Id"]), (200, ["billing"]), f"{name}: POST with a body")
    dpop = lambda method, htu: {"Authorization": f"DPoP {tokens['bound']}", "DPoP": proof(tokens["key"], method, htu, tokens["bound"])}
    same(call(url + "?a=b", dpop("PUT", url), "PUT", b"x")[0], 200, f"{name}: DPoP")
    same(call(url, dpop("GET", url), "PUT", b"x")[0], 401, f"{name}: DPoP with another method")
    code, fields, _ = call(url, dpop("GET", url + "/other"))
    same((code, "invalid_dpop_proof" in fields.get("WWW-Authenticate", "")), (401, True), f"{name}: DPoP with another URL")
    # Fields in which the client claims another request than it sends.
    lie = {"X-Forwarded-Uri": "/invoices/8", "X-Forwarded-Method": "GET"}
    same(call(url, {**dpop("GET", url.replace("/7", "/8")), **lie})[0], 401, f"{name}: a client that lies about its URL")


def story(room):
    # Cleartext between gateway and server, as on one machine or in one pod.
    config = room.directory / "grantd.toml"
    lines = [line for line in config.read_text().splitlines() if "tls." not in line and "mtls." not in line]
    room.issuer = f"http://127.0.0.1:{room.port}"
    text = "\n".join(lines).replace(f"https://localhost:{room.port}", room.issuer)
    config.write_text(text.replace("[server]", '[server]\ncleartext = "behind-proxy"\ntrusted_proxies = ["127.0.0.1"]'))
    room.sh(f"grantd resource create {API} --scope 'invoices:read invoices:write'")
    room.sh("grantd resource create https://other.example.com --scope invoices:read")
    room.sh(f"grantd client create billing --no-secret --scope 'invoices:read invoices:write' --default-scope invoices:read --resource {API}")
    room.sh("grantd client create elsewhere --no-secret --scope invoices:read --default-scope invoices:read --resource https://other.example.com")
    room.sh(f"grantd client create short --no-secret --scope invoices:read --default-scope invoices:read --resource {API} --token-ttl 1s")
    secret, elsewhere, short = (room.secret(client) for client in ["billing", "elsewhere", "short"])
    api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    key = ECKey.generate_key("P-256")
    with room.serving():
        tokens = {
            "good": token(room, "billing", secret),
            "both": token(room, "billing", secret, "&scope=invoices:write+invoices:read"),
            "little": token(room, "billing", secret, "&scope=invoices:write"),
            "expired": token(room, "short", short),
            "revoked": token(room, "billing", secret),
            "bound": token(room, "billing", secret, fields={"DPoP": proof(key, "POST", f"{room.issuer}/token", None)}),
            "garbage": "garbage",
            "key": key,
        }
        head, claims, signature = tokens["good"].split(".")
        tokens["altered"] = f"{head}.{claims}.{signature[:-4]}{'AAAA' if signature[-4:] != 'AAAA' else 'BBBB'}"
        basic = base64.b64encode(f"elsewhere:{elsewhere}".encode()).decode()
        other = call(f"{room.issuer}/token", {"Authorization": f"Basic {basic}"}, "POST", b"grant_type=client_credentials")
        tokens["other audience"] = other[2]["access_token"]
        basic = base64.b64encode(f"billing:{secret}".encode()).decode()
        call(f"{room.issuer}/revoke", {"Authorization": f"Basic {basic}"}, "POST", f"token={tokens['revoked']}".encode())
        time.sleep(2)
        for gateway in nginx, caddy, haproxy, apache:
            port = free_ports(1)[0]
            command = gateway(room, api.server_address[1], port)
            with running(room, gateway.__name__, command, port) as url:
                checks(gateway.__name__, url, tokens, gateway in (nginx, caddy))
    api.shutdown()


on_both_databases(story)
