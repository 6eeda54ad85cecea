"""What is rendered for Argo Rollouts, before the schemas of its own CRDs, as an npm package carries them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from somaresil import CanaryConfig
from somaresil.canary.render import RenderOptions, documents

PACKAGE = "@kubernetes-models/argo-rollouts"
VERSION = "2.0.0"
JUDGE = f"""
import {{AnalysisTemplate, Rollout}} from "{PACKAGE}/argoproj.io/v1alpha1";
import fs from "node:fs";
const kinds = {{AnalysisTemplate, Rollout}};
const said = JSON.parse(fs.readFileSync(0)).map(document => {{
    try {{ new kinds[document.kind](document).validate(); return ""; }} catch (error) {{ return String(error.message); }}
}});
console.log(JSON.stringify(said));
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """Give a function that says what is wrong with each document; skips by name where npm has nothing."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed: `apt-get install npm`")
    folder = tmp_path_factory.mktemp("schemas")
    (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", f"{PACKAGE}@{VERSION}"]
    try:
        made = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "HOME": str(folder)}
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch {PACKAGE} in time")
    if made.returncode:
        pytest.skip(f"npm cannot fetch {PACKAGE}: {made.stderr[-300:]}")
    (folder / "judge.js").write_text(JUDGE, encoding="utf-8")

    def ask(found):
        told = subprocess.run(
            [node, "judge.js"], cwd=folder, input=json.dumps(found), capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(told.stdout)

    return ask


@pytest.mark.slow
def test_argo_takes_what_is_rendered_for_it(judge):
    """Every form, with everything that can be said; a value of the wrong kind and a field that is missing are refused."""
    config = CanaryConfig(name="gateway", bad=["availability", "llm_latency_p95"], steps=[1, 10, 50, 100])
    target = RenderOptions(
        name="gateway", verdict_url="https://verdicts.soma:8443/canary", image="registry/gateway:2", secret="verdict-token"
    )
    found = [each for kind in ("argo-web", "argo-prometheus", "argo-job", "argo-rollout") for each in documents(kind, config, target)]
    assert len(found) == 6
    assert judge(found) == [""] * 6
    template, rollout = found[0], found[-1]
    template["spec"]["metrics"][0]["provider"]["web"].pop("url")
    rollout["spec"]["strategy"]["canary"]["steps"][0]["setWeight"] = "ten"
    missing, wrong = judge([template, rollout])
    assert "url" in missing
    assert "setWeight" in wrong
