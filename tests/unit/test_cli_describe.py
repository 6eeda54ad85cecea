"""``python -m somaresil describe``: every guard of a service, what is surely wrong, what was set for nobody."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from somaresil.cli import main

SERVICE = """
from somaresil import Bulkhead, Resilience
resilience = Resilience("gateway")
resilience.guard("llm.invoke", timeout=10.0, retry=2)
class inner:
    other = Resilience("other")
    other.guard("db", timeout=5.0, bulkhead=Bulkhead(2, 1, 6.0))
"""


@pytest.fixture(autouse=True)
def service(tmp_path, monkeypatch):
    """A module of its own for each test."""
    name = f"service_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SERVICE)
    (tmp_path / f"{name}_broken.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("SOMARESIL_CONFIG", raising=False)
    return name


def test_every_guard_is_shown(service, capsys):
    """With a line that counts; nothing wrong is exit code 0."""
    assert main(["describe", f"{service}:resilience", "--strict"]) == 0
    out, err = capsys.readouterr()
    assert "llm.invoke  (" in out
    assert "  worst case 20.1 s" in out
    assert out.endswith("guards: 1, findings: 0, settings for nobody: 0\n")
    assert err == ""


@pytest.mark.filterwarnings("error")
def test_findings_are_shown_and_strict_ends_with_one(service, capsys):
    """Also those that a deadline brings; the warnings of the import are not repeated."""
    assert main(["describe", f"{service}:inner.other"]) == 0
    assert "! bulkhead.max_wait: the timeout of 5 s" in capsys.readouterr().out
    assert main(["describe", f"{service}:inner.other", "--strict"]) == 1
    assert main(["describe", f"{service}:resilience", "--strict", "--deadline", "20"]) == 1
    assert "[past-deadline]" in capsys.readouterr().out


def test_what_was_set_for_nobody_is_shown(service, capsys, monkeypatch):
    """Strict ends with 1 for it."""
    monkeypatch.setenv("SOMARESIL_GUARD__LLM_INVOK__RETRY", "3")
    assert main(["describe", f"{service}:resilience"]) == 0
    assert "! SOMARESIL_GUARD__LLM_INVOK__RETRY: no guard is called that (did you mean 'LLM_INVOKE'?)\n" in capsys.readouterr().out
    assert main(["describe", f"{service}:resilience", "--strict"]) == 1


def test_it_can_be_had_as_data(service, capsys):
    """JSON and nothing else."""
    assert main(["describe", f"{service}:inner.other", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [guard["guard"] for guard in told["guards"]] == ["db"]
    assert [finding["code"] for finding in told["guards"][0]["findings"]] == ["waits-longer-than-it-works"]
    assert told["unused"] == []


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("{}", "is no Resilience"),
        ("{}:inner", "is no Resilience"),
        ("{}:nothing", "AttributeError"),
        ("{}_broken:resilience", "SystemExit: 3"),
        ("no_such_module_here:resilience", "ModuleNotFoundError"),
        (":resilience", "ValueError"),
    ],
)
def test_what_cannot_be_shown_is_exit_code_two(service, capsys, where, said):
    """With one line that says why."""
    assert main(["describe", where.format(service)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


def test_settings_that_are_wrong_are_told(service, capsys, monkeypatch):
    """Each of them, and it is exit code 2."""
    monkeypatch.setenv("SOMARESIL_GUARD__X__RETRY", "many")
    assert main(["describe", f"{service}:resilience"]) == 2
    assert "SOMARESIL_GUARD__X__RETRY = 'many': expected" in capsys.readouterr().err


def test_the_module_is_found_in_the_folder_that_one_stands_in(tmp_path):
    """As with ``python -m``, when the command itself lies elsewhere."""
    (tmp_path / "here.py").write_text(SERVICE)
    script = (
        "import sys; sys.path = [p for p in sys.path if p]; from somaresil.cli import main; sys.exit(main(['describe', 'here:resilience']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "llm.invoke" in done.stdout
