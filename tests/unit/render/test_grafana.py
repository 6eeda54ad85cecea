"""Boards: what Grafana's own models keep of them, that they are told apart, and that they say what to do."""

from __future__ import annotations

import itertools
import json
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from somaresil import SLO
from somaresil.errors import ConfigurationError
from somaresil.render import KINDS, RenderOptions, render
from somaresil.render.grafana import boards
from tests.unit.render.grafana_model import UNKNOWN_TO_THE_MODEL, loaded, lost, units

OPTIONS = RenderOptions(
    service="gateway",
    environment="demo",
    retention=timedelta(days=60),
    slos=(SLO("api_availability", 99.9, timedelta(days=30)), SLO("llm_latency", 95.0, timedelta(days=7), "gradual_burn", latency=2.0)),
)
BOARDS = boards(OPTIONS)
each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
MOST_PANELS = 25


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(board):
    return [(panel, target) for panel in panels(board) for target in panel.get("targets", ())]


@each_board
def test_the_library_of_models_of_grafana_loads_every_board_and_loses_nothing_of_it(board):
    """Whatever its dataclasses do not know they drop, so a key that is spelled wrong is found."""
    assert set(lost(board, loaded(board))) <= UNKNOWN_TO_THE_MODEL


def test_a_key_that_grafana_does_not_know_is_found():
    """The test above can fail: for a panel, for what belongs to its kind, and for a query."""
    board = json.loads(json.dumps(BOARDS["services"]))
    first = next(panel for panel in panels(board) if panel["type"] == "timeseries")
    first["titel"] = "x"
    first["fieldConfig"]["defaults"]["custom"]["lineWith"] = 2
    first["targets"][0]["legend"] = "x"
    found = set(lost(board, loaded(board))) - UNKNOWN_TO_THE_MODEL
    assert found == {"panels[].titel", "panels[].fieldConfig.defaults.custom.lineWith", "panels[].targets[].legend"}


@each_board
def test_no_two_panels_share_a_number_or_a_place(board):
    """Grafana would move one of them, and links to a panel would show another."""
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert all(0 < number < 2**31 for number in numbers)
    for one, other in itertools.combinations([panel["gridPos"] for panel in board["panels"]], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in (panel["gridPos"] for panel in board["panels"]))


def test_every_board_has_a_uid_of_its_own_and_links_lead_to_one_of_them():
    """A link between boards names the uid."""
    uids = [board["uid"] for board in BOARDS.values()]
    assert len(set(uids)) == len(uids)
    assert all(re.fullmatch(r"[a-z-]{1,40}", uid) for uid in uids)
    linked = set(re.findall(r"/d/([a-zA-Z0-9_-]+)", json.dumps(BOARDS)))
    assert linked
    assert linked <= set(uids)


@each_board
def test_queries_of_a_panel_have_letters_of_their_own(board):
    """Two with one letter are one for Grafana."""
    for panel in panels(board):
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(letters)) == len(letters)


@each_board
def test_units_are_such_as_grafana_knows(board):
    """One that it does not know is written behind the number."""
    texts = set(re.findall(r'"unit": "([^"]*)"', json.dumps(board)))
    values = {
        entry["value"]
        for panel in panels(board)
        for override in panel["fieldConfig"]["overrides"]
        for entry in override["properties"]
        if entry["id"] == "unit"
    }
    assert texts
    assert texts | values <= units()


@each_board
def test_a_panel_says_what_to_do_and_what_no_data_mean(board):
    """Whoever sees it was woken, and does not know it by heart."""
    for panel in panels(board):
        if panel["type"] == "text":
            continue
        assert len(panel["description"]) > 40, panel["title"]
        assert panel["description"].endswith((".", ")")) or "runbook" in panel["description"], panel["title"]
        if panel["type"] not in {"heatmap", "logs"}:
            assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]


@each_board
def test_a_board_asks_for_little(board):
    """Everybody opens it when something is wrong: few panels, rates over what the scraping allows, no ranking of everything there is."""
    assert len(panels(board)) <= MOST_PANELS
    for panel, target in targets(board):
        if target["datasource"]["type"] != "prometheus":
            continue
        assert not re.search(r"\b(topk|bottomk|sort)\b", target["expr"]), panel["title"]
        windows = set(re.findall(r"\[([^\]]+)\]", re.sub(r'"[^"]*"', "", target["expr"])))
        assert windows <= {"$__rate_interval", "$__range", "5m"}, panel["title"]
        assert target["instant"] or "$__range" not in windows, panel["title"]


@each_board
def test_every_query_is_about_the_service_that_was_chosen(board):
    """Two services in one Prometheus must not be added up."""
    for panel, target in targets(board):
        selectors = re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*\{([^}]*)\}", target["expr"])
        assert selectors, panel["title"]
        for selector in selectors:
            assert "$service" in selector or ("$scenario" in selector and board["uid"] == "somaresil-load"), (panel["title"], selector)


def test_the_same_options_give_the_same_files():
    """Files are committed: a change of one is a change of what is seen."""
    for kind in set(KINDS) - {"falco"}:
        files = render(kind, OPTIONS)
        assert files == render(kind, RenderOptions(service="gateway", environment="demo", retention=60 * 86_400.0, slos=OPTIONS.slos))
        assert list(files) == sorted(files)
        for text in files.values():
            assert text.endswith("\n")
            assert "\r" not in text


def test_a_board_is_json_with_sorted_keys():
    """So that a diff shows what has changed."""
    for name, text in render("grafana", OPTIONS).items():
        assert name.endswith(".json")
        assert json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n" == text


def test_a_kind_that_is_not_there_is_refused_with_the_one_that_was_meant():
    """As every configuration is."""
    with pytest.raises(ConfigurationError, match="did you mean 'grafana'"):
        render("grafanna", OPTIONS)


