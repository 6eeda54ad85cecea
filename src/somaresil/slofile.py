"""Objectives from a file: defined once, read by the service and by the gate of its pipeline.

    resilience.slos.add(*read_slos("slo.toml").slos)

::

    [gate]                              # a DeploymentPolicy; may be left out
    minimum_remaining = 0.1

    [slos.api_availability]             # an SLO; its name is that of the table
    target_percentage = 99.9
    measurement_window = "30d"
    error_budget_policy = { name = "fast_burn_alert", minimum_bad = 5 }     # or a name alone, or windows of one's own:
    # { name = "own", windows = [{ budget_share = 0.02, long = "1h", short = "5m", severity = "page" }] }

    [slos.orders]
    target_percentage = 99.5
    measurement_window = "30d"
    service = "shop"                    # whose it is, as the label of its rules; may be left out
    # Where Prometheus has its events, when they are not in our counter: queries, or a histogram of durations with its buckets.
    source = { bad_query = 'sum(rate(orders_total{ok="no"}[{{.window}}]))', total_query = "sum(rate(orders_total[{{.window}}]))" }

    [[actions]]                         # a BudgetAction; may be left out
    action = "stop_chaos"
    below = 0.25

    [environments.staging.slos.api_availability]    # on top of that, for read_slos(..., environment="staging")
    target_percentage = 99.0

TOML, or YAML with ``pip install "somaresil[yaml]"``; of ``pyproject.toml`` the table ``tool.somaresil``. The file may be the one that has
the settings of guards. On top of it are variables, ``SOMARESIL_SLO__API_AVAILABILITY__TARGET_PERCENTAGE=99.5``, for single values and for
objectives that the file has: the name in capitals, with one underscore for each run of anything but letters and digits. Nothing that a
file names is imported or called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.model.slo import BurnPolicy, Window
from somaresil.settings.entries import OBJECTIVES, duration_of, folded
from somaresil.settings.files import document_of
from somaresil.settings.variables import HIDDEN, OBJECTIVE
from somaresil.slo.actions import BudgetAction
from somaresil.slo.gate import DeploymentPolicy
from somaresil.slo.objective import POLICY_NAMES, SLO, policy_named
from somaresil.slo.rules.source import Histogram, Queries, source_of
from somaresil.slo.tracker import below

if TYPE_CHECKING:
    from somaresil.settings.files import Document
    from somaresil.slo.rules.source import Source

__all__ = ["MINIMUM_COVERAGE", "SloFile", "read_slos", "slos_of"]

_QUERIES: Final[dict[str, tuple[type | tuple[type, ...], str]]] = {
    "bad_query": (str, "a text"),
    "total_query": (str, "a text"),
    "rates": (bool, "true or false"),
    "good_query": (str, "a text"),
}
_HISTOGRAM: Final[dict[str, tuple[type | tuple[type, ...], str]]] = {
    "histogram": (str, "a text"),
    "buckets": (list, "a list of bounds in seconds"),
    "labels": (Mapping, "a table of labels"),
}
MINIMUM_COVERAGE: Final = 0.5
"""Of a period that much must have been seen, unless the file says otherwise: a gate asks stores that have a past."""


@dataclass(frozen=True, slots=True)
class SloFile:
    """What a file says."""

    slos: tuple[SLO, ...]
    policy: DeploymentPolicy
    actions: tuple[BudgetAction, ...] = ()
    """What to do as budgets run out: ``resilience.alerting(*read_slos(...).actions)``."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Where Prometheus has the events of objectives that are not in our counter, by name: for rules and for ``PrometheusStore``."""
    services: Mapping[str, str] = field(default_factory=dict)
    """Whose an objective is, by name, where the file says it."""
    document: Document | None = None
    """The file itself, which knows the lines of what stands in it."""


def read_slos(source: str | os.PathLike[str] | Mapping[str, Any], *, environment: str | None = None) -> SloFile:
    """Read a file by its ending, or take a mapping, with what ``environment`` and the variables of the process lay on top.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, each with its file and line.
    """
    check = Checker()
    document = document_of(source, check)
    check.finish()
    if document is None:
        raise ConfigurationError(())
    return slos_of(document, environment=environment, variables=os.environ, whole=True)


def slos_of(
    document: Document, *, environment: str | None = None, variables: Mapping[str, str] | None = None, whole: bool = False
) -> SloFile:
    """What a document says, with an overlay and ``variables`` on top; ``whole``: all parts of composites must be in it.

    Raises :class:`~somaresil.errors.ConfigurationError` as :func:`read_slos` does.
    """
    check = Checker()
    data = document.data
    _known(document, data, (*OBJECTIVES, "guards", "environments"), (), check)
    policy = _policy(document, data.get("gate", {}), check)
    tables = _laid_over(document, data.get("slos", {}), environment, variables or {}, check)
    slos: list[SLO] = []
    if not isinstance(tables, Mapping) or not tables:
        check.problem(
            document.where(("slos",), "slos"), tables, "a table for each objective", "one is the least: nothing can be judged by none"
        )
    else:
        slos = [slo for name, given in tables.items() if (slo := _slo(document, str(name), given, check)) is not None]
    sources, services = _elsewhere(document, {slo.name: slo for slo in slos}, tables, check)
    if whole:
        _check_parts(document, slos, check)
    actions = _actions(document, data.get("actions", []), [str(name) for name in tables] if isinstance(tables, Mapping) else [], check)
    check.finish()
    return SloFile(tuple(slos), policy, actions, sources, services, document)


