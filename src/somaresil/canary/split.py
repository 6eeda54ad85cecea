"""A candidate beside a function: some of its calls go there, more as long as nothing speaks against it, none once something does.

    @resilience.canary("answer", candidate=new_answer, key="user", bad="llm_latency_p95")
    async def answer(user, question): ...

Each side is a guard of its own (``answer`` and ``answer.candidate``) with recorder, breaker and limits of its own. What is a bad event is
what the objectives say: errors, latency, first items, truncated streams, predicates. With a ``key`` a user keeps to his side, and whoever
is with the candidate stays there as its share grows; without one each call is placed by chance.

Functions whose objectives are about errors and latency are measured here, for a good call by two readings of the clock and one counter.
Streams, predicates and judges of results are told of by the guards.

In the mode ``fallback`` the control answers for a candidate that has failed. In the mode ``shadow`` it always answers, and the candidate is
asked the same afterwards, for a share of the calls: a bounded number at once, for a bounded time, and never for what has side effects.
A pair says something when one of the two was bad and the other was not.

While an experiment strikes one of the sides its calls are no evidence.
"""

from __future__ import annotations

import functools
import inspect
from hashlib import blake2b
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from somaresil.canary.config import config_of
from somaresil.canary.controller import CanaryController
from somaresil.canary.shadow import SHADOWING, current
from somaresil.canary.wrap import MAKERS, TOLD
from somaresil.config import Checker
from somaresil.guard.call import judge
from somaresil.guard.keyed import reader_of
from somaresil.guard.shape import Shape, check_decoratable, shape_of
from somaresil.guard.wrap import decorate, plain_wrapper
from somaresil.pace import Measured
from somaresil.slo.probe import Probe, judged
from somaresil.slo.series import Series

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from somaresil.canary.controller import Route
    from somaresil.resilience import Resilience

__all__ = ["Canary"]

_F = TypeVar("_F", bound="Callable[..., Any]")
_MODES: Final = ("split", "fallback", "shadow")


