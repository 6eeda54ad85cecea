"""A game day: several experiments in their order, with gates between them, from a plan that is data, to one report."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from somaresil._version import __version__
from somaresil.config import Checker
from somaresil.errors import ConfigurationError, describe
from somaresil.gameday.experiment import Experiment, Gate, experiment_of, known, missing
from somaresil.gameday.figures import Log
from somaresil.gameday.probes import Functions, measure
from somaresil.gameday.remote import Remote
from somaresil.gameday.report import ExperimentReport, GameDayReport, GateReport, Status, finding_of
from somaresil.gameday.run import ExperimentPlay, Interrupted, Pauses
from somaresil.gameday.target import InProcess
from somaresil.resilience import Resilience
from somaresil.settings.files import DEEPEST, deeper_than, document_from_text, document_of

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable

    from somaresil.chaos.plan import Corrupters, ErrorMakers
    from somaresil.gameday.target import Target

__all__ = ["VERSION", "GameDay", "GameDayRun"]

VERSION: Final = 1
"""The version of the data form that this release writes, and the highest that it reads."""
_MOST: Final = 200
"""Experiments of a game day."""
_MOST_TARGETS: Final = 50
_FIELDS: Final = ("somaresil_gameday", "name", "seed", "go_on", "targets", "experiments")
_GOES_WRONG: Final = frozenset({Status.DEVIATED, Status.ABORTED, Status.FAILED, Status.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class GameDay:
    """Experiments in their order. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found."""

    name: str
    experiments: tuple[Experiment, ...]
    _: KW_ONLY
    seed: int = 0
    """The n-th experiment decides by this plus n, unless it has a seed of its own."""
    go_on: bool = False
    """Whether to go on after an experiment that deviated or was aborted."""

    targets: tuple[Remote, ...] = ()
    """Control apps of the processes that it is played with; none: this process."""

    if TYPE_CHECKING:
        # Kept as a tuple, taken as a list too.
        def __init__(
            self, name: str, experiments: Iterable[Experiment], *, seed: int = 0, go_on: bool = False, targets: Iterable[Remote] = ()
        ) -> None: ...

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker()
        if not isinstance(self.name, str) or not 0 < len(self.name.strip()) <= 120 or not self.name.isprintable():  # noqa: PLR2004
            check.problem("name", self.name, "a title of 1 to 120 printable characters")
        listed: Any = self.experiments
        if isinstance(listed, Experiment | str | Mapping) or not isinstance(listed, Iterable):
            check.problem("experiments", listed, "a list or tuple of Experiment", "also for a single one")
            listed = ()
        listed = tuple(listed)
        object.__setattr__(self, "experiments", listed)
        if not 0 < len(listed) <= _MOST:
            check.problem("experiments", f"{len(listed)} experiments", f"1 to {_MOST}")
        names: set[str] = set()
        for number, experiment in enumerate(listed):
            if not isinstance(experiment, Experiment):
                check.problem(f"experiments[{number}]", experiment, "an Experiment")
            elif experiment.name in names:
                check.problem(f"experiments[{number}].name", experiment.name, "a name of its own", "another one is called that")
            else:
                names.add(experiment.name)
        check.count("seed", self.seed, minimum=0, maximum=2**62)
        check.type("go_on", self.go_on, bool, "True or False")
        object.__setattr__(self, "targets", tuple(self.targets))
        if len(self.targets) > _MOST_TARGETS or not all(isinstance(each, Remote) for each in self.targets):
            check.problem("targets", f"{len(self.targets)} targets", f"at most {_MOST_TARGETS} of Remote")
        check.finish()

    @property
    def longest(self) -> float:
        """Seconds that it takes at most, without the time that somebody takes to confirm."""
        return sum(experiment.longest for experiment in self.experiments)

    # -- as data ----------------------------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """For TOML, YAML and JSON."""
        return {
            "somaresil_gameday": VERSION,
            "name": self.name,
            "seed": self.seed,
            **({"go_on": True} if self.go_on else {}),
            **({"targets": [each.as_dict() for each in self.targets]} if self.targets else {}),
            "experiments": [experiment.as_dict() for experiment in self.experiments],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GameDay:
        """Read a plan from what :meth:`as_dict` gives.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem and its path.
        """
        check = Checker("gameday")
        if isinstance(data, Mapping) and deeper_than(data, DEEPEST):
            check.problem("", "its depth", f"at most {DEEPEST} tables and lists within one another")
            check.finish()
        return _gameday(data, check)

    @classmethod
    def from_toml(cls, text: str) -> GameDay:
        """Read a plan that is written in TOML; as strict as :meth:`from_dict`."""
        return cls._of_text(text, ".toml")

    @classmethod
    def from_yaml(cls, text: str) -> GameDay:
        """Read a plan that is written in YAML, which needs PyYAML; as strict as :meth:`from_dict`.

        Refused as well: aliases, keys that stand twice, tags, several documents.
        """
        return cls._of_text(text, ".yaml")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> GameDay:
        """Read a plan from a file that ends in ``.toml``, ``.yaml`` or ``.yml``."""
        check = Checker()
        document = document_of(Path(path), check)
        check.finish()
        return _gameday(cast("Any", document).data, Checker(str(path)))

    @classmethod
    def _of_text(cls, text: str, form: str) -> GameDay:
        check = Checker()
        if not isinstance(text, str):
            check.problem("text", text, "text", "from_file reads a file")
            check.finish()
        document = document_from_text(text, form, "gameday", check)
        check.finish()
        return _gameday(cast("Any", document).data, Checker("gameday"))

    # -- playing ----------------------------------------------------------------------------------------------------------------------

    def play(
        self,
        target: Resilience | Target,
        *,
        probes: Mapping[str, Callable[[], Any]] | None = None,
        prometheus: Callable[[str], float | Awaitable[float | None] | None] | None = None,
        confirm: Callable[[str], bool | Awaitable[bool]] | None = None,
        drive: Callable[[], Awaitable[object]] | None = None,
        errors: ErrorMakers | None = None,
        corrupters: Corrupters | None = None,
        findings: Iterable[Any] | Callable[[], Iterable[Any]] = (),
        tell: Callable[[str], object] | None = None,
    ) -> GameDayRun:
        """Make ready to play it: ``await run()`` of what is returned plays it, ``interrupt(why)`` ends it.

        ``probes`` are the functions of ``callable`` probes, by name; ``prometheus`` answers a query with a number; ``confirm`` is asked the
        messages of gates, and without it those gates are closed. ``drive`` makes traffic, from before the first experiment until after
        the last. ``errors`` adds to the errors that the plan may name; ``corrupters`` are the functions that it may name for corrupted
        results. ``findings`` are added to the grades of the code under test, which are always taken in this process: objects with name,
        severity and evidence, or a function that is asked for them at the end. ``tell`` is told what happens, in words.
        """
        aimed: Target = InProcess(target, errors=errors, corrupters=corrupters) if isinstance(target, Resilience) else target
        return GameDayRun(self, aimed, Functions(probes, prometheus), confirm=confirm, drive=drive, findings=findings, tell=tell)

    async def run(self, target: Resilience | Target, **options: Any) -> GameDayReport:
        """Play it; ``options`` as in :meth:`play`. Cancelling it ends every fault.

        Raises :class:`~somaresil.errors.ConfigurationError` when a function that it needs was not handed in, before anything is done. What
        goes wrong after that is in the report.
        """
        return await self.play(target, **options).run()


def _gameday(data: object, check: Checker) -> GameDay:
    if not isinstance(data, Mapping):
        check.problem("", repr(data)[:80], "a table with somaresil_gameday, name and experiments")
        check.finish()
        raise TypeError(type(data))
    version = data.get("somaresil_gameday")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        check.problem("somaresil_gameday", version, f"the version of the format, {VERSION}", "is it a game day at all?")
    elif version > VERSION:
        check.problem("somaresil_gameday", version, f"at most {VERSION}", "it was written by a newer somaresil; upgrade this one")
        check.finish()
    known(check, data, _FIELDS)
    missing(check, data, ("name", "experiments"))
    listed = data.get("experiments", ())
    if not isinstance(listed, list | tuple):
        check.problem("experiments", listed, "a list of tables")
        listed = ()
    made = [experiment_of(each, check.child(f"experiments[{number}]")) for number, each in enumerate(listed[: _MOST + 1])]
    whole = all(each is not None for each in made) and bool(made)
    targets = _targets(data.get("targets", ()), check)
    found = None
    try:
        found = GameDay(
            data.get("name", "x"),
            [each for each in made if each is not None] if whole else [_STAND_IN],
            seed=data.get("seed", 0),
            go_on=data.get("go_on", False),
            targets=targets,
        )
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            check.problem(problem.path, problem.value, problem.allowed, problem.hint)
    if isinstance(data.get("experiments"), list | tuple) and not listed:
        check.problem("experiments", listed, "at least one table")
    check.finish()
    return cast("GameDay", found)


def _targets(data: object, check: Checker) -> list[Remote]:
    if not isinstance(data, list | tuple):
        # Not shown: an address may have a password in it.
        check.problem("targets", "no list", "a list of tables with url, and token_env or token_file")
        return []
    found: list[Remote] = []
    for number, each in enumerate(data[: _MOST_TARGETS + 1]):
        place = check.child(f"targets[{number}]")
        if not isinstance(each, Mapping):
            place.problem("", "no table", "a table with url, and token_env or token_file")
            continue
        names = ("url", "token_env", "token_file")
        for name in each:
            if name not in names:
                place.problem(str(name), "a value", f"one of {', '.join(names)}", "a token itself has no place in a plan")
        try:
            found.append(Remote(**{"url": "", **{name: each[name] for name in names if name in each}}))
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                place.problem(problem.path, problem.value, problem.allowed, problem.hint)
    return found


class GameDayRun:
    """A game day on its way."""

    def __init__(
        self,
        gameday: GameDay,
        target: Target,
        functions: Functions,
        *,
        confirm: Callable[[str], bool | Awaitable[bool]] | None,
        drive: Callable[[], Awaitable[object]] | None,
        findings: Iterable[Any] | Callable[[], Iterable[Any]],
        tell: Callable[[str], object] | None,
    ) -> None:
        """See :meth:`GameDay.play`."""
        self.gameday = gameday
        self._target = target
        self._functions = functions
        self._confirm = confirm
        self._drive = drive
        self._findings = findings
        self._tell = tell or _silent
        self._pauses: Pauses | None = None
        self._why: str | None = None
        self._broken: str | None = None
        """What has ended the traffic."""
        self._reports: list[ExperimentReport] = []
        self._gates: list[GateReport] = []

    def interrupt(self, why: str) -> None:
        """End every fault at once, and the game day as soon as its task runs; from any thread, and from signal handlers. Never raises."""
        self._why = self._why or why
        self._target.halt()
        pauses = self._pauses
        if pauses is not None:
            pauses.interrupt(why)

    async def check(self) -> None:
        """Raise :class:`~somaresil.errors.ConfigurationError` with every reason why it cannot be played here; nothing is done."""
        problems: list[Any] = []
        check = Checker("gameday")
        for number, experiment in enumerate(self.gameday.experiments):
            self._functions.note_missing(experiment.named_probes(f"experiments[{number}]."), check)
            try:
                await self._target.check(experiment.plan, experiment.groups)
            except ConfigurationError as wrong:
                problems += [problem for problem in wrong.problems if problem not in problems]
        if found := [*check.problems, *problems]:
            raise ConfigurationError(found)

    async def run(self) -> GameDayReport:
        """Play it, once."""
        check = Checker("gameday")
        for number, experiment in enumerate(self.gameday.experiments):
            self._functions.note_missing(experiment.named_probes(f"experiments[{number}]."), check)
        check.finish()
        clock = self._target.clock
        started_at, begin = clock.time(), clock.monotonic()
        self._pauses = Pauses(self._target)
        if self._why is not None:
            self._pauses.interrupt(self._why)
        driving = None if self._drive is None else asyncio.ensure_future(self._driven(self._drive))
        try:
            await self._target.open()
            await self._play(self._pauses)
        except Interrupted:
            self._tell("interrupted: every fault was ended")
        except OSError as lost:
            self._broken = describe(lost)
        finally:
            self._target.halt()
            if driving is not None:
                driving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await driving
            with contextlib.suppress(OSError):
                await self._target.close()
        self._fill_up()
        return GameDayReport(
            name=self.gameday.name,
            service=self._target.name,
            seed=self.gameday.seed,
            started_at=started_at,
            seconds=round(clock.monotonic() - begin, 6),
            experiments=tuple(self._reports),
            gates=tuple(self._gates),
            findings=tuple(finding_of(each) for each in self._found()),
            version=__version__,
            interrupted=self._why,
        )

    def _found(self) -> Iterable[Any]:
        given = self._findings() if callable(self._findings) else self._findings
        return (*(self._target.grades if isinstance(self._target, InProcess) else ()), *given)

    async def _driven(self, drive: Callable[[], Awaitable[object]]) -> None:
        try:
            await drive()
        except Exception as broken:  # noqa: BLE001 - traffic is the user's code; without it nothing can be shown
            self._broken = f"the traffic ended: {describe(broken)}"
            self._target.halt()
            if self._pauses is not None:
                self._pauses.interrupt(self._broken)

    async def _play(self, pauses: Pauses) -> None:
        for number, experiment in enumerate(self.gameday.experiments):
            pauses.look()
            if not self.gameday.go_on and any(report.status in _GOES_WRONG for report in self._reports):
                self._skip(experiment, "an experiment before it did not go well")
                continue
            closed = await self._closed_gate(experiment)
            pauses.look()
            if closed is not None:
                self._skip(experiment, f"the gate is closed: {closed}")
                continue
            play = ExperimentPlay(experiment.seeded(self.gameday.seed + number), self._target, self._functions, pauses, self._tell)
            report = await play.run()
            if report.status is Status.INTERRUPTED and self._broken is not None:
                report = replace(report, status=Status.FAILED, reasons=(self._broken,))
            self._reports.append(report)
            self._tell(f"{report.name}: {report.status.value}" + "".join(f"\n  {reason}" for reason in report.reasons))
            pauses.look()
            if experiment.pause and number + 1 < len(self.gameday.experiments):
                await pauses.wait(experiment.pause)

    def _skip(self, experiment: Experiment, why: str) -> None:
        self._reports.append(ExperimentReport(experiment.name, Status.SKIPPED, (why,)))
        self._tell(f"{experiment.name}: skipped, {why}")

    async def _closed_gate(self, experiment: Experiment) -> str | None:
        """Why the experiment may not begin; None: it may. Gates are asked in their order, and none after one that is closed."""
        for gate in experiment.gates:
            try:
                why = await self._asked(gate)
            except Exception as broken:  # noqa: BLE001 - what cannot be judged is closed
                why = f"it raised {describe(broken)}"
            self._gates.append(GateReport(experiment.name, gate.name, why is None, why or ""))
            if why is not None:
                return f"{gate.name}: {why}"
        return None

    async def _asked(self, gate: Gate) -> str | None:
        if gate.kind == "held":
            wrong = [report.name for report in self._reports if report.status is not Status.HELD]
            return f"{', '.join(wrong)} did not hold" if wrong else None
        if gate.kind == "confirm":
            if self._confirm is None:
                return "there is nobody to ask"
            answer: Any = self._confirm(gate.message)
            if inspect.isawaitable(answer):
                answer = await answer
            return None if answer is True else "the answer was no"
        if gate.probe is None:
            return "there is nothing to measure"
        log = Log(0.0)
        log.add(await self._target.read())
        reading = await measure(gate.probe, log.latest, self._functions)
        return None if reading.holds else reading.why

    def _fill_up(self) -> None:
        """Name every experiment of the plan in the report, those that nobody came to as well."""
        done = len(self._reports)
        for experiment in self.gameday.experiments[done:]:
            if self._broken is not None:
                self._reports.append(ExperimentReport(experiment.name, Status.FAILED, (self._broken,)))
            else:
                self._reports.append(ExperimentReport(experiment.name, Status.SKIPPED, (f"not reached: {self._why or 'it ended before'}",)))


def _silent(_: str) -> None:
    return None


def _stand_in() -> Experiment:
    from somaresil.chaos.plan import FaultWindow
    from somaresil.gameday.probes import Probe

    return Experiment("x", [FaultWindow("x", "error", 0, 1)], hypothesis=[Probe("ratio", "x", minimum=0)])


_STAND_IN: Final = _stand_in()
"""In the place of experiments that cannot be read, so that the rest is looked at too."""
