"""The command ``perf``: files, commits, pairs, histories and budgets, in four formats and with three exit codes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from somaresil.cli import main
from somaresil.perf import Change, History, Machine
from somaresil.perf.read.tables import lines_of
from somaresil.perf.samples import RunResult, Series
from somaresil.perf.store import Point, ResultStore
from somaresil.perf_command.report import ComparisonReport, Side, to_text
from somaresil.perf_command.svg import distributions, quantile_shift, steps
from somaresil.perf_command.words import figure, percent
from tests.unit.perf import kit

PYTHON = [sys.executable, "-I", "-S", "-c"]
MINE = Machine("P", 2, "CPython 3.11.7", "Linux x86_64")


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.com",
        "GIT_CEILING_DIRECTORIES": str(tmp_path.parent),
    }.items():
        monkeypatch.setenv(name, value)


def git(*words):
    """Run git, and give what it prints."""
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Give the hashes of three commits; in each, work.py prints figures that say which it is."""
    git("init", "--quiet", "--initial-branch", "main")
    commits = []
    for number in (1, 2, 3):
        (tmp_path / "work.py").write_text(f"print('name,value,unit')\nprint('work,{number},ms')\n")
        git("add", ".")
        git("commit", "--quiet", "--message", f"{number}")
        commits.append(git("rev-parse", "HEAD"))
    return commits


def values(scale=1.0, count=30, seed=1):
    """Give durations with 2 % of noise."""
    generator = random.Random(seed)
    return tuple(scale * generator.lognormvariate(0.0, 0.02) for _ in range(count))


def result(scale=1.0, seed=1, *, commit=None, at=1_795_807_000.0, machine=MINE, names=("b",)):
    """Give a result of benchmarks."""
    series = tuple(Series(name, "seconds", values(scale, seed=seed)) for name in names)
    return RunResult(series, "out.json", commit=commit, at=at, machine=machine)


def write(name, made):
    """Write a result to a file."""
    Path(name).write_text("\n".join(lines_of(made)), encoding="utf-8")
    return name


