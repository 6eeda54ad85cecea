"""The command line: what it prints, what it returns, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import somaresil.demo
import somaresil.demo.live.main
import somaresil.demo.main
from somaresil import __version__
from somaresil.cli import main
from somaresil.demo.live import LiveOptions


def test_version_is_printed_by_the_module_too():
    """`python -m somaresil --version` prints the version and succeeds."""
    done = subprocess.run([sys.executable, "-m", "somaresil", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"somaresil {__version__}\n")


def test_without_a_command_the_help_is_shown_as_an_error(capsys):
    """Nothing to do is exit code 2, with the commands on stderr."""
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "demo" in shown.err
    assert "exit codes" in shown.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--duration", "1"], "'1': expected seconds from 5 to 300"),
        (["--duration", "nan"], "'nan': expected seconds from 5 to 300"),
        (["--rate", "0"], "'0': expected requests a second from 1 to 500"),
        (["--rate", "fast"], "'fast': expected requests a second from 1 to 500"),
        (["--seed", "x"], "invalid int value: 'x'"),
        (["--frequency", "3"], "unrecognized arguments: --frequency 3"),
    ],
)
def test_wrong_arguments_say_what_is_allowed(capsys, arguments, said):
    """A value that cannot be used ends with exit code 2 before anything is started."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_arguments_reach_the_demo(monkeypatch):
    """What the user chose is what the demo gets, and its exit code is the command's."""
    seen = []
    monkeypatch.setattr(somaresil.demo.main, "main", lambda options: seen.append(options) or 1)
    code = main(["demo", "--duration", "12.5", "--rate", "9", "--seed", "-3", "--json", "--prometheus"])
    assert code == 1
    assert seen == [somaresil.demo.Options(duration=12.5, rate=9.0, seed=-3, json=True, prometheus=True)]


def test_defaults_of_the_command_are_those_of_the_options(monkeypatch):
    """The help text and the options class cannot drift apart."""
    seen = []
    monkeypatch.setattr(somaresil.demo.main, "main", lambda options: seen.append(options) or 0)
    assert main(["demo"]) == 0
    assert seen == [somaresil.demo.Options()]


def test_arguments_reach_the_live_demo(monkeypatch):
    """What the user chose is what it gets; without a word it gets the defaults of its options."""
    seen = []
    monkeypatch.setattr(somaresil.demo.live.main, "main", lambda options: seen.append(options) or 0)
    assert main(["demo", "live"]) == 0
    words = ["--workers", "2", "--port", "8123", "--duration", "9", "--rate", "5", "--no-load", "--seed", "-1", "--json"]
    assert main(["demo", "live", *words]) == 0
    assert seen == [LiveOptions(), LiveOptions(2, 8123, 9.0, 5.0, load=False, seed=-1, json=True)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers", "0"], "'0': expected a whole number from 1 to 16"),
        (["--port", "70000"], "'70000': expected a whole number from 0 to 65535"),
        (["--duration", "0"], "'0': expected seconds from 1 to 86400"),
        (["--attack"], "unrecognized arguments: --attack"),
    ],
)
def test_wrong_arguments_of_the_live_demo_say_what_is_allowed(capsys, arguments, said):
    """Before anything is started."""
    with pytest.raises(SystemExit) as ended:
        main(["demo", "live", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_missing_extra_names_the_command_that_installs_it(monkeypatch, capsys):
    """Without the packages of the demo nothing is started, and the exact pip command is printed."""
    monkeypatch.setattr(somaresil.demo, "NEEDED", ("json", "somaresil_no_such_package"))
    assert main(["demo"]) == 2
    said = capsys.readouterr().err
    assert "somaresil_no_such_package not installed" in said
    assert 'pip install "somaresil[demo]"' in said


def test_a_missing_prometheus_is_said_before_anything_starts(monkeypatch, capsys, tmp_path):
    """`--prometheus` without the program is exit code 2, with what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["demo", "--prometheus"]) == 2
    assert "apt-get install prometheus" in capsys.readouterr().err


def test_ctrl_c_while_loading_is_no_traceback(monkeypatch):
    """An interruption before the demo runs ends with 130, as the shell expects."""

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(somaresil.demo.main, "main", interrupted)
    assert main(["demo"]) == 130


def test_the_command_line_loads_nothing_heavy():
    """Asking for help imports none of the packages of the demo, and neither does the extra's check."""
    script = (
        "import sys; from somaresil import cli, demo; cli._parser(); demo.missing(); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'fastapi', 'starlette', 'httpx', 'rich', 'uvicorn', 'asyncio'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
