r"""One file of counts: what it looks like, and how it is written and read without trusting it.

A file is a line that says what it is, a header in JSON, the counts as little-endian 64-bit numbers, and a checksum of all of it::

    somaresil-slo 1\n  <length of the header: 4 bytes>  <header>  <counts>  <BLAKE2b, 16 bytes>

It is written beside its place, flushed to the disk and moved there in one step, readable by its owner alone. It is read only when it is a
plain file of this user that nobody else may write to, of a bounded size, of this version, whole, and possible: counts that are negative or
go back, slots that no ring has, are refused. Whatever is in it, the worst that happens is a ``ValueError``.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from array import array
from dataclasses import dataclass, field, fields, replace
from functools import partial
from hashlib import blake2b
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.model.ledger import EMPTY_TRACK, Ledger, Track, joined
from somaresil.model.window import SLO_TIERS
from somaresil.safefile import read_plain, replace_with

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import CellType

    from somaresil.model.ledger import Spans
    from somaresil.slo.objective import SLO

__all__ = ["APART", "LARGEST", "MAGIC", "Entry", "Sheet", "decode", "encode", "fingerprint", "read", "write"]

MAGIC: Final = b"somaresil-slo 1\n"
"""What a file begins with: what it is, and its version."""
LARGEST: Final = 128 * 1024 * 1024
"""Bytes in a file: a thousand objectives that were busy for 90 days take half of it."""

_MOST: Final = 10_000
_MOST_SPANS: Final = 512
_MOST_FOLDED: Final = 512
_LARGEST_HEADER: Final = 16 * 1024 * 1024
_DIGEST: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/{}=,-]{1,400}")
_FILE_NAME: Final = re.compile(r"slo_[0-9]{1,10}-[0-9]{1,20}\.bin")
_MOST_EVENTS: Final = 2**53
_LATEST: Final = 1e11
"""Seconds since the epoch that no clock shows: the year 5138."""


APART: Final = frozenset(
    {
        *("name", "description", "target_percentage", "error_budget_policy"),
        *("measurement_window", "calendar", "time_zone"),
        *("group_by", "max_groups", "chaos_budget_percentage"),
    }
)
"""Fields of an objective that say nothing of what is counted: how it is called, what is promised, over which time, whose share is told
apart besides."""
_DEEPEST: Final = 6


class Entry(NamedTuple):
    """What a file says of one objective."""

    indicator: str
    """What was counted: see :func:`fingerprint`."""
    ledger: Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What one process, or an archive of several, has counted."""

    service: str
    host: str
    pid: int
    started: float
    at: float
    """When it was written, in seconds since the epoch."""
    live: bool
    """Whether the process was to go on after that."""
    entries: Mapping[str, Entry]
    """By name of objective."""
    folded: tuple[str, ...] = ()
    """Of an archive: names of the files that were put into it."""
    generation: int = 0
    """Of an archive: how often something was put into it."""
    name: str = field(default="", compare=False)
    """Of the file it was read from."""


def fingerprint(slo: SLO) -> str:
    """What ``slo`` counts, as a short text: two objectives of one name may be added up when theirs are the same.

    What is in :data:`APART` is no part of it: what was good stays good when more is promised. What an objective leaves at
    its default is none either, so that a new kind of option does not make what was counted before it another thing.
    """
    said = [(each.name, value) for each in fields(slo) if each.name not in APART and (value := getattr(slo, each.name)) != each.default]
    text = repr([(name, _told(value)) for name, value in said])
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _told(value: Any, depth: int = 0) -> Any:
    """A value as every process says it, and no other value: a function by its name and by what it mentions, never by its address.

    What the code is made of differs from one Python to the next; names and constants do not.
    """
    if depth > _DEEPEST:
        return None
    if isinstance(value, partial):
        return ("partial", *(_told(each, depth + 1) for each in (value.func, value.args, sorted(value.keywords.items()))))
    if isinstance(value, tuple | list):
        return [_told(each, depth + 1) for each in value]
    if isinstance(value, CodeType):
        constants = [_told(each, depth + 1) for each in value.co_consts]
        return (value.co_name, value.co_names, value.co_varnames, value.co_freevars, sorted(map(repr, constants)))
    if isinstance(value, MethodType):
        return (type(value.__self__).__qualname__, _told(value.__func__, depth + 1))
    if isinstance(value, FunctionType):
        held = [_told(cell.cell_contents, depth + 1) for cell in value.__closure__ or () if _holds(cell)]
        return (value.__module__, value.__qualname__, _told(value.__code__, depth + 1), _told(value.__defaults__ or (), depth + 1), held)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    return getattr(value, "__qualname__", None) or type(value).__qualname__


