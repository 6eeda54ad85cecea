"""The exchange itself. See :mod:`somaresil.toolkit`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.gameday import Experiment, GameDay, Probe
from somaresil.gameday.day import VERSION
from somaresil.integrations import chaostoolkit as toolkit

__all__ = ["ToolkitGameDay", "from_toolkit", "to_toolkit"]

EXTENSION: Final = "somaresil-gameday"
_FUNCTIONS: Final = {"budget": "budget_left", "burn_rate": "burn_rate"}
_KINDS: Final = {func: kind for kind, func in _FUNCTIONS.items()}
_FAR: Final = 1e15
"""What stands for no limit in a range of the toolkit, which needs both ends."""
_MOST: Final = 100


class ToolkitGameDay(NamedTuple):
    """A game day for the toolkit."""

    experiments: tuple[dict[str, Any], ...]
    """One for each experiment, in their order: ``chaos run`` plays them one after the other."""
    omitted: tuple[str, ...]
    """What the toolkit will not do, by its path in the game day."""


def to_toolkit(gameday: GameDay, *, service: str = "", omit: bool = False) -> ToolkitGameDay:
    """The experiments of a game day, for ``chaos run``.

    The hypothesis is looked at before and after, the faults start as one plan after the baseline and are given until the end of
    ``observe``; then every circuit must serve again. ``service`` as in
    :func:`~somaresil.integrations.chaostoolkit.to_chaostoolkit`.

    What the toolkit cannot play (probes of calls, queries and functions, abort conditions, gates, groups, several targets) raises
    :class:`~somaresil.errors.ConfigurationError` with the path of everything, unless ``omit`` says that it may be left out.
    """
    check = Checker("gameday")
    check.type("gameday", gameday, GameDay, "a GameDay")
    check.type("omit", omit, bool, "True or False")
    check.finish()
    data = gameday.as_dict()
    made = [_exported(check, number, data, experiment, service) for number, experiment in enumerate(gameday.experiments)]
    if gameday.targets:
        check.problem("targets", f"{len(gameday.targets)} control apps", "none", "export it once for each, with service=")
    omitted = tuple(f"{problem.path}: {problem.allowed}" for problem in check.problems)
    if omitted and not omit:
        check.finish()
    return ToolkitGameDay(tuple(made), omitted)


def _exported(check: Checker, number: int, data: dict[str, Any], experiment: Experiment, service: str) -> dict[str, Any]:
    path = f"experiments[{number}]"
    probes = [toolkit.probe("recovered", True)]  # noqa: FBT003 - the value that is tolerated
    for index, each in enumerate(experiment.hypothesis):
        where = f"{path}.hypothesis[{index}]"
        if each.kind not in _FUNCTIONS:
            check.problem(where, each.name, f"a probe of {' or '.join(_FUNCTIONS)}", "the toolkit has no calls to look at")
        elif {*each.when} != {"before", "after"}:
            check.problem(where, each.name, "when = before and after", "the toolkit looks at both, and at no other time")
        else:
            limits = (-_FAR if each.minimum is None else each.minimum, _FAR if each.maximum is None else each.maximum)
            probes.append(toolkit.probe(_FUNCTIONS[each.kind], limits, slo=each.target))
    for name in ("abort", "gates"):
        if getattr(experiment, name):
            check.problem(f"{path}.{name}", f"{len(getattr(experiment, name))} of them", "none", "nobody would look at them")
    if experiment.groups is not None:
        check.problem(f"{path}.groups", experiment.groups, "None", "the toolkit knows no control group")
    # A game day seeds each experiment by its place, and by that it is decided which calls are struck.
    found = toolkit.to_chaostoolkit(
        experiment.seeded(data["seed"] + number).plan,
        title=experiment.name,
        description=data["name"],
        hypothesis={"title": f"{experiment.name}: the service is well", "probes": probes},
        service=service,
    )
    (action,) = found["method"]
    action["pauses"] = {"before": experiment.baseline, "after": experiment.inject_seconds + experiment.observe}
    # What is exported by itself is read back as a game day of one.
    kept = {**data, "experiments": [data["experiments"][number]]}
    found["extensions"] = [{"name": EXTENSION, "gameday": copy.deepcopy(kept), "number": number}]
    return found


def from_toolkit(experiments: Mapping[str, Any] | Iterable[Mapping[str, Any]], *, name: str = "") -> GameDay:
    """A game day of experiments of the toolkit, one or several in their order; nothing that they name is imported.

    What :func:`to_toolkit` has made comes back as it was; if somebody has changed it since, what he has changed is refused, for two
    accounts of one experiment cannot both be right: take the extension out to have the rest read. What was written by hand needs a
    hypothesis with a probe of ours (``burn_rate``, ``budget_left``); ``recovered`` goes without saying in a game day. ``name`` is
    that of the game day; by default that of the export, or the title of the first.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem and its path.
    """
    listed: Sequence[Any] = [experiments] if isinstance(experiments, Mapping) else [*experiments]
    check = Checker("toolkit")
    if not 0 < len(listed) <= _MOST:
        check.problem("experiments", f"{len(listed)} of them", f"1 to {_MOST} experiments")
    found = [_imported(check.child(f"experiments[{number}]"), each) for number, each in enumerate(listed[:_MOST])]
    check.finish()
    read = [each for each in found if each is not None]
    first = read[0].day
    # The whole of one export is that game day; of a part of it each keeps the seed that its place gave it.
    whole = [each.number for each in read] == [*range(len(read))] and len({(each.day.name, each.day.seed) for each in read}) == 1
    parts = [part for each in read for part in (each.day if whole else each.seeded).experiments]
    return GameDay(name or first.name, parts, seed=first.seed, go_on=first.go_on, targets=first.targets)


class _Read(NamedTuple):
    day: GameDay
    """A game day of one experiment, as it was."""
    number: int
    """The place that it had."""

    @property
    def seeded(self) -> GameDay:
        """With the seed that its place gave it."""
        return replace(self.day, experiments=tuple(each.seeded(self.day.seed + self.number) for each in self.day.experiments))


def _imported(check: Checker, data: Any) -> _Read | None:
    if not isinstance(data, Mapping):
        check.problem("", data, "an experiment of the Chaos Toolkit, as an object")
        return None
    try:
        kept = _extension(data)
        if kept is None:
            return _Read(_by_hand(Checker(), data), 0)
        day, number = GameDay.from_dict(kept["gameday"]), kept.get("number")
        if len(day.experiments) != 1 or not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < _MOST:
            check.problem("extensions", "not as it was exported", "one experiment and its place", f"or without {EXTENSION!r}")
            return None
        read, service = _Read(day, number), data.get("configuration")
        again = to_toolkit(
            read.seeded, service=str(service.get("somaresil_service", "")) if isinstance(service, Mapping) else "", omit=True
        )
        for part in ("title", "method", "steady-state-hypothesis", "rollbacks", "controls"):
            if again.experiments[0].get(part) != data.get(part):
                check.problem(part, "changed since it was exported", "as it was exported", f"or without the extension {EXTENSION!r}")
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            check.problem(problem.path, problem.value, problem.allowed, problem.hint)
        return None
    return read


def _extension(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    listed = data.get("extensions")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, Mapping) and each.get("name") == EXTENSION and isinstance(each.get("gameday"), Mapping):
            return each
    return None


def _by_hand(check: Checker, data: Mapping[str, Any]) -> GameDay:
    read = toolkit.from_chaostoolkit(data)
    probes = []
    for index, each in enumerate((read.hypothesis or {}).get("probes", ())):
        path, provider = f"steady-state-hypothesis.probes[{index}]", each["provider"]
        kind = _KINDS.get(provider["func"])
        if kind is not None:
            low, high = _limits(check, f"{path}.tolerance", each.get("tolerance"))
            target = str((provider.get("arguments") or {}).get("slo", ""))
            probes.append(Probe(kind, target, minimum=low, maximum=high, when=("before", "after")))
        elif provider["func"] != "recovered":
            allowed = f"one of {', '.join((*_KINDS, 'recovered'))}"
            check.problem(f"{path}.provider.func", provider["func"], allowed, "a game day has no such probe")
    if not probes:
        hint = "a game day needs to know what must stay true"
        check.problem("steady-state-hypothesis", "no such probe", f"a probe of {' or '.join(_KINDS)}", hint)
    check.finish()
    # What it waits before it starts anything is the baseline of a game day.
    waits = min((window.start for window in read.plan.windows), default=0.0)
    windows = [replace(window, start=window.start - waits) for window in read.plan.windows]
    return GameDay.from_dict(
        {
            "somaresil_gameday": VERSION,
            "name": read.title[:120],
            "experiments": [
                {
                    "name": read.title[:120],
                    "seed": read.plan.seed,
                    "faults": [window.as_dict() for window in windows],
                    **({"baseline": waits} if waits else {}),
                    "hypothesis": [each.as_dict() for each in probes],
                }
            ],
        }
    )


def _limits(check: Checker, path: str, tolerance: Any) -> tuple[float | None, float | None]:
    given: Any = tolerance.get("range") if isinstance(tolerance, Mapping) and tolerance.get("type") == "range" else tolerance
    ends: list[Any] = given if isinstance(given, list) else [given, given]
    if len(ends) != 2 or not all(isinstance(each, int | float) and not isinstance(each, bool) for each in ends):  # noqa: PLR2004
        check.problem(path, tolerance, "a number, or a range of two")
        return 0.0, 0.0
    low, high = map(float, ends)
    return (None if low <= -_FAR else low), (None if high >= _FAR else high)
