"""A daemon thread that looks at something every now and then for as long as that is needed, and is there again after a fork."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.listeners import Listeners

__all__ = ["Patrol"]


class Patrol:
    """Calls ``look()`` every ``every`` seconds of the machine's clock, as long as it returns True. Started by :meth:`wake`.

    ``every`` may also be a function that says after each look how long it is to the next.

    With ``in_fork``, which is called in a forked child, that begins with a thread where its parent had one; otherwise somebody has to wake
    it there too.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], bool],
        every: float | Callable[[], float],
        listeners: Listeners,
        *,
        in_fork: Callable[[], object] | None = None,
    ) -> None:
        """No thread yet."""
        self._in_fork = in_fork
        self._name = name
        self._look = look
        self._every = every
        self._listeners = listeners
        self._begin()
        _patrols.add(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def walking(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def wake(self) -> None:
        """Have it look now. Starts the thread when there is none; that there can be none is reported, and nothing more."""
        self._wake.set()
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._walk, name=self._name, daemon=True)
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError as none_left:
                    self._thread = None
                    self._listeners.defect(f"thread {self._name}", none_left, 0.0, "calls look by themselves")

    def _walk(self) -> None:
        while True:
            self._wake.clear()
            needed = True
            try:
                needed = self._look()
            except Exception as defect:  # noqa: BLE001 - it must go on looking
                self._listeners.defect(f"thread {self._name}", defect, 0.0, "it goes on")
            with self._lock:
                if not needed and not self._wake.is_set():
                    self._thread = None
                    return
            self._wake.wait(self._every() if callable(self._every) else self._every)

    def after_fork(self) -> None:
        """In the child: the thread stayed behind, and locks may be held by nobody."""
        walked = self.walking
        self._begin()
        if self._in_fork is not None:
            self._in_fork()
            if walked:
                self.wake()


_patrols: WeakSet[Patrol] = WeakSet()


def _after_fork() -> None:
    for patrol in tuple(_patrols):
        patrol.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
