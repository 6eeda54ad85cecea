"""What is rendered is what the engines take, says the weights of the configuration, and cannot be broken by names."""

from __future__ import annotations

import copy
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import CanaryConfig, ConfigurationError
from somaresil.canary import Phase
from somaresil.canary.render import KINDS, RenderOptions, documents, render
from tests.unit.canary.engines import HOOKS, wrong

CLUSTER = ("flagger", "argo-web", "argo-prometheus", "argo-job", "argo-rollout")
YAML = (*CLUSTER, "github-actions")


def config(**options):
    return CanaryConfig(**{"name": "gateway", "bad": "availability", "steps": [10, 50, 100], **options})


def target(**options):
    return RenderOptions(**{"name": "gateway", "verdict_url": "http://verdicts.soma:8080/canary", "image": "registry/gateway:2", **options})


def refused(kind, *arguments):
    """The paths of all problems."""
    with pytest.raises(ConfigurationError) as raised:
        render(kind, *arguments)
    return [problem.path for problem in raised.value.problems]


@pytest.mark.parametrize("kind", CLUSTER)
def test_each_document_is_one_that_its_engine_takes(kind):
    """With everything that can be said, and with nothing of it."""
    everything = target(secret="verdict-token", burn=14.4, provider="istio", workload="app", service="web", namespace="soma")
    for options in (target(), everything):
        found = list(yaml.safe_load_all(render(kind, config(bad=["availability", "llm_latency_p95"]), options)))
        assert found == documents(kind, config(bad=["availability", "llm_latency_p95"]), options)
        assert [problem for document in found for problem in wrong(document)] == []


@pytest.mark.parametrize(
    ("kind", "path", "replace"),
    [
        ("flagger", ("spec", "analysis", "webhooks", 0, "type"), "confirm-rolout"),
        ("flagger", ("spec", "analysis", "stepWeight"), [10]),
        ("flagger", ("spec", "analysis", "stepWeights", 0), 0.5),
        ("argo-web", ("spec", "metrics", 0, "sucessCondition"), "x"),
        ("argo-web", ("spec", "metrics", 0, "provider", "web", "header"), []),
        ("argo-rollout", ("spec", "strategy", "canary", "steps", 0, "setweight"), 10),
        ("argo-rollout", ("spec", "strategy", "canary", "steps", 1, "pause", "duration"), 300),
        ("argo-job", ("spec", "metrics", 0, "provider", "job", "spec", "template", "spec", "restartPolicy"), "Always"),
    ],
)
def test_a_mistake_in_a_document_is_found(kind, path, replace):
    """The schemas refuse a field that is misspelt and a value of the wrong kind."""
    document = copy.deepcopy(documents(kind, config(), target())[0])
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = replace
    assert wrong(document)


def test_each_webhook_of_flagger_has_a_path_of_its_own():
    """The payload does not say which hook it is."""
    canary, template = documents("flagger", config(), target(secret="verdict-token"))
    hooks = {hook["type"]: hook["url"] for hook in canary["spec"]["analysis"]["webhooks"]}
    assert hooks == {hook: f"http://verdicts.soma:8080/canary/flagger/gateway/{hook}" for hook in HOOKS}
    assert canary["spec"]["analysis"]["metrics"][0]["templateRef"]["name"] == template["metadata"]["name"]
    assert template["spec"]["provider"] == {
        "type": "prometheus",
        "address": "http://verdicts.soma:8080/canary/prom",
        "secretRef": {"name": "verdict-token"},
    }


def test_argo_waits_for_evidence_and_then_asks_a_human():
    """All looks inconclusive is more than the limit; one that is not is enough. A step has its own wait, or that of the options."""
    step = documents("argo-web", config(), target(looks=4))[0]["spec"]["metrics"][0]
    assert (step["count"], step["inconclusiveLimit"], step["failureLimit"]) == (5, 4, 0)
    step = documents("argo-web", config(bake=60.0, longest=360.0), target(looks=4))[0]["spec"]["metrics"][0]
    assert (step["count"], step["inconclusiveLimit"], step["interval"]) == (11, 10, "30s")


