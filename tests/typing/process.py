"""What type checkers make of single calls, listeners, views, objectives, experiments and errors. Checked as ``api`` is, never run."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import assert_type

from somaresil import (
    SLO,
    CallTimedOut,
    ChaosCeilings,
    ChaosConfig,
    ChaosExperiment,
    CircuitOpen,
    ConfigurationError,
    Decision,
    DeploymentPolicy,
    ErrorBudget,
    ManualClock,
    Outcome,
    Problem,
    Resilience,
    SystemClock,
    Verdict,
)
from somaresil.chaos.run import ExperimentRun
from somaresil.dashboard import UNSAFE_OPEN, BearerToken, DashboardApp
from somaresil.events import BreakerChanged, CallEnded, Event
from somaresil.guard.change import Change, undo
from somaresil.guard.description import Description
from somaresil.guard.lint import Finding
from somaresil.model.breaker import State
from somaresil.recorder import Counts
from somaresil.resilience import BreakerControl, GuardView, Snapshot
from somaresil.settings import Unused
from somaresil.slo.incidents import Incident

resilience = Resilience("gateway", zone="a", clock=ManualClock(), seed=7)
assert_type(resilience.clock.monotonic(), float)
assert_type(Resilience(service="gateway", clock=SystemClock(), seed=b"seed").instance, str)
Resilience(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Resilience("gateway", "pod-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Resilience("gateway", clock=object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Resilience("gateway", seed=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# -- single calls ---------------------------------------------------------------------------------------------------------------------

guard = resilience.guard("llm.invoke", classify=lambda result, error: Outcome.IGNORED if isinstance(error, KeyError) else None)
resilience.guard("wrong", classify=lambda result: None)  # type: ignore[misc, arg-type]  # pyright: ignore[reportArgumentType]
resilience.guard("wrong", fallback="cached")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
guard.options.breaker = None  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


class Client:
    """What may be made through a guard."""

    def __init__(self, base: str) -> None:
        """Keep the base."""
        self.base = base

    @property
    @resilience.guard("size")
    def size(self) -> int:
        """Say how long it is."""
        return len(self.base)


def higher_order(work: Callable[[int], Awaitable[str]]) -> Callable[[int], Awaitable[str]]:
    """Guard what is handed in."""
    return guard(work)


async def answer(number: int, *, text: str = "") -> str:
    """Say it later."""
    return text * number


def plain(number: int, *, text: str = "") -> str:
    """Say it."""
    return text * number


async def single_calls() -> None:
    """Arguments are checked against the function that is called."""
    assert_type(guard.call(Client, "http://").size, int)
    assert_type(guard.call(plain, 1, text="a"), str)
    assert_type(resilience.call("name", plain, 1, text="a"), str)
    assert_type(await guard.acall(answer, 1, text="a"), str)
    assert_type(await resilience.acall("name", answer, 1, text="a"), str)
    assert_type(guard.call(Client, "http://"), Client)
    assert_type(guard.call(lambda: len(sys.argv)), int)
    assert_type(await guard.acall(higher_order(lambda number: answer(number)), 5), str)  # noqa: PLW0108 - it is checked, not run
    guard.call(plain, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    guard.call(plain, 1, txt="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    resilience.call("name", plain)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await guard.acall(answer, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await guard.acall(plain, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def return_type_follows_a_block(number: int) -> str:
    """A block does not swallow exceptions, so what stands behind it need not return."""
    with guard:
        return plain(number)


async def return_type_follows_an_async_block(number: int) -> str:
    """The same for an asynchronous one."""
    async with guard:
        return await answer(number)


# -- watching -------------------------------------------------------------------------------------------------------------------------


def on_breaker(event: BreakerChanged) -> None:
    """A listener may be written for one kind of event."""
    assert_type(event.before, str)
    assert_type(event.open_duration, float | None)


def on_any(event: Event) -> bool:
    """A listener may be written for all of them; what it returns is not looked at."""
    if isinstance(event, CallEnded):
        assert_type(event.elapsed, float)
    return True


end = resilience.on(on_breaker, BreakerChanged)
assert_type(end, Callable[[], None])
resilience.on(on_any)
seen: list[object] = []
resilience.on(seen.append, CallEnded, BreakerChanged)
resilience.on(print, "CallEnded")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
resilience.on(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

snapshot = resilience.snapshot()
assert_type(snapshot, Snapshot)
view = snapshot.guards["llm.invoke"]
assert_type(view, GuardView)
assert_type(view.state, State | None)
assert_type(view.counts, Counts)
assert_type(view.counts.total(Outcome.BAD, injected=True), int)
assert_type(snapshot.incidents, tuple[Incident, ...])
assert_type(snapshot.incidents[0].guard, str | None)
assert_type(snapshot.incidents[0].mitigated_after, float | None)
assert_type(resilience.follow_traces(lambda: ("trace", "span")), Callable[[], None])
assert_type(resilience.follow_logs(calls=True), Callable[[], None])
snapshot.at = 0.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
snapshot.guards["other"] = view  # type: ignore[index]  # pyright: ignore[reportIndexIssue]

control = resilience.breaker("llm.invoke")
assert_type(control, BreakerControl)
assert_type(control.state, State)
assert_type(control.retry_after, float | None)
control.trip(30)
control.trip(timedelta(minutes=1))
control.state = State.OPEN  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


# -- objectives -----------------------------------------------------------------------------------------------------------------------

slo = SLO("llm_latency_p95", target_percentage=95.0, measurement_window=timedelta(days=7), latency=2.0, error_budget_policy="gradual_burn")
assert_type(slo.period, float)
resilience.slos.add(slo, SLO("up", 99.9, timedelta(days=30), "fast_burn_alert", injected="exclude", description="answers"))
SLO("up", 99.9, calendar="month", time_zone="Europe/Berlin")
SLO("up", 99.9, 30)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
SLO("up", 99.9, timedelta(days=30), "gradual_burn", 2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
resilience.slos.add("up")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def objectives() -> None:
    """The names of the plan."""
    budget = await resilience.slos.calculate_error_budget("up")
    assert_type(budget, ErrorBudget)
    assert_type(budget.remaining, float | None)
    assert_type(await resilience.slos.check_burn_rate("up"), float | None)
    verdict = await resilience.slos.should_block_deployment("up", policy=DeploymentPolicy())
    assert_type(verdict, Verdict)
    assert_type(verdict.decision, Decision)
    if verdict:
        assert_type(verdict.reasons, tuple[str, ...])


# -- experiments ----------------------------------------------------------------------------------------------------------------------

resilience.chaos.opt_in(ChaosCeilings(duration=60, rate=0.5, delay=timedelta(seconds=5), protected_paths=("/admin/*",)))
config = ChaosConfig(
    ChaosExperiment.LATENCY_INJECTION,
    target_component="llm.*",
    failure_rate=0.2,
    duration_seconds=60,
    blast_radius="zone",
    delay_seconds=0.8,
    candidates=("a", "b"),
)
ChaosConfig(ChaosExperiment.ERROR_INJECTION, "llm.*", error=lambda: KeyError("planted"))
ChaosConfig(ChaosExperiment.ERROR_INJECTION, "llm.*", error=TimeoutError, max_injections=3)
ChaosConfig("latency", "llm.*")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ChaosConfig(ChaosExperiment.LATENCY_INJECTION)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
config.failure_rate = 1.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def experiments() -> None:
    """The names of the plan; the kill switch is synchronous."""
    run = await resilience.chaos.start(config)
    assert_type(run, ExperimentRun)
    assert_type(await resilience.chaos.inject_latency("llm.*", delay_ms=800, rate=0.2), ExperimentRun)
    assert_type(await resilience.chaos.inject_errors("llm.*", KeyError, rate=0.2), ExperimentRun)
    assert_type(await resilience.chaos.trip_circuit_breaker("llm.*", timedelta(seconds=5)), ExperimentRun)
    resilience.chaos.stop(run)
    resilience.chaos.stop_all()


# -- options from outside -------------------------------------------------------------------------------------------------------------

Resilience("gateway", strict=True)
Resilience("gateway", strict="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(resilience.environment, str | None)
changes = resilience.reconfigure({"llm.*": {"retry": {"attempts": 2}, "bulkhead": None}}, by="ada", dry_run=True)
assert_type(changes, tuple[Change, ...])
resilience.reconfigure(undo(changes))
resilience.reconfigure({"llm.*": 5})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
resilience.reconfigure({}, "ada")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
assert_type(resilience.configure_from(Path("resilience.toml"), environment="production"), tuple[Change, ...])
resilience.configure_from("resilience.yaml")
resilience.configure_from({"guards": {"llm.invoke": {"timeout": 8.0}}})
resilience.configure_from()
resilience.configure_from(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(resilience.settings.unused(), tuple[Unused, ...])
description = resilience.guard("llm.invoke").description(deadline=20.0)
assert_type(description, Description)
assert_type(description.worst_case, float | None)
assert_type(description.findings, tuple[Finding, ...])
assert_type(resilience.guard("llm.invoke").describe(), str)


# -- errors ---------------------------------------------------------------------------------------------------------------------------


def errors() -> None:
    """What an error knows."""
    try:
        plain(1)
    except CircuitOpen as rejection:
        assert_type(rejection.retry_after, float | None)
        assert_type(rejection.last_error, str | None)
    except CallTimedOut as late:
        assert_type(late.limit, float)
    except ConfigurationError as wrong:
        assert_type(wrong.problems, tuple[Problem, ...])


# -- the dashboard ------------------------------------------------------------------------------------------------------------------------

assert_type(resilience.dashboard(auth=UNSAFE_OPEN), DashboardApp)
assert_type(resilience.dashboard(auth=BearerToken("t" * 40), challenge="basic", controls=("stop",), workers=Path("/run/x")), DashboardApp)
assert_type(resilience.dashboard(auth=lambda scope: scope["user"]).viewers, int)
resilience.dashboard(auth=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
resilience.dashboard(auth=UNSAFE_OPEN, most_viewer=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
