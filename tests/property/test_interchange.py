"""Objectives go to other formats and back, whatever they are, and what others write never does more than be refused."""

from __future__ import annotations

import copy
import json
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from somaresil import SLO, ConfigurationError
from somaresil.config import Checker
from somaresil.interchange import dump_openslo, dump_toml, import_text
from somaresil.interchange.drafts import slos_with
from somaresil.model.slo import POLICIES, BurnPolicy, Window
from somaresil.settings.files import document_from_text
from somaresil.slo.rules import Histogram, Queries
from somaresil.slofile import slos_of
from tests.unit.interchange.kit import FORMATS, text_of

NAMES = st.text("abcXYZ019_.:/{}-", min_size=1, max_size=12)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(["", "{{ x }}\n# y", "a: b", "'\"", "x" * 1_200, "  "])
TARGETS = st.sampled_from([50, 90.0, 95, 99.0, 99.9, 99.95, 99.999, 0.1]) | st.floats(1e-9, 100.0, exclude_max=True)
WHOLE = st.integers(360, 129_600).map(lambda minutes: timedelta(minutes=minutes))
LENGTHS = (
    WHOLE | st.integers(5, 360).map(lambda minutes: timedelta(minutes=minutes)) | st.timedeltas(timedelta(minutes=5), timedelta(days=90))
)
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"])
QUERIES = st.sampled_from(
    ["sum(rate(a{b='c'}[{{.window}}]))", "sum(increase(a[{{ .window }}]))", "a:ratio{{.window}}", 'a{b="\\"#("}[{{.window}}] # x\n+ 1']
)


@st.composite
def policies(draw, period):
    """One by its name, one with guards, or one of its own."""
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return draw(st.sampled_from(["fast_burn_alert", "gradual_burn"]))
    guards = {"minimum_bad": draw(st.integers(0, 9)), "confidence": draw(st.none() | st.floats(0.5, 0.999))}
    if kind == 1 and period >= 3 * 86_400:
        return replace(draw(st.sampled_from(list(POLICIES.values()))), **guards)
    windows = []
    for _ in range(draw(st.integers(1, 3))):
        long = draw(st.floats(20.0, period))
        share = draw(st.floats(0.0001, 1.0) | st.decimals("0.0001", "1", places=4))
        windows.append(Window(long, draw(st.floats(10.0, long, exclude_max=True)), share, draw(st.sampled_from(["page", "ticket"]))))
    return BurnPolicy(draw(NAMES), tuple(windows), **guards)


@st.composite
def objectives(draw, lengths=LENGTHS, plain=False):
    """An objective of every kind that a file can hold."""
    more = {}
    calendar = draw(st.none() | st.sampled_from(["day", "week", "month", "quarter", "year"]))
    window = None if calendar else draw(lengths)
    if calendar:
        more |= {"calendar": calendar, "time_zone": draw(ZONES)}
    if not plain:
        threshold = st.floats(0.001, 100.0)
        more |= draw(
            st.sampled_from([{}, {"completion": True}])
            | st.builds(lambda name, value: {name: value}, st.sampled_from(["latency", "first_item", "idle", "recovery"]), threshold)
            | st.builds(lambda value: {"freshness": value}, st.floats(10.0, 1_000.0))
        )
    slices = draw(st.sampled_from(["occurrences", "timeslices", "ratio_timeslices"]))
    if slices != "occurrences" and not {"recovery", "freshness"} & set(more):
        allowed = [60, 300] if plain else [10, 20, 30, 50, 60, 100, 150, 300]
        more |= {"budgeting": slices, "time_slice_window": draw(st.sampled_from(allowed))}
        if slices == "timeslices":
            more["time_slice_target"] = draw(st.floats(0.01, 1.0))
    if not plain and not {"recovery", "freshness"} & set(more):
        more |= draw(st.sampled_from([{}, {"group_by": "tenant", "max_groups": 3}, {"injected": "exclude"}]))
    description = draw(TEXTS)
    assume(not plain or (len(description) <= 1_050 and description.strip() == description))
    slo = SLO(draw(NAMES), draw(TARGETS), window, description=description, **more)
    return slo if plain else replace(slo, error_budget_policy=draw(policies(slo.period)))


