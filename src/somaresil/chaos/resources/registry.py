"""What the code of a service has told us about its resources: loops, pools and folders, by names that experiments may use."""

from __future__ import annotations

import inspect
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from somaresil.chaos.resources.clientpools import ClientPool, adapted, known_pools
from somaresil.chaos.resources.loops import Loops, running_loop
from somaresil.config import Checker

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

__all__ = ["RegisteredPool", "Registry"]


@dataclass(frozen=True, slots=True)
class RegisteredPool:
    """A pool of connections, as experiments see it."""

    client: ClientPool
    loop: AbstractEventLoop | None
    """Where coroutine functions are run; None: they are plain functions."""
    reserve: int = 0
    """How many stay for others."""


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
        pool: object,
        checkout: Callable[[], Any] | None,
        giveback: Callable[[Any], Any] | None,
        size: int | None,
        reserve: int,
        loop: AbstractEventLoop | None,
    ) -> None:
        """See :meth:`somaresil.chaos.engine.ChaosEngine.register_pool`."""
        check = Checker("register_pool")
        check.name("name", name)
        check.count("reserve", reserve, minimum=0, maximum=1_000_000)
        client = _of_functions(check, checkout, giveback, size) if pool is None else _of_library(check, pool, checkout, giveback, size)
        suspends = client is not None and client.suspends
        where = (loop or running_loop()) if suspends else None
        if suspends and where is None:
            check.problem("loop", loop, "an event loop", "register it inside the loop that uses the pool, or give loop=")
        check.finish()
        if client is not None:
            with self._lock:
                self.pools = {**self.pools, name: RegisteredPool(client, where, reserve)}

    def register_directory(self, name: str, path: str | os.PathLike[str]) -> None:
        """See :meth:`somaresil.chaos.engine.ChaosEngine.register_directory`."""
        check = Checker("register_directory")
        check.name("name", name)
        if not isinstance(path, str | os.PathLike) or not Path(path).is_dir() or not os.access(path, os.W_OK | os.X_OK):
            check.problem("path", path, "a directory that this process may write in")
        check.finish()
        with self._lock:
            self.folders = {**self.folders, name: os.path.realpath(os.fspath(path))}


def _of_functions(check: Checker, checkout: Any, giveback: Any, size: int | None) -> ClientPool | None:
    for field, value in (("checkout", checkout), ("giveback", giveback)):
        if not callable(value):
            check.problem(field, value, "a function, or a coroutine function")
    check.count("size", size, maximum=1_000_000, optional=True)
    suspends = inspect.iscoroutinefunction(checkout)
    if callable(giveback) and suspends != inspect.iscoroutinefunction(giveback):
        check.problem("giveback", giveback, "a coroutine function like checkout" if suspends else "a plain function like checkout")
    return ClientPool(checkout, giveback, lambda: size, suspends=suspends) if checkout and giveback else None


def _of_library(check: Checker, pool: object, checkout: object, giveback: object, size: object) -> ClientPool | None:
    for field, value in (("checkout", checkout), ("giveback", giveback), ("size", size)):
        if value is not None:
            check.problem(field, value, "None", "a pool says that itself; functions are for pools that nobody here knows")
    found = adapted(pool)
    if isinstance(found, ClientPool):
        return found
    check.problem("pool", pool, known_pools(), found or "for others give checkout= and giveback=")
    return None
