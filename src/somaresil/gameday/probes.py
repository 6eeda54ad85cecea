"""The steady-state hypothesis: what is measured of a service, and within which limits it must lie.

A probe says what it looks at (``kind`` and ``target``) and what is tolerated (``minimum``, ``maximum``, both included). What cannot be
measured is unknown, and unknown does not hold: a hypothesis that nobody could look at was not confirmed.
"""

from __future__ import annotations

import inspect
from dataclasses import KW_ONLY, MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker, did_you_mean
from somaresil.errors import describe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from somaresil.gameday.figures import Figures

__all__ = ["KINDS", "MOMENTS", "Functions", "Probe", "Reading", "measure"]

KINDS: Final = ("ratio", "latency", "budget", "burn_rate", "prometheus", "callable")
MOMENTS: Final = ("before", "during", "after")

_LONGEST_QUERY: Final = 2_000
_LONGEST_WINDOW: Final = 900.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement and its tolerance.

    =============  ==============================================  ==========================================================
    kind           target                                          value
    =============  ==============================================  ==========================================================
    ``ratio``      guards by name or pattern, ``http:`` + route    share of the calls that ended well, 0 to 1
    ``latency``    as above                                        seconds: the ``quantile`` of their durations
    ``budget``     an objective                                    share of its error budget that is left, 1 to below 0
    ``burn_rate``  an objective                                    multiple of the sustainable burn in the time looked at
    ``prometheus`` a query                                         what the function ``prometheus`` answers
    ``callable``   the name of a function that was handed in       what it returns; True is 1, False is 0
    =============  ==============================================  ==========================================================

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found; paths are the field names.
    """

    kind: str
    target: str
    _: KW_ONLY
    minimum: float | None = None
    """The lowest value that is tolerated."""
    maximum: float | None = None
    """The highest value that is tolerated."""
    quantile: float = 0.95
    """Which one, for ``latency``."""
    window: float = 10.0
    """Seconds that are looked back on by abort conditions, and while the service recovers; other looks are at a whole phase."""
    minimum_calls: int = 1
    """With fewer calls or events than this nothing is known (``ratio``, ``latency``, ``burn_rate``)."""
    when: tuple[str, ...] = MOMENTS
    """When it must hold, as part of a hypothesis."""
    check: Callable[[], Any] | None = field(default=None, repr=False, compare=False)
    """The function of a ``callable`` probe itself, plain or a coroutine function, for probes made in code."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker()
        keep = object.__setattr__
        keep(self, "kind", check.one_of("kind", self.kind, KINDS))
        if self.kind == "prometheus":
            if not isinstance(self.target, str) or not 0 < len(self.target) <= _LONGEST_QUERY:
                check.problem("target", self.target, f"a query of 1 to {_LONGEST_QUERY} characters")
        else:
            check.pattern("target", self.target)
        if self.minimum is None and self.maximum is None:
            check.problem("minimum", None, "a number here or in maximum", "a probe without a tolerance always holds")
        for name in ("minimum", "maximum"):
            if (value := getattr(self, name)) is not None:
                keep(self, name, check.number(name, int(value) if isinstance(value, bool) else value, minimum=-1e15, maximum=1e15))
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            check.problem("minimum", self.minimum, f"at most the maximum, {self.maximum:g}")
        keep(self, "quantile", check.number("quantile", self.quantile, minimum=0.0, maximum=1.0, exclusive=True))
        keep(self, "window", check.seconds("window", self.window, maximum=_LONGEST_WINDOW))
        check.count("minimum_calls", self.minimum_calls, maximum=1_000_000_000)
        self._check_when(check)
        if self.check is not None and (self.kind != "callable" or not callable(self.check)):
            check.problem("check", self.check, "a function, for kind 'callable'; else None")
        check.finish()

    def _check_when(self, check: Checker) -> None:
        moments: Any = self.when
        if isinstance(moments, str) or not isinstance(moments, list | tuple) or not moments:
            check.problem("when", moments, f"some of {', '.join(MOMENTS)}", "a list, also for a single one")
            return
        for moment in moments:
            check.one_of("when", moment, MOMENTS)
        object.__setattr__(self, "when", tuple(moment for moment in MOMENTS if moment in moments))

    @property
    def name(self) -> str:
        """What it is called in reports: ``ratio of llm.* >= 0.99``."""
        what = f"p{self.quantile * 100:g}" if self.kind == "latency" else self.kind
        limits = [f">= {self.minimum:g}"] if self.minimum is not None else []
        limits += [f"<= {self.maximum:g}"] if self.maximum is not None else []
        target = self.target if len(self.target) <= 80 else f"{self.target[:77]}..."  # noqa: PLR2004 - a line of a report
        return f"{what} of {target} {' and '.join(limits)}"

    def as_dict(self) -> dict[str, Any]:
        """For TOML, YAML and JSON: what differs from the defaults. A function is only known by its name, the target."""
        shown: dict[str, Any] = {}
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name != "check" and (option.default is MISSING or value != option.default):
                shown[option.name] = list(value) if isinstance(value, tuple) else value
        return shown