def test_everything_that_is_wrong_with_options_is_told_at_once():
    """Nobody fixes them one after the other."""
    with pytest.raises(ConfigurationError) as refused:
        RenderOptions(
            service="a b",
            environment="x\ny",
            namespace="No_Label",
            slos=("x", OPTIONS.slos[0], OPTIONS.slos[0]),
            services={"nobody": "shop"},
            sources=3,
            scrape_interval=0,
            retention="15d",
            runbook_base="javascript:alert(1)",
            metrics="${x}",
            labels={"service": "x", "team": ""},
        )
    assert [problem.path.removeprefix("RenderOptions.") for problem in refused.value.problems] == [
        "service",
        "environment",
        "namespace",
        "slos[0]",
        "slos[2]",
        "sources",
        "services.nobody",
        "scrape_interval",
        "retention",
        "runbook_base",
        "metrics",
        "labels",
        "labels.team",
    ]


@pytest.mark.parametrize("base", ["runbooks", "/docs/runbooks", "https://docs.example.org/somaresil/runbooks", "http://127.0.0.1:8000"])
def test_runbooks_are_below_an_address_or_a_path(base):
    """Relative ones lead where the board is shown."""
    assert RenderOptions(service="gateway", runbook_base=base).runbook("breaker-open") == f"{base}/breaker-open"


def test_a_config_map_holds_a_board_to_the_byte_and_the_sidecar_finds_it():
    """YAML must not change it, and Kubernetes takes a megabyte."""
    boards_of = render("grafana", OPTIONS)
    options = RenderOptions(service="gateway", environment="demo", retention=OPTIONS.retention, slos=OPTIONS.slos, namespace="obs")
    maps = render("grafana-kubernetes", options)
    assert len(maps) == len(boards_of)
    held = {}
    for text in maps.values():
        document = yaml.safe_load(text)
        assert (document["apiVersion"], document["kind"], document["metadata"]["namespace"]) == ("v1", "ConfigMap", "obs")
        assert document["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert re.fullmatch(r"[a-z0-9-]{1,63}", document["metadata"]["name"])
        held |= document["data"]
        assert len(text) < 1_000_000
    assert held == boards_of


def test_labels_of_ones_own_do_not_hide_a_board_from_the_sidecar():
    """Whoever says `grafana_dashboard: "0"` has not asked for these files."""
    options = RenderOptions(service="gateway", labels={"grafana_dashboard": "0", "team": "payments"})
    for text in render("grafana-kubernetes", options).values():
        labels = yaml.safe_load(text)["metadata"]["labels"]
        assert (labels["grafana_dashboard"], labels["team"]) == ("1", "payments")


def test_provisioning_links_metrics_traces_and_logs_by_the_uids_that_were_given():
    """An exemplar leads to the trace, a line of a log too; what is chosen first on a board is the same."""
    options = RenderOptions(service="gateway", metrics="prom", traces="jaeger-eu", logs="loki-eu")
    files = render("grafana-provisioning", options)
    sources = {each["type"]: each for each in yaml.safe_load(files["datasources/somaresil.yaml"])["datasources"]}
    assert {kind: source["uid"] for kind, source in sources.items()} == {"prometheus": "prom", "jaeger": "jaeger-eu", "loki": "loki-eu"}
    (exemplar,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert (exemplar["name"], exemplar["datasourceUid"]) == ("trace_id", "jaeger-eu")
    (field,) = sources["loki"]["jsonData"]["derivedFields"]
    line = json.dumps({"message": "x", "trace_id": "0af7651916cd43dd8448eb211c80319c"})
    assert re.search(field["matcherRegex"], line)[1] == "0af7651916cd43dd8448eb211c80319c"
    assert field["datasourceUid"] == "jaeger-eu"
    (provider,) = yaml.safe_load(files["dashboards/somaresil.yaml"])["providers"]
    assert provider["options"]["path"] == "/etc/grafana/boards/somaresil"
    chosen = {each["name"]: each["current"]["value"] for each in boards(options)["services"]["templating"]["list"] if "current" in each}
    assert (chosen["datasource"], chosen["traces"], chosen["logs"], chosen["service"]) == ("prom", "jaeger-eu", "loki-eu", "gateway")


@each_board
def test_links_into_explore_are_addresses_that_hold_what_they_should(board):
    """Decoded they are JSON again, and what Grafana puts in stands in it as it is."""
    found = re.findall(r'"url": "(/explore[^"]*)"', json.dumps(board))
    for url in found:
        query = parse_qs(urlsplit(url).query)
        (pane,) = json.loads(query["panes"][0]).values()
        assert pane["datasource"] in {"${traces}", "${logs}"}
        (asked,) = pane["queries"]
        assert "${service}" in asked.get("service", asked.get("expr", ""))
        assert re.search(r"\$\{__(field\.labels\.guard|value\.text)\}", asked.get("tags", asked.get("expr", "")))
    assert found or board["uid"] != "somaresil-services"


@each_board
def test_data_links_name_labels_that_the_series_have(board):
    """Otherwise a link says nothing where a name should stand."""
    for panel in panels(board):
        wanted = set(re.findall(r"\$\{__field\.labels\.(\w+)\}", json.dumps(panel["fieldConfig"]["defaults"].get("links", []))))
        for label in wanted:
            assert all(f"{{{{{label}}}}}" in target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_every_runbook_that_a_panel_names_is_there():
    """Whoever follows it was woken."""
    named = set(re.findall(r"runbooks/([a-z-]+)", json.dumps(BOARDS)))
    pages = {page.stem for page in (Path(__file__).parents[3] / "docs" / "runbooks").glob("*.md")}
    assert named
    assert named <= pages
