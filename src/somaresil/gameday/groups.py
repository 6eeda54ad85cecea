"""Control against experiment: how the groups are made, and what may be concluded from their counts.

The verdict rests on the difference of the shares that ended well, with the interval of Newcombe (see :mod:`somaresil.model.proportion`):
the groups see the same load at the same time, so what differs is the fault. A difference that the interval leaves open is no proof in
either direction, and is reported as that.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, MISSING, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from somaresil.chaos.split import HEADER, KEYS
from somaresil.config import Checker
from somaresil.gameday.figures import Tally, summed
from somaresil.model.proportion import difference

if TYPE_CHECKING:
    from somaresil.gameday.figures import Figures

__all__ = ["Comparison", "Groups", "Judgement", "Side", "compare"]


@dataclass(frozen=True, slots=True)
class Groups:
    """A share of the traffic gets the fault, and as much does not. Raises :class:`~somaresil.errors.ConfigurationError`."""

    share: float = 0.05
    """Of all keys, in each of the two groups; at most a half."""
    by: str = "request"
    """What is kept together: ``request``, ``tenant`` or ``header:NAME``; see :class:`~somaresil.chaos.split.Split`."""
    _: KW_ONLY
    tolerance: float = 0.05
    """By how much the share of good ends of the experiment group may lie below that of the control group."""
    latency_tolerance: float | None = None
    """By how many seconds the 95th percentile of the experiment group may lie above that of the control group; None: it is not judged."""
    confidence: float = 0.95
    """Of the interval."""
    minimum_calls: int = 20
    """With fewer calls than this in a group nothing is concluded."""
    target: str | None = None
    """Guards (a pattern) or requests (``http:`` and a pattern over routes) that are compared; None: those at which the faults are aimed."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker()
        keep = object.__setattr__
        keep(self, "share", check.number("share", self.share, minimum=0.0, maximum=0.5))
        if not self.share:
            check.problem("share", self.share, "a share above 0 and at most 0.5", "each of the two groups is that large")
        by = self.by
        if not isinstance(by, str) or not (by in KEYS or (by.startswith(HEADER) and by.removeprefix(HEADER).isascii() and by != HEADER)):
            check.problem("by", by, "request | tenant | header:NAME")
        keep(self, "tolerance", check.ratio("tolerance", self.tolerance))
        keep(self, "latency_tolerance", check.seconds("latency_tolerance", self.latency_tolerance, optional=True, exclusive=False))
        keep(self, "confidence", check.number("confidence", self.confidence, minimum=0.5, maximum=0.9999))
        check.count("minimum_calls", self.minimum_calls, maximum=1_000_000_000)
        if self.target is not None:
            check.pattern("target", self.target)
        check.finish()

    def as_dict(self) -> dict[str, Any]:
        """For TOML, YAML and JSON: what differs from the defaults."""
        shown = {option.name: getattr(self, option.name) for option in fields(self)}
        return {
            option.name: shown[option.name] for option in fields(self) if option.default is MISSING or shown[option.name] != option.default
        }


class Judgement(StrEnum):
    """What the difference says."""

    HELD = "held"
    """The experiment group is not worse than is tolerated, with the confidence asked for."""
    DEVIATED = "deviated"
    """It is worse."""
    UNPROVEN = "unproven"
    """Neither was shown: too few calls, an interval that is too wide, or groups that were not kept apart."""


@dataclass(frozen=True, slots=True)
class Side:
    """One group."""

    calls: int
    good: int
    touched: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both groups, and what follows."""

    target: str
    experiment: Side
    control: Side
    outside: int
    """Calls and requests in neither."""
    difference: float | None
    """Share of good ends in the experiment group less that in the control group; None: one of them is empty."""
    low: float | None
    high: float | None
    p_value: float | None
    """Of the pooled two-proportion test; None where it cannot be made or its approximation does not hold."""
    judgement: Judgement
    why: str


def compare(groups: Groups, counted: Figures, targets: tuple[str, ...]) -> Comparison:
    """Judge what was ``counted`` while the faults were on; ``targets`` are those of the faults."""
    wanted = (groups.target,) if groups.target is not None else targets
    experiment, control = Tally(), Tally()
    for target in dict.fromkeys(wanted):
        experiment = experiment.plus(summed(counted.experiment, target))
        control = control.plus(summed(counted.control, target))
    found = difference(experiment.succeeded, experiment.answered, control.succeeded, control.answered, groups.confidence)
    judgement, why = _judge(groups, experiment, control)
    return Comparison(
        target=", ".join(dict.fromkeys(wanted)),
        experiment=_side(experiment),
        control=_side(control),
        outside=counted.outside,
        difference=None if found is None else found.value,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        p_value=None if found is None or not found.fair else found.p_value,
        judgement=judgement,
        why=why,
    )


def _side(tally: Tally) -> Side:
    return Side(tally.answered, tally.succeeded, tally.touched, tally.quantile(0.5), tally.quantile(0.95))


def _judge(groups: Groups, experiment: Tally, control: Tally) -> tuple[Judgement, str]:
    found = difference(experiment.succeeded, experiment.answered, control.succeeded, control.answered, groups.confidence)
    fewest = min(experiment.answered, control.answered)
    if found is None or fewest < groups.minimum_calls:
        return Judgement.UNPROVEN, f"{fewest} calls in the smaller group, fewer than {groups.minimum_calls}"
    if control.touched:
        # A circuit that the experiment group has opened refuses the control group too: then both have got the fault.
        return Judgement.UNPROVEN, f"{control.touched} calls of the control group were touched: the groups share a circuit or a limit"
    interval = f"{found.value:+.1%} ({found.low:+.1%} to {found.high:+.1%} with {groups.confidence:.0%} confidence)"
    if found.high < -groups.tolerance:
        return Judgement.DEVIATED, f"good ends differ by {interval}, and {-groups.tolerance:.1%} is tolerated"
    slower = _slower(experiment, control)
    if groups.latency_tolerance is not None and slower is not None and slower > groups.latency_tolerance:
        return Judgement.DEVIATED, f"the 95th percentile is {slower:.3g} s above that of the control group"
    if found.low < -groups.tolerance:
        return Judgement.UNPROVEN, f"good ends differ by {interval}: too few calls to tell, {-groups.tolerance:.1%} is tolerated"
    return Judgement.HELD, f"good ends differ by {interval}, within {-groups.tolerance:.1%}"


def _slower(experiment: Tally, control: Tally) -> float | None:
    ours, theirs = experiment.quantile(0.95), control.quantile(0.95)
    return None if ours is None or theirs is None else ours - theirs
