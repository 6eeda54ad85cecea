"""A child that does not outlive its parent, whatever ends the parent.

``python -m somaresil.demo.leash PARENT PROGRAM ARGUMENT...`` becomes PROGRAM, which ends when process PARENT ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["die_with"]

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which started it, ends. Only Linux can; elsewhere this does nothing.

    Raises :class:`SystemExit` when the parent is gone already. The wish survives ``exec``.
    """
    if sys.platform == "linux":
        # SIGKILL: the parent is dead, so nobody is left who would notice that a polite request was not followed.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(f"process {parent}, which started this one, is gone")


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is what is wanted
