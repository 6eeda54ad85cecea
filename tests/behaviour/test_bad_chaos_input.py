"""What is wrong with an experiment is refused by whatever way it comes in: with a path and what is allowed, and nothing is armed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from somaresil import ChaosCeilings, ChaosPlan, ConfigurationError, FaultWindow, Resilience
from somaresil.chaos.vocabulary import FAULTS, LONG_NAMES, Realm
from somaresil.control import BearerToken, chaos_control
from somaresil.gameday import GameDay
from somaresil.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "a-token-of-these-tests-only-0123456789"

GOOD: dict[str, Any] = {"target": "llm.*", "kind": "error", "duration": 5.0}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown component": ({**GOOD, "target": "llm.invke"}, "target"),
    "unknown kind": ({**GOOD, "kind": "eror"}, "kind"),
    "unknown capability": ({"target": "resource:flux", "kind": "resource_exhaust", "duration": 5.0}, "target"),
    "rate above the ceiling": ({**GOOD, "rate": 0.9}, "rate"),
    "duration above the ceiling": ({**GOOD, "duration": 900.0}, "duration"),
    "delay above the ceiling": ({**GOOD, "kind": "latency", "delay": 25.0}, "delay"),
    "bytes above the ceiling": ({"target": "resource:memory", "kind": "resource_exhaust", "duration": 5.0, "amount": 1e12}, "amount"),
    "no end": ({**GOOD, "duration": float("inf")}, "duration"),
    "an option that the kind does not look at": ({**GOOD, "chunk_bytes": 7}, "chunk_bytes"),
    "what another experiment strikes": ({"target": "busy", "kind": "error", "duration": 5.0}, "target"),
}
FIELDS = {"rate": 0.5}
"""A share that is allowed, for those that are wrong elsewhere."""


class Stand:
    """A service that runs one experiment already."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=5, environment="test")
        self.chaos = self.resilience.chaos
        self.chaos.opt_in(ChaosCeilings(duration=600.0, rate=0.5, delay=10.0))
        for name in ("llm.invoke", "busy"):
            self.resilience.guard(name, breaker=True)
        self.before = self.chaos.arm_plan(plan_of({"target": "busy", "kind": "error", "duration": 500.0, **FIELDS})).runs

    @property
    def armed(self) -> set[str]:
        """What came beside the one that was there."""
        return {run.id for run in self.chaos.history} - {run.id for run in self.before}


def plan_of(window: dict[str, Any]) -> ChaosPlan:
    return ChaosPlan.from_dict({"somaresil_plan": 1, "seed": 1, "windows": [{"start": 0.0, **FIELDS, **window}]})


def problems_of(refused: ConfigurationError) -> list[tuple[str, str]]:
    return [(problem.path, problem.allowed) for problem in refused.problems]


def by_code(stand: Stand, window: dict[str, Any]) -> list[tuple[str, str]]:
    """As a configuration in code; its names are longer."""
    with pytest.raises(ConfigurationError) as refused:
        stand.chaos.arm(FaultWindow(**{"start": 0.0, **FIELDS, **window}).config({}))
    short = {long: name for name, long in LONG_NAMES.items()}
    return [(short.get(path.rpartition(".")[2], path.rpartition(".")[2]), allowed) for path, allowed in problems_of(refused.value)]


def without_infinity(window: dict[str, Any]) -> dict[str, Any]:
    """JSON has no such number: without an end is then what says nothing of it."""
    return {name: value for name, value in window.items() if value != float("inf")}


def by_plan(stand: Stand, window: dict[str, Any]) -> list[tuple[str, str]]:
    """As a plan, in JSON."""
    window = without_infinity(window)
    with pytest.raises(ConfigurationError) as refused:
        text = json.dumps({"somaresil_plan": 1, "seed": 1, "windows": [{"start": 0.0, **FIELDS, **window}]})
        stand.chaos.arm_plan(ChaosPlan.from_json(text))
    return problems_of(refused.value)


def by_control_app(stand: Stand, window: dict[str, Any]) -> list[tuple[str, str]]:
    """As a request."""
    window = without_infinity(window)

    async def ask() -> httpx.Response:
        app = chaos_control(stand.resilience, auth=BearerToken(TOKEN))
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tests", headers=headers) as http:
            return await http.post("/experiments", json={**FIELDS, **window})

    answer = asyncio.run(ask())
    assert answer.status_code in {409, 422}
    return [(each["path"], each["allowed"]) for each in answer.json()["problems"]]


def by_game_day(read: Callable[[str], GameDay], form: Callable[[dict[str, Any]], str]) -> Callable[..., list[tuple[str, str]]]:
    """As a file of a game day."""

    def play(stand: Stand, window: dict[str, Any]) -> list[tuple[str, str]]:
        try:
            day = read(form({"start": 0.0, **FIELDS, **window}))
        except ConfigurationError as refused:
            return problems_of(refused)
        report = stand.clock.run(day.run(stand.resilience, probes={"fine": lambda: 1.0}))
        assert report.exit_code != 0
        return [(reason, reason) for reason in report.experiments[0].reasons]

    return play