@dataclass(frozen=True, slots=True)
class Reading:
    """What a probe has found at one moment."""

    probe: str
    value: float | None
    """None: it could not be measured."""
    holds: bool
    """Whether the value is known and tolerated."""
    why: str = ""
    """What is wrong, or unknown; empty when it holds."""

    @property
    def unknown(self) -> bool:
        """Whether there was nothing to measure."""
        return self.value is None


class Functions:
    """What the code hands in, because no file may name it: functions of ``callable`` probes, and who asks Prometheus."""

    def __init__(
        self,
        probes: Mapping[str, Callable[[], Any]] | None = None,
        prometheus: Callable[[str], float | Awaitable[float | None] | None] | None = None,
    ) -> None:
        """All of them may be plain functions or coroutine functions."""
        self.probes = dict(probes or {})
        self.prometheus = prometheus

    def note_missing(self, probes: Iterable[tuple[str, Probe]], check: Checker) -> None:
        """Note what the probes need, each under its path, and nobody has handed in."""
        for path, probe in probes:
            if probe.kind == "prometheus" and self.prometheus is None:
                check.problem(f"{path}.kind", probe.kind, "a function that asks it: prometheus=", "no file can name one")
            if probe.kind == "callable" and probe.check is None and probe.target not in self.probes:
                known = ", ".join(self.probes) or "there is none"
                hint = did_you_mean(probe.target, self.probes) or f"hand it in: probes={{{probe.target!r}: function}}"
                check.problem(f"{path}.target", probe.target, f"a function that was handed in ({known})", hint)


async def measure(probe: Probe, counted: Figures, functions: Functions) -> Reading:
    """What a probe finds in what was ``counted``. Raises nothing that a function raises: that is a reading that does not hold."""
    try:
        value, why = await _value(probe, counted, functions)
    except Exception as broken:  # noqa: BLE001 - whatever a function of the user's raises, the experiment must end in order
        return Reading(probe.name, None, holds=False, why=f"it raised {describe(broken)}")
    if value is None:
        return Reading(probe.name, None, holds=False, why=why)
    if probe.minimum is not None and value < probe.minimum:
        return Reading(probe.name, value, holds=False, why=f"{value:.6g} is below {probe.minimum:g}")
    if probe.maximum is not None and value > probe.maximum:
        return Reading(probe.name, value, holds=False, why=f"{value:.6g} is above {probe.maximum:g}")
    return Reading(probe.name, value, holds=True)


async def _value(probe: Probe, counted: Figures, functions: Functions) -> tuple[float | None, str]:
    if probe.kind in {"ratio", "latency"}:
        tally = counted.tally(probe.target)
        if tally.answered < probe.minimum_calls:
            return None, f"{tally.answered} calls, fewer than {probe.minimum_calls}: nothing is known"
        return (tally.ratio if probe.kind == "ratio" else tally.quantile(probe.quantile)), "nothing was measured"
    if probe.kind in {"budget", "burn_rate"}:
        objective = counted.objectives.get(probe.target)
        if objective is None:
            return None, "there is no such objective"
        if probe.kind == "budget":
            return objective.remaining, "no event was seen, so nothing is known"
        if objective.good + objective.bad < probe.minimum_calls:
            return None, f"{objective.good + objective.bad} events, fewer than {probe.minimum_calls}: nothing is known"
        return counted.burn_rate(probe.target), "no event was seen"
    answer: Any
    if probe.kind == "prometheus":
        answer = functions.prometheus(probe.target) if functions.prometheus is not None else None
    else:
        function = probe.check or functions.probes.get(probe.target)
        answer = function() if function is not None else None
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is None:
        return None, "it gave no answer"
    number = float(answer)
    return (number, "") if abs(number) <= 1e300 else (None, f"{number} is no measurement")  # noqa: PLR2004 - NaN and infinity
