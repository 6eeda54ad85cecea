"""Objectives as tables of our own file, and the file itself as TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.model.slo import BurnPolicy
from somaresil.settings.entries import duration_of
from somaresil.slo.actions import BudgetAction
from somaresil.slo.gate import DeploymentPolicy
from somaresil.slo.objective import POLICY_NAMES, SLO, policy_named
from somaresil.slo.rules.source import Histogram, Queries
from somaresil.slo.rules.text import duration, exact_duration, number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.slo.rules.source import Source
    from somaresil.slofile import SloFile

__all__ = ["dump_toml", "table_of"]

_BARE: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_SHORT_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


def table_of(slo: SLO, source: Source | None, service: str | None, check: Checker) -> dict[str, Any]:
    """What ``[slos.<name>]`` holds for an objective: options that are not at their default, lengths in seconds.

    Functions cannot stand in a file: they are problems of ``check``.
    """
    found: dict[str, Any] = {}
    for option in fields(SLO):
        if not option.init or option.name == "name":
            continue
        value = getattr(slo, option.name)
        if option.default is not MISSING and value == option.default and type(value) is type(option.default):
            continue
        if callable(value):
            check.problem(f"slos.{slo.name}.{option.name}", value, "nothing that is code", "a file cannot hold a function")
        elif isinstance(value, timedelta):
            found[option.name] = value.total_seconds()
        elif isinstance(value, BurnPolicy):
            found[option.name] = policy_table(value)
        elif option.name == "parts":
            found[option.name] = dict(value)
        else:
            found[option.name] = value
    if service is not None:
        found["service"] = service
    if isinstance(source, Queries):
        named = {name: getattr(source, name) for name in ("bad_query", "good_query", "total_query") if getattr(source, name)}
        found["source"] = named if source.rates else {**named, "rates": False}
    elif isinstance(source, Histogram):
        labels = {"labels": dict(source.labels)} if source.labels else {}
        found["source"] = {"histogram": source.metric, "buckets": list(source.buckets), **labels}
    return found


def policy_table(policy: BurnPolicy) -> dict[str, Any]:
    """A policy as the file has it: by its name where it has one, else with its windows."""
    found: dict[str, Any]
    for name in POLICY_NAMES:
        known = policy_named(name)
        if known is not None and (known.name, known.windows) == (policy.name, policy.windows):
            found = {"name": name}
            break
    else:
        windows = [
            {"budget_share": each.budget_share, "long": each.long, "short": each.short, "severity": each.severity}
            for each in policy.windows
        ]
        found = {"name": policy.name, "windows": windows}
    if policy.minimum_bad:
        found["minimum_bad"] = policy.minimum_bad
    if policy.confidence is not None:
        found["confidence"] = policy.confidence
    return found


def dump_toml(file: SloFile) -> str:
    """The file as TOML: :func:`~somaresil.slofile.read_slos` gives the same objectives back. Decimals become floats that print alike.

    Raises :class:`~somaresil.errors.ConfigurationError` for objectives with functions in them.
    """
    check = Checker()
    tables = {slo.name: table_of(slo, file.sources.get(slo.name), file.services.get(slo.name), check) for slo in file.slos}
    check.finish()
    for table in tables.values():
        table["measurement_window"] = _length(table["measurement_window"]) if "measurement_window" in table else None
    policy = {
        each.name: getattr(file.policy, each.name)
        for each in fields(DeploymentPolicy)
        if each.name != "on_unknown" and getattr(file.policy, each.name) != _USUAL.get(each.name, each.default)
    }
    actions = [
        {each.name: value for each in fields(BudgetAction) if (value := getattr(action, each.name)) != each.default}
        for action in file.actions
    ]
    given: dict[str, Any] = {"gate": policy} if policy else {}
    return "\n".join(_table({**given, "slos": tables, **({"actions": actions} if actions else {})}, ())).strip() + "\n"


_USUAL: Final = {"minimum_coverage": 0.5}


def _length(seconds: float) -> Any:
    text = duration(seconds)
    read = duration_of(text)
    return text if exact_duration(seconds) and read is not None and read.total_seconds() == seconds else seconds


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Values first, then tables: what follows a heading belongs to it."""
    for name, value in table.items():
        if value is not None and not _apart(value):
            yield f"{_key(name)} = {_value(value)}"
    for name, value in table.items():
        here = (*path, name)
        heading = ".".join(map(_key, here))
        if isinstance(value, Mapping) and _apart(value):
            if path or not all(isinstance(each, Mapping) for each in value.values()):
                yield from ("", f"[{heading}]")
            yield from _table(value, here)
        elif isinstance(value, list) and _apart(value):
            for each in value:
                yield from ("", f"[[{heading}]]", *_table(each, here))


def _apart(value: Any) -> bool:
    """Whether it has a heading of its own."""
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value))


def _key(name: str) -> str:
    return name if name and set(name) <= _BARE else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return number(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    text = str(value)
    if "'" not in text and text.isprintable():
        return f"'{text}'" if '"' in text or "\\" in text else f'"{text}"'
    return '"' + "".join(_SHORT_ESCAPES.get(each) or (each if each.isprintable() else f"\\U{ord(each):08x}") for each in text) + '"'


def as_json(value: Any) -> str:
    """A table as JSON; decimals as texts, to be told from floats."""
    return json.dumps(value, default=str, ensure_ascii=False, allow_nan=False)
