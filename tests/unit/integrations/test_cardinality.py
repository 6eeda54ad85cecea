"""However many names, labels and incidents there are: no metric has more label sets than it may, and nothing is lost in the count."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

from somaresil import SLO, CircuitBreaker, ManualClock, Outcome, Resilience
from somaresil.integrations._families import FAMILIES, Histogram
from somaresil.integrations._readings import capped
from somaresil.integrations.prometheus import install
from somaresil.slo.incidents import Subject

LIMIT = 20


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """One process."""
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)


def _fail(*_):
    raise LookupError


def test_every_metric_of_a_process_with_many_names_holds_its_cap():
    """Guards in an outage, objectives that burn, groups and requests that somebody has made up; with exemplars."""
    clock = ManualClock()
    resilience = Resilience("service", clock=clock, seed=1, environment="test")
    registry = CollectorRegistry()
    install(resilience, registry, limit=LIMIT, exemplars=True)
    incidents = resilience.slos.incidents
    for number in range(60):
        resilience.slos.add(SLO(f"slo{number}", 99.0, timedelta(days=30), group_by=lambda label: label, max_groups=5))
        breaker = CircuitBreaker(failure_rate=None, consecutive_failures=2, open_duration=10.0, open_jitter=0.0, half_open_calls=1)
        guard = resilience.guard(f"guard{number}", breaker=breaker, slo=f"slo{number}")
        for label in range(20):
            guard.call(str, f"label{label}")
        for _ in range(2):
            for _ in range(2):
                with pytest.raises(LookupError):
                    guard.call(_fail, "x")
            clock.advance(15.0)
            guard.call(str, "x")
        for group in (None, "label1", "label2"):
            for _ in range(2):
                incidents.detect(Subject(None, f"slo{number}", group), at=clock.time(), age=5.0, injected=False)
                clock.advance(5.0)
                incidents.close(Subject(None, f"slo{number}", group), at=clock.time(), recovered=True)
        resilience.routes.cell("GET", f"/made/up/{number}", 500, ()).add(Outcome.BAD, 0.1, None, 0.0)
    text = generate_latest(registry).decode()
    sets, totals = defaultdict(set), defaultdict(float)
    for family in parse(text):
        for sample in family.samples:
            labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
            sets[family.name].add(labels)
            if sample.name.endswith("_count"):
                totals[family.name] += sample.value
    assert {name: len(found) for name, found in sets.items() if len(found) > LIMIT} == {}
    shown = {value for labels in sets["somaresil_sli_group_events"] for name, value in labels if name == "group"}
    assert shown <= {"_other", *(f"label{number}" for number in range(5))}, "the first five of each objective, and no other"
    assert not any(f'"label{number}"' in line for line in text.splitlines() for number in range(20) if "group_events" not in line)
    # Two of each guard and two of each objective; those of groups are among the latter.
    for name in ("recovery", "detection", "mitigation"):
        assert totals[f"somaresil_{name}_seconds"] == 240.0
    assert totals["somaresil_between_incidents_seconds"] == 120.0
    assert {dict(labels).get("slo") for labels in sets["somaresil_recovery_seconds"]} >= {"_other", None}


def _rows(family):
    texts = st.sampled_from([f"n{number}" for number in range(40)])
    labels = st.tuples(*[texts] * len(family.labels))
    if family.labels == ("guard", "slo"):
        labels = st.tuples(texts, st.booleans()).map(lambda pair: (pair[0], "") if pair[1] else ("", pair[0]))
    numbers = st.integers(0, 9)
    values = numbers.map(lambda count: Histogram((1.0,), (count, 1), 1.0)) if family.kind == "histogram" else numbers
    return st.dictionaries(labels, values, max_size=80)


def _sum(rows):
    return sum(sum(value.counts) if isinstance(value, Histogram) else value for value in rows.values())


MOVED_WHOLE = [family for family in FAMILIES.values() if family.group == len(family.labels)]


@pytest.mark.parametrize("family", MOVED_WHOLE, ids=lambda family: family.name)
@given(st.data())
def test_whatever_is_counted_fits_and_adds_up(family, data):
    """Of every metric whose things move as a whole; gauges on which all agree, or of which the worst counts, are no sums."""
    rows = data.draw(_rows(family))
    limit = data.draw(st.integers(10, 40))
    found = capped(family, rows, limit)
    assert len(found) <= limit
    if not family.agree and not family.worst:
        assert _sum(found) == _sum(rows)
