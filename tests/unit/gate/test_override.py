"""Who overrides the gate is written down, or he does not; and what a gate may be asked is what its help says."""

from __future__ import annotations

import json
import os
import re
import stat
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from somaresil import ManualClock, Outcome, Resilience
from somaresil.cli import main
from somaresil.gate.command import run
from somaresil.slo.store import Reading
from somaresil.slofile import read_slos

ACTORS = ("SOMARESIL_ACTOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN", "LOGNAME", "USER")
TEXT = '[gate]\nminimum_coverage = 0.0\n[slos.api]\ntarget_percentage = 99\nmeasurement_window = "1d"\n'
TWO = TEXT + '[slos.other]\ntarget_percentage = 99\nmeasurement_window = "1d"\n'


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "slo.toml"
    file.write_text(TEXT)
    return file


@pytest.fixture
def service(file, tmp_path):
    """Leave behind what a service has counted; the folder."""

    def counted(*, good=0, bad=0):
        folder = tmp_path / "snapshots"
        resilience = Resilience("service")
        resilience.slos.add(*read_slos(file).slos)
        recorder = resilience.guard("x", slo="api").recorder
        snapshot = resilience.slos.keep(folder, service="service", interval=3_600.0)
        for _ in range(good):
            recorder.count_quiet(0.01)
        for _ in range(bad):
            recorder.add(Outcome.BAD, 0.01)
        snapshot.stop()
        return folder

    return counted


