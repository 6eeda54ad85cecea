"""Counts that outlive the process and are shared by all workers: a folder in which each process keeps one file.

    resilience = Resilience("gateway", slo_snapshot="/var/lib/gateway/slo")

A process writes its own file every few seconds, in a thread of its own and at its end, and reads those of the others then; no call does.
What they have counted is added to what it counts itself, slot by slot, so a restart keeps the budget of 30 days, and with several workers
each of them answers for all. Killed at any moment, a process loses what it counted since its last writing, and nothing else.

Files of processes that are gone are read like any other until what is in them is too old for any window; when there are many they are put
together into one. A file has the process id and the nanosecond of its beginning in its name, so an id that is used again does no harm.
What cannot be read, or must not be trusted, is left out and reported; slots that lie in the future are left out too.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.forks import unwatch, watch
from somaresil.model.ledger import EMPTY, Ledger, covered
from somaresil.model.window import SLO_TIERS
from somaresil.slo.sheet import Entry, Sheet, fingerprint, read, write
from somaresil.slo.store import Reading

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from somaresil.listeners import Listeners
    from somaresil.slo.objective import SLO
    from somaresil.slo.series import Series
    from somaresil.typing import Clock

__all__ = ["ARCHIVE", "SnapshotFolder", "SnapshotStore"]

ARCHIVE: Final = "slo_archive.bin"
"""Where the counts of many processes that are gone stand together."""

_NAME: Final = re.compile(r"slo_[0-9]{1,10}-[0-9]{1,20}\.bin")
_DRAFT: Final = re.compile(r"\.slo_.{1,60}\.tmp")
_MANY: Final = 8
"""So many files of processes that are gone are put together."""
_MOST_FILES: Final = 4_096
_MOST_FOLDED: Final = 512
_IDLE: Final = 60.0
"""Seconds after which a file is written although nothing was counted: that somebody watched is worth knowing too."""
_SILENT: Final = 900.0
"""Seconds of silence after which a process is taken for gone, wherever it was."""
_LEEWAY: Final = 60.0
"""Seconds by which clocks of processes may differ."""
_TRIES: Final = 5

_Signature = tuple[int, int, int]


class SnapshotFolder:
    """The file of this process, and what stands in those of the others."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        series: Callable[[], Mapping[str, Series]],
        *,
        service: str,
        clock: Clock,
        listeners: Listeners,
        interval: float = 5.0,
    ) -> None:
        """Nothing is read or written and no thread runs before :meth:`start`. ``interval``: seconds between two writings."""
        self.folder = Path(folder)
        self._series = series
        self._service = service
        self._clock = clock
        self._listeners = listeners
        self._interval = interval
        self._at_fork: dict[str, tuple[int, int]] = {}
        self._begin()

    def _begin(self) -> None:
        """Be a process that has written nothing yet."""
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._started = self._clock.time()
        self._told: dict[str, tuple[int, int]] = {}
        self._written_at: float | None = None
        self._read: dict[str, tuple[_Signature, Sheet | None]] = {}
        self._entries: dict[str, tuple[Entry, ...]] = {}
        self._found: dict[str, tuple[SLO, tuple[Ledger, ...]]] = {}
        self.name = _new_name()
        """The file of this process."""

    # -- life -----------------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read what others left, and exchange counts every ``interval`` seconds from now on, in a daemon thread."""
        self.refresh()
        watch(self)
        self._run()

    def stop(self) -> None:
        """Write for the last time."""
        unwatch(self)
        self._wake.set()
        self.save(live=False)
        _ours.discard(self.name)

    def last_word(self, send: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """An ASGI app's ``send`` in its lifespan: counts are written when the app has ended, for a server may kill its worker then."""

        async def sending(message: Any) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                self.save(live=False)
            await send(message)

        return sending

    def _run(self) -> None:
        threading.Thread(target=self._beat, args=(self._wake,), name="somaresil-slo", daemon=True).start()

    def _beat(self, wake: threading.Event) -> None:
        while not wake.wait(self._interval):
            self.exchange()

    def exchange(self) -> None:
        """Write what was counted, and read what others wrote. Never raises an ``Exception``."""
        with self._lock:
            self.save()
            self.refresh()
            self._guarded("putting snapshots of objectives together", self._fold)

    # -- answers --------------------------------------------------------------------------------------------------------------------------

    def others(self, slo: SLO) -> tuple[Ledger, ...]:
        """What all other processes have counted for ``slo``, as of the last reading."""
        found = self._found
        known = found.get(slo.name)
        if known is not None and known[0] == slo:
            return known[1]
        entries = self._entries.get(slo.name, ())
        same = fingerprint(slo) if entries else ""
        ledgers = tuple(entry.ledger for entry in entries if entry.indicator == same)
        if len(ledgers) < len(entries):
            self._report(f"snapshots of objective {slo.name}", ValueError("it counted something else under this name"))
        found[slo.name] = (slo, ledgers)
        return ledgers

    # -- writing --------------------------------------------------------------------------------------------------------------------------

    def save(self, *, live: bool = True) -> None:
        """Write down what this process has counted, unless there is nothing new. Never raises an ``Exception``."""
        with self._lock:
            self._guarded("writing the snapshot of objectives", lambda: self._save(live=live))

    def _save(self, *, live: bool) -> None:
        archive = self._load(ARCHIVE)
        if archive is not None and self.name in archive.folded:
            self._resume()
        series = {name: each for name, each in self._series().items() if each.sources or each.slo.recovery is not None}
        totals = {name: each.counted() for name, each in series.items()}
        now = self._clock.time()
        fresh = any(counts != self._told.get(name, (0, 0)) for name, counts in totals.items())
        last = self._started if self._written_at is None else self._written_at
        due = abs(now - last) >= _IDLE or (not live and self._written_at is not None)
        if not series or not (fresh or due):
            return
        entries: dict[str, Entry] = {}
        for name, each in series.items():
            ledger, totals[name] = each.ledger()
            entries[name] = Entry(fingerprint(each.slo), ledger)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(self.folder / self.name, self._sheet(entries, at=now, live=live))
        self._told, self._written_at = totals, now

    def _sheet(self, entries: Mapping[str, Entry], *, at: float, live: bool, folded: tuple[str, ...] = (), generation: int = 0) -> Sheet:
        return Sheet(
            service=self._service,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=self._started,
            at=at,
            live=live,
            entries=entries,
            folded=folded,
            generation=generation,
        )

    # -- reading --------------------------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what others have written. Never raises an ``Exception``."""
        with self._lock:
            self._guarded("reading snapshots of objectives", self._refresh)

    def _refresh(self) -> None:
        found: dict[str, list[Entry]] = {}
        for sheet in self._sheets():
            for name, entry in sheet.entries.items():
                found.setdefault(name, []).append(entry)
        self._entries = {name: tuple(entries) for name, entries in found.items()}
        self._found = {}

    def _resume(self) -> None:
        """This process was silent for so long that it was taken for gone: what it had written is in the archive, so begin a new file."""
        for name, each in self._series().items():
            each.begin_anew(self._told.get(name, (0, 0)))
        self._told, self._written_at = dict(self._told), None
        self.name = _new_name()

    def _sheets(self) -> list[Sheet]:
        """The archive and all files that are not ours, at one moment: what is folded meanwhile counts neither twice nor not at all."""
        found: list[Sheet] = []
        for _ in range(_TRIES):
            archive = self._load(ARCHIVE)
            folded = frozenset(archive.folded) if archive is not None else frozenset[str]()
            names = self._names()
            found = [sheet for name in sorted(names - {self.name} - folded) if (sheet := self._load(name)) is not None]
            again = self._load(ARCHIVE)
            if (archive and archive.generation) == (again and again.generation):
                if archive is not None:
                    found.append(archive)
                self._read = {name: read for name, read in self._read.items() if name in names or name == ARCHIVE}
                return found
        return found

    def _names(self) -> set[str]:
        try:
            names = sorted(entry.name for entry in os.scandir(self.folder) if _NAME.fullmatch(entry.name))
        except (FileNotFoundError, NotADirectoryError):
            return set()
        if len(names) > _MOST_FILES:
            self._report("the folder of snapshots", ValueError(f"it has more than {_MOST_FILES} files"))
        return set(names[-_MOST_FILES:])

    def _load(self, name: str) -> Sheet | None:
        """A file, or None when it is gone or must not be used; the latter is reported once. Not read again until it changes."""
        path = self.folder / name
        signature: _Signature | None = None
        try:
            found = path.lstat()
            signature = (found.st_ino, found.st_mtime_ns, found.st_size)
            known = self._read.get(name)
            if known is not None and known[0] == signature:
                return known[1]
            sheet = _trusted(read(path), self._service)
            kept = {slo: Entry(entry.indicator, self._possible(path, slo, entry.ledger)) for slo, entry in sheet.entries.items()}
            sheet = Sheet(**{each: getattr(sheet, each) for each in _FIELDS}, entries=kept, name=name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as refused:
            self._report(f"snapshot {path}", refused)
            sheet = None
        if signature is not None:
            self._read[name] = (signature, sheet)
        return sheet

    def _possible(self, path: Path, name: str, ledger: Ledger) -> Ledger:
        now = self._clock.time()
        if future(ledger, now):
            self._report(f"objective {name} in snapshot {path}", ValueError("it has counts of the future, which are left out"))
        return ledger.known_at(now, _LEEWAY)

    # -- putting together -----------------------------------------------------------------------------------------------------------------

    def _fold(self) -> None:
        """Put the files of processes that are gone into the archive.

        It may be killed at any point: the archive says which files it holds, readers leave those out, and whoever folds next removes them.
        """
        if len(self._names()) <= _MANY:
            return
        import fcntl

        descriptor = os.open(self.folder / ".slo.lock", os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(descriptor, "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            archive = self._load(ARCHIVE)
            if archive is None and (self.folder / ARCHIVE).exists():
                # It cannot be read and has been reported; writing another one would lose what it holds.
                return
            before = archive.folded if archive is not None else ()
            for name in before:
                (self.folder / name).unlink(missing_ok=True)
            now = self._clock.time()
            gone = [
                sheet for name in sorted(self._names() - {self.name}) if (sheet := self._load(name)) is not None and _is_gone(sheet, now)
            ]
            if len(gone) < _MANY // 2:
                return
            whole: dict[str, Entry] = dict(archive.entries) if archive is not None else {}
            for sheet in gone:
                _add(whole, sheet)
            whole = {name: Entry(each.indicator, each.ledger.known_at(now, _LEEWAY)) for name, each in whole.items()}
            folded = (*before, *(sheet.name for sheet in gone))[-_MOST_FOLDED:]
            generation = 1 if archive is None else archive.generation + 1
            at = max(sheet.at for sheet in (*gone, *([archive] if archive is not None else [])))
            write(self.folder / ARCHIVE, self._sheet(whole, at=at, live=False, folded=folded, generation=generation))
            for sheet in gone:
                (self.folder / sheet.name).unlink(missing_ok=True)
            for entry in list(os.scandir(self.folder)):
                # What somebody was killed over.
                if _DRAFT.fullmatch(entry.name) and abs(now - entry.stat(follow_symlinks=False).st_mtime) > _SILENT:
                    Path(entry.path).unlink(missing_ok=True)

    # -- forks ----------------------------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """In the parent: what is counted now is the parent's to tell."""
        self._at_fork = {name: each.counted() for name, each in self._series().items()}

    def after_fork_in_parent(self) -> None:
        """In the parent: nothing changes."""
        self._at_fork = {}

    def after_fork_in_child(self) -> None:
        """In the child: begin anew, knowing of the others what the parent knew of them."""
        entries = self._entries
        _ours.difference_update([name for name in _ours if not name.startswith(f"slo_{os.getpid()}-")])
        for name, each in self._series().items():
            each.forget_lock()
            each.begin_anew(self._at_fork.get(name, (0, 0)))
        inherited = self._at_fork
        self._begin()
        self._told, self._entries = inherited, entries
        self._run()

    # -- trouble --------------------------------------------------------------------------------------------------------------------------

    def _guarded(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - counting goes on without a folder
            self._report(what, error)

    def _report(self, what: str, error: Exception) -> None:
        self._listeners.defect(what, error, self._clock.time(), "budgets are answered without it")


_ours: set[str] = set()
"""Files of this process: there may be several objects in it, and one must not take the other for gone."""


def _new_name() -> str:
    name = f"slo_{os.getpid()}-{time.time_ns()}.bin"
    _ours.add(name)
    return name


_FIELDS: Final = ("service", "host", "pid", "started", "at", "live", "folded", "generation")


def future(ledger: Ledger, now: float) -> bool:
    """Whether there are events in slots that have not begun yet, by more than clocks may differ."""
    return any(any(track.since(int((now + _LEEWAY) // tier.resolution) + 1)) for tier, track in zip(SLO_TIERS, ledger.tracks, strict=True))


def _trusted(sheet: Sheet, service: str) -> Sheet:
    if sheet.service != service:
        raise ValueError(f"it belongs to service {sheet.service!r:.60}, not {service!r}; give each a folder of its own")
    return sheet


def _is_gone(sheet: Sheet, now: float) -> bool:
    silent = now - sheet.at
    if sheet.name in _ours:
        return False
    if silent > _SILENT or not sheet.live:
        return True
    if sheet.host != socket.gethostname():
        return False
    if sheet.pid == os.getpid():
        # Not our file: a process of another life had our id.
        return True
    try:
        os.kill(sheet.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _add(whole: dict[str, Entry], sheet: Sheet) -> None:
    for name, entry in sheet.entries.items():
        known = whole.get(name)
        if known is None or known.indicator != entry.indicator:
            # Of two that counted different things under one name the later one has the say.
            whole[name] = entry
        else:
            whole[name] = Entry(entry.indicator, known.ledger.plus(entry.ledger))


class SnapshotStore:
    """What processes of a service have left in a folder, or in one file of it, read from outside: for a gate.

    It is read once, when it is first asked, so every answer is about the same moment. A file that must not be used makes everything
    unknown, as does a folder in which nobody has written for ``max_age`` seconds.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock, max_age: float = 300.0) -> None:
        """Nothing is read yet."""
        self._path = Path(path)
        self._clock = clock
        self._max_age = max_age
        self._sheets: list[Sheet] | None = None
        self._problem: str | None = None

    @property
    def name(self) -> str:
        """``snapshot``."""
        return "snapshot"

    def read(self, slo: SLO, window: float) -> Reading:
        """The events of the last ``window`` seconds."""
        if self._sheets is None:
            self._sheets = self._load()
        now = self._clock.time()
        entries = [(sheet, sheet.entries[slo.name]) for sheet in self._sheets if slo.name in sheet.entries]
        age = now - max(sheet.at for sheet, _ in entries) if entries else None
        if self._problem is not None:
            return Reading.unknown(self.name, self._problem, age=age)
        if age is None:
            return Reading.unknown(self.name, f"no snapshot in {self._path} knows it")
        whole = EMPTY
        same = fingerprint(slo)
        for _, entry in entries:
            if entry.indicator != same:
                return Reading.unknown(self.name, "the snapshots count something else under this name", age=age)
            if future(entry.ledger, now):
                return Reading.unknown(self.name, "the snapshots have counts of the future: a clock is wrong", age=age)
            whole = whole.plus(entry.ledger.known_at(now, _LEEWAY))
        good, bad = whole.within(now, window)
        coverage = covered(whole.seen, now - window, now)
        if age > self._max_age:
            return Reading.unknown(self.name, f"stale: nobody has written for {age:.0f} s", coverage=coverage, age=age)
        return Reading(good, bad, coverage, self.name, max(0.0, age))

    def _load(self) -> list[Sheet]:
        try:
            sheets = self._folder() if self._path.is_dir() else [read(self._path)]
        except (OSError, ValueError) as refused:
            why = refused.strerror if isinstance(refused, OSError) and refused.strerror else str(refused)
            self._problem = f"the snapshots in {self._path} cannot be used: {why}"
            return []
        if len({sheet.service for sheet in sheets}) > 1:
            self._problem = f"the snapshots in {self._path} are of several services"
        return sheets

    def _folder(self) -> list[Sheet]:
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):
                names = {entry.name for entry in os.scandir(self._path) if entry.name == ARCHIVE or _NAME.fullmatch(entry.name)}
                if len(names) > _MOST_FILES:
                    raise ValueError(f"there are more than {_MOST_FILES}")
                # The archive last: what is folded into it meanwhile is known by its names.
                sheets = [read(self._path / name) for name in sorted(names - {ARCHIVE})]
                archive = read(self._path / ARCHIVE) if (self._path / ARCHIVE).exists() else None
                if archive is None:
                    return sheets
                return [*(sheet for sheet in sheets if sheet.name not in archive.folded), archive]
        raise ValueError("they change too fast to be read")
