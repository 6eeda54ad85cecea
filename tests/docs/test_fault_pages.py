"""A page for each kind of fault: there, alike, in the words of the code, with options, defaults and bounds as the code has them."""

import contextlib
import re
from pathlib import Path

import pytest

from somaresil import ConfigurationError, FaultWindow, events
from somaresil.chaos.vocabulary import FAULTS, TRIGGERS, Realm

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "faults"
HEADINGS = ["About", "Example", "Options", "What it shows", "What it cannot show", "How it ends", "Safety", "What it leaves"]
TARGETS = {
    Realm.GUARD: "a",
    Realm.STREAM: "a",
    Realm.BREAKER: "a",
    Realm.HTTP: "http:/a",
    Realm.RESOURCE: "resource:memory",
    Realm.NETWORK: "net:db.internal",
}
NEEDED = {"delay": 1.0, "items_per_second": 1.0, "bytes_per_second": 1.0}
ROW = re.compile(
    r"^\| (?P<name>\*{0,2}`\w+`\*{0,2}) \| (?P<realm>[^|]+) \| `(?P<default>[^|]+)` \| .+ \| (?P<least>[\d.]+|-) \| (?P<most>[\d.]+|-) \|$"
)


def page_of(kind: str) -> Path:
    """Name the page of a kind."""
    return FOLDER / f"{kind.replace('_', '-')}.md"


def text_of(kind: str) -> str:
    """Read the page of a kind."""
    return page_of(kind).read_text(encoding="utf-8")


def rows_of(kind: str) -> list[dict[str, str]]:
    """Give the rows of the table of options."""
    lines = text_of(kind).partition(f"<!-- options of fault {kind} -->\n")[2].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        row = ROW.match(line)
        assert row, f"not understood: {line}"
        rows.append({name: cell.strip() for name, cell in row.groupdict().items()})
    return rows


def is_allowed(kind: str, realm: str, option: str, value: float) -> bool:
    """Say whether a window of the kind takes the value."""
    given = {name: needed for name, needed in NEEDED.items() if name in FAULTS[kind].realms[Realm(realm)].needs}
    try:
        FaultWindow(TARGETS[Realm(realm)], kind, 0, 1, **{**given, option: value})
    except ConfigurationError as wrong:
        return option not in str(wrong)
    return True


def test_each_kind_has_a_page_and_no_page_is_without_a_kind():
    """Pages are named as kinds are, with hyphens; beside them stands the index, and nothing else."""
    assert {page.name for page in FOLDER.glob("*")} == {"index.md", *(page_of(kind).name for kind in FAULTS)}


def test_the_index_leads_to_each_page_in_the_words_of_the_code():
    """Each kind once."""
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[(\w+)\]\([\w-]+\.md\) \| (.+) \|$", index, re.MULTILINE))
    assert rows == {kind: fault.does for kind, fault in FAULTS.items()}
    assert all(index.count(f"({page_of(kind).name})") == 1 for kind in FAULTS)


@pytest.mark.parametrize("kind", FAULTS)
def test_pages_are_alike(kind):
    """The same headings in the same order, the words of the code first, and an example that makes this very fault."""
    text = text_of(kind)
    assert text.startswith(f"# Fault: `{kind}`\n\n## About\n\nIt {FAULTS[kind].does}.\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    example = text.partition("```python\n")[2].partition("```")[0]
    assert re.search(rf'inject\(resilience, .+, "{kind}"', example)
    assert "assert" in example or "print(" in example


@pytest.mark.parametrize("kind", FAULTS)
def test_options_and_defaults_are_those_of_the_code(kind):
    """Each option where the kind takes it, those in bold that it needs; a kind without options of its own says so."""
    expected = []
    for realm, takes in FAULTS[kind].realms.items():
        for name in sorted(takes.options - set(TRIGGERS)):
            shown = f"**`{name}`**" if name in takes.needs | takes.one_of else f"`{name}`"
            default = FaultWindow.__dataclass_fields__[name].default
            expected.append((shown, realm.value, repr(default)))
    assert [(row["name"], row["realm"].strip("`"), row["default"]) for row in rows_of(kind)] == expected
    assert ("It has none of its own." in text_of(kind)) == (not expected)


@pytest.mark.parametrize("kind", FAULTS)
def test_bounds_are_those_of_the_code(kind):
    """What a table calls the least and the most is taken, and what lies beyond is refused."""
    for row in rows_of(kind):
        name, realm = row["name"].strip("*`"), row["realm"].strip("`")
        for cell, step in ((row["least"], -1), (row["most"], 1)):
            if cell == "-":
                continue
            bound = float(cell) if "." in cell or name in {"delay", "amount", "loss", "retry_after"} else int(cell)
            needed = name in FAULTS[kind].realms[Realm(realm)].needs
            usual = FaultWindow.__dataclass_fields__[name].default
            assert is_allowed(kind, realm, name, bound) or (needed and bound == usual), f"{name} = {bound}"
            beyond = bound * 2 if step > 0 else bound / 2 if isinstance(bound, float) and bound > 0 else bound - 1
            assert not is_allowed(kind, realm, name, beyond), f"{name} = {beyond}"


def test_an_option_without_a_bound_has_a_cell_that_says_so():
    """A dash is not a bound that was forgotten: large values of these pass."""
    for kind in FAULTS:
        for row in rows_of(kind):
            name, realm = row["name"].strip("*`"), row["realm"].strip("`")
            if row["least"] != "-" and row["most"] == "-":
                assert is_allowed(kind, realm, name, 1e9), f"{kind}.{name}"


@pytest.mark.parametrize("kind", FAULTS)
def test_what_it_leaves_exists(kind):
    """Events of the table are events, metrics are those of the guide about observing."""
    table = text_of(kind).partition("\n## What it leaves\n")[2]
    cells = " ".join(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))
    named = set(re.findall(r"`([A-Z]\w+)`", cells))
    assert named
    assert named <= set(events.__all__)
    guide = (ROOT / "docs" / "guides" / "observability.md").read_text(encoding="utf-8")
    metrics = re.findall(r"`(somaresil_\w+)`", cells)
    assert metrics
    assert [metric for metric in metrics if f"| `{metric}` |" not in guide] == []


def test_the_comparison_of_bounds_can_fail():
    """A status of 600 is refused, and one of 599 is not."""
    assert is_allowed("http_status", "http:", "status", 599)
    assert not is_allowed("http_status", "http:", "status", 600)
    with contextlib.suppress(ConfigurationError):
        FaultWindow("a", "latency", 0, 1)
        pytest.fail("latency without a delay is refused")
