"""What the code of a service has told us about its resources: loops, pools and folders, by names that experiments may use."""

from __future__ import annotations

import inspect
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from somaresil.chaos.resources.loops import Loops, running_loop
from somaresil.config import Checker

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

__all__ = ["RegisteredPool", "Registry"]


@dataclass(frozen=True, slots=True)
class RegisteredPool:
    """A pool of connections, as experiments see it."""

    checkout: Callable[[], Any]
    giveback: Callable[[Any], Any]
    size: int | None
    loop: AbstractEventLoop | None
    """Where coroutine functions are run; None: they are plain functions."""


class Registry:
    """The resources of one process that have to be named by its code. An experiment can name nothing that is not in here."""

    def __init__(self) -> None:
        """Empty."""
        self._lock = threading.RLock()
        self.loops = Loops()
        self.pools: dict[str, RegisteredPool] = {}
        self.folders: dict[str, str] = {}

    def register_loop(self, loop: AbstractEventLoop | None) -> None:
        """See :meth:`somaresil.chaos.engine.ChaosEngine.register_loop`."""
        check = Checker("register_loop")
        found = running_loop() if loop is None else loop
        if found is None or not callable(getattr(found, "call_soon_threadsafe", None)):
            check.problem("loop", loop, "an event loop of asyncio, or None inside one")
        check.finish()
        if found is not None:
            self.loops.register(found)

    def register_pool(
        self,
        name: str,
        checkout: Callable[[], Any],
        giveback: Callable[[Any], Any],
        size: int | None,
        loop: AbstractEventLoop | None,
    ) -> None:
        """See :meth:`somaresil.chaos.engine.ChaosEngine.register_pool`."""
        check = Checker("register_pool")
        check.name("name", name)
        for field, value in (("checkout", checkout), ("giveback", giveback)):
            if not callable(value):
                check.problem(field, value, "a function, or a coroutine function")
        check.count("size", size, maximum=1_000_000, optional=True)
        suspends = inspect.iscoroutinefunction(checkout)
        if callable(giveback) and suspends != inspect.iscoroutinefunction(giveback):
            check.problem("giveback", giveback, "a coroutine function like checkout" if suspends else "a plain function like checkout")
        where = (loop or running_loop()) if suspends else None
        if suspends and where is None:
            check.problem("loop", loop, "an event loop", "register it inside the loop that uses the pool, or give loop=")
        check.finish()
        with self._lock:
            self.pools = {**self.pools, name: RegisteredPool(checkout, giveback, size, where)}

    def register_directory(self, name: str, path: str | os.PathLike[str]) -> None:
        """See :meth:`somaresil.chaos.engine.ChaosEngine.register_directory`."""
        check = Checker("register_directory")
        check.name("name", name)
        if not isinstance(path, str | os.PathLike) or not Path(path).is_dir() or not os.access(path, os.W_OK | os.X_OK):
            check.problem("path", path, "a directory that this process may write in")
        check.finish()
        with self._lock:
            self.folders = {**self.folders, name: os.path.realpath(os.fspath(path))}
