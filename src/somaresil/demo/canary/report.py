"""What became of each version, what users had of it, and whether it went as it ought to. Plain data and arithmetic."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from somaresil.demo.canary.acts import Act
    from somaresil.demo.load import Sample

__all__ = ["ActResult", "CanaryReport", "Move", "Point", "Side", "bad", "result_of", "side_of", "sparkline"]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_COLUMNS: Final = 40
_STRAY: Final = 3
_BEHIND: Final = 0.5
_STRAY_SHARE: Final = 0.1


class Point(NamedTuple):
    """The evidence at one time."""

    at: float
    """Seconds since the version was started."""
    requests: int
    """That the candidate has answered so far."""
    bad: int
    worse: float
    """Evidence that it is worse than the control."""
    too_bad: float
    """Evidence that it does not meet the objectives."""
    weight: float

    @property
    def evidence(self) -> float:
        """What is held against the threshold: the mean of both."""
        return (self.worse + self.too_bad) / 2.0


class Move(NamedTuple):
    """The canary went on, or ended."""

    at: float
    """Seconds since the version was started."""
    step: str
    phase: str
    reason: str


@dataclass(frozen=True, slots=True)
class Side:
    """What users had of one version during an act. Latencies are seconds, from when a request was sent."""

    requests: int
    failed: int
    late: int
    """Answered in full, but after more time than the objective allows."""
    p50: float | None
    p95: float | None
    p99: float | None

    @property
    def bad(self) -> int:
        """Failed or late."""
        return self.failed + self.late


@dataclass(frozen=True, slots=True)
class ActResult:
    """What became of one version."""

    name: str
    version: str
    says: str
    wanted: str
    outcome: str
    """``rollback``, ``complete``, or the phase it was in when its time was up."""
    reason: str
    seconds: float | None
    """From its start until it was decided; None: it was not."""
    detection_seconds: float | None
    """From its first bad answer that a user got until it was rolled back; None: no such answer, or no rollback."""
    counted: dict[str, int]
    """Good and bad events as the gateway has counted them, when all was over."""
    candidate: Side
    control: Side
    bad_before: int
    """Bad answers of the candidate that users had got when it was decided."""
    after: int
    """Requests that were begun after a rollback, and answered by the candidate all the same."""
    unanswered: int
    """Requests that got no answer of either."""
    exact: bool
    """Whether the router has counted each request itself, and moves at once."""
    failures: dict[str, int]
    """What users saw go wrong with the candidate."""
    moves: tuple[Move, ...]
    curve: tuple[Point, ...]

    def problems(self) -> Iterable[str]:
        """Why it did not go as it ought to; nothing: it did."""
        if self.outcome != self.wanted:
            ended = f"it ended in {self.outcome}" if self.seconds is not None else f"nothing was decided, it is in {self.outcome}"
            yield f"{self.name}: {ended}, not in {self.wanted}: {self.reason}"
        if self.after:
            yield f"{self.name}: {self.after} requests went to it after it was rolled back"
        if not self.exact:
            return
        counted = self.counted["candidate_good"] + self.counted["candidate_bad"]
        for what, ours, theirs in (
            ("requests", counted, self.candidate.requests),
            ("bad requests", self.counted["candidate_bad"], self.candidate.bad),
        ):
            # A client that was slow itself sees a late answer where there was none.
            if self.outcome != "complete" and abs(ours - theirs) > max(_STRAY, _STRAY_SHARE * self.candidate.requests):
                yield f"{self.name}: the gateway has counted {ours} {what}, its users {theirs}"

    @property
    def evidence(self) -> float:
        """The most that there was."""
        return max((point.evidence for point in self.curve), default=1.0)


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """Everything, and the judgement."""

    version: str
    seed: int
    rate: float
    seconds: float
    router: str
    """Who has split the traffic."""
    threshold: float
    """So much evidence rolls a candidate back: 1 / alpha."""
    limit: float
    """Seconds within which an answer is in time."""
    acts: tuple[ActResult, ...]
    behind: float = 0.0
    """Seconds that the load generator itself was late, at most."""
    problems: tuple[str, ...] = field(init=False)
    """Why it was not as it ought to be; empty: it was."""

    def __post_init__(self) -> None:
        """Judge."""
        object.__setattr__(self, "problems", tuple(problem for act in self.acts for problem in act.problems()))

    @property
    def passed(self) -> bool:
        """Whether all versions ended as they ought to."""
        return not self.problems

    @property
    def hint(self) -> str | None:
        """What may have spoilt it; None: nothing that is known of."""
        if self.behind <= _BEHIND:
            return None
        return (
            f"requests began up to {self.behind:.1f} s late: this machine could not keep up with {self.rate:g} a second; try a lower --rate"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON: seconds, counts and shares."""
        return {
            "somaresil": self.version,
            "passed": self.passed,
            "problems": list(self.problems),
            "hint": self.hint,
            "seed": self.seed,
            "rate": self.rate,
            "seconds": round(self.seconds, 3),
            "router": self.router,
            "threshold": self.threshold,
            "limit": self.limit,
            "acts": [
                {
                    **asdict(act),
                    "candidate": {**asdict(act.candidate), "bad": act.candidate.bad},
                    "control": {**asdict(act.control), "bad": act.control.bad},
                    "moves": [move._asdict() for move in act.moves],
                    "curve": [{**point._asdict(), "evidence": point.evidence} for point in act.curve],
                }
                for act in self.acts
            ],
        }


