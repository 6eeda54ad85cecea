"""The shape of the documentation: headings, links, names, and that nothing public is forgotten."""

import dataclasses
import re
from pathlib import Path

import pytest

from somaresil import errors, events, testing

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("**/*.md"))]
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FENCED = re.compile(r"^(`{3,}).*?^\1$", re.DOTALL | re.MULTILINE)
POLICY_HEADINGS = ["About", "Usage", "Defaults", "Events", "Diagram", "When not to use", "Anti-patterns"]
ADR_HEADINGS = ["Context", "Decision", "Consequences", "What would change our mind"]
POLICIES = sorted(DOCS.glob("policies/*.md"))
RECORDS = sorted(DOCS.glob("adr/*.md"))


def prose_of(page: Path) -> str:
    """Give the text of a page without its code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def headings_of(page: Path) -> list[str]:
    """Give the second-level headings of a page."""
    return re.findall(r"^## (.+)$", prose_of(page), re.MULTILINE)


def anchors_of(page: Path) -> set[str]:
    """Give the anchors of a page, as GitHub makes them from headings."""
    titles = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section_of(page: Path, heading: str) -> str:
    """Give the text below a second-level heading."""
    return prose_of(page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("page", POLICIES, ids=lambda page: page.stem)
def test_policy_pages_are_alike(page):
    """Who knows one policy page can find anything in another."""
    assert headings_of(page) == POLICY_HEADINGS


@pytest.mark.parametrize("page", POLICIES, ids=lambda page: page.stem)
def test_events_named_by_a_policy_exist(page):
    """The Events section has a table of events, and names nothing that is not there."""
    section = section_of(page, "Events")
    told = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert told
    assert set(told) <= set(events.__all__)
    assert set(re.findall(r"`([A-Z][a-z]\w+)`", section)) <= {*events.__all__, *errors.__all__, "None"}


@pytest.mark.parametrize("page", RECORDS, ids=lambda page: page.stem)
def test_records_are_alike(page):
    """A decision says when it holds, why, what follows, and what would overturn it."""
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^Status: (accepted|superseded by \d{4})", text, re.MULTILINE)
    assert headings_of(page) == ADR_HEADINGS


def test_records_are_numbered_without_a_gap():
    """Numbers run from 0001, and the index names each record."""
    numbers = [int(page.stem[:4]) for page in RECORDS]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 10
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert all(f"(adr/{page.name})" in index for page in RECORDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    """A link to a file of this repository names one that is there, and its anchor a heading of it."""
    for target in LINK.findall(prose_of(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors_of(found), f"{page.name} links to {target}"


def test_every_page_can_be_reached():
    """The index leads to every guide and policy."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    whole = [*DOCS.glob("guides/*.md"), *DOCS.glob("policies/*.md"), *DOCS.glob("testing/*.md"), *DOCS.glob("*/index.md")]
    for page in [*whole, *(page for page in DOCS.glob("*.md") if page.stem != "index")]:
        assert f"({page.relative_to(DOCS).as_posix()})" in index


def test_every_error_is_explained():
    """The page about errors names each error that somaresil has."""
    text = (DOCS / "guides" / "errors.md").read_text(encoding="utf-8")
    assert [name for name in errors.__all__ if f"`{name}`" not in text] == []


def test_every_event_is_described():
    """The page about observing names each kind of event."""
    text = (DOCS / "guides" / "observability.md").read_text(encoding="utf-8")
    kinds = [name for name in events.__all__ if name not in {"Event", "Listener", "Listeners"}]
    assert [name for name in kinds if f"`{name}`" not in text] == []


def test_every_name_of_the_test_kit_is_described():
    """The pages about testing name everything that somaresil.testing offers, and each fixture has a page."""
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("testing/*.md"))
    assert [name for name in testing.__all__ if f"{name}" not in text] == []
    plugin = (ROOT / "src" / "somaresil" / "pytest_plugin.py").read_text(encoding="utf-8")
    fixtures = re.findall(r"@pytest.fixture\ndef ([a-z]\w+)\(", plugin)
    assert len(fixtures) == 6
    assert [name for name in fixtures if not (DOCS / "testing" / f"fixture-{name.replace('_', '-')}.md").exists()] == []


def test_the_demo_page_names_every_phase():
    """The page about the demo lists the phases of the drill, in their order."""
    pytest.importorskip("httpx")
    from somaresil.demo.drill import PHASES

    page = prose_of(DOCS / "guides" / "demo.md")
    table = page.partition("| phase | what is done |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [phase.name for phase in PHASES]


def test_the_fields_of_events_are_those_of_the_code():
    """The table of events lists every field of each kind, in its order, less the time stamp."""
    table = section_of(DOCS / "guides" / "observability.md", "Events")
    for name, fields in re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", table, re.MULTILINE):
        expected = [field.name for field in dataclasses.fields(getattr(events, name)) if field.name != "at"]
        assert re.findall(r"`(\w+)`", fields) == expected, name


def test_protected_paths_are_those_of_the_engine():
    """The page about chaos lists every path that is never struck."""
    from somaresil.chaos.permission import PROTECTED_PATHS

    text = " ".join(prose_of(DOCS / "guides" / "chaos.md").split())
    assert ", ".join(f"`{path}`" for path in PROTECTED_PATHS) in text
