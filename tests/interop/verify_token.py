"""A resource server's check of a token (RFC 9068 section 4), with a JOSE implementation that is not ours.

Usage: verify_token.py PATH_OF_GRANTD. Has a resource per algorithm, asks for tokens with curl as a shell script would, and
verifies each against the published key set.
"""

import json

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from room import check, on_both_databases, same

RESOURCES = {alg: f"https://{alg.lower()}.example" for alg in ["ES256", "EdDSA", "PS256", "RS256"]}
PLAIN = "https://plain.example"


def verify(encoded, keys, issuer, audience, algorithm, now=None, typs=("at+jwt", "application/at+jwt")):
    """The checks that RFC 9068 section 4 asks of a resource server."""
    decoded = jwt.decode(encoded, keys, algorithms=[algorithm])
    if decoded.header["typ"].lower() not in typs:
        raise JoseError("typ")
    jwt.JWTClaimsRegistry(
        now=now,
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


def story(room):
    for algorithm, uri in RESOURCES.items():
        room.sh(f"grantd resource create {uri} --scope 'read write' --alg {algorithm}")
    room.sh(f"grantd resource create {PLAIN} --scope 'read write' --token-typ JWT")
    flags = " ".join(f"--resource {uri}" for uri in [*RESOURCES.values(), PLAIN])
    room.sh(f"grantd client create service --scope 'read write' {flags} --secret-file service.secret")
    room.sh("grantd client create plain --scope 'read write' --secret-file plain.secret")
    with room.serving():
        fetch = lambda url: json.loads(room.sh(f"curl -sSf --retry 5 --cacert ca.pem {url}"))
        metadata = fetch(room.issuer + "/.well-known/oauth-authorization-server")
        same(metadata["issuer"], room.issuer, "the issuer in the metadata")
        keys = KeySet.import_key_set(fetch(metadata["jwks_uri"]))

        def token(client_id, form):
            ask = f'curl -sSf --retry 5 --cacert ca.pem --user "{client_id}:$(cat {client_id}.secret)"'
            return json.loads(room.sh(f"{ask} --data grant_type=client_credentials {form} {metadata['token_endpoint']}"))

        answer = token("plain", "--data 'scope=read write'")
        decoded = verify(answer["access_token"], keys, room.issuer, room.issuer, "ES256")
        same((decoded.claims["scope"], answer["scope"]), ("read write", "read write"), "scope")
        for algorithm, uri in RESOURCES.items():
            encoded = token("service", f"--data scope=read --data-urlencode resource={uri}")["access_token"]
            decoded = verify(encoded, keys, room.issuer, uri, algorithm)
            same((decoded.header["alg"], decoded.claims["client_id"]), (algorithm, "service"), "a token")
            key = next(key for key in keys.keys if key.kid == decoded.header["kid"])
            same(key.thumbprint(), key.kid, f"{algorithm}: kid is the RFC 7638 thumbprint")
            check(not key.is_private, f"{algorithm}: the key set is public")
            head, claims, signature = encoded.split(".")
            flipped = signature[:-6] + ("A" if signature[-6] != "A" else "B") + signature[-5:]
            check(refused(lambda: verify(f"{head}.{claims}.{flipped}", keys, room.issuer, uri, algorithm)), f"{algorithm}: altered")
            check(refused(lambda: verify(encoded, keys, room.issuer, "https://other.example", algorithm)), f"{algorithm}: audience")
            check(refused(lambda: verify(encoded, keys, "https://other.example", uri, algorithm)), f"{algorithm}: issuer")
            late = decoded.claims["exp"]
            check(verify(encoded, keys, room.issuer, uri, algorithm, now=late - 1), f"{algorithm}: a second before its expiry")
            check(refused(lambda: verify(encoded, keys, room.issuer, uri, algorithm, now=late + 1)), f"{algorithm}: expired")
        plain = token("service", f"--data scope=read --data-urlencode resource={PLAIN}")["access_token"]
        check(verify(plain, keys, room.issuer, PLAIN, "ES256", typs=("jwt",)), "typ JWT where it is expected")
        check(refused(lambda: verify(plain, keys, room.issuer, PLAIN, "ES256")), "typ JWT where at+jwt is expected")


on_both_databases(story)
