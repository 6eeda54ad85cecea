"""The vocabulary of faults: for each kind where it can strike, which options it takes there, and which it needs.

One table, and everybody reads it: configurations, plans, the engine, the test kit, the control surfaces and the pages. A kind that is not
in it does not exist; an option that stands in it under no kind and place is looked at by nobody, so it is refused there.

Options have the names of :class:`~somaresil.chaos.plan.FaultWindow`, which is the data form of a fault everywhere; for the few that
:class:`~somaresil.chaos.config.ChaosConfig` calls otherwise see :data:`LONG_NAMES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.config import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.config import Checker

__all__ = [
    "BOUNDS",
    "FAULTS",
    "KINDS",
    "LONG_NAMES",
    "PROCESS_KINDS",
    "SHORT_NAMES",
    "TRIGGERS",
    "WHY_NOT",
    "Fault",
    "Realm",
    "Takes",
    "check_options",
    "realm_of",
]


class Realm(StrEnum):
    """Where a fault can strike; the value is what the target begins with, or a word for what has no prefix."""

    GUARD = "guards"
    """Calls of guards, by a pattern over their names."""
    STREAM = "streams of guards"
    """The same, but only of guards of generators and async generators."""
    BREAKER = "guards with a breaker"
    """The same, but only of guards that have one."""
    HTTP = "http:"
    """Requests to the ASGI middleware, by a pattern over their paths."""
    RESOURCE = "resource:"
    """A resource of the process, by its name."""
    NETWORK = "net:"
    """A part of the network: ``net:HOST`` or ``net:HOST:PORT`` with a pattern, an address or a CIDR block."""


class Takes(NamedTuple):
    """The options of a kind in one realm."""

    options: frozenset[str] = frozenset()
    """All that it looks at."""
    needs: frozenset[str] = frozenset()
    """Those without which it does nothing."""
    one_of: frozenset[str] = frozenset()
    """Of these it needs exactly one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    does: str
    """What it does, in words for the pages."""
    realms: Mapping[Realm, Takes]

    def at(self, target: str) -> Takes | None:
        """The options for a target; None: it cannot strike there."""
        return self.realms.get(realm_in(self, target))


TRIGGERS: Final = ("calls", "every", "first", "after", "ramp", "ramp_from", "where", "path", "max_injections")
"""Options that say which calls are struck, besides the rate."""

BOUNDS: Final = ("max_active_faults", "allow_overlap", "stop_when", "dry_run")
"""Options that keep an experiment in bounds: every kind takes them everywhere, so the table does not name them."""


def _takes(options: str = "", *, needs: str = "", one_of: str = "", without: str = "") -> Takes:
    """Options of a kind that strikes calls: its own, and the triggers."""
    own, needed, one = frozenset(options.split()), frozenset(needs.split()), frozenset(one_of.split())
    return Takes((own | needed | one | frozenset(TRIGGERS)) - frozenset(without.split()), needed, one)


def _request(options: str = "", *, needs: str = "", one_of: str = "") -> Takes:
    """As :func:`_takes`, for requests, which have no guards around them."""
    return _takes(options, needs=needs, one_of=one_of, without="path")


def _answers(options: str = "", *, needs: str = "") -> dict[Realm, Takes]:
    """A kind that changes answers of guards, items of streams and bodies of responses."""
    return {Realm.GUARD: _takes(options, needs=needs), Realm.HTTP: _request(options, needs=needs)}


def _streams(options: str = "", *, needs: str = "", one_of: str = "", error: str = "", http: str = "") -> dict[Realm, Takes]:
    """A kind that strikes streams of guards, and bodies of responses; ``error`` is for the first alone, ``http`` for the other."""
    return {
        Realm.STREAM: _takes(f"{options} {error}", needs=needs, one_of=one_of),
        Realm.HTTP: _request(f"{options} {http}", needs=needs, one_of=one_of),
    }


