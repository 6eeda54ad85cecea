"""File descriptors: the soft limit is lowered over those that are free, and holes below it are filled.

What is open stays open and usable, and no descriptor of anybody else is touched: what is too much for ``open``, ``socket`` and ``Popen``
is only the next one. A process that is started meanwhile inherits the lowered limit; it may raise it again, for the hard limit stays.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from somaresil.chaos.resources.kinds import amount_of
from somaresil.chaos.resources.limits import descriptor_bounds, descriptor_plan
from somaresil.chaos.resources.machine import FOLDER, descriptors

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.resources.hold import Hold
    from somaresil.chaos.resources.kinds import Ask
    from somaresil.config import Checker

__all__ = ["Descriptors"]

_lock = threading.RLock()
_taken: list[Hold] = []
"""Whoever has lowered the limit of this process: one at a time, or the second one would put back what the first one set."""


class Descriptors:
    """Takes free descriptors; by default all but a reserve."""

    unit: ClassVar[str] = "descriptors"
    takes_rest: ClassVar[bool] = False

    def missing(self) -> str:
        """There have to be limits, and a folder that shows what is open."""
        return "" if sys.platform != "win32" and Path(FOLDER).is_dir() else f"this platform has no {FOLDER} or no RLIMIT_NOFILE"

    def check(self, check: Checker, ask: Ask) -> float:
        """Not more than are free, less a reserve, and nobody else's."""
        if any(not hold.forked for hold in _taken):
            check.problem(ask.field, ask.target, "one experiment at a time", "descriptors are taken already")
        soft, _ = _limits()
        used = sum(number < soft for number in descriptors())
        bounds = descriptor_bounds(ask.ceilings.descriptors, soft=soft, used=used)
        return amount_of(check, ask, float("inf"), bounds, self.unit)

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Take them at once."""
        del ask, ended, failed
        import resource  # not on every platform

        with _lock:
            if any(not other.forked for other in _taken):
                raise RuntimeError("the descriptors of this process are taken already")
            soft, hard = _limits()
            plan = descriptor_plan(soft, max(descriptors(), default=-1), int(hold.asked))
            copies: list[int] = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (plan.soft, hard))
            _taken[:] = [hold]
        given_back, limited = False, ""

        def release() -> None:
            nonlocal given_back
            global _lock  # noqa: PLW0603 - somebody may have held it when the process was forked
            if hold.forked:
                _lock = threading.RLock()
            with _lock:
                if given_back:
                    return
                given_back = True
                now, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
                # Somebody else may have set another one meanwhile; then it is theirs.
                if now == plan.soft:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft if highest == resource.RLIM_INFINITY else min(soft, highest), highest))
                _taken[:] = [other for other in _taken if other is not hold]
            while copies:
                os.close(copies.pop())

        try:
            if plan.copies:
                copies.append(os.open(os.devnull, os.O_RDONLY))
            while len(copies) < plan.copies:
                copies.append(os.dup(copies[0]))
        except OSError:
            # Others were quicker with the last ones: there are none left, which is what was wanted.
            limited = "others opened some meanwhile"
        except BaseException:
            release()
            raise
        hold.note(soft - plan.soft + len(copies))
        hold.measure = lambda: {"soft_limit": plan.soft, "holes_filled": plan.copies}
        hold.settle(limited)
        return release


def _limits() -> tuple[int, int]:
    """Soft and hard limit; no limit is a high one, so that it can be lowered."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (1 << 30 if soft == resource.RLIM_INFINITY else soft), hard
