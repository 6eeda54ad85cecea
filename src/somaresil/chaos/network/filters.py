"""Filters that the kernel runs on what one socket receives (``SO_ATTACH_FILTER``, classic BPF): nothing arrives, or some of it is lost.

This is the real thing: TCP retransmits, and what was swallowed arrives after the filter is gone. On the kernel where it was tried (6.18) it
needs CAP_NET_ADMIN, so whether it works is tried and not assumed.
"""

from __future__ import annotations

import _socket
import ctypes
import errno
import os
import socket
from typing import Any, Final

from somaresil.chaos.network.sockets import _libc

__all__ = ["attach", "detach", "has_filter", "unavailable"]

_ATTACH: Final = 26
_DETACH: Final = 27
_RETURN: Final = 0x06
_LOAD: Final = 0x20
_JUMP_IF_AT_LEAST: Final = 0x35
_RANDOM: Final = (-0x1000 + 56) & 0xFFFFFFFF
"""SKF_AD_OFF + SKF_AD_RANDOM: a random word for each packet."""
_ALL: Final = 0xFFFFFFFF


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def program(loss: float) -> list[tuple[int, int, int, int]]:
    """Instructions that drop this share of the packets."""
    if loss >= 1.0:
        return [(_RETURN, 0, 0, 0)]
    return [(_LOAD, 0, 0, _RANDOM), (_JUMP_IF_AT_LEAST, 1, 0, int(loss * _ALL)), (_RETURN, 0, 0, 0), (_RETURN, 0, 0, _ALL)]


def attach(fd: int, loss: float) -> None:
    """Lose this share of what the socket receives; 1.0: all of it. Takes the place of a filter that is there. Raises ``OSError``."""
    wanted = program(loss)
    made = (_Instruction * len(wanted))(*(_Instruction(*each) for each in wanted))
    whole = _Program(len(wanted), ctypes.cast(made, ctypes.POINTER(_Instruction)))
    _set(fd, _ATTACH, whole)


def detach(fd: int) -> None:
    """Lose nothing any more. Not an error when there is no filter."""
    try:
        _set(fd, _DETACH, ctypes.c_int(0))
    except FileNotFoundError:
        return


def has_filter(fd: int) -> bool:
    """Whether somebody has attached a filter to this socket."""
    size = ctypes.c_uint(0)
    return _libc().getsockopt(fd, socket.SOL_SOCKET, _ATTACH, None, ctypes.byref(size)) == 0 and size.value > 0


def unavailable() -> str:
    """Why the kernel does not take such filters from this process; empty when it does. It is tried on a socket of its own."""
    try:
        trial = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    except OSError as reason:
        return str(reason)
    try:
        attach(trial.fileno(), 1.0)
        detach(trial.fileno())
    except PermissionError:
        return "the kernel lets no filter be attached to a socket without CAP_NET_ADMIN"
    except OSError as reason:
        return f"the kernel takes no socket filter: {reason}"
    finally:
        trial.close()
    return ""


def _set(fd: int, option: int, value: Any) -> None:
    if _libc().setsockopt(fd, socket.SOL_SOCKET, option, ctypes.byref(value), ctypes.sizeof(value)):
        number = ctypes.get_errno()
        raise OSError(number or errno.EINVAL, os.strerror(number or errno.EINVAL))
