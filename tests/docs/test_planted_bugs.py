"""The page about planted bugs shows code that is there, and schedules that break what it says they break."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from somaresil import ChaosPlan, FaultWindow
from tests.planted import services

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "testing" / "planted-bugs.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"<!-- breaks: (\w+), not (\w+) -->\n```python\n(.+?)\n```", PAGE)
CUT = re.findall(r"<!-- cut from (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("bug", "mended", "line"), SHOWN, ids=[bug for bug, _, _ in SHOWN])
def test_a_shown_schedule_breaks_the_bug_and_nothing_else(bug, mended, line):
    """Run against the service with the bug, and against the mended one."""
    plan = eval(line, {"ChaosPlan": ChaosPlan, "FaultWindow": FaultWindow})
    assert repr(plan) == line
    assert getattr(services, bug).run(plan).broken
    assert getattr(services, mended).check(plan).ok


def test_every_bug_is_shown():
    """Six of them, each with its code."""
    from tests.planted.test_planted_bugs import BUGS

    assert [bug for bug, _, _ in SHOWN] == list(BUGS)
    assert len(CUT) == len(BUGS)


@pytest.mark.parametrize(("file", "code"), CUT, ids=range(len(CUT)))
def test_shown_code_is_cut_from_the_service(file, code):
    """Word for word."""
    assert code in (ROOT / file).read_text(encoding="utf-8")
