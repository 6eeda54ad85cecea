"""Objectives from a file: defined once, read by the service and by the gate of its pipeline.

    resilience.slos.add(*read_slos("slo.toml").slos)

::

    [gate]                              # a DeploymentPolicy; may be left out
    minimum_remaining = 0.1

    [slos.api_availability]             # an SLO; its name is that of the table
    target_percentage = 99.9
    measurement_window = "30d"

TOML, or YAML with ``pip install "somaresil[yaml]"``. Nothing that a file names is imported or called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.settings.entries import duration_of
from somaresil.settings.files import document_of
from somaresil.slo.gate import DeploymentPolicy
from somaresil.slo.objective import SLO

if TYPE_CHECKING:
    import os

    from somaresil.settings.files import Document

__all__ = ["MINIMUM_COVERAGE", "SloFile", "read_slos"]

MINIMUM_COVERAGE: Final = 0.5
"""Of a period that much must have been seen, unless the file says otherwise: a gate asks stores that have a past."""


@dataclass(frozen=True, slots=True)
class SloFile:
    """What a file says."""

    slos: tuple[SLO, ...]
    policy: DeploymentPolicy


def read_slos(source: str | os.PathLike[str] | Mapping[str, Any]) -> SloFile:
    """Read a file by its ending, or take a mapping.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, each with its file and line.
    """
    check = Checker()
    document = document_of(source, check)
    check.finish()
    if document is None:
        raise ConfigurationError(())
    data = document.data
    _known(document, data, ("gate", "slos"), (), check)
    policy = _policy(document, data.get("gate", {}), check)
    tables = data.get("slos", {})
    slos: list[SLO] = []
    if not isinstance(tables, Mapping) or not tables:
        check.problem(
            document.where(("slos",), "slos"), tables, "a table for each objective", "one is the least: nothing can be judged by none"
        )
    else:
        slos = [slo for name, given in tables.items() if (slo := _slo(document, str(name), given, check)) is not None]
    check.finish()
    return SloFile(tuple(slos), policy)


def _policy(document: Document, given: Any, check: Checker) -> DeploymentPolicy:
    if not isinstance(given, Mapping):
        check.problem(document.where(("gate",), "gate"), given, "a table")
        return DeploymentPolicy()
    known = tuple(each.name for each in fields(DeploymentPolicy) if each.name != "on_unknown")
    if "on_unknown" in given:
        where = document.where(("gate", "on_unknown"), "gate.on_unknown")
        check.problem(where, given["on_unknown"], "nothing", "the gate tells by its exit code that nothing is known; act on that")
    _known(document, given, (*known, "on_unknown"), ("gate",), check)
    options = {name: value for name, value in given.items() if name in known}
    made = _made(document, ("gate",), DeploymentPolicy, {"minimum_coverage": MINIMUM_COVERAGE, **options}, check)
    return DeploymentPolicy() if made is None else made


def _slo(document: Document, name: str, given: Any, check: Checker) -> SLO | None:
    path = ("slos", name)
    if not isinstance(given, Mapping):
        check.problem(document.where(path, _shown(path)), given, "a table of options")
        return None
    kinds = {each.name: each for each in fields(SLO) if each.init and each.name != "name"}
    _known(document, given, tuple(kinds), path, check)
    absent = [each for each, kind in kinds.items() if kind.default is MISSING and kind.default_factory is MISSING and each not in given]
    for each in absent:
        check.problem(document.where(path, _shown((*path, each))), None, "a value: it has no default")
    options: dict[str, Any] = {}
    for option, value in given.items():
        if option in kinds:
            options[option] = _value(value, duration="timedelta" in str(kinds[option].type), length=option == "measurement_window")
    return None if absent else _made(document, path, SLO, {"name": name, **options}, check)


def _value(value: Any, *, duration: bool, length: bool) -> Any:
    if duration and isinstance(value, str) and (found := duration_of(value.strip())) is not None:
        return found
    if length and isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value) if abs(value) < 1e9 else value  # noqa: PLR2004 - what a timedelta holds, by far
    return tuple(value) if isinstance(value, list) else value


def _made(document: Document, path: tuple[str, ...], kind: Any, options: Mapping[str, Any], check: Checker) -> Any:
    try:
        return kind(**options)
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            option = problem.path.rpartition(".")[2]
            here = (*path, option)
            check.problem(document.where(here, _shown(here)), problem.value, problem.allowed, problem.hint)
    return None


def _known(document: Document, data: Mapping[Any, Any], known: tuple[str, ...], path: tuple[str, ...], check: Checker) -> None:
    for name in data:
        if name not in known:
            here = (*path, str(name))
            check.problem(document.where(here, _shown(here)), data[name], f"one of {', '.join(known)}", did_you_mean(name, known))


def _shown(path: tuple[str, ...]) -> str:
    """``slos.api.target_percentage``; a name with dots in quotes."""
    return ".".join(repr(part) if "." in part else part for part in path)
