"""What may pass: waivers with an end, licences, and how bad is too bad."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.errors import ConfigurationError
from somaresil.scan.advisories import parse_advisory
from somaresil.scan.inventory import Package
from somaresil.scan.policy import Policy, findings_of, read_policy
from tests.unit.scan.kit import LOW, advisory

TODAY = date(2026, 11, 27)
PACKAGE = Package("thing", "1.0", "MIT", "index", ())
BAD = parse_advisory(advisory("GHSA-aaaa", "thing", {"introduced": "0"}, aliases=["CVE-2026-1"]))
MILD = parse_advisory(advisory("GHSA-bbbb", "thing", {"introduced": "0"}, vector=LOW))
UNRATED = parse_advisory(advisory("GHSA-cccc", "thing", {"introduced": "0"}, vector=None))


def judged(policy, *advisories, fail_on="low", today=TODAY):
    return {each.advisory.id: each.counts for each in findings_of([PACKAGE], {"thing": advisories}, policy, fail_on=fail_on, today=today)}


def waiving(**entry):
    waiver = {"id": "CVE-2026-1", "reason": "not reachable from our code", "until": date(2026, 12, 31), **entry}
    return read_policy({"waivers": [waiver]}, today=TODAY)


def test_the_limit_lets_lesser_ones_pass_and_never_what_nobody_has_rated():
    assert judged(Policy(), BAD, MILD, UNRATED) == {"GHSA-aaaa": True, "GHSA-bbbb": True, "GHSA-cccc": True}
    assert judged(Policy(), BAD, MILD, UNRATED, fail_on="critical") == {"GHSA-aaaa": True, "GHSA-bbbb": False, "GHSA-cccc": True}


def test_a_waiver_holds_by_any_name_of_the_advisory_until_the_end_of_its_last_day():
    policy = waiving()
    assert judged(policy, BAD, MILD) == {"GHSA-aaaa": False, "GHSA-bbbb": True}
    assert judged(policy, BAD, today=date(2026, 12, 31)) == {"GHSA-aaaa": False}
    assert judged(policy, BAD, today=date(2027, 1, 1)) == {"GHSA-aaaa": True}
    assert judged(waiving(package="Other"), BAD) == {"GHSA-aaaa": True}
    assert judged(waiving(package="Thing"), BAD) == {"GHSA-aaaa": False}


def test_every_problem_of_a_policy_is_told_at_once(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text(
        '[[waivers]]\nid = "../x"\nreason = "short"\nuntil = 2030-01-01\n[[waivers]]\nwhy = 1\n[licenses]\n[licences]\nallow = []\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigurationError) as refused:
        read_policy(file, today=TODAY)
    told = str(refused.value)
    for part in (
        "waivers[0].id",
        "waivers[0].reason",
        "at most 180 days",
        "waivers[1].why",
        "waivers[1].until",
        "licenses",
        "licences.allow",
    ):
        assert part in told


@pytest.mark.parametrize(
    "source", [{"waivers": {}}, {"waivers": [5]}, {"licences": 5}, {"licences": {"allow": ["MIT"], "exceptions": {"x": "no"}}}]
)
def test_a_policy_of_another_form_is_refused(source):
    with pytest.raises(ConfigurationError):
        read_policy(source, today=TODAY)


@pytest.mark.parametrize(
    ("licence", "good"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(GPL-3.0-only OR MIT) AND Apache-2.0", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("MIT OR", False),
        ("(MIT", False),
        ("MIT MIT", False),
        ("", False),
        (None, False),
    ],
)
def test_a_licence_is_allowed_when_its_expression_is_met(licence, good):
    policy = Policy(allowed=("MIT", "Apache-2.0"))
    assert (policy.licence_problem(Package("thing", "1", licence, "index", ())) is None) is good


def test_without_a_list_any_licence_is_good_and_an_exception_is_for_one_package():
    nameless = Package("thing", "1", None, "index", ())
    assert Policy().licence_problem(nameless) is None
    policy = read_policy({"licences": {"allow": ["MIT"], "exceptions": {"Thing": "ours, and not yet published"}}}, today=TODAY)
    assert policy.licence_problem(nameless) is None
    assert policy.licence_problem(Package("other", "1", None, "index", ())) == "it says no licence"


@given(st.text(st.sampled_from("() MITORANDWHGPL-3.0"), max_size=60))
def test_whatever_an_expression_says_a_licence_that_is_not_allowed_never_passes_alone(text):
    problem = Policy(allowed=("Zlib",)).licence_problem(Package("thing", "1", text, "index", ()))
    assert problem is not None
