"""Authlib as client and as resource server, unmodified and as its documentation says.

Usage: authlib_clients.py PATH_OF_GRANTD. The client is OAuth2Session of its requests integration; the resource server is
a Flask application under its ResourceProtector.
"""

import json
import time
from unittest import mock

from authlib.integrations.base_client import OAuthError
from authlib.integrations.flask_oauth2 import ResourceProtector, current_token
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from flask import Flask, jsonify
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from room import check, on_both_databases, same

API = "https://api.example.com"
OTHER = "https://other.example.com"
PLAIN = "https://plain.example.com"


def made_keys():
    return {
        "ES256": ECKey.generate_key("P-256", auto_kid=True),
        "EdDSA": OKPKey.generate_key("Ed25519", auto_kid=True),
        "PS256": RSAKey.generate_key(2048, auto_kid=True),
        "RS256": RSAKey.generate_key(2048, auto_kid=True),
    }


KEYS = made_keys()
OTHER_KEYS = made_keys()
# Authlib's assertions live for an hour and are addressed to the token endpoint. For each kind of registration: its flags,
# and the reason code with which grantd logs such an assertion.
KINDS = {
    "both": ("--assertion-audience token-endpoint --assertion-lifetime 1h", "ok"),
    "audience": ("--assertion-audience token-endpoint", "assertion_lifetime"),
    "lifetime": ("--assertion-lifetime 1h", "assertion_audience"),
    "neither": ("", "assertion_audience"),
}
ASSERTIONS = [(alg, "both") for alg in KEYS] + [("ES256", kind) for kind in KINDS if kind != "both"]


class World:
    """The clients and the resources of one server, and its metadata once it serves."""

    def __init__(self, room):
        self.room = room
        for uri, more in (API, ""), (OTHER, ""), (PLAIN, "--token-typ JWT"):
            room.sh(f"grantd resource create {uri} --scope 'read write' {more}")
        create = "grantd client create --scope 'read write' --no-secret"
        resources = f"--resource {API} --resource {OTHER} --resource {PLAIN}"
        self.secrets = {}
        for client_id in "secret", "introspector":
            room.sh(f"{create} {client_id} {resources}")
            self.secrets[client_id] = room.secret(client_id)
        room.sh(f"grantd resource set {API} --introspect-by introspector")
        for alg, kind in ASSERTIONS:
            client_id = f"{kind}-{alg}"
            public = {**KEYS[alg].as_dict(private=False), "alg": alg}
            room.sh(
                f"{create} {client_id} --resource {API} {KINDS[kind][0]}\n grantd client key add {client_id} --jwk -",
                input=json.dumps(public),
            )

    def discover(self):
        """Fetches the metadata and the JWK Set."""
        session = self.session()
        get = lambda url: session.get(url, withhold_token=True).json()
        self.metadata = get(self.room.issuer + "/.well-known/oauth-authorization-server")
        self.jwks = KeySet.import_key_set(get(self.metadata["jwks_uri"]))

    def session(self, *arguments, **more):
        session = OAuth2Session(*arguments, **more)
        session.verify = self.room.file("ca.pem")
        # No proxies or CAs from the environment.
        session.trust_env = False
        # On a busy machine, grantd may refuse a request with 503 and Retry-After; the request is then sent again.
        session.mount("https://", HTTPAdapter(max_retries=Retry(5, status_forcelist=[503], allowed_methods=None)))
        return session

    def by_secret(self, client_id="secret", **more):
        more = {"scope": "read write", **more}
        return self.session(client_id, self.secrets[client_id], **more)

    def by_key(self, client_id, key, *arguments, **more):
        """A session with the authentication method that the documentation of `PrivateKeyJWT` registers."""
        session = self.session(client_id, key, token_endpoint_auth_method="private_key_jwt", scope="read")
        session.register_client_auth_method(PrivateKeyJWT(*arguments, **more))
        return session

    def fetch(self, session, **more):
        more = {"resource": API, **more}
        return session.fetch_token(self.metadata["token_endpoint"], grant_type="client_credentials", **more)

    def refusal(self, session, **more):
        """The error code with which a request for a token is refused."""
        try:
            return self.fetch(session, **more)
        except OAuthError as refusal:
            return refusal.error

    def reasons(self, client_id, number):
        """The reason codes of the log of grantd for this client, once there are this many."""
        for _ in range(100):
            lines = [json.loads(line) for line in self.room.log.read_text().splitlines() if f'"{client_id}"' in line]
            reasons = [line["reason"] for line in lines if line.get("client_id") == client_id]
            if len(reasons) >= number:
                break
            time.sleep(0.05)
        return reasons

    def claims(self, token, audience=API):
        """The claims of a token, once its signature and its audience are verified."""
        decoded = jwt.decode(token["access_token"], self.jwks)
        jwt.JWTClaimsRegistry(aud={"essential": True, "value": audience}).validate(decoded.claims)
        return decoded.claims


def secrets(world):
    for method in "client_secret_basic", "client_secret_post":
        session = world.by_secret(token_endpoint_auth_method=method)
        token = world.fetch(session)
        same((token["token_type"], token["scope"]), ("Bearer", "read write"), method)
        check(3590 < token["expires_in"] <= 3600 and not token.is_expired(), f"{method}: {token['expires_in']} seconds")
        same(world.claims(token)["client_id"], "secret", method)
        same(world.refusal(world.by_secret(token_endpoint_auth_method=method, scope="admin")), "invalid_scope", method)
        same(world.refusal(session, resource="https://elsewhere.example"), "invalid_target", method)
        wrong = world.session("secret", world.secrets["introspector"], token_endpoint_auth_method=method)
        same(world.refusal(wrong), "invalid_client", f"{method} with a wrong secret")


