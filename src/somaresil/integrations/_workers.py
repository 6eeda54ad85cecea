"""Several worker processes, one truth: each writes its counts into a file, and whoever is scraped adds the files up.

``PROMETHEUS_MULTIPROC_DIR`` names the folder, as it does for prometheus_client, whose own files lie beside ours and whose custom
collectors do not work in this mode. A file is ``somaresil_<pid>-<start>.json``, replaced in one step, so nobody reads half of it. What a
worker counted outlives it: the files of dead workers are read like any other, and folded into ``somaresil_archive.json`` when there are
many (a server that replaces its workers every thousand requests leaves thousands of files a day). Gauges speak only for workers that have
written lately.

A forked child takes over the counters of its parent with everything in them. What was in them at the fork is the parent's to tell.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.forks import unwatch, watch
from somaresil.integrations._readings import Reader, Reading, add_up, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from somaresil.resilience import Resilience

__all__ = ["ARCHIVE", "FORMAT", "Worker"]

FORMAT: Final = 1
"""Version of the files. A file of another version is skipped and reported."""
ARCHIVE: Final = "somaresil_archive.json"

_NAME: Final = re.compile(r"somaresil_\d+-\d+\.json")
_LARGEST: Final = 64 * 1024 * 1024
_MANY: Final = 32
"""So many files of dead workers are folded together."""
_MISSED: Final = 3
"""A worker that has been silent for so many of its intervals is not alive."""
_FOLD_EVERY: Final = 12
_TRIES: Final = 5


@dataclass(slots=True)
class _File:
    """One file, read and checked."""

    name: str
    service: str
    host: str
    pid: int
    started: float
    at: float
    interval: float
    live: bool
    reading: Reading
    folded: frozenset[str]
    generation: int


class Worker:
    """This process as one of several."""

    def __init__(self, resilience: Resilience, folder: Path, interval: float) -> None:
        """Nothing is written and no thread runs before :meth:`start`. ``interval``: seconds between two writings."""
        self._resilience = resilience
        self._reader = Reader(resilience)
        self._folder = folder
        self._interval = interval
        self._baseline: Reading | None = None
        self._at_fork: Reading | None = None
        self._only_forked: Reading | None = None
        self._begin()

    def _begin(self) -> None:
        """Be a process that has counted nothing yet."""
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._ticks = 0
        self._written = False
        self._started = time.time()
        self.name = f"somaresil_{os.getpid()}-{time.time_ns()}.json"
        """The file of this process."""

    # -- life ---------------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Write for the first time, and every ``interval`` seconds from now on, in a daemon thread."""
        self.flush()
        watch(self)
        self._run()

    def stop(self) -> None:
        """Write for the last time. The file stays: what was counted was counted."""
        unwatch(self)
        self._wake.set()
        self.flush(live=False)

    def _run(self) -> None:
        self._thread = threading.Thread(target=self._beat, args=(self._wake,), name="somaresil-metrics", daemon=True)
        self._thread.start()

    def _beat(self, wake: threading.Event) -> None:
        while not wake.wait(self._interval):
            self.flush()
            if self._ticks % _FOLD_EVERY == 0:
                self._guarded("folding the files of dead workers", self._fold)
            self._ticks += 1

    # -- telling and asking -------------------------------------------------------------------------------------------------------------

    def flush(self, *, live: bool = True) -> Reading:
        """Write down what this process has counted, and return it. A folder that cannot be written is reported once."""
        with self._lock:
            reading = self._own()
            live = live and not self._is_mere_parent(reading)
            if not live:
                reading = reading.without_gauges()
            if live or self._written or not reading.empty:
                self._guarded("writing the metrics of this worker", lambda: self._write(self.name, reading, live=live))
                self._written = True
        return reading

    def gather(self, *also: Worker) -> Reading:
        """What all workers have counted. ``also``: further workers of this process, which speak for themselves."""
        ours = [self, *also]
        own = [worker.flush() for worker in ours]
        return add_up([*self._others({worker.name for worker in ours}), *own])

    def _own(self) -> Reading:
        reading = self._reader.read()
        return reading if self._baseline is None else reading.minus(self._baseline)

    def _is_mere_parent(self, reading: Reading) -> bool:
        """Whether it has forked and done no work since: the master of a pre-forking server is no worker."""
        return self._only_forked is not None and reading.without_gauges() == self._only_forked

    # -- files ----------------------------------------------------------------------------------------------------------------------------

    def _write(self, name: str, reading: Reading, *, live: bool, folded: frozenset[str] = frozenset(), generation: int = 0) -> None:
        content = {
            "format": FORMAT,
            "service": self._resilience.service,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "at": self._resilience.clock.time(),
            "interval": self._interval,
            "live": live,
            "folded": sorted(folded),
            "generation": generation,
            "rows": encode(reading),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f".{name}.{os.getpid()}.tmp"
        draft.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        draft.replace(self._folder / name)

    def _others(self, ours: set[str]) -> list[Reading]:
        """The readings of the archive and of all files that are not ``ours``, those of the longest-lived workers first."""
        archive: _File | None = None
        files: list[_File] = []
        for _ in range(_TRIES):
            archive = self._load(ARCHIVE)
            files = [file for name in self._names() - ours if (file := self._load(name)) is not None]
            again = self._load(ARCHIVE)
            # A file that was folded while we read would be counted twice or not at all.
            if (archive and archive.generation) == (again and again.generation):
                break
        folded = archive.folded if archive is not None else frozenset()
        files = sorted((file for file in files if file.name not in folded), key=lambda file: (file.started, file.name))
        now = self._resilience.clock.time()
        readings = [file.reading if _lives(file, now) else file.reading.without_gauges() for file in files]
        return readings if archive is None else [archive.reading, *readings]

    def _names(self) -> set[str]:
        try:
            return {entry.name for entry in os.scandir(self._folder) if _NAME.fullmatch(entry.name)}
        except OSError as error:
            self._report("the folder of the workers' metrics", error)
            return set()

    def _load(self, name: str) -> _File | None:
        """A file, or None when it is gone or is not ours; the latter is reported once."""
        path = self._folder / name
        try:
            return _parse(path, self._resilience.service)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._report(f"metrics file {path}", error)
            return None

    def _fold(self) -> None:
        """Put the files of workers that are gone for good into the archive.

        Survives being killed at any point: the archive says which files it holds, readers leave those out, and whoever folds next removes
        them.
        """
        if len(self._names()) <= _MANY:
            return
        import fcntl

        with (self._folder / ".somaresil.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            archive = self._load(ARCHIVE)
            if archive is None and (self._folder / ARCHIVE).exists():
                # It cannot be read and has been reported; folding on top of it would lose what it holds.
                return
            for name in archive.folded if archive is not None else ():
                (self._folder / name).unlink(missing_ok=True)
            now = self._resilience.clock.time()
            dead = [file for name in sorted(self._names()) if (file := self._load(name)) is not None and self._is_gone(file, now)]
            readings = [file.reading.without_gauges() for file in dead]
            whole = add_up(readings if archive is None else [archive.reading, *readings])
            generation = 1 if archive is None else archive.generation + 1
            names = frozenset(file.name for file in dead)
            self._write(ARCHIVE, whole, live=False, folded=names, generation=generation)
            for name in names:
                (self._folder / name).unlink(missing_ok=True)

    def _is_gone(self, file: _File, now: float) -> bool:
        if file.name == self.name or file.host != socket.gethostname() or _lives(file, now):
            return False
        try:
            os.kill(file.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False

    # -- forks ----------------------------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """In the parent: remember what is counted now. In the child it is too late: a lock may be held by a thread that is not there."""
        self._at_fork = self._reader.read()

    def after_fork_in_parent(self) -> None:
        """In the parent: it may be a mere parent from now on."""
        if self._at_fork is not None:
            own = self._at_fork if self._baseline is None else self._at_fork.minus(self._baseline)
            self._only_forked, self._at_fork = own.without_gauges(), None

    def after_fork_in_child(self) -> None:
        """In the child: begin anew. Its file is written when it has lived for an interval, or is scraped, or ends."""
        self._baseline, self._at_fork, self._only_forked = self._at_fork, None, None
        self._begin()
        self._run()

    # -- trouble --------------------------------------------------------------------------------------------------------------------------

    def _guarded(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - metrics never stop a service
            self._report(what, error)

    def _report(self, what: str, error: Exception) -> None:
        self._resilience.listeners.defect(what, error, self._resilience.clock.time(), "it was left out of the metrics")


_FURTHEST: Final = 1e12
"""Seconds since the epoch, and before it, that a file may speak of."""


def _lives(file: _File, now: float) -> bool:
    return file.live and now - file.at <= _MISSED * file.interval


def _parse(path: Path, service: str) -> _File:
    """Read a file. Raises ``ValueError`` when it is not one of ours, ``OSError`` when it cannot be read."""
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"expected at most {_LARGEST} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("expected JSON that is not nested without end") from None
    if not isinstance(content, dict):
        raise ValueError("expected an object")  # noqa: TRY004 - whoever wrote it, it is the content that is wrong
    if content.get("format") != FORMAT:
        raise ValueError(f"expected format {FORMAT}, not {content.get('format')!r:.40}; another version of somaresil wrote it")
    types: dict[str, Any] = {
        "service": str,
        "host": str,
        "pid": int,
        "started": int | float,
        "at": int | float,
        "interval": int | float,
        "live": bool,
        "folded": list,
        "generation": int,
    }
    for key, kind in types.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{key}: expected {kind}, not {content.get(key)!r:.40}")  # noqa: TRY004
    if not all(-_FURTHEST <= content[key] <= _FURTHEST for key in ("started", "at", "interval")):
        raise ValueError("started, at, interval: expected seconds")
    if content["service"] != service:
        raise ValueError(f"it belongs to service {content['service']!r:.60}, not {service!r}; give each a folder of its own")
    known = {key: content[key] for key in types}
    known["folded"] = frozenset(name for name in content["folded"] if isinstance(name, str) and _NAME.fullmatch(name))
    return _File(name=path.name, reading=decode(content.get("rows")), **known)