def perf(capsys, *words):
    """Run the command, and give its exit code and both its outputs."""
    code = main(["perf", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


# -- files --------------------------------------------------------------------------------------------------------------------------------


def test_files_with_and_without_a_regression(capsys):
    """1 only when that was asked; the same is 0."""
    old, new = write("old.jsonl", result()), write("new.jsonl", result(1.2, 2))
    code, out, _ = perf(capsys, "compare", "--baseline", old, "--current", new)
    assert code == 0
    assert out.startswith("regressed: 1 regressed\n")
    assert perf(capsys, "compare", "--baseline", old, "--current", new, "--fail-on-regression")[0] == 1
    assert perf(capsys, "compare", "--baseline", new, "--current", old, "--fail-on-regression")[0] == 0
    assert perf(capsys, "compare", "--baseline", old, "--current", write("same.jsonl", result(1.0, 3)), "--fail-on-regression")[0] == 0


def test_too_few_values_end_with_2_and_say_how_many_are_needed(capsys):
    """Unless unknown is allowed."""
    name = write("few.jsonl", RunResult((Series("b", "seconds", (1.0,)),), "f", machine=MINE))
    code, out, _ = perf(capsys, "compare", "--baseline", name, "--current", name)
    assert code == 2
    assert "1 and 1 values cannot decide at 0.01: 5 a side can" in out
    assert perf(capsys, "compare", "--baseline", name, "--current", name, "--allow-unknown")[0] == 0


def test_several_runs_make_a_sample(capsys):
    """A load generator gives one value a run: six runs a side are six values."""
    for number in range(12):
        slow = 3.0 if number > 5 else 1.0
        Path(f"run{number}.txt").write_text(kit.WRK.replace("716.00us", f"{slow * (700 + 7 * number % 12)}us"))
    sides = [[f"run{number}.txt" for number in numbers] for numbers in (range(6), range(6, 12))]
    code, out, _ = perf(
        capsys,
        "compare",
        "--baseline",
        *sides[0],
        "--current",
        *sides[1],
        "--metric",
        "p50",
        "--fail-on-regression",
        "--allow-other-machine",
    )
    assert (code, out.splitlines()[0]) == (1, "regressed: 1 regressed")
    assert "machine of some results is not known" in out


def test_another_machine_is_flagged_and_not_compared(capsys):
    """Unless that is allowed."""
    sides = write("old.jsonl", result()), write("new.jsonl", result(machine=Machine("Q", 4)))
    code, out, _ = perf(capsys, "compare", "--baseline", sides[0], "--current", sides[1])
    assert code == 2
    assert "processor: P and Q; cores: 2 and 4" in out
    code, out, _ = perf(capsys, "compare", "--baseline", sides[0], "--current", sides[1], "--allow-other-machine")
    assert code == 0
    assert "note: different machines" in out


def test_what_is_missing_is_unknown_and_what_is_new_is_told(capsys):
    """A benchmark that has vanished does not pass in silence."""
    sides = write("old.jsonl", result(names=("a", "b"))), write("new.jsonl", result(names=("b", "c")))
    code, out, _ = perf(capsys, "compare", "--baseline", sides[0], "--current", sides[1])
    assert code == 2
    assert "it was not measured now" in out
    assert "new, with nothing to compare with: c" in out
    code, out, _ = perf(capsys, "compare", "--baseline", sides[0], "--current", sides[1], "--allow-missing")
    assert (code, "not measured any more: a" in out) == (0, True)


def test_nothing_in_common_and_mixed_units_are_refused(capsys):
    """Exit code 2, with both sides in the words."""
    old = write("old.jsonl", result())
    code, _, err = perf(capsys, "compare", "--baseline", old, "--current", write("new.jsonl", result(names=("c",))))
    assert (code, "a figure that the baseline has too" in err) == (2, True)
    bytes_of = RunResult((Series("b", "bytes", (1.0,)),), "bytes.json")
    code, _, err = perf(capsys, "compare", "--baseline", old, "--current", write("bytes.jsonl", bytes_of))
    assert (code, "expected seconds" in err) == (2, True)


def printed_as(form):
    return ("--json",) if form == "json" else ("--format", form)


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html"])
def test_the_same_findings_give_the_same_bytes_and_nothing_hostile_gets_out(form, capsys):
    """Names come from outside: no markup, no link, no control character, no script."""
    hostile = 'x<script>alert(1)</script>[a](http://e.example)|@all `"'
    sides = write("old.jsonl", result(names=(hostile, "b"))), write("new.jsonl", result(1.2, 2, names=(hostile, "b")))
    words = ["compare", "--baseline", sides[0], "--current", sides[1], *printed_as(form), "--html", "out.html"]
    runs = [perf(capsys, *words) for _ in range(2)]
    assert runs[0] == runs[1]
    out = runs[0][1]
    if form == "html":
        assert "<script" not in out
        assert out.count("<svg") == 4
        assert "http://e" not in out.replace(">x&lt;script&gt;alert(1)&lt;/script&gt;[a](http://e.example)", ">")
        assert "default-src 'none'" in out
    elif form == "markdown":
        assert out.startswith("<!-- somaresil perf -->\n**Performance: regressed")
        assert "\\<script\\>" in out
        assert "\\@all" in out
    elif form == "json":
        said = json.loads(out)
        assert (said["kind"], said["answer"], said["exit_code"]) == ("comparison", "regressed", 0)
        assert said["rows"][0]["comparison"]["change"] == "regressed"


def test_a_report_is_written_to_files_too(capsys, tmp_path):
    """Each in its form; a place that cannot be written to ends with 2."""
    old = write("old.jsonl", result())
    words = ["compare", "--baseline", old, "--current", old, "--markdown", "a.md", "--html", "a.html", "--out", "a.json"]
    assert perf(capsys, *words)[0] == 0
    assert (tmp_path / "a.md").read_text().startswith("<!-- somaresil perf -->")
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "a.json").read_text())["kind"] == "comparison"
    code, _, err = perf(capsys, *words, "--html", "none/a.html")
    assert (code, "--html = 'none/a.html': expected a file that can be written" in err) == (2, True)


# -- commits ------------------------------------------------------------------------------------------------------------------------------


def test_commits_are_looked_up_in_the_store(capsys, repository):
    """By branch, tag, or any other name; one of which nothing is recorded is named."""
    for place, commit in enumerate(repository[:2]):
        ResultStore("perf-results").add(result(1.0 + 0.2 * place, place, commit=commit))
    git("tag", "v1", repository[0])
    code, out, _ = perf(capsys, "compare", "--baseline", "v1", "--current", "HEAD~1", "--fail-on-regression")
    assert code == 1
    assert f"v1 ({repository[0][:12]}, P, 2 cores" in out
    code, _, err = perf(capsys, "compare", "--baseline", "v1")
    assert code == 2
    assert f"nothing is recorded of {repository[2][:12]}" in err
    for name in ("nothing", "--output=x", "a\x00b"):
        code, _, err = perf(capsys, "compare", f"--baseline={name}", "--current", "HEAD")
        assert (code, "a file of results, or a commit" in err or "an answer of git" in err) == (2, True)


