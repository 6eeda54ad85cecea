"""Why calls were refused, what chaos may do and does, and what was put in service, as metrics."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from somaresil import SLO, Bulkhead, ChaosConfig, ChaosExperiment, CircuitBreaker, ManualClock, RateLimit, Resilience
from somaresil.canary import CanaryConfig, CanaryController
from somaresil.errors import Rejected
from somaresil.integrations._families import SWITCH_STATES
from somaresil.integrations.prometheus import install
from somaresil.outcome import Outcome
from somaresil.recorder import Recorder
from somaresil.switch import Switch


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def resilience(clock, monkeypatch, tmp_path):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    return Resilience("service", clock=clock, seed=1, environment="test")


@pytest.fixture
def registry(resilience):
    registry = CollectorRegistry()
    install(resilience, registry)
    return registry


@pytest.fixture
def allowed(resilience, tmp_path):
    resilience.chaos.opt_in(switch=tmp_path / "switch")
    yield resilience
    resilience.chaos.stop_all(here_only=True)


def fail():
    raise ValueError


def test_refusals_are_counted_by_what_has_refused(resilience, registry):
    """A circuit, a limit and a rate, also where nobody listens; they add up to all that were refused."""
    guard = resilience.guard("g", breaker=CircuitBreaker(consecutive_failures=1), rate_limit=RateLimit(2, per=60.0))
    count = registry.get_sample_value
    for reason in ("circuit_open", "rate_limited"):
        assert count("somaresil_rejections_total", {"guard": "g", "reason": reason}) == 0
    assert guard.call(int) == 0
    with pytest.raises(ValueError, match=r"^$"):
        guard.call(fail)
    for _ in range(3):
        with pytest.raises(Rejected):
            guard.call(int)
    resilience.breaker("g").reset()
    with pytest.raises(Rejected):
        guard.call(int)
    assert count("somaresil_rejections_total", {"guard": "g", "reason": "circuit_open"}) == 3
    assert count("somaresil_rejections_total", {"guard": "g", "reason": "rate_limited"}) == 1
    assert count("somaresil_calls_total", {"guard": "g", "outcome": "rejected", "injected": "false"}) == 4
    assert guard.rejections() == {"circuit_open": 3, "rate_limited": 1}


async def _full(guard):
    gate = asyncio.Event()
    holding = asyncio.ensure_future(guard.acall(gate.wait))
    await asyncio.sleep(0)
    with pytest.raises(Rejected):
        await guard.acall(gate.wait)
    gate.set()
    await holding


def test_a_full_bulkhead_is_a_reason(resilience):
    """It refuses beside the quiet path."""
    guard = resilience.guard("g", bulkhead=Bulkhead(1, max_wait=0.0))
    assert guard.rejections() == {"bulkhead_full": 0}
    asyncio.run(_full(guard))
    assert guard.rejections() == {"bulkhead_full": 1}


def test_a_deadline_that_is_over_is_a_reason(resilience, clock):
    """Nobody waits for the answer any more."""
    guard = resilience.guard("g")
    with resilience.deadline(1.0):
        clock.advance(2.0)
        with pytest.raises(Rejected):
            guard.call(int)
    assert guard.rejections() == {"deadline_exceeded": 1}


def test_reasons_are_few_whatever_comes():
    """A class that is made for each call must not become a label for each."""
    recorder = Recorder(Switch(), (1.0,))
    for number in range(100):
        recorder.add(Outcome.REJECTED, 0.0, False, f"r{number}")
    found = recorder.refusals_by_reason()
    assert len(found) == 21
    assert found["_other"] == 80
    assert sum(found.values()) == 100


def test_experiments_are_shown_while_they_run_and_counted_when_they_end(allowed, registry, clock):
    """By why they ended."""
    allowed.guard("g")
    count = registry.get_sample_value
    labels = {"component": "g", "fault": ChaosExperiment.ERROR_INJECTION.value}
    config = ChaosConfig(ChaosExperiment.ERROR_INJECTION, "g", 0.1, 60.0)
    allowed.chaos.arm(config)
    assert count("somaresil_experiments", labels) == 1
    clock.advance(61.0)
    assert count("somaresil_experiments", labels) is None
    assert count("somaresil_experiments_ended_total", {"reason": "expired"}) == 1
    allowed.chaos.arm(config).end("condition my own > 2")
    allowed.chaos.arm(config)
    allowed.chaos.engage("enough")
    for reason in ("condition", "safety_lever"):
        assert count("somaresil_experiments_ended_total", {"reason": reason}) == 1


def test_whether_experiments_may_start_is_said_where_somebody_has_opted_in(resilience, registry, tmp_path, monkeypatch):
    """Also while the safety lever is engaged, and while nobody knows what the switch says."""
    count = registry.get_sample_value

    def said():
        states = [state for state in SWITCH_STATES if count("somaresil_kill_switch", {"state": state})]
        return count("somaresil_chaos_allowed"), states

    assert said() == (None, ["none"])
    resilience.chaos.opt_in(switch=tmp_path / "switch")
    resilience.guard("g")
    resilience.chaos.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, "g", 0.1, 60.0)).end()
    assert said() == (1, ["released"])
    resilience.chaos.engage("enough")
    assert said() == (0, ["engaged"])
    resilience.chaos.disengage("again")
    assert said() == (1, ["released"])
    monkeypatch.setenv("SOMARESIL_CHAOS", "0")
    assert said() == (0, ["released"])
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    (tmp_path / "switch").write_text("nothing of ours")
    assert said() == (0, ["unreadable"])


def test_deployments_are_counted_from_nothing_on(resilience, registry):
    """All three are there before the first one, or Prometheus would not see it."""
    count = registry.get_sample_value
    assert [count("somaresil_deployments_total", {"ok": ok}) for ok in ("true", "false", "unknown")] == [0, 0, 0]
    resilience.deployed("1.0")
    resilience.deployed("1.1", ok=True)
    resilience.deployed("1.2", ok=False)
    resilience.deployed("1.3", ok=False)
    assert [count("somaresil_deployments_total", {"ok": ok}) for ok in ("true", "false", "unknown")] == [1, 2, 1]


def test_a_canary_says_what_evidence_is_enough(resilience, registry):
    """So that a board can draw the line."""
    resilience.slos.add(SLO("up", 99.0, timedelta(days=1)))
    canary = CanaryController(resilience, CanaryConfig(name="c", bad="up", alpha=0.02, beta=0.1, interval=None))
    canary.start("v2")
    count = registry.get_sample_value
    for against, enough in (("worse", 50.0), ("objective", 50.0), ("not_much_worse", 10.0)):
        assert count("somaresil_canary_evidence_threshold", {"canary": "c", "against": against}) == enough
    with suppress(Exception):
        canary.close()
