"""Virtual time for libraries that look at the machine's: ``time.monotonic``, ``time.time``, ``time.sleep``, ``datetime.now`` and their kin.

``time.sleep`` and ``time.monotonic`` are replaced in the module ``time``; what a module took from there by ``from time import ...`` before
is not reached. The wall clock is replaced by time-machine in C, wherever it was imported to.
``time.perf_counter`` stays real: it measures how long code takes, for profilers, pytest and Hypothesis.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker
from somaresil.testing.foreign import only_the_loop_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from somaresil.testing.clock import VirtualClock

__all__ = ["patched"]

_patching = threading.Lock()


@contextmanager
def patched(clock: VirtualClock) -> Generator[None]:
    """Have third parties read ``clock`` and sleep on it. Threads that were there before the clock keep the machine's monotonic time.

    Event loops but that of the clock are refused, by ``RuntimeError`` where they are run: their time would stand still. Threads that were
    there before may run theirs. One clock at a time: a second one is refused.

    Raises :class:`~somaresil.errors.ConfigurationError` then, and when time-machine is not installed.
    """
    check = Checker("VirtualClock.patched")
    try:
        import time_machine
    except ImportError:
        check.problem("time-machine", None, "an installed package", "pip install 'somaresil[pytest]'")
        check.finish()
        raise
    if not _patching.acquire(blocking=False):
        check.problem("patched", clock, "one clock at a time", "another VirtualClock is patched in; leave that block first")
        check.finish()
    try:
        # Not a float: time-machine would round it to what a datetime can hold anyway.
        with (
            time_machine.travel(_stamp(clock), tick=False) as traveller,
            _replaced(clock),
            only_the_loop_of(clock, "VirtualClock.patched"),
        ):
            end = clock.on_move(lambda: traveller.move_to(_stamp(clock)))
            try:
                yield
            finally:
                end()
    finally:
        _patching.release()


def _stamp(clock: VirtualClock) -> datetime:
    return datetime.fromtimestamp(clock.time(), UTC)


@contextmanager
def _replaced(clock: VirtualClock) -> Generator[None]:
    real: dict[str, Callable[..., Any]] = {name: getattr(time, name) for name in ("monotonic", "monotonic_ns", "sleep")}
    ours: dict[str, Callable[..., Any]] = {
        "monotonic": clock.monotonic,
        "monotonic_ns": lambda: round(clock.monotonic() * 1e9),
        "sleep": clock.sleep,
    }

    def chosen(name: str) -> Callable[..., Any]:
        machine, virtual = real[name], ours[name]

        def choose(*args: Any) -> Any:
            return (machine if clock.is_bystander(threading.get_ident()) else virtual)(*args)

        return choose

    replacements = {name: chosen(name) for name in real}
    for name, replacement in replacements.items():
        setattr(time, name, replacement)
    try:
        yield
    finally:
        for name, replacement in replacements.items():
            if getattr(time, name) is replacement:
                setattr(time, name, real[name])
