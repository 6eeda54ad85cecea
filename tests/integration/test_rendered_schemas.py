"""What is rendered before the schemas and programs that it is for: compose, Kubernetes, the Prometheus Operator, Prometheus, Alertmanager.

Each is also given something misspelt, and refuses it.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from datetime import timedelta

import pytest
import yaml

from somaresil.render import RenderOptions, render
from somaresil.slo import defaults

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

OPTIONS = RenderOptions(
    service="gate/way",
    environment="prod",
    slos=defaults.ALL,
    retention=timedelta(days=31),
    cap_unreachable=True,
    page_to="webhook+bearer:https://hooks.example:8443/pages",
    ticket_to="slack:#gateway",
    grafana_url="https://grafana.example",
    labels={"team": "edge"},
)
OPERATOR = "@kubernetes-models/prometheus-operator"
OPERATOR_VERSION = "6.0.0"
JUDGE = f"""
import {{PodMonitor, PrometheusRule, ServiceMonitor}} from "{OPERATOR}/monitoring.coreos.com/v1";
import fs from "node:fs";
const kinds = {{PodMonitor, PrometheusRule, ServiceMonitor}};
const said = JSON.parse(fs.readFileSync(0)).map(document => {{
    try {{ new kinds[document.kind](document).validate(); return ""; }} catch (error) {{ return String(error.message); }}
}});
console.log(JSON.stringify(said));
"""


def run(*command, folder=None, stdin=None):
    """Run a program; give its exit code and what it said."""
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def need(program, package):
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed: `apt-get install {package}`")
    return found


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


# -- compose ------------------------------------------------------------------------------------------------------------------------------


def test_compose_takes_the_file(tmp_path):
    """By the schema of the Compose Specification that check-jsonschema carries."""
    pytest.importorskip("check_jsonschema")
    import sys

    def judged(document):
        path = tmp_path / "compose.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path))

    document = yaml.safe_load(render("compose", OPTIONS)["compose.yaml"])
    code, said = judged(document)
    assert code == 0, said
    for path, value in ((("services", "loki", "cap_dorp"), ["ALL"]), (("services", "loki", "healthcheck", "retires"), 5)):
        wrong = copy.deepcopy(document)
        at = wrong
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        code, said = judged(wrong)
        assert code == 1
        assert path[-1] in said


# -- Kubernetes ---------------------------------------------------------------------------------------------------------------------------


def kubernetes_objects():
    files = render("kubernetes", OPTIONS)
    return [each for name, text in files.items() if name != "kustomization.yaml" for each in yaml.safe_load_all(text)]


def test_kubernetes_takes_every_object():
    """By its own schemas, strictly: an unknown field and a value of the wrong kind are refused."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    found = kubernetes_objects()
    assert {each["kind"] for each in found} >= {
        "Deployment",
        "Service",
        "ConfigMap",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "ClusterRole",
    }
    for each in found:
        kubernetes_validate.validate(each, "1.32", strict=True)
    deployment = next(each for each in found if each["kind"] == "Deployment")
    for path, value in ((("replicsa",), 1), (("replicas",), "x"), (("template", "spec", "securityContext", "runAsNonRoot"), "yes")):
        wrong = copy.deepcopy(deployment)
        at = wrong["spec"]
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, "1.32", strict=True)


def test_kustomize_puts_them_together(tmp_path):
    """`kubectl kustomize` reads every file; a file that is missing is an error."""
    kubectl = need("kubectl", "kubernetes-client")
    files = render("kubernetes", OPTIONS)
    write(tmp_path, files)
    code, said = run(kubectl, "kustomize", str(tmp_path))
    assert code == 0, said
    assert len(list(yaml.safe_load_all(said))) == len(kubernetes_objects())
    (tmp_path / "loki.yaml").unlink()
    assert run(kubectl, "kustomize", str(tmp_path))[0] == 1