FAULTS: Final[Mapping[str, Fault]] = {
    "latency": Fault(
        "delays a struck call by `delay`",
        {Realm.GUARD: _takes(needs="delay"), Realm.HTTP: _request(needs="delay")},
    ),
    "error": Fault(
        "raises `error`, on `http:` answers with `status`; after `delay`, if given",
        {Realm.GUARD: _takes("delay error"), Realm.HTTP: _request("delay status")},
    ),
    "http_status": Fault(
        "answers with `status`, after `delay`; a guard of no HTTP client raises an `InjectedAnswer` that has it",
        {Realm.GUARD: _takes("delay status"), Realm.HTTP: _request("delay status")},
    ),
    "rate_limit": Fault(
        "answers 429 with `Retry-After: retry_after`; other guards raise `error`, which is given that `retry_after`",
        {Realm.GUARD: _takes("retry_after error"), Realm.HTTP: _request("retry_after")},
    ),
    "circuit_trip": Fault(
        "opens the breakers that are closed for the time of the lease, whatever the rate; then they are probed as usual",
        {Realm.BREAKER: Takes()},
    ),
    "lost_reply": Fault(
        "lets the callee act and drops its answer: after `delay` the caller gets `error`",
        {Realm.GUARD: _takes("delay error")},
    ),
    "fake_result": Fault(
        "answers with `result` in place of the callee, which is not called",
        {Realm.GUARD: _takes("result")},
    ),
    "corrupt_result": Fault(
        "lets the callee act and damages its answer, or each item of a stream, in the way of `corrupt`",
        _answers("corrupt"),
    ),
    "stale_result": Fault(
        "gives the answer to the first struck call with the same arguments to the later ones as well",
        {Realm.GUARD: _takes()},
    ),
    "stream_slow_start": Fault(
        "holds the first item of a stream back for `delay`",
        _streams(needs="delay"),
    ),
    "stream_stall": Fault(
        "stops a stream for `delay` after `after_items` items",
        _streams("after_items", needs="delay"),
    ),
    "stream_drip": Fault(
        "waits `delay` between the items of a stream; on `http:` between pieces of `chunk_bytes`",
        _streams(needs="delay", http="chunk_bytes"),
    ),
    "stream_throttle": Fault(
        "lets only so many bytes or items a second through",
        _streams(one_of="bytes_per_second items_per_second"),
    ),
    "stream_cut": Fault(
        "breaks a stream off with `error` after `after_items` items; a response after so many chunks, a websocket after so many messages",
        _streams("after_items", error="error", http="reset"),
    ),
    "stream_tear": Fault(
        "gives half of the item that comes after `after_items`, and breaks off there",
        _streams("after_items", error="error", http="reset"),
    ),
    "stream_truncate": Fault(
        "ends a stream after `after_items` items, cleanly, as if that had been all",
        _streams("after_items"),
    ),
    "stream_unfinished": Fault(
        "takes the finish reason out of the answer of a model: a stream ends as if cut, and nothing says so",
        _answers(),
    ),
    "context_length": Fault(
        "refuses as models do when a prompt is too long: status 400, `context_length_exceeded`; other guards raise `error`",
        {Realm.GUARD: _takes("error"), Realm.HTTP: _request()},
    ),
    "malformed_tool_call": Fault(
        "breaks off the JSON of the arguments of tool calls in the answer of a model",
        _answers(),
    ),
    "empty_answer": Fault(
        "leaves the text of a model's answer empty",
        _answers(),
    ),
    "repeated_tokens": Fault(
        "has a model say its last word over and over",
        _answers(),
    ),
    "wrong_model": Fault(
        "has an answer say that another model gave it",
        _answers(),
    ),
    "resource_exhaust": Fault(
        "takes `amount` of a resource of the process for the time of the lease",
        {Realm.RESOURCE: Takes(frozenset({"amount"}))},
    ),
    "network_partition": Fault(
        "cuts a part of the network off, as `mode` says, or loses the share `loss` of what goes there",
        {Realm.NETWORK: Takes(frozenset({"mode", "loss"}))},
    ),
}
"""Every kind of fault, by its name in plans."""

_IN_PROCESS: Final = frozenset({Realm.RESOURCE, Realm.NETWORK})

PROCESS_KINDS: Final = tuple(kind for kind, fault in FAULTS.items() if fault.realms.keys() & _IN_PROCESS)
"""Kinds that live in the process and not in its calls."""

KINDS: Final = tuple(kind for kind in FAULTS if kind not in PROCESS_KINDS)
"""Kinds that strike calls."""

LONG_NAMES: Final[Mapping[str, str]] = {
    "kind": "experiment",
    "target": "target_component",
    "rate": "failure_rate",
    "duration": "duration_seconds",
    "delay": "delay_seconds",
    "ramp": "ramp_seconds",
}
"""What :class:`~somaresil.chaos.config.ChaosConfig` calls an option, where it is not the same."""

SHORT_NAMES: Final[Mapping[str, str]] = {long: short for short, long in LONG_NAMES.items()}
"""The other way round."""

_REASONS: Final = {
    Realm.STREAM: "it guards no generator, so there are no items",
    Realm.BREAKER: "it has no breaker",
}

