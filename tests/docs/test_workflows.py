"""The workflows of this repository: by the schema, without a finding of zizmor, pinned, and permitted what they need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from check_jsonschema import main

from somaresil.cli import main as command

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_it_is_a_workflow(path):
    """By the schema that GitHub's workflows have."""
    with pytest.raises(SystemExit) as ended:
        main(["--builtin-schema", "vendor.github-workflows", str(path)])
    assert ended.value.code == 0


def test_zizmor_finds_nothing():
    """Looked at as an auditor would, without the network."""
    zizmor = shutil.which("zizmor", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if zizmor is None:
        pytest.skip("zizmor is not installed: it has wheels for some systems")
    asked = [zizmor, "--offline", "--persona=auditor", "--no-progress", str(ROOT / ".github")]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_and_every_job_may_do_only_what_it_says(path):
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert said["permissions"] == {}
    for job in said["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
            assert "${{" not in step.get("run", "")


def test_nothing_is_published_by_a_secret():
    """Neither a password nor a token: PyPI knows the workflow."""
    text = "".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    assert "secrets." not in text
    published = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))["jobs"]["publish"]
    assert set(published["permissions"]) == {"id-token", "attestations"}
    assert published["needs"] == "build"


def test_the_sessions_that_are_named_are_there():
    """A matrix with a session that is gone would fail every week, and nobody would look."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    source = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert [name for name in jobs["weekly"]["strategy"]["matrix"]["session"] if f"def {name}(" not in source] == []


def test_what_scans_this_repository_is_what_is_rendered_for_a_service(capsys):
    """But for the scanner, which is that of the checkout: a release of it may not be there yet."""
    assert command(["render", "security-workflow", "--service", "somaresil"]) == 0
    rendered, found = re.subn(r"somaresil\[scan,yaml\]==[^\"]+", ".[scan,yaml]", capsys.readouterr().out)
    assert found == 1
    assert yaml.safe_load(rendered) == yaml.safe_load((ROOT / ".github" / "workflows" / "scan.yml").read_text(encoding="utf-8"))