def test_the_operator_takes_monitors_and_rules(tmp_path):
    """By the schemas of its CRDs, as an npm package carries them; a field of the wrong kind and one that is missing are refused."""
    npm, node = need("npm", "npm"), need("node", "nodejs")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    try:
        made = subprocess.run(
            [npm, "install", *options, f"{OPERATOR}@{OPERATOR_VERSION}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "HOME": str(tmp_path)},
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch {OPERATOR} in time")
    if made.returncode:
        pytest.skip(f"npm cannot fetch {OPERATOR}: {made.stderr[-300:]}")
    (tmp_path / "judge.js").write_text(JUDGE, encoding="utf-8")

    def judged(documents):
        told = subprocess.run(
            [node, "judge.js"], cwd=tmp_path, input=json.dumps(documents), capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(told.stdout)

    files = {**render("podmonitor", OPTIONS), **render("servicemonitor", OPTIONS)}
    documents = [yaml.safe_load(text) for text in files.values()]
    assert sorted(each["kind"] for each in documents) == ["PodMonitor", "PrometheusRule", "ServiceMonitor"]
    assert judged(documents) == ["", "", ""]
    monitor = copy.deepcopy(next(each for each in documents if each["kind"] == "PodMonitor"))
    monitor["spec"]["podMetricsEndpoints"][0]["interval"] = 15
    rule = copy.deepcopy(next(each for each in documents if each["kind"] == "PrometheusRule"))
    del rule["spec"]["groups"][0]["rules"][0]["expr"]
    wrong_kind, missing = judged([monitor, rule])
    assert "interval" in wrong_kind
    assert "expr" in missing


# -- Prometheus and Alertmanager ----------------------------------------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_prometheus_takes_its_configuration(tmp_path, where):
    """`promtool check config`, with all files of rules; a key that is misspelt is refused."""
    promtool = need("promtool", "prometheus")
    if where == "compose":
        text, rules = render("prometheus", OPTIONS)["prometheus.yml"], render("prometheus-rules", OPTIONS)
    else:
        maps = {each["metadata"]["name"]: each["data"] for each in kubernetes_objects() if each["kind"] == "ConfigMap"}
        text, rules = maps["prometheus"]["prometheus.yml"], maps["prometheus-rules"]
    write(tmp_path / "rules", {name: text for name, text in rules.items() if name.endswith(".rules.yaml")})
    path = tmp_path / "prometheus.yml"
    document = yaml.safe_load(text.replace("/etc/prometheus/rules", str(tmp_path / "rules")))
    if where == "kubernetes":
        # Debian's Prometheus is built without Kubernetes: what is left of it are facts of its documentation.
        (found,) = document["scrape_configs"][0].pop("kubernetes_sd_configs")
        assert found == {"role": "pod", "selectors": [{"role": "pod", "label": "app.kubernetes.io/name=gate-way"}]}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    code, said = run(promtool, "check", "config", str(path))
    assert code == 0, said
    assert "somaresil.alerts.rules.yaml" in said
    path.write_text(path.read_text().replace("sample_limit", "sample_limits"), encoding="utf-8")
    assert run(promtool, "check", "config", str(path))[0] == 1


@pytest.mark.server
def test_alertmanager_takes_its_configuration_when_somebody_would_be_told(tmp_path):
    """`amtool check-config`: with receivers it is accepted, with the placeholders it is refused; routes are by severity."""
    amtool = need("amtool", "prometheus-alertmanager")
    path = tmp_path / "alertmanager.yml"

    def judged(options):
        path.write_text(render("alertmanager", options)["alertmanager.yml"], encoding="utf-8")
        return run(amtool, "check-config", str(path))

    for to in ("pagerduty", "slack:#gateway", "webhook:http://hooks.example/x", "webhook+bearer:https://hooks.example:8443/pages"):
        code, said = judged(RenderOptions(service="gateway", page_to=to, ticket_to=to))
        assert code == 0, said
    for severity in ("page", "ticket"):
        _, told = run(amtool, "config", "routes", "test", f"--config.file={path}", f"severity={severity}", "service=gateway")
        assert told.splitlines()[0] == severity
    _, told = run(amtool, "config", "routes", "test", f"--config.file={path}", "alertname=FromElsewhere")
    assert told.splitlines()[0] == "ticket"
    for options in (RenderOptions(service="gateway"), RenderOptions(service="gateway", page_to="pagerduty")):
        code, said = judged(options)
        assert code == 1
        assert "scheme" in said.lower()
