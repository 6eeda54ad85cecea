"""What a pod tells of itself: the events of its objectives, as counters at moments that all pods have in common.

    teller = EvidenceTeller(resilience, bad="availability", role="candidate", checksum=os.environ["POD_TEMPLATE_HASH"])
    teller.start()
    app.mount("/evidence", evidence_app(teller, auth=BearerToken(os.environ["EVIDENCE_TOKEN"])))

Counters of two pods say something beside each other only when they are of the same time: in an outage of a second that strikes all of them
the bad events of one side would otherwise stand beside the good ones of the other, and be taken for proof. So each pod notes its counters
at multiples of ``every`` seconds of the wall clock, the *marks*, and tells the last of them; whoever asks later loses nothing.

A telling is JSON:

==============  ==================================================================================================================
``form``        1
``pod``         its name, for people
``instance``    a process: another one begins to count anew. So does one whose wall clock was set back.
``role``        ``candidate`` or ``control``; empty: whoever asks knows
``version``     for people
``checksum``    of the code or of the pod's template; empty: whoever asks knows
``time``        its wall clock, seconds since the epoch
``age``         seconds for which it has counted; null: not known
``every``       seconds from mark to mark
``marks``       ``[{"at": seconds since the epoch, "counts": {objective: [good, bad]}}]``, the oldest first
==============  ==================================================================================================================
"""

from __future__ import annotations

import math
import secrets
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from somaresil.config import Checker
from somaresil.patrol import Patrol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from somaresil.resilience import Resilience

__all__ = ["EVERY", "MOST_MARKS", "EvidenceTeller", "Mark", "Telling", "read_telling"]

EVERY: Final = 10.0
"""Seconds from mark to mark."""
MOST_MARKS: Final = 32
"""Marks that a pod tells: whoever did not ask for five minutes can catch up."""
_FORM: Final = 1
_HIGHEST: Final = 2**53
"""Counts beyond this are no counts any more: JSON parsers read them as they like."""
_LONGEST: Final = 120
_MOST_LABELS: Final = 16
_LATE: Final = 0.1
"""Share of ``every`` that a mark may be late; it would be of another time."""
_ROLES: Final = ("candidate", "control", "")

Role = Literal["candidate", "control", ""]
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """Counters at one moment."""

    at: float
    """Seconds since the epoch, a multiple of ``every``."""
    counts: Mapping[str, Pair]
    """Good and bad events since the process began, by objective."""


@dataclass(frozen=True, slots=True)
class Telling:
    """What one process has told, checked."""

    pod: str
    instance: str
    role: str
    version: str
    checksum: str
    time: float
    age: float | None
    every: float
    marks: tuple[Mark, ...]


class EvidenceTeller:
    """Counts for whoever judges a canary. It has a daemon thread once it is started, which wakes at each mark.

    ``bad``: the objectives whose events are told; of experiments nothing is. ``pod`` is the name of the pod (default: the instance of
    ``resilience``). ``to`` are functions that get each telling as a dict, in the thread: one that pushes it, one that puts it into Redis.
    One that raises is reported, and called again at the next mark.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        resilience: Resilience,
        *,
        bad: str | Sequence[str],
        role: Role = "",
        version: str = "",
        checksum: str = "",
        pod: str | None = None,
        every: float = EVERY,
        to: Sequence[Callable[[dict[str, Any]], object]] = (),
    ) -> None:
        """Nothing is started. Events are counted from here on."""
        check = Checker("EvidenceTeller")
        self.bad = (bad,) if isinstance(bad, str) else tuple(bad)
        check_labels(check, self.bad)
        for name in self.bad:
            if name not in resilience.slos.names:
                check.problem("bad", name, f"an objective that was added ({', '.join(resilience.slos.names) or 'none is'})")
        check.one_of("role", role, _ROLES)
        for name, value in (("version", version), ("checksum", checksum), ("pod", resilience.instance if pod is None else pod)):
            if not _is_text(value):
                check.problem(name, value, f"at most {_LONGEST} printable characters")
        self.every = check_every(check, every)
        if not all(callable(each) for each in to):
            check.problem("to", to, "functions of a telling")
        check.finish()
        self.role, self.version, self.checksum = role, version, checksum
        self.pod = resilience.instance if pod is None else pod
        self._resilience = resilience
        self._clock = resilience.clock
        self._to = tuple(to)
        self._stopped = True
        self._lock = threading.RLock()
        self._begin()
        self._patrol = Patrol("somaresil-evidence", self._round, self._until_next, resilience.listeners, in_fork=self._after_fork)

    def _begin(self) -> None:
        """Count as a process that nobody has heard of."""
        self._marks: deque[Mark] = deque(maxlen=MOST_MARKS)
        self.instance = secrets.token_hex(8)
        self._since = self._clock.monotonic()
        self._base = self._totals()

    def _after_fork(self) -> None:
        """The lock may be held by nobody, and the counters were the parent's."""
        self._lock = threading.RLock()
        self._begin()

    def _totals(self) -> dict[str, Pair]:
        return {name: self._resilience.slos.totals(name, injected=False) for name in self.bad}

    def start(self) -> None:
        """Note marks from now on."""
        self._stopped = False
        self._patrol.wake()

    def stop(self) -> None:
        """Note none any more; what was noted is still told."""
        self._stopped = True
        self._patrol.wake()

    def mark(self) -> bool:
        """Note the counters for the mark that is due now; whether one was. The thread does this.

        One that is late is left out. When the wall clock has gone back the process counts as another one.
        """
        now = self._clock.time()
        due = math.floor(now / self.every) * self.every
        with self._lock:
            if self._marks and due < self._marks[-1].at:
                self._begin()
            if (self._marks and due == self._marks[-1].at) or now - due > self.every * _LATE:
                return False
            totals = self._totals()
            counts = {name: (max(0, good - self._base[name][0]), max(0, bad - self._base[name][1])) for name, (good, bad) in totals.items()}
            self._marks.append(Mark(due, counts))
            return True

    def tell(self) -> dict[str, Any]:
        """What there is to tell now, as JSON takes it."""
        with self._lock:
            return {
                "form": _FORM,
                "pod": self.pod,
                "instance": self.instance,
                "role": self.role,
                "version": self.version,
                "checksum": self.checksum,
                "time": self._clock.time(),
                "age": max(0.0, self._clock.monotonic() - self._since),
                "every": self.every,
                "marks": [{"at": mark.at, "counts": {name: list(pair) for name, pair in mark.counts.items()}} for mark in self._marks],
            }

    def _round(self) -> bool:
        if self._stopped:
            return False
        if self.mark() and self._to:
            told = self.tell()
            for each in self._to:
                try:
                    each(told)
                except Exception as broken:  # noqa: BLE001 - whoever listens may be away
                    self._resilience.listeners.defect("telling evidence", broken, self._clock.time(), "it is told again at the next mark")
        return True

    def _until_next(self) -> float:
        return self.every - self._clock.time() % self.every


