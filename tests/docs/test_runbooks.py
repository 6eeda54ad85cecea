"""The pages that alerts link to: one for each alert and no other, alike, with panels, commands and queries that are there."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from somaresil import SLO
from somaresil.cli import _parser
from somaresil.integrations._families import FAMILIES
from somaresil.integrations.loadmetrics import LOAD_FAMILIES
from somaresil.render import RenderOptions, render
from somaresil.render.alerts import ALERTS, OBJECTIVES, STACK
from somaresil.render.grafana import boards
from somaresil.render.recording import RECORDED
from somaresil.slo.rules.text import page_of

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.stem != "index")
HEADINGS = [
    "What it means",
    "What users feel",
    "Look first",
    "Likely causes",
    "What to do",
    "It is over when",
    "Silencing it",
    "While an experiment runs",
]
NAMES = [*OBJECTIVES, *(alert.name for alert in (*ALERTS, *STACK))]
BASE = "https://docs.example/somaresil/runbooks"
# Of Prometheus, Alertmanager and the collector.
OTHERS = {"up", "ALERTS", "scrape_duration_seconds", "alertmanager_notifications_failed_total"}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def blocks_of(page, language):
    return [block.group(1) for block in re.finditer(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE)]


def commands_of(page):
    return [line.strip()[2:] for block in blocks_of(page, "console") for line in block.splitlines() if line.strip().startswith("$ ")]


def test_each_alert_has_a_page_and_each_page_an_alert():
    """By name; the index names all of them, with what each is about."""
    assert [page.stem for page in PAGES] == sorted(page_of(name) for name in NAMES)
    rows = re.findall(r"^\| \[`(\w+)`\]\(([\w-]+)\.md\) \| (\w+) \| (.+) \|$", (FOLDER / "index.md").read_text(), re.MULTILINE)
    assert [name for name, *_ in rows] == NAMES
    told = {alert.name: (page_of(alert.name), alert.severity, alert.about) for alert in (*ALERTS, *STACK)}
    assert {name: tuple(rest) for name, *rest in rows if name in told} == told


@every_page
def test_pages_are_alike(page):
    """Its alert as the title, and the same headings in the same order, none of them empty."""
    text = page.read_text()
    assert page_of(text.splitlines()[0].removeprefix("# ")) == page.stem
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert all(section.strip() for section in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:])
    assert blocks_of(page, "promql")


def test_every_rendered_alert_leads_to_its_page():
    """Alerts of the service, of the stack, and those of objectives with the usual policies, with and without groups."""
    slos = (
        SLO("up", 99.9, timedelta(days=30), group_by="tenant"),
        SLO("slow", 99.9, timedelta(days=30), "gradual_burn", group_by="tenant"),
    )
    files = render("prometheus-rules", RenderOptions(service="gateway", runbook_base=BASE, slos=slos, retention=timedelta(days=31)))
    rules = [
        rule
        for name, text in files.items()
        if name.endswith(".rules.yaml")
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert {rule["alert"] for rule in rules} == set(NAMES)
    for rule in rules:
        site, page = rule["annotations"]["runbook_url"].rsplit("/", 1)
        assert site == BASE
        assert (FOLDER / f"{page}.md").read_text().startswith(f"# {rule['alert']}\n")


@every_page
def test_panels_that_are_named_are_on_their_boards(page):
    """`Board *SLOs*, panels *Burn by window* and *Budget left*`: a board that is rendered, and titles that are on it."""
    found = {board["title"].rpartition("/ ")[2]: {panel["title"] for panel in board["panels"]} for board in _boards().values()}
    text = " ".join(page.read_text().split())
    for board, panels in re.findall(r"[Bb]oard \*(\w+)\*, panels? ((?:\*[^*]+\*(?:, | and )?)+)", text):
        assert board in found, board
        assert set(re.findall(r"\*([^*]+)\*", panels)) <= found[board], board


def _boards():
    return boards(RenderOptions(service="gateway"))


@every_page
def test_commands_are_commands(page):
    """Ours are taken by the parser that they are for, with every option; others are of programs that the stack has."""
    for command in commands_of(page):
        words = shlex.split(command)
        if words[:3] == ["python", "-m", "somaresil"]:
            _, unknown = _parser().parse_known_args(words[3:])
            assert unknown == [], command
        else:
            assert words[0] in {"amtool", "curl", "df", "docker", "kubectl"}, command


@every_page
def test_silences_are_narrow_and_end(page):
    """By the name of the alert and something more, with an end and a reason."""
    for command in commands_of(page):
        if command.startswith("amtool silence add"):
            words = shlex.split(command)[3:]
            matchers = [word for word in words if not word.startswith("--")]
            assert page_of(matchers[0].removeprefix("alertname=")) == page.stem
            assert len(matchers) >= 2
            assert any(re.fullmatch(r"--duration=\d+h", word) for word in words)
            assert any(word.startswith("--comment=") for word in words)


@every_page
def test_queries_are_about_metrics_that_exist(page):
    """Exported by the library, by a run of load, or recorded by rules."""
    known = OTHERS | {recorded.name for recorded in RECORDED} | {f"{name}_total" for name in LOAD_FAMILIES} | set(LOAD_FAMILIES)
    for family in FAMILIES.values():
        unit = f"_{family.unit}" if family.unit and not family.name.endswith(family.unit) else ""
        known |= {f"{family.name}{unit}{ending}" for ending in ("", "_total", "_bucket", "_count")}
    known |= {f"{name}_bucket" for name in LOAD_FAMILIES}
    for query in blocks_of(page, "promql"):
        for metric in re.findall(r"([a-zA-Z_][\w:]*)\{", query) + re.findall(r"\b(somaresil\w+)", query):
            assert metric in known or metric.startswith(("slo:", "slo_group:", "otelcol_", "somaresil:")) or metric == "somaresil", metric