def test_results_are_recorded_in_the_store_or_in_notes_and_found_again(capsys, repository, tmp_path):
    """With the commit that is checked out, unless another is named; a note has each line once."""
    (tmp_path / "out.json").write_text(kit.TEXTS["hyperfine"])
    code, out, _ = perf(capsys, "record", "out.json")
    assert code == 0
    (recorded,) = ResultStore("perf-results").find(repository[2])
    assert out.strip().endswith(".jsonl")
    assert recorded.machine is not None
    assert "the machine is that of the recording" in recorded.notes
    write("with.jsonl", result(commit=None))
    for _ in range(2):
        assert perf(capsys, "record", "with.jsonl", "--git-note", "--commit", "HEAD~1")[0] == 0
    assert len(git("notes", "--ref", "refs/notes/somaresil-perf", "show", "HEAD~1").splitlines()) == 1
    assert perf(capsys, "compare", "--baseline", "HEAD~1", "--current", "HEAD~1")[0] == 2
    assert perf(capsys, "compare", "--baseline", "HEAD~1", "--current", "HEAD~1", "--notes")[0] == 0


def test_branches_that_both_record_merge_without_a_conflict(capsys, repository):
    """Each recording is a file of its own."""
    del repository
    for branch, scale in (("one", 1.0), ("two", 2.0)):
        git("checkout", "--quiet", "-b", branch, "main")
        assert perf(capsys, "record", write("out.jsonl", result(scale)))[0] == 0
        git("add", "perf-results")
        git("commit", "--quiet", "--message", branch)
    git("merge", "--quiet", "--no-edit", "one")
    assert len(ResultStore("perf-results").all()) == 2


def test_two_commits_are_measured_in_checkouts_that_are_gone_afterwards(capsys, repository):
    """In turn, by what the command prints: 1 ms in one and 3 ms in the other. Nothing is left of the checkouts."""
    words = ["--run", f"{sys.executable} work.py", "--measure", "output", "--pairs", "10", "--most-pairs", "10"]
    code, out, err = perf(capsys, "compare", "--baseline", repository[0], "--current", "main", *words, "--fail-on-regression")
    assert code == 1
    assert "1 ms -> 3 ms (+200.0 %)" in out
    assert "10 pairs" in err
    assert len(git("worktree", "list").splitlines()) == 1
    code, out, _ = perf(
        capsys, "ab", "--baseline", "main", "--current", ".", "--measure", "output", "--pairs", "10", "--", sys.executable, "work.py"
    )
    assert (code, "the same value in each of 10 pairs" in out) == (0, True)


def test_a_setup_runs_in_each_checkout_and_its_failure_is_told(capsys, repository):
    """What the working tree has on top of both commits is told too."""
    words = ["compare", "--baseline", "main", "--current", repository[0], "--run", f"{sys.executable} work.py", "--measure", "output"]
    code, _, err = perf(capsys, *words, "--setup", f"{sys.executable} -c 'import sys; sys.exit(\"no\")'")
    assert (code, "--setup in main = 'exit code 1': expected 0 (no)" in err) == (2, True)
    Path("work.py").write_text("print('name,value,unit')\nprint('work,9,ms')\n")
    code, out, _ = perf(capsys, *words, "--setup", f'{sys.executable} -c \'open("made", "w")\'', "--pairs", "10", "--most-pairs", "10")
    assert (code, "changes that are in neither" in out) == (0, True)
    assert len(git("worktree", "list").splitlines()) == 1


# -- pairs --------------------------------------------------------------------------------------------------------------------------------


def test_two_commands_are_measured_in_turn(capsys):
    """One that takes several times as long is found with few pairs."""
    words = ["ab", "--pairs", "10", "--most-pairs", "20", "--fail-on-regression"]
    code, out, err = perf(capsys, *words, "--", *PYTHON, "pass", "--", *PYTHON, "sum(range(3_000_000))")
    assert code == 1
    assert out.startswith("regressed: 1 regressed\n")
    assert "measured in turn" in out
    assert "10 pairs" in err
    assert perf(capsys, *words, "--measure", "cpu", "--", *PYTHON, "sum(range(3_000_000))", "--", *PYTHON, "pass")[0] == 0


