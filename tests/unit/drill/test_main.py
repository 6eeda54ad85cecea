"""The drill with processes as a command: what is missing, what it writes, and how it ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

pytest.importorskip("httpx")
pytest.importorskip("redis")

from somaresil.drill import Options
from somaresil.drill import main as command
from somaresil.drill import processes as real
from tests.unit.drill.test_report import GOOD, LOST, report_of


class Stack:
    """Starts nothing."""

    left = 0
    told_again = False

    def __init__(self, seed):
        self.seed = seed

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        if Stack.told_again:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        Stack.left += 1


@pytest.fixture(autouse=True)
def _stack(monkeypatch):
    monkeypatch.setattr(real, "absent", list)
    monkeypatch.setattr(real, "Processes", Stack)
    monkeypatch.setattr(Stack, "left", 0)
    monkeypatch.setattr(Stack, "told_again", False)


def drill(monkeypatch, run):
    class Drill:
        def __init__(self, stack, strikes, *, seed, rate, tell):
            self.told = (stack.seed, len(strikes), seed, rate)

        async def run(self):
            return await run(self)

    monkeypatch.setattr(command, "Drill", Drill)


def test_programs_that_are_missing_are_named_with_what_does_without(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(real, "absent", lambda: ["redis-server", "prometheus"])
    assert command.main(Options(out=str(tmp_path))) == 2
    said = capsys.readouterr().err
    assert "not on PATH: redis-server, prometheus." in said
    assert "apt-get install redis-server prometheus; --virtual does without" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("verdicts", "code"), [([GOOD] * 73, 0), ([GOOD] * 73 + [LOST] * 9, 1)])
def test_the_report_is_written_and_its_grade_is_the_exit_code(monkeypatch, tmp_path, capsys, verdicts, code):
    async def run(self):
        assert self.told == (11, 4, 11, 30.0)
        return report_of(*verdicts)

    drill(monkeypatch, run)
    assert command.main(Options(seed=11, faults=4, rate=30.0, out=str(tmp_path / "new"), json=True)) == code
    told = capsys.readouterr()
    assert json.loads(told.out) == json.loads((tmp_path / "new" / "drill.json").read_text(encoding="utf-8"))
    assert told.err.startswith("starting gateways")
    assert Stack.left == 1


def test_a_signal_ends_it_properly_and_a_second_does_not_break_off_the_cleaning_up(monkeypatch, tmp_path, capsys):
    async def run(_):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    drill(monkeypatch, run)
    monkeypatch.setattr(Stack, "told_again", True)
    assert command.main(Options(out=str(tmp_path))) == 128 + signal.SIGTERM
    assert "somaresil drill: ended by SIGTERM; its processes and files are gone" in capsys.readouterr().err
    assert Stack.left == 1
    assert list(tmp_path.iterdir()) == []


def test_a_cancellation_that_nobody_asked_for_is_no_end(monkeypatch, tmp_path):
    async def run(_):
        raise asyncio.CancelledError

    drill(monkeypatch, run)
    with pytest.raises(asyncio.CancelledError):
        command.main(Options(out=str(tmp_path)))
    assert Stack.left == 1
