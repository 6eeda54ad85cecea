"""What a guard tells the objectives that have to hear of each call: see :mod:`somaresil.slo.probe`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol

from somaresil.pace import Measured
from somaresil.priority import caller

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.guard.call import Call
    from somaresil.outcome import Outcome

__all__ = ["Hears", "report"]


class Hears(Protocol):
    """Somebody who is told of each call. Never raises."""

    @property
    def needs_every_call(self) -> bool:
        """Whether it has to hear of calls that are no streams too."""
        ...

    @property
    def only_streams(self) -> str:
        """The name of the objective that hears of streams alone; empty when there is none."""
        ...

    def note(self, call: Measured, now: float, label: Callable[[str | Callable[..., object]], object]) -> None:
        """A call has ended at ``now``. ``label`` reads an argument of it, or calls a function with them."""
        ...


def report(probes: tuple[Hears, ...], call: Call, outcome: Outcome, now: float, error: BaseException | None, result: object) -> None:
    """Tell of a call that has ended at ``now``."""
    pace = getattr(call, "pace", None)
    first = None if pace is None or pace.first is None else pace.first - call.started
    gap = 0.0 if pace is None else pace.longest
    measured = Measured(outcome, now - call.started, call.injected, result, error, pace is not None, first, gap)

    def label(by: str | Callable[..., object]) -> object:
        return _argument(call, by) if isinstance(by, str) else by(*call.args, **call.kwargs)

    for probe in probes:
        probe.note(measured, now, label)


def _argument(call: Call, name: str) -> Any:
    """The argument called ``name``; for ``tenant``, if there is none, whom the call is made for; else None."""
    if name in call.kwargs:
        return call.kwargs[name]
    code = getattr(call.function, "__code__", None)
    if code is not None:
        # A signature takes longer than most guarded calls, and is needed for a default only.
        names = code.co_varnames[: code.co_argcount]
        place = names.index(name) if name in names else -1
        if 0 <= place < len(call.args):
            return call.args[place]
    if code is None or name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
        bound = inspect.signature(call.function).bind_partial(*call.args, **call.kwargs)
        bound.apply_defaults()
        if name in bound.arguments:
            return bound.arguments[name]
    who = caller() if name == "tenant" else None
    return None if who is None else who.tenant