WHY_NOT: Final[Mapping[str, str]] = {
    kind: reason for kind, fault in FAULTS.items() for realm, reason in _REASONS.items() if realm in fault.realms
}
"""Kinds of faults that not every guard can have, and why not."""

_OPTIONS: Final = tuple(sorted({option for fault in FAULTS.values() for takes in fault.realms.values() for option in takes.options}))

_TO_AIM_AT: Final = {Realm.GUARD: "a guard", Realm.STREAM: "a guard of a generator", Realm.BREAKER: "a guard with a breaker"}

_HARMLESS: Final = frozenset({"status", "after_items"})
"""Plans that were written before there was a table have these beside kinds that do not look at them."""

_HINTS: Final = {
    ("circuit_trip", Realm.HTTP): "routes have no breaker",
    ("delay", "circuit_trip"): "start a latency experiment beside it",
    ("path", Realm.HTTP): "requests have no guards around them",
    ("error", Realm.HTTP): "requests are answered with status=",
}


def short_path(path: str) -> str:
    """The path of a problem in a configuration, by the short name of its option."""
    name = re.match(r"\w*", path)
    long = name[0] if name else ""
    return SHORT_NAMES.get(long, long) + path[len(long) :]


def realm_of(target: str) -> Realm:
    """Where a target is: a prefix says so, and what has none is a guard."""
    for realm in (Realm.HTTP, Realm.RESOURCE, Realm.NETWORK):
        if target.startswith(realm.value):
            return realm
    return Realm.GUARD


def realm_in(fault: Fault, target: str) -> Realm:
    """The same, as this kind sees guards: as streams, or as breakers."""
    realm = realm_of(target)
    if realm is Realm.GUARD:
        return next((kind for kind in (Realm.GUARD, Realm.STREAM, Realm.BREAKER) if kind in fault.realms), realm)
    return realm


def kinds_at(realm: Realm) -> tuple[str, ...]:
    """Kinds that can strike there."""
    wanted = {Realm.GUARD, Realm.STREAM, Realm.BREAKER} if realm is Realm.GUARD else {realm}
    return tuple(kind for kind, fault in FAULTS.items() if fault.realms.keys() & wanted)


def check_options(check: Checker, kind: str, target: str, given: Mapping[str, Any], usual: Mapping[str, Any], *, long: bool = True) -> None:
    """Note what does not go together: a place where the kind cannot strike, options that are not looked at, and options that are missing.

    ``given`` are options by their short names, ``usual`` their defaults, and ``long`` says whether problems use the long names.
    """
    fault, realm = FAULTS[kind], realm_of(target)
    names = LONG_NAMES if long else {}
    takes = fault.at(target)
    if takes is None:
        at = "guards" if realm is Realm.GUARD else realm.value
        hint = _HINTS.get((kind, realm)) or "aim at " + " or ".join(_TO_AIM_AT.get(other, other.value) for other in fault.realms)
        if realm in _IN_PROCESS or kind in PROCESS_KINDS:
            check.problem(names.get("target", "target"), target, f"a target of {kind}", hint)
        else:
            check.problem(names.get("kind", "kind"), kind, f"{', '.join(kinds_at(realm)) or 'nothing'} on {at}", hint)
        return
    said = {option for option in _OPTIONS if not _is_usual(given.get(option), usual.get(option))}
    if takes.one_of and len(takes.one_of & said) != 1:
        one = min(takes.one_of)
        check.problem(names.get(one, one), given.get(one), f"a value for one of {', '.join(sorted(takes.one_of))}", "it needs exactly one")
    for option in _OPTIONS:
        value, default = given.get(option), usual.get(option)
        if option in takes.needs and option not in said:
            check.problem(names.get(option, option), value, f"a value for {kind}", "it does nothing without it")
        elif option in said - takes.options - _HARMLESS:
            hint = _HINTS.get((option, kind)) or _HINTS.get((option, realm)) or _other(option, kind, realm)
            allowed = f"{default!r} for {kind}{f' on {realm.value}' if realm is not Realm.GUARD else ''}"
            check.problem(names.get(option, option), value, allowed, hint)


def _is_usual(value: object, default: object) -> bool:
    # What has no default may be anything, and compare as it likes.
    return value is None if default is None else bool(value == default)


def _other(option: str, kind: str, realm: Realm) -> str:
    """Who looks at an option that this kind does not look at."""
    takers = [other for other in kinds_at(realm) if any(option in takes.options for takes in FAULTS[other].realms.values())]
    near = did_you_mean(kind, takers)
    return near or (f"it is for {', '.join(takers)}" if takers else "nothing looks at it there")