def test_the_rollout_names_templates_that_are_rendered():
    """With the same arguments that they declare."""
    (rollout,) = documents("argo-rollout", config(), target())
    canary = rollout["spec"]["strategy"]["canary"]
    uses = [canary["analysis"], *(step["analysis"] for step in canary["steps"] if "analysis" in step)]
    for kind in ("argo-web", "argo-prometheus"):
        templates = {each["metadata"]["name"]: each for each in documents(kind, config(), target(secret="verdict-token"))}
        for use in uses:
            declared = templates[use["templates"][0]["templateName"]]["spec"]["args"]
            assert {each["name"] for each in declared if "valueFrom" not in each} == {each["name"] for each in use["args"]}
    (rollout,) = documents("argo-rollout", config(), target(background=False))
    assert "analysis" not in rollout["spec"]["strategy"]["canary"]


def test_no_token_stands_in_a_document():
    """Only the name of the secret that holds it."""
    for kind in YAML:
        text = render(kind, config(), target(secret="verdict-token"))
        assert "verdict-token" in text or kind in {"argo-rollout", "github-actions"}
        assert re.findall(r"(?i)bearer +(?!\{\{args\.token\}\})\S+", text) == []


def test_what_an_engine_cannot_say_is_refused_at_once():
    """Fractions of a percent, steps without traffic, other bakes in each step, what happens when a step is overdue."""
    steps = [
        Phase("none", 0.0, 60.0, 0),
        Phase("some", 0.005, 60.5, 50),
        Phase("more", 0.5, 300.0, 50, longest=600.0, overdue="promote"),
    ]
    odd = config(steps=steps)
    bare = RenderOptions(name="gateway", workload_kind="Service")
    weights = ["render.config.steps[0]", "render.config.steps[1]"]
    assert refused("flagger", odd, bare) == [
        *weights,
        "render.config.steps",
        "render.config.steps[2].longest",
        "render.target.verdict_url",
    ]
    assert refused("argo-rollout", odd, bare) == [*weights, "render.target.workload_kind", "render.config.steps[1].bake"]
    assert refused("argo-web", odd, bare) == ["render.target.verdict_url", "render.config.steps[2].overdue"]
    assert refused("argo-job", odd, bare) == ["render.target.image", "render.target.verdict_url"]
    assert refused("github-actions", odd, bare) == [
        *weights,
        "render.target.verdict_url",
        "render.config.steps[1].bake",
        "render.config.steps[2].overdue",
    ]
    assert refused("nginx", config(steps=[0.001]), target(key="user; }")) == ["render.config.steps[0]", "render.target.key"]
    assert refused("haproxy", config(steps=[0.001]), target(stable="a b", key="$x")) == [
        "render.config.steps[0]",
        "render.target.stable",
        "render.target.key",
    ]
    assert refused("flagger", config(bake=5.0), target()) == ["render.config.bake"]
    assert refused("github-actions", config(bake=86_400.0), target()) == ["render.config.steps"]
    assert refused("flager", config(), target()) == ["render.kind"]
    assert refused("flagger", None, None) == ["render.config", "render.target"]


def test_names_that_would_be_read_as_something_else_are_refused():
    """Templates of the engines, paths."""
    assert refused("flagger", config(name="a/b", bad="x{{y"), target()) == ["render.config.name", "render.config.bad"]
    assert refused("argo-web", config(name="a{b}"), target()) == ["render.config.name"]


HOSTILE = ["", "A", "-a", "a-", "a.b", "a b", "a\nb", 'a"b', "a: b", "a" * 64, "${{ x }}", "é", None, 7, ["a"]]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_options_are_refused_all_at_once(value):
    """Nothing but DNS labels, addresses, images and plain paths."""
    hostile = "\n'\"${{ secrets.X }}: {"
    with pytest.raises(ConfigurationError) as raised:
        RenderOptions(
            name=value,
            namespace=value,
            verdict_url=f"http://x/?{hostile}",
            provider=hostile,
            interval=1,
            looks=0,
            threshold=0,
            burn=math.nan,
            secret_key=hostile,
            image=hostile,
            slo_file="../x",
            traffic="$(x)",
            port=0,
            workload_kind="Pod",
            background=1,
        )
    found = [problem.path.rpartition(".")[2] for problem in raised.value.problems]
    assert found == [
        *("name", "namespace", "verdict_url", "workload_kind", "port", "provider", "interval", "looks", "background", "threshold"),
        *("burn", "secret_key", "image", "slo_file", "traffic"),
    ]


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://[x", "http://user@x/", "http://x/?a=b", "http://x:0", "http://x:99999", 5])
def test_what_is_no_address_is_refused(url):
    """With a password or a query it is refused too: both would be lost or told."""
    with pytest.raises(ConfigurationError):
        target(verdict_url=url)


