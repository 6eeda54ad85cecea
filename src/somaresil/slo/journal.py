"""A journal on disk from which a month can be reported: hours of objectives, incidents and deployments, a line of JSON each.

There is none unless it is asked for. Listeners only put records in line; a daemon thread writes them. Lines are appended in one piece, so
several processes may share a file. When it has ``most`` bytes it becomes ``<path>.1``, that ``<path>.2``, and of those three are kept.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker
from somaresil.events import DeploymentMarked, IncidentClosed, IncidentMitigated, IncidentOpened
from somaresil.slo.records import HOUR, Deployment, Hour, Journaled, JournaledIncident, Record, line, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from somaresil.listeners import Listeners
    from somaresil.slo.tracker import SLOTracker
    from somaresil.typing import Clock

__all__ = ["FILES_KEPT", "Journal", "append", "deployment", "read_journals"]

FILES_KEPT: Final = 3
_MOST: Final = 10_000_000
_SMALLEST: Final = 10_000
_INTERVAL: Final = 10.0
_WAITING: Final = 1_024
_APPENDING: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


def append(path: Path, records: Iterable[Record], *, most: int = _MOST) -> None:
    """Write records behind what is there. Raises :class:`OSError`.

    After a line that was torn a new one is begun, so that only the torn one is lost.
    """
    written = b"".join(line(record) for record in records)
    if not written:
        return
    with suppress(FileNotFoundError):
        if (size := path.stat().st_size) and size + len(written) > most:
            for number in range(FILES_KEPT, 1, -1):
                with suppress(FileNotFoundError):
                    Path(f"{path}.{number - 1}").replace(f"{path}.{number}")
            path.replace(f"{path}.1")
    descriptor = os.open(path, _APPENDING, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, b"\n" + written if torn else written)
    finally:
        os.close(descriptor)


def read_journals(*paths: str | os.PathLike[str]) -> Journaled:
    """What these journals hold together, with their rotated files.

    Raises :class:`~somaresil.errors.ConfigurationError` with all that cannot be read.
    """
    check = Checker("journal")
    lines: list[bytes] = []
    for path in paths:
        try:
            # Without end a line of another file would be glued to one that is torn.
            lines += Path(path).read_bytes().split(b"\n")
        except OSError as wrong:
            check.problem("path", os.fspath(path), "a file that can be read", type(wrong).__name__)
            continue
        for number in range(1, FILES_KEPT + 1):
            with suppress(OSError):
                lines += Path(f"{os.fspath(path)}.{number}").read_bytes().split(b"\n")
    check.finish()
    return read_lines(lines)


def deployment(
    service: str, version: str, *, now: float, at: float | None = None, commit: str | None = None, ok: bool | None = None
) -> Deployment:
    """A checked record. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found."""
    check = Checker("deployed")
    for name, value in (("service", service), ("version", version), ("commit", commit)):
        if not (name == "commit" and value is None) and not (isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()):  # noqa: PLR2004
            check.problem(name, value, "1 to 200 printable characters" + (", or None" if name == "commit" else ""))
    began = now if at is None else check.number("at", at, minimum=0.0)
    if at is not None and began > now + HOUR:
        check.problem("at", at, f"no later than an hour from now ({now:.0f})", "seconds since the epoch are meant")
    if ok is not None:
        check.type("ok", ok, bool, "True, False or None")
    check.finish()
    return Deployment(now, service, version, began, commit, ok)


class Journal:
    """Writes what one process sees. Never raises into what it watches: a file that cannot be written is reported once."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        service: str,
        instance: str,
        slos: SLOTracker,
        clock: Clock,
        listeners: Listeners,
        most: int = _MOST,
    ) -> None:
        """Listen from now on; counts begin here. Raises :class:`~somaresil.errors.ConfigurationError`."""
        check = Checker("journal")
        if not (isinstance(path, str | os.PathLike) and os.fspath(path) and Path(path).parent.is_dir()):
            check.problem("path", path, "a path in a folder that is there")
        check.count("most", most, minimum=_SMALLEST)
        check.finish()
        self.path = Path(path)
        self._most = most
        self._service, self._instance = service, instance
        self._slos, self._clock, self._listeners = slos, clock, listeners
        self._pid = os.getpid()
        self._run = f"{clock.time():.3f}-{self._pid}"
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._waiting: deque[Record] = deque(maxlen=_WAITING)
        self._open: dict[str, tuple[float, float]] = {}
        self._hour = self._hour_now()
        self._before = dict(self._totals())
        self._counted: dict[str, list[int]] = {}
        self._removers = (
            listeners.add(self._opened, IncidentOpened),
            listeners.add(self._mitigated, IncidentMitigated),
            listeners.add(self._closed, IncidentClosed),
            listeners.add(self._deployed, DeploymentMarked),
        )

    def start(self) -> None:
        """Write every 10 seconds in a daemon thread what has come."""
        threading.Thread(target=self._beat, name="somaresil-journal", daemon=True).start()

    def stop(self) -> None:
        """Write the hour that has begun, and listen no more."""
        self._wake.set()
        for remove in self._removers:
            remove()
        self.write(final=True)

    def write(self, *, final: bool = False) -> None:
        """Write what waits, and the hour when it is over (or with ``final`` as it is). Never raises an ``Exception``."""
        if os.getpid() != self._pid:
            # A fork counts what its parent had counted: what it writes would be added twice.
            return
        try:
            with self._lock:
                self._waiting.extend(self._hours(final=final))
                records = [*self._waiting]
                append(self.path, records, most=self._most)
                for _ in records:
                    self._waiting.popleft()
        except Exception as broken:  # noqa: BLE001 - a journal never disturbs what it tells of
            self._listeners.defect("journal", broken, self._clock.time(), "records wait, and the oldest are given up")

    def _beat(self) -> None:
        while not self._wake.wait(_INTERVAL):
            self.write()

    # -- hours ------------------------------------------------------------------------------------------------------------------------

    def _hour_now(self) -> int:
        return int(self._clock.time() // HOUR) * HOUR

    def _totals(self) -> Iterator[tuple[str, tuple[int, int, int]]]:
        for name in self._slos.names:
            with_them, without = self._slos.totals(name, injected=True), self._slos.totals(name, injected=False)
            yield name, (*self._slos.series(name).totals(), sum(with_them) - sum(without))

    def _hours(self, *, final: bool) -> Iterator[Hour]:
        now, hour = self._clock.time(), self._hour_now()
        for name, totals in self._totals():
            # An objective that came later began with no event of its own; what experiments had touched before it came is not its own.
            before = self._before.get(name, (0, 0, totals[2]))
            counted = self._counted.setdefault(name, [0, 0, 0])
            for which in range(3):
                counted[which] += max(0, totals[which] - before[which])
            self._before[name] = totals
        if hour <= self._hour and not final:
            # A clock that was set back goes on in the hour that it had reached: an earlier one would be replaced.
            return
        for name, (good, bad, injected) in self._counted.items():
            target = float(self._slos[name].target_percentage)
            yield Hour(now, self._service, self._instance, self._run, name, target, self._hour, good, bad, injected)
        if hour > self._hour:
            self._hour, self._counted = hour, {}

    # -- what is told -----------------------------------------------------------------------------------------------------------------

    def _opened(self, event: IncidentOpened) -> None:
        self._open[event.incident] = (event.started_at, event.at)
        self._incident(event, None, None, recovered=False)

    def _mitigated(self, event: IncidentMitigated) -> None:
        if event.incident in self._open:
            self._incident(event, None, event.elapsed, recovered=False)

    def _closed(self, event: IncidentClosed) -> None:
        # It may have begun before anybody listened.
        started = event.at - event.duration
        self._open.setdefault(event.incident, (started, started + event.detected_after))
        self._incident(event, event.duration, event.mitigated_after, recovered=event.recovered)
        del self._open[event.incident]

    def _incident(
        self, event: IncidentOpened | IncidentMitigated | IncidentClosed, duration: float | None, after: float | None, *, recovered: bool
    ) -> None:
        started, detected = self._open[event.incident]
        self._waiting.append(
            JournaledIncident(
                event.at,
                self._service,
                self._instance,
                self._run,
                event.incident,
                event.guard,
                started,
                detected,
                duration,
                recovered,
                event.injected,
                slo=event.slo,
                group=event.group,
                experiment=event.experiment,
                mitigated=None if after is None else started + after,
            )
        )

    def _deployed(self, event: DeploymentMarked) -> None:
        self._waiting.append(Deployment(event.at, self._service, event.version, event.began, event.commit, event.ok))