def _holds(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


# -- bytes --------------------------------------------------------------------------------------------------------------------------------


def encode(sheet: Sheet) -> bytes:
    """As it stands in a file."""
    described: list[Any] = []
    counts: list[bytes] = []
    for name, (indicator, ledger) in sheet.entries.items():
        described.append([name, indicator, [[track.start, len(track.good)] for track in ledger.tracks], ledger.seen])
        counts += [_swapped(marks).tobytes() for track in ledger.tracks for marks in (track.good, track.bad)]
    header = {
        "service": sheet.service,
        "host": sheet.host,
        "pid": sheet.pid,
        "started": sheet.started,
        "at": sheet.at,
        "live": sheet.live,
        "folded": sheet.folded,
        "generation": sheet.generation,
        "objectives": described,
    }
    written = json.dumps(header, separators=(",", ":")).encode()
    whole = b"".join([MAGIC, struct.pack("<I", len(written)), written, *counts])
    return whole + blake2b(whole, digest_size=_DIGEST).digest()


def decode(data: bytes) -> Sheet:
    """What :func:`encode` made. Raises ``ValueError`` that says what is wrong, for any other bytes."""
    start = len(MAGIC) + 4
    if not data.startswith(MAGIC[:-2]):
        raise ValueError("no file of counts")
    if not data.startswith(MAGIC):
        raise ValueError("another version of somaresil wrote it")
    if len(data) < start + _DIGEST or blake2b(data[:-_DIGEST], digest_size=_DIGEST).digest() != data[-_DIGEST:]:
        raise ValueError("its checksum is wrong: it is damaged")
    (length,) = struct.unpack_from("<I", data, len(MAGIC))
    if length > min(_LARGEST_HEADER, len(data) - start - _DIGEST):
        raise ValueError("its header has no length that it can have")
    try:
        header = json.loads(data[start : start + length])
    except (ValueError, RecursionError) as broken:
        raise ValueError("its header is no JSON") from broken
    if not isinstance(header, dict):
        raise ValueError("its header is no object")  # noqa: TRY004 - whoever wrote it, it is the content that is wrong
    return _sheet(header, memoryview(data)[start + length : -_DIGEST])


def _sheet(header: dict[str, Any], counts: memoryview) -> Sheet:
    described = header.get("objectives")
    if not isinstance(described, list) or len(described) > _MOST:
        raise ValueError(f"objectives: expected a list of at most {_MOST}")
    entries: dict[str, Entry] = {}
    offset = 0
    for each in described:
        name, indicator, shapes, seen = each if isinstance(each, list) and len(each) == 4 else (None,) * 4  # noqa: PLR2004
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in entries or not isinstance(indicator, str):
            raise ValueError("objectives: expected a name that is there once, what is counted, slots and times")
        if not isinstance(shapes, list) or len(shapes) != len(SLO_TIERS):
            raise ValueError(f"{name}: expected {len(SLO_TIERS)} resolutions")
        tracks = []
        for tier, shape in zip(SLO_TIERS, shapes, strict=True):
            start, many = shape if isinstance(shape, list) and len(shape) == 2 else (None, None)  # noqa: PLR2004
            first = _whole(f"{name}: slot", start, int(_LATEST))
            length = 8 * _whole(f"{name}: slots", many, tier.slots)
            if offset + 2 * length > len(counts):
                raise ValueError(f"{name}: expected more counts than there are")
            track = Track(first, _counts(counts[offset : offset + length]), _counts(counts[offset + length : offset + 2 * length]))
            offset += 2 * length
            if not track.sound or max(track.totals) > _MOST_EVENTS:
                raise ValueError(f"{name}: expected counts that do not go back")
            tracks.append(track.trimmed() if track.good else EMPTY_TRACK)
        entries[name] = Entry(indicator, Ledger(tuple(tracks), _spans(name, seen)))
    if offset != len(counts):
        raise ValueError("expected no more counts than the header tells of")
    folded = header.get("folded")
    if (
        not isinstance(folded, list)
        or len(folded) > _MOST_FOLDED
        or not all(isinstance(n, str) and _FILE_NAME.fullmatch(n) for n in folded)
    ):
        raise ValueError("folded: expected names of files of counts")
    texts = {key: header.get(key) for key in ("service", "host")}
    if not all(isinstance(text, str) for text in texts.values()) or not isinstance(header.get("live"), bool):
        raise ValueError("expected a service, a host and whether it is live")
    return Sheet(
        service=str(texts["service"]),
        host=str(texts["host"]),
        pid=_whole("pid", header.get("pid"), 2**31),
        started=_time("started", header.get("started")),
        at=_time("at", header.get("at")),
        live=header["live"],
        entries=entries,
        folded=tuple(folded),
        generation=_whole("generation", header.get("generation"), 2**53),
    )


def _whole(what: str, value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{what}: expected a whole number from 0 to {most}")
    return value


def _time(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LATEST <= value <= _LATEST:
        raise ValueError(f"{what}: expected seconds since the epoch")
    return float(value)


def _spans(name: str, seen: Any) -> Spans:
    if not isinstance(seen, list) or len(seen) > _MOST_SPANS or not all(isinstance(span, list) and len(span) == 2 for span in seen):  # noqa: PLR2004
        raise ValueError(f"{name}: expected at most {_MOST_SPANS} times from and until when it was watched")
    return joined((_time(name, begin), _time(name, end)) for begin, end in seen)


def _counts(view: memoryview) -> array[int]:
    marks = array("q")
    marks.frombytes(view)
    return _swapped(marks)


def _swapped(marks: array[int]) -> array[int]:
    if sys.byteorder == "big":
        marks = marks[:]
        marks.byteswap()
    return marks


# -- files --------------------------------------------------------------------------------------------------------------------------------


def write(path: Path, sheet: Sheet) -> None:
    """Put ``sheet`` there in one step. Raises ``OSError`` when that is not possible; then what was there is there still."""
    replace_with(path, encode(sheet))


def read(path: Path) -> Sheet:
    """Read a file. Raises ``FileNotFoundError`` when there is none, ``ValueError`` or another ``OSError`` when it must not be used."""
    return replace(decode(read_plain(path, LARGEST)), name=path.name)