@st.composite
def files(draw):
    """Objectives with sources and services, and perhaps a composite of them."""
    slos = draw(st.lists(objectives(), min_size=1, max_size=3, unique_by=lambda slo: slo.name))
    sources = {}
    for slo in slos:
        if slo.time_slice_window is None:
            options = [
                None,
                Queries(draw(QUERIES), draw(QUERIES), draw(st.booleans())),
                Queries("", draw(QUERIES), good_query=draw(QUERIES)),
            ]
            options += [Histogram("h_seconds", (0.5, slo.latency), {"a": 'b"c'})] if slo.latency is not None else []
            source = draw(st.sampled_from(options))
            sources |= {} if source is None else {slo.name: source}
    if draw(st.booleans()):
        parts = {slo.name: draw(st.integers(1, 5) | st.floats(0.1, 5.0)) for slo in slos}
        name = draw(NAMES.filter(lambda name: name not in parts))
        slos.append(SLO(name, draw(TARGETS), draw(LENGTHS), parts=parts, error_budget_policy="gradual_burn"))
        sources = {}
    services = {slo.name: draw(NAMES) for slo in slos if draw(st.booleans())}
    return slos_with(slos, sources, services)


def said(file):
    """What a file says."""
    return file.slos, file.sources, file.services


THOROUGH = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@THOROUGH
@given(file=files())
def test_objectives_are_the_same_after_openslo(file):
    """Each option of each, in their order, with their sources and services."""
    made = dump_openslo(file)
    again = import_text(made.text, "openslo")
    assert said(again.file) == said(file)
    # But for queries of which nobody can tell whether they give rates: the annotation says it.
    assert all("taken for counts" in note for note in again.notes)


@THOROUGH
@given(file=files())
def test_objectives_are_the_same_after_our_own_file(file):
    """Decimals become the floats that print alike."""
    check = Checker()
    document = document_from_text(dump_toml(file), ".toml", "slo.toml", check)
    assert check.problems == ()
    assert said(slos_of(document)) == (tuple(map(with_floats, file.slos)), file.sources, file.services)


def with_floats(slo):
    policy = slo.error_budget_policy
    if not isinstance(policy, BurnPolicy) or policy.windows in {known.windows for known in POLICIES.values()}:
        return slo
    windows = (replace(each, budget_share=float(each.budget_share)) for each in policy.windows)
    return replace(slo, error_budget_policy=replace(policy, windows=tuple(windows)))


@THOROUGH
@given(file=files())
def test_what_others_will_not_see_is_told(file):
    """Without our annotation the same objectives come back but for the options that the notes name."""
    made = dump_openslo(file, service="shop")
    documents = list(yaml.safe_load_all(made.text))
    told = {note.partition(": only")[0]: note for note in made.notes}
    named = {}
    for each in documents:
        options = json.loads(each["metadata"].pop("annotations", {}).get("somaresil/options", "{}"))
        if each["kind"] == "SLO":
            named[options.get("name", each["metadata"]["name"])] = each["metadata"]["name"]
    try:
        bare = {slo.name: slo for slo in import_text(text_of(documents), "openslo", partial=True).file.slos}
    except ConfigurationError:
        # What is left of it may be nothing that can be judged.
        return
    for slo in file.slos:
        found = bare.get(named[slo.name])
        if found is None:
            continue
        other = {each.name for each in fields(SLO) if getattr(slo, each.name) != getattr(found, each.name)}
        if list(slo.weights.values()) == list(found.weights.values()):
            # Parts are called as their documents are, and the notes of the parts say so.
            other -= {"parts"}
        note = told.get(slo.name, "")
        assert all(name in note.replace(",", " ").split() for name in other), (other, note)


