"""Why a circuit is open, in words and figures: what was seen, and the threshold that it reached.

Pure: a rejection carries this text, so it is made once for each opening and never for each call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.model.breaker import Trigger

if TYPE_CHECKING:
    from somaresil.model.breaker import Tally, Thresholds

__all__ = ["why"]


def why(trigger: Trigger, tally: Tally, limits: Thresholds) -> str:
    """Why a circuit opened: ``12 of 20 calls failed in 30 s (60 % >= 50 %)``."""
    if trigger is Trigger.EXCEEDED:
        return _exceeded(tally, limits)
    if trigger is Trigger.RELAPSED:
        return _relapsed(tally, limits)
    return _OTHERWISE.get(trigger, trigger.value)


def _exceeded(tally: Tally, limits: Thresholds) -> str:
    calls = f"{tally.calls} calls" if limits.window_calls is None else f"the last {tally.calls} calls"
    within = f" in {limits.window:g} s" if limits.window_calls is None else ""
    if limits.consecutive_failures is not None and tally.consecutive >= limits.consecutive_failures:
        return f"{tally.failures} of {calls} failed{within}, {tally.consecutive} in a row (>= {limits.consecutive_failures})"
    failed = _compared(tally.failures, tally.calls, limits.failure_rate)
    if failed:
        return f"{tally.failures} of {calls} failed{within} {failed}"
    slow = _compared(tally.slow, tally.calls, limits.slow_call_rate)
    return f"{tally.slow} of {calls} took longer than {limits.slow_call_duration or 0.0:g} s{within} {slow}".rstrip()


def _relapsed(tally: Tally, limits: Thresholds) -> str:
    probes = f"{limits.half_open_calls} probe{'' if limits.half_open_calls == 1 else 's'}"
    failed = _compared(tally.failures, limits.half_open_calls, limits.failure_rate)
    if failed or (tally.failures and limits.failure_rate is None):
        return f"{tally.failures} of {probes} failed {failed}".rstrip()
    slow = _compared(tally.slow, limits.half_open_calls, limits.slow_call_rate)
    return f"{tally.slow} of {probes} took longer than {limits.slow_call_duration or 0.0:g} s {slow}".rstrip()


def _compared(part: int, whole: int, limit: float | None) -> str:
    """The share beside its limit, when the limit is reached."""
    if limit is None or not part or part / whole < limit:
        return ""
    return f"({100.0 * part / whole:.3g} % >= {100.0 * limit:.3g} %)"


_OTHERWISE = {
    Trigger.FATAL: "a call ended in a way that makes further calls pointless",
    Trigger.TRIP: "tripped for a while",
    Trigger.FLEET_OPENED: "opened in another process",
    Trigger.FORCE_OPEN: "forced open by an operator",
}
