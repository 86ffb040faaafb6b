"""curl and openssl as a client with a certificate: each way to be known by it, and tokens that are bound to it.

Usage: client_certificates.py PATH_OF_GRANTD. Certificates are made and registered by the commands of the book.
"""

import base64
import json
from pathlib import Path

from room import check, on_both_databases, same

NAMES = {
    "--san-dns": ("billing.example", "DNS"),
    "--san-uri": ("spiffe://example/billing", "URI"),
    "--san-ip": ("192.0.2.7", "IP"),
    "--san-email": ("billing@example.com", "email"),
}
REFUSED = (401, "invalid_client")


def by_ca(room, name, subject="/O=Example/CN=billing", san=None, ca="client-ca"):
    """A key and a certificate that a CA of clients vouches for."""
    extension = f"subjectAltName={san}" if san else ""
    room.sh(f"""
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "{subject}" -keyout {name}.key -out {name}.csr
echo extendedKeyUsage=clientAuth > {name}.ext
echo {extension} >> {name}.ext
openssl x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days 90 -extfile {name}.ext -out {name}.pem
""")


def register(room):
    create = "grantd client create %s --scope api:read --default-scope api:read --no-secret"
    by_ca(room, "client")
    room.sh(create % "billing")
    room.sh('grantd client cert add billing --subject-dn "CN=billing,O=Example"')
    for kind, (value, prefix) in NAMES.items():
        by_ca(room, kind[2:], "/CN=any", f"{prefix}:{value}")
        room.sh(create % kind[2:])
        room.sh(f"grantd client cert add {kind[2:]} {kind} {value}")
    room.self_signed("own", "/CN=billing")
    room.self_signed("old", "/CN=another")
    room.sh(create % "itself")
    room.sh("grantd client cert add itself --self-signed own.pem")
    room.sh("grantd client cert add itself --self-signed old.pem")
    room.sh(create % "bound")
    room.sh("grantd client set bound --require-mtls-binding true")
    room.sh(create % "api")
    room.sh("grantd client cert add api --san-dns billing.example")
    room.sh(f"grantd resource create {room.issuer} --scope '' --introspect-by api")
    # To be refused: a namesake of each.
    room.self_signed("forged", "/O=Example/CN=billing")
    room.self_signed("other-ca", "/CN=Example Clients")
    by_ca(room, "elsewhere", ca="other-ca")
    by_ca(room, "reversed", "/CN=billing/O=Example")
    by_ca(room, "more", "/O=Example/CN=billing/CN=more")
    room.self_signed("namesake", "/CN=billing")
    return room.secret("bound")


def curl(room, url, *fields, cert=None, more=()):
    """Posts a form; the answer's status, and its JSON."""
    # A busy machine refuses some requests for that alone, and they may be sent again.
    command = ["curl", "-s", "--retry", "5", "--cacert", room.file("ca.pem"), "-o", "answer", "-w", "%{http_code}", *more]
    if cert:
        command += ["--cert", f"{cert}.pem", "--key", f"{cert}.key"]
    for field in fields:
        command += ["--data-urlencode", field]
    status = room.run([*command, url])
    return int(status), json.loads(Path(room.file("answer")).read_text() if status != "000" else "{}")


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def story(room):
    secret = register(room)
    with room.serving():
        metadata = json.loads(room.sh(f"curl -s --cacert ca.pem {room.issuer}/.well-known/oauth-authorization-server"))
        alias = metadata["mtls_endpoint_aliases"]["token_endpoint"]
        same(alias, f"https://localhost:{room.mtls_port}/token", "the alias")
        methods = metadata["token_endpoint_auth_methods_supported"]
        check({"tls_client_auth", "self_signed_tls_client_auth"} <= set(methods), methods)

        def ask(client_id, cert, url=alias, more=()):
            fields = ["grant_type=client_credentials", f"client_id={client_id}"]
            return curl(room, url, *fields, cert=cert, more=more)

        def issued(client_id, cert, more=()):
            status, answer = ask(client_id, cert, more=more)
            same((status, answer.get("token_type")), (200, "Bearer"), f"{client_id} with {cert}: {answer}")
            if status == 200:
                told = claims(answer["access_token"])
                same(told["sub"], client_id, "sub")
                same(told.get("cnf"), {"x5t#S256": room.x5t(cert)}, f"{client_id} with {cert}: cnf")
            return answer.get("access_token")

        def refused(client_id, cert, url=alias, expected=REFUSED):
            status, answer = ask(client_id, cert, url)
            same((status, answer.get("error")), expected, f"{client_id} with {cert} at {url}")

        for tls in ["--tlsv1.3"], ["--tls-max", "1.2"]:
            issued("billing", "client", tls)
            issued("itself", "own", tls)
        issued("itself", "old")
        for kind in NAMES:
            issued(kind[2:], kind[2:])
        for client_id in "billing", "itself", *(kind[2:] for kind in NAMES):
            right = {"billing": "client", "itself": "own"}.get(client_id, client_id)
            refused(client_id, None)
            # There nobody is asked for a certificate, and none is looked at.
            refused(client_id, right, metadata["token_endpoint"])
            refused(client_id, None, metadata["token_endpoint"])
        for wrong in "forged", "elsewhere", "reversed", "more", "own", "san-dns":
            refused("billing", wrong)
        for wrong in "namesake", "client", "forged":
            refused("itself", wrong)
        refused("san-uri", "san-dns")
        refused("nobody", "client")

        # An API that shows a certificate of its own asks about a token that is bound to another.
        url = metadata["mtls_endpoint_aliases"]["introspection_endpoint"]
        token = issued("billing", "client")
        status, told = curl(room, url, "client_id=api", f"token={token}", cert="san-dns")
        same((status, told.get("active"), told.get("token_type")), (200, True, "Bearer"), "introspection")
        same(told.get("cnf"), {"x5t#S256": room.x5t("client")}, "cnf by introspection")
        same(curl(room, url, "client_id=api", f"token={token}", cert="client")[0], 401, "introspection by another")
        same(curl(room, url, "client_id=billing", f"token={token}", cert="client"), (200, {"active": False}), "by its client")

        # A secret authenticates, and the certificate only binds.
        basic = ["--user", f"bound:{secret}"]
        for cert in "forged", "client":
            issued("bound", cert, basic)
        status, answer = ask("bound", None, more=basic)
        same((status, answer.get("error")), (400, "invalid_request"), "a binding without a certificate")
        same(ask("bound", "client")[0], 401, "a certificate in place of a secret")


on_both_databases(story)