def _elsewhere(document: Document, slos: Mapping[str, SLO], tables: Any, check: Checker) -> tuple[dict[str, Source], dict[str, str]]:
    """What a file says of objectives beside what they are."""
    sources: dict[str, Source] = {}
    services: dict[str, str] = {}
    for name, given in tables.items() if isinstance(tables, Mapping) else ():
        if not isinstance(given, Mapping):
            continue
        path = ("slos", str(name))
        if "service" in given:
            inner = Checker()
            services[str(name)] = inner.name("service", given["service"])
            _told(document, path, inner, check)
        if "source" in given and (source := _source(document, (*path, "source"), given["source"], check)) is not None:
            sources[str(name)] = source
            if (slo := slos.get(str(name))) is not None:
                inner = Checker()
                source_of(slo, source, {}).check(inner, slo)
                _told(document, path, inner, check)
    return sources, services


def _told(document: Document, path: tuple[str, ...], found: Checker, check: Checker) -> None:
    for problem in found.problems:
        here = (*path, *problem.path.replace("source.metric", "source.histogram").split("."))
        check.problem(document.where(here, _shown(here)), problem.value, problem.allowed, problem.hint)


def _source(document: Document, path: tuple[str, ...], given: Any, check: Checker) -> Source | None:
    """Queries, or a histogram."""
    before = len(check.problems)
    if not isinstance(given, Mapping):
        check.problem(document.where(path, _shown(path)), given, "a table with queries or a histogram")
        return None
    kinds: dict[str, tuple[type | tuple[type, ...], str]] = _HISTOGRAM if "histogram" in given else _QUERIES
    _known(document, given, tuple(kinds), path, check)
    for name, value in given.items():
        here = (*path, str(name))
        if name in kinds and not isinstance(value, kinds[name][0]):
            check.problem(document.where(here, _shown(here)), value, kinds[name][1])
    if "histogram" not in given:
        if len(check.problems) > before:
            return None
        return Queries(**{name: given[name] for name in _QUERIES if name in given})
    buckets, labels = given.get("buckets", []), given.get("labels", {})
    if isinstance(buckets, list):
        for number, bound in enumerate(buckets):
            inner = Checker()
            inner.number("bound", bound, minimum=0.0)
            if inner.problems:
                here = (*path, "buckets", str(number))
                check.problem(document.where(here, _shown(here)), bound, inner.problems[0].allowed)
    if isinstance(labels, Mapping) and not all(isinstance(value, str) for value in labels.values()):
        here = (*path, "labels")
        check.problem(document.where(here, _shown(here)), labels, "texts")
    return None if len(check.problems) > before else Histogram(given["histogram"], tuple(buckets), dict(labels))


def _laid_over(document: Document, tables: Any, environment: str | None, variables: Mapping[str, str], check: Checker) -> Any:
    """The tables of objectives with the overlay of the environment and the variables in them."""
    if not isinstance(tables, Mapping) or not all(isinstance(each, Mapping) for each in tables.values()):
        return tables
    whole = {str(name): dict(each) for name, each in tables.items()}
    overlays = document.data.get("environments", {})
    path = ("environments", str(environment), "slos")
    overlay = overlays.get(environment, {}) if isinstance(overlays, Mapping) and environment is not None else {}
    found = overlay.get("slos", {}) if isinstance(overlay, Mapping) else {}
    if not isinstance(found, Mapping) or not all(isinstance(each, Mapping) for each in found.values()):
        check.problem(document.where(path, _shown(path)), found, "a table for each objective")
        found = {}
    for name, options in found.items():
        if name in whole:
            whole[name] |= options
        else:
            here = (*path, str(name))
            check.problem(
                document.where(here, _shown(here)), name, f"an objective of the file ({', '.join(whole)})", did_you_mean(name, whole)
            )
    for variable in sorted(variables):
        if variable.startswith(OBJECTIVE) and variables[variable]:
            _set(variable, variables[variable].strip(), whole, check)
    return whole


def _set(variable: str, text: str, tables: dict[str, dict[str, Any]], check: Checker) -> None:
    """One value of one objective. What the variable says is not told: whatever has the wrong name may be a token."""
    name, sign, option = variable.removeprefix(OBJECTIVE).partition("__")
    meant = [each for each in tables if folded(each) == name]
    kinds = {each.name: str(each.type) for each in fields(SLO) if each.init and each.name not in {"name", "parts", "good_when"}}
    if not sign or len(meant) != 1:
        known = ", ".join(folded(each) for each in tables) or "there is none"
        check.problem(variable, HIDDEN, f"{OBJECTIVE}<NAME>__<OPTION> for one objective of the file ({known})")
    elif option.lower() not in kinds:
        check.problem(variable, HIDDEN, f"one of {', '.join(each.upper() for each in kinds)}", did_you_mean(option.lower(), kinds))
    else:
        tables[meant[0]][option.lower()] = _of_text(text, kinds[option.lower()])