def bad(sample: Sample, limit: float) -> bool:
    """Whether it is a bad answer for its user: none, or one that took too long."""
    return sample.failure is not None or sample.ended - sample.began > limit


def side_of(samples: Sequence[Sample], limit: float) -> Side:
    """Sum them up."""
    latencies = sorted(sample.ended - sample.began for sample in samples)
    failed = sum(sample.failure is not None for sample in samples)
    late = sum(bad(sample, limit) for sample in samples) - failed
    return Side(len(samples), failed, late, *(_quantile(latencies, share) for share in (0.5, 0.95, 0.99)))


def result_of(
    act: Act,
    samples: Sequence[Sample],
    state: dict[str, Any],
    points: Sequence[dict[str, float]],
    *,
    started: float,
    limit: float,
    reload: float | None = None,
) -> ActResult:
    """What became of a version. ``samples`` are the requests that were begun while it was there, ``state`` what the gateway says.

    ``reload``: seconds that the router may take for its moves; None: it is the gateway itself, which moves at once.
    """
    moves = tuple(Move(move["at"] - started, move["step"], move["phase"], move["reason"]) for move in state["moves"])
    decided = next((move.at for move in moves if move.step in {"rollback", "complete"}), None)
    sides = {side: [sample for sample in samples if sample.served_by == side] for side in ("candidate", "control")}
    wrong = [sample for sample in sides["candidate"] if bad(sample, limit)]
    first = min((sample.ended - started for sample in wrong), default=None)
    rolled_back = state["phase"] == "rollback" and decided is not None
    failures: dict[str, int] = {}
    for sample in wrong:
        what = f"{sample.kind}: {sample.failure or f'answered after more than {limit:g} s'}"
        failures[what] = failures.get(what, 0) + 1
    return ActResult(
        name=act.name,
        version=act.version,
        says=act.says,
        wanted=act.wanted,
        outcome=state["phase"],
        # What it says now is only that it is over.
        reason=moves[-1].reason if decided is not None else state["reason"],
        seconds=decided,
        # An answer that was still on its way when it was decided has told nobody.
        detection_seconds=None if not rolled_back or first is None or decided is None else max(0.0, decided - first),
        counted=dict(state["counts"]),
        candidate=side_of(sides["candidate"], limit),
        control=side_of(sides["control"], limit),
        bad_before=sum(decided is None or sample.ended - started <= decided for sample in wrong),
        after=sum(sample.began - started > decided + (reload or 0.0) for sample in sides["candidate"])
        if rolled_back and decided is not None
        else 0,
        unanswered=sum(not sample.served_by for sample in samples),
        exact=reload is None,
        failures=failures,
        moves=moves,
        curve=tuple(
            Point(point["at"] - started, int(point["candidate"]), int(point["bad"]), point["worse"], point["too_bad"], point["weight"])
            for point in points
        ),
    )


def sparkline(curve: Sequence[Point], threshold: float, columns: int = _COLUMNS) -> str:
    """The evidence over the requests of the candidate as blocks, from 1 (or less) to the threshold, in powers."""
    if not curve:
        return ""
    last = curve[-1].requests
    found, place = [], 0
    for column in range(columns):
        upto = last * (column + 1) / columns
        while place + 1 < len(curve) and curve[place + 1].requests <= upto:
            place += 1
        height = math.log(max(curve[place].evidence, 1.0)) / math.log(threshold)
        found.append(_BLOCKS[min(len(_BLOCKS) - 1, int(height * (len(_BLOCKS) - 1)))])
    return "".join(found)


def _quantile(ascending: Sequence[float], share: float) -> float | None:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))] if ascending else None
