"""Each protection of docs/security.md is taken away, line by line, in a copy of the package: its tests have to notice.

A promise whose line can be deleted while every test stays green is no promise. This is the test of those tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Protection(NamedTuple):
    """One line that keeps somebody out."""

    threat: int
    promise: str
    file: str
    line: str
    without: str
    """What stands there when the protection is gone."""
    tests: str
    """Where its tests are."""
    only: str = ""
    """Which of them, as for ``-k``."""


PROTECTIONS = (
    Protection(
        1,
        "chaos needs the switch of the environment",
        "chaos/permission.py",
        'os.environ.get(SWITCH) != "1"',
        "False",
        "unit/chaos/test_permission.py",
    ),
    Protection(
        1,
        "chaos needs the code to opt in",
        "chaos/permission.py",
        "if self.ceilings is None:",
        "if False:",
        "unit/chaos/test_permission.py",
    ),
    Protection(
        1,
        "production needs a second key",
        "chaos/permission.py",
        "elif _is_production(place.environment) and",
        "elif False and",
        "unit/chaos/test_permission.py",
    ),
    Protection(1, "strangers control nothing", "control/app.py", "if actor is None:", "if False:", "unit/control/test_app.py"),
    Protection(
        1,
        "no dashboard without an authenticator",
        "dashboard/people.py",
        'check_authenticator(check, "auth", auth, hint)',
        "pass",
        "unit/dashboard_app/test_people.py",
    ),
    Protection(
        1,
        "an authenticator that knows a stranger is refused",
        "mounted/request.py",
        "said = copy_context().run(_said_of_a_stranger, auth)",
        "said = None",
        "unit/mounted/test_strangers.py",
    ),
    Protection(
        1,
        "pages of other sites send nothing",
        "mounted/sender.py",
        "if _normal(origin) not in self._origins | {here}:",
        "if False:",
        "unit/control/test_app.py",
    ),
    Protection(
        1,
        "what changes something has a token",
        "dashboard/tokens.py",
        "return good and self._clock.time() < int(until)",
        "return True",
        "unit/dashboard_app/test_controls.py",
    ),
    Protection(
        2,
        "a plan is signed",
        "chaos/token.py",
        'if not hmac.compare_digest(expected.encode("ascii"), mac.encode("ascii")):',
        "if False:",
        "unit/chaos/test_token.py",
    ),
    Protection(2, "a plan is for this service", "chaos/token.py", "if plan.audience != audience:", "if False:", "unit/chaos/test_token.py"),
    Protection(2, "a plan ends", "chaos/token.py", "if now >= plan.expires:", "if False:", "unit/chaos/test_token.py"),
    Protection(
        2, "a plan is used so often", "chaos/token.py", "if most is not None and entry[0] >= most:", "if False:", "unit/chaos/test_token.py"
    ),
    Protection(
        3,
        "rows of a metric have an end",
        "integrations/_readings.py",
        "if len(rows) <= limit and",
        "if True or",
        "unit/integrations/test_prometheus.py",
        "two_hundred",
    ),
    Protection(3, "routes have an end", "routes.py", "if len(self._cells) >= _MOST:", "if False:", "unit/test_routes.py"),
    Protection(
        4,
        "no text steers a terminal or forges a line",
        "eventtext.py",
        "character.isprintable() and character != ",
        "character != ",
        "unit/integrations/test_logging.py",
    ),
    Protection(
        4,
        "messages of exceptions stay out of facts",
        "eventtext.py",
        'if field.name == "last_error":',
        "if False:",
        "unit/integrations/test_logging.py",
    ),
    Protection(
        5,
        "no address has a password in it",
        "integrations/_prometheus_api.py",
        '"@" not in parts.netloc and',
        "True and",
        "unit/integrations/test_prometheus_query.py",
    ),
    Protection(
        5,
        "addresses are of the web",
        "integrations/_prometheus_api.py",
        'parts.scheme in {"http", "https"} and',
        "True and",
        "unit/integrations/test_prometheus_query.py",
    ),
    Protection(
        5,
        "an answer has an end",
        "integrations/_prometheus_api.py",
        "if len(text) > _LARGEST:",
        "if False:",
        "unit/integrations/test_prometheus_query.py",
    ),
    Protection(
        5,
        "commands ask no address with a password in it",
        "remote.py",
        'plain = "@" not in parts.netloc and',
        "plain = True and",
        "security/test_injection.py",
        "refused_before_anybody_is_asked",
    ),
    Protection(
        6, "no alias in a file", "settings/files.py", "if isinstance(event, yaml.AliasEvent):", "if False:", "unit/settings/test_files.py"
    ),
    Protection(6, "no name twice in a file", "settings/files.py", "if name in found:", "if False:", "unit/settings/test_files.py"),
    Protection(
        6,
        "a file has a greatest depth",
        "settings/files.py",
        "if deeper_than(data, DEEPEST):",
        "if False:",
        "unit/settings/test_files.py",
    ),
    Protection(
        7,
        "resources have a ceiling",
        "chaos/resources/limits.py",
        "bounds = [ceiling(most, held), Bound(available - memory_reserve(total)",
        "bounds = [Bound(available - memory_reserve(total)",
        "unit/chaos/test_machine.py unit/chaos/test_resources.py",
    ),
    Protection(
        8,
        "guesses are counted",
        "mounted/request.py",
        "return self._limit.blocks(scope)",
        "return False",
        "unit/control/test_auth.py unit/control/test_app.py",
    ),
    Protection(
        8,
        "what holds secrets is not written down",
        "mounted/auth.py",
        'raise TypeError("a BearerToken is not',
        'return object.__reduce_ex__(self, 2) or ("a BearerToken is not',
        "unit/control/test_auth.py",
    ),
    Protection(9, "a lease ends by the clock", "chaos/run.py", "if now >= self._deadline:", "if False:", "unit/chaos/test_lease.py"),
    Protection(
        10,
        "a defect in our books is not the caller's",
        "guard/core.py",
        'self.listeners.defect("settling a good call", defect, self.clock.time())',
        "raise",
        "behaviour unit/guard",
        "defect or raises or books",
    ),
    Protection(
        10,
        "the gate takes a defect for no answer",
        "gate/command.py",
        "except Exception as defect:",
        "except ZeroDivisionError as defect:",
        "unit/gate/test_command.py",
    ),
)


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """A copy of the package."""
    folder = tmp_path_factory.mktemp("without")
    shutil.copytree(ROOT / "src" / "somaresil", folder / "somaresil", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_each_of_the_ten_threats_has_a_protection_here():
    assert {each.threat for each in PROTECTIONS} == set(range(1, 11))


def _told():
    """The tests of each threat, as docs/security.md names them."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| # | tests |\n|---|---|\n")
    rows = [line.split("|") for line in table.partition("\n\n")[0].splitlines()]
    return {int(row[1]): set(re.findall(r"`([^`]+)`", row[2])) for row in rows}


