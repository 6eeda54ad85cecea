"""Who keeps files of its own in this process is told of forks and of the end.

A forked child takes over the memory of its parent with everything in it, and a thread of the parent is not there any more. Hooks cannot be
taken back, so they are set once, when first needed, and look at whoever watches then.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Member", "unwatch", "watch"]


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
