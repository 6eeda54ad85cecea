"""The guide about OpenTelemetry names every metric, every attribute and every event, as the code has them."""

import dataclasses
import inspect
import re
from pathlib import Path

from somaresil.integrations import opentelemetry, otelsampler
from somaresil.integrations._families import FAMILIES
from somaresil.integrations.otelmetrics import INSTRUMENTS
from somaresil.integrations.prometheus import ResilienceCollector
from somaresil.resilience import Resilience

PAGE = (Path(__file__).resolve().parents[2] / "docs/guides/opentelemetry.md").read_text(encoding="utf-8")
OF_HTTP = "`http.request.method`, `http.route`, `http.response.status_code`, `error.type`"


def table_after(marker: str) -> list[list[str]]:
    """Give the cells of the rows of the table below a marker."""
    lines = PAGE.partition(f"<!-- {marker} -->\n")[2].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def row_of(name: str, described: dict[str, str]) -> list[str]:
    """Give the row that a metric should have."""
    family, instrument = FAMILIES[name], INSTRUMENTS[name]
    kind = "histogram" if family.kind == "histogram" else "counter"
    if family.kind == "gauge":
        kind = "gauge" if family.agree or family.worst else "up-down counter"
    attributes = OF_HTTP if name.startswith("http_") else ", ".join(f"`{label}`" for label in family.labels)
    prometheus = described[family.help] + ("_total" if family.kind == "counter" else "")
    return [f"`{instrument.name}`", f"`{instrument.unit}`" if instrument.unit else "-", kind, attributes, f"`{prometheus}`"]


def test_every_metric_is_there_and_no_other():
    """In the order of the code, with unit, kind, attributes and the name in Prometheus."""
    described = {metric.documentation: metric.name for metric in ResilienceCollector(Resilience("names")).describe()}
    assert table_after("instruments of somaresil.integrations.otelmetrics") == [row_of(name, described) for name in FAMILIES]


def test_every_attribute_is_there_and_no_other():
    """Those of the events by the fields of their classes, and those that are set on spans."""
    of_events = {f"somaresil.{field.name}" for kind in opentelemetry._KINDS for field in dataclasses.fields(kind)} - {"somaresil.at"}
    of_spans = {"error.type", "http.route", otelsampler.KEPT, otelsampler.RATIO}
    found = [row[0].strip("`") for row in table_after("attributes of spans")]
    assert len(found) == len(set(found))
    assert set(found) == of_events | of_spans


def test_every_event_is_there_and_no_other():
    """By the name that it has on a span."""
    assert [row[0].strip("`") for row in table_after("events of spans")] == list(opentelemetry._NAMES.values())


def test_what_is_set_on_spans_in_the_code_is_in_the_table():
    """Whatever looks like one of our attributes in the modules that write them."""
    found = {row[0].strip("`") for row in table_after("attributes of spans")}
    for module in ("opentelemetry", "_otelspans", "otelsampler"):
        source = Path(opentelemetry.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
        names = {*re.findall(r'"(somaresil\.[a-z_]+)"', source)} - set(opentelemetry._NAMES.values())
        assert names <= found, module


def test_every_reason_for_keeping_a_trace_is_explained():
    """In the order in which they are told."""
    table = PAGE.partition("| kept | because |\n")[2].splitlines()[1:]
    assert [re.match(r"\| `(\w+)` ", line)[1] for line in table if line.startswith("| `")][: len(otelsampler._REASONS)] == list(
        otelsampler._REASONS
    )


def test_bounds_and_their_defaults_are_those_of_the_code():
    """Each of them, as a number."""
    rows = PAGE.partition("| bound | default | what happens there |\n")[2].splitlines()[1:]
    found = {}
    for row in rows:
        match = re.match(r"\| `(\w+)` \| ([\d,]+)", row)
        if match is None:
            break
        found[match[1]] = float(match[2].replace(",", ""))
    defaults = {name: it.default for name, it in inspect.signature(otelsampler.KeepInteresting).parameters.items()}
    assert found == {name: defaults[name] for name in ("traces", "spans", "spans_each", "longest")}
