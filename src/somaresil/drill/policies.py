"""The policies that are meant to absorb the faults, in one place: so that a drill of a stack without them can be run too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from somaresil.policy.breaker import CircuitBreaker

if TYPE_CHECKING:
    from somaresil.policy.timeout import Timeout

__all__ = ["BREAKER", "LATE", "Policies"]

LATE: Final = 2.5
"""Seconds after which an answer is too late for a user: the objective of the gateways."""

BREAKER: Final = CircuitBreaker(
    failure_rate=0.5, window=2.0, minimum_calls=4, open_duration=0.3, open_maximum=0.8, half_open_calls=1, probe_timeout=0.8
)
"""As everywhere, but for short times: a drill has two hundred faults to come back from."""


@dataclass(frozen=True, slots=True)
class Policies:
    """What the guards of the stack are made with. Times are seconds, and get shorter from the users inwards."""

    attempts: int = 2
    """Endpoints that a call may be made on."""
    breaker: CircuitBreaker | None = BREAKER
    fallback: bool = True
    """Whether a gateway answers something when nobody can be had, and writes wait in an outbox."""
    hedge: float | None = 0.2
    """After how long without an answer a read of the memory is made on another instance as well."""
    resume: int = 4
    """How often a stream that breaks is gone on with elsewhere."""
    timeouts: bool = True
    balance: bool = True
    """Whether the load balancer in front asks another gateway when one fails."""

    @classmethod
    def none(cls) -> Self:
        """No policy at all: guards that only count. What the judge must not let pass."""
        return cls(attempts=1, breaker=None, fallback=False, hedge=None, resume=0, timeouts=False, balance=False)

    def pool(self, timeout: float | Timeout | None) -> dict[str, Any]:
        """Options of a pool: who is slow is forgotten soon, for the next fault is another one."""
        options: dict[str, Any] = {"attempts": self.attempts, "latency_decay": 0.25, "slow_start": 0.2, "ejection": False}
        return {**options, **self.guard(timeout)}

    def guard(self, timeout: float | Timeout | None) -> dict[str, Any]:
        """Options of a guard."""
        options: dict[str, Any] = {} if self.breaker is None else {"breaker": self.breaker}
        return options if timeout is None or not self.timeouts else {**options, "timeout": timeout}
