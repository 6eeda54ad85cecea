"""Experiments in one line each, for tests, notebooks and demonstrations: the methods that :class:`ChaosEngine` has for common faults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from somaresil.chaos.config import ChaosExperiment

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.chaos.config import ChaosConfig
    from somaresil.chaos.run import ExperimentRun

__all__ = ["Shorthand"]


class Shorthand(ABC):
    """One method a fault. ``options`` are further fields of :class:`~somaresil.chaos.config.ChaosConfig`.

    Each starts an experiment and gives its run; each raises :class:`~somaresil.errors.ConfigurationError` as ``arm`` does.
    """

    __slots__ = ()

    @abstractmethod
    def arm(self, config: ChaosConfig, *, actor: str | None = None) -> ExperimentRun:
        """Start an experiment."""

    @abstractmethod
    def _configured(
        self, experiment: ChaosExperiment, component: str, rate: float, duration: float | timedelta, **options: Any
    ) -> ChaosConfig:
        """The configuration, with every problem of it and of arming it."""

    async def start(self, config: ChaosConfig, *, actor: str | None = None) -> ExperimentRun:
        """See :meth:`arm`."""
        return self.arm(config, actor=actor)

    async def inject_latency(
        self, component: str, delay_ms: float | timedelta, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """Delay a share of the calls by ``delay_ms`` milliseconds."""
        config = self._configured(
            ChaosExperiment.LATENCY_INJECTION, component, rate, duration_seconds, delay_seconds=_milliseconds(delay_ms), **options
        )
        return self.arm(config)

    async def inject_errors(
        self, component: str, error: Any = None, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """Fail a share of the calls with ``error``; requests (``http:/path``) are answered with ``status=503``."""
        return self.arm(self._configured(ChaosExperiment.ERROR_INJECTION, component, rate, duration_seconds, error=error, **options))

    async def lose_replies(
        self,
        component: str,
        delay_ms: float | timedelta = 0.0,
        rate: float = 1.0,
        duration_seconds: float | timedelta = 60.0,
        **options: Any,
    ) -> ExperimentRun:
        """Let the callee act, then drop the answer of a share of the calls: after ``delay_ms`` milliseconds they get an error."""
        config = self._configured(
            ChaosExperiment.LOST_REPLY, component, rate, duration_seconds, delay_seconds=_milliseconds(delay_ms), **options
        )
        return self.arm(config)

    async def truncate_streams(
        self, component: str, after_items: int = 1, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """End a share of the streams early after some items, as if that had been all."""
        return self.arm(
            self._configured(ChaosExperiment.STREAM_TRUNCATION, component, rate, duration_seconds, after_items=after_items, **options)
        )

    async def cut_streams(
        self, component: str, after_items: int = 1, rate: float = 1.0, duration_seconds: float | timedelta = 60.0, **options: Any
    ) -> ExperimentRun:
        """Break a share of the streams (guards) or responses (``http:/path``) off after some items."""
        return self.arm(self._configured(ChaosExperiment.STREAM_CUT, component, rate, duration_seconds, after_items=after_items, **options))

    async def trip_circuit_breaker(self, component: str, duration_seconds: float | timedelta = 30.0, **options: Any) -> ExperimentRun:
        """Open the breakers that match for some seconds; they are probed and closed in the ordinary way after that.

        A breaker that is open or half-open already, forced open, disabled or only watching is left alone: an outage is not an experiment.
        """
        return self.arm(self._configured(ChaosExperiment.CIRCUIT_TRIP, component, 1.0, duration_seconds, **options))

    async def exhaust(
        self,
        resource: str,
        amount: float | None = None,
        rate: float = 1.0,
        duration_seconds: float | timedelta = 60.0,
        **options: Any,
    ) -> ExperimentRun:
        """Take ``amount`` of a resource of this process away, by its name: ``memory`` means the target ``resource:memory``.

        None takes the usual amount. ``rate`` is the share of the time, for ``loop_block``, ``gil`` and ``cpu``; the others hold what they
        took until the end.
        """
        return self.arm(
            self._configured(ChaosExperiment.RESOURCE_EXHAUSTION, f"resource:{resource}", rate, duration_seconds, amount=amount, **options)
        )


def _milliseconds(value: Any) -> Any:
    """Seconds; what is no number is left for :class:`ChaosConfig` to refuse."""
    return value / 1000.0 if isinstance(value, int | float) and not isinstance(value, bool) else value
