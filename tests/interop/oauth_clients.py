"""An OAuth client library that shares no code with grantd, in each way it has to show who it is and to bind tokens.

Usage: oauth_clients.py PATH_OF_GRANTD. The library is requests_oauth2client.
"""

import json
import time

import requests
from joserfc import jwt
from joserfc.jwk import OKPKey
from jwskate import Jwk, SignedJwt
from requests_oauth2client import (
    ClientSecretBasic, ClientSecretPost, DPoPKey, DPoPToken, OAuth2Client, PrivateKeyJwt, oauth2_discovery_document_url,
)
from requests.adapters import HTTPAdapter
from requests_oauth2client.exceptions import EndpointError
from urllib3.util.retry import Retry

from room import check, on_both_databases, same

ALGORITHMS = ["ES256", "ES384", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]


def made_keys():
    sizes = {alg: {"key_size": 2048} for alg in ALGORITHMS if alg.startswith(("PS", "RS"))}
    return {alg: Jwk.generate(alg=alg, **sizes.get(alg, {})).with_kid_thumbprint() for alg in ALGORITHMS}


KEYS = made_keys()
STRANGERS = made_keys()
API = "https://api.example.com"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def error(call):
    """The status and the code with which a call is refused."""
    try:
        return call()
    except EndpointError as refusal:
        return refusal.response.status_code, refusal.error


def face(answer):
    """The same of an answer that the library does not see."""
    return answer.status_code, answer.json().get("error")


class World:
    """The clients of one server."""

    def __init__(self, room):
        self.room = room
        self.issuer = room.issuer
        room.sh(f"grantd resource create {API} --scope 'read write'")
        create = f"grantd client create --scope 'read write' --default-scope read --resource {API} --no-secret"
        self.secrets = {}
        for client_id in ["secret", "other", "both", *KEYS]:
            room.sh(f"{create} {client_id}")
        for client_id in ["secret", "other"]:
            self.secrets[client_id] = room.secret(client_id)
        for client_id, key in KEYS.items():
            room.sh(f"grantd client key add {client_id} --jwk -", input=json.dumps(key.public_jwk().to_dict()))
        room.sh("grantd client key add both --jwk -", input=json.dumps(KEYS["PS256"].public_jwk().to_dict()))
        room.sh("grantd client set both --require-mtls-binding true --require-dpop true")
        room.self_signed("own", "/CN=both")
        room.sh(f"grantd resource set {API} --introspect-by ES256")

    def session(self):
        session = requests.Session()
        session.verify = self.room.file("ca.pem")
        # Nor the proxies and CAs of whoever runs this.
        session.trust_env = False
        # A busy machine refuses some requests for that alone, and they may be sent again.
        session.mount("https://", HTTPAdapter(max_retries=Retry(5, status_forcelist=[503], allowed_methods=None)))
        return session

    def client(self, auth, **more):
        url = oauth2_discovery_document_url(self.issuer)
        return OAuth2Client.from_discovery_endpoint(url, self.issuer, auth=auth, session=self.session(), **more)

    def by_key(self, client_id, **more):
        return PrivateKeyJwt(client_id, KEYS[client_id], aud=self.issuer, **more)

    def by_secret(self, client_id="secret"):
        return ClientSecretBasic(client_id, self.secrets[client_id])


def claims_of(client, token, client_id):
    """The claims of a token, once its signature is verified with the keys that the library has fetched."""
    signed = SignedJwt(token.access_token)
    key = client.authorization_server_jwks.get_jwk_by_kid(signed.kid)
    check(signed.verify_signature(key, alg="ES256"), f"the signature of a token for {client_id}")
    told = signed.headers["typ"], signed.issuer, signed.audiences, signed.subject
    same(told, ("at+jwt", client.issuer, [API], client_id), "a token")
    return signed.claims


def discovery(world):
    client = world.client(world.by_secret())
    # As OpenID Connect has it, too.
    other = OAuth2Client.from_discovery_endpoint(issuer=world.issuer, auth=("x", "y"), session=world.session())
    for name in "issuer", "token_endpoint", "introspection_endpoint", "revocation_endpoint", "jwks_uri":
        check(getattr(client, name).startswith(world.issuer), name)
        same(getattr(other, name), getattr(client, name), name)
    metadata = world.session().get(oauth2_discovery_document_url(world.issuer)).json()
    for name in "token_endpoint_auth_signing_alg_values_supported", "dpop_signing_alg_values_supported":
        same(sorted(metadata[name]), sorted([*ALGORITHMS, "Ed25519"]), name)
    check(not any(key.is_private for key in client.authorization_server_jwks.jwks), "the key set is public")


