"""What comes from another process is looked at before it is added up: of the right form, finite, bounded, or refused with a word why.

What is not known here is dropped, so that a newer version may say more. Nothing of it is trusted beyond that: names and texts are shown as
text, and numbers only change numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from somaresil.dashboard.columns import unpacked
from somaresil.dashboard.history import COLUMNS, HEAD
from somaresil.dashboard.picture import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[Any], Any]

__all__ = ["MOST_NAMES", "Strange", "answered", "columns", "details", "events", "extras", "portrait"]

_T = TypeVar("_T")

MOST_NAMES: Final = 10_000
"""Guards, routes, or whatever else has names."""
_LONGEST: Final = 300
_MOST_BOUNDS: Final = 100
_LARGEST: Final = 2**53
_MOST: Final = 2_000


class Strange(ValueError):
    """It is not what another process of ours would say. Its text is for people."""


def text(value: Any) -> str:
    """A text, cut to 300 characters; lone surrogates, which no JSON in UTF-8 has room for, are replaced."""
    if type(value) is not str:
        raise Strange("expected a text")
    cut = str(value[:_LONGEST])
    return cut if cut.isascii() else cut.encode("utf-8", "replace").decode("utf-8")


def number(value: Any) -> float:
    """A finite number >= 0."""
    if (type(value) is float or type(value) is int) and 0 <= value <= _LARGEST:
        return float(value)
    raise Strange("expected a number >= 0")


def signed(value: Any) -> float:
    """A finite number."""
    if (type(value) is float or type(value) is int) and -_LARGEST <= value <= _LARGEST:
        return float(value)
    raise Strange("expected a number")


def count(value: Any) -> int:
    """A whole number >= 0."""
    if type(value) is int and 0 <= value <= _LARGEST:
        return value
    raise Strange("expected a count")


def flag(value: Any) -> bool:
    """True or False."""
    if type(value) is bool:
        return value
    raise Strange("expected true or false")


def scalar(value: Any) -> Any:
    """A fact of an event."""
    return value if type(value) is bool else text(value) if type(value) is str else signed(value)


def maybe(check: Check) -> Check:
    """None, or what ``check`` takes."""
    return lambda value: None if value is None else check(value)


def word(*known: str) -> Check:
    """One of these."""

    def look(value: Any) -> str:
        if type(value) is str and value in known:
            return value
        raise Strange(f"expected {', '.join(known)}")

    return look


def listing(check: Check, most: int = _MOST) -> Check:
    """A list."""

    def look(value: Any) -> list[Any]:
        if type(value) is not list or len(value) > most:
            raise Strange(f"expected a list of at most {most}")
        return _each(enumerate(value), check, list)

    return look


def mapping(check: Check, most: int = _MOST) -> Check:
    """An object whose names are anything."""

    def look(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > most:
            raise Strange(f"expected an object of at most {most} names")
        return dict(zip(map(text, value), _each(value.items(), check, list), strict=True))

    return look


def record(**fields: Check) -> Check:
    """An object with these names at least; others are dropped."""
    checks = tuple(fields.items())

    def look(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Strange("expected an object")
        try:
            return {name: check(value[name]) for name, check in checks}
        except KeyError as absent:
            raise Strange(f"{absent.args[0]}: it is not there") from None
        except Strange:
            return _each(((name, value[name]) for name, _ in checks), fields, dict)

    return look


def _each(items: Any, check: Any, make: Callable[[Any], _T]) -> _T:
    """Every item checked; what is wrong is said with the path to it."""
    found = []
    for name, item in items:
        try:
            found.append((name, check[name](item)) if isinstance(check, dict) else check(item))
        except Strange as wrong:
            shown = str(name)[:40]
            raise Strange(f"{shown if shown.isprintable() else ascii(shown)}: {wrong}") from None
    return make(found)


def _bounds(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_BOUNDS:
        raise Strange("bounds: expected a list")
    try:
        return _ascending(tuple(value))
    except TypeError:
        raise Strange("bounds: expected numbers") from None


@lru_cache(maxsize=1_000)
def _ascending(value: tuple[Any, ...]) -> tuple[float, ...]:
    """Those of a thousand guards are the same."""
    bounds = tuple(map(number, value))
    if any(low >= high for low, high in zip((0.0, *bounds), bounds, strict=False)):
        raise Strange("bounds: expected them to ascend")
    return bounds


def _numbers(value: Any) -> list[int]:
    """Counts, in a list that is not empty."""
    if type(value) is not list or len(value) > _MOST_BOUNDS + 2 * HEAD or {*map(type, value)} != {int}:
        raise Strange("expected a list of counts")
    if min(value) < 0 or max(value) > _LARGEST:
        raise Strange("expected counts")
    return value


def _counted(value: dict[str, Any]) -> dict[str, Any]:
    recent = None if value["recent"] is None else _numbers(value["recent"])
    bounds, totals = _bounds(value["bounds"]), _numbers(value["totals"])
    if len(totals) != HEAD or (recent is not None and len(recent) != HEAD + len(bounds) + 1):
        raise Strange("expected a count for each outcome and bucket")
    return {"bounds": bounds, "totals": totals, "recent": recent}


def _with_counts(check: Check) -> Check:
    def look(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not value.keys() >= {"bounds", "totals", "recent"}:
            raise Strange("expected bounds, totals and recent counts")
        return {**_counted(value), **check(value)}

    return look


_route = _with_counts(record())
_guard = _with_counts(
    record(
        pipeline=listing(text, 30),
        worst_case=maybe(number),
        states=mapping(count, 20),
        held_by=listing(text, 50),
        keys=maybe(mapping(count, 20)),
        throttled=maybe(number),
        budget_scale=maybe(number),
    )
)
_source = record(
    name=text,
    kind=word("self", "worker", "peer"),
    state=word("live", "stale", "missing"),
    at=maybe(number),
    why=text,
    process=maybe(count),
    address=text,
)


def _triple(value: Any) -> list[int]:
    found = _numbers(value)
    if len(found) != 3:  # noqa: PLR2004 - a moment, good and bad
        raise Strange("expected three numbers")
    return found


def _pair(value: Any) -> list[int]:
    found = _numbers(value)
    if len(found) != 2:  # noqa: PLR2004 - good and bad
        raise Strange("expected two counts")
    return found


def _share(value: Any) -> float:
    found = number(value)
    if found > 1.0:
        raise Strange("expected a share")
    return found


_objective = record(
    target=_share,
    period=number,
    length=number,
    kind=text,
    policy=text,
    description=text,
    weights=mapping(number, 1_000),
    blocks=flag,
    alerts=listing(record(severity=text, since=number, group=maybe(text)), 1_000),
    counted=mapping(
        record(at=number, events=_pair, counts=_pair, coverage=_share, windows=mapping(_pair, 20), points=listing(_triple, 200)), 500
    ),
)
_incident = record(
    id=text,
    source=text,
    subject=text,
    group=maybe(text),
    kind=word("guard", "objective"),
    began=number,
    ended=maybe(number),
    recovered=maybe(flag),
    injected=flag,
    experiment=maybe(text),
    detected_after=maybe(number),
    mitigated_after=maybe(number),
)
_experiment = record(
    id=text,
    kind=text,
    target=text,
    rate=number,
    duration=number,
    state=word("scheduled", "running", "ended"),
    starts_at=number,
    remaining=number,
    end_reason=maybe(text),
    injected=count,
    absorbed=maybe(count),
    struck=mapping(count),
    by=maybe(text),
    sources=listing(text),
)


def _curve(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = record(at=listing(number), log10=mapping(listing(maybe(signed)), 10))(value)
    if any(len(values) != len(found["at"]) for values in found["log10"].values()):
        raise Strange("expected a value for each moment")
    return found


_canary = record(
    version=maybe(text),
    phase=text,
    weight=number,
    outcome=maybe(text),
    reason=text,
    paused=flag,
    began=maybe(number),
    leads=flag,
    verdict=text,
    control_bad=count,
    control_events=count,
    missing=listing(text),
    trouble=text,
    evidence=listing(record(slo=text, against=text, e_value=maybe(number), threshold=number, bad=count, events=count), 20),
    evidence_series=_curve,
    at=number,
    source=text,
)
_endpoint = record(states=mapping(count, 10), details=mapping(count, 20), weight=number)


def _track(value: Any) -> dict[str, Any]:
    said = record(bounds=_bounds, rows=_as_it_is)(value)
    rows = said["rows"]
    if type(rows) is not str:
        raise Strange("rows: expected a text")
    try:
        return {"bounds": said["bounds"], "rows": unpacked(rows, HEAD + len(said["bounds"]) + 1)}
    except ValueError:
        raise Strange("rows: expected a number for each column and bucket") from None


def _as_it_is(value: Any) -> Any:
    return value


def columns(value: Any) -> dict[str, Any]:
    """Columns of another process, for :func:`~somaresil.dashboard.columns.merged`. Raises :class:`Strange`."""
    found: dict[str, Any] = record(index=count, known=listing(count, COLUMNS), tracks=mapping(_track, 1_000))(value)
    if len(found["known"]) != COLUMNS or max(found["known"]) > 1:
        raise Strange(f"known: expected {COLUMNS} zeros and ones")
    return found


_portrait = record(
    service=text,
    environment=maybe(text),
    at=number,
    since=number,
    index=count,
    sources=mapping(_source, 500),
    guards=mapping(_guard, MOST_NAMES),
    routes=mapping(_route, MOST_NAMES),
    objectives=mapping(_objective, _MOST),
    incidents=listing(_incident, 1_000),
    experiments=mapping(_experiment, 1_000),
    chaos=maybe(record(allowed=flag, problems=listing(text, 100), engaged=maybe(text))),
    canaries=mapping(_canary, 500),
    pools=mapping(mapping(_endpoint, 1_000), 1_000),
    limit=maybe(record(limit=count, active=count, waiting=count)),
    columns=maybe(columns),
)


def portrait(value: Any) -> dict[str, Any]:
    """The portrait of another process, with nothing in it that could not be added up. Raises :class:`Strange`."""
    if not isinstance(value, dict) or value.get("form") != "portrait":
        raise Strange("it says something else than what it looks like")
    spoken = value.get("version")
    if spoken != VERSION or type(spoken) is not int:
        shown = spoken if type(spoken) is int and 0 <= spoken < _MOST else "none"
        raise Strange(f"it speaks another version ({shown}, not {VERSION})")
    found: dict[str, Any] = _portrait(value)
    if not found["sources"]:
        raise Strange("sources: expected one at least")
    if found["at"] < found["since"]:
        raise Strange("since: expected it not to be later than at")
    return {"version": VERSION, "form": "portrait", **found}


_event = record(id=count, source=text, at=signed, kind=text, level=text, about=text, text=text, facts=mapping(scalar, 50))
_events = record(events=listing(_event, 4_000), upto=count, lost=count, thinned=count)


def events(value: Any) -> dict[str, Any]:
    """Events of another process. Raises :class:`Strange`."""
    found: dict[str, Any] = _events(value)
    return found


_details = record(
    guard=_guard,
    options=listing(text, 100),
    stages=listing(record(name=text, says=text, shadow=flag, worst_case=maybe(number)), 50),
    changed=listing(text, 200),
    findings=listing(text, 200),
    timeline=listing(record(at=number, source=text, before=text, after=text, cause=text, key=maybe(text), shadow=flag, injected=flag)),
    tally=maybe(record(calls=count, failures=count, slow=count)),
    rejections=mapping(count, 300),
    columns=columns,
)


def details(value: Any) -> dict[str, Any]:
    """What another process says of one guard. Raises :class:`Strange`."""
    found: dict[str, Any] = _details(value)
    return found


_extras = record(guards=listing(text, MOST_NAMES), requests=flag, groups=listing(text, 2_000))


def extras(value: Any) -> dict[str, Any]:
    """What another process says of one objective. Raises :class:`Strange`."""
    found: dict[str, Any] = _extras(value)
    return found


def answered(value: Any) -> dict[str, Any]:
    """What another process says of a command. Raises :class:`Strange`."""
    if not isinstance(value, dict):
        raise Strange("expected an object")
    return {text(name): each if type(each) is bool or each is None else text(str(each)) for name, each in list(value.items())[:50]}
