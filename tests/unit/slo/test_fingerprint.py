"""Two definitions of one name are noticed for every field that changes what is counted, and for no other."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import timedelta
from functools import partial

import pytest

from somaresil import SLO
from somaresil.slo.sheet import APART, fingerprint

WEEK = timedelta(days=7)
SLICED = {"budgeting": "timeslices", "time_slice_window": 60.0, "time_slice_target": 0.9}
OTHERWISE = {
    "name": ({}, {"name": "y"}),
    "description": ({}, {"description": "z"}),
    "target_percentage": ({}, {"target_percentage": 99.0}),
    "measurement_window": ({}, {"measurement_window": timedelta(days=30)}),
    "error_budget_policy": ({}, {"error_budget_policy": "gradual_burn"}),
    "calendar": ({}, {"measurement_window": None, "calendar": "month"}),
    "time_zone": ({"measurement_window": None, "calendar": "month"},) * 1
    + ({"measurement_window": None, "calendar": "month", "time_zone": "Europe/Berlin"},),
    "group_by": ({}, {"group_by": "tenant"}),
    "max_groups": ({"group_by": "tenant"}, {"group_by": "tenant", "max_groups": 5}),
    "latency": ({"latency": 1.0}, {"latency": 2.0}),
    "recovery": ({"recovery": 1.0}, {"recovery": 2.0}),
    "first_item": ({"first_item": 1.0}, {"first_item": 2.0}),
    "idle": ({"idle": 1.0}, {"idle": 2.0}),
    "completion": ({}, {"completion": True}),
    "freshness": ({"freshness": 60.0}, {"freshness": 90.0}),
    "good_when": ({"good_when": lambda *_: True}, {"good_when": lambda *_: False}),
    "parts": ({"parts": {"a": 1.0}}, {"parts": {"a": 2.0}}),
    "budgeting": (SLICED, {"budgeting": "ratio_timeslices", "time_slice_window": 60.0}),
    "time_slice_window": (SLICED, {**SLICED, "time_slice_window": 30.0}),
    "time_slice_target": (SLICED, {**SLICED, "time_slice_target": 0.8}),
    "injected": ({}, {"injected": "exclude"}),
    "chaos_budget_percentage": (
        {"injected": "separate", "chaos_budget_percentage": 1.0},
        {"injected": "separate", "chaos_budget_percentage": 2.0},
    ),
}


def of(**options):
    """The fingerprint of an objective with these options."""
    return fingerprint(SLO(**{"name": "x", "target_percentage": 90.0, "measurement_window": WEEK, **options}))


@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(SLO) if each.init])
def test_every_field_is_noticed_or_known_to_change_nothing(field):
    """A new field has to be decided on: it fails here until it is."""
    one, other = OTHERWISE[field]
    assert (of(**one) == of(**other)) is (field in APART)
    assert of(**one) == of(**dict(one))


def bounded(result, error, elapsed, limit=1.0):
    """A predicate with a default."""
    return elapsed < limit


def limited(limit):
    """Make predicates that differ in what they hold."""
    return lambda result, error, elapsed: elapsed < limit


class Judge:
    """An object that judges."""

    def judge(self, result, error, elapsed):
        """By itself."""
        return True

    def other(self, result, error, elapsed):
        """Otherwise."""
        return True


def test_predicates_are_told_apart_by_what_they_say():
    """Constants, what they hold, defaults, arguments: never by where they are in memory."""
    predicates = [
        lambda *_: _[2] < 1.0,
        lambda *_: _[2] < 2.0,
        limited(1.0),
        limited(2.0),
        bounded,
        partial(bounded, limit=2.0),
        partial(bounded, limit=3.0),
        Judge().judge,
        Judge().other,
    ]
    prints = [of(good_when=each) for each in predicates]
    assert len({*prints}) == len(prints)
    again = [limited(1.0), limited(2.0), bounded, partial(bounded, limit=2.0), partial(bounded, limit=3.0), Judge().judge, Judge().other]
    assert [of(good_when=each) for each in again] == prints[2:]


def test_every_process_says_the_same():
    """With another seed for hashes too: workers add up what they count."""
    code = (
        "from datetime import timedelta\nfrom functools import partial\nfrom somaresil import SLO\n"
        "from somaresil.slo.sheet import fingerprint\n"
        "def near(result, error, elapsed, limit=1.0):\n    return result in {'a', 'b', 'c', 'd'} or (lambda: limit)() > elapsed\n"
        "print(fingerprint(SLO('x', 90.0, timedelta(days=7), good_when=partial(near, limit=2.0))))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    assert next(iter(said)).strip()