def test_a_command_writes_its_figures_to_a_file(capsys):
    """In any format that is read."""
    code_of = "import sys; open(sys.argv[1], 'w').write('name,value,unit\\na,{},s\\n')"
    sides = [[*PYTHON, code_of.format(value), "{out}"] for value in (1, 2)]
    code, out, _ = perf(capsys, "ab", "--pairs", "10", "--most-pairs", "10", "--", *sides[0], "--", *sides[1])
    assert (code, "1 s -> 2 s (+100.0 %)" in out) == (0, True)


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ([[*PYTHON, "pass"]], "two commands"),
        ([[*PYTHON, "1/0"], [*PYTHON, "pass"]], "ZeroDivisionError"),
        ([["no-such-program"], [*PYTHON, "pass"]], "a program that starts"),
        ([[*PYTHON, "import time; time.sleep(60)"], [*PYTHON, "pass"]], "no end after 0.5 s"),
        ([[*PYTHON, "pass", "{out}"], [*PYTHON, "pass", "{out}"]], "no file"),
    ],
)
def test_what_cannot_be_measured_ends_with_2(sides, said, capsys):
    """A command that fails, is not there, does not end, or writes nothing."""
    code, _, err = perf(capsys, "ab", "--timeout", "0.5", *[word for side in sides for word in ("--", *side)])
    assert (code, said in err) == (2, True)


def test_so_few_pairs_that_they_can_say_nothing_are_refused_before_they_are_measured(capsys):
    """After one run of each, which says how many figures there are."""
    words = ["ab", "--pairs", "2", "--most-pairs", "3", "--measure", "output"]
    printed = "print('name,value,unit'); [print(f'f{n},{n + 1},s') for n in range(40)]"
    code, out, err = perf(capsys, *words, "--", *PYTHON, printed, "--", *PYTHON, printed)
    assert (code, out) == (2, "")
    assert "pairs = 3: expected 12 at least for 40 figures (fewer can say nothing)" in err


# -- over time ----------------------------------------------------------------------------------------------------------------------------


def record_history(commits, levels, *, machine=MINE):
    """Record a value for each level."""
    generator = random.Random(5)
    for place, level in enumerate(levels):
        series = (Series("b", "seconds", (level * generator.lognormvariate(0.0, 0.01),)),)
        commit = commits[place % len(commits)] if commits else None
        ResultStore("perf-results").add(RunResult(series, "f", commit=commit, at=1e9 + place, machine=machine))


def test_a_change_of_level_is_found_with_its_commit(capsys):
    """Twelve recordings before it, twelve after it."""
    commits = [f"{number:040x}" for number in range(24)]
    record_history(commits, [1.0] * 12 + [1.2] * 12)
    code, out, _ = perf(capsys, "history", "--fail-on-regression")
    assert code == 1
    assert f"{commits[12][:12]}: " in out
    assert perf(capsys, "history", "--fail-on-regression", "--recent", "5")[0] == 0
    page = perf(capsys, "history", "--format", "html")[1]
    assert commits[12][:12] in page
    assert page.count("<circle") == 24


def test_a_short_history_and_none_cannot_decide(capsys):
    """2, and how many are needed."""
    code, _, err = perf(capsys, "history")
    assert (code, "record results with" in err) == (2, True)
    record_history([], [1.0] * 5)
    code, out, _ = perf(capsys, "history")
    assert (code, "a change can be shown from" in out) == (2, True)
    assert perf(capsys, "history", "--allow-unknown")[0] == 0
    assert perf(capsys, "history", "--name", "other")[0] == 2


def test_other_machines_are_left_out_of_a_history_and_that_is_told(capsys):
    """What was measured elsewhere is no change."""
    record_history([], [5.0] * 12, machine=Machine("Q", 8))
    record_history([], [1.0] * 12)
    out = perf(capsys, "history")[1]
    assert "12 recordings of other machines than the last were left out" in out
    assert "unchanged  b" in out


def test_a_history_of_a_branch_has_its_commits_in_their_order(capsys, repository):
    """Recordings of others are left out, and that is told."""
    record_history([*repository, "f" * 40], [1.0] * 24)
    out = perf(capsys, "history", "--branch", "main")[1]
    assert "6 recordings of commits that are not in main were left out" in out
    assert json.loads(perf(capsys, "history", "--branch", "main", "--json")[1])["rows"][0]["history"]["count"] == 18