@pytest.fixture
def gate(file, capsys):
    def asked(*arguments):
        capsys.readouterr()
        code = main(["gate", "--slo", str(file), "--format", "json", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return asked


def until(**ahead):
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


def overriding(folder, audit=None, *, ends=None):
    written = () if audit is None else ("--audit", audit)
    return "--snapshot", folder, "--override", "the fix", "--until", ends or until(hours=1), *written


def test_an_override_that_made_a_difference_is_a_line_for_each(gate, service, tmp_path, monkeypatch):
    """Who, why, until when and against what; only its owner may read the file."""
    monkeypatch.setenv("SOMARESIL_ACTOR", "ann")
    audit, ends, folder = tmp_path / "audit.jsonl", until(hours=1), service(good=50, bad=50)
    before = datetime.now(UTC).timestamp()
    for _ in range(2):
        code, said, err = gate(*overriding(folder, audit, ends=ends))
        assert (code, said["exit_code"], said["decision"], said["overridden"]) == (0, 0, "block", True)
        assert (said["override"]["who"], said["override"]["counts"], said["override"]["why_not"]) == ("ann", True, None)
        assert datetime.fromisoformat(said["override"]["until"]).timestamp() == int(datetime.fromisoformat(ends).timestamp())
    first, second = audit.read_text().splitlines()
    entry = json.loads(first)
    assert before <= entry.pop("at") <= json.loads(second)["at"]
    wanted = {"what": "gate overridden", "who": "ann", "reason": "the fix", "decision": "block"}
    assert entry == {**wanted, "until": datetime.fromisoformat(ends).timestamp()}
    assert err == f"somaresil gate: {second}\n"
    assert stat.S_IMODE(audit.stat().st_mode) == 0o600


def test_an_override_is_told_in_the_log_where_no_file_is_asked_for(gate, service):
    code, said, err = gate(*overriding(service(good=50, bad=50)))
    assert (code, said["overridden"], json.loads(err.removeprefix("somaresil gate: "))["reason"]) == (0, True, "the fix")


def test_an_override_lets_a_release_go_on_of_which_nothing_is_known(gate, service):
    code, said, _ = gate(*overriding(service(good=1)))
    assert (code, said["decision"], said["overridden"]) == (0, "unknown", True)


def test_what_cannot_be_written_down_does_not_count(gate, service, tmp_path):
    """The block stands, says why, and no line claims otherwise; a link to somewhere else is no file either."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    folder = service(good=50, bad=50)
    for audit, why in ((tmp_path, "Is a directory"), (tmp_path / "no" / "audit", "No such file or directory"), (link, "symbolic links")):
        code, said, err = gate(*overriding(folder, audit))
        assert (code, said["overridden"], said["override"]["counts"], err) == (1, False, False, "")
        assert said["override"]["why_not"].startswith("it could not be recorded (")
        assert why in said["override"]["why_not"]
    assert not (tmp_path / "elsewhere").exists()


def test_the_file_of_overrides_is_closed_again(gate, service, tmp_path, monkeypatch):
    opened, closed = [], []
    really_open, really_close = os.open, os.close
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append((path, found := really_open(path, *rest))) or found)
    monkeypatch.setattr(os, "close", lambda descriptor: closed.append(descriptor) or really_close(descriptor))
    audit = tmp_path / "audit"
    gate(*overriding(service(good=50, bad=50), audit))
    (descriptor,) = [found for path, found in opened if str(path) == str(audit)]
    assert closed.count(descriptor) >= 1
    assert closed[-1] == descriptor


def test_an_override_that_is_over_changes_nothing(gate, service, tmp_path):
    audit = tmp_path / "audit"
    code, said, _ = gate(*overriding(service(good=50, bad=50), audit, ends=until(hours=-1)))
    assert (code, said["overridden"], said["override"]["why_not"]) == (1, False, "it has expired")
    assert not audit.exists()


def test_an_override_of_what_is_allowed_is_written_down_nowhere(gate, service, tmp_path):
    """It made no difference."""
    audit = tmp_path / "audit"
    code, said, err = gate(*overriding(service(good=100), audit))
    assert (code, said["decision"], said["overridden"], said["override"]["counts"], err) == (0, "allow", False, True, "")
    assert not audit.exists()


@pytest.mark.parametrize("known", range(len(ACTORS)))
def test_who_overrides_is_what_the_pipeline_says_before_what_the_shell_says(known, gate, service, monkeypatch):
    for index, name in enumerate(ACTORS):
        if index < known:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, f"{name}\x1b")
    assert gate(*overriding(service(good=50, bad=50)))[1]["override"]["who"] == f"{ACTORS[known]}\\x1b"


def test_who_overrides_without_a_name_is_unknown_and_a_long_one_is_cut(gate, service, monkeypatch):
    for name in ACTORS:
        monkeypatch.delenv(name, raising=False)
    folder = service(good=50, bad=50)
    assert gate(*overriding(folder))[1]["override"]["who"] == "unknown"
    monkeypatch.setenv("USER", "a" * 500)
    assert len(gate(*overriding(folder))[1]["override"]["who"]) == 100


# -- what it is asked ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "gate.--prometheus = None"),
        (("--snapshot", "x", "--only", "apu"), "gate.--only = 'apu'"),
        (("--snapshot", "x", "--label", "job"), "gate.--label = 'job'"),
        (("--snapshot", "x", "--label", "job=a", "--label", "job=b"), "gate.--label = 'job=b'"),
        (("--snapshot", "x", "--override", "why"), "gate.--override = 'alone'"),
        (("--snapshot", "x", "--until", "2026-01-01T00:00:00Z"), "gate.--until = 'alone'"),
        (("--snapshot", "x", "--override", "why", "--until", "soon"), "gate.--until = 'soon'"),
        (("--snapshot", "x", "--override", " ", "--until", "2026-01-01T00:00:00Z"), "gate.--override = ' '"),
        (("--snapshot", "x", "--override", "why", "--until", "2999-01-01T00:00:00Z"), "gate.--until = 3"),
    ],
)
def test_what_is_wrong_is_named_as_it_was_written(arguments, line, gate):
    """By the option, so that nobody has to guess which one."""
    code, said, err = gate(*arguments)
    assert (code, said) == (3, None)
    assert line in err


def test_labels_of_several_names_are_fine(gate, service):
    """Without Prometheus they choose nothing."""
    assert gate("--snapshot", service(good=100), "--label", "job=a", "--label", "zone=b=c")[0] == 0


def test_labels_are_handed_on_by_name(gate, monkeypatch):
    """What follows the first sign is the value."""
    given = {}

    class Store:
        name = "prometheus"

        def __init__(self, address, **options):
            given.update(options, address=address)

        def read(self, slo, window):
            raise AssertionError

    monkeypatch.setattr("somaresil.gate.command.PrometheusStore", Store)
    gate("--prometheus", "http://localhost:1", "--label", "job=a", "--label", "zone=b=c")
    assert given["labels"] == {"job": "a", "zone": "b=c"}
    assert (given["timeout"], given["max_age"]) == (10.0, 300.0)


def test_only_the_objectives_that_are_named_are_judged(gate, service, file):
    file.write_text(TWO)
    folder = service(good=100)
    code, said, _ = gate("--snapshot", folder, "--only", "api")
    assert (code, [each["slo"] for each in said["objectives"]]) == (0, ["api"])
    code, said, _ = gate("--snapshot", folder)
    assert (code, [each["slo"] for each in said["objectives"]]) == (2, ["api", "other"])


@pytest.mark.parametrize(("late", "code"), [(299.0, 0), (302.0, 2)])
def test_data_are_stale_after_five_minutes(late, code, file, service, capsys):
    arguments = vars(_parsed(file, "--snapshot", str(service(good=100))))
    now = datetime.now(UTC).timestamp()
    assert run(SimpleNamespace(**arguments), ManualClock(time=now + late)) == code
    assert capsys.readouterr().out


def _parsed(file, *arguments):
    import argparse

    from somaresil.gate.cli import add_command

    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    return parser.parse_args(["gate", "--slo", str(file), *arguments])


class Grouped:
    """A Prometheus that knows the whole and one group of it."""

    name = "prometheus"

    def __init__(self, address, **options):
        pass

    def read(self, slo, window):
        return Reading(1_000, 0, 1.0, self.name, 1.0)

    def read_groups(self, slo, window):
        return {"acme": self.read(slo, window)}


def test_groups_are_judged_by_the_store_that_knows_them(gate, service, file, monkeypatch):
    """That the snapshot knows none is then no reason to know nothing; alone it is one."""
    file.write_text(TEXT + 'group_by = "header:x-tenant"\n')
    monkeypatch.setattr("somaresil.gate.command.PrometheusStore", Grouped)
    folder = service(good=100)
    code, said, _ = gate("--snapshot", folder, "--prometheus", "http://localhost:1")
    assert (code, [each["source"] for each in said["objectives"]]) == (0, ["prometheus", "snapshot"])
    code, said, _ = gate("--snapshot", folder)
    assert (code, [each["decision"] for each in said["objectives"]]) == (2, ["allow", "unknown"])


@pytest.mark.parametrize("kind", [None, "text", "json", "markdown", "github"])
def test_it_is_printed_in_the_way_that_is_asked_for(kind, file, service, capsys):
    """As text unless it is said."""
    begins = {"text": "ALLOW\n", "json": '{\n  "format"', "markdown": "<!-- somaresil gate -->\n", "github": "::notice "}
    asked = () if kind is None else ("--format", kind)
    assert main(["gate", "--slo", str(file), "--snapshot", str(service(good=100)), *asked]) == 0
    assert capsys.readouterr().out.startswith(begins[kind or "text"])


@pytest.mark.parametrize("arguments", [[], ["--slo", "x", "--format", "xml"], ["--slo", "x", "--timeout", "soon"], ["--slo", "x", "--no"]])
def test_what_cannot_be_read_as_arguments_is_exit_code_3(arguments, capsys):
    """2 is taken: nothing is known."""
    with pytest.raises(SystemExit) as ended:
        main(["gate", *arguments])
    assert ended.value.code == 3
    assert "Traceback" not in capsys.readouterr().err


def test_the_help_says_what_follows_each_option(capsys):
    """And how long it waits, and when data are old."""
    with pytest.raises(SystemExit):
        main(["gate", "--help"])
    text = capsys.readouterr().out
    found = dict(re.findall(r"^  (--[a-z-]+)(?: (\S+))?", text, re.MULTILINE))
    assert found == {
        "--slo": "FILE",
        "--prometheus": "URL",
        "--snapshot": "PATH",
        "--only": "NAME",
        "--label": "NAME=VALUE",
        "--format": "{text,json,markdown,github}",
        "--timeout": "SECONDS",
        "--max-age": "SECONDS",
        "--token-env": "NAME",
        "--token-file": "PATH",
        "--basic-env": "NAME",
        "--override": "REASON",
        "--until": "TIME",
        "--audit": "FILE",
    }
    for default in ("text", "10", "300"):
        assert f"(default: {default})" in " ".join(text.split())
