"""Workflows that scan: GitHub takes them, an auditor finds nothing, and their scripts are scripts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from somaresil.errors import ConfigurationError
from somaresil.render import RenderOptions, render

KINDS = ("security-workflow", "trivy", "sbom")


def document(kind, **options):
    (text,) = render(kind, RenderOptions(service="gateway", **options)).values()
    return text, yaml.load(text, yaml.BaseLoader)


def steps_of(kind):
    (job,) = document(kind)[1]["jobs"].values()
    return job["steps"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_workflow_that_github_takes(tmp_path, kind):
    """By the schema of workflows that check-jsonschema carries; a misspelt key is refused."""
    main = pytest.importorskip("check_jsonschema").main
    for name, more, code in (("good", "", 0), ("bad", "permission: {}\n", 1)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(document(kind)[0] + more, encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["--builtin-schema", "vendor.github-workflows", str(path)])
        assert ended.value.code == code


@pytest.mark.parametrize("kind", KINDS)
def test_an_auditor_finds_no_weakness(tmp_path, kind):
    zizmor = shutil.which("zizmor", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if zizmor is None:
        pytest.skip("zizmor is not installed: it has wheels for some systems")
    path = tmp_path / ".github" / "workflows" / "scan.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(document(kind)[0], encoding="utf-8")
    ended = subprocess.run(
        [zizmor, "--offline", "--persona=auditor", "--no-progress", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_its_scripts_are_scripts_without_expressions(kind):
    scripts = [step["run"] for step in steps_of(kind) if "run" in step]
    assert scripts
    for script in scripts:
        assert "${{" not in script
        ended = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=20, check=False)
        assert ended.returncode == 0, ended.stderr


def test_no_job_may_more_than_it_needs():
    for kind, allowed in (
        ("security-workflow", {"contents": "read", "security-events": "write"}),
        ("trivy", {"contents": "read", "security-events": "write"}),
        ("sbom", {"contents": "write"}),
    ):
        _, said = document(kind)
        (job,) = said["jobs"].values()
        assert (said["permissions"], job["permissions"]) == ({}, allowed)


def test_trivy_runs_only_by_its_digest(tmp_path):
    (script,) = [step["run"] for step in steps_of("trivy") if "looked at" in step.get("name", "")]
    for image, code in (("trivy:latest", 2), ("", 2), ("trivy@sha256:" + "a" * 64, 0)):
        ended = subprocess.run(
            ["bash", "-c", script], env={**os.environ, "TRIVY_IMAGE": image}, capture_output=True, timeout=20, check=False
        )
        assert ended.returncode == code


def test_what_is_installed_is_words_and_nothing_that_a_shell_would_run():
    assert "requirements.txt" in document("sbom", install="-r requirements.txt")[0]
    for wrong in ("$(id)", "a; b", "", "a  b", "a|b"):
        with pytest.raises(ConfigurationError, match="words for pip install"):
            RenderOptions(service="gateway", install=wrong)