def test_a_history_reads_notes_too(capsys, repository):
    """With and without a branch; a recording that is in both places counts once."""
    generator = random.Random(5)
    for place, commit in enumerate(repository * 8):
        made = result(generator.lognormvariate(0.0, 0.01), place, commit=commit, at=1e9 + place)
        name = write(f"{place}.jsonl", made)
        assert perf(capsys, "record", name, "--git-note")[0] == 0
        if place == 0:
            assert perf(capsys, "record", name)[0] == 0
    for words in ([], ["--branch", "main"]):
        said = json.loads(perf(capsys, "history", "--notes", "--json", *words)[1])
        assert said["rows"][0]["history"]["count"] == 24
    git("branch", "perf-results")
    assert perf(capsys, "history", "--branch", "perf-results", "--notes")[0] == 0


# -- budgets ------------------------------------------------------------------------------------------------------------------------------


def test_budgets_that_are_kept_broken_and_not_known(capsys, tmp_path):
    """0, 1, 2."""
    (tmp_path / "wrk.txt").write_text(kit.WRK)
    for limit, code in (("throughput_rps = 1000", 0), ("throughput_rps = 5000", 1), ("p95_ms = 5", 2)):
        (tmp_path / "budgets.toml").write_text(f'[[budgets]]\nendpoint = "/v1/items"\n{limit}\n')
        assert perf(capsys, "check", "wrk.txt", "--budgets", "budgets.toml")[0] == code
    assert perf(capsys, "check", "wrk.txt", "--budgets", "budgets.toml", "--allow-unknown", "--format", "markdown")[0] == 0


def test_without_a_file_the_budgets_are_those_of_the_plan(capsys, tmp_path):
    """And an endpoint of which nothing was measured is not known."""
    (tmp_path / "wrk.txt").write_text(kit.WRK)
    code, out, _ = perf(capsys, "check", "wrk.txt")
    assert code == 2
    assert "/v1/llm/invoke" in out
    assert "nothing was measured of this endpoint" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no budget is always kept"),
        ("[[budgets]]\nendpoint = 1\n", "endpoint"),
        ('[[budgets]]\nendpoint = "/a"\np95 = 5\n', "the unit is part of the name: p95_ms"),
        ('[[budgets]]\nendpoint = "/a"\n', "a budget without a limit is always kept"),
        ('[[budgets]]\nendpoint = "/a"\np95_ms = 5\n[[budgets]]\nendpoint = "/a"\np95_ms = 5\n', "it is there twice"),
        ("budgets = [1]\nother = 2\n", "a table"),
        ("[[", "budgets.toml"),
    ],
)
def test_wrong_budgets_are_refused(text, said, capsys, tmp_path):
    """With the place."""
    (tmp_path / "wrk.txt").write_text(kit.WRK)
    (tmp_path / "budgets.toml").write_text(text)
    code, _, err = perf(capsys, "check", "wrk.txt", "--budgets", "budgets.toml")
    assert (code, said in err) == (2, True)


def test_wrong_numbers_are_named(capsys):
    """All that are wrong at once."""
    for words, said in (
        (["ab", "--pairs", "0", "--alpha", "2", "--", "a", "--", "b"], ["PairedTest.alpha", "PairedTest.fewest"]),
        (["ab", "--timeout", "-1", "--", "a", "--", "b"], ["measure.timeout"]),
        (["history", "--prometheus", "x", "--days", "-1", "--step", "nan"], ["url", "--query", "--days", "--step"]),
        (["history", "--alpha", "7"], ["RegressionDetector.alpha"]),
        (["ab", "--baseline", "a", "--", "b"], ["--baseline"]),
        (["compare", "--baseline", "a", "b", "--run", "c"], ["--run"]),
        (["compare", "--baseline", "a", "--run", "'"], ["--run"]),
        (["compare", "--baseline", "a", "--run", " "], ["--run"]),
    ):
        code, _, err = perf(capsys, *words)
        assert code == 2
        assert all(path in err for path in said)


