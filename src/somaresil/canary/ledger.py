"""What is known of a candidate beside its control: bad events as evidence, and counts for people and for the objective.

One :class:`CanaryLedger` belongs to one version. It holds two bets (:mod:`somaresil.model.evidence`), that the candidate is worse and that
it is not much worse, and the counts of both sides, and nothing of single requests but the keys of those who have had a bad event. Ledgers
of replicas add up exactly, whatever traffic each of them has seen.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from somaresil.config import Checker
from somaresil.model.evidence import BETTER, WORSE, Bet, against_objective, e_value
from somaresil.model.rollout import Verdict

__all__ = ["CanaryLedger", "Counts", "Finding", "Levels"]

_FORM: Final = 1
MOST_KEYS: Final = 100_000
"""Keys of users that a ledger remembers, 8 bytes each and what a set takes: 6 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """How sure one has to be. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found."""

    alpha: float = 0.01
    """Probability that a candidate which is no worse is ever rolled back, at most, however often one looks."""
    beta: float = 0.05
    """Probability that one which is ``worst`` times as bad ever passes, at most."""
    worst: float = 2.0
    """Risk ratio that is too much: to pass is to be shown to be below it."""
    allowed: float | None = None
    """Share of bad events that the objective allows: more of the candidate's own are no success, whatever the control does. None: any.

    Of users who keep to their side only those events count that came when all of them were with the candidate."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("Levels")
        for name in ("alpha", "beta"):
            check.number(name, getattr(self, name), minimum=1e-9, maximum=0.5)
        check.number("worst", self.worst, minimum=1.0, maximum=100.0, exclusive=True)
        if self.allowed is not None:
            check.number("allowed", self.allowed, minimum=0.0, maximum=1.0, exclusive=True)
        check.finish()


@dataclass(frozen=True, slots=True)
class Counts:
    """Good and bad events of both sides."""

    candidate_good: int = 0
    candidate_bad: int = 0
    control_good: int = 0
    control_bad: int = 0

    def minus(self, other: Counts) -> Counts:
        """What is more in this than in ``other``."""
        return Counts(
            self.candidate_good - other.candidate_good,
            self.candidate_bad - other.candidate_bad,
            self.control_good - other.control_good,
            self.control_bad - other.control_bad,
        )

    @property
    def candidate(self) -> int:
        """Events of the candidate."""
        return self.candidate_good + self.candidate_bad

    @property
    def control(self) -> int:
        """Events of the control."""
        return self.control_good + self.control_bad


@dataclass(frozen=True, slots=True)
class Finding:
    """What the evidence says now."""

    verdict: Verdict
    reason: str
    worse: float
    """Evidence that the candidate is worse, as an e-value: 1 at the beginning, 1 / alpha is enough."""
    not_much_worse: float
    """Evidence that it is not ``worst`` times as bad: 1 / beta is enough."""
    too_bad: float
    """Evidence that it does not meet the objective."""
    counts: Counts
    full: bool = False
    """Whether there were more users with a bad event than can be remembered: those beyond are no evidence."""


class CanaryLedger:
    """The evidence of one version. Safe to use from several threads."""

    def __init__(self, version: str, levels: Levels, *, sticky: bool = False) -> None:
        """Nothing was seen. ``sticky``: a user keeps to one side, so only his first bad event is evidence, and each event has a key.

        With persistent users every event of theirs would count as a new one: with 300 users 17 % of good candidates were rolled back at a
        nominal 1 %, and 0.3 % when only the first bad event of each counts.
        """
        self.version = version
        self.levels = levels
        self.sticky = sticky
        self._worse = Bet(1.0, WORSE)
        self._not_much_worse = Bet(levels.worst, [ratio for ratio in BETTER if ratio < levels.worst])
        self._counts = [0, 0, 0, 0]
        self._own = [0, 0]
        """Good and bad events of the candidate that the objective is asked about."""
        self._keys: set[bytes] = set()
        self._full = False
        self._lock = threading.RLock()

    def note(self, weight: float, *, candidate: bool, bad: bool, key: str | None = None) -> None:
        """One event, when the candidate got ``weight`` of the requests.

        A bad one without a key is no evidence when users are sticky: nobody knows whether it is the first.
        """
        with self._lock:
            self._counts[(0 if candidate else 2) + bad] += 1
            if candidate and self._is_asked_about(weight):
                self._own[bad] += 1
            if not bad or not 0.0 < weight < 1.0 or (self.sticky and not self._first(key)):
                return
            self._worse.bad(weight, candidate=candidate)
            self._not_much_worse.bad(weight, candidate=candidate)

    def _is_asked_about(self, weight: float) -> bool:
        """Whether the objective is about these events: of users who keep to their side those of all, but not those of a few.

        Of 30 users two may fail half of the time whatever serves them, while all 300 together meet the objective.
        """
        return not self.sticky or weight >= 1.0

    def count(self, weight: float, *, candidate_good: int = 0, candidate_bad: int = 0, control_good: int = 0, control_bad: int = 0) -> None:
        """So many events more, which somebody else has counted at this weight. Bad ones of sticky users are no evidence: they have no key.

        The weight may be the share of the candidate in these events (:meth:`~somaresil.model.evidence.Bet.bad`). With a weight of 0 or 1
        nothing is compared: they count, and the objective is asked about those of the candidate.
        """
        with self._lock:
            if self._is_asked_about(weight):
                self._own[0] += candidate_good
                self._own[1] += candidate_bad
            for place, more in enumerate((candidate_good, candidate_bad, control_good, control_bad)):
                self._counts[place] += more
            if not self.sticky:
                for bet in (self._worse, self._not_much_worse):
                    bet.bad(weight, candidate=True, times=candidate_bad)
                    bet.bad(weight, candidate=False, times=control_bad)

    def _first(self, key: str | None) -> bool:
        if key is None:
            return False
        short = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if short in self._keys:
            return False
        if len(self._keys) >= MOST_KEYS:
            self._full = True
            return False
        self._keys.add(short)
        return True

    @property
    def counts(self) -> Counts:
        """Events so far."""
        with self._lock:
            return _counts(self._counts)

    def finding(self, others: Iterable[CanaryLedger] = ()) -> Finding:
        """What the evidence says, together with that of ``others`` of the same version and levels.

        May be asked at any time, and acted upon at the first time that it says so.
        """
        sums, full = self.sums(), self.full
        for other in others:
            sums = [[one + more for one, more in zip(*pair, strict=True)] for pair in zip(sums, other.sums(), strict=True)]
            full = full or other.full
        counts = Counts(*(int(count) for count in sums[2]))
        worse, not_much_worse, good, bad = e_value(sums[0]), e_value(sums[1]), int(sums[3][0]), int(sums[3][1])
        levels = self.levels
        too_bad = 1.0 if levels.allowed is None else against_objective(good, bad, levels.allowed)
        # Of a candidate that is good in both senses each is expected to be 1, and so is their mean: one level for both of them.
        against = worse if levels.allowed is None else (worse + too_bad) / 2.0
        verdict, reason = Verdict.WAIT, f"no proof either way ({_told(counts)})"
        if against >= 1.0 / levels.alpha:
            verdict = Verdict.FAIL
            reason = (
                f"worse than the control ({_told(counts)}; e = {worse:.3g})"
                if worse >= too_bad or levels.allowed is None
                else f"more than {levels.allowed:.3g} of its events are bad ({_told(counts)}; e = {too_bad:.3g})"
            )
        elif not_much_worse >= 1.0 / levels.beta:
            verdict, reason = Verdict.PASS, f"not {levels.worst:g} times as bad as the control ({_told(counts)}; e = {not_much_worse:.3g})"
        return Finding(verdict, reason, worse, not_much_worse, too_bad, counts, full)

    @property
    def full(self) -> bool:
        """Whether there were more users with a bad event than can be remembered."""
        return self._full

    def sums(self) -> list[list[float]]:
        """What adds up: the logarithms of both bets, the counts, and those for the objective."""
        with self._lock:
            return [list(self._worse.logs), list(self._not_much_worse.logs), [*map(float, self._counts)], [*map(float, self._own)]]

    def add(self, other: CanaryLedger) -> None:
        """Add what another replica has seen of the same version.

        Raises :class:`~somaresil.errors.ConfigurationError` for another version or other levels: it would be a sum of unlike things.
        """
        check = Checker("CanaryLedger.add")
        for name in ("version", "levels", "sticky"):
            if getattr(self, name) != getattr(other, name):
                check.problem(name, getattr(other, name), f"that of this ledger ({getattr(self, name)})")
        check.finish()
        said = other.dump()
        with self._lock:
            self._worse.add(said["worse"])
            self._not_much_worse.add(said["not_much_worse"])
            self._counts = [one + more for one, more in zip(self._counts, said["counts"], strict=True)]
            self._own = [one + more for one, more in zip(self._own, said["own"], strict=True)]
            # Whoever keeps to one side keeps to one replica or not: who has had a bad event at two of them was counted at both.
            self._keys |= {bytes.fromhex(key) for key in said["keys"]}
            self._full = self._full or said["full"]

    def forget_lock(self) -> None:
        """This process is a fork: a thread that stayed behind may hold it."""
        self._lock = threading.RLock()

    def dump(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        with self._lock:
            return {
                "form": _FORM,
                "version": self.version,
                "sticky": self.sticky,
                "worst": self.levels.worst,
                "worse": list(self._worse.logs),
                "not_much_worse": list(self._not_much_worse.logs),
                "counts": list(self._counts),
                "own": list(self._own),
                "keys": sorted(key.hex() for key in self._keys),
                "full": self._full,
            }

    @classmethod
    def restore(cls, said: object, levels: Levels) -> CanaryLedger:
        """The ledger that :meth:`dump` gave. Raises :class:`~somaresil.errors.ConfigurationError` with everything that is wrong with it."""
        check = Checker("ledger")
        data: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
        if not isinstance(said, Mapping) or data.get("form") != _FORM:
            check.problem("form", data.get("form"), f"{_FORM}", "it is from another version of somaresil, or no ledger")
            check.finish()
        made = cls(str(data.get("version")), levels, sticky=data.get("sticky") is True)
        if data.get("worst") != levels.worst:
            check.problem("worst", data.get("worst"), f"{levels.worst:g}, as the levels have it", "begin anew")
        for name, many in (("worse", len(WORSE)), ("not_much_worse", len(made._not_much_worse.ratios))):
            logs = data.get(name)
            if not isinstance(logs, list) or len(logs) != many or not all(_is_number(log) for log in logs):
                check.problem(name, logs, f"{many} finite numbers")
        for name, many in (("counts", 4), ("own", 2)):
            counts = data.get(name)
            if not isinstance(counts, list) or len(counts) != many or not all(type(count) is int and count >= 0 for count in counts):
                check.problem(name, counts, f"{many} whole numbers from 0 on")
        keys = data.get("keys")
        if not isinstance(keys, list) or len(keys) > MOST_KEYS or not all(_is_key(key) for key in keys):
            check.problem("keys", keys, f"at most {MOST_KEYS} texts of 16 hexadecimal digits")
        check.finish()
        made._worse.logs = [float(log) for log in data["worse"]]
        made._not_much_worse.logs = [float(log) for log in data["not_much_worse"]]
        made._counts, made._own = list(data["counts"]), list(data["own"])
        made._keys = {bytes.fromhex(key) for key in data["keys"]}
        made._full = data.get("full") is True
        return made


def _counts(four: list[int]) -> Counts:
    return Counts(*four)


def _told(counts: Counts) -> str:
    return f"{counts.candidate_bad} of {counts.candidate} bad, control {counts.control_bad} of {counts.control}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_key(value: object) -> bool:
    if not isinstance(value, str) or len(value) != 16:  # noqa: PLR2004 - twice 8 bytes
        return False
    try:
        return len(bytes.fromhex(value)) == 8  # noqa: PLR2004
    except ValueError:
        return False
