"""Java as client and as resource server: Spring Boot, Nimbus and Kafka, unmodified.

Usage: java_clients.py PATH_OF_GRANTD DIRECTORY. The directory has spring and nimbus-kafka, each with the libraries of
its pom.xml in lib and the compiled programs in classes; see script/test.
"""

import json
import subprocess
import sys
from pathlib import Path

from jwskate import Jwk

from room import check, on_both_databases

API = "https://api.example"
PLAIN = "https://plain.example"
OTHER = "https://other.example"
PASSWORD = "changeit"


def made_key(alg, **size):
    return Jwk.generate(alg=alg, **size).with_kid_thumbprint()


KEYS = {"ES256": made_key("ES256"), "RS256": made_key("RS256", key_size=2048), "ES256-stranger": made_key("ES256")}


def register(room):
    """The clients and resources; returns what the programs have to know."""
    scopes = "'api:read api:write'"
    room.sh(f"grantd resource create {API} --scope {scopes}")
    for uri in PLAIN, OTHER:
        room.sh(f"grantd resource create {uri} --scope {scopes} --token-typ JWT")

    def client(name, *resources, options=""):
        uris = " ".join(f"--resource {uri}" for uri in resources)
        room.sh(f"grantd client create {name} --scope {scopes} --default-scope api:read --no-secret {uris} {options}")

    client("secret", API, PLAIN, OTHER)
    client("api", API)
    client("single", PLAIN)
    client("brief", API, PLAIN, options="--token-ttl 1s")
    room.sh(f"grantd resource set {API} --introspect-by api")
    endpoint = "--assertion-audience token-endpoint"
    for name, key, options in ("ES256", "ES256", endpoint), ("RS256", "RS256", endpoint), ("ES256-issuer", "ES256", ""):
        client(name, API, options=options)
        room.sh(f"grantd client key add {name} --jwk -", input=json.dumps(KEYS[key].public_jwk().to_dict()))

    room.sh("""
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=Example/CN=certified" -keyout certified.key -out certified.csr
echo extendedKeyUsage=clientAuth > certified.ext
openssl x509 -req -in certified.csr -CA client-ca.pem -CAkey client-ca.key -CAcreateserial -days 90 -extfile certified.ext -out certified.pem
""")
    client("certified", API)
    room.sh('grantd client cert add certified --subject-dn "CN=certified,O=Example"')
    room.self_signed("itself", "/CN=itself")
    client("itself", API)
    room.sh("grantd client cert add itself --self-signed itself.pem")
    certificates = "certified", "itself"
    for name in certificates:
        room.sh(f"openssl pkcs12 -export -in {name}.pem -inkey {name}.key -out {name}.p12 -passout pass:{PASSWORD}")
    room.sh(f"keytool -importcert -noprompt -alias ca -file ca.pem -keystore ca.p12 -storetype PKCS12 -storepass {PASSWORD}")

    # Kafka has no setting for a resource: each of its clients has one.
    client("kafka", API)
    client("kafka-brief", API, options="--token-ttl 1s")
    kinds = {"RS256": "RSA -pkeyopt rsa_keygen_bits:2048", "ES256": "EC -pkeyopt ec_paramgen_curve:P-256"}
    for alg, kind in kinds.items():
        client(f"kafka-{alg}", API)
        room.sh(f"""
openssl genpkey -algorithm {kind} -out kafka-{alg}.key
openssl pkey -in kafka-{alg}.key -pubout -out kafka-{alg}.pub
grantd client key add kafka-{alg} --jwk kafka-{alg}.pub --alg {alg}
""")
    return {
        "issuer": room.issuer,
        "api": API,
        "plain": PLAIN,
        "other": OTHER,
        "secret": room.secret("secret"),
        "apiSecret": room.secret("api"),
        "singleSecret": room.secret("single"),
        "briefSecret": room.secret("brief"),
        "kafkaSecret": room.secret("kafka"),
        "kafkaBriefSecret": room.secret("kafka-brief"),
        "keys": {name: key.to_dict() for name, key in KEYS.items()},
        "kafkaKeys": {alg: room.file(f"kafka-{alg}.key") for alg in kinds},
        "trustStore": room.file("ca.p12"),
        "password": PASSWORD,
        "keyStores": {name: room.file(f"{name}.p12") for name in certificates},
        "thumbprints": {name: room.x5t(name) for name in certificates},
    }


def run(room, world, module, program, **properties):
    """Runs a program, and counts its checks."""
    properties["javax.net.ssl.trustStore"] = world["trustStore"]
    properties["javax.net.ssl.trustStorePassword"] = PASSWORD
    directory = Path(sys.argv[2], module).resolve()
    # Starts sooner; the programs are short.
    command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{directory}/classes:{directory}/lib/*"]
    command += [f"-D{name}={value}" for name, value in properties.items()]
    done = subprocess.run(
        [*command, program], input=json.dumps(world), cwd=room.directory, env=room.environment, text=True, capture_output=True
    )
    if done.returncode != 0:
        sys.exit(f"{program}\n{done.stdout}{done.stderr}")
    told = json.loads(done.stdout)
    for _ in range(told["passed"]):
        check(True, "")
    for failure in told["failures"]:
        check(False, failure)


def story(room):
    world = register(room)
    allowed = {
        "org.apache.kafka.sasl.oauthbearer.allowed.urls": f"{room.issuer}/token,{room.issuer}/jwks",
        "org.apache.kafka.sasl.oauthbearer.allowed.files": ",".join(world["kafkaKeys"].values()),
    }
    with room.serving():
        run(room, world, "spring", "Spring")
        run(room, world, "nimbus-kafka", "NimbusKafka", **allowed)


on_both_databases(story)