def _of_text(text: str, kind: str) -> Any:
    if text.lower() == "none" and "None" in kind:
        return None
    if "bool" in kind and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text) if "int" in kind or "float" in kind or "timedelta" in kind else text
        except ValueError:
            continue
    return text


def _check_parts(document: Document, slos: list[SLO], check: Checker) -> None:
    """Parts of composites must be in the file: a gate has nobody else to ask what they are."""
    known = {slo.name: slo for slo in slos}
    for slo in slos:
        path = ("slos", slo.name, "parts")
        for part in slo.weights:
            if part not in known:
                hint = did_you_mean(part, known)
                check.problem(document.where(path, _shown(path)), part, f"objectives of this file ({', '.join(known)})", hint)
        if slo.name in below(slo, known):
            check.problem(document.where(path, _shown(path)), dict(slo.parts), "objectives of which it is no part itself")


def _actions(document: Document, given: Any, slos: list[str], check: Checker) -> tuple[BudgetAction, ...]:
    if not isinstance(given, list):
        check.problem(document.where(("actions",), "actions"), given, "a list of tables")
        return ()
    known = tuple(each.name for each in fields(BudgetAction))
    found = []
    for number, each in enumerate(given):
        path = ("actions", str(number))
        if not isinstance(each, Mapping):
            check.problem(document.where(path, _shown(path)), each, "a table")
            continue
        _known(document, each, known, path, check)
        for name in ("action", "below"):
            if name not in each:
                check.problem(document.where(path, _shown((*path, name))), None, "a value: it has no default")
        if (slo := each.get("slo")) is not None and slo not in slos:
            here = (*path, "slo")
            check.problem(document.where(here, _shown(here)), slo, "an objective of this file", did_you_mean(slo, slos))
        if "action" in each and "below" in each:
            found.append(_made(document, path, BudgetAction, {name: value for name, value in each.items() if name in known}, check))
    return tuple(each for each in found if each is not None)


def _burn_policy(document: Document, path: tuple[str, ...], given: Mapping[str, Any], check: Checker) -> BurnPolicy | None:
    """One of the policies that have a name, with guards against little traffic, or one with windows of its own."""
    _known(document, given, ("name", "windows", "minimum_bad", "confidence"), path, check)
    name, windows = given.get("name"), given.get("windows")
    options = {each: given[each] for each in ("minimum_bad", "confidence") if each in given}
    found: tuple[Window, ...] | None
    if windows is None:
        named = policy_named(name)
        if named is None:
            here = (*path, "name")
            check.problem(
                document.where(here, _shown(here)), name, "the name of a policy, or windows as well", did_you_mean(name, POLICY_NAMES)
            )
            return None
        name, found = named.name, named.windows
    else:
        found = _windows(document, (*path, "windows"), windows, check)
    if found is None:
        return None
    return _made(document, path, BurnPolicy, {"name": name, "windows": found, **options}, check)  # type: ignore[no-any-return]


def _windows(document: Document, path: tuple[str, ...], given: Any, check: Checker) -> tuple[Window, ...] | None:
    known = tuple(each.name for each in fields(Window))
    if not isinstance(given, list) or not all(isinstance(each, Mapping) for each in given):
        check.problem(document.where(path, _shown(path)), given, f"a list of tables with {', '.join(known)}")
        return None
    found = []
    for number, each in enumerate(given):
        here = (*path, str(number))
        _known(document, each, known, here, check)
        absent = [name for name in known if name not in each]
        for name in absent:
            check.problem(document.where(here, _shown((*here, name))), None, "a value: it has no default")
        options = {name: _seconds(value) if name in {"long", "short"} else value for name, value in each.items() if name in known}
        found.append(None if absent else _made(document, here, Window, options, check))
    return None if None in found else tuple(window for window in found if window is not None)


def _seconds(value: Any) -> Any:
    length = duration_of(value.strip()) if isinstance(value, str) else None
    return value if length is None else length.total_seconds()


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
    _known(document, given, (*kinds, "service", "source"), path, check)
    absent = [each for each, kind in kinds.items() if kind.default is MISSING and kind.default_factory is MISSING and each not in given]
    for each in absent:
        check.problem(document.where(path, _shown((*path, each))), None, "a value: it has no default")
    options: dict[str, Any] = {}
    for option, value in given.items():
        if option == "error_budget_policy" and isinstance(value, Mapping):
            policy = _burn_policy(document, (*path, option), value, check)
            options |= {} if policy is None else {option: policy}
        elif option in kinds:
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
            # Such as: error_budget_policy.windows[0].short, behind the name of the objective.
            option = problem.path.partition(").")[2] or problem.path.rpartition(".")[2]
            here = (*path, *option.replace("[", ".").replace("]", "").split("."))
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
