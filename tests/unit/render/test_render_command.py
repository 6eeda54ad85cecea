"""The command that renders: what it writes, compares and refuses."""

from __future__ import annotations

import json
import shlex

import pytest

from somaresil.cli import main
from somaresil.render import KINDS

FILE = """
[slos.up]
target_percentage = 99.9
measurement_window = "30d"
"""


@pytest.fixture
def slo(tmp_path):
    """Give the path of a file with one objective."""
    path = tmp_path / "slo.toml"
    path.write_text(FILE)
    return path


def test_the_command_writes_and_checks(tmp_path, slo, capsys):
    """Files of objectives and of the service; with --check it tells what differs, is missing or is left over, and writes nothing."""
    out = tmp_path / "rules"
    command = ["render", "prometheus-rules", "--slo", str(slo), "--out", str(out), "--retention", "31d", "--service", "gw"]
    assert main([*command, "--check"]) == 1
    assert not out.exists()
    assert main(command) == 0
    written = {path.name for path in out.iterdir()}
    assert {"up.page.test.yaml", "up.rules.yaml", "somaresil.alerts.rules.yaml", "somaresil.alerts.1m.test.yaml"} <= written
    assert main([*command, "--check"]) == 0
    (out / "old.rules.yaml").write_text("# Made by: python -m somaresil render prometheus-rules --service old\n")
    (out / "mine.rules.yaml").write_text("groups: []")
    (out / "up.rules.yaml").write_text("groups: []")
    (out / "up.page.test.yaml").unlink()
    capsys.readouterr()
    assert main([*command, "--check"]) == 1
    told = {line.partition(": ")[0].rpartition("/")[2]: line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()}
    assert told == {"up.rules.yaml": "differs", "up.page.test.yaml": "not there", "old.rules.yaml": "left over"}
    assert main([*command, "--check", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["differs"]["up.rules.yaml"] == "differs"


def test_each_file_says_which_command_made_it(tmp_path, slo, capsys):
    """The same command again makes the same files; where they went is not in them."""
    command = ["render", "prometheus-rules", "--slo", str(slo), "--retention", "31d", "--service", "gw", "--label", "job=a b", "--sloth"]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    text = (tmp_path / "one" / "up.rules.yaml").read_text()
    head, _, _ = text.partition("\n")
    again = shlex.split(head.removeprefix("# Made by: "))
    assert again[:3] == ["python", "-m", "somaresil"]
    assert "one" not in head
    assert main([*again[3:], "--out", str(tmp_path / "two")]) == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert b"\r" not in text.encode()


def test_the_command_refuses_with_every_problem(tmp_path, slo, capsys):
    """Retention of Prometheus' own default is too short for 30 days; nothing is written."""
    out = tmp_path / "rules"
    command = ["render", "prometheus-rules", "--service", "gw", "--slo", str(slo), "--out", str(out)]
    assert main([*command, "--scrape-interval", "2m"]) == 2
    error = capsys.readouterr().err
    for part in ("slos.up.measurement_window", "windows[0].short", "render.scrape_interval"):
        assert part in error
    assert not out.exists()
    for more in (["--label", "x"], ["--events-per-hour", "many"], ["--target", "here"], ["--grafana", "javascript:x"]):
        assert main([*command, *more]) == 2
    for wrong in (["--retention", "long"], ["--buckets", "a,b"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, *wrong])
        assert ended.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "KIND and --service must be given"),
        (["grafna", "--service", "gw"], "did you mean 'grafana'?"),
        (["prometheus-rules", "--service", "gw", "--check"], "--check needs --out"),
        (["prometheus-rules", "--service", "two words"], "RenderOptions.service"),
    ],
)
def test_what_is_missing_or_unknown_is_told(arguments, said, capsys):
    """With exit code 2."""
    assert main(["render", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_all_of_it_has_a_folder_for_each_kind(tmp_path, slo, capsys):
    """And is found to be as it would be written, until one of them is changed by hand."""
    command = ["render", "all", "--service", "gw", "--slo", str(slo), "--retention", "31d", "--out", str(tmp_path / "all")]
    assert main([*command, "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert {path.name for path in (tmp_path / "all").iterdir()} == set(KINDS) - {"falco"}, "nothing was said of what processes may do"
    assert len(written) == sum(path.is_file() for path in (tmp_path / "all").rglob("*"))
    assert main([*command, "--check"]) == 0
    (tmp_path / "all" / "loki" / "loki.yaml").write_text("auth_enabled: true\n")
    (tmp_path / "all" / "grafana" / "somaresil-slos.json").write_text("{}\n")
    capsys.readouterr()
    assert main([*command, "--check"]) == 1
    assert capsys.readouterr().out.count("differs") == 2


def test_a_folder_that_cannot_be_written_is_told(tmp_path, capsys):
    """With exit code 2 and no trace."""
    (tmp_path / "file").write_text("in the way")
    assert main(["render", "jaeger", "--service", "gw", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "somaresil render:" in capsys.readouterr().err


def test_it_prints_where_no_folder_is_given(capsys):
    """Several files under their names; as JSON by their names."""
    assert main(["render", "prometheus-rules", "--service", "gw"]) == 0
    assert "==> somaresil.alerts.rules.yaml <==" in capsys.readouterr().out
    assert main(["render", "prometheus-rules", "--service", "gw", "--json"]) == 0
    assert "somaresil.alerts.rules.yaml" in json.loads(capsys.readouterr().out)["files"]
    assert main(["render", "--list"]) == 0
    assert capsys.readouterr().out.split() == [*KINDS, "all"]