WEIGHTS = st.lists(st.integers(1, 100), min_size=1, max_size=8, unique=True).map(sorted)
NAMES = st.from_regex(r"[A-Za-z0-9_.:-]{1,40}", fullmatch=True)
LABELS = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
OBJECTIVES = st.lists(st.text(min_size=1, max_size=20).filter(lambda name: "{{" not in name), min_size=1, max_size=3)


@st.composite
def rollouts(draw):
    """A configuration and options that every engine can say."""
    bake = float(draw(st.integers(10, 600)))
    longest = draw(st.none() | st.integers(601, 2_000))
    given_config = config(
        name=draw(NAMES), bad=draw(OBJECTIVES), steps=draw(WEIGHTS), bake=bake, longest=longest, prove=draw(st.booleans())
    )
    secret, burn = draw(st.none() | LABELS), draw(st.none() | st.floats(0.0, 1e6))
    options = target(name=draw(LABELS), namespace=draw(LABELS), secret=secret, looks=draw(st.integers(1, 50)), burn=burn)
    return given_config, options


@settings(max_examples=60)
@given(rollouts())
def test_whatever_the_configuration_it_is_taken_and_says_the_same_weights(given_rollout):
    """In Flagger's words, in Argo's, in the pipeline's."""
    given_config, options = given_rollout
    expected = [round(phase.weight * 100) for phase in given_config.phases]
    for kind in YAML:
        try:
            text = render(kind, given_config, options)
        except ConfigurationError as cannot:
            paths = {problem.path for problem in cannot.problems}
            assert paths <= {"render.config.steps", *(f"render.config.steps[{number}].longest" for number in range(8))}
            continue
        found = list(yaml.safe_load_all(text))
        assert text == render(kind, given_config, options)
        # The loader reads the key "on" of a workflow as true.
        assert kind == "github-actions" or found == documents(kind, given_config, options)
        assert text.isascii() or any(not name.isascii() for name in given_config.objectives)
        if kind != "github-actions":
            assert [problem for document in found for problem in wrong(document)] == []
        if kind == "flagger":
            assert found[0]["spec"]["analysis"]["stepWeights"] == expected
        elif kind == "argo-rollout":
            steps = found[0]["spec"]["strategy"]["canary"]["steps"]
            assert [step["setWeight"] for step in steps if "setWeight" in step] == expected
            assert {step["pause"]["duration"] for step in steps if "pause" in step} == {f"{given_config.bake:.0f}s"}
        elif kind == "github-actions":
            runs = [step["run"] for step in found[0]["jobs"]["canary"]["steps"] if step.get("run", "").startswith('"$TRAFFIC"')]
            assert [int(run.split()[1]) for run in runs] == [*expected, 0]


def test_the_files_for_proxies_name_what_the_routers_write():
    """The same path, names and key."""
    text = render("nginx", config(), target(key="$cookie_user"))
    assert "include /etc/nginx/canary/gateway.conf;" in text
    assert 'NginxWeights("/etc/nginx/canary/gateway.conf", stable="stable", candidate="candidate", key="$cookie_user"' in text
    text = render("haproxy", config(), target(key="req.cook(user)"))
    assert "str(gateway),map_str_int(/etc/haproxy/canary/gateway.map,0)" in text
    assert "use_backend candidate if { req.cook(user),xxh32,mod(10000),sub(txn.somaresil) lt 0 }" in text


def workflow(**options):
    return documents("github-actions", config(**options), target())[0]