def test_the_page_names_the_tests_of_each_threat_and_they_are_there():
    """Those above, and perhaps more; nothing of this folder is left out."""
    told = _told()
    needed = {threat: {path for each in PROTECTIONS if each.threat == threat for path in each.tests.split()} for threat in range(1, 11)}
    assert {threat: paths - told.get(threat, set()) for threat, paths in needed.items() if paths - told.get(threat, set())} == {}
    assert sorted(told) == sorted(needed)
    named = {path for paths in told.values() for path in paths}
    assert {path for path in named if not (ROOT / "tests" / path).exists()} == set()
    here = {f"security/{path.name}" for path in (ROOT / "tests" / "security").glob("test_*.py")}
    assert here - named == {"security/test_protections.py"}


@pytest.mark.parametrize("protection", PROTECTIONS, ids=lambda each: each.promise.replace(" ", "-"))
def test_without_it_a_test_fails(copy, protection):
    file = copy / "somaresil" / protection.file
    before = file.read_text(encoding="utf-8")
    assert before.count(protection.line) == 1, "the line has moved: say here where it is now"
    file.write_text(before.replace(protection.line, protection.without), encoding="utf-8")
    try:
        paths = [str(ROOT / "tests" / path) for path in protection.tests.split()]
        chosen = ["-k", protection.only] if protection.only else []
        options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "--timeout", "60", "--no-header", "--tb", "line"]
        environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        for name in [name for name in environment if name.startswith(("PYTEST_", "COV_"))]:
            del environment[name]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *chosen, *paths],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
    finally:
        file.write_text(before, encoding="utf-8")
    assert done.returncode == 1, f"ended with {done.returncode}: {done.stdout[-1500:]}{done.stderr[-500:]}"