class Canary:
    """Decorates the control. Made by :meth:`Resilience.canary`."""

    def __init__(
        self,
        resilience: Resilience,
        name: str,
        *,
        candidate: Callable[..., Any],
        bad: str | Sequence[str],
        version: str | None,
        checksum: str | None,
        key: str | Callable[..., object] | None,
        mode: str,
        snapshot: str | os.PathLike[str] | None,
        guard: Mapping[str, Any],
        leader: Callable[[], bool] | None,
        shadow_limit: int,
        shadow_timeout: float | timedelta,
        options: Mapping[str, Any],
    ) -> None:
        """Check everything, make both guards and the controller. Nothing is started before a function is decorated."""
        check = Checker(f"canary({name!r})")
        check.one_of("mode", mode, _MODES)
        if not callable(candidate):
            check.problem("candidate", candidate, "what may be guarded, of the same kind as the control")
        if key is not None and not isinstance(key, str) and not callable(key):
            check.problem("key", key, "the name of an argument, or a function of the arguments that returns the key")
        if "slo" in guard:
            check.problem("guard.slo", guard["slo"], "nothing", "the objectives are those of bad=")
        if mode in {"fallback", "shadow"} and not guard.get("idempotent"):
            allowed = "True, the name of an argument, or a function"
            hint = (
                "both sides are called, so what they do must not matter"
                if mode == "shadow"
                else "the control is called after the candidate"
            )
            check.problem("guard.idempotent", guard.get("idempotent"), allowed, hint)
        if mode == "shadow" and key is not None:
            check.problem("key", key, "None with shadow", "nobody sees the answers of the candidate")
        self.shadow_limit = check.count("shadow_limit", shadow_limit, maximum=10_000)
        self.shadow_timeout = check.seconds("shadow_timeout", shadow_timeout, maximum=3_600.0)
        config = config_of(check, name, bad=bad, sticky=key is not None, options=options)
        check.finish()
        if config is None:  # pragma: no cover - finish has raised
            raise TypeError(name)
        check_decoratable(name, candidate)
        config.levels(resilience.slos)
        objectives = config.objectives
        self._resilience = resilience
        self._target = candidate
        self._key = key
        self._mode = mode
        self._version = version or getattr(candidate, "__qualname__", type(candidate).__qualname__).replace("<locals>", "locals")
        self._checksum = _checksum_of(candidate) if checksum is None else checksum
        self.control = resilience.guard(name, slo=objectives, **guard)
        """The guard of what was there before."""
        self.candidate = resilience.guard(f"{name}.candidate", slo=objectives, **guard)
        """That of the candidate."""
        self._slos = tuple(resilience.slos[objective] for objective in objectives)
        self.controller = CanaryController(resilience, config, snapshot=snapshot, leader=leader)

    def __call__(self, target: _F) -> _F:
        """Decorate the control, and start. Once: two functions would be one canary.

        Raises :class:`~somaresil.errors.ConfigurationError` for a candidate of another kind.
        """
        plain = target.__func__ if isinstance(target, classmethod | staticmethod) else target
        check_decoratable(self.control.name, plain)
        shape = shape_of(plain)
        check = Checker(f"canary({self.control.name!r})")
        if shape_of(self._target) is not shape:
            allowed = f"a {shape.name.lower().replace('_', ' ')}, as the control"
            check.problem("candidate", self._target, allowed, f"it is a {shape_of(self._target).name.lower().replace('_', ' ')}")
        elif self._mode == "shadow" and (shape, self._told_by_guards(shape)) not in SHADOWING:
            hint = "the candidate is asked afterwards by the event loop, which plain functions and generators have none of"
            check.problem("mode", self._mode, "'split' or 'fallback' for this function", hint)
        check.finish()
        self.control.check_target(plain)
        self.candidate.check_target(self._target)
        wrapped: _F = decorate(self.control, target, self._wrapper)
        self.controller.start(self._version, checksum=self._checksum)
        return wrapped

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _wrapper(self, function: Callable[..., Any]) -> Callable[..., Any]:
        shape = shape_of(function)
        sides = (plain_wrapper(self.control, function), plain_wrapper(self.candidate, self._target))
        key_of = self._key_of(function)
        told = self._told_by_guards(shape)
        if told:
            for guard, candidate in ((self.control, False), (self.candidate, True)):
                hears = _Hears(self, candidate=candidate, every=shape in {Shape.FUNCTION, Shape.COROUTINE})
                guard.measure((*guard.probes, hears))
        if self._mode == "shadow":
            return functools.wraps(function)(SHADOWING[shape, told](self, sides))
        make = TOLD[shape] if told and shape in TOLD else MAKERS[shape]
        return functools.wraps(function)(make(self, sides, key_of))

    def _told_by_guards(self, shape: Shape) -> bool:
        """Whether the end of a call alone does not say how it counts."""
        if shape not in {Shape.FUNCTION, Shape.COROUTINE} or not all(slo.read_from_cells for slo in self._slos):
            return True
        options = self.control.options
        judges = options.classify is not None and getattr(options.classify, "judges_results", True)
        # A plain function is not interrupted: that it was too late is known inside.
        return judges or (shape is Shape.FUNCTION and options.timeout is not None)

    def _key_of(self, function: Callable[..., Any]) -> Callable[[tuple[Any, ...], dict[str, Any]], object] | None:
        key = self._key
        if key is None:
            return None
        if isinstance(key, str):
            return reader_of(self.control, function, key)
        return lambda args, kwargs: key(*args, **kwargs)

    @property
    def limit(self) -> float:
        """Seconds after which a good call is a bad event."""
        return min((float(slo.latency) for slo in self._slos if slo.latency is not None), default=float("inf"))  # type: ignore[arg-type]

    def text(self, key: object) -> str | None:
        """A key as text."""
        return key if isinstance(key, str) or key is None else str(key)

    def place(self, key_of: Callable[[tuple[Any, ...], dict[str, Any]], object], args: Any, kwargs: Any) -> tuple[int, str | None]:
        """The place of a call and its key. What has none is placed by chance; what cannot be asked goes to the control."""
        try:
            key = self.text(key_of(args, kwargs))
            return self.controller.place(key), key
        except Exception as defect:  # noqa: BLE001 - fail open
            self._resilience.listeners.defect(
                f"key of canary {self.control.name}", defect, self._resilience.clock.time(), "it was left out"
            )
            return 2**32, None

    def failed(self, route: Route, error: BaseException, started: float, key: str | None, *, candidate: bool) -> None:
        """A call that is measured here raised. Never raises."""
        try:
            good = self.says(error, started, candidate=candidate)
            if good is not None:
                self.controller.ended(route, candidate=candidate, bad=not good, key=key)
        except Exception as defect:  # noqa: BLE001 - the caller gets its own error, not ours
            self.report(defect)

    def says(self, error: BaseException | None, started: float, *, candidate: bool) -> bool | None:
        """Whether a call that is measured here and ends now is good; None: it says nothing."""
        guard = self.candidate if candidate else self.control
        if guard.faults.rules:
            return None
        elapsed = guard.monotonic() - started
        outcome, _ = judge(guard, None, error, started)
        said = {judged(slo, Measured(outcome, elapsed, error=error)) for slo in self._slos}
        return None if said == {None} else False not in said

    def report(self, defect: Exception) -> None:
        """Something of ours went wrong."""
        self._resilience.listeners.defect(f"canary {self.control.name}", defect, self._resilience.clock.time())

    def late(self, route: Route, key: str | None, *, candidate: bool) -> None:
        """A call that is measured here took too long. Never raises."""
        if not (self.candidate if candidate else self.control).faults.rules:
            self.controller.ended(route, candidate=candidate, bad=True, key=key)

    def heard(self, probes: tuple[Probe, ...], call: Measured, now: float, label: Callable[[Any], object], *, candidate: bool) -> None:
        """A guard tells of a call."""
        if self._mode == "shadow":
            half = current()
            if half is not None and half.canary is self and not call.injected:
                said = {probe.verdict(call) for probe in probes}
                half.good = None if said == {None} else False not in said
            return
        route = self.controller.route_at(now - call.elapsed)
        if route is None or route.settled or call.injected:
            return
        said = {probe.verdict(call) for probe in probes}
        if said == {None}:
            return
        bad = False in said
        key = self.text(label(self._key)) if bad and self._key is not None else None
        self.controller.ended(route, candidate=candidate, bad=bad, key=key)

    def probes(self) -> tuple[Probe, ...]:
        """What says how a call counts for each objective."""
        resilience = self._resilience
        found = [resilience.slos.series(slo.name) for slo in self._slos]
        return tuple(Probe(series, None, resilience.clock, resilience.listeners) for series in found if isinstance(series, Series))

    @property
    def falls_back(self) -> bool:
        """Whether the control is asked when the candidate has failed."""
        return self._mode == "fallback"


