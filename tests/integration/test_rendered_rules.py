"""Rules of a service before promtool: accepted, and each alert fires when it should and only then; a rule that is wrong is noticed."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from somaresil.render import RenderOptions, render
from somaresil.render.alerts import ALERTS, STACK
from somaresil.render.rules import ALERTS_FILE, RECORDED_FILE, STACK_FILE
from somaresil.slo import defaults

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def judge():
    """Give a function that says what promtool thinks of files: exit codes of check and test, and its words."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: `apt-get install prometheus`, or run `nox -s tests` as root")

    def ask(files):
        with TemporaryDirectory() as folder:
            for name, text in files.items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            said = [
                subprocess.run(
                    [promtool, what, "rules", *sorted(name for name in files if name.endswith(ending))],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                for what, ending in (("check", ".rules.yaml"), ("test", ".test.yaml"))
            ]
        return said[0].returncode, said[1].returncode, "".join(each.stdout + each.stderr for each in said)

    return ask


SERVICE = {
    "plain": RenderOptions(service="gateway"),
    "with everything": RenderOptions(
        service="gate/way",
        environment="prod-eu",
        series={"job": 'a"b'},
        labels={"team": "{{ $labels.guard }}"},
        runbook_base="https://docs.example/runbooks",
        grafana_url="https://grafana.example/g",
        slos=defaults.ALL,
        retention=timedelta(days=400),
        cap_unreachable=True,
        sloth=True,
    ),
}


@pytest.mark.parametrize("options", SERVICE.values(), ids=SERVICE)
def test_promtool_accepts_and_passes_what_is_rendered(judge, options):
    """Every alert fires in its history, says what it should, and is silent in the others."""
    checked, tested, said = judge(render("prometheus-rules", options))
    assert (checked, tested) == (0, 0), said[-3_000:]


WRONG = {"never": "vector(0) > 1", "always": "vector(1)"}


@pytest.mark.parametrize("how", WRONG)
def test_the_tests_notice_an_alert_that_is_wrong(judge, how):
    """Whichever alert never fires, or always does: its tests fail, and those of no other."""
    files = {name: text for name, text in render("prometheus-rules", SERVICE["plain"]).items() if name != "somaresil.recorded.test.yaml"}
    alerts = 0
    for file in (ALERTS_FILE, STACK_FILE):
        document = yaml.safe_load(files[file])
        for rule in document["groups"][0]["rules"]:
            rule["expr"] = WRONG[how]
            alerts += 1
        files[file] = yaml.safe_dump(document)
    assert alerts == len(ALERTS) + len(STACK)
    checked, tested, said = judge(files)
    assert checked == 0
    assert tested == 1
    pattern = r"name: (\w+) " + {"never": "fires", "always": "is silent"}[how]
    assert set(re.findall(pattern, said)) == {alert.name for alert in (*ALERTS, *STACK)}


def test_the_tests_notice_a_record_that_is_wrong(judge):
    """Twice of whatever is recorded is not what is expected."""
    files = render("prometheus-rules", SERVICE["plain"])
    document = yaml.safe_load(files[RECORDED_FILE])
    rules = document["groups"][0]["rules"]
    for rule in rules:
        rule["expr"] = f"2 * ({rule['expr']})"
    _, tested, said = judge({**files, RECORDED_FILE: yaml.safe_dump(document)})
    assert tested == 1
    assert set(re.findall(r"expr: \"abs\(([\w:]+)\{", said)) == {rule["record"] for rule in rules}
