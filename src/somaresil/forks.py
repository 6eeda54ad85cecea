"""Who keeps files of its own in this process is told of forks and of the end.

A forked child takes over the memory of its parent with everything in it, and a thread of the parent is not there any more. Hooks cannot be
taken back, so they are set once, when first needed, and look at whoever watches then.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Member", "free_locks", "unwatch", "watch"]

_PLAIN: Final = type(threading.Lock())
_REENTRANT: Final = type(threading.RLock())
_HOLDERS: Final = frozenset({dict, list, tuple, set, frozenset, deque, OrderedDict, defaultdict, MethodType})
"""What else may hold something of ours."""
_OURS: Final = __name__.partition(".")[0]


class Member(Protocol):
    """Something that has to know."""

    def before_fork(self) -> None:
        """In the parent: remember what is counted now. In the child it is too late: a lock may be held by a thread that is not there."""
        ...

    def after_fork_in_parent(self) -> None:
        """In the parent: there is a child now."""
        ...

    def after_fork_in_child(self) -> None:
        """In the child: begin anew."""
        ...

    def stop(self) -> None:
        """The process ends: say the last word."""
        ...


_watched: weakref.WeakSet[Member] = weakref.WeakSet()
_hooked = False


def watch(member: Member) -> None:
    """Tell ``member`` from now on."""
    global _hooked  # noqa: PLW0603 - the hooks belong to the process
    _watched.add(member)
    if not _hooked:
        _hooked = True
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_tell(lambda member: member.before_fork()),
                after_in_parent=_tell(lambda member: member.after_fork_in_parent()),
                after_in_child=_tell(_child),
            )


def unwatch(member: Member) -> None:
    """Tell it nothing more."""
    _watched.discard(member)


def free_locks(roots: Iterable[object]) -> int:
    """Give back the locks below these objects, and those of our modules: in a child, right after the fork. Returns how many there are.

    A thread that was inside one of our locks when the process was forked is not in the child, and would never give it back: whoever calls
    next would wait for ever. What it was changing may be changed by half, which is a count too few. Locks that the forking thread itself
    holds stay held. They are found by looking through what is there, so that no lock pays for being known.
    """
    freed = 0
    modules = [vars(module) for name, module in tuple(sys.modules.items()) if name.partition(".")[0] == _OURS and module is not None]
    for found in [value for module in modules for value in tuple(module.values())]:
        freed += _freed(found)
    seen: set[int] = set()
    left: list[Any] = list(roots)
    while left:
        for found in gc.get_referents(left.pop()):
            kind = type(found)
            if kind is _REENTRANT or kind is _PLAIN:
                freed += _freed(found)
            elif id(found) not in seen and (kind in _HOLDERS or kind.__module__.partition(".")[0] == _OURS):
                seen.add(id(found))
                left.append(found)
    return freed


def _freed(found: Any) -> int:
    kind = type(found)
    if kind is not _PLAIN and (kind is not _REENTRANT or found._is_owned()):  # noqa: SLF001 - as the library's own threading asks it
        return 0
    found._at_fork_reinit()  # noqa: SLF001 - what the standard library's own modules do after a fork
    return 1


def _tell(step: Callable[[Member], None]) -> Callable[[], None]:
    def tell() -> None:
        for member in list(_watched):
            step(member)

    return tell


def _child(member: Member) -> None:
    member.after_fork_in_child()
    processes = sys.modules.get("multiprocessing.util")
    if processes is not None:
        # Its children leave by os._exit, which runs its finalizers but not atexit.
        processes.register_after_fork(member, _stop_at_exit)


def _stop_at_exit(member: Member) -> None:
    from multiprocessing.util import Finalize

    Finalize(None, member.stop, exitpriority=0)


def _at_exit() -> None:
    for member in list(_watched):
        member.stop()
