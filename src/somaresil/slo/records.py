"""What a journal holds: hours of objectives, incidents, deployments. Reading never raises, and the order of what is read does not matter.

A line is a JSON object with ``v`` (1) and ``kind``. A line that is torn, of another version, or not of this form is counted and left out.
Two lines about the same thing are one: that which was written later stands (``at``), and of two of the same moment the larger in every
respect, so that all readers agree.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["HOUR", "Deployment", "Hour", "Journaled", "JournaledIncident", "Record", "line", "read_lines"]

HOUR: Final = 3600
_VERSION: Final = 1
_LONGEST_LINE: Final = 10_000
_LARGEST: Final = 1e15


@dataclass(frozen=True, slots=True)
class Hour:
    """What one process has counted for one objective in one hour."""

    at: float
    service: str
    instance: str
    run: str
    """The life of the process: one that is started again under the same instance adds to the hour and replaces nothing."""
    slo: str
    target: float
    """Per cent."""
    start: int
    """Seconds since the epoch, a multiple of 3600."""
    good: int
    bad: int
    injected: int
    """How many calls an experiment has touched, whether or not the objective counts them."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is about."""
        return (self.service, self.instance, self.run, self.slo, self.start)


@dataclass(frozen=True, slots=True)
class JournaledIncident:
    """An incident of a guard, or of an objective; ``duration`` (seconds) is None while it lasts."""

    at: float
    service: str
    instance: str
    run: str
    id: str
    guard: str | None
    started: float
    """The first bad event."""
    detected: float
    """When the breaker opened, or the alert fired."""
    duration: float | None
    recovered: bool
    injected: bool
    slo: str | None = None
    group: str | None = None
    experiment: str | None = None
    mitigated: float | None = None
    """Since when nobody noticed it any more, though it lasted."""

    @property
    def subject(self) -> str:
        """What it is about, in a word."""
        if self.slo is None:
            return self.guard or ""
        return self.slo if self.group is None else f"{self.slo} ({self.group})"

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is about."""
        return (self.service, self.instance, self.run, self.id)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A version that was put in service at ``began``; ``ok`` False: it is known to have failed, None: nobody has said."""

    at: float
    service: str
    version: str
    began: float
    commit: str | None
    ok: bool | None

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is about."""
        return (self.service, self.version, self.began)


Record = Hour | JournaledIncident | Deployment

_KINDS: Final[dict[str, type[Any]]] = {"hour": Hour, "incident": JournaledIncident, "deployment": Deployment}
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Journaled:
    """Everything that some journals hold together, each thing once, in an order of its own."""

    hours: tuple[Hour, ...] = ()
    incidents: tuple[JournaledIncident, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    unreadable: int = 0
    """Lines that were left out."""


def line(record: Record) -> bytes:
    """A record as one line with its end."""
    return json.dumps({"v": _VERSION, "kind": _NAMES[type(record)], **asdict(record)}, sort_keys=True).encode() + b"\n"


def read_lines(lines: Iterable[bytes]) -> Journaled:
    """Put together what stands in these lines, of one journal or of many. Never raises for what is in them."""
    known: dict[tuple[Any, ...], Any] = {}
    unreadable = 0
    for raw in lines:
        if not raw.strip():
            continue
        record = _parse(raw)
        if record is None:
            unreadable += 1
            continue
        key = (type(record).__name__, *record.key)
        known[key] = max(record, known.get(key, record), key=_rank)
    found = [known[key] for key in sorted(known)]
    return Journaled(
        tuple(each for each in found if isinstance(each, Hour)),
        tuple(each for each in found if isinstance(each, JournaledIncident)),
        tuple(each for each in found if isinstance(each, Deployment)),
        unreadable,
    )


def _rank(record: Any) -> tuple[Any, ...]:
    # None and True cannot be compared with one another; as text with a flag everything can.
    values = (getattr(record, field.name) for field in fields(record) if field.name != "at")
    return (record.at, *((value is not None, str(value)) for value in values))


def _parse(raw: bytes) -> Any:
    if len(raw) > _LONGEST_LINE:
        return None
    try:
        given = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or type(given.get("v")) is not int or given["v"] != _VERSION:
        return None
    kind = _KINDS.get(given["kind"]) if isinstance(given.get("kind"), str) else None
    if kind is None:
        return None
    values = {}
    for field in fields(kind):
        value = given.get(field.name)
        if not _FITS[str(field.type)](value):
            return None
        values[field.name] = float(value) if "float" in str(field.type) and value is not None else value
    record = kind(**values)
    return record if not isinstance(record, Hour) or (record.start % HOUR == 0 and 0 < record.target < 100) else None  # noqa: PLR2004


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and _number(value)


def _text(value: Any) -> bool:
    # A lone surrogate is text that cannot be written down.
    return isinstance(value, str) and 0 < len(value) <= 1_000 and value.isprintable()  # noqa: PLR2004


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "float": _number,
    "float | None": lambda value: value is None or _number(value),
    "int": _count,
    "str": _text,
    "str | None": lambda value: value is None or _text(value),
    "bool": lambda value: isinstance(value, bool),
    "bool | None": lambda value: value is None or isinstance(value, bool),
}