def test_a_defect_of_our_own_is_not_a_regression(capsys, monkeypatch):
    """It has decided nothing: 2, not 1."""
    monkeypatch.setattr("somaresil.perf_command.run.to_text", lambda _: 1 / 0)
    old = write("old.jsonl", result())
    code, _, err = perf(capsys, "compare", "--baseline", old, "--current", old)
    assert (code, "ZeroDivisionError in the command itself" in err) == (2, True)


def test_long_reports_are_cut_in_a_comment_and_notes_are_in_all(capsys):
    """100 rows, and how many more."""
    names = tuple(f"b{number}" for number in range(120))
    sides = write("old.jsonl", result(names=names)), write("new.jsonl", result(names=(*names[:-1], "new")))
    words = ["compare", "--baseline", sides[0], "--current", sides[1]]
    out = perf(capsys, *words, "--format", "markdown")[1]
    assert "and 20 more" in out
    assert "new, with nothing to compare with" in out
    page = perf(capsys, *words, "--format", "html")[1]
    assert "<ul><li>new, with nothing" in page
    assert page.count("<svg") == 2 * 59


def test_wrong_arguments_end_with_2(capsys):
    """As argparse does."""
    for wrong in (["compare"], ["check"], ["nothing"], ["ab", "--measure", "x"], ["record"]):
        with pytest.raises(SystemExit) as ended:
            main(["perf", *wrong])
        assert ended.value.code == 2
        capsys.readouterr()


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html"])
def test_histories_and_budgets_have_all_four_formats(form, capsys, tmp_path):
    """With nothing hostile in them, and the same bytes each time."""
    record_history([], [1.0] * 12 + [1.2] * 12)
    (tmp_path / "wrk.txt").write_text(kit.WRK)
    (tmp_path / "budgets.toml").write_text('[[budgets]]\nendpoint = "/v1/items"\nthroughput_rps = 1000\np95_ms = 5\n')
    for words, answer in ((["history"], "regressed"), (["check", "wrk.txt", "--budgets", "budgets.toml"], "unknown")):
        first, second = (perf(capsys, *words, *printed_as(form)) for _ in range(2))
        assert first == second
        assert answer in first[1]
        if form == "json":
            assert json.loads(first[1])["answer"] == answer


def test_a_figure_is_shown_with_its_unit():
    """From nanoseconds to gibibytes."""
    shown = [
        figure(*each)
        for each in ((1.5e-9, "seconds"), (0.0, "seconds"), (90.0, "seconds"), (2.0**21, "bytes"), (0.015, "ratio"), (None, "x"))
    ]
    assert shown == ["1.5 ns", "0 ns", "90 s", "2 MiB", "1.5 %", "-"]
    assert (figure(12.0, "requests_per_second"), figure(7.0, "count"), percent(0.95), percent(None)) == ("12 /s", "7", "-5.0 %", "-")


def test_plots_survive_what_is_odd():
    """Constants, zeros, one point, no change, and more points than are drawn."""
    blank = History(name="b", change=Change.UNCHANGED, reason="", better="lower", count=1)
    points = tuple(Point(0.0, float(at), None, None, 1) for at in range(3_000))
    drawn = [
        distributions((0.0, 0.0), (0.0, 0.0), "seconds"),
        distributions((1.0, 1.0), (5.0, 1e300), "bytes"),
        quantile_shift((0.0, 0.0), (1.0, 2.0)),
        quantile_shift((1.0, 1.0), (1.0, 1.0)),
        steps(points[:1], blank, "seconds"),
        steps(points, blank, "seconds"),
    ]
    for each in drawn:
        ET.fromstring(each)
        assert "nan" not in each
        assert "inf" not in each
    assert drawn[-1].count("<circle") == 2_000
    hundred = ComparisonReport(Side("a"), Side("b"), (), paired=False, minimum_effect=0.05, alpha=0.01, exit_code=2)
    assert to_text(hundred).startswith("unknown:\n")


def test_ctrl_c_ends_the_command_and_leaves_no_checkout(repository, tmp_path):
    """Neither the command nor what it has started runs on."""
    del repository
    (tmp_path / "work.py").write_text(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child.pid))\n"
        "time.sleep(300)\n"
    )
    git("add", ".")
    git("commit", "--quiet", "--message", "sleeps")
    words = ["perf", "compare", "--baseline", "main", "--current", "main", "--run", f"{sys.executable} work.py"]
    process = subprocess.Popen([sys.executable, "-m", "somaresil", *words], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30.0
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10.0
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(git("worktree", "list").splitlines()) == 1


def is_running(pid):
    """Tell whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
