"""Faults that live in the process and not in a call: who begins them, and who ends them whatever happens.

A rule at a guard needs nobody to end it: each call asks whether its lease still runs. A full disk or a cut network stays until somebody
takes it away, and that must not depend on the event loop (it may be blocked, which is one of these faults), on ``atexit`` (it runs only
after the executor threads were joined, measured 3.1 s late), or on a step somebody has to take. So there is one thread, the
:class:`Warden`, started with the first such fault. It measures by the clock of the machine, whatever the service tells its time by: the
damage is real, so is its end.

A forked child has the damage of its parent and no warden; there every such fault is released at once.
"""

from __future__ import annotations

import os
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.config import ChaosCeilings, ChaosConfig
    from somaresil.chaos.run import ExperimentRun
    from somaresil.config import Checker
    from somaresil.listeners import Listeners

__all__ = ["ProcessFault", "Warden", "begins_nothing"]

_MOST_COUNTED: Final = 200
_LOOK_EVERY: Final = 0.25
"""Seconds between two looks at what is held: a clock that a test moves by hand wakes nobody."""


class ProcessFault(Protocol):
    """A kind of fault that strikes the process."""

    def check(self, check: Checker, config: ChaosConfig, ceilings: ChaosCeilings, target: str) -> None:
        """Note what stands in the way of it here: ceilings, reserves, what the platform cannot do. Nothing is changed.

        ``target`` is what the field of the target is called where it was written: ``target_component``, or ``target`` in a plan.
        """
        ...

    def begin(self, run: ExperimentRun) -> Callable[[], None]:
        """Do it, and return what undoes it exactly: from any thread, at once, once or more often.

        Called in the thread that arms the experiment, or in the warden's when the lease begins later. What it raises ends the experiment as
        failed, and must leave nothing behind. It says through ``run.claim()`` what it has struck.
        """
        ...


class _Dry:
    def __init__(self, fault: ProcessFault) -> None:
        self.check = fault.check

    def begin(self, run: ExperimentRun) -> Callable[[], None]:
        run.claim()
        return _nothing


def begins_nothing(fault: ProcessFault) -> ProcessFault:
    """The same fault for a dry run: it is checked as ever, counted when its time has come, and not begun."""
    return _Dry(fault)


def _nothing() -> None:
    """What undoes nothing."""


class _Held:
    """One fault, from its arming to its release."""

    def __init__(self, run: ExperimentRun, fault: ProcessFault) -> None:
        self.run = run
        self.fault = fault
        self.begun = False
        self.standing = False
        """Whether there is something to be released."""
        self.real_end = float("inf")


class Warden:
    """Begins and ends the process faults of one engine. Its thread ends when there is nothing to look after."""

    def __init__(self, listeners: Listeners) -> None:
        """Nothing held, no thread."""
        self._listeners = listeners
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._held: tuple[_Held, ...] = ()
        self._thread: threading.Thread | None = None
        self._ended: dict[tuple[str, str, str], int] = {}
        _wardens.add(self)

    @property
    def held(self) -> int:
        """How many faults it looks after, those that have not begun as well."""
        return len(self._held)

    @property
    def active(self) -> list[ExperimentRun]:
        """Experiments whose fault has begun and is not released; dry runs begin nothing."""
        return [held.run for held in self._held if held.standing]

    def ended(self) -> dict[tuple[str, str, str], int]:
        """How many faults were released since the process began, by target, kind and reason; at most 200 of these, then ``_other``."""
        with self._lock:
            return dict(self._ended)

    def take(self, run: ExperimentRun, fault: ProcessFault) -> None:
        """Begin a fault when its lease does, now or later, and see to its end. Raises what its beginning raises now."""
        held = _Held(run, fault)
        # Decided before the thread can see it: otherwise both would begin it, and whoever arms it would go on before it has begun.
        now = self._claim(held) if run.live else False
        with self._lock:
            self._held = (*self._held, held)
        run.on_end(lambda: self._drop(held))
        # Before it begins: whoever it makes wait must find somebody who ends it.
        self._start()
        if now:
            self._begin(held)

    def _claim(self, held: _Held) -> bool:
        """Whether it is the caller who begins it."""
        with self._lock:
            if held.begun:
                return False
            held.begun = True
            held.real_end = time.monotonic() + held.run.remaining
            return True

    def _begin(self, held: _Held) -> None:
        try:
            release = held.fault.begin(held.run)
        except BaseException:
            held.run.end("failed")
            raise
        held.standing = not held.run.config.dry_run
        # At once when it has ended meanwhile.
        held.run.on_end(lambda: self._release(held, release))
        self._wake.set()

    def _release(self, held: _Held, release: Callable[[], None]) -> None:
        try:
            release()
        finally:
            counted, held.standing = held.standing, False
            if counted:
                self._count(held.run)

    def _count(self, run: ExperimentRun) -> None:
        # What a condition is called is for the event of its end: names of people's making are many.
        ended = run.end_reason or ""
        reason = "condition" if ended.startswith("condition ") else ended
        key = (run.config.target_component, run.config.experiment.value, reason)
        with self._lock:
            if key not in self._ended and len(self._ended) >= _MOST_COUNTED:
                key = ("_other", "_other", reason)
            self._ended[key] = self._ended.get(key, 0) + 1

    def _drop(self, held: _Held) -> None:
        with self._lock:
            self._held = tuple(other for other in self._held if other is not held)
        self._wake.set()

    def _start(self) -> None:
        _at_exit()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="somaresil-warden", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        while True:
            self._wake.clear()
            with self._lock:
                held = self._held
                if not held:
                    self._thread = None
                    return
            self._wake.wait(min([_LOOK_EVERY, *(self._look(each) for each in held)]))

    def _look(self, held: _Held) -> float:
        """Begin or end it if that is due; seconds until it has to be looked at again."""
        run = held.run
        try:
            if held.begun and time.monotonic() >= held.real_end:
                run.end("expired")
            elif run.live and self._claim(held):
                self._begin(held)
        except Exception as defect:  # noqa: BLE001 - the others must be ended in time
            self._listeners.defect(f"chaos experiment {run.id}", defect, 0.0, "it has ended")
        return max(0.0, min(held.real_end - time.monotonic(), run.remaining))

    def release(self, reason: str) -> None:
        """End everything that it holds, at once."""
        for held in self._held:
            held.run.end(reason)

    def forget_thread(self) -> None:
        """This process is a fork: the thread stayed behind, and locks may be held by nobody."""
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread = None
        for held in self._held:
            held.run.forget_locks()


_wardens: WeakSet[Warden] = WeakSet()
_registered = False


def _at_exit() -> None:
    """Have faults released before the interpreter joins the threads of executors, which they may hold."""
    global _registered  # noqa: PLW0603 - once for the process
    register = getattr(threading, "_register_atexit", None)
    if register is not None and not _registered:
        _registered = True
        # What was registered last is called first, and this module registers the joining of its threads when it is imported.
        import_module("concurrent.futures.thread")
        register(_release_all)


def _release_all() -> None:
    for warden in tuple(_wardens):
        warden.release("shutdown")


def _release_in_child() -> None:
    for warden in tuple(_wardens):
        warden.forget_thread()
        warden.release("forked")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)