def test_the_workflow_is_one_that_github_takes(tmp_path):
    """By the schema of workflows that check-jsonschema carries; a misspelt key is refused."""
    main = pytest.importorskip("check_jsonschema").main
    for name, change, code in (("good", {}, 0), ("bad", {"permission": {}}, 1)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(render("github-actions", config(), target()) + "".join(f"{key}: {{}}\n" for key in change), encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["--builtin-schema", "vendor.github-workflows", str(path)])
        assert ended.value.code == code


def test_the_workflow_has_no_weakness_that_an_auditor_knows(tmp_path):
    """zizmor in its strictest mind: unpinned actions, injections, excessive permissions, credentials that stay."""
    zizmor = shutil.which("zizmor", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if zizmor is None:
        pytest.skip("zizmor is not installed: it has wheels for some systems")
    path = tmp_path / ".github" / "workflows" / "canary.yaml"
    path.parent.mkdir(parents=True)
    good = render("github-actions", config(), target())
    for text, code in ((good, 0), (good.replace('"$TRAFFIC" 10 "$VERSION"', "${{ inputs.version }}"), 14)):
        path.write_text(text, encoding="utf-8")
        command = [zizmor, "--offline", "--persona=auditor", "--no-progress", str(path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == code, ended.stdout + ended.stderr


def test_the_workflow_may_little_and_injects_nothing():
    """No expression stands in a script; actions are pinned to a commit; no permission but to read; one at a time."""
    found = workflow()
    job = found["jobs"]["canary"]
    assert (found["permissions"], job["permissions"]) == ({}, {"contents": "read"})
    assert found["concurrency"] == {"group": "canary-gateway", "cancel-in-progress": False}
    assert all("${{" not in step.get("run", "") for step in job["steps"])
    uses = [step["uses"] for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", use) for use in uses)
    assert job["steps"][0]["with"] == {"persist-credentials": False}
    for step in job["steps"]:
        assert ("SOMARESIL_TOKEN" in step.get("env", {})) == ("canary verdict" in step.get("run", ""))


def played(tmp_path, verdicts, gate=0, **options):
    """Run the scripts of the workflow as GitHub does, with commands that answer as told; give the weights, and whether it ended well."""
    tools, log = tmp_path / "bin", tmp_path / "log"
    tools.mkdir()
    (tmp_path / "verdicts").write_text("".join(f"{code}\n" for code in verdicts), encoding="utf-8")
    scripts = {
        "somaresil": f"""echo "somaresil $*" >> {log}
if [ "$1" = gate ]; then exit {gate}; fi
code=$(head -n 1 {tmp_path}/verdicts); sed -i 1d {tmp_path}/verdicts; exit "${{code:-0}}" """,
        "traffic": f'printf "traffic %s|%s\\n" "$1" "$2" >> {log}',
        "sleep": "exit 0",
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    job = workflow(**{"bake": 1.0, **options})["jobs"]["canary"]
    hostile = 'v2"; touch pwned; $(touch pwned) `touch pwned`'
    environment = {**os.environ, **job["env"], "PATH": f"{tools}:{os.environ['PATH']}", "VERSION": hostile, "TRAFFIC": "traffic"}
    failed = False
    for step in job["steps"]:
        if "uses" in step or step["name"] == "Install" or failed != ("if" in step):
            continue
        more = dict.fromkeys(step.get("env", {}), "http://prometheus")
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        ended = subprocess.run(command, env={**environment, **more}, cwd=tmp_path, capture_output=True, timeout=30, check=False)
        failed = failed or ended.returncode != 0
    assert not (tmp_path / "pwned").exists()
    lines = log.read_text(encoding="utf-8").splitlines()
    assert all(line.endswith(f"|{hostile}") for line in lines if line.startswith("traffic"))
    return [line.split("|")[0].split()[1] for line in lines if line.startswith("traffic")], not failed


def test_the_workflow_ramps_as_long_as_all_is_well(tmp_path):
    """And nothing is undone."""
    assert played(tmp_path, []) == (["10", "50", "100"], True)


@pytest.mark.parametrize(
    ("verdicts", "gate", "moved"),
    [([1], 0, ["10", "0"]), ([2] * 100_000, 0, ["10", "0"]), ([], 1, ["10", "0"]), ([], 2, ["10", "0"])],
    ids=["proven", "nothing known", "blocked", "gate unknown"],
)
def test_the_workflow_undoes_what_is_not_well(tmp_path, verdicts, gate, moved):
    """A proven failure while it bakes, no verdict at the end, a gate that blocks or does not know."""
    assert played(tmp_path, verdicts, gate) == (moved, False)


def test_what_is_rendered_is_what_was_rendered_before():
    """The same input, the same bytes, in an order that people read: a change shows in a diff as what it is."""
    before, after = (render("flagger", config(steps=steps), target()).splitlines() for steps in ([10, 50, 100], [10, 40, 100]))
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [("      - 50", "      - 40")]
    assert len(KINDS) == len(set(KINDS)) == 8
