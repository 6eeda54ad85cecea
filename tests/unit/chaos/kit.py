"""What the tests of chaos share: a process that may be attacked, on a clock that is moved by hand."""

from __future__ import annotations

from typing import Any

from somaresil import ChaosCeilings, ChaosConfig, ChaosExperiment, CircuitBreaker, InjectedFault, ManualClock, Resilience
from somaresil.events import ChaosAudited

LATENCY = ChaosExperiment.LATENCY_INJECTION
ERROR = ChaosExperiment.ERROR_INJECTION
TRIP = ChaosExperiment.CIRCUIT_TRIP
CUT = ChaosExperiment.STREAM_CUT


class Stand:
    """A process, its clock, one guard, and everything that was told to listeners."""

    def __init__(
        self, *, ceilings: ChaosCeilings | None = None, opt_in: bool = True, clock: Any = None, seed: int = 7, **options: Any
    ) -> None:
        self.clock = clock or ManualClock()
        self.resilience = Resilience("tests", **{"clock": self.clock, "seed": seed, "environment": "test", **options})
        self.chaos = self.resilience.chaos
        if opt_in:
            self.chaos.opt_in(ceilings)
        self.guard = self.resilience.guard("llm.invoke")
        self.events: list[Any] = []
        self.resilience.on(self._note)

    def _note(self, event: Any) -> None:
        # What the audit log says is in the log itself.
        if not isinstance(event, ChaosAudited):
            self.events.append(event)

    def told(self, kind: type) -> list[Any]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def arm(self, experiment: ChaosExperiment = ERROR, target: str = "llm.*", rate: float = 1.0, **options: Any) -> Any:
        """Start an experiment that strikes every call unless told otherwise."""
        if experiment is LATENCY:
            options.setdefault("delay_seconds", 2.0)
        # What happens when several strike the same is asked on purpose in many tests; whether they may, in those of the overlap.
        options.setdefault("allow_overlap", True)
        return self.chaos.arm(ChaosConfig(experiment, target, rate, options.pop("duration", 60.0), **options))

    def struck(self, times: int = 1, name: str = "llm.invoke", error: type[BaseException] = InjectedFault) -> list[bool]:
        """Call so often; which of the calls failed with the injected error."""
        guard = self.resilience.guard(name)
        found = []
        for _ in range(times):
            try:
                guard.call(lambda: None)
            except error:
                found.append(True)
            else:
                found.append(False)
        return found


def breaker(**options: Any) -> CircuitBreaker:
    """One that opens at two failures in a row, for exactly ten seconds, and is closed by one good probe."""
    given = {"failure_rate": None, "consecutive_failures": 2, "open_duration": 10.0, "open_jitter": 0.0, "half_open_calls": 1, **options}
    return CircuitBreaker(**given)
