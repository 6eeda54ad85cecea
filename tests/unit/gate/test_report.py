"""What the gate prints: one judgement in four renderings, and nothing in them that came from outside can do harm."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from somaresil.gate.report import FORMATS, MARK, GateReport
from somaresil.slo.gate import Override
from somaresil.slo.judge import judge
from somaresil.slo.store import Reading
from somaresil.slofile import read_slos

NOW = 1_790_000_000.0
FILE = read_slos({"slos": {name: {"target_percentage": 99.0, "measurement_window": "30d"} for name in ("fine", "spent", "dark")}})


class Told:
    """A store that knows what it was told."""

    name = "told"

    def __init__(self, **readings):
        self.readings = readings

    def read(self, slo, window):
        return self.readings[slo.name]


def rendered(kind, found):
    """What is printed, read as its readers do: in Markdown a backslash only says that no mark-up is meant."""
    text = FORMATS[kind](found)
    return re.sub(r"\\(.)", r"\1", text) if kind == "markdown" else text


def reading(good, bad, coverage=1.0, age=12.0):
    return Reading(good, bad, coverage, "told", age)


def report(*names, asked=None, void="", problem="stale: nobody has written for 900 s", exit_code=0):
    store = Told(fine=reading(999, 1), spent=reading(50, 50), dark=Reading.unknown("told", problem))
    file = replace(FILE, slos=tuple(slo for slo in FILE.slos if slo.name in names))
    verdict = judge(file.slos, store, file.policy)
    return GateReport(at=NOW, verdict=verdict, file=file, exit_code=exit_code, asked=asked, void=void)


def test_text_says_the_decision_first_and_then_the_evidence():
    """One objective a paragraph, with its burn windows."""
    lines = FORMATS["text"](report("fine")).splitlines()
    assert lines[:2] == ["ALLOW", "  fine: 90.0% of the error budget left (1 bad of 1000)"]
    facts = "target 99 % in 30 d, 999 good, 1 bad, 90.0% of the budget left, burning 0.1 in the last hour, used up in 270 d"
    assert lines[3:5] == ["fine: allow (told)", f"  {facts}, coverage 100.0%, newest data 12 s old"]
    assert lines[5:] == ["  1 h and 5 min: burn 0.1 and 0.1, limit 14.4, quiet", "  6 h and 30 min: burn 0.1 and 0.1, limit 6, quiet"]


def test_text_of_a_block_names_only_what_blocks():
    """The evidence names all of them."""
    text = FORMATS["text"](report("fine", "spent", "dark"))
    assert text.startswith("BLOCK\n  spent: ")
    head, _, evidence = text.partition("\n\n")
    assert "fine" not in head
    assert [line.partition(":")[0] for line in evidence.splitlines() if line.endswith("(told)")] == ["fine", "spent", "dark"]
    assert "firing" in evidence


def test_json_is_whole_and_strict():
    """No NaN, nulls where nothing is known, and numbers for machines."""
    said = json.loads(FORMATS["json"](report("fine", "dark", exit_code=2)), parse_constant=pytest.fail)
    assert (said["format"], said["decision"], said["exit_code"], said["overridden"], said["override"]) == (1, "unknown", 2, False, None)
    assert said["at"] == "2026-09-21T14:13:20Z"
    assert said["policy"] == {"minimum_remaining": 0.1, "minimum_events": 10, "minimum_coverage": 0.5, "groups": True}
    fine, dark = said["objectives"]
    assert (fine["good"], fine["bad"], fine["target_percentage"], fine["window"], fine["source"]) == (999, 1, 99.0, 2_592_000.0, "told")
    assert fine["remaining"] == pytest.approx(0.9)
    assert [window["firing"] for window in fine["burn_windows"]] == [False, False]
    assert (dark["good"], dark["bad"], dark["remaining"], dark["burn_rate"], dark["burn_windows"]) == (None, None, None, None, [])
    assert said["reasons"] == ["dark: stale: nobody has written for 900 s"]


def test_markdown_is_a_comment_that_can_be_found_again():
    """Its first line is a mark; then a table of objectives, and the burn windows folded away."""
    lines = rendered("markdown", report("fine", "dark")).splitlines()
    assert lines[:2] == [MARK, "### Release gate: UNKNOWN"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["objective", "decision", "good", "bad", "budget left", "burn (1 h)", "used up in", "coverage", "source", "age"]
    assert rows[2] == ["fine", "allow", "999", "1", "90.0%", "0.1", "270 d", "100.0%", "told", "12 s"]
    assert rows[3] == ["dark", "unknown", "-", "-", "-", "-", "-", "0.0%", "told", "-"]
    assert "<details><summary>Burn windows</summary>" in lines
    assert lines[-1] == "</details>"


@pytest.mark.parametrize(("name", "level"), [("fine", "notice"), ("spent", "error"), ("dark", "warning")])
def test_github_gets_an_annotation_an_objective(name, level):
    """By how bad it is, and the decision in the log."""
    annotation, decision = FORMATS["github"](report(name)).splitlines()
    assert annotation.startswith(f"::{level} title=somaresil gate%3A {name}::{name}: ")
    assert decision == f"somaresil gate: {report(name).title}"


EVIL = "a|b\n::error::x %0A <img src=x> `y` \x1b[31m"


@pytest.mark.parametrize("kind", FORMATS)
def test_what_came_from_outside_is_one_line_of_harmless_text(kind):
    """A reason with line breaks, commands, tags and escapes is none of these in what is printed."""
    asked = Override(EVIL, NOW + 60.0, "eve")
    plain = FORMATS[kind](report("fine", "dark", problem="p"))
    text = FORMATS[kind](report("fine", "dark", problem=EVIL, asked=asked))
    assert "\x1b" not in text
    assert not any(line.startswith("::error") for line in text.splitlines())
    if kind == "markdown":
        assert "<img" in text
        assert not re.search(r"(?<!\\)[<|`]img|(?<!\\)`|a\|b", text)
    if kind == "json":
        assert json.loads(text)["override"]["reason"] == EVIL
    else:
        # The override is a line more.
        assert len(text.splitlines()) == len(plain.splitlines()) + 1


def test_an_override_stands_in_every_rendering():
    """Who, until when and why; the decision stays what it was."""
    asked = Override("the fix", NOW + 3_600.0, "ann")
    for kind in FORMATS:
        text = rendered(kind, report("spent", asked=asked))
        assert "the fix" in text, kind
        assert "ann" in text, kind
        assert "2026-09-21T15:13:20Z" in text, kind
    assert FORMATS["text"](report("spent", asked=asked)).startswith("ALLOW by override, against BLOCK\n")
    said = json.loads(FORMATS["json"](report("spent", asked=asked)))
    assert (said["decision"], said["overridden"], said["override"]["counts"]) == ("block", True, True)


def test_a_void_override_says_why():
    """And changes nothing."""
    asked = Override("the fix", NOW - 1.0, "ann")
    found = report("spent", asked=asked, void="it has expired")
    assert FORMATS["text"](found).startswith("BLOCK\n")
    assert "(void: it has expired)" in rendered("markdown", found)
    assert "::warning title=somaresil gate%3A override::" in FORMATS["github"](found)
    said = json.loads(FORMATS["json"](found))["override"]
    assert (said["counts"], said["why_not"]) == (False, "it has expired")


def test_an_override_of_an_allow_made_no_difference():
    """It is told, and that is all."""
    assert report("fine", asked=Override("just in case", NOW + 60.0)).title == "ALLOW"


def test_a_file_without_a_chosen_objective_still_says_why():
    """GitHub gets its annotation then too."""
    assert FORMATS["github"](report()).startswith("::warning title=somaresil gate::no objective is defined")


def test_every_fact_has_a_name_for_machines():
    """Programs look them up: a name that changes is a break, and format would say so."""
    said = json.loads(FORMATS["json"](report("fine", asked=Override("why", NOW + 60.0, "ann"))))
    assert list(said) == ["format", "decision", "exit_code", "overridden", "at", "reasons", "override", "policy", "objectives"]
    assert said["override"] == {"reason": "why", "who": "ann", "until": "2026-09-21T14:14:20Z", "counts": True, "why_not": None}
    (fine,) = said["objectives"]
    assert fine["reason"] == "fine: 90.0% of the error budget left (1 bad of 1000)"
    facts = ["target_percentage", "window", "good", "bad", "remaining", "burn_rate", "exhausted_in", "coverage", "source", "age"]
    assert list(fine) == ["slo", "decision", "reason", *facts, "burn_windows"]
    one = fine["burn_windows"][0]
    assert list(one) == ["long", "short", "severity", "factor", "threshold", "long_burn", "short_burn", "firing", "coverage"]
    assert (one["long"], one["short"], one["severity"], one["coverage"], one["factor"]) == (3_600.0, 300.0, "page", 1.0, 14.4)


def test_nothing_that_is_no_number_gets_into_json():
    """Strict readers would refuse the whole of it."""
    broken = report("fine")
    object.__setattr__(broken, "at", NOW)
    object.__setattr__(broken.verdict.evidence[0].budget, "age", float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        FORMATS["json"](broken)


def test_markdown_parts_its_tables_as_readers_of_markdown_need_it():
    """An empty line before each table, and after what is folded away is opened."""
    lines = FORMATS["markdown"](report("fine")).splitlines()
    assert lines[2] == ""
    table = lines.index(next(line for line in lines if line.startswith("| objective")))
    assert lines[table - 1] == ""
    folded = lines.index("<details><summary>Burn windows</summary>")
    assert lines[folded + 1] == ""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[folded + 2 : folded + 5]]
    assert cells[0] == ["objective", "windows", "burn", "limit", ""]
    assert cells[2] == ["fine", "1 h and 5 min", "burn 0.1 and 0.1", "14.4", "quiet"]


def test_windows_say_whether_they_fire_or_that_nobody_knows():
    assert "burn 50 and 50, limit 14.4, firing" in FORMATS["text"](report("spent"))
    assert " quiet" in FORMATS["text"](report("fine"))


def test_percent_signs_and_colons_are_no_syntax_for_github():
    """As its documentation of workflow commands asks for: a reason is full of percents."""
    annotation = FORMATS["github"](report("fine")).splitlines()[0]
    assert annotation == "::notice title=somaresil gate%3A fine::fine: 90.0%25 of the error budget left (1 bad of 1000)"


def test_long_texts_of_strangers_are_cut():
    """400 characters of a reason, 600 of an override, 1000 in an annotation."""
    long = report("dark", problem="p" * 5_000, asked=Override("w" * 5_000, NOW + 60.0, "ann"))
    text = FORMATS["text"](long).splitlines()
    assert len(text[1]) == 2 + 400
    assert len(text[2].partition("Z: ")[2]) == 600
    assert len(FORMATS["github"](long).splitlines()[0].rpartition("::")[2]) == 1_000


@pytest.mark.parametrize(
    ("age", "said"), [(0.25, "0.25 s"), (1.0, "1 s"), (59.0, "59 s"), (60.0, "1 min"), (3_600.0, "1 h"), (86_400.0, "1 d")]
)
def test_durations_are_told_in_their_largest_unit(age, said):
    store = Told(fine=reading(999, 1, age=age))
    file = replace(FILE, slos=FILE.slos[:1])
    found = GateReport(at=NOW, verdict=judge(file.slos, store, file.policy), file=file, exit_code=0)
    assert f"newest data {said} old" in FORMATS["text"](found)