def secrets(world):
    for method in ClientSecretBasic, ClientSecretPost:
        client = world.client(method("secret", world.secrets["secret"]))
        token = client.client_credentials(scope="read write")
        same((token.token_type, token.scope), ("Bearer", "read write"), method.__name__)
        check(3590 < token.expires_in <= 3600, f"{method.__name__}: {token.expires_in} seconds")
        claims = claims_of(client, token, "secret")
        same((claims["scope"], "cnf" in claims), ("read write", False), method.__name__)
        same(client.client_credentials(resource=API).scope, "read", "the default scope")
        same(error(lambda: client.client_credentials(scope="admin")), (400, "invalid_scope"), "another scope")
        elsewhere = lambda: client.client_credentials(resource="https://elsewhere.example")
        same(error(elsewhere), (400, "invalid_target"), "another API")
        wrong = world.client(method("secret", world.secrets["other"]))
        same(error(wrong.client_credentials), (401, "invalid_client"), f"{method.__name__} with a wrong secret")


def assertions(world):
    for alg in ALGORITHMS:
        auth = world.by_key(alg)
        client = world.client(auth)
        claims_of(client, client.client_credentials(), alg)
        # The same assertion twice.
        form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
        form["client_assertion"] = auth.client_assertion(world.issuer)
        ask = lambda: face(client.session.post(client.token_endpoint, data=form))
        same([ask(), ask()], [(200, None), (401, "invalid_client")], f"{alg}: an assertion, and again")
        # One for the URL of the token endpoint, one by another key of that name, and one as another client.
        stranger = Jwk({**STRANGERS[alg], "kid": KEYS[alg].kid})
        for wrong, auth in {
            "another audience": PrivateKeyJwt(alg, KEYS[alg]),
            "another key": PrivateKeyJwt(alg, stranger, aud=world.issuer),
            "another client": PrivateKeyJwt("other", KEYS[alg], aud=world.issuer),
        }.items():
            same(error(world.client(auth).client_credentials), (401, "invalid_client"), f"{alg}: {wrong}")
    # A key is for one algorithm.
    crossed = Jwk({**KEYS["RS256"], "alg": "PS256"})
    auth = PrivateKeyJwt("RS256", crossed, aud=world.issuer)
    same(error(world.client(auth).client_credentials), (401, "invalid_client"), "PS256 with a key for RS256")


def proofs(world):
    for alg in ALGORITHMS:
        key = DPoPKey(STRANGERS[alg])
        for auth in world.by_secret(), world.by_key(alg):
            client = world.client(auth)
            token = client.client_credentials(dpop_key=key, dpop=True)
            check(isinstance(token, DPoPToken) and token.token_type == "DPoP", f"{alg}: {token.token_type}")
            same(claims_of(client, token, auth.client_id)["cnf"], {"jkt": key.dpop_jkt}, f"{alg}: cnf")
    client = world.client(world.by_secret())
    form = {"grant_type": "client_credentials"}
    ask = lambda proof: face(
        client.session.post(client.token_endpoint, data=form, auth=client.auth, headers={"DPoP": str(proof)})
    )
    key = DPoPKey.generate()
    proof = key.proof("POST", client.token_endpoint)
    same([ask(proof), ask(proof)], [(200, None), (400, "invalid_dpop_proof")], "a proof, and again")
    for method, url in ("GET", client.token_endpoint), ("POST", client.revocation_endpoint):
        same(ask(key.proof(method, url)), (400, "invalid_dpop_proof"), f"a proof for {method} {url}")


def ed25519(world):
    """RFC 9864 calls EdDSA by this name. The library does not know it, so another signs."""
    client = world.client(world.by_key("EdDSA"))
    key = OKPKey.import_key({**KEYS["EdDSA"].to_dict(), "alg": "Ed25519"})
    now = int(time.time())
    claims = {"iss": "EdDSA", "sub": "EdDSA", "aud": world.issuer, "exp": now + 60, "jti": "by its second name"}
    proof = {"htm": "POST", "htu": client.token_endpoint, "iat": now, "jti": "by its second name"}
    signed = lambda header, claims: jwt.encode({"alg": "Ed25519", **header}, claims, key, algorithms=["Ed25519"])
    form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
    form["client_assertion"] = signed({"kid": KEYS["EdDSA"].kid}, claims)
    headers = {"DPoP": signed({"typ": "dpop+jwt", "jwk": key.as_dict(private=False)}, proof)}
    answer = client.session.post(client.token_endpoint, data=form, headers=headers).json()
    same(answer.get("token_type"), "DPoP", f"an assertion and a proof by Ed25519: {answer}")