@THOROUGH
@given(slo=objectives(WHOLE, plain=True))
def test_what_openslo_can_say_needs_no_annotation(slo):
    """Name, target, window, zone, budgeting and slices are in its own words; alerts alone are not."""
    slo = replace(slo, name="plain")
    documents = list(yaml.safe_load_all(dump_openslo(slos_with([slo], {}, {})).text))
    for each in documents:
        each["metadata"].pop("annotations", None)
    (found,) = import_text(text_of(documents), "openslo").file.slos
    assert replace(found, error_budget_policy=slo.error_budget_policy) == slo
    wanted = [(float(each.budget_share), each.long, each.severity) for each in slo.burn_policy.windows]
    assert [(each.budget_share, each.long, each.severity) for each in found.burn_policy.windows] == [
        (pytest.approx(share, rel=1e-9), long, severity) for share, long, severity in wanted
    ]


# -- hostile input ------------------------------------------------------------------------------------------------------------------------

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["{{.window}}", "1M", "a[{{.window}}]", 10**400, "2026-01-01", -1, 0, 1e308, "\ud800", "x" * 5_000, "somaresil"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(["name", "spec"]), below, max_size=3),
    max_leaves=6,
)


def paths_of(value, path=()):
    """Every place in it."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from paths_of(below, (*path, key))


OURS = list(
    yaml.safe_load_all(
        dump_openslo(
            slos_with(
                [
                    SLO("A_b", 99.0, timedelta(seconds=777), BurnPolicy("x", (Window(60.0, 10.0, 0.5, "page"),)), latency=2.0),
                    SLO("w", 99.0, timedelta(days=7), parts={"A_b": 2}),
                ],
                {},
                {},
            )
        ).text
    )
)
SEEDS = {**FORMATS, "openslo": [*FORMATS["openslo"], *OURS]}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.parametrize("form", FORMATS)
def test_whatever_stands_anywhere_is_taken_or_refused(form, data):
    """A value of any kind in any place: objectives come of it, or problems with places; nothing else ever does."""
    documents = copy.deepcopy(SEEDS[form])
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([path for path in paths_of(documents) if path]))
        here = documents
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = data.draw(JUNK)
    try:
        text = text_of(documents)
    except (UnicodeError, yaml.YAMLError):
        return
    try:
        found = import_text(text, form, partial=data.draw(st.booleans()))
    except ConfigurationError as wrong:
        refused = wrong
    else:
        refused = None
    if refused is not None:
        assert refused.problems
        assert str(refused)
        return
    assert found.file.slos
    dump_toml(found.file)
    assert said(import_text(dump_openslo(found.file).text, "openslo").file) == said(found.file)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")), form=st.sampled_from([*FORMATS]))
def test_any_text_is_refused(text, form):
    """Whatever YAML makes of it."""
    with pytest.raises(ConfigurationError):
        import_text(text, form)


def options():
    table = st.dictionaries(st.sampled_from([each.name for each in fields(SLO)] + ["source", "service", "x"]), JUNK, max_size=4)
    return table.map(lambda found: json.dumps(found, default=str))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=options() | st.text(max_size=50))
def test_whatever_stands_in_our_annotation_is_taken_or_refused(text):
    """Anybody may have written it."""
    documents = copy.deepcopy(FORMATS["openslo"])
    documents[0]["metadata"]["annotations"] = {"somaresil/options": text}
    try:
        written = text_of(documents)
    except (UnicodeError, yaml.YAMLError):
        return
    try:
        found = import_text(written, "openslo")
    except ConfigurationError as wrong:
        refused = wrong
    else:
        refused = None
    if refused is not None:
        assert refused.problems
        return
    assert said(import_text(dump_openslo(found.file).text, "openslo").file) == said(found.file)


def test_names_that_differ_little_stay_apart():
    """As documents they get other names; decimals stay decimals."""
    window = Window(3_600.0, 300.0, Decimal("0.02"), "page")
    slos = [SLO(name, 99.9, timedelta(days=30), BurnPolicy("own", (window,))) for name in ("a/b", "a:b", "A-B", "a-b", "{}", "/")]
    file = slos_with(slos, {}, {})
    text = dump_openslo(file).text
    names = [each["metadata"]["name"] for each in yaml.safe_load_all(text) if each["kind"] == "SLO"]
    assert names == ["a-b", "a-b-2", "a-b-3", "a-b-4", "slo", "slo-2"]
    assert said(import_text(text, "openslo").file) == said(file)