def _checksum_of(candidate: Callable[..., Any]) -> str | None:
    """What changes when the code of a function does; None: it has no code in Python. What it calls is not in it."""
    code = getattr(inspect.unwrap(candidate), "__code__", None)
    return None if code is None else blake2b("\n".join(_parts_of(code)).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _parts_of(value: object) -> Iterator[str]:
    if isinstance(value, CodeType):
        yield value.co_code.hex()
        yield repr((value.co_names, value.co_varnames, value.co_freevars, value.co_flags))
        for constant in value.co_consts:
            yield from _parts_of(constant)
    elif isinstance(value, frozenset):
        # Its order is another one in each process.
        yield from sorted(map(repr, value))
    else:
        yield repr(value)


class _Hears:
    """What the guard of one side tells."""

    __slots__ = ("_canary", "_candidate", "_probes", "needs_every_call")
    only_streams = ""

    def __init__(self, canary: Canary, *, candidate: bool, every: bool) -> None:
        self._canary = canary
        self._candidate = candidate
        self._probes = canary.probes()
        self.needs_every_call = every

    def note(self, call: Measured, now: float, label: Callable[[str | Callable[..., object]], object]) -> None:
        """See :class:`somaresil.guard.measure.Hears`."""
        self._canary.heard(self._probes, call, now, label, candidate=self._candidate)
