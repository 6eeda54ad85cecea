"""The command `somaresil load` without a service: what it refuses, and what it prints."""

import json
import resource
import subprocess
import sys

import pytest

from somaresil.cli import main
from somaresil.load.scenario import read_scenario
from somaresil.load_command import command

SCENARIO = """
name = "s"
target = "http://127.0.0.1:9"
stages = [{ seconds = "1m", rate = 10, to = 20 }]
[[requests]]
name = "a"
path = "/a"
[thresholds]
p95 = 1.0
"""


@pytest.fixture
def file(tmp_path):
    """Give the path of a scenario."""
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)
    return str(path)


def test_check_says_what_is_in_a_scenario(file, capsys):
    """Stages, requests with their shares, limits: also those that nobody wrote."""
    assert main(["load", "check", file, "--compress", "6", "--scale", "2"]) == 0
    out = capsys.readouterr().out
    assert "stage 1: 10 s, 20 to 40 a second" in out
    assert "a: http GET /a, 100%" in out
    for limit in ("p95 <= 1 s", "error_rate <= 0.001", "dropped <= 0"):
        assert f"limit: {limit}" in out
    assert main(["load", "check", file, "--preset", "spike", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == 300.0


def test_the_template_is_printed_and_can_be_read(tmp_path, capsys):
    """What is printed is a scenario."""
    assert main(["load", "template"]) == 0
    path = tmp_path / "t.toml"
    path.write_text(capsys.readouterr().out)
    assert read_scenario(path).name == "conversation"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["template", "nothing"], "there is conversation"),
        (["run", "/nowhere/s.toml"], "/nowhere/s.toml"),
        (["run", "FILE", "--target", "http://10.1.2.3/"], "--allow-host 10.1.2.3"),
        (["run", "FILE", "--target", "nowhere"], "target"),
        (["run", "FILE", "--metrics", "9102"], "--metrics 9102: expected HOST:PORT"),
        (["run", "FILE", "--metrics", "127.0.0.1:99999"], "expected HOST:PORT"),
        (["run", "FILE", "--metrics", "192.0.2.1:9102"], "--metrics 192.0.2.1:9102: OSError"),
        (["run", "FILE", "--preset", "tidal"], "baseline"),
        (["run", "FILE", "--compress", "0"], "compress"),
        (["run", "FILE", "--compress", "nan"], "compress"),
        (["run", "FILE", "--scale", "-1"], "scale"),
        (["run", "FILE", "--out", "/nowhere/r.json"], "there is no folder"),
        (["capacity", "FILE", "--out", "/nowhere/r.json"], "there is no folder"),
        (["capacity", "FILE", "--format", "html"], "text and markdown"),
        (["capacity", "FILE", "--seconds", "0"], "seconds"),
        (["capacity", "FILE", "--start", "-5"], "start"),
        (["capacity", "FILE", "--precision", "7"], "precision"),
        (["capacity", "FILE", "--runs", "0"], "runs"),
    ],
)
def test_what_cannot_be_done_is_told_and_ends_with_2(arguments, said, file, capsys):
    """No traceback, nothing on stdout, and what would have been right."""
    assert main(["load", *(file if each == "FILE" else each for each in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_what_is_not_installed_is_named(file, capsys, monkeypatch):
    """With the line that installs it."""
    monkeypatch.setattr(command, "missing", lambda: ("httptools",))
    assert main(["load", "run", file]) == 2
    assert 'httptools not installed. This installs it:\n\n    pip install "somaresil[load]"' in capsys.readouterr().err


def test_descriptors_are_allowed_as_far_as_the_system_does(monkeypatch):
    """A thousand connections need a thousand of them, and the usual limit is about that."""
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    command._allow_descriptors(1000)
    command._allow_descriptors(2000)
    command._allow_descriptors(9000)
    assert asked == [(2000, 4096), (4096, 4096)]


def test_a_reader_that_leaves_is_no_error(file, monkeypatch):
    """`somaresil load check ... | head -1` ends as other commands do."""

    class Closed:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            pass

        def fileno(self):
            raise OSError("none")

    monkeypatch.setattr(sys, "stdout", Closed())
    monkeypatch.setattr(command.os, "dup2", lambda old, new: None)
    monkeypatch.setattr(Closed, "fileno", lambda self: 1)
    assert main(["load", "check", file]) == 141


def test_the_package_needs_the_standard_library_alone_until_it_runs():
    """`import somaresil.load` brings no third party, and `import somaresil` does not bring it."""
    code = (
        "import json, sys; import somaresil; early = 'somaresil.load' in sys.modules; import somaresil.load; "
        "print(json.dumps([early, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], capture_output=True, check=True)
    early, packages = json.loads(done.stdout)
    assert early is False
    assert {"httptools", "wsproto", "h11", "prometheus_client", "rich"} & set(packages) == set()
