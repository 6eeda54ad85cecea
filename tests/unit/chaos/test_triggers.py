"""Which calls are struck: by number, after something was seen, on a ramp, and by what they are about."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ChaosConfig, ChaosPlan, ConfigurationError, FaultWindow, InjectedFault, ResilienceMiddleware
from somaresil.chaos import scope
from somaresil.chaos.triggers import Numbers, Where, aims_at, check_after, check_where, rate_at
from somaresil.config import Checker
from somaresil.priority import priority
from tests.unit.chaos.kit import ERROR


def test_every_nth_call(stand):
    """Counted for each guard."""
    stand.arm(every=3)
    assert stand.struck(7) == [False, False, True, False, False, True, False]


def test_a_burst_then_all_is_clear(stand):
    """The first calls and no other."""
    stand.arm(first=2)
    assert stand.struck(5) == [True, True, False, False, False]


def test_triggers_are_asked_together(stand):
    """All of them must hold."""
    stand.arm(first=6, every=2, calls=(1, 2, 4, 8))
    assert stand.struck(9) == [False, True, False, True, False, False, False, False, False]


def test_a_scope_counts_for_itself(stand):
    """As it does without triggers."""
    stand.arm(first=1)
    found = []
    for name in "abca":
        with scope(name):
            found += stand.struck()
    assert found == [True, True, True, False]


def test_a_ramp_rises_from_one_rate_to_another(stand):
    """In a straight line, then it stays."""
    stand.arm(rate=1.0, ramp_seconds=100, duration=600)
    shares = []
    for _ in range(4):
        shares.append(sum(stand.struck(400)) / 400)
        stand.clock.advance(50)
    assert shares[0] == 0.0
    assert 0.4 < shares[1] < 0.6
    assert shares[2:] == [1.0, 1.0]


def test_a_ramp_may_fall(stand):
    """From a rate that the ceiling is compared with as well."""
    config = ChaosConfig(ERROR, "llm.*", 0.0, 60, ramp_seconds=10, ramp_from=1.0)
    assert config.highest_rate == 1.0
    stand.chaos.arm(config)
    assert stand.struck() == [True]
    stand.clock.advance(11)
    assert stand.struck() == [False]


def other(stand, name="db", error=None):
    def fails():
        if error is not None:
            raise error

    try:
        stand.resilience.guard(name).call(fails)
    except Exception as raised:
        return raised
    return None


def test_only_after_a_call_of_another_guard(stand):
    """Bugs that need two steps: what came before is not even counted."""
    stand.arm(first=1, after="call:db*")
    assert stand.struck(3) == [False] * 3
    other(stand, "cache")
    assert stand.struck() == [False]
    other(stand)
    assert stand.struck(2) == [True, False]


def test_a_call_does_not_come_after_itself(stand):
    """It is seen when it was decided about."""
    stand.arm(first=1, after="call:llm.*")
    assert stand.struck(3) == [False, True, False]


def test_only_after_another_fault(stand):
    """Of whatever experiment."""
    stand.resilience.guard("db")
    stand.arm(after="fault:db")
    assert stand.struck() == [False]
    stand.chaos.arm(ChaosConfig(ERROR, "db", 1.0))
    other(stand)
    assert stand.struck() == [True]


def test_only_after_an_event_and_the_listener_goes_with_the_lease(stand):
    """Of its name, about the guard that is named."""
    guard = stand.resilience.guard("db", breaker=True)
    before = len(stand.resilience.listeners._entries)
    run = stand.arm(after="event:BreakerChanged:db")
    assert stand.struck() == [False]
    guard.breaker.trip()
    assert stand.struck() == [True]
    run.end()
    assert len(stand.resilience.listeners._entries) == before


def test_a_guard_that_is_made_later_is_waited_for_too(stand):
    """As targets are."""
    stand.arm(after="call:late")
    other(stand, "late")
    assert stand.struck() == [True]


def test_a_guard_that_is_only_waited_for_is_quiet_again_afterwards(stand):
    """Nothing is left armed."""
    guard = stand.resilience.guard("db")
    run = stand.arm(after="call:db")
    assert not guard.switch.quiet
    run.end()
    assert guard.switch.quiet
    assert guard.faults.rules == ()


def test_only_calls_of_a_tenant_or_class(stand):
    """As the caller has said."""
    stand.arm(where={"tenant": "ac*", "class": "low"})
    found = []
    for level, tenant in [("low", "acme"), ("high", "acme"), ("low", "other"), ("low", None)]:
        with priority(level, tenant=tenant):
            found += stand.struck()
    assert [*found, *stand.struck()] == [True, False, False, False, False]


def test_only_calls_of_a_scope(stand):
    """One request, and no other."""
    stand.arm(where={"scope": "request-1*"})
    with scope("request-17"):
        assert stand.struck() == [True]
    with scope("request-2"):
        assert stand.struck() == [False]


def request(method="POST", host="api.example.com", **headers):
    return SimpleNamespace(method=method, url=SimpleNamespace(host=host), headers=headers)


def test_only_requests_of_a_client_to_a_host(stand):
    """By method, host and header of what it sends; calls that send nothing fit no pattern."""
    stand.arm(where={"method": "post", "host": "*.Example.com", "header:x-user": "u*"})

    @stand.resilience.guard("llm.invoke")
    def send(what):
        return what

    def struck(what):
        try:
            send(what)
        except InjectedFault:
            return True
        return False

    asked = [request(**{"x-user": "u1"}), request(), request("GET", **{"x-user": "u1"}), request(host="other", **{"x-user": "u1"}), None]
    assert [struck(what) for what in asked] == [True, False, False, False, False]


def test_only_requests_of_a_service_that_fit(stand):
    """By method, host and header; header names have no case, and a port is no part of a host."""
    ResilienceMiddleware(None, stand.resilience)
    stand.arm(target="http:/v1/*", where={"method": "POST", "host": "api.example.com", "header:X-User": "u?"})

    def struck(method="POST", host=b"api.example.com:8080", user=b"u1", path="/v1/x"):
        scope = {"method": method, "headers": [(b"Host", host), (b"x-user", user)]}
        return stand.chaos.strike_request(path, "", scope) is not None

    assert struck()
    assert not any([struck("GET"), struck(host=b"x"), struck(user=b"u22"), struck(path="/x")])
    assert stand.chaos.strike_request("/v1/x") is None


@pytest.mark.parametrize(
    ("target", "path", "aimed"),
    [
        ("http:/users/{id}", "/users/7", True),
        ("http:/users/{id}", "/users/7/mails", False),
        ("http:/users/{user_id}/mails/*", "/users/7/mails/1/2", True),
        ("http:/files/{name:path}", "/files/a/b", True),
        ("http:/files/{name:path}", "/files/", False),
        ("http:/v?/{id}", "/v1/x", True),
        ("http:/a.b/{id}", "/aXb/1", False),
        ("http:/users/*", "/users/7/mails", True),
    ],
)
def test_a_route_is_a_target(target, path, aimed):
    """A part in braces stands for one segment."""
    assert aims_at(target, f"http:{path}") is aimed


WRONG = [
    ({"every": 0}, "every"),
    ({"first": 1.5}, "first"),
    ({"after": "call"}, "after"),
    ({"after": "cal:x"}, "after"),
    ({"after": "event:BreakerChangd"}, "after"),
    ({"after": "fault:a b"}, "after"),
    ({"after": 5}, "after"),
    ({"ramp": -1}, "ramp"),
    ({"ramp": 5, "ramp_from": 2}, "ramp_from"),
    ({"ramp_from": 0.5}, "ramp_from"),
    ({"where": {}}, "where"),
    ({"where": "tenant"}, "where"),
    ({"where": {"tennant": "x"}}, "where.tennant"),
    ({"where": {"tenant": 5}}, "where.tenant"),
    ({"where": {"header:a b": "x"}}, "where.header:a b"),
    ({"corrupt": "a b"}, "corrupt"),
    ({"kind": "fake_result", "result": object()}, "result"),
    ({"kind": "rate_limit", "retry_after": -1}, "retry_after"),
    ({"kind": "stream_throttle"}, "bytes_per_second"),
    ({"kind": "stream_throttle", "bytes_per_second": 1, "items_per_second": 1}, "bytes_per_second"),
    ({"kind": "stream_throttle", "items_per_second": 0}, "items_per_second"),
    ({"kind": "stream_cut", "reset": True}, "reset"),
    ({"kind": "latency", "delay": {"uniform": [2, 1]}}, "delay.uniform.low"),
]


@pytest.mark.parametrize(("options", "path"), WRONG)
def test_what_is_wrong_is_told_with_its_path(options, path):
    """In a window of a plan, by its names."""
    with pytest.raises(ConfigurationError) as caught:
        FaultWindow(**{"target": "llm.invoke", "kind": "error", "start": 0, "duration": 1, **options})
    assert path in [problem.path for problem in caught.value.problems]


windows = st.fixed_dictionaries(
    {},
    optional={
        "every": st.integers(1, 5),
        "first": st.integers(1, 20),
        "after": st.sampled_from(["call:db", "fault:*", "event:BreakerChanged:db"]),
        "ramp": st.integers(1, 60),
        "where": st.dictionaries(st.sampled_from(["tenant", "class", "method", "host", "header:x-a"]), st.just("a*"), min_size=1),
        "delay": st.sampled_from([0, 0.5, {"uniform": [0.1, 0.5]}, {"percentiles": {"50": 0.1, "99": 2}}, {"empirical": [1, 2]}]),
        "rate": st.sampled_from([0.1, 0.5, 1.0]),
    },
)


@given(windows)
def test_a_window_comes_back_from_json_and_from_its_line(options):
    """With every trigger and shape."""
    window = FaultWindow("llm.invoke", "error", 0, 30, **options)
    plan = ChaosPlan([window], seed=3)
    assert ChaosPlan.from_json(plan.to_json()) == plan
    assert eval(repr(plan), {"ChaosPlan": ChaosPlan, "FaultWindow": FaultWindow}) == plan
    assert hash(plan) == hash(ChaosPlan.from_json(plan.to_json()))


def test_a_delay_of_a_call_is_alike_in_every_run(make):
    """The n-th call of a guard, however calls interleave."""

    def delays(order):
        stand = make(seed=11)
        plan = ChaosPlan([FaultWindow("*", "latency", 0, 600, delay={"lognormal": {"median": 0.2, "sigma": 1}})], seed=1)
        for name in "ab":
            stand.resilience.guard(name)
        stand.chaos.arm_plan(plan)
        found = {"a": [], "b": []}
        for name in order:
            began = stand.clock.monotonic()
            stand.resilience.guard(name).call(lambda: None)
            found[name].append(round(stand.clock.monotonic() - began, 6))
        return found

    assert delays("aabbab") == delays("bababa")
    assert len(set(delays("aaa")["a"])) == 3


def test_a_shape_is_drawn_for_each_task(stand):
    """Also when they run at once."""
    stand.arm("latency", delay_seconds={"uniform": [1, 2]})

    async def timed():
        began = stand.clock.monotonic()
        await stand.guard.acall(asyncio.sleep, 0)
        return stand.clock.monotonic() - began

    assert asyncio.run(timed()) >= 1.0


# -- the parts by themselves --------------------------------------------------------------------------------------------------------------


def test_ten_thousand_sequences_have_numbers_of_their_own_and_the_rest_shares_those_of_the_component():
    numbers = Numbers("db")
    assert numbers.component == "db"
    assert [numbers.next(""), numbers.next("")] == [0, 1]
    assert {numbers.next(str(number)) for number in range(10_000)} == {0}
    assert [numbers.next("7"), numbers.next("9999"), numbers.next("one more"), numbers.next("another")] == [1, 1, 2, 3]


def test_a_rate_on_a_ramp_lies_on_the_line_and_is_exact_at_its_ends():
    def at(elapsed, ramp=8.0, start=0.25, rate=0.75):
        return rate_at(SimpleNamespace(ramp_seconds=ramp, ramp_from=start, failure_rate=rate), elapsed)

    assert [at(seconds) for seconds in (-1.0, 0.0, 2.0, 4.0, 8.0, 9.0)] == [0.25, 0.25, 0.375, 0.5, 0.75, 0.75]
    assert [at(seconds, ramp=0.0) for seconds in (-1.0, 0.0)] == [0.75, 0.75]
    assert at(0.25, ramp=0.5) == 0.5
    ends = [(start / 20, rate / 20) for start in range(21) for rate in range(21)]
    assert [at(3.0, 3.0, start, rate) for start, rate in ends] == [rate for _, rate in ends]


PARTS = st.lists(st.sampled_from(["a", "b", "/", "*", "?", "{x}", "{y:int}", "{z:path}"]), min_size=1, max_size=6)
FORMS = {"*": ".*", "?": ".", "{x}": "[^/]+", "{y:int}": "[^/]+", "{z:path}": ".+"}


@given(PARTS, st.text("ab/", max_size=7))
def test_a_route_means_what_the_regular_expression_of_its_parts_means(parts, path):
    """Which is what it must not be made of: there are paths for which that takes for ever."""
    target = "".join(["{x}", *parts])
    form = "".join(FORMS.get(part, part) for part in ["{x}", *parts])
    assert aims_at(target, path) is (re.fullmatch(form, path, re.DOTALL) is not None)


def asked(fact, scope, pattern="*"):
    return Where(((fact, pattern),), on_http=True).fits(scope)


@pytest.mark.parametrize(
    ("fact", "pattern", "scope", "fits"),
    [
        ("method", "GET", {}, True),
        ("method", "POST", {"method": "post"}, True),
        ("method", "*", None, False),
        ("host", "::1", {"headers": [(b"host", b"[::1]:80")]}, True),
        ("host", "::1", {"headers": [(b"host", b"[::1]")]}, True),
        ("host", "example.com", {"headers": [(b"host", b"Example.com:80")]}, True),
        ("host", "example.com", {"headers": [(b"host", b"EXAMPLE.com")]}, True),
        ("host", "*", {"headers": []}, False),
        ("header:x-a", "*", {}, False),
        ("header:x-a", "One", {"headers": [(b"X-A", b"One"), (b"x-a", b"two")]}, True),
        ("header:x-a", "a:b", {"headers": [(b"x-a", b"a:b")]}, True),
        ("header:x-a", "\xe4", {"headers": [(b"x-a", b"\xe4")]}, True),
        ("scope", "*", {}, False),
        ("tenant", "*", {}, False),
        ("class", "*", {}, False),
    ],
)
def test_a_request_fits_by_what_its_scope_says(fact, pattern, scope, fits):
    assert asked(fact, scope, pattern) is fits


@pytest.mark.parametrize(
    ("fact", "about", "fits"),
    [
        ("method", SimpleNamespace(method="post"), True),
        ("method", SimpleNamespace(method=b"POST"), False),
        ("host", SimpleNamespace(url=SimpleNamespace(host="Post")), False),
        ("host", SimpleNamespace(url=SimpleNamespace(host="POST")), False),
        ("host", SimpleNamespace(url="http://POST"), False),
        ("header:x-a", SimpleNamespace(headers={"x-a": "POST"}), True),
        ("header:x-a", SimpleNamespace(headers={}), False),
        ("header:x-a", SimpleNamespace(headers=None), False),
    ],
)
def test_a_call_fits_by_what_its_first_argument_says(fact, about, fits):
    where = Where(((fact, "POST"),), on_http=False)
    assert where.fits(SimpleNamespace(args=(about,))) is fits
    assert where.fits(SimpleNamespace(args=())) is False
    assert where.fits(None) is False


def test_a_header_that_is_no_text_is_compared_as_text():
    where = Where((("header:x-a", "7"),), on_http=False)
    assert where.fits(SimpleNamespace(args=(SimpleNamespace(headers={"x-a": 7}),)))


def test_conditions_on_calls_are_kept_sorted_and_spelt_as_they_are_compared():
    check = Checker("x")
    given = {"method": "post", "header:X-A": "Ab", "host": "*.Example.com", "tenant": "Acme"}
    kept = (("header:x-a", "Ab"), ("host", "*.example.com"), ("method", "POST"), ("tenant", "Acme"))
    assert check_where(check, given) == kept
    assert check_where(check, kept) == kept
    assert check_where(check, None) is None
    assert len(check_where(check, {f"header:x-{number}": "a" * 200 for number in range(20)})) == 20
    assert check_where(check, {"tenant": "a"}) == (("tenant", "a"),)
    assert check.problems == ()


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ({}, "x.where"),
        ((), "x.where"),
        ([("tenant", "a")], "x.where"),
        ((("tenant", "a", "b"),), "x.where"),
        (("ab", "cd"), "x.where"),
        ({f"header:x-{number}": "a" for number in range(21)}, "x.where"),
        ({"tenant": ""}, "x.where.tenant"),
        ({"tenant": "a" * 201}, "x.where.tenant"),
        ({7: "a"}, "x.where.7"),
        ({"header:": "a"}, "x.where.header:"),
    ],
)
def test_what_is_no_condition_on_calls_is_one_problem_in_its_place(where, path):
    check = Checker("x")
    check_where(check, where)
    assert [problem.path for problem in check.problems] == [path]


def test_a_prerequisite_is_checked_for_its_word_its_event_and_its_pattern():
    for fine in (None, "call:db", "fault:*", "event:BreakerChanged", "event:BreakerChanged:db", "call:" + "a" * 115):
        check = Checker("x")
        check_after(check, fine)
        assert check.problems == (), fine
    hints = {"cal:db": "did you mean 'call'?", "event:BreakerChangd": "did you mean 'BreakerChanged'?", "call": "did you mean 'call'?"}
    for wrong in ("cal:db", "event:BreakerChangd", "call", "event:", 5, "call:a b", "event:BreakerChanged:a b", "call:" + "a" * 196):
        check = Checker("x")
        check_after(check, wrong)
        assert [problem.path for problem in check.problems] == ["x.after"], wrong
        if wrong in hints:
            assert check.problems[0].hint == hints[wrong]
    check = Checker("x")
    check_after(check, 5)
    assert check.problems[0].allowed.startswith("call:GUARD, fault:GUARD or event:NAME")