FINE = 'hypothesis = [{ kind = "callable", target = "fine", minimum = 0.5 }]\n'


def toml(window: dict[str, Any]) -> str:
    fields = ", ".join(f"{name} = {json.dumps(value) if value != float('inf') else 'inf'}" for name, value in window.items())
    return f'somaresil_gameday = 1\nname = "a day"\n[[experiments]]\nname = "bad"\nfaults = [{{ {fields} }}]\nbaseline = 1\n{FINE}'


def yaml(window: dict[str, Any]) -> str:
    fields = ", ".join(f"{name}: {json.dumps(value) if value != float('inf') else '.inf'}" for name, value in window.items())
    return (
        "somaresil_gameday: 1\nname: a day\nexperiments:\n  - name: bad\n    baseline: 1\n"
        f"    hypothesis: [{{kind: callable, target: fine, minimum: 0.5}}]\n    faults: [{{{fields}}}]\n"
    )


def by_request_plan(stand: Stand, window: dict[str, Any]) -> list[tuple[str, str]]:
    """As a rule that requests may name."""
    with pytest.raises(ConfigurationError) as refused:
        stand.chaos.approve("rule", FaultWindow(**{"start": 0.0, **FIELDS, **window}))
    assert stand.chaos.requests.approved == {}
    return problems_of(refused.value)


WAYS: dict[str, Callable[[Stand, dict[str, Any]], list[tuple[str, str]]]] = {
    "code": by_code,
    "plan": by_plan,
    "control app": by_control_app,
    "game day in TOML": by_game_day(GameDay.from_toml, toml),
    "game day in YAML": by_game_day(GameDay.from_yaml, yaml),
    "request plan": by_request_plan,
}
NOT_ASKED = {("request plan", "what another experiment strikes")}
"""A request plan strikes its own request alone, whatever else runs."""


@pytest.mark.parametrize(("what", "way"), [(what, way) for what in BAD for way in WAYS if (way, what) not in NOT_ASKED])
def test_what_is_wrong_is_refused_by_every_way_in(monkeypatch, what, way):
    """Its path is named, so is what is allowed, and of what was there before nothing has changed."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    stand = Stand()
    window, path = BAD[what]
    problems = WAYS[way](stand, window)
    named = [found for found, allowed in problems if path in found and allowed]
    assert named, problems
    assert stand.armed == set()
    assert stand.resilience.find("llm.invoke").switch.quiet
    assert [run.live for run in stand.before] == [True]


TEXTS = {
    "an alias": "somaresil_gameday: 1\nname: &a day\nexperiments:\n  - name: *a\n",
    "a key that stands twice": "somaresil_gameday: 1\nname: a\nname: b\nexperiments: []\n",
    "a tag": "somaresil_gameday: 1\nname: !!python/object/apply:os.system ['true']\nexperiments: []\n",
    "two documents": "somaresil_gameday: 1\n---\nsomaresil_gameday: 1\n",
}


@pytest.mark.parametrize("what", TEXTS)
def test_yaml_that_can_be_read_in_two_ways_is_not_read(what):
    """Not an alias, not a second key of one name, no tag, no second document."""
    with pytest.raises(ConfigurationError) as refused:
        GameDay.from_yaml(TEXTS[what])
    assert refused.value.problems[0].allowed


def test_json_with_a_name_that_stands_twice_is_not_read():
    """Parsers do not agree which of them counts."""
    with pytest.raises(ConfigurationError):
        ChaosPlan.from_json('{"somaresil_plan": 1, "seed": 1, "seed": 2, "windows": []}')


OPTIONS: dict[str, Any] = {"delay": 0.5, "bytes_per_second": 1.0, "status": 503}
ON_REQUESTS = [kind for kind, fault in FAULTS.items() if Realm.HTTP in fault.realms]


@pytest.mark.parametrize("kind", ON_REQUESTS)
def test_no_fault_of_requests_touches_health_metrics_or_control(monkeypatch, kind):
    """Whatever its pattern says: they are what an operator looks at while something goes wrong."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    stand = Stand()
    chaos_control(stand.resilience, auth=BearerToken(TOKEN), at="/ops/chaos")
    stand.chaos.middleware_added()
    takes = FAULTS[kind].realms[Realm.HTTP]
    needs = {*takes.needs, *sorted(takes.one_of)[:1]}
    options = {name: OPTIONS[name] for name in needs}
    stand.chaos.arm_plan(plan_of({"target": "http:/*", "kind": kind, "duration": 5.0, "rate": 0.5, "every": 1, **options}))
    for path in ("/health", "/healthz", "/metrics", "/ready", "/ops/chaos/status", "/_soma/chaos/stop"):
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        assert [stand.chaos.strike_request(path, "", scope) for _ in range(20)] == [None] * 20
    scope = {"type": "http", "method": "GET", "path": "/answer", "headers": []}
    assert any(stand.chaos.strike_request("/answer", "", scope) for _ in range(40))