def check_labels(check: Checker, labels: tuple[object, ...]) -> None:
    """Note what is wrong with the names of objectives."""
    if not 0 < len(labels) <= _MOST_LABELS or not all(isinstance(name, str) and name for name in labels):
        check.problem("bad", labels, f"the name of an objective, or 1 to {_MOST_LABELS} of them")


def check_every(check: Checker, every: object) -> float:
    """Seconds from mark to mark: whole ones, so that everybody comes to the same moments."""
    seconds = check.number("every", every, minimum=1.0, maximum=300.0)
    if seconds == every and seconds % 1.0:
        check.problem("every", every, "whole seconds")
    return max(1.0, float(int(seconds)))


def read_telling(data: object) -> Telling:
    """Check what a pod has told. Raises :class:`~somaresil.errors.ConfigurationError` with everything that is wrong with it.

    Counters that go down from one mark to the next are wrong, too: nobody knows what they count.
    """
    check = Checker("evidence")
    said: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    if not isinstance(data, Mapping) or said.get("form") != _FORM:
        check.problem("form", said.get("form"), f"{_FORM}", "it is from another version of somaresil, or no evidence")
        check.finish()
    for name in ("pod", "instance", "version", "checksum"):
        value = said.get(name, "")
        if not _is_text(value) or (name in {"pod", "instance"} and not value):
            check.problem(name, value, f"at most {_LONGEST} printable characters")
    check.one_of("role", said.get("role", ""), _ROLES)
    time = check.number("time", said.get("time"), minimum=0.0, maximum=1e11)
    every = check_every(check, said.get("every"))
    age = None if said.get("age") is None else check.number("age", said["age"], minimum=0.0, maximum=1e11)
    listed = said.get("marks")
    marks: list[Mark] = []
    if not isinstance(listed, list) or len(listed) > MOST_MARKS:
        check.problem("marks", type(listed).__name__, f"a list of at most {MOST_MARKS}")
    else:
        for place, each in enumerate(listed):
            mark = _mark(check.child(f"marks[{place}]"), each, every)
            if mark is not None and marks and not follows(marks[-1], mark):
                check.problem(f"marks[{place}]", mark.at, "later than the one before, and counting on from there")
            elif mark is not None:
                marks.append(mark)
    check.finish()
    return Telling(
        pod=str(said.get("pod")),
        instance=str(said.get("instance")),
        role=str(said.get("role", "")),
        version=str(said.get("version", "")),
        checksum=str(said.get("checksum", "")),
        time=time,
        age=age,
        every=every,
        marks=tuple(marks),
    )


def follows(before: Mark, after: Mark) -> bool:
    """Whether ``after`` can be what became of ``before``."""
    return after.at > before.at and all(
        good <= after.counts.get(name, (-1, -1))[0] and bad <= after.counts.get(name, (-1, -1))[1]
        for name, (good, bad) in before.counts.items()
    )


def _mark(check: Checker, said: object, every: float) -> Mark | None:
    if not isinstance(said, Mapping) or not isinstance(said.get("counts"), Mapping) or len(said["counts"]) > _MOST_LABELS:
        check.problem("", type(said).__name__, 'an object with "at" and "counts"')
        return None
    before = len(check.problems)
    at = check.number("at", said.get("at"), minimum=0.0, maximum=1e11)
    if at % every:
        check.problem("at", at, f"a multiple of {every:g}")
    counts: dict[str, Pair] = {}
    for name, pair in said["counts"].items():
        if not _is_text(name) or not isinstance(pair, list | tuple) or len(pair) != 2 or not all(_is_count(count) for count in pair):  # noqa: PLR2004
            check.problem("counts", name, "good and bad events, whole numbers from 0 to 2**53")
        else:
            counts[str(name)] = (pair[0], pair[1])
    return None if len(check.problems) > before else Mark(at, counts)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _HIGHEST


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and (not value or value.isprintable())