def assertions(world):
    endpoint, issuer = world.metadata["token_endpoint"], world.metadata["issuer"]
    for alg, kind in ASSERTIONS:
        client_id, key, reason = f"{kind}-{alg}", KEYS[alg], KINDS[kind][1]
        session = world.by_key(client_id, key, endpoint, alg=alg, headers={"kid": key.kid})
        if reason == "ok":
            token = world.fetch(session)
            same(world.claims(token)["sub"], client_id, client_id)
            # The second assertion of the same session has another jti.
            check("access_token" in world.fetch(session), f"{client_id}, a second token")
            same(world.reasons(client_id, 2), ["ok", "ok"], client_id)
            session = world.by_key(client_id, OTHER_KEYS[alg], endpoint, alg=alg)
            same(world.refusal(session), "invalid_client", f"{client_id}, another key")
            same(world.reasons(client_id, 3)[2:], ["jws_signature"], f"{client_id}, another key")
        else:
            same(world.refusal(session), "invalid_client", client_id)
            same(world.reasons(client_id, 1), [reason], client_id)
    # The client that was refused with each default of the library, now with an assertion for the issuer for one minute.
    session = world.by_key("neither-ES256", KEYS["ES256"], issuer, alg="ES256", claims={"exp": int(time.time()) + 60})
    check("access_token" in world.fetch(session), "an assertion for the issuer, for a minute")
    # A key in PEM and no more arguments: RS256, without kid.
    session = world.by_key("both-RS256", KEYS["RS256"].as_pem(private=True), endpoint)
    check("access_token" in world.fetch(session), "RS256, PEM")


def asked_about(world):
    """Introspection and revocation."""
    client, introspector = world.by_secret(), world.by_secret("introspector")
    token = world.fetch(client)
    introspect = lambda session: session.introspect_token(
        world.metadata["introspection_endpoint"], token=token["access_token"], token_type_hint="access_token"
    ).json()
    answer = introspect(introspector)
    same((answer["active"], answer["client_id"], answer["aud"]), (True, "secret", API), "introspection")
    same(introspect(client), {"active": False}, "introspection by another client than the resource's")
    revoke = lambda session: session.revoke_token(world.metadata["revocation_endpoint"], token=token["access_token"])
    same(revoke(introspector).status_code, 400, "revocation by another client")
    same(introspect(introspector)["active"], True, "after the refused revocation")
    same(revoke(client).status_code, 200, "revocation")
    same(introspect(introspector), {"active": False}, "after the revocation")


def resource_server(world, issuer, audience):
    """An application whose endpoints need a token for this audience."""

    class Validator(JWTBearerTokenValidator):
        def get_jwks(self):
            return world.jwks

    require_oauth = ResourceProtector()
    require_oauth.register_token_validator(Validator(issuer=issuer, resource_server=audience))
    app = Flask(__name__)

    @app.get("/read")
    @require_oauth("read")
    def read():
        return jsonify(client_id=current_token["client_id"])

    @app.get("/write")
    @require_oauth("write")
    def write():
        return jsonify(client_id=current_token["client_id"])

    def get(path, token=None):
        """The status of the answer, and its error or the client's id."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = app.test_client().get(path, headers=headers)
        return answer.status_code, answer.json.get("error") or answer.json["client_id"]

    return get


def tokens_shown(world):
    issuer = world.metadata["issuer"]
    api = resource_server(world, issuer, API)
    accepted, invalid = (200, "secret"), (401, "invalid_token")
    session = world.by_secret()
    token = world.fetch(session)["access_token"]
    same([api("/read", token), api("/write", token)], [accepted, accepted], "a token for read and write")
    narrow = world.fetch(world.by_secret(scope="read"))["access_token"]
    same([api("/read", narrow), api("/write", narrow)], [accepted, (403, "insufficient_scope")], "a token for read")
    same(api("/read"), (401, "missing_authorization"), "no token")
    head, claims, signature = token.split(".")
    altered = signature[:-6] + ("A" if signature[-6] != "A" else "B") + signature[-5:]
    same(api("/read", f"{head}.{claims}.{altered}"), invalid, "an altered signature")
    same(resource_server(world, "https://issuer.example", API)("/read", token), invalid, "another issuer")
    elsewhere = world.fetch(session, resource=OTHER)["access_token"]
    same(api("/read", elsewhere), invalid, "a token for another audience")
    same(resource_server(world, issuer, OTHER)("/read", elsewhere), accepted, "the same token at its audience")
    # RFC 9068 section 4: "the resource server MUST verify that the "typ" header value is "at+jwt"".
    plain = world.fetch(session, resource=PLAIN)
    same(world.claims(plain, PLAIN)["client_id"], "secret", "a token of typ JWT, verified without its typ")
    same(resource_server(world, issuer, PLAIN)("/read", plain["access_token"]), invalid, "a token of typ JWT")
    expires = world.claims({"access_token": token})["exp"]
    for now, expected in (expires - 1, accepted), (expires + 1, invalid):
        with mock.patch("time.time", return_value=now):
            same(api("/read", token), expected, f"{now - expires} seconds after the expiry")


def story(room):
    world = World(room)
    with room.serving():
        world.discover()
        for chapter in secrets, assertions, asked_about, tokens_shown:
            chapter(world)


on_both_databases(story)