def both_bindings(world):
    """A key and a certificate, at the URL that the metadata has for clients with certificates."""
    auth, key = PrivateKeyJwt("both", KEYS["PS256"], aud=world.issuer), DPoPKey.generate()
    client = world.client(auth)
    same(error(lambda: client.client_credentials(dpop_key=key, dpop=True)), (400, "invalid_request"), "no certificate")
    session = world.session()
    session.cert = world.room.file("own.pem"), world.room.file("own.key")
    metadata = session.get(oauth2_discovery_document_url(world.issuer)).json()
    at_alias = OAuth2Client(metadata["mtls_endpoint_aliases"]["token_endpoint"], auth=auth, session=session)
    same(error(at_alias.client_credentials), (400, "invalid_dpop_proof"), "no proof")
    token = at_alias.client_credentials(dpop_key=key, dpop=True)
    expected = {"jkt": key.dpop_jkt, "x5t#S256": world.room.x5t("own")}
    same(claims_of(client, token, "both")["cnf"], expected, "both bindings")


def asked_about(world):
    """Introspection and revocation, by an API that signs."""
    api = world.client(world.by_key("ES256"))
    client, other = world.client(world.by_secret()), world.client(world.by_secret("other"))
    key = DPoPKey.generate()
    bearer, bound = client.client_credentials(), client.client_credentials(dpop_key=key, dpop=True)
    for token, binding in (bearer, None), (bound, {"jkt": key.dpop_jkt}):
        told = api.introspect_token(token, token_type_hint="access_token")
        same((told["active"], told["client_id"]), (True, "secret"), "introspection")
        same(told["token_type"], token.token_type, "token_type by introspection")
        same(told.get("cnf"), binding, "cnf by introspection")
        same(client.introspect_token(token), {"active": False}, "introspection by no introspector")
        same(error(lambda: other.revoke_access_token(token)), (400, "invalid_grant"), "revocation by another client")
        same(api.introspect_token(token)["active"], True, "after that")
        same(client.revoke_access_token(token), True, "revocation")
        same(api.introspect_token(token), {"active": False}, "after revocation")
    wrong = world.client(ClientSecretPost("secret", world.secrets["other"]))
    same(error(lambda: wrong.introspect_token("x")), (401, "invalid_client"), "introspection with a wrong secret")
    same(error(lambda: wrong.revoke_token("x")), (401, "invalid_client"), "revocation with a wrong secret")


def nonces(world):
    """`dpop.require_nonce`: the library asks again with the nonce it was given, and its assertion is still good."""
    # The second attempt comes with the same `jti`.
    jtis = iter(["one", "one", "two"])
    for auth in world.by_key("ES256", jti_gen=jtis.__next__), world.by_secret():
        client = world.client(auth)
        answers = []
        client.session.hooks["response"].append(lambda answer, **_: answers.append(face(answer)))
        key = DPoPKey.generate()
        for _ in range(2):
            token = client.client_credentials(dpop_key=key, dpop=True)
            same(claims_of(client, token, auth.client_id)["cnf"], {"jkt": key.dpop_jkt}, "cnf")
        same(answers, [(400, "use_dpop_nonce"), (200, None), (200, None)], "a nonce is asked for once")
    made_up = DPoPKey.generate(as_nonce="x" * 40)
    ask = lambda key: face(client.session.post(
        client.token_endpoint, data={"grant_type": "client_credentials"}, auth=world.by_secret(),
        headers={"DPoP": str(key.proof("POST", client.token_endpoint, nonce=key.as_nonce))},
    ))
    same(ask(made_up), (400, "use_dpop_nonce"), "a nonce that was made up")
    same(client.client_credentials().token_type, "Bearer", "no proof, no nonce")


def story(room):
    world = World(room)
    with room.serving():
        for chapter in discovery, secrets, assertions, proofs, ed25519, both_bindings, asked_about:
            chapter(world)
    with room.serving("dpop.require_nonce=true"):
        nonces(world)


on_both_databases(story)
