"""Who did what to whom, and when: every experiment that was armed, refused or ended, and everything that operators did.

Entries are kept in memory (the last thousand), told to listeners (:class:`~somaresil.events.ChaosAudited`), and appended to a file if
there is one, a line of JSON each. Nothing of it can keep an experiment from being stopped: a file that cannot be written is reported once.

An entry holds names, numbers and the *types* of errors; arguments, headers, plans' tokens and messages of exceptions are not in it.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.events import ChaosAudited

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from somaresil.chaos.config import ChaosConfig
    from somaresil.chaos.permission import Place
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["ACTOR_VARIABLE", "AuditEntry", "AuditLog", "acting", "acting_here", "summary"]

ACTOR_VARIABLE: Final = "SOMARESIL_ACTOR"
"""The environment variable that says who acts when the code does not."""

_KEPT: Final = 1_000
_LONGEST: Final = 200
_FILE_MOST: Final = 10_000_000
_FILES_KEPT: Final = 3

# A pipe that nobody reads is refused at once, and not waited for.
_APPENDING: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

_actor: ContextVar[str] = ContextVar("somaresil_actor", default="")


@contextmanager
def acting(actor: str) -> Generator[None]:
    """Say who does what is done in a ``with`` block, for the audit log. Tasks and threads that copy the context follow."""
    token = _actor.set(_short(actor))
    try:
        yield
    finally:
        _actor.reset(token)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done, or refused."""

    number: int
    """Counts from 1 in this process; a gap in what somebody kept is an entry that he has not seen."""
    at: float
    """Wall time, seconds since the epoch."""
    who: str
    what: str
    """``arm``, ``refuse``, ``end``, ``stop``, ``stop_all``, ``engage``, ``disengage``, ``opt_in``; of request plans ``approve``,
    ``revoke``, ``accept_plans``, ``refuse_plans`` and ``use``; or what other parts say."""
    experiment: str
    """The id of the experiment; empty when it is about none, or about all."""
    result: str
    """How it went: ``armed``, ``outside the blast radius``, the reason of an end, the problems of a refusal."""
    config: Mapping[str, Any]
    """What the experiment was told to do, as far as it differs from the defaults."""
    place: Mapping[str, Any]
    """Service, instance, zone, region, environment and process id."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class AuditLog:
    """The entries of one engine."""

    def __init__(self, place: Place, clock: Clock, listeners: Listeners) -> None:
        """Nothing noted, no file."""
        self._place = place
        self._clock = clock
        self._listeners = listeners
        self._lock = threading.RLock()
        self._entries: deque[AuditEntry] = deque(maxlen=_KEPT)
        self._number = 0
        self._path: Path | None = None
        self._most = _FILE_MOST

    @property
    def entries(self) -> tuple[AuditEntry, ...]:
        """The last thousand, oldest first."""
        with self._lock:
            return tuple(self._entries)

    def write_to(self, path: str | os.PathLike[str] | None, *, most: int = _FILE_MOST) -> None:
        """Append every further entry to a file, a line of JSON each; None: to none.

        Several processes may write to one file. When it has ``most`` bytes (at least 10,000) it becomes ``<path>.1``, that
        ``<path>.2``, and of those three are kept. Raises :class:`~somaresil.errors.ConfigurationError`.
        """
        check = Checker("audit")
        if path is not None and not (isinstance(path, str | os.PathLike) and Path(path).parent.is_dir()):
            check.problem("path", path, "a path in a folder that is there, or None")
        check.count("most", most, minimum=10_000)
        check.finish()
        self._path, self._most = None if path is None else Path(path), most

    def note(
        self, what: str, result: str, *, experiment: str = "", config: ChaosConfig | None = None, who: str | None = None
    ) -> AuditEntry:
        """Keep an entry, and tell everybody. Never raises an ``Exception``."""
        place = {name: getattr(self._place, name) for name in ("service", "instance", "zone", "region", "environment")}
        with self._lock:
            self._number += 1
            entry = AuditEntry(
                self._number,
                self._clock.time(),
                _short(who) if who else acting_here(),
                what,
                experiment,
                result[: 10 * _LONGEST],
                summary(config),
                {**place, "pid": os.getpid()},
            )
            self._entries.append(entry)
        if self._path is not None:
            self._append(self._path, entry)
        if self._listeners.wants(ChaosAudited):
            self._listeners.emit(ChaosAudited(entry.at, entry.who, entry.what, entry.experiment, entry.result))
        return entry

    def _append(self, path: Path, entry: AuditEntry) -> None:
        try:
            line = json.dumps(entry.as_dict(), default=str, ensure_ascii=True).encode() + b"\n"
            # With O_APPEND a line is written in one piece behind those of other processes.
            descriptor = os.open(path, _APPENDING, 0o600)
            try:
                full = (size := os.fstat(descriptor).st_size) > 0 and size + len(line) > self._most
                if not full:
                    os.write(descriptor, line)
            finally:
                os.close(descriptor)
            if full:
                self._rotate(path, len(line))
                self._append(path, entry)
        except Exception as broken:  # noqa: BLE001 - it must not keep anybody from stopping something
            self._listeners.defect("audit log of chaos", broken, entry.at, "the entry is kept in memory only")

    def _rotate(self, path: Path, line: int) -> None:
        with self._lock:
            if path.stat().st_size + line <= self._most:
                # Another process was quicker.
                return
            for number in range(_FILES_KEPT, 1, -1):
                with suppress(FileNotFoundError):
                    Path(f"{path}.{number - 1}").replace(f"{path}.{number}")
            path.replace(f"{path}.1")

    def forget_lock(self) -> None:
        """This process is a fork: a thread that stayed behind may hold it."""
        self._lock = threading.RLock()


def summary(config: ChaosConfig | None) -> dict[str, Any]:
    """What an experiment is told to do, as data without secrets: an error by its type, conditions by their names."""
    shown: dict[str, Any] = {}
    for option in fields(config) if config is not None else ():
        value = getattr(config, option.name)
        if value != option.default:
            shown[option.name] = _plain(value)
    return shown


def _plain(value: object) -> Any:
    if isinstance(value, str):
        return str(value)[:_LONGEST]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, tuple):
        return [_plain(each) for each in value[:100]]
    name = getattr(value, "name", None) or getattr(value, "__qualname__", None)
    return name[:_LONGEST] if isinstance(name, str) else type(value).__qualname__


def acting_here() -> str:
    """Who acts here, as far as anybody has said: :func:`acting`, :data:`ACTOR_VARIABLE`, the user of the shell, the user id."""
    # Not getpass.getuser: it looks into the password database, which may be on the network.
    said = _actor.get() or os.environ.get(ACTOR_VARIABLE) or os.environ.get("LOGNAME") or os.environ.get("USER")
    return _short(said) if said else f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def _short(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in str(text))[:_LONGEST]
