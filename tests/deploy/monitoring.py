"""Alert rules and dashboard: promtool reads and tests them, and each metric, label and reason in them exists.

Usage: monitoring.py PATH_OF_PROMTOOL
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "interop"))
from room import check, ended, same  # noqa: E402

MONITORING = ROOT / "deploy" / "monitoring"
REFERENCE = (ROOT / "docs" / "reference" / "metrics.md").read_text()
REASONS = (ROOT / "docs" / "reference" / "reasons.md").read_text()


def metrics():
    """The metrics of the reference with their labels; a histogram has three series."""
    found = {}
    for name, labels, meaning in re.findall(r"^\| `(grantd_[a-z0-9_]+)(?:\{([a-z,]*)\})?` \| (.*) \|$", REFERENCE, re.MULTILINE):
        labels = set(labels.split(",")) - {""}
        if "(histogram)" in meaning:
            found.update({f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels})
        else:
            found[name] = labels
    found.update({name: set() for name in re.findall(r"`(process_[a-z_]+)`", REFERENCE)})
    return found


def named(expression, where, known):
    """Checks that an expression names metrics, labels and reasons that exist."""
    of_instances = {"instance", "__name__"}
    for name in re.findall(r"\b(?:grantd|process)_[a-z0-9_]+(?![a-z0-9_(|])", re.sub(r'__name__=~"[^"]*"', "", expression)):
        check(name in known, f"{where}: there is no metric {name}")
    for name, selector in re.findall(r"\b((?:grantd|process)_[a-z0-9_]+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"([a-z_]+)\s*(?:=~|!=|!~|=)", selector)) - of_instances
        check(labels <= known.get(name, set()), f"{where}: {name} has no label {labels - known.get(name, set())}")
    for several in re.findall(r'__name__=~"grantd_\(([a-z_|]+)\)_total"', expression):
        for name in several.split("|"):
            check(f"grantd_{name}_total" in known, f"{where}: there is no metric grantd_{name}_total")
    for reasons in re.findall(r'reason=~?"([a-z_|]+)"', expression):
        for reason in reasons.split("|"):
            check(f"| `{reason}` |" in REASONS, f"{where}: there is no reason {reason}")
    for by in re.findall(r"by \(([a-z_, ]+)\)", expression):
        labels = {label.strip() for label in by.split(",")} - of_instances
        check(any(labels <= of for of in known.values()), f"{where}: no metric has the labels {labels}")


def promtool(directory, *arguments):
    done = subprocess.run([sys.argv[1], *arguments], cwd=directory, capture_output=True, text=True)
    same((done.returncode, done.stdout + done.stderr if done.returncode else ""), (0, ""), f"promtool {' '.join(arguments)}")


known = metrics()
check(len(known) > 25, f"the reference lists metrics: {len(known)}")
rules = [rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
for rule in rules:
    named(rule["expr"], rule["alert"], known)
    check({"summary", "description"} <= set(rule["annotations"]), f"{rule['alert']} says what it is and what to do")
guide = (ROOT / "docs" / "guides" / "monitoring.md").read_text()
same({rule["alert"] for rule in rules}, set(re.findall(r"^\| `(Grantd[A-Za-z]+)` \|", guide, re.MULTILINE)), "alerts of the guide")

dashboard = json.loads((MONITORING / "dashboard.json").read_text())
panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
same(len({panel["id"] for panel in dashboard["panels"]}), len(dashboard["panels"]), "ids of panels")
queries = [target["expr"] for panel in panels for target in panel["targets"]]
for panel in panels:
    for target in panel["targets"]:
        named(target["expr"], panel["title"], known)
for variable in dashboard["templating"]["list"]:
    named(variable.get("definition", ""), variable["name"], known)
shown = " ".join(queries)
for name in known:
    if not name.endswith(("_sum", "_count")) and not name.startswith("process_start"):
        check(name in shown, f"{name} is on the dashboard")

with tempfile.TemporaryDirectory() as directory:
    for source in MONITORING / "alerts.yaml", ROOT / "tests" / "deploy" / "alerts_test.yaml":
        shutil.copy(source, directory)
    promtool(directory, "check", "rules", "alerts.yaml")
    promtool(directory, "test", "rules", "alerts_test.yaml")
    # The queries of the dashboard, as rules, so that promtool parses them too.
    of_dashboard = [
        {"record": f"dashboard:{number}", "expr": query.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, query in enumerate(queries)
    ]
    (Path(directory) / "dashboard.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": of_dashboard}]}))
    promtool(directory, "check", "rules", "dashboard.yaml")
ended()
