"""The conditions that are rendered for Argo Rollouts, in the real language of its conditions, and what a run of them comes to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from somaresil import CanaryConfig
from somaresil.canary.render import RenderOptions, documents

SOURCE = Path(__file__).resolve().parents[1] / "peers" / "argo_conditions.go"
LIBRARIES = Path("/usr/share/gocode")
RESULTS = {
    "argo-web": {"pass": {"verdict": "pass", "reason": ""}, "fail": {"verdict": "fail"}, "wait": {"verdict": "wait"}, "error": "no JSON"},
    "argo-prometheus": {"pass": [1.0], "fail": [-1.0], "wait": [0.0], "nothing": []},
}


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    """Give a function that says what each (success, failure, result) comes to; skips by name without Debian's packages."""
    go = shutil.which("go")
    if go is None or not (LIBRARIES / "src" / "github.com" / "antonmedv" / "expr").exists():
        pytest.skip("golang-go and golang-github-antonmedv-expr-dev are not installed: run `nox -s tests` as root")
    folder = tmp_path_factory.mktemp("go")
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(LIBRARIES), "GOCACHE": str(folder / "cache"), "GOFLAGS": ""}
    binary = folder / "conditions"
    subprocess.run([go, "build", "-o", binary, SOURCE], env=environment, check=True, capture_output=True, timeout=170)

    def ask(measurements):
        asked = json.dumps([{"success": success, "failure": failure, "result": result} for success, failure, result in measurements])
        told = subprocess.run([binary], input=asked, capture_output=True, text=True, timeout=30, check=True)
        return [phase.partition(":")[0] for phase in json.loads(told.stdout)]

    return ask


def run_of(metric, phases):
    """What a run comes to when its measurements come to these, by the rules of Argo's controller; None: it goes on."""
    count = {"Failed": 0, "Inconclusive": 0, "Successful": 0, "Error": 0}
    errors = 0
    for phase in phases:
        count[phase] += 1
        errors = errors + 1 if phase == "Error" else 0
        if count["Failed"] > metric.get("failureLimit", 0):
            return "Failed"
        if count["Inconclusive"] > metric.get("inconclusiveLimit", 0):
            return "Inconclusive"
        if errors > metric.get("consecutiveErrorLimit", 4):
            return "Error"
        if "count" in metric and count["Failed"] + count["Inconclusive"] + count["Successful"] >= metric["count"]:
            return "Successful"
    return None


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", RESULTS)
def test_each_verdict_comes_to_what_it_should(language, kind):
    """pass goes on, fail aborts, wait is looked at again and ends with a human; the background minds failures alone."""
    config = CanaryConfig(name="gateway", bad="availability", steps=[10, 50, 100])
    target = RenderOptions(name="gateway", verdict_url="http://verdicts:8080", looks=3)
    step, guard = (each["spec"]["metrics"][0] for each in documents(kind, config, target))
    results = RESULTS[kind]

    def phases(metric, *words):
        return language([(metric.get("successCondition", ""), metric["failureCondition"], results[word]) for word in words])

    assert phases(step, "pass", "fail", "wait") == ["Successful", "Failed", "Inconclusive"]
    assert phases(guard, "pass", "fail", "wait") == ["Successful", "Failed", "Successful"]
    if "nothing" in results:
        assert phases(step, "nothing") == ["Inconclusive"]
        assert phases(guard, "nothing") == ["Successful"]
    else:
        assert phases(step, "error") == ["Error"]
        assert run_of(step, phases(step, *["error"] * 5)) == "Error"
        assert run_of(guard, phases(guard, *["error"] * 50)) is None
    assert run_of(step, phases(step, *["wait"] * 4)) == "Inconclusive"
    assert run_of(step, phases(step, *["wait"] * 3)) is None
    assert run_of(step, phases(step, "wait", "wait", "wait", "pass")) == "Successful"
    assert run_of(step, phases(step, "pass", "pass", "fail")) == "Failed"
    assert run_of(guard, phases(guard, *["wait"] * 50, "pass")) is None
    assert run_of(guard, phases(guard, *["wait"] * 50, "fail")) == "Failed"
