"""Colours: one place decides, and nothing that a terminal would obey comes through a pipe unless it is asked for."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from somaresil import colour
from somaresil.cli import main
from somaresil.demo.canary.terminal import print_report
from somaresil.load_command.progress import PlainProgress, progress_for
from tests.unit.demo.test_canary_report import promoted, report, rolled_back
from tests.unit.test_cli_all import COMMANDS, options
from tests.unit.test_explain import SERVICE
from tests.unit.top_command.kit import NAME, TOKEN, serving

SOURCES = Path(__file__).parents[2] / "src" / "somaresil"
COLOURFUL = {"demo", "demo canary", "load run", "top"}
ESCAPE = "\x1b"


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    """An environment that says nothing about colours, on a terminal that can draw."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.parametrize(
    ("choice", "no_color", "force_color", "term", "terminal", "coloured"),
    [
        ("auto", None, None, "xterm", True, True),
        ("auto", None, None, "xterm", False, False),
        ("auto", None, None, "dumb", True, False),
        ("auto", None, None, "", True, False),
        ("auto", None, "1", "xterm", False, True),
        ("auto", None, "1", "dumb", True, True),
        ("auto", None, "", "xterm", False, False),
        ("auto", "1", None, "xterm", True, False),
        ("auto", "0", None, "xterm", True, False),
        ("auto", "", None, "xterm", True, True),
        ("auto", "1", "1", "xterm", True, False),
        ("always", "1", None, "dumb", False, True),
        ("never", None, "1", "xterm", True, False),
    ],
)
def test_the_option_comes_before_no_color_and_that_before_force_color_and_that_before_the_terminal(
    monkeypatch, choice, no_color, force_color, term, terminal, coloured
):
    """What is empty says nothing. What rich makes of it is the same."""
    for name, value in (("NO_COLOR", no_color), ("FORCE_COLOR", force_color), ("TERM", term)):
        if value is not None:
            monkeypatch.setenv(name, value)
    stream = Terminal() if terminal else io.StringIO()
    with colour.chosen(choice):
        assert colour.wanted(stream) is coloured
        console = Console(**colour.for_console(stream))
    console.print("words", style="red")
    assert ("\x1b[31m" in stream.getvalue()) is coloured


def test_what_was_chosen_ends_with_the_command():
    with colour.chosen("always"):
        assert colour.wanted(io.StringIO())
    assert not colour.wanted(io.StringIO())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_has_the_option_when_it_prints_colours(name):
    assert ("--color" in options(name)) == (name in COLOURFUL)


@pytest.mark.parametrize(
    "line",
    [
        "explain llm.invoke {service}",
        "describe {service}",
        "explain x no_such_module",
        "top {url}",
        "top {url} --once --guard llm.invoke",
        "load template",
        "load check {scenario}",
        "load run no/such/file",
        "gameday check no/such/file",
        "doctor no/such/file",
        "scan --policy no/such/file",
        "init no/such/file",
        "gate no/such/file",
        "render grafana-dashboards --service gateway",
        "demo --duration 0.1",
        "demo canary --duration 0.1",
    ],
)
def test_no_escape_comes_through_a_pipe_from_what_a_command_does(line, tmp_path, monkeypatch, capsys):
    """Whatever it does, and whether it can be done."""
    name = f"coloured_{re.sub('[^a-z0-9]', '_', tmp_path.name.lower())}"
    (tmp_path / f"{name}.py").write_text(SERVICE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(NAME, TOKEN)
    main(["load", "template"])
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(capsys.readouterr().out, encoding="utf-8")
    with serving() as (_, url):
        try:
            main(line.format(service=f"{name}:resilience", url=url, scenario=scenario).split())
        except SystemExit as ended:
            assert ended.code  # noqa: PT017 - wrong arguments
    said = capsys.readouterr()
    assert said.out + said.err
    assert ESCAPE not in said.out + said.err


def test_a_view_is_coloured_in_a_pipe_when_that_is_asked_for(monkeypatch, capsys):
    """And the words are the same."""
    monkeypatch.setenv(NAME, TOKEN)
    monkeypatch.setenv("COLUMNS", "100")
    with serving() as (_, url):
        assert main(["top", url, "--once", "--color", "always"]) == 0
        coloured = capsys.readouterr().out
        assert main(["top", url, "--once", "--json", "--color", "always"]) == 0
        assert ESCAPE not in capsys.readouterr().out
        assert main(["top", url, "--once"]) == 0
    assert ESCAPE in coloured
    stripped = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines()]
    assert stripped == capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("choice", "escaped"), [("auto", False), ("always", True), ("never", False)])
def test_the_report_of_a_demo_is_coloured_in_a_pipe_only_when_that_is_asked_for(choice, escaped):
    out = io.StringIO()
    with colour.chosen(choice):
        print_report(report(rolled_back(), promoted()), out)
    assert (ESCAPE in out.getvalue()) is escaped


def test_what_changes_in_place_is_for_terminals_whatever_is_said_about_colours(monkeypatch):
    """A pipe gets lines."""
    with colour.chosen("always"):
        assert isinstance(progress_for(io.StringIO(), None, quiet=False), PlainProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(Terminal(), None, quiet=False), PlainProgress)


def test_no_other_module_asks_for_itself():
    """Neither the terminal nor the environment; only questions to a person look at the keyboard."""
    asks = re.compile(r"(?<!stdin)\.isatty\(\)|NO_COLOR|FORCE_COLOR|is_dumb_terminal|\bConsole\((?!\*\*for_console\()")
    found = {
        (path.relative_to(SOURCES).as_posix(), line.strip())
        for path in SOURCES.rglob("*.py")
        if path.name != "colour.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if asks.search(line) and not line.strip().startswith('"')
    }
    assert found == {("top_command/screen.py", "if not stream.isatty():")}
